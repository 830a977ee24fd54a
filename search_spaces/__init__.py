"""What may be searched: spaces of named discrete decisions, each of which decodes to a network."""

from phinas.command.hidden import refuse_where_hidden

refuse_where_hidden()  # before anything below imports another of them
