"""A training on several workers: who has which part, and what they say to one another."""
