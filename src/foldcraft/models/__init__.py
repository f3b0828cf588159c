"""Pretrained nets: how they are built, fine-tuned, saved, and what their features are."""
