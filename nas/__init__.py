"""The architecture search: controllers propose, evaluators measure, engines run, the journal remembers."""

from phinas.command.hidden import refuse_where_hidden

refuse_where_hidden()  # before anything below imports another of them
