"""`python -m phinas.transfer`: networks fine-tuned on several data sets."""
