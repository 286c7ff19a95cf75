"""From frames and prompts in pixels to masks."""
