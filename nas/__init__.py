"""The architecture search: controllers propose, evaluators measure, engines run, the journal remembers."""
