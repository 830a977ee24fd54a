"""Files, and what is read from them: errors, checks, atomic writing, YAML, provenance."""
