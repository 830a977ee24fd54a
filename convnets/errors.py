"""The exceptions that somebody expects: what a user can mend, and what a device cannot run."""


class InputError(ValueError):
    """Input that a person gave is wrong; the message is one line naming the culprit and what is allowed.

    Commands print it and exit 2. Every other exception is a bug and keeps its traceback.
    """


class DoesNotFit(Exception):
    """A device cannot run a network, for want of memory mostly: expected, and no fault of anybody's."""
