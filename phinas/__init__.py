"""Search for a small ConvNet under a compute budget, search how to scale it, and generate the family."""

__version__ = "0.2.0"
