"""The scaling search: how depth, width and resolution of a network should grow together."""
