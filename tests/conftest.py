"""What several test files need: a small search without training, and commands run as a user runs them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from matplotlib.figure import Figure

from nas.controller import Controller
from nas.controllers.random import Random
from nas.halving import Halving
from nas.jobs import SearchJobs
from nas.journal import Journal
from nas.problem import SearchProblem
from nas.reward import mnas_soft, on_macs
from search_spaces.efficientnet import EfficientNet

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads beside a busy process are slower than one
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # whoever imports Ray first
ROOT = Path(__file__).parent.parent
OTHER_RAY = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if "ray-" in folder]


# Cases that are slow, of tests that other cases stand for.
SLOW_CASES = (
    "test_an_interrupted_driver_keeps_what_is_finished[15]",
    "test_a_journal_goes_on[check]",
    "test_every_controller_goes_on_the_same_wherever_its_journal_was_cut[bayesian",
    "test_every_law_holds[bayesian, at once]",
    "test_killed_at_any_statement_it_goes_on_as_if_nothing_had_been[1]",
    "test_killed_at_any_statement_it_goes_on_as_if_nothing_had_been[95]",
    "test_killed_at_any_statement_it_goes_on_as_if_nothing_had_been[300]",
    "test_killed_at_any_statement_it_goes_on_as_if_nothing_had_been[500]",
    "test_rl_learns_a_separable_problem[1]",
    "test_rl_learns_a_separable_problem[2]",
    "test_the_peak_is_what_is_alive_in_the_reference_networks[efficientnet_b1]",
    "test_the_peak_is_what_is_alive_in_the_reference_networks[efficientnet_b2]",
    "test_the_peak_is_what_is_alive_in_the_reference_networks[efficientnet_b3]",
    "test_bfloat16_is_autocast_in_training_and_the_whole_network_at_inference[arch5]",
    "test_the_built_module_costs_what_the_arithmetic_says[efficientnet_b5]",
    "test_the_built_module_costs_what_the_arithmetic_says[efficientnet_b6]",
    "test_the_built_module_costs_what_the_arithmetic_says[efficientnet_b7]",
    "test_what_is_stated_as_probable_is_as_frequent[three]",
    "test_every_backend_computes_the_same_and_leaves_the_network_as_it_is[compiled]",
    "test_resuming_with_other_settings_is_refused[reward",
    "test_resuming_with_other_settings_is_refused[target_flops",
    "test_resuming_with_other_settings_is_refused[space",
    "test_resuming_with_other_settings_is_refused[phi",
    "test_resuming_with_other_settings_is_refused[variant",
    "test_resuming_with_other_settings_is_refused[evaluator",
    "test_resuming_with_other_settings_is_refused[baseline",
    "test_example_spaces_keep_the_laws[cells.Cells]",
    "test_no_label_lies_on_another[published-10]",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs on Ray comes first: it is the longest, and at the end one core would wait for the other."""
    for item in items:
        if item.name.startswith(SLOW_CASES):
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


MakeSearch = Callable[..., SearchJobs]


@pytest.fixture
def make_search(tmp_path: Path) -> MakeSearch:
    """Build a search in the efficientnet space on tmp_path's journal; call it again to resume."""

    def make(
        budget: int = 20,
        seed: int = 0,
        halving: Halving | None = None,
        name: str = "journal.jsonl",
        controller: Callable[..., Controller] = Random,
        front: tuple[str, ...] = (),
        settings: Mapping[str, Any] | None = None,
        give_up_after: int | None = None,
    ) -> SearchJobs:
        problem = SearchProblem(EfficientNet(), on_macs(mnas_soft, 400e6), front=front)
        journal = Journal(tmp_path / name, settings or {"seed": seed})
        made = controller(problem=problem, seed=seed)
        return SearchJobs(problem, made, journal, budget, seed, halving, give_up_after)

    return make


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the test, with nothing in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Where the reports and commands draw. A figure takes up to a second, which most tests do not look at.
DRAWN = {
    "nas.report": ("network_figure", "overview_figure", "pareto_figure", "reward_figure"),
    "nas.experiment": ("comparison_figure",),
    "nas.proxy_check.report": ("check_figure", "scatter_figure", "standings_figure"),
    "scaling_search.report": ("cost_figure", "ranking_figure", "surface_figure"),
    "scaling_search.compare.report": ("bases_figure", "methods_figure", "single_figure"),
    "scaling_search.compare.__main__": ("overview_figure",),
    "phinas.generate.__main__": ("family_figure",),
    "phinas.measure.report": ("measured_figure",),
    "phinas.transfer.report": ("transfer_figure",),
}


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty figures, unless the test is one of those that look at them."""
    if request.node.get_closest_marker("figures"):
        return
    for module, functions in DRAWN.items():
        if loaded := sys.modules.get(module):
            for function in functions:
                monkeypatch.setattr(loaded, function, lambda *given, **settings: Figure(figsize=(2, 1)))


class Clock:
    """A clock that only passes move, so that what is measured is known exactly."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.order: list[str] = []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def lasting(self, name: str, seconds: Callable[[], float]) -> Callable[[], None]:
        def run() -> None:
            self.order.append(name)
            self.now += seconds()

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, by its path in it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def listens(*processes: psutil.Process) -> set[str]:
    """The addresses at which these processes hear others."""
    found = set()
    for process in processes:
        try:
            connections = process.net_connections(kind="inet")
        except psutil.Error:  # it has just ended
            continue
        found |= {one.laddr.ip.removeprefix("::ffff:") for one in connections if one.laddr and not one.raddr}
    return found


def hear_ctrl_c() -> None:
    """To be run in a child: a shell starts what it puts in the background deaf to SIGINT, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def command_environment() -> dict[str, str]:
    """For commands run as a user runs them, from a folder of their own."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *OTHER_RAY]),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
