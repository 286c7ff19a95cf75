"""The models, and the queue in front of them."""
