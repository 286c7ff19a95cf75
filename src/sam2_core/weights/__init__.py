"""Checkpoints: which there are (`table`), where they are and how they get there (`download`, `hub`), how they load
(`checkpoints`)."""
