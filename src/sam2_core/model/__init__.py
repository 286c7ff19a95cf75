"""The modules of SAM 2.1: tensors in, tensors out."""
