"""The command line, `sam2`."""
