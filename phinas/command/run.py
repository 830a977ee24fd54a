"""The frame of every command: one line and an exit code when something is wrong."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from phinas.command.groups import CONFIG_FOLDER
from phinas.command.hidden import check_not_hidden
from phinas.files.errors import CannotWrite, InputError, RunFailed, one_line

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(command: Callable[[Sequence[str]], int | None], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 failed, 2 bad input, 130 interrupted.

    Bad input, a full disk and an engine that gave way are one line on standard error; what is unexpected keeps its
    traceback.

    arguments  None: this process's.
    """
    _working_folder_last()
    signal.signal(signal.SIGTERM, _interrupt)  # a scheduler that ends a job is as polite as Ctrl-C
    try:
        check_not_hidden()
        sys.exit(command(sys.argv[1:] if arguments is None else arguments) or 0)
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except (CannotWrite, RunFailed) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # of a path that was typed
            print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
            sys.exit(2)
        if error.errno not in _FULL:
            raise
        # Of a file that a library writes, or of the log to which standard output goes.
        print(f"error: {error.filename or 'a file'} cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _working_folder_last() -> None:
    """People's own spaces and evaluators live where they type the command; they are found after what is installed.

    `python -m` puts that folder first, where a `copy.py` of theirs would be taken for Python's. Behind it comes a
    checkout that we run from alone, which holds more than our packages: `tests`, `examples`.
    """
    here = os.getcwd()
    last = [here] if CONFIG_FOLDER.parent.name == "phinas" else [here, str(CONFIG_FOLDER.parent)]
    sys.path[:] = [place for place in sys.path if (place or here) not in last] + list(dict.fromkeys(last))


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
