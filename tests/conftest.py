"""What several test files need: a small search without training, and commands run as a user runs them."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
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
from phinas.networks.reference import NAMES
from search_spaces.efficientnet import EfficientNet

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads beside a busy process are slower than one
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # whoever imports Ray first
ROOT = Path(__file__).parent.parent
OTHER_RAY = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if "ray-" in folder]


# Cases that are slow, of tests that other cases stand for.
SLOW_CASES = (
    "test_a_front_is_found_sooner_than_at_random[front1]",
    "test_a_file_that_hides_a_package_of_ours_is_one_line[nas/__init__.py-phinas.train]",
    "test_a_journal_goes_on[check]",
    "test_a_journal_goes_on[search]",
    "test_a_samplers_study_goes_on_where_it_was_cut[gp]",
    "test_bad_input_is_one_line_and_nothing_is_written[only=[workers] engine.address",
    "test_bfloat16_is_autocast_in_training_and_the_whole_network_at_inference[arch4]",
    "test_bfloat16_is_autocast_in_training_and_the_whole_network_at_inference[arch5]",
    "test_cost_is_half_of_the_flop_counter[efficientnet]",
    "test_every_backend_computes_the_same_and_leaves_the_network_as_it_is[compiled]",
    "test_every_controller_goes_on_the_same_wherever_its_journal_was_cut[bayesian",
    "test_every_controller_goes_on_the_same_wherever_its_journal_was_cut[rl]",
    "test_every_controller_goes_on_the_same_wherever_its_journal_was_cut[optuna, front]",
    "test_every_law_holds[NSGA-II]",
    "test_every_law_holds[TPE, ordered]",
    "test_every_law_holds[bayesian",
    "test_every_law_holds[quasi-random]",
    "test_every_law_holds[rl, greedy]",
    "test_a_search_is_repeatable_and_its_best_only_rises[optuna_tpe",
    "test_example_spaces_keep_the_laws[cells.Cells]",
    "test_failures_are_shunned[<lambda>1]",
    "test_figures_are_well_formed_and_ask_for_no_other_file[whole lattice]",
    "test_it_is_so_in_a_process_of_its_own[nas.search-name",
    "test_it_is_so_in_a_process_of_its_own[phinas.generate",
    "test_killed_at_any_statement_it_goes_on_as_if_nothing_had_been[1]",
    "test_killed_at_any_statement_it_goes_on_as_if_nothing_had_been[20]",
    "test_killed_at_any_statement_it_goes_on_as_if_nothing_had_been[70]",
    "test_killed_at_any_statement_it_goes_on_as_if_nothing_had_been[95]",
    "test_killed_at_any_statement_it_goes_on_as_if_nothing_had_been[300]",
    "test_killed_at_any_statement_it_goes_on_as_if_nothing_had_been[500]",
    "test_its_options_run[constraint",
    "test_its_options_run[variant",
    "test_no_label_lies_on_another[paper",
    "test_no_label_lies_on_another[published-10]",
    "test_published_networks_compute_the_same_for_any_batch[arch4]",
    "test_resuming_with_other_settings_is_refused[baseline",
    "test_resuming_with_other_settings_is_refused[controller",
    "test_resuming_with_other_settings_is_refused[evaluator",
    "test_resuming_with_other_settings_is_refused[lattice",
    "test_resuming_with_other_settings_is_refused[phi",
    "test_resuming_with_other_settings_is_refused[reward",
    "test_resuming_with_other_settings_is_refused[space",
    "test_resuming_with_other_settings_is_refused[target_flops",
    "test_resuming_with_other_settings_is_refused[variant",
    "test_resumed_at_any_step_it_is_the_uninterrupted_run_to_the_bit[optimizer2]",
    "test_round_trips_of_the_published_networks_keep_every_shape[b6]",
    "test_resumed_at_any_step_it_is_the_uninterrupted_run_to_the_bit[optimizer2]",
    "test_round_trips_of_the_published_networks_keep_every_shape[b7]",
    "test_the_line_goes_through_every_network_by_phi[dwr",
    "test_the_line_goes_through_every_network_by_phi[published-10]",
    "test_the_line_goes_through_every_network_by_phi[tinynet",
    "test_the_page_has_every_network_and_asks_for_no_other_file[dwr",
    "test_the_page_has_every_network_and_asks_for_no_other_file[published-10]",
    "test_the_page_has_every_network_and_asks_for_no_other_file[tinynet",
    "test_the_peak_is_what_is_alive_in_the_reference_networks[efficientnet_b1]",
    "test_the_peak_is_what_is_alive_in_the_reference_networks[efficientnet_b2]",
    "test_the_peak_is_what_is_alive_in_the_reference_networks[efficientnet_b3]",
    "test_the_peak_is_what_is_alive_in_the_reference_networks[mnasnet_a1]",
    "test_the_peak_is_what_is_alive_in_the_reference_networks[mobilenet",
    "test_weights_go_over_with_a_new_head",
)
QUICK = ("efficientnet_b0", "mnasnet_a1", "mobilenet_v1", "mobilenet_v2", "resnet50")  # one of each family


def every_network(*but: str) -> list[Any]:
    """The names of the shipped networks; those whose family another one stands for are slow."""
    names = [name for name in NAMES if name not in but]
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs on Ray comes first: it is the longest, and at the end one core would wait for the other."""
    for item in items:
        if item.name.startswith(SLOW_CASES):
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


def pytest_collection_finish() -> None:
    """What the imports have made stays: looking for garbage among it took a tenth of the time of all tests."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[None]:
    """A Ray of two CPUs for a whole file: starting it takes seconds."""
    from phinas.engines.connection import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


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


def states(folder: Path) -> dict[Path, tuple[int, int] | None]:
    """Everything below the folder; of files their size and when they were written, which any writing changes."""
    found = {path: path.stat() for path in folder.rglob("*")}
    return {path: None if path.is_dir() else (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


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
