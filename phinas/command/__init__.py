"""What commands are told: the YAML groups, and how a command line becomes a configuration and a run folder."""
