"""`python -m phinas.cam`: where in an image networks see what they name."""
