"""The Python in the README and in the pages runs as it stands, and says the truth; the table of what moved is whole."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from hydra.utils import get_object

from phinas.files.moved import COMMANDS, MOVED
from search_spaces.testing import examine
from tests.conftest import ROOT


def _blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


def test_the_block_of_networks_prints_the_figures_it_claims(capsys: pytest.CaptureFixture[str]) -> None:
    exec(_blocks("docs/python.md")[1], {})
    printed = capsys.readouterr().out
    assert "macs=385814752, params=5288548" in printed and "686802832" in printed


def test_the_readmes_space_passes_the_conformance_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_readme_spaces.py").write_text(_blocks("README.md")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    space = importlib.import_module("my_readme_spaces").MySpace()
    assert [finding.detail for finding in examine(space, samples=20, build=2) if not finding.passed] == []


@pytest.mark.slow
def test_the_readmes_python_searches_and_generates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {}
    exec(_blocks("README.md")[1], known)
    assert Path("runs/found/best.yaml").exists() and len(known["family"].networks) == 2  # type: ignore[attr-defined]


def test_the_family_of_python_is_the_largest_within_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {}
    exec(_blocks("docs/python.md")[0], known)
    assert list(known["family"].table["macs"]) == [992_629_472]  # type: ignore[attr-defined]


def test_the_readme_fits_on_a_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_what_moved_is_all_in_its_table() -> None:
    page = (ROOT / "docs" / "moved.md").read_text()
    rows = re.findall(r"^\| `(?:python -m )?([\w.]+)` \| `(?:python -m )?([\w.]+)` \|$", page, flags=re.MULTILINE)
    modules = MOVED | COMMANDS
    assert modules.items() <= dict(rows).items()
    for before, now in rows:
        assert before in modules or callable(get_object(now)), (
            "a function that is elsewhere than the rest of its module"
        )
