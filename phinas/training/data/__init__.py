"""Where images come from, and batches of them."""
