"""`python -m scaling_search.compare`: single dimensions against compound scaling, at equal MACs."""
