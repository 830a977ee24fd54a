"""`python -m search_spaces.check` from a user's folder: findings printed, exit codes, one line for bad input."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from phinas.pages.cost_text import macs_text
from search_spaces.check.__main__ import main

ROOT = Path(__file__).parent.parent
BROKEN = """
from search_spaces.space import Decision
raises = 1  # no class
class Broken:
    decisions = (Decision("a", (1, 2)),)
    def decode(self, choices):
        return {}["missing"]
class Twins(Broken):
    decisions = (Decision("a", (1, 2)), Decision("a", (1, 2)))
class NoSpace:
    pass
class Picky:
    def __init__(self, size):
        raise ValueError(f"size must be even, got {size}")
"""


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "search_spaces.check", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_space_of_the_users(tmp_path: Path) -> None:
    module = (ROOT / "examples" / "custom_space" / "my_spaces.py").read_text()
    (tmp_path / "my_spaces.py").write_text(f"{module}\nprint('a module may print when it is imported')\n")
    done = check(tmp_path, "my_spaces.Tiny", "target_flops=6e6", "samples=30", "build=2", "space.resolution=16")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("pass  ") == 11
    assert "13,824 combinations; of 30 random samples 30 are feasible (100%)" in done.stdout
    assert "lie within 25% of 6.0M MACs (12.0 MFLOPs)" in done.stdout


def test_a_broken_space_exits_1(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    done = check(tmp_path, "broken.Broken")
    assert (done.returncode, done.stderr) == (1, "")
    assert "FAIL  samples decode: KeyError: 'missing' (broken.py:7)" in done.stdout
    assert "1 of 2 laws are broken" in done.stdout
    done = check(tmp_path, "broken.Twins")
    assert done.returncode == 1
    assert "FAIL  decisions are sound: decision name 'a' occurs twice" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.MySpace"], "cannot import nowhere: ModuleNotFoundError: No module named 'nowhere'"),
        (["broken.Missing"], "broken has no class 'Missing'"),
        (["broken.raises"], "broken has no class 'raises'"),
        (["tiny"], "'tiny': give a dotted path such as my_pkg.MySpace, or one of mnasnet, efficientnet"),
        (["unparsable.Space"], "cannot import unparsable: SyntaxError"),
        (["broken.NoSpace"], "broken.NoSpace is no search space: it needs `decisions` and `decode(choices)`"),
        (["broken.Picky"], "cannot construct broken.Picky"),
        (["broken.Picky", "space.size=3"], "cannot construct broken.Picky: size must be even, got 3"),
        (["mnasnet", "target_flops=-1"], "target_flops must be a number above 0, got '-1'"),
        (["mnasnet", "target_flops=much"], "target_flops must be a number above 0, got 'much'"),
        (["mnasnet", "samples=0"], "samples must be a whole number, 1 or more, got '0'"),
        (["mnasnet", "sample=5"], "unknown option 'sample'; allowed: target_flops, samples, build, seed, space.NAME"),
        (["mnasnet", "fast"], "'fast' is no option; options are key=value"),
        (["mnasnet", "space.resolution=0"], "resolution must be a whole number"),
        (["mnasnet", "space.colour=red"], "colour"),
        (["mnasnet", "space.kernels=[3"], "not a YAML value"),
        (["mnasnet", "space.kernels=3"], "kernels must be a list"),
    ],
)
def test_bad_input_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "unparsable.py").write_text("class Space(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("broken", None)
    with pytest.raises(ValueError) as caught:
        main(arguments)
    assert message in str(caught.value)


def test_bad_input_exits_2_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "unparsable.py").write_text("class Space(:\n")
    for arguments in (["unparsable.Space"], ["mnasnet", "target_flops=-1"]):
        done = check(tmp_path, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "target_flops=400e6" in capsys.readouterr().out
    assert main([]) == 2


def test_costs_are_shown_in_both_units() -> None:
    assert macs_text(400e6) == "400M MACs (0.80 GFLOPs)"
    assert macs_text(37_745_884_192) == "37,746M MACs (75.49 GFLOPs)"
    assert macs_text(6e6) == "6.0M MACs (12.0 MFLOPs)"
    assert macs_text(23_200) == "23k MACs (0.05 MFLOPs)"
