"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phinas.files.errors import CannotWrite


def write_atomically(path: Path | str, content: str | bytes) -> None:
    """Write to a temporary file beside `path`, force it to disk, and rename it into place.

    Raises CannotWrite naming `path`; what was there before is there still.
    """
    data = content.encode() if isinstance(content, str) else content
    with writing(path):
        _write(Path(path), data)


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """For code that writes to `path`: what the system refuses is raised as CannotWrite, which names the file."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(error.errno, error.strerror, str(path)) from None


def _write(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's 0600 would lock out colleagues on shared storage
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Force a folder's list of names to disk; a new file whose name is lost is lost."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)  # the only way to read it is to set it
    os.umask(mask)
    return mask
