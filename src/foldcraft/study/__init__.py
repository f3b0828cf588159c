"""What there is to know before and beside a training: diagnosis, comparison, sweeps, audit, checks."""
