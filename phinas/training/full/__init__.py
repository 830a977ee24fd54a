"""Training to the end: recipes, steps, checkpoints."""
