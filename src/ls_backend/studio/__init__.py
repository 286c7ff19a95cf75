"""Label Studio as this server sees it: its API, and the files that tasks name."""
