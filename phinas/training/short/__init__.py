"""The short training by which a search scores a candidate."""
