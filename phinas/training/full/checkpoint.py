"""Checkpoints of a run: whole or not at all, listed with their hashes, and read without running what is in them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phinas.files.atomic_file import write_atomically
from phinas.files.errors import InputError

LIST = "checkpoints.json"
_KEPT = 2  # the newest; one more where the best is older


@dataclass(frozen=True)
class Checkpoint:
    """A file of the list.

    file      its name in the folder.
    step      steps taken.
    epochs    epochs finished.
    accuracy  on the images held out, after the last of these; None where steps have been taken since.
    sha256    of its bytes, in hex.
    bytes     how many there are.
    """

    file: str
    step: int
    epochs: int
    accuracy: float | None
    sha256: str
    bytes: int


def save(folder: Path, state: Mapping[str, Any], settings: Mapping[str, Any], accuracy: float | None) -> None:
    """Write `state`, tensors and numbers with `step` and `epochs` among them, as a file of the folder, and list it.

    settings  what must be the same in a run that goes on from it; the list says it for all.
    accuracy  as `Checkpoint` has it.

    Afterwards the newest two and the best are there; whenever the process is killed, what the list names is whole.
    """
    step, epochs = state["step"], state["epochs"]
    before = [checkpoint for checkpoint in listed(folder) if (checkpoint.step, checkpoint.epochs) <= (step, epochs)]
    if before and (before[-1].step, before[-1].epochs) == (step, epochs):
        return  # a file is never written twice: between it and the list its hash would be wrong
    content = io.BytesIO()
    torch.save(dict(state), content)
    data = content.getvalue()
    new = Checkpoint(f"epoch_{epochs:04d}_step_{step:08d}.pt", step, epochs, accuracy, _hash(data), len(data))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / new.file, data)
    everything = [*before, new]
    to_keep = everything[-_KEPT:]
    if (highest := best_of(everything)) is not None and highest not in to_keep:
        to_keep = [highest, *to_keep]
    _write(folder, settings, to_keep)
    names = {checkpoint.file for checkpoint in to_keep}
    for file in folder.glob("*epoch_*.pt*"):  # the dropped ones, and what a killed process left behind
        if file.name not in names:
            file.unlink(missing_ok=True)


def listed(folder: Path) -> list[Checkpoint]:
    """The checkpoints of the folder, oldest first. Raises InputError for a list that cannot be read."""
    return [Checkpoint(**entry) for entry in _read(folder)["checkpoints"]]


def best_of(checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
    """The last of those with the highest accuracy; None where none was scored."""
    scored = [checkpoint for checkpoint in checkpoints if checkpoint.accuracy is not None]
    return max(scored, key=lambda checkpoint: (checkpoint.accuracy, checkpoint.epochs), default=None)


def settings_of(folder: Path) -> dict[str, Any] | None:
    """With what the run of the folder trains; None where there are no checkpoints."""
    settings: dict[str, Any] | None = _read(folder)["settings"]
    return settings


def load_newest(folder: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The state in the newest whole checkpoint; None where none is listed.

    `say` is told of damaged ones, which are struck off the list. Raises InputError where all are damaged.
    """
    checkpoints = listed(folder)
    for count in range(len(checkpoints), 0, -1):
        try:
            state = load(folder, checkpoints[count - 1])
        except InputError as error:
            if count == 1:
                raise InputError(f"{error}, and no other is whole; remove {folder} to begin anew") from None
            say(f"warning: {error}; going on from the one before, {checkpoints[count - 2].file}")
        else:
            if count < len(checkpoints):
                _write(folder, settings_of(folder) or {}, checkpoints[:count])
            return state
    return None


def best(folder: Path) -> Checkpoint:
    """The best of the folder. Raises InputError where none was scored."""
    highest = best_of(listed(folder))
    if highest is None:
        raise InputError(f"{folder}: no checkpoint that was scored")
    return highest


def load(folder: Path, one: Checkpoint) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU. Raises InputError where its bytes are not those that were written.

    Nothing in it is run, whoever wrote it.
    """
    path = folder / one.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if _hash(data) != one.sha256:
        raise InputError(f"{path}: damaged: its SHA-256 is not the one in {LIST}")
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return {name: state[name] for name in state}
    except Exception as error:  # it was not saved by `save`, and its readers raise whatever their parts do
        reason = "which might run code" if "unsupported" in str(error).lower() else type(error).__name__
        raise InputError(f"{path}: holds something else than tensors and numbers ({reason})") from None


def check_same_network(state: Mapping[str, Tensor], ours: Mapping[str, Tensor], source: str) -> None:
    """InputError, naming `source` and the first parameters that differ, unless names and shapes are the same."""
    differences = [f"{name} is missing" for name in ours if name not in state]
    differences += [f"{name} is unknown" for name in state if name not in ours]
    differences += [
        f"{name} is {list(state[name].shape)}, the network's {list(ours[name].shape)}"
        for name in ours
        if name in state and state[name].shape != ours[name].shape
    ]
    if differences:
        shown = "; ".join(differences[:3]) + (f"; ... ({len(differences)} in all)" if len(differences) > 3 else "")
        raise InputError(f"{source}: of another network: {shown}")


def _write(folder: Path, settings: Mapping[str, Any], checkpoints: Sequence[Checkpoint]) -> None:
    content = {"settings": dict(settings), "checkpoints": [asdict(checkpoint) for checkpoint in checkpoints]}
    write_atomically(folder / LIST, json.dumps(content, indent=2) + "\n")


def _read(folder: Path) -> dict[str, Any]:
    path = folder / LIST
    if not path.exists():
        return {"settings": None, "checkpoints": []}
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        for entry in content["checkpoints"]:
            if Path(Checkpoint(**entry).file).name != entry["file"]:
                raise ValueError("a checkpoint that is not in its folder")
        return {"settings": content["settings"], "checkpoints": content["checkpoints"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: damaged; remove {folder} to begin anew") from None


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
