"""Volumes as tasks, plane by plane, and their labels back."""
