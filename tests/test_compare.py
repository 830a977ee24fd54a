"""`python -m scaling_search.compare`: networks of equal MACs, what is concluded of them, written and refused."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from scipy.stats import ttest_ind

from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.arch_file import write_arch
from phinas.networks.compound import PAPER, Coefficients
from phinas.networks.cost import cost
from phinas.networks.reference import EFFICIENTNET_B0, reference
from phinas.networks.scaling_file import Scaling, write_scaling
from phinas.pages.style import svg
from scaling_search.compare.__main__ import main
from scaling_search.compare.figure import bases_figure, methods_figure, single_figure
from scaling_search.compare.networks import (
    BASELINE,
    BASES,
    COMPOUND,
    METHODS,
    Point,
    line_of,
    on_bases,
    points_at_equal_macs,
)
from scaling_search.compare.outcome import Noise, Outcome, contrasts, noise_of, outcomes, verdicts
from scaling_search.study import NAME, Evaluation, check_study
from scaling_search.variant import Variant
from tests.conftest import every_network, hear_ctrl_c

pytestmark = pytest.mark.usefixtures("empty_folder")


FAST = ("evaluator=synthetic", "engine=inline", "figure4=false")
SMALL = replace(Variant(resolution=32, stem_stride=1, width=0.5).of(EFFICIENTNET_B0), classes=10)


# --- which networks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", every_network("efficientnet_l2"))
@pytest.mark.parametrize("rounding", ["nearest", "official"])
def test_all_networks_of_a_level_have_its_macs_for_every_baseline(name: str, rounding: str) -> None:
    baseline = reference(name)
    points = points_at_equal_macs(baseline, PAPER, (2, 4), 0.05, rounding)
    assert [(point.line, point.factor) for point in points] == [
        (BASELINE, 1), *((method, factor) for factor in (2, 4) for method in METHODS)
    ]  # fmt: skip
    assert points[0].network == baseline
    for point in points:
        assert point.macs == cost(point.network).macs
        assert abs(point.macs / (point.level * cost(baseline).macs) - 1) <= 0.05
        assert point.level == pytest.approx(point.factor, rel=0.25)


@pytest.mark.parametrize("baseline", [SMALL, EFFICIENTNET_B0])
def test_a_single_dimension_grows_alone_and_compound_scaling_in_all(baseline: Arch) -> None:
    for point in points_at_equal_macs(baseline, PAPER, (2, 4, 8), 0.05)[1:]:
        grown = {"depth": point.depth, "width": point.width, "resolution": point.resolution}
        if point.line == COMPOUND:
            assert min(grown.values()) > 1
            continue
        assert grown.pop(point.line) > 1
        # The input may be trimmed where layers or channels jump past the MACs, and nothing else.
        assert all(value == 1 or (name == "resolution" and abs(value - 1) <= 0.1) for name, value in grown.items())


def test_a_level_moves_to_where_all_methods_have_a_network() -> None:
    baseline = replace(Variant(resolution=24, stem_stride=1, width=0.5).of(EFFICIENTNET_B0), classes=10)
    macs = [cost(replace(baseline, resolution=side)).macs / cost(baseline).macs for side in range(24, 64)]
    assert not any(1.9 <= one <= 2.1 for one in macs)  # resolution alone cannot double its MACs
    level = points_at_equal_macs(baseline, PAPER, (2,), 0.05)[1].level
    assert any(abs(one / level - 1) <= 0.05 for one in macs) and level != 2


def test_the_bases_of_figure_4_are_widened_to_the_same_macs() -> None:
    points, wanting = on_bases(SMALL, {2: 2.0, 4: 4.0}, 0.05)
    whole = cost(SMALL).macs
    assert {point.line for point in points} == {line_of(base) for base in BASES[1:]}
    for point in points:
        assert abs(point.macs / (point.level * whole) - 1) <= 0.05
        depth, resolution = next(base for base in BASES if line_of(base) == point.line)
        assert point.depth == pytest.approx(depth, rel=0.05) and point.resolution == pytest.approx(resolution, rel=0.12)
    # The deepest and largest base costs more than twice the baseline by itself.
    assert wanting == [(line_of(BASES[-1]), 2)]


# --- what is concluded -----------------------------------------------------------------------------------------------


def made_up(points: Sequence[Point], gains: dict[str, float], noise: Sequence[float]) -> list[Outcome]:
    """Accuracies 0.8 + the line's gain x doublings of the MACs, and for each seed its noise."""
    found = [
        Evaluation(
            point.network.key(), {}, seed,
            (0.8 + gains.get(point.line, 0.0) * float(np.log2(point.level)) + one,), False, None, 1.0,
        )
        for point in points
        for seed, one in enumerate(noise)
    ]  # fmt: skip
    return outcomes(points, found)


POINTS = points_at_equal_macs(SMALL, PAPER, (2, 4), 0.05)
BETTER = {"depth": 0.01, "width": 0.02, "resolution": 0.01, COMPOUND: 0.04}


@pytest.mark.parametrize(
    ("gains", "noise", "said"),
    [
        (BETTER, (-0.001, 0.0, 0.001), "best single dimension (width) 0.8400 ± 0.0010: compound scaling is better"),
        (BETTER, (-0.05, 0.0, 0.05), "not told apart"),
        ({**BETTER, "depth": 0.09}, (-0.001, 0.0, 0.001), "(depth) 0.9800 ± 0.0010: compound scaling is worse"),
        ({**BETTER, "width": 0.04}, (-0.001, 0.0, 0.001), "not told apart; above depth and resolution all the same"),
        (BETTER, (0.0,), "(width) 0.8400: whether that is chance is not known with one seed"),
    ],
)
def test_the_verdict_says_what_the_data_say(gains: dict[str, float], noise: tuple[float, ...], said: str) -> None:
    two, four = verdicts(made_up(POINTS, gains, noise))
    assert two.startswith("at 2x: compound ") and said in four


def test_the_three_differences_of_a_level_are_covered_at_once() -> None:
    """In 95% of all made-up studies at least, as the report says; Bonferroni's intervals are a little too wide."""
    random = np.random.default_rng(0)
    points = [point for point in POINTS if point.factor in (1, 2)]
    covered = 0
    for _ in range(400):
        found = [
            Evaluation(point.network.key(), {}, seed, (float(0.5 + 0.01 * random.normal()),), False, None, 1.0)
            for point in points
            for seed in range(3)
        ]
        covered += not any(one.told for one in contrasts(outcomes(points, found)))
    assert 0.93 <= covered / 400 <= 0.99  # 380 to be expected at least; 3 standard deviations are 13


def test_a_network_that_trains_now_and_then_does_not_drown_the_others() -> None:
    steady = {"a": (0.900, 0.902, 0.904), "b": (0.910, 0.909, 0.911), "c": (0.950, 0.952, 0.951)}
    alone, beside = noise_of(steady), noise_of({**steady, "d": (0.9, 0.6, 0.7)})
    assert {key: beside[key] for key in steady} == alone and not any(one.own for one in alone.values())
    assert beside["d"].own and beside["d"].deviation == pytest.approx(0.1528, abs=1e-4) and beside["d"].degrees == 2
    # Welch's interval, beside scipy's own where no noise is pooled.
    points = [point for point in POINTS if point.line in (COMPOUND, "depth") and point.factor == 2]
    found = [
        Outcome(points[0], (0.9, 0.6, 0.7), noise=beside["d"]),
        Outcome(points[1], steady["a"], noise=Noise(0.002, 2, True)),
    ]
    (stated,) = contrasts(found)
    expected = ttest_ind(steady["a"], (0.9, 0.6, 0.7), equal_var=False).confidence_interval(1 - 0.05 / 3)
    assert (stated.low, stated.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.slow
def test_equally_noisy_networks_are_seldom_taken_for_noisier() -> None:
    random = np.random.default_rng(0)
    studies = [{str(network): random.normal(size=3).tolist() for network in range(9)} for _ in range(1000)]
    apart = sum(any(one.own for one in noise_of(study).values()) for study in studies)
    assert apart <= 20  # 10 expected at the most, and a standard deviation of 3


def test_a_network_that_two_lines_share_is_no_different_from_itself() -> None:
    alone = Coefficients(1, 1, 2**0.5)  # compound scaling that is resolution alone
    points = points_at_equal_macs(SMALL, alone, (2,), 0.05)
    shared = made_up(points, {}, (0.0, 0.01))
    same = next(one for one in contrasts(shared) if one.method == "resolution")
    assert (same.estimate, same.low, same.high) == (0, 0, 0) and not same.told


@pytest.mark.slow
@pytest.mark.figures
def test_figures_stand_whatever_is_known() -> None:
    bases, _ = on_bases(SMALL, {2: 2.0, 4: 4.0}, 0.05)
    whole = made_up([*POINTS, *bases], BETTER, (-0.01, 0.0, 0.01))
    one_seed = made_up(POINTS, BETTER, (0.0,))
    nothing = outcomes(POINTS, [])
    partly = outcomes(POINTS, [Evaluation(POINTS[1].network.key(), {}, 0, (0.7,), False, None, 1.0)])
    for found in (whole, one_seed, nothing, partly):
        for draw in (methods_figure, single_figure, bases_figure):
            assert svg(draw(found), "figure").startswith("<svg")
    labels = [text.get_text() for text in methods_figure(whole).axes[0].texts]
    assert sorted(labels) == sorted(one.label for one in whole if one.point.line in (BASELINE, *METHODS))
    assert {"d=1.9", "w=1.4", "d=1.4 w=1.2 r=1.2", "baseline"} <= set(labels)
    assert [text.get_text() for text in methods_figure(nothing).axes[0].texts] == ["no network is evaluated yet"]


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.figures
def test_it_writes_what_the_contract_names(empty_folder: Path) -> None:
    assert main([*FAST, "name=first", "figure4=true"]) == 0
    folder = empty_folder / "runs" / "first"
    rows = pd.read_csv(folder / "comparison.csv")
    assert set(rows.line) == {BASELINE, *METHODS, *map(line_of, BASES[1:])}
    assert ((rows.macs / (rows.level * rows.macs[0]) - 1).abs() <= 0.05).all() and (rows.seeds == 3).all()
    assert (rows.accuracy_mean.between(0, 1)).all()
    summary = json.loads((folder / "summary.json").read_text())
    assert len(summary["verdicts"]) == 2 and len(summary["contrasts"]) == 6 and summary["failures"] == 0
    assert summary["evaluations"] == 3 * rows.network.nunique()
    assert (summary["baseline"], summary["evaluator"], summary["seeds"]) == ("efficientnet_b0", "synthetic", 3)
    assert summary["constants"] == {"alpha": 1.2, "beta": 1.1, "gamma": 1.15}
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 3 and all(line.split(":")[0][1:] in page for line in summary["verdicts"])
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert yaml.safe_load((folder / "config.yaml").read_text())["provenance"]


@pytest.mark.slow
def test_more_seeds_and_factors_extend_it_and_repeat_nothing(empty_folder: Path) -> None:
    table = empty_folder / "runs" / "a" / "comparison.csv"
    main([*FAST, "name=a", "seeds=1", "factors=[3]"])
    before = {number: one.seconds for number, one in evaluations(empty_folder / "runs" / "a").items()}
    main([*FAST, "name=a", "seeds=2", "factors=[2,3]"])
    main([*FAST, "name=b", "seeds=2", "factors=[2,3]"])
    after = evaluations(empty_folder / "runs" / "a")
    assert {number: after[number].seconds for number in before} == before
    assert table.read_text() == (empty_folder / "runs" / "b" / "comparison.csv").read_text()
    assert len(after) == 2 * pd.read_csv(table).network.nunique()


def evaluations(folder: Path) -> dict[tuple[str, int], Evaluation]:
    """By network and replicate; none may be there twice."""
    study = optuna.load_study(study_name=NAME, storage=f"sqlite:///{folder / 'study.db'}")
    assert all(trial.state != optuna.trial.TrialState.RUNNING for trial in study.trials)
    found = check_study(folder / "study.db", study.user_attrs["settings"])
    by_job = {(one.network, one.replicate): one for one in found}
    assert len(by_job) == len(found)
    return by_job


def test_dry_run_writes_nothing(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FAST, "name=dry", "dry_run=true"]) == 0
    assert not (empty_folder / "runs").exists()
    assert "9 distinct networks, each with 3 seeds" in capsys.readouterr().out


@pytest.mark.slow
def test_constants_may_come_from_a_search(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scaling(Scaling(Coefficients(1.5, 1.1, 1.05), 1, "nearest", SMALL, {}), "scaling.yaml")
    assert main([*FAST, "name=own", "seeds=1", "factors=[2]", "scaling=scaling.yaml"]) == 0
    assert main([*FAST, "name=typed", "seeds=1", "factors=[2]", "scaling=[1.5,1.1,1.05]"]) == 0
    summaries = [json.loads((empty_folder / "runs" / name / "summary.json").read_text()) for name in ("own", "typed")]
    assert summaries[0]["networks"] == summaries[1]["networks"]
    assert summaries[0]["constants"] == {"alpha": 1.5, "beta": 1.1, "gamma": 1.05}
    assert "were found for another baseline" in capsys.readouterr().out


@pytest.mark.slow
def test_interrupted_it_keeps_what_is_finished_and_goes_on(
    empty_folder: Path, command_environment: dict[str, str]
) -> None:
    options = [*FAST, "evaluator.seconds=0.3", "factors=[2]", "name=cut", "seeds=2"]
    command = [sys.executable, "-m", "scaling_search.compare", *options]
    process = subprocess.Popen(
        command, env=command_environment, preexec_fn=hear_ctrl_c, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    seen = ""
    while not re.search(r"\[([3-9])/10\]", seen):
        line = process.stdout.readline()
        assert line, seen
        seen += line
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(timeout=60) == 130
    assert "To go on:\n  python -m scaling_search.compare" in rest and "name=cut" in rest
    kept = evaluations(empty_folder / "runs" / "cut")
    assert 3 <= len(kept) < 10
    main(options)
    after = evaluations(empty_folder / "runs" / "cut")
    assert len(after) == 10 and all(after[key] == one for key, one in kept.items())


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("factors=[1]", "factors=1: it must be a number above 1"),
        ("factors=2", "factors=2: it must be a list"),
        ("factors=[]", "factors=[]: it must be a list"),
        ("factors=[2,2]", "factors=[2,2]: one of them is there twice"),
        ("factors=[2,2.05]", "all methods have a network at"),
        ("scaling=best", "scaling=best: it must be paper, runs/NAME/scaling.yaml, or [alpha,beta,gamma]"),
        ("scaling=[1,1,1]", "one of the three constants must be above 1"),
        ("scaling=[1.2,0.9,1.1]", "beta=0.9: it must be a number 1 or more"),
        ("scaling=[1.2,1.1]", "scaling=[1.2, 1.1]: it must be paper"),
        ("scaling=absent.yaml", "absent.yaml: No such file or directory"),
        ("scaling=network.yaml", "network.yaml: it has no constants"),
        ("tolerance=1", "tolerance=1: it must be a number 0 or more and below 1"),
        ("tolerance=0", "scaling has no network of 2 times the baseline's MACs within tolerance=0 (the nearest has"),
        ("rounding=up", "rounding=up: it must be one of official, nearest"),
        ("seeds=0", "seeds=0: it must be a whole number, 1 or more"),
        ("figure4=perhaps", "figure4=perhaps: it must be true or false"),
        ("baseline=vgg16", "baseline=vgg16"),
        ("phi=2", "unknown option 'phi'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(option: str, said: str, empty_folder: Path) -> None:
    write_arch(SMALL, "network.yaml")
    with pytest.raises(InputError) as error:
        main([*FAST, "name=bad", option])
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not (empty_folder / "runs").exists()


def test_another_baseline_does_not_go_into_the_same_folder(empty_folder: Path) -> None:
    main([*FAST, "name=a", "seeds=1", "factors=[2]"])
    before = {file.name: file.read_bytes() for file in (empty_folder / "runs" / "a").iterdir()}
    with pytest.raises(InputError, match="baseline"):
        main([*FAST, "name=a", "seeds=1", "factors=[2]", "baseline=mobilenet_v1"])
    assert {file.name: file.read_bytes() for file in (empty_folder / "runs" / "a").iterdir()} == before
