"""The folder of one run: `runs/NAME/`, its lock, and where its results came from."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import yaml

from phinas.files.atomic_file import sync_folder, write_atomically, writing
from phinas.files.errors import InputError
from phinas.files.moved import renamed
from phinas.files.yaml_file import read_yaml

RUNS = Path("runs")
_LOCK = ".lock"
_RESULTS = ("config.yaml", "summary.json", "journal.jsonl", "study.db", "settings.json", "results.csv")


def run_folder(name: str | None) -> Path:
    """Where a run of this name lives; nothing is created. No name: a timestamp.

    Raises InputError for a name that is more than a plain folder name, so that a run cannot leave `runs/`; and for a
    folder with links in it, or whose config.yaml is damaged. `runs` and the folder itself may be links: people
    keep runs on other disks.
    """
    if name is None:
        name = datetime.now().strftime("%Y%m%d-%H%M%S")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", str(name)):
        raise InputError(f"name={name}: a run's name has letters, digits, '.', '_' and '-' only, and no folders")
    folder = RUNS / str(name)
    for place in (RUNS, folder):
        if os.path.lexists(place) and not place.is_dir():
            raise InputError(f"name={name}: {place} is there already, and no folder")
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.is_symlink():  # in a folder that somebody sent, it could lead to files of the user's
            raise InputError(f"name={name}: {file} is a link; what is in a run's folder must be its own")
    _provenance_before(folder)
    return folder


def begun(folder: Path, state: str) -> bool:
    """Whether the folder holds `state`, the file by which a command knows its own run; changes nothing.

    Raises InputError where it holds results of another command instead.
    """
    if (folder / state).exists():
        return True
    if any((folder / file).exists() for file in _RESULTS):
        raise another_commands(folder)
    return False


def another_commands(folder: Path) -> InputError:
    """What to raise where the results in the folder are not of the command that was typed."""
    return InputError(f"name={folder.name}: {folder} holds another command's results; give another name=")


def empty(folder: Path) -> bool:
    """Whether nothing was written there, but for a lock."""
    return not folder.exists() or all(path.name.startswith(".") for path in folder.iterdir())


def check_unlocked(folder: Path) -> None:
    """InputError naming the owner where another process holds the folder; nothing is written."""
    if (folder / _LOCK).exists():
        with _lock_file(folder) as file:
            _take(file, folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder, creating it, so that no second process writes to it.

    The system frees the lock when its owner dies, however it dies. Raises InputError naming the owner.
    """
    with _lock_file(folder) as file:  # held open as long as the lock
        _take(file, folder)
        owner = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n".encode()
        with writing(folder / _LOCK):  # over the owner before, for which a full disk has room
            os.pwrite(file.fileno(), owner, 0)
            os.truncate(file.fileno(), len(owner))
        yield


def _lock_file(folder: Path) -> TextIO:
    try:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for above in folder.parents[:2]:  # or a loss of power could take the folder, with all that is safe in it
                sync_folder(above)
        return open(folder / _LOCK, "r+", opener=lambda path, flags: os.open(path, flags | os.O_CREAT, 0o666))
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from None


def _take(file: TextIO, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{folder} is in use by {file.read().strip() or 'another process'}") from None
    except OSError as error:
        raise InputError(f"{folder} cannot be locked: {error.strerror}") from None


def write_config(folder: Path, settings: Mapping[str, Any]) -> None:
    """`config.yaml`: the settings, and as `provenance` what each run of the command ran on and with."""
    text = yaml.safe_dump({**settings, "provenance": [*_provenance_before(folder), provenance()]}, sort_keys=False)
    write_atomically(folder / "config.yaml", text)


def read_config(folder: Path) -> Any:
    """What is in `config.yaml`, by the names of today; None where there is none. InputError where it is damaged."""
    path = folder / "config.yaml"
    return renamed(read_yaml(path, lambda content: content)) if path.exists() else None


def _provenance_before(folder: Path) -> list[Any]:
    """Of the runs of the command until now. Raises InputError for a config.yaml that is damaged."""
    path = folder / "config.yaml"
    content = read_yaml(path, lambda content: content) if path.exists() else {}
    earlier = content.get("provenance", []) if isinstance(content, dict) else None
    if not isinstance(earlier, list):
        raise InputError(f"{path}: damaged: it is no configuration of a run; move it away, or give another name=")
    return earlier


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """A mapping as readable JSON."""
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def provenance() -> dict[str, Any]:
    """Versions, git revision, hardware and command line of this process."""
    packages = ("phinas", "torch", "ray", "optuna", "numpy", "pandas", "hydra-core", "scikit-learn")
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {package: version_of(package) for package in packages},
        "git": _git_revision(),
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "gpus": _gpus(),
        },
    }


def version_of(package: str) -> str | None:
    """Of an installed package; None where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """Revision of the source tree that runs, with "-dirty" for uncommitted changes; None for an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, check=True, timeout=10,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _gpus() -> list[str]:
    """Names of the CUDA devices; asked of torch only where it is already loaded, since loading it takes seconds."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
