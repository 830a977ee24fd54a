"""How a network learns: data, augmentation, recipe, and one training loop."""
