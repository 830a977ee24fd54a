"""The pictures of a search, one a file."""
