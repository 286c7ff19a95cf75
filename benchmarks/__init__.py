"""Measurements of speed and memory, beside the reference implementation where there is something to compare."""
