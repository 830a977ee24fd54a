"""`python -m nas.proxy_check`: its statistics, the networks that it chooses, and the command as people type it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import kendalltau, spearmanr

from nas import report as search_report
from nas import search
from nas.checked import checked_note, find_check, fingerprint
from nas.journal import Entry, read_journal
from nas.problem import SearchProblem
from nas.proxy_check.__main__ import _longer, _longer_settings, main
from nas.proxy_check.agreement import DRAWS, draws, estimate, in_order, partial_tau, shared_top, spearman, tau
from nas.proxy_check.outcome import Outcome, notes, outcome, verdict
from nas.proxy_check.plan import POOL, Drawn, drawn_from, jobs_of, number_of, spread
from nas.timings import read_timings
from phinas.command.configuration import configuration
from phinas.engines.evaluator import EvaluationFailed, Measurement
from phinas.files.errors import InputError, one_line
from phinas.networks.network import Network, cost_of
from search_spaces.mnasnet import MnasNet
from tests.conftest import contents

pytestmark = pytest.mark.usefixtures("empty_folder")


FAST = ("evaluator=synthetic", "evaluator.epochs=2", "engine=inline", "networks=5")


# --- statistics ------------------------------------------------------------------------------------------------------


def test_every_draw_has_the_tau_and_the_correlation_that_scipy_finds_in_it() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 7, 12).astype(float), rng.integers(0, 7, 12).astype(float)  # with ties
    counts = draws(12)
    assert counts.shape == (1 + DRAWS, 12) and (counts.sum(1) == 12).all() and (counts[0] == 1).all()
    for row in (0, 1, 2, 3):
        drawn = np.repeat(np.arange(12), counts[row].astype(int))
        a, b = first[drawn], second[drawn]
        assert tau(first, second, counts)[row] == pytest.approx(kendalltau(a, b).statistic)
        assert spearman(first, second, counts)[row] == pytest.approx(spearmanr(a, b).statistic)


def test_statistics_by_hand() -> None:
    once = draws(4)[:1]
    assert in_order([1, 2, 3, 4], [1, 2, 4, 3], once)[0] == pytest.approx(5 / 6)
    assert in_order([1, 1, 1, 1], [1, 2, 4, 3], once)[0] == pytest.approx(1 / 2)  # it tells nothing apart
    assert np.isnan(tau([1, 1, 1, 1], [1, 2, 4, 3], once)[0])
    assert shared_top([4, 3, 2, 1], [4, 1, 3, 2], 2) == 1
    assert shared_top([1, 1, 1, 1], [4, 1, 3, 2], 2) == pytest.approx(1)  # as by chance
    one = np.array([0.5])
    assert partial_tau(one, one, one)[0] == pytest.approx((0.5 - 0.25) / 0.75)
    assert partial_tau(np.array([0.6]), np.array([0.0]), np.array([0.0]))[0] == pytest.approx(0.6)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """100 checks of 16 networks of a true tau of 0.41; 95 of them should, and by chance 88 to 100 do."""
    rng, counts, held = np.random.default_rng(0), draws(16)[:500], 0
    for _ in range(100):
        first = rng.normal(size=16)
        second = 0.6 * first + 0.8 * rng.normal(size=16)
        one = estimate(tau(first, second, counts))
        assert one is not None and one.low is not None and one.high is not None
        held += one.low <= 2 / np.pi * np.arcsin(0.6) <= one.high
    assert held >= 88


def test_so_few_networks_that_chance_orders_them_have_no_interval() -> None:
    """Three come in order by chance in one case of six, whatever is drawn from them."""
    one = estimate(tau([1, 2, 3], [1, 2, 3], draws(3)))
    assert one is not None and (one.value, one.low, one.high) == (1, None, None)
    few = found_of([RISING[:6]], [RISING[:6]], RISING[5::-1])
    assert few.tau is not None and few.tau.value == 1
    assert "better than chance is not shown" in verdict(few, 5)
    assert any("fewer than 7 networks there is no interval" in note for note in notes(few))
    repeated = found_of([RISING[:6]] * 2, [RISING[:6]] * 2, RISING[5::-1])
    assert not any("poor witness" in note for note in notes(repeated))
    enough = estimate(tau(RISING[:7], RISING[:7], draws(7)))
    assert enough is not None and enough.low is not None


def test_what_has_no_value_has_no_estimate() -> None:
    counts = draws(8)
    assert estimate(tau([1] * 8, range(8), counts)) is None
    rare = estimate(np.array([0.5, *[np.nan] * DRAWS]))
    assert rare is not None and rare.low is None


# --- networks --------------------------------------------------------------------------------------------------------


def test_networks_are_spread_over_the_macs_and_fewer_are_the_first_of_more() -> None:
    pool = [Drawn((number,), f"{number:03d}", {"macs": float(number**2)}) for number in range(100)]
    chosen = spread(pool, 16, seed=3)
    assert len({one.key for one in chosen}) == 16
    assert spread(pool, 8, seed=3) == chosen[:8] and spread(pool, 8, seed=4) != chosen[:8]
    gaps = np.diff(sorted(one.picks[0] for one in chosen))
    assert gaps.min() >= 5 and gaps.max() <= 8
    assert len({one.key for one in spread(pool, 100, seed=0)}) == 100
    with pytest.raises(InputError, match="networks=101: there are 100 distinct ones"):
        spread(pool, 101, seed=0)


def test_a_pool_is_distinct_and_the_same_for_the_same_seed() -> None:
    problem = SearchProblem(MnasNet(), lambda accuracy, costs: accuracy)
    pool = drawn_from(problem, 0)
    assert len({one.key for one in pool}) == POOL and drawn_from(problem, 0) == pool
    jobs = jobs_of(pool[:3], 1, 2, 0, problem)
    assert [job.number for job in jobs] == [POOL, POOL + 1, POOL + 2, 3 * POOL, 3 * POOL + 1, 3 * POOL + 2]
    assert len({job.seed for job in jobs}) == 6 and jobs[0].network.key() == pool[0].key


# --- what is made of the results -------------------------------------------------------------------------------------


def found_of(proxy: Sequence[Sequence[float]], longer: Sequence[Sequence[float]], macs: Sequence[float]) -> Outcome:
    """The outcome of accuracies [seeds][networks]; the proxy has two epochs, the first of which says nothing."""
    chosen = [Drawn((place,), str(place), {"macs": one}) for place, one in enumerate(macs)]
    entries = [
        Entry(number_of(place, schedule, run), one.picks, one.key, one.costs, (0.1, each[run][place]), 1.0)
        for schedule, each in enumerate((proxy, longer))
        for run in range(len(each))
        for place, one in enumerate(chosen)
    ]
    seconds = {entry.number: 2.0 if entry.number // POOL % 2 == 0 else 10.0 for entry in entries}
    return outcome(chosen, entries, seconds, seeds=len(proxy), epochs=2)


RISING = list(np.linspace(0.3, 0.8, 12))


def test_a_proxy_is_called_what_it_is() -> None:
    rng = np.random.default_rng(0)
    noise = list(rng.normal(size=12))
    good = found_of([RISING], [RISING], noise)
    assert good.tau is not None and good.tau.value == 1 and good.in_order == 1 and good.regret == 0
    assert good.top == (3, 3.0, 0.75) and good.seconds == (2.0, 10.0)
    assert "It ranks better than" in verdict(good, 5) and "100 % of pairs" in verdict(good, 5)
    assert any("same order" in note for note in notes(good))
    worse = found_of([[*RISING[4:8], *RISING[:4], *RISING[8:]]], [RISING], RISING)
    assert "It is no proxy" in verdict(worse, 5)
    assert worse.beyond is None  # MACs leave nothing to know
    fewer = found_of([[*RISING[4:8], *RISING[:4], *RISING[8:]]], [RISING], RISING[::-1])
    assert fewer.macs is not None and fewer.macs.value == -1 and "fewer MACs first" in verdict(fewer, 5)
    chance = found_of([noise], [RISING], RISING)
    assert "better than chance is not shown" in verdict(chance, 5)
    assert "Nothing can be said" in verdict(found_of([RISING[:2]], [RISING[:2]], RISING[:2]), 5)
    assert "Nothing can be said" in verdict(found_of([[0.1] * 12], [RISING], RISING), 5)


def test_seeds_tell_the_noise_and_the_proxy_is_judged_one_run_at_a_time() -> None:
    swapped = [RISING[1], RISING[0], *RISING[2:]]
    found = found_of([RISING, swapped], [RISING, RISING], RISING)
    single = kendalltau(swapped, RISING).statistic
    assert found.tau is not None and found.tau.value == pytest.approx((1 + single) / 2)
    assert found.itself[0] is not None and found.itself[0].value == pytest.approx(single)
    assert found.itself[1] is not None and found.itself[1].value == 1
    assert found.noise[0] == pytest.approx(((RISING[1] - RISING[0]) ** 2 / 12) ** 0.5) and found.noise[1] == 0
    assert any("from seed to seed with tau 1.00" in note for note in notes(found))


def test_an_epoch_that_ranks_as_well_is_named() -> None:
    found = found_of([RISING], [RISING], RISING)
    assert [epoch for epoch, _ in found.by_epoch] == [2]  # after the first all tie
    assert found.shorter is None
    chosen = [one.drawn for one in found.networks]
    curves = [(0.1, value, value) for value in RISING]
    entries = [
        Entry(number_of(place, schedule, 0), (), "", {}, curve, 1.0)
        for schedule in (0, 1)
        for place, curve in enumerate(curves)
    ]
    found = outcome(chosen, entries, {}, seeds=1, epochs=5, score_every=2)
    assert [epoch for epoch, _ in found.by_epoch] == [4, 5]
    assert found.shorter is not None and found.shorter[0] == 4
    assert any("after epoch 4 of 5" in note for note in notes(found))


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.figures
def test_it_writes_what_its_guide_names(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FAST, "name=first"]) == 0
    said = capsys.readouterr().out
    assert "5 networks of mnasnet" in said and "2 epochs against 10" in said and "networks=10" in said
    folder = empty_folder / "runs" / "first"
    names = {"config.yaml", "summary.json", "networks.csv", "report.html", "proxy_check.png", "journal.jsonl"}
    assert names <= set(contents(folder))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finished"] and summary["networks"] == 5 and summary["evaluations"] == 10
    assert summary["tau"]["value"] == 1 and (summary["epochs"], summary["longer_epochs"]) == (2, 10)
    assert summary["verdict"] in said
    table = pd.read_csv(folder / "networks.csv")
    assert kendalltau(table.proxy_accuracy, table.longer_accuracy).statistic == pytest.approx(1)
    assert kendalltau(table.macs, table.longer_accuracy).statistic == pytest.approx(summary["macs_tau"]["value"])
    page = (folder / "report.html").read_text()
    assert "Kendall’s tau" in page and all(key in page for key in table.key) and "http" not in page
    assert yaml.safe_load((folder / "config.yaml").read_text())["provenance"][0]["versions"]["torch"]


def test_typed_again_it_repeats_nothing_and_more_networks_and_seeds_extend_it(empty_folder: Path) -> None:
    folder = empty_folder / "runs" / "a"
    main([*FAST, "name=a"])
    first = (folder / "journal.jsonl").read_bytes()
    main([*FAST, "name=a"])
    assert (folder / "journal.jsonl").read_bytes() == first
    main([*FAST, "name=a", "networks=8", "seeds=2"])
    extended = (folder / "journal.jsonl").read_bytes()
    assert extended.startswith(first) and extended.count(b"\n") == 1 + 8 * 2 * 2
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["networks"] == 8 and summary["noise"] == {"proxy": 0, "longer": 0}
    main([*FAST, "name=a"])  # fewer again: of those only
    assert json.loads((folder / "summary.json").read_text())["tau"]["value"] == 1


@pytest.mark.slow
def test_killed_and_typed_again_it_is_the_check_that_was_never_killed(
    empty_folder: Path, command_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "nas.proxy_check", *FAST, "evaluator.seconds=0.1", "name=killed"]
    journal = empty_folder / "runs" / "killed" / "journal.jsonl"
    running = subprocess.Popen(command, env=command_environment, stdout=subprocess.DEVNULL)
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert running.poll() is None
        time.sleep(0.05)
    running.kill()
    running.wait()
    with journal.open("ab") as file:
        file.write(b'{"number":7,"pi')  # as torn as a crash may leave it
    kept = read_journal(journal)[1]
    assert 3 <= len(kept) < 10
    main([*FAST, "evaluator.seconds=0.1", "name=killed"])
    main([*FAST, "evaluator.seconds=0.1", "name=whole"])
    assert journal.read_bytes() == (journal.parents[1] / "whole" / "journal.jsonl").read_bytes()
    # Killed between an entry and its timing, only that timing is lost.
    untimed = {entry.number for entry in read_journal(journal)[1]} - set(read_timings(journal.with_name("timings.csv")))
    assert untimed <= {kept[-1].number}


def test_a_dry_run_writes_nothing(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["dry_run=true", "networks=3", "evaluator.recipe.epochs=1", "longer.epochs=2", "evaluator.resolution=4"])
        == 0
    )
    said = capsys.readouterr().out
    assert "3 by the proxy schedule x" in said and "of one worker's time" in said and "MACs" in said
    assert contents(empty_folder) == {}


@pytest.mark.slow
def test_ray_drives_both_schedules(empty_folder: Path) -> None:
    assert main([*FAST[:2], "networks=3", "engine.workers=2", "name=ray"]) == 0
    entries = read_journal(empty_folder / "runs" / "ray" / "journal.jsonl")[1]
    assert sorted(entry.number for entry in entries) == [0, 1, 2, POOL, POOL + 1, POOL + 2]
    assert {len(entry.curve) for entry in entries if entry.number < POOL} == {2}
    assert {len(entry.curve) for entry in entries if entry.number >= POOL} == {10}


class Fails:
    """Fails on every network that is `worse` than so many MACs; knows no data, and has epochs."""

    def __init__(self, epochs: int, below: float) -> None:
        self.epochs, self.below = epochs, below

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        if cost_of(network).macs < self.below and self.epochs > 1:
            raise EvaluationFailed("diverged at step 3")
        yield Measurement(cost_of(network).macs / 1e9)


def test_networks_that_fail_are_left_out_and_said(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    custom = ["evaluator._target_=tests.test_proxy_check.Fails", "evaluator.epochs=1", "engine=inline", "networks=6"]
    assert main([*custom, "evaluator.below=250e6", "name=some"]) == 0
    assert "of 6 networks have no result of one schedule" in capsys.readouterr().out
    summary = json.loads((empty_folder / "runs" / "some" / "summary.json").read_text())
    assert summary["failures"] == summary["left_out"] == 6 - summary["networks"] > 0
    assert "diverged at step 3" in (empty_folder / "runs" / "some" / "report.html").read_text()
    assert main([*custom, "evaluator.below=1e12", "name=all"]) == 1
    assert "diverged at step 3" in capsys.readouterr().out


BAD_INPUT = [
    (["networks=1"], "networks=1: it must be a whole number, 3 or more"),
    (["networks=many"], "networks=many"),
    (["networks=513"], "networks=513: there are 512 distinct ones"),
    (["seeds=0"], "seeds=0"),
    (["seed=-1"], "seed=-1"),
    (["space=nowhere"], "space=nowhere: there is no such space"),
    (["evaluator=accel_nasbench", "space=efficientnet"], "evaluator=accel_nasbench: it has no epochs"),
    (["longer.epochs=2"], "longer.epochs=2: it is not longer than the proxy's 2 epochs"),
    (["longer={recipe.epochs: 1}"], "longer.epochs=1: it is not longer"),
    (["longer.epochs=many"], "longer.epochs=many"),
    (["longer=9"], "longer=9: it must name settings"),
    (["longer.recipe.colour=3"], "longer: Recipe"),
    (["longer.colour=3"], "colour"),
    (["evaluator=proxy", "longer.recipe=3"], "longer.recipe=3: it must name settings of the evaluator's"),
    (["longer.wings.a=3"], "longer.wings.a: the evaluator has no wings"),
    (["longer.recipe.lr=-1"], "longer: lr=-1"),
    (["evaluator=synthetic", "longer.noise=1"], "longer.noise=1: it must be a number"),
    (["from=nowhere"], "from=nowhere: no config.yaml there"),
    (["dry_run=3"], "dry_run=3"),
    (["engine=steam"], "engine=steam"),
    (["budget=3"], "unknown option 'budget'"),
    (["name=../out"], "name=../out"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD_INPUT, ids=lambda value: " ".join(value)[:40])
def test_bad_input_is_one_line_and_nothing_is_written(empty_folder: Path, arguments: list[str], said: str) -> None:
    with pytest.raises(InputError) as raised:
        main(arguments)
    assert said in one_line(raised.value) and "\n" not in str(raised.value)
    assert contents(empty_folder) == {}


def test_other_settings_and_other_commands_are_refused(empty_folder: Path) -> None:
    main([*FAST, "name=a"])
    search.main(["evaluator=synthetic", "engine=inline", "budget=3", "name=search"])
    before = contents(empty_folder)
    for arguments, said in (
        (["name=a", "longer.epochs=12"], "longer.epochs=10 (now 12)"),
        (["name=a", "seed=1"], "seed=0 (now 1)"),
        (["name=search"], "holds another command's results"),
        (["from=runs/a"], "its journal is not a search's"),
        (["from=runs/search", "space=mnasnet"], "leave space= out"),
        (["from=runs/search"], "networks=5: there are 3 distinct ones"),
    ):
        with pytest.raises(InputError, match=said.replace("(", r"\(").replace(")", r"\)")):
            main([*FAST, *arguments])
    assert contents(empty_folder) == before


def test_the_longer_schedule_changes_what_it_is_told_and_shares_the_data() -> None:
    given, _ = configuration("nas.proxy_check", "proxy_check", ["longer.recipe.lr=0.01"], open_ended=("longer",))
    settings = _longer_settings(given, "proxy")
    assert settings["recipe"] == given["evaluator"]["recipe"] | {"epochs": 10, "lr": 0.01}
    data = object()

    class Proxy:
        def __init__(self) -> None:
            self.data = data

    longer = _longer(given, settings, Proxy())
    assert getattr(longer, "data", None) is data
    assert getattr(longer, "recipe", None) is not None and longer.recipe.epochs == 10  # type: ignore[attr-defined]


# --- from a search, and back into its report -------------------------------------------------------------------------


def test_summaries_of_others_do_not_disturb_who_looks_for_a_check(tmp_path: Path) -> None:
    check = {"command": "nas.proxy_check", "fingerprint": "a", "finished": True, "tau": 0.5, "networks": 9}
    for number, text in enumerate(
        ["", "{", "[" * 100_000, "[]", json.dumps(check | {"networks": "many"}), json.dumps(check)]
    ):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "summary.json").write_text(text)
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "summary.json").write_bytes(b"\xff")
    assert find_check(tmp_path, "a") == (tmp_path / "5", check) and find_check(tmp_path, "b") is None


@pytest.mark.slow
def test_the_networks_of_a_search_are_checked_and_its_report_says_so(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    searching = ["evaluator=synthetic", "evaluator.epochs=2", "evaluator.noise=0.1", "engine=inline", "halving=null"]
    search.main([*searching, "budget=12", "name=s"])
    page = empty_folder / "runs" / "s" / "report.html"
    assert "was never checked here" in page.read_text() and "python -m nas.proxy_check from=runs/s" in page.read_text()
    checking = ["from=runs/s", "engine=inline", "networks=6", "name=c"]
    assert main(checking) == 0
    assert "6 networks of MnasNet that runs/s looked at" in capsys.readouterr().out
    looked_at = {entry.key for entry in read_journal(page.with_name("journal.jsonl"))[1]}
    settings, entries, _ = read_journal(empty_folder / "runs" / "c" / "journal.jsonl")
    assert {entry.key for entry in entries} <= looked_at and len({entry.key for entry in entries}) == 6
    assert settings["evaluator"]["noise"] == 0.1 and settings["from"] == {"folder": "runs/s", "evaluations": 12}

    search_report.main(["runs/s"])
    assert "This proxy was checked (runs/c). Over 6 networks" in page.read_text()
    search.main([*searching, "budget=20", "name=s"])  # the search goes on, the check is the same one
    before = (empty_folder / "runs" / "c" / "journal.jsonl").read_bytes()
    assert main([*checking, "networks=7"]) == 0
    assert (empty_folder / "runs" / "c" / "journal.jsonl").read_bytes().startswith(before)

    main(["from=runs/s", "engine=inline", "networks=4", "evaluator.noise=0.05", "name=changed"])
    changed = read_journal(empty_folder / "runs" / "changed" / "journal.jsonl")[0]
    assert changed["evaluator"] == settings["evaluator"] | {"noise": 0.05}


def note_of(config: dict[str, object], change: Callable[[dict[str, object]], object] = lambda summary: None) -> str:
    """What a report of this configuration says beside a check of space s and evaluator e, its summary changed."""
    folder = Path("runs/check")
    folder.mkdir(parents=True, exist_ok=True)
    summary: dict[str, object] = {
        "command": "nas.proxy_check", "finished": True, "networks": 16, "tau": {"value": 0.7}, "verdict": "Good.",
        "fingerprint": fingerprint({"_target_": "s"}, {"_target_": "e", "epochs": 2}),
    }  # fmt: skip
    change(summary)
    (folder / "summary.json").write_text(json.dumps(summary))
    note = checked_note(config, Path("runs"))
    return "" if note is None else note[0]


def test_a_check_counts_for_the_same_settings_and_when_it_is_finished() -> None:
    same: dict[str, object] = {"space": {"_target_": "s"}, "evaluator": {"epochs": 2, "_target_": "e"}}
    assert note_of(same) == "This proxy was checked (runs/check). Good."
    never = "How well this proxy ranks networks was never checked here."
    assert note_of(same | {"evaluator": {"_target_": "e", "epochs": 3}}) == never
    assert note_of(same | {"space": {"_target_": "s", "resolution": 32}}) == never
    assert note_of(same, lambda summary: summary.update(finished=False)) == never
    assert note_of(same, lambda summary: summary.update(command="nas.search")) == never
    assert note_of(same | {"evaluator": {"_target_": "a.table"}}) == ""
    Path("runs/check/summary.json").write_text("{ torn")
    note = checked_note(same, Path("runs"))
    assert note is not None and note[0] == never
