"""controller=optuna: every law for samplers of each kind, what each is told, and one line for a sampler that is not."""

from __future__ import annotations

import inspect
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from optuna.samplers import NSGAIISampler, RandomSampler
from optuna.trial import TrialState

from nas.controller import Result
from nas.controllers.optuna import Optuna
from nas.search import main
from nas.testing import Make, Separable, awkward, check_controller, trajectory
from phinas.files.errors import InputError
from tests.conftest import ROOT

MAKES: dict[str, Make] = {
    "TPE": Optuna,
    "TPE, ordered": partial(Optuna, ordered=True, settings={"n_startup_trials": 5}),
    "NSGA-II": partial(Optuna, sampler="NSGAIISampler", settings={"population_size": 6}),
    "quasi-random": partial(Optuna, sampler="QMCSampler", ordered=True),
    "a class of one's own": partial(Optuna, sampler="tests.test_optuna_controller.Mine"),
}


class Mine(RandomSampler):
    """What a user may bring."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)


class Seedless(RandomSampler):
    """What cannot be resumed."""

    def __init__(self) -> None:
        super().__init__()


@pytest.mark.parametrize("name", MAKES)
def test_every_law_holds(name: str) -> None:
    check_controller(MAKES[name])


@pytest.mark.slow
def test_every_law_holds_for_a_front() -> None:
    """Against accuracy and costs, of which a throughput is better when higher."""
    make = partial(Optuna, sampler="NSGAIISampler", settings={"population_size": 6})
    problem = Separable((3,) * 6, front=("macs", "params"))
    check_controller(make, problem)
    check_controller(Optuna, problem)


@pytest.mark.slow
def test_a_gaussian_process_resumes_too() -> None:
    """A model is fitted 0.3 s each time, so the laws have too many asks for it."""
    make = partial(Optuna, sampler="GPSampler", settings={"n_startup_trials": 8})
    problem = Separable((3,) * 6)
    whole = trajectory(make(problem=problem, seed=0), problem, 13, workers=2)
    fresh, live = make(problem=problem, seed=0), make(problem=problem, seed=0)
    for result in whole:
        live.ask(result.number, [])
        live.tell(result)
        fresh.tell(result)
    assert len({result.picks for result in whole}) == 13
    assert live.ask(13, []) == fresh.ask(13, []) == live.ask(13, [])
    restarted = trajectory(make(problem=problem, seed=0), problem, 11, told=whole[:9])
    assert restarted[:9] == whole[:9]


def test_nsga2_is_optunas_own_while_nothing_is_in_flight() -> None:
    """Generations and their parents are those of a study that ran NSGA-II from its start."""
    problem = Separable((4,) * 8)
    controller = Optuna(problem, seed=0, sampler="NSGAIISampler", settings={"population_size": 5})
    told = trajectory(controller, problem, 24)
    study = optuna.create_study(direction="maximize", sampler=NSGAIISampler(population_size=5, seed=0))
    for result in told:  # the same results in Optuna's hands
        trial = study.ask(controller.distributions)
        if result.reward is None:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, result.reward)
    key = NSGAIISampler._get_generation_key()
    ours = [trial.system_attrs.get(key) for trial in controller.study.get_trials()]
    theirs = [trial.system_attrs.get(key) for trial in study.get_trials()]
    assert ours == theirs and ours[-1] == 4


def test_failures_and_fronts_are_told_as_what_they_are() -> None:
    problem = Separable((3,) * 4, front=("macs", "throughput_here"))
    costs = {"macs": 5e6, "throughput_here": 7.0}
    problem.cost = lambda picks: costs  # type: ignore[method-assign]
    controller = Optuna(problem, seed=0)
    controller.tell(Result(0, (0, 1, 2, 0), 0.5, 0.1))
    controller.tell(Result(1, (0, 1, 2, 1), None, None))
    first, second = controller.study.get_trials()
    assert [direction.name for direction in controller.study.directions] == ["MAXIMIZE", "MINIMIZE", "MAXIMIZE"]
    assert first.values == [0.5, 5e6, 7.0] and tuple(first.params.values()) == (0, 1, 2, 0)
    assert second.state is TrialState.FAIL


@pytest.mark.slow
def test_tpe_beats_random() -> None:
    found: dict[str, list[float]] = {"RandomSampler": [], "TPESampler": []}
    for seed in range(3):
        problem = Separable((3,) * 12, seed=seed)
        for sampler, rewards in found.items():
            controller = Optuna(problem, seed=seed, sampler=sampler)
            best = 0.0
            for number in range(80):
                picks = controller.ask(number, [])
                assert picks is not None
                best = max(best, worth := problem.worth(picks))
                controller.tell(Result(number, picks, worth, worth))
            rewards.append(best)
    assert np.mean(found["TPESampler"]) > np.mean(found["RandomSampler"]) + 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "TPE"}, "did you mean TPESampler"),
        ({"sampler": "NSGA2Sampler"}, "did you mean NSGAIISampler"),
        ({"sampler": "Nothing"}, "allowed: BruteForceSampler, CmaEsSampler"),
        ({"sampler": "nowhere.Sampler"}, "No module named 'nowhere'"),
        ({"sampler": "optuna.samplers.Nothing"}, "Nothing"),
        ({"sampler": "math.pi"}, "math.pi"),
        ({"sampler": "tests.test_optuna_controller.Seedless"}, "must take a seed"),
        ({"sampler": "builtins.print"}, "must take a seed"),
        ({"settings": {"mood": 3}}, "mood"),
        ({"sampler": "NSGAIISampler", "settings": {"population_size": 1}}, "population_size"),
        ({"sampler": "GridSampler"}, "search_space"),
        ({"ordered": 3}, "ordered=3"),
    ],
)
def test_a_mistake_is_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        Optuna(awkward(), seed=0, **settings)
    assert "\n" not in str(raised.value)


def test_a_sampler_says_which_package_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.controllers.optuna.find_spec", lambda package: None)
    with pytest.raises(InputError, match="CmaEsSampler: it needs a package that is missing: pip install cmaes"):
        Optuna(awkward(), seed=0, sampler="CmaEsSampler")


def test_the_file_shows_every_setting_at_its_default() -> None:
    config: Any = OmegaConf.load(ROOT / "conf" / "controller" / "optuna.yaml")
    defaults = {name: parameter.default for name, parameter in inspect.signature(Optuna).parameters.items()}
    defaults = {name: value for name, value in defaults.items() if name not in ("problem", "seed")}
    shown = {name: value for name, value in config.items() if name not in ("_target_", "_convert_")}
    assert {**shown, "settings": shown["settings"] or None} == defaults
    assert instantiate(config, problem=awkward(), seed=0).ask(0, []) is not None


PINNED = ["1010100", "0013002", "0013113", "0002111", "1012110"]  # the first two of 32 proposals, and the last three


# Repin where the controller was changed on purpose, and say so in the changelog; or where a new Optuna or numpy draws
# other numbers.
def test_trajectory_is_pinned() -> None:
    problem = awkward()
    picks = [result.picks for result in trajectory(Optuna(problem=problem, seed=0), problem, 32)]
    assert ["".join(str(pick) for pick in one) for one in (*picks[:2], *picks[-3:])] == PINNED


# --- the command ------------------------------------------------------------------------------------------------------

SEARCH = ["controller=optuna", "evaluator=synthetic", "engine=inline"]


def test_a_search_goes_on_where_its_journal_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    search = [*SEARCH, "controller.sampler=NSGAIISampler", "+controller.settings.population_size=4", "budget=14"]
    assert main([*search, "name=whole"]) == 0
    whole = (tmp_path / "runs" / "whole" / "journal.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in (1, 6, 12):  # lines, of which the first holds the settings
        journal = tmp_path / "runs" / f"cut{cut}" / "journal.jsonl"
        journal.parent.mkdir()
        journal.write_bytes(b"".join(lines[:cut]))
        assert main([*search, f"name=cut{cut}"]) == 0
        assert journal.read_bytes() == whole


@pytest.mark.slow
def test_no_such_sampler_is_one_line_and_exit_2(tmp_path: Path, command_environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "nas.search", *SEARCH, "controller.sampler=TPESampeler", "name=none"]
    ended = subprocess.run(command, env=command_environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and not (tmp_path / "runs").exists()
    assert ended.stderr.count("\n") == 1 and "did you mean TPESampler" in ended.stderr


@pytest.mark.slow
def test_other_controllers_do_not_pay_for_optuna() -> None:
    check = "import nas.search, nas.controllers.evolution, sys; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, timeout=120).returncode == 0
