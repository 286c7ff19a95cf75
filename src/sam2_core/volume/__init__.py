"""Volumes with named axes, and the sessions that segment them."""
