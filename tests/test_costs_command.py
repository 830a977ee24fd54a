"""`python -m nas.search` with costs besides MACs: devices, several targets, limits and fronts, as people type them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import yaml

from nas.front import hypervolume
from nas.journal import Journal, read_journal
from nas.report import main as report_main
from nas.search import main
from phinas.files.errors import InputError, one_line
from phinas.networks.arch_file import read_arch
from phinas.networks.cost import cost

FAST = ("evaluator=synthetic", "engine=inline", "budget=30")

# Each reading differs from the one before, as a clock's does, and the last is kept beyond the process in a file.
DEVICE = """
from pathlib import Path

from phinas.networks.network import cost_of


class Meter:
    def __init__(self, joules=1e-9):
        self.joules = joules

    def costs(self, network):
        readings = Path("readings")
        count = int(readings.read_text()) + 1 if readings.exists() else 1
        readings.write_text(str(count))
        return {"energy": self.joules * cost_of(network).macs * (1 + 1e-3 * count), "throughput_mine": 1e3 / count}
"""
METER = "device._target_=meters.Meter"


@pytest.fixture(autouse=True)
def folder_with_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "meters.py").write_text(DEVICE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def summary(name: str) -> dict[str, object]:
    content = json.loads((Path("runs") / name / "summary.json").read_text())
    assert isinstance(content, dict)
    return content


@pytest.mark.slow
def test_two_costs_with_a_target_each() -> None:
    main([*FAST, "name=a", METER, "device.joules=2e-9", "targets.energy=0.5", "target_flops=300e6"])
    found = summary("a")
    assert found["targets"] == {"macs": 300e6, "energy": 0.5} and found["target_flops"] == 300e6
    assert found["device"] == "meters.Meter"
    best = found["best"]
    assert isinstance(best, dict) and set(best) >= {"macs", "params", "activations", "energy", "throughput_mine"}
    expected = best["accuracy"] * (best["macs"] / 300e6) ** -0.07 * (best["energy"] / 0.5) ** -0.07
    assert best["reward"] == pytest.approx(expected)
    assert {"energy", "throughput_mine"} <= set(pd.read_csv("runs/a/trials.csv").columns)
    page = Path("runs/a/report.html").read_text()
    assert "Accuracy against MACs" in page and "Accuracy against energy" in page


@pytest.mark.slow
def test_another_cost_alone_and_limits() -> None:
    main([*FAST, "name=a", METER, "target_flops=null", "targets.throughput_mine=100", "limits.macs=350e6"])
    found = summary("a")
    assert found["target_flops"] is None and found["limits"] == {"macs": 350e6}
    trials = pd.read_csv("runs/a/trials.csv")
    assert (trials.macs <= 350e6).all()
    expected = trials.accuracy * (100 / trials.throughput_mine) ** -0.07  # as seconds per image
    assert trials.reward.to_numpy() == pytest.approx(expected.to_numpy())


@pytest.mark.parametrize("controller", ["evolution", "random"])
def test_a_journal_cut_anywhere_goes_on_with_the_costs_that_it_records(controller: str) -> None:
    options = [*FAST, f"controller={controller}", METER, "targets.energy=0.4", "name=a"]
    journal = Path("runs/a/journal.jsonl")
    main(options)
    lines = journal.read_bytes().splitlines(keepends=True)
    for kept in (2, 11, 25):
        journal.write_bytes(b"".join(lines[: kept + 1]))
        main(options)
        _, entries, _ = read_journal(journal)
        assert journal.read_bytes().startswith(b"".join(lines[: kept + 1])) and len(entries) == 30
        assert len({entry.key for entry in entries}) == 30
        if controller == "random":  # goes by no cost, so that the same networks follow; their costs are new readings
            assert [entry.key for entry in entries] == [json.loads(line)["key"] for line in lines[1:]]


def test_a_finished_search_measures_nothing_more() -> None:
    options = [*FAST, METER, "targets.energy=0.4", "name=a", "controller=random"]
    main(options)
    readings = Path("readings").read_text()
    main(options)
    assert int(Path("readings").read_text()) <= int(readings) + 1  # the next proposal, with which the command checks


def test_a_front_is_written_shown_and_extended(capsys: pytest.CaptureFixture[str]) -> None:
    options = [*FAST, "controller=random", "front=[macs,params]", "target_flops=null", "limits.macs=600e6", "name=a"]
    main(options)
    assert "Pareto front:" in capsys.readouterr().out
    for budget in (30, 60):
        main([*options, f"budget={budget}"])
        table = pd.read_csv("runs/a/front.csv")
        assert list(table.columns[:4]) == ["macs", "params", "accuracy", "reward"]
        assert table.macs.is_monotonic_increasing and (table.reward == table.accuracy).all()
        files = sorted(Path("runs/a/front").iterdir())
        assert sorted(f"front/{file.name}" for file in files) == sorted(table.file)
        for row in table.itertuples():
            arch = read_arch(Path("runs/a") / str(row.file))
            assert (arch.key(), cost(arch).macs) == (row.key, row.macs)
        front = summary("a")["front"]
        assert isinstance(front, dict) and front["size"] == len(table) and front["costs"] == ["macs", "params"]
        assert front["reference"]["accuracy"] == 0 and front["reference"]["macs"] == 600e6
        _, entries, _ = read_journal(Path("runs/a/journal.jsonl"))
        corner = {name: front["reference"][name] for name in front["costs"]}
        assert front["hypervolume"] == pytest.approx(hypervolume(entries, corner))
        best = summary("a")["best"]
        assert isinstance(best, dict) and best["accuracy"] == table.accuracy.max()  # no target: the most accurate
    page = Path("runs/a/report.html").read_text()
    assert "The Pareto front" in page and "Accuracy against parameters" in page


def test_halving_does_not_stop_the_cheap_end_of_a_front() -> None:
    main([*FAST, "controller=random", "front=[macs]", "evaluator.epochs=3", "name=a"])
    assert summary("a")["stopped"] == 0


# Each row: what is typed, and what the one line must say.
BAD_INPUT = [
    (["target_flops=null"], "there is no other target, limit or front"),
    (["targets.latency=0.01"], "targets.latency: no network has that cost with device=none"),
    (["limits.latency=0.01"], "limits.latency: no network has that cost with device=none"),
    (["front=[latency]", "controller=random"], "front=latency: no network has that cost with device=none"),
    (["targets.latncy=0.01", METER], "targets.latncy: no network has that cost with device=meters.Meter"),
    ([METER], "device=meters.Meter gives energy and throughput_mine, but no target, limit or front uses it"),
    (["front=macs"], "front=macs: it must be a list"),
    (["front=[macs,macs]"], "twice"),
    (["front=null"], "front=None"),
    (["targets.macs=-1"], "targets.macs=-1"),
    (["targets=3"], "targets=3"),
    (["limits.macs=1"], "no network within limits"),
    (["refuse_above=2", "target_flops=null", "limits.macs=1e9"], "refuse_above"),
    (["device=moon"], "device=moon: there is no such device; allowed:"),
    (["device=cpu", "device.threads=0", "targets.latency=1"], "threads=0"),
    (["device=here", "device.kind=tpu", "targets.latency=1"], "kind=tpu"),
    ([METER, "device.mood=3", "targets.energy=1"], "mood"),
    (["device._target_=builtins.dict"], "device=builtins.dict: it has no method costs(network)"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD_INPUT, ids=[" ".join(arguments) for arguments, _ in BAD_INPUT])
def test_bad_input_is_one_line_and_nothing_is_written(arguments: Sequence[str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        main([*FAST, *arguments])
    assert says in str(caught.value)
    assert len(one_line(caught.value)) < 600 and not Path("runs").exists()


def test_a_controller_that_knows_no_front_is_refused_with_those_that_do(tmp_path: Path) -> None:
    (tmp_path / "meters.py").write_text(
        DEVICE + "\n\nfrom nas.controllers.random import Random\n\n\nclass One(Random):\n    multi_objective = False\n"
    )

    sys.modules.pop("meters", None)
    with pytest.raises(InputError, match="controller=meters.One cannot search for a front; those that can: .*random"):
        main([*FAST, "front=[macs]", "controller._target_=meters.One"])
    assert not Path("runs").exists()


@pytest.mark.slow
def test_a_journal_of_an_earlier_release_is_refused_in_one_line_and_its_report_is_made_again() -> None:
    main([*FAST, "name=a"])
    folder = Path("runs/a")
    settings, entries, _ = read_journal(folder / "journal.jsonl")
    new = ("targets", "limits", "front", "device")
    (folder / "journal.jsonl").unlink()
    journal = Journal(folder / "journal.jsonl", {name: value for name, value in settings.items() if name not in new})
    for entry in entries:
        journal.append(entry)
    journal.close()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({k: v for k, v in config.items() if k not in new}))
    with pytest.raises(InputError, match="written by an earlier release, which knew no .*targets.* give another name="):
        main([*FAST, "name=a"])
    (folder / "report.html").unlink()
    report_main([str(folder)])
    page = (folder / "report.html").read_text()
    assert "target 400M MACs" in page and "Accuracy against MACs" in page
