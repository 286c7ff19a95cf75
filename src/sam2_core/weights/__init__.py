"""Checkpoints: where they are, how they load."""
