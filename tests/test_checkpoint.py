"""Checkpoints: which are kept, what happens to damaged ones, and to those of another network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from phinas.files.errors import InputError
from phinas.training.full.checkpoint import (
    LIST,
    best,
    best_of,
    check_same_network,
    listed,
    load,
    load_newest,
    save,
    settings_of,
)

SETTINGS = {"seed": 0, "recipe": {"lr": 0.1}}


def state(step: int, epochs: int) -> dict[str, Any]:
    return {"step": step, "epochs": epochs, "module": {"weight": torch.full((3,), float(step))}}


def saved(folder: Path, *accuracies: float | None) -> None:
    """A checkpoint each; those without an accuracy lie within an epoch."""
    epochs = 0
    for number, accuracy in enumerate(accuracies, start=1):
        epochs += accuracy is not None
        save(folder, state(10 * number, epochs), SETTINGS, accuracy)


def never(text: str) -> None:
    raise AssertionError(text)


def steps(folder: Path) -> list[int]:
    return [one.step for one in listed(folder)]


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    saved(tmp_path / "new" / "folder", 0.5)
    loaded = load_newest(tmp_path / "new" / "folder", never)
    assert loaded is not None and loaded["step"] == 10
    assert torch.equal(loaded["module"]["weight"], torch.full((3,), 10.0))
    assert settings_of(tmp_path / "new" / "folder") == SETTINGS


def test_a_folder_without_any(tmp_path: Path) -> None:
    assert load_newest(tmp_path, never) is None and settings_of(tmp_path) is None and listed(tmp_path) == []


@pytest.mark.parametrize(
    ("accuracies", "kept"),
    [
        ([0.1, 0.2, 0.3], [20, 30]),
        ([0.9, 0.2, 0.3], [10, 20, 30]),
        ([0.9, 0.2, 0.9], [20, 30]),  # of equal ones the last is the best
        ([0.9, 0.2, None, None, 0.4], [10, 40, 50]),
        ([None, None, None], [20, 30]),
    ],
)
def test_the_newest_two_and_the_best_are_kept(tmp_path: Path, accuracies: list[float | None], kept: list[int]) -> None:
    saved(tmp_path, *accuracies)
    assert steps(tmp_path) == kept
    assert {file.name for file in tmp_path.iterdir()} == {LIST, *(one.file for one in listed(tmp_path))}
    highest = max((one for one in accuracies if one is not None), default=None)
    found = best_of(listed(tmp_path))
    assert (found.accuracy if found else None) == highest
    if highest is not None:
        step = 10 * (len(accuracies) - accuracies[::-1].index(highest))
        assert load(tmp_path, best(tmp_path))["step"] == step


@pytest.mark.parametrize("damage", ["flipped", "truncated", "gone"])
def test_a_damaged_one_is_said_and_the_one_before_is_taken(tmp_path: Path, damage: str) -> None:
    saved(tmp_path, 0.1, 0.2)
    newest = tmp_path / listed(tmp_path)[-1].file
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1  # torch.load does not notice
    newest.write_bytes(bytes(data) if damage == "flipped" else data[:-50])
    if damage == "gone":
        newest.unlink()
    said: list[str] = []
    loaded = load_newest(tmp_path, said.append)
    assert loaded is not None and loaded["step"] == 10
    assert len(said) == 1 and newest.name in said[0] and "\n" not in said[0]
    save(tmp_path, state(15, 1), SETTINGS, None)
    assert steps(tmp_path) == [10, 15]
    assert load_newest(tmp_path, never) is not None


def test_all_damaged(tmp_path: Path) -> None:
    saved(tmp_path, 0.1, 0.2)
    for one in listed(tmp_path):
        (tmp_path / one.file).write_bytes(b"nothing")
    with pytest.raises(InputError, match="no other is whole"):
        load_newest(tmp_path, lambda text: None)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"checkpoints": [{"file": "a"}], "settings": {}}'])
def test_a_damaged_list(tmp_path: Path, text: str) -> None:
    (tmp_path / LIST).write_text(text)
    with pytest.raises(InputError, match="damaged"):
        load_newest(tmp_path, never)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    save(tmp_path, {**state(20, 2), "code": print}, SETTINGS, 0.2)
    with pytest.raises(InputError, match=r"than tensors and numbers \(which might run code\), and no other is whole"):
        load_newest(tmp_path, never)


def test_killed_between_the_file_and_the_list_the_one_before_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 0.1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("phinas.training.full.checkpoint._write", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, state(20, 1), SETTINGS, None)
    loaded = load_newest(tmp_path, never)
    assert loaded is not None and loaded["step"] == 10
    saved(tmp_path, 0.1, 0.2, 0.3)
    assert len(list(tmp_path.iterdir())) == 3  # what the killed one left is gone


def test_the_same_step_twice_is_written_once(tmp_path: Path) -> None:
    saved(tmp_path, 0.1)
    before = (tmp_path / LIST).read_bytes()
    save(tmp_path, {**state(10, 1), "seconds": 3.0}, SETTINGS, None)
    assert (tmp_path / LIST).read_bytes() == before


def test_the_list_says_how_large_and_with_which_hash(tmp_path: Path) -> None:
    saved(tmp_path, 0.1)
    one = json.loads((tmp_path / LIST).read_text())["checkpoints"][0]
    assert one["bytes"] == (tmp_path / one["file"]).stat().st_size and len(one["sha256"]) == 64


def test_another_networks_parameters_are_named() -> None:
    ours = {name: torch.zeros(2) for name in "abcde"}
    check_same_network(dict(ours), ours, "it")
    theirs = {"a": torch.zeros(3), "b": torch.zeros(2), "z": torch.zeros(2)}
    with pytest.raises(InputError) as caught:
        check_same_network(theirs, ours, "it")
    assert str(caught.value) == ("it: of another network: c is missing; d is missing; e is missing; ... (5 in all)")
