"""Images, stacks and videos that were fetched, as pixels."""
