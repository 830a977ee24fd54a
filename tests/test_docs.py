"""The Python in the README runs as it stands, and says the truth."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from search_spaces.testing import examine
from tests.conftest import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_the_first_block_prints_the_figures_it_claims(capsys: pytest.CaptureFixture[str]) -> None:
    exec(BLOCKS[0], {})
    printed = capsys.readouterr().out
    assert "macs=385814752, params=5288548" in printed and "686802832" in printed


def test_the_readmes_space_passes_the_conformance_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_readme_spaces.py").write_text(BLOCKS[1])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    space = importlib.import_module("my_readme_spaces").MySpace()
    assert [finding.detail for finding in examine(space, samples=20, build=2) if not finding.passed] == []
