"""What may be searched: spaces of named discrete decisions, each of which decodes to a network."""
