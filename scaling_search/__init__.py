"""The scaling search: how depth, width and resolution of a network should grow together."""

from phinas.command.hidden import refuse_where_hidden

refuse_where_hidden()  # before anything below imports another of them
