"""The architecture search: controllers propose, evaluators measure, engines run, the journal remembers.

It stands on `phinas` (networks, engines, training) and `search_spaces`; neither knows of it.
"""

from phinas.command.hidden import refuse_where_hidden

refuse_where_hidden()  # before anything below imports another of them
