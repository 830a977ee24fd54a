"""Evaluators measure networks: by training a proxy, or by looking at results that others published."""
