"""The scaling study on real Optuna and SQLite: whatever kills it, nothing is repeated, and the result is the same."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.engine import Engine

from nas.evaluators.synthetic import Synthetic
from nas.halving import Halving
from phinas.engines import inline
from phinas.engines.evaluator import EvaluationFailed, Measurement
from phinas.files.errors import InputError
from phinas.networks.compound import Coefficients
from phinas.networks.network import Network
from phinas.networks.reference import EFFICIENTNET_B0
from scaling_search.candidates import lattice
from scaling_search.plan import Row, Surface, explored, plan
from scaling_search.results import outcome, write_candidates
from scaling_search.study import Evaluation, Explore, Params, Study, Task, check_study
from scaling_search.variant import Variant

SURFACE = Surface(Variant(resolution=24, stem_stride=1, width=0.5).of(EFFICIENTNET_B0), 1)
POINTS = lattice(alpha=(1.0, 1.4), beta=(1.0, 1.2), gamma=(1.0, 1.3))
SETTINGS = {"baseline": "efficientnet_b0", "lattice": {"step": 0.05, "alpha": [1.0, 1.4]}, "seed": 0}
EPOCHS = 3
EVALUATOR = Synthetic(epochs=EPOCHS)


@dataclass(frozen=True)
class Make:
    """A study in a folder; call it again to open it again."""

    folder: Path
    candidates: int = 4
    seeds: int = 2
    halving: bool = False
    sampler: str | None = None

    @property
    def path(self) -> Path:
        return self.folder / "study.db"

    @property
    def rows(self) -> list[Row]:
        return plan(SURFACE, POINTS, self.candidates)

    def __call__(self) -> Study:
        halving = Halving(EPOCHS, grace=1, eta=2) if self.halving else None
        if self.sampler:
            ranges = {"depth_share": (0.0, 1.0), "width_of_rest": (0.0, 1.0)}
            explore = Explore(self.sampler, self.candidates, _sampled)
            return Study(self.path, SETTINGS, ranges, (), self.seeds, 0, halving, explore)
        ranges = {"alpha": (1.0, 1.4), "beta": (1.0, 1.2), "gamma": (1.0, 1.3)}
        tasks = [_task(row) for row in self.rows if row.chosen and row.same_as is None]
        return Study(self.path, SETTINGS, ranges, tasks, self.seeds, 0, halving)

    def table(self, study: Study) -> bytes:
        """`candidates.csv` as the study has it."""
        rows = self.rows
        if self.sampler:
            rows = explored(SURFACE, [_constants(task.params) for task in study.tasks.values()])
        write_candidates(self.folder / "candidates.csv", SURFACE, outcome(rows, study.evaluations))
        return (self.folder / "candidates.csv").read_bytes()

    def finished(self) -> bytes:
        """Open it, evaluate what is left, and give its table."""
        study = self()
        inline.run(study, EVALUATOR)
        table = self.table(study)
        study.close()
        return table

    @property
    def trials(self) -> list[FrozenTrial]:
        return optuna.load_study(study_name="scaling", storage=f"sqlite:///{self.path}").trials


def ended(trials: Sequence[FrozenTrial]) -> dict[int, tuple[Any, ...]]:
    """Those that have a result, by number, with all that is known of them."""
    return {
        trial.number: (trial.user_attrs, trial.params, trial.intermediate_values, trial.datetime_complete)
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    }


def _task(row: Row) -> Task:
    assert row.candidate is not None
    return Task(vars(row.coefficients), row.candidate.network)


def _constants(params: Params) -> Coefficients:
    depth = float(params["depth_share"])
    return Coefficients.of_shares(depth, (1 - depth) * float(params["width_of_rest"]))


def _sampled(params: Params) -> Task | None:
    candidate = SURFACE.row(_constants(params)).candidate
    return Task(params, candidate.network) if candidate else None


def replicates(study: Study) -> Counter[tuple[str, int]]:
    """How often each network was evaluated with each seed."""
    return Counter((one.network, one.replicate) for one in study.evaluations)


def check_done(make: Make, before: Mapping[int, tuple[Any, ...]] = MappingProxyType({})) -> dict[int, tuple[Any, ...]]:
    """Nothing finished was touched or repeated, and nothing runs or waits. Returns what is finished now."""
    trials = make.trials
    now = ended(trials)
    assert {number: now[number] for number in before} == before
    states = Counter(trial.state for trial in trials)
    assert states[TrialState.RUNNING] == states[TrialState.WAITING] == 0
    done = [trial.user_attrs for trial in trials if trial.number in now and "network" in trial.user_attrs]
    assert max(Counter((notes["network"], notes["replicate"]) for notes in done).values()) == 1
    return now


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """The table of a study of this kind that nothing interrupted."""
    tables: dict[str, bytes] = {}

    def table(**kind: Any) -> bytes:
        if str(kind) not in tables:
            tables[str(kind)] = Make(tmp_path_factory.mktemp("whole"), **kind).finished()
        return tables[str(kind)]

    return table


def killed_at(statement: int, make: Make) -> bool:
    """Run it in a process that dies at its so-manieth statement to the database; whether it came to that."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    sent = 0

    def count(*_: object) -> None:
        nonlocal sent
        sent += 1
        if sent == statement:
            os._exit(9)

    try:
        event.listen(Engine, "before_cursor_execute", count)
        event.listen(Engine, "commit", count)
        make.finished()
        os._exit(0)
    finally:
        os._exit(1)


# About 100 statements open a new study, 4 candidates with 2 seeds of 3 epochs each take about 700 in all.
@pytest.mark.parametrize("statement", [1, 20, 45, 70, 95, 300, 500])
def test_killed_at_any_statement_it_goes_on_as_if_nothing_had_been(
    tmp_path: Path, whole: Callable[..., bytes], statement: int
) -> None:
    make = Make(tmp_path, halving=True)
    assert killed_at(statement, make)
    before = ended(make.trials) if check_study(make.path, SETTINGS) else {}
    assert make.finished() == whole(halving=True)
    check_done(make, before)


class _Cut(BaseException):
    """As a signal would come: nothing catches it."""


@dataclass
class _CutOff:
    """The evaluator, until it has yielded so many measurements."""

    after: int

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        for measurement in EVALUATOR(network, seed):
            if not self.after:
                raise _Cut
            self.after -= 1
            yield measurement


@pytest.mark.slow
@pytest.mark.parametrize("closes", [False, True], ids=["killed", "interrupted"])
@pytest.mark.parametrize("halving", [False, True], ids=["", "halving"])
def test_cut_again_and_again_it_ends_with_the_same_table(
    tmp_path: Path, whole: Callable[..., bytes], halving: bool, closes: bool
) -> None:
    make = Make(tmp_path, candidates=5, halving=halving)
    before: dict[int, tuple[Any, ...]] = {}
    for after in (1, 4, 5, 2, 7):
        study = make()
        with pytest.raises(_Cut):
            inline.run(study, _CutOff(after))
        assert len(study.in_flight) == 1
        if closes:
            study.close()
            assert not study.in_flight
            assert all(trial.state != TrialState.RUNNING for trial in make.trials)
        now = ended(make.trials)
        assert {number: now[number] for number in before} == before
        before = now
    assert before
    assert make.finished() == whole(candidates=5, halving=halving)
    check_done(make, before)


def test_halving_stops_some_and_asks_for_no_other_seed_of_theirs(tmp_path: Path) -> None:
    make = Make(tmp_path, candidates=6, halving=True)
    make.finished()
    study = make()
    stopped = {one.network for one in study.evaluations if one.stopped}
    assert 0 < len(stopped) < 6 and study.left == 0 and study.propose() is None
    assert all(one.accuracy is None for one in study.evaluations if one.stopped)
    first = {one.network for one in study.evaluations if one.stopped and one.replicate == 0}
    assert first and all(replicates(study)[network, 1] == 0 for network in first)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_samplers_study_goes_on_where_it_was_cut(tmp_path: Path, sampler: str) -> None:
    make = Make(tmp_path, sampler=sampler)
    before: dict[int, tuple[Any, ...]] = {}
    for after in (1, 5, 9):
        study = make()
        with pytest.raises(_Cut):
            inline.run(study, _CutOff(after))
        now = ended(make.trials)
        assert {number: now[number] for number in before} == before
        before = now
    make.finished()
    check_done(make, before)
    study = make()
    assert len(study.tasks) == 4 and study.left == 0
    assert set(replicates(study).values()) == {1} and len(study.evaluations) == study.wanted == 8
    for task in study.tasks.values():
        candidate = SURFACE.row(_constants(task.params)).candidate
        assert candidate is not None and abs(candidate.macs / SURFACE.macs - 1) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [None, "tpe"])
def test_more_seeds_and_candidates_extend_it_and_fewer_leave_the_rest_alone(
    tmp_path: Path, whole: Callable[..., bytes], sampler: str | None
) -> None:
    few = Make(tmp_path, candidates=2, seeds=1, sampler=sampler)
    first = few.finished()
    before = ended(few.trials)
    for larger in (Make(tmp_path, 2, 2, sampler=sampler), Make(tmp_path, 4, 2, sampler=sampler)):
        larger.finished()
        before = check_done(larger, before)
        study = larger()
        assert len(study.evaluations) == study.wanted == larger.candidates * 2 and study.left == 0
    assert few.finished() == first
    study = few()
    assert (study.left, study.wanted, len(study.evaluations)) == (0, 2, 2)
    assert ended(few.trials) == before
    if sampler is None:
        assert Make(tmp_path, 4, 2).finished() == whole(candidates=4, seeds=2)


@pytest.mark.slow
def test_what_waits_of_other_candidates_is_not_evaluated_until_they_are_wanted(tmp_path: Path) -> None:
    many, few = Make(tmp_path, candidates=4), Make(tmp_path, candidates=2)
    study = many()
    study.propose()
    few.finished()
    assert len(ended(few.trials)) == 4 and few().propose() is None
    many.finished()
    check_done(many)
    assert len(ended(many.trials)) == 8


def test_replicates_share_seeds_across_networks(tmp_path: Path) -> None:
    study = Make(tmp_path)()
    jobs = [study.propose() for _ in range(8)]
    assert study.propose() is None
    found = [(job.replicate, job.seed) for job in jobs if job is not None]
    assert [replicate for replicate, _ in found] == [0, 0, 0, 0, 1, 1, 1, 1]  # all networks once before any again
    assert len(set(found)) == len({seed for _, seed in found}) == 2
    assert len({job.network.key() for job in jobs[:4] if job is not None}) == 4


class _Fails:
    """The candidate's fault for one network."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        if network.key() == self.key:
            raise EvaluationFailed("diverged: loss is nan at step 7")
        yield from EVALUATOR(network, seed)


@pytest.mark.slow
def test_a_failed_evaluation_is_recorded_and_not_tried_again(tmp_path: Path) -> None:
    make = Make(tmp_path)
    study = make()
    key = next(iter(study.tasks))
    watched: list[Evaluation] = []
    study.watch = watched.append
    inline.run(study, _Fails(key))
    study.close()
    assert Counter(one.error for one in watched) == {"diverged: loss is nan at step 7": 2, None: 6}
    assert b"failed" in make.finished()
    again = make()
    assert again.evaluations == watched and again.left == 0 and again.propose() is None
    assert [one.accuracy for one in again.evaluations if one.network == key] == [None, None]


def test_a_bug_crashes_and_is_nobodys_result(tmp_path: Path) -> None:
    def buggy(network: Network, seed: int) -> Iterator[Measurement]:
        yield Measurement(0.5, final=False)
        raise KeyError("a bug")

    make = Make(tmp_path)
    study = make()
    with pytest.raises(KeyError, match="a bug"):
        inline.run(study, buggy)
    study.close()
    assert ended(make.trials) == {} and make().left == 8


def test_a_restarted_evaluation_repeats_its_steps_without_counting_them_twice(tmp_path: Path) -> None:
    study = Make(tmp_path)()
    job = study.propose()
    assert job is not None
    for accuracies in ((0.1, 0.2), (0.1, 0.2, 0.3)):  # its worker died after the second
        assert all(study.record(job.number, step, accuracy) for step, accuracy in enumerate(accuracies, start=1))
    evaluation = study.finish(job.number, retries=2)
    assert (evaluation.curve, evaluation.retries) == ((0.1, 0.2, 0.3), 2) and study.evaluations == [evaluation]


@pytest.mark.slow
def test_a_check_changes_nothing(tmp_path: Path) -> None:
    make = Make(tmp_path, candidates=2)
    assert check_study(make.path, SETTINGS) == [] and list(tmp_path.iterdir()) == []
    make.finished()
    before = contents(tmp_path)
    assert len(check_study(make.path, SETTINGS)) == 4
    with pytest.raises(InputError, match=r"baseline=efficientnet_b0 \(now resnet50\)"):
        check_study(make.path, SETTINGS | {"baseline": "resnet50"})
    with pytest.raises(InputError, match=r"lattice\.step=0\.05 \(now 0\.1\); give another name= or the same settings$"):
        check_study(make.path, SETTINGS | {"lattice": {"step": 0.1, "alpha": [1.0, 1.4]}})
    assert contents(tmp_path) == before


def _another_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")


def _another_study(path: Path) -> None:
    optuna.create_study(storage=f"sqlite:///{path}", study_name="mine").optimize(lambda trial: 1.0, n_trials=1)


def _truncated(path: Path) -> None:
    Make(path.parent, candidates=2).finished()
    path.write_bytes(path.read_bytes()[:20_000])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_text("not a database, but text"), "is no study of Optuna's"),
        (lambda path: path.write_bytes(bytes(range(256)) * 40), "is no study of Optuna's"),
        (_another_table, "holds no study of scaling constants"),
        (_another_study, "holds no study of scaling constants"),
        (_truncated, "give another name="),
        (Path.mkdir, "give another name="),
    ],
    ids=["text", "noise", "another database", "another study", "truncated", "a folder"],
)
def test_what_is_no_study_is_one_line_and_left_alone(
    tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    make = Make(tmp_path, candidates=2)
    spoil(make.path)
    before = contents(tmp_path)
    for attempt in (lambda: check_study(make.path, SETTINGS), make):
        with pytest.raises(InputError) as caught:
            attempt()
        message = str(caught.value)
        assert message.startswith(str(make.path)) and says in message and "\n" not in message
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
