"""Faults that a search has to survive: what `nas.selftest` does to real searches, and what it then looks for."""
