"""Models as they are trained."""
