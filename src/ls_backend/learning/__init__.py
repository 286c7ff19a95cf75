"""Annotations come into the label store, and train models."""
