"""Training and fine-tuning of SAM 2.1."""
