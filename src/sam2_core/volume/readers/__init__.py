"""One module per file format; each has ``read(path, level) -> Stored``."""
