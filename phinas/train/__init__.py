"""`python -m phinas.train`: one network, trained to the end."""
