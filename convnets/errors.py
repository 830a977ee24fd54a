"""The one exception that means "the user can mend this"."""


class InputError(ValueError):
    """Input that a person gave is wrong; the message is one line naming the culprit and what is allowed.

    Commands print it and exit 2. Every other exception is a bug and keeps its traceback.
    """
