"""Labelled image sets, their split into training and validation, and the clips a training step is made of."""
