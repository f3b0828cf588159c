"""What a person sees: command line, terminal, W&B, HTML report. Nothing is computed here."""
