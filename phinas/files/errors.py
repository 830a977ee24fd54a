"""The exceptions that somebody expects: what a user can mend, a full disk, and what a device cannot run."""


class InputError(ValueError):
    """Input that a person gave is wrong; the message is one line naming the culprit and what is allowed.

    Commands print it and exit 2. Every other exception is a bug and keeps its traceback.
    """


class CannotWrite(OSError):
    """A file of ours cannot be written: no room is left, its folder is gone or is not for writing.

    Commands print it in one line and exit 1: they did what they could. `kept` is what they add: what is safe, and how
    to go on.
    """

    kept: str | None = None

    def __str__(self) -> str:
        said = f"{self.filename} cannot be written: {self.strerror}"
        return f"{said}; {self.kept}" if self.kept else said


class RunFailed(Exception):
    """What a command runs on gave way, as Ray when its server dies: neither input that is wrong nor a bug of ours.

    Commands print it in one line and exit 1. `kept` is what they add: what is safe, and how to go on.
    """

    kept: str | None = None

    def __str__(self) -> str:
        said = super().__str__()
        return f"{said}; {self.kept}" if self.kept else said


class DoesNotFit(Exception):
    """A device cannot run a network, for want of memory mostly: expected, and no fault of anybody's."""


def one_line(error: BaseException | str) -> str:
    """A message of several lines, as Hydra's are, as one."""
    return " ".join(str(error).split())
