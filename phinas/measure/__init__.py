"""`python -m phinas.measure`: how fast networks are here."""
