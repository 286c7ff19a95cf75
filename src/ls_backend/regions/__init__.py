"""Label Studio's regions as prompts, and masks as regions."""
