"""The notebooks in `examples/` run from their first cell to their last, in a kernel and a folder of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))


def cells(file: Path) -> Any:
    notebook = nbformat.read(file, as_version=4)
    return notebook, [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook, code = cells(file)
    kernel = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    kernel.execute()  # raises what a cell raises
    assert all(cell.execution_count for cell in code)
    assert all((tmp_path / "runs" / name / "best.yaml").exists() for name in named(code) if "search" in name)
    shown = [output.data for cell in code for output in cell.outputs if "data" in output]
    assert any("image/png" in data or "data:image/png" in data.get("text/html", "") for data in shown)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_what_is_kept_of_a_notebook_is_a_run_of_it(file: Path) -> None:
    _, code = cells(file)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any(cell.outputs for cell in code)
    assert not any(place in file.read_text() for place in ("/home/", "/root", "/tmp/", "/work/"))


def named(code: list[Any]) -> list[str]:
    """The runs that the cells name."""
    lines = [line.strip() for cell in code for line in cell.source.splitlines()]
    return [line.split('"')[1] for line in lines if line.startswith('name="')]
