"""`python -m phinas.generate`: families of networks, by published tables, formulas or constants of one's own."""
