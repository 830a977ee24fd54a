"""From a search to a family: each file names the hash of what it came from; the chain typed again changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from nas import search
from phinas.files.origin import file_source, read_origin
from phinas.generate import __main__ as generate
from scaling_search import grid
from tests.conftest import contents

pytestmark = pytest.mark.usefixtures("empty_folder")

QUICK = ("evaluator=synthetic", "engine=inline")


def chain(*options: str) -> None:
    """What `make family` runs, with an evaluator that answers at once, and `options` for the last step."""
    steps: Sequence[tuple[Callable[[Sequence[str]], int], Sequence[str]]] = (
        (search.main, [*QUICK, "budget=6", "name=search"]),
        (grid.main, [*QUICK, "candidates=3", "seeds=1", "baseline=runs/search/best.yaml", "name=scaling"]),
        (generate.main, ["scaling=runs/scaling/scaling.yaml", "phi=[0,1]", *options, "name=family"]),
    )
    for main, arguments in steps:
        assert main(arguments) == 0


def test_hashes_lead_from_a_family_back_to_its_search() -> None:
    chain()
    for name in ("search_phi0", "search_phi1"):
        origin = read_origin(f"runs/family/{name}.yaml")
        assert origin["scaling"]["sha256"] == file_source("runs/scaling/scaling.yaml")["sha256"]
        assert origin["baseline"]["sha256"] == file_source("runs/search/best.yaml")["sha256"]
    evidence = yaml.safe_load(Path("runs/scaling/scaling.yaml").read_text())["evidence"]
    assert evidence["baseline"]["sha256"] == file_source("runs/search/best.yaml")["sha256"]
    assert read_origin("runs/search/best.yaml")["from"] == file_source("runs/search/journal.jsonl")


@pytest.mark.slow
def test_typed_again_the_chain_leaves_the_family_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chain("export=weights")
    before = contents(Path("runs/family"))
    monkeypatch.setattr("scaling_search.results.provenance", lambda: {"started": "on another day, by another release"})
    chain("export=weights")
    assert contents(Path("runs/family")) == before
    assert "runs/family/ is finished, and of these settings: nothing to do" in capsys.readouterr().out
