"""`python -m search_spaces.check`: hold a space to the laws, and show what it contains."""
