"""The pictures of a scaling search, one a file."""
