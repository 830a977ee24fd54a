"""Files of the user's, whatever they are called: those that hide nothing of ours do no harm, the others are named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HARMLESS = ("conf.py", "training/__init__.py", "engines.py", "pages.py", "convnets.py", "copy.py", "nas/scans/a.txt")
SEARCH = ("evaluator=synthetic", "budget=2", "engine=inline", "name=a")


def typed(folder: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """What comes of the words, typed in the folder."""
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
@pytest.mark.parametrize("words", [("nas.search", *SEARCH), ("phinas", "search", *SEARCH)], ids=["module", "verb"])
def test_names_that_are_not_ours_any_more_do_no_harm(
    tmp_path: Path, command_environment: dict[str, str], words: tuple[str, ...]
) -> None:
    for name in HARMLESS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name != "copy.py":  # a module of Python's own: theirs comes first in `python -m`, for every program
            (tmp_path / name).write_text("raise RuntimeError('this is mine')\n")
    done = typed(tmp_path, command_environment, *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "a" / "best.yaml").exists()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("nas.py", ("scaling_search.grid", "dry_run=true")),
        ("nas/__init__.py", ("phinas.train", "model=efficientnet_b0")),
        ("nas/__init__.py", ("phinas", "search", *SEARCH)),
        ("search_spaces.py", ("nas.search", *SEARCH)),
        ("scaling_search/__init__.py", ("nas.search", *SEARCH)),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_file_that_hides_a_package_of_ours_is_one_line(
    tmp_path: Path, command_environment: dict[str, str], file: str, words: tuple[str, ...]
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    done = typed(tmp_path, command_environment, *words)
    culprit = tmp_path / file.removesuffix("/__init__.py")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {culprit} hides our package ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["nas", "scaling_search", "search_spaces"])
def test_a_function_of_python_says_it_too(tmp_path: Path, command_environment: dict[str, str], name: str) -> None:
    (tmp_path / f"{name}.py").touch()
    code = "import sys; sys.path.insert(0, '.'); import phinas; phinas.search(evaluate='synthetic')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=command_environment, capture_output=True, text=True
    )
    assert f"InputError: {tmp_path / name}.py hides our package {name}" in done.stderr


def test_python_is_told_by_an_import_error(tmp_path: Path, command_environment: dict[str, str]) -> None:
    (tmp_path / "search_spaces.py").touch()
    code = "import sys; sys.path.insert(0, '.'); import nas"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=command_environment, capture_output=True, text=True
    )
    assert "ImportError" in done.stderr and "hides our package search_spaces" in done.stderr


@pytest.mark.slow
def test_what_is_typed_is_found_in_the_working_folder_after_everything_else(
    tmp_path: Path, command_environment: dict[str, str]
) -> None:
    (tmp_path / "my_reward.py").write_text("def mine(accuracy, cost, target):\n    return accuracy\n")
    words = ("nas.search", *SEARCH, "reward=custom", "reward._target_=my_reward.mine")
    assert typed(tmp_path, command_environment, *words).returncode == 0
    elsewhere = tmp_path / "installed"
    elsewhere.mkdir()
    (elsewhere / "my_reward.py").write_text("def mine(accuracy, cost, target):\n    return -1.0\n")
    path = os.pathsep.join([command_environment["PYTHONPATH"], str(elsewhere)])
    done = typed(tmp_path, {**command_environment, "PYTHONPATH": path}, *words[:-2], "name=b", *words[-2:])
    assert done.returncode == 0 and "reward -1.0000" in done.stdout
