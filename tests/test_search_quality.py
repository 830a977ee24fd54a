"""benchmarks.search_quality: a search is repeatable, its record is read again, and its figures are what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.published_problems import Published, best_known
from benchmarks.search_quality import Job, evaluations_to, finished, search, table, value_at
from benchmarks.search_quality_figure import figure
from search_spaces.efficientnet import EfficientNet
from search_spaces.nasbench_macro import NasBenchMacro

JOB = Job("imagenet", 0.0, "evolution", "now", seed=0, budget=60, in_flight=1, best_known=0.9)


def accuracies(picks: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Made up: the more is picked, the better."""
    return 0.4 + 0.005 * np.asarray(picks).sum(axis=1)


MADE_UP = Published("made up", EfficientNet(), 400e6, accuracies)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("in_flight", [1, 8])
@pytest.mark.parametrize("searcher", ["evolution", "random", "optuna_tpe"])
def test_a_search_is_repeatable_and_its_best_only_rises(searcher: str, in_flight: int, noise: float) -> None:
    job = replace(JOB, searcher=searcher, in_flight=in_flight, noise=noise)
    first, again = search(job, MADE_UP), search(job, MADE_UP)
    assert (first["best"], first["picked"]) == (again["best"], again["picked"])
    evaluations, rewards = zip(*first["best"], strict=True)
    assert list(evaluations) == sorted(evaluations) and list(rewards) == sorted(rewards)
    assert first["evaluations"] == 60 and (first["duplicates"] == 0 or searcher == "optuna_tpe")
    assert noise or first["best"] == first["picked"]


def test_a_record_is_found_again_for_the_same_search_only(tmp_path: Path) -> None:
    record = search(JOB, MADE_UP)
    file = tmp_path / "results.jsonl"
    file.write_text(json.dumps(record) + "\n" + json.dumps(record)[:40])  # the second line was torn
    done = finished(file)
    assert list(done) == [JOB.identity()]
    assert file.read_text().endswith("\n") and list(finished(file)) == [JOB.identity()]
    for other in (replace(JOB, seed=1), replace(JOB, state="changed"), replace(JOB, best_known=0.91)):
        assert other.identity() not in done


def test_what_the_table_says_of_a_record() -> None:
    record = {
        **vars(JOB), "searcher": "evolution", "evaluations": 60, "best": [[1, 0.5], [7, 0.8995], [30, 0.9]],
        "picked": [[1, 0.5], [9, 0.7]], "milliseconds": {}, "duplicates": 0.25,
    }  # fmt: skip
    assert [value_at(record["best"], n) for n in (1, 6, 7, 29, 1000)] == [0.5, 0.5, 0.8995, 0.8995, 0.9]
    assert [evaluations_to(record, share) for share in (0.5, 0.999, 1.0)] == [1, 7, 30]
    assert evaluations_to(record, 1.01) == np.inf
    [row] = table("made up", 0.9, 0.0, 1, [record, {**record, "best": [[1, 0.5], [50, 0.8]]}])[4:]
    assert "| 2 | 0.8500 (0.8000 - 0.9000) | - |" in row and "| 25% |" in row and "| 1 of 2 |" in row
    assert ">60 (7 - >60)" in row
    assert len(figure([record], {"imagenet": "made up"}, {"imagenet": 0.9}).axes) == 1


def test_the_best_of_a_small_space_is_looked_up_and_kept(tmp_path: Path) -> None:
    small = Published("made up", NasBenchMacro(), 1e12, lambda picks: 1 - accuracies(picks))  # MACs count for little
    reward, picks = best_known("macro", small, tmp_path)
    assert picks == (0,) * 8 and best_known("macro", small, tmp_path) == (reward, picks)
    other = replace(small, accuracies=lambda picks: np.full(len(np.asarray(picks)), 0.5))
    assert best_known("macro", other, tmp_path)[0] != reward  # found for another table
