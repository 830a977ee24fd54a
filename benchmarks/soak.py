"""Whether a search slows down or grows over ten thousand evaluations through Ray, and a hundred thousand inline.

    python -m benchmarks.soak [parts=inline,replay,report,ray] [inline=100000] [ray=10000] [folder=soak]

inline   a hundred thousand evaluations of an instant evaluator by the command itself, with a controller that counts
         through the space. When it is told of a result it looks whether the journal's last line is that result and
         whether the file was forced to disk at that length. The time of its two verbs is taken out, and shown.
replay   reads that journal, and builds the search from it; then what each real controller needs to be told of its
         first ten thousand results, and to propose once it knows 100, 1,000 and 10,000.
report   makes the report of ten thousand and of a hundred thousand, and opens it in Chromium where there is one.
ray      ten thousand evaluations through Ray by the command itself, and Ray Tune alone before and after: reused class
         Trainables, a Searcher that suggests from a list.

Every part is a process of its own, so that none finds memory that another left. Exit code 1 where a target is missed.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
from hydra.utils import instantiate
from omegaconf import OmegaConf

from nas.controller import Problem, Result
from nas.controllers.random import Random
from nas.jobs import SearchJobs
from nas.journal import Entry, Journal, read_journal
from nas.problem import SearchProblem
from nas.report import main as report
from nas.reward import mnas_soft, on_macs
from nas.search import main as search
from phinas.command.groups import CONFIG_FOLDER
from phinas.command.run_folder import RUNS, provenance
from search_spaces.mnasnet import MnasNet
from search_spaces.space import Picks, size

ROOT = Path(__file__).parents[1]
STRIDE = 1000  # evaluations between two looks at the clock and at the memory
GOLDEN = (
    11_400_714_819_323_198_485  # odd and no multiple of 3 or 5: multiples of it visit every network of the space once
)
ON_RAY_MS, SLOWER, DRIVER_KB = 4.0, 1.4, 5.0  # of a trial; the last thousand against the first; a trial
INLINE_S, REPLAY_S = 240.0, 10.0
CONTROLLERS = ("random", "evolution", "bayesian", "rl", "optuna")
TOLD = (100, 1_000, 10_000)


@dataclass(frozen=True)
class Mark:
    """Where a search stood after so many results."""

    told: int
    clock: float  # seconds
    own: float  # seconds of them that the controller took, which also looks whether lines are on disk
    memory: int  # bytes of this process that are resident


class Witness:
    """A controller that notes when it was told, and whether what it is told of is on disk.

    What it noted is the class's, for the command keeps its controller to itself.
    """

    marks: ClassVar[list[Mark]] = []
    synced: ClassVar[dict[int, int]] = {}  # inode -> length at which the file was last forced to disk
    on_disk: ClassVar[int] = 0  # results that were told of, and were there

    def __init__(self, problem: Problem, seed: int, journal: str) -> None:
        self.problem, self.seed, self.journal = problem, seed, Path(journal)
        self.told, self.own = 0, 0.0
        self.process = psutil.Process()

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        start = time.perf_counter()
        picks = self.propose(number, in_flight)
        self.own += time.perf_counter() - start
        return picks

    def tell(self, result: Result) -> None:
        start = time.perf_counter()
        if not self.told:
            self.file = os.open(self.journal, os.O_RDONLY)
        self.learn(result)
        self.told += 1
        length = os.fstat(self.file).st_size
        last = os.pread(self.file, 8192, max(0, length - 8192)).splitlines(keepends=True)[-1]
        Witness.on_disk += (
            last.startswith(f'{{"number":{result.number},'.encode())
            and last.endswith(b"\n")
            and self.synced.get(os.fstat(self.file).st_ino) == length
        )
        self.own += time.perf_counter() - start
        if self.told == 1 or self.told % STRIDE == 0:
            memory = self.process.memory_info().rss
            self.marks.append(Mark(self.told, time.perf_counter(), self.own, memory))

    def propose(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        """The picks at a multiple of GOLDEN, in counting order."""
        place, picks = number * GOLDEN % size(self.problem.decisions), []
        for decision in self.problem.decisions:
            place, pick = divmod(place, len(decision.choices))
            picks.append(pick)
        return tuple(picks)

    def learn(self, result: Result) -> None:
        """Nothing."""


class RandomWitness(Witness):
    """Random search, which is what is compared with Ray Tune alone."""

    def __init__(self, problem: Problem, seed: int, journal: str) -> None:
        super().__init__(problem, seed, journal)
        self.random = Random(problem, seed)

    def propose(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        return self.random.ask(number, in_flight)

    def learn(self, result: Result) -> None:
        self.random.tell(result)


# --- the parts -------------------------------------------------------------------------------------------------------


def inline(evaluations: int) -> list[bool]:
    took = run_search("inline", evaluations, Witness, "engine=inline")
    marks = Witness.marks
    own = marks[-1].own
    clock = marks[-1].clock - marks[0].clock
    print(f"{evaluations:,} evaluations inline: {clock:.0f} s, of them {own:.1f} s in the controller")
    first, last = pace(marks, evaluations // 10)
    print(
        f"  a trial, without the controller: {1e3 * first:.2f} ms in the first tenth, {1e3 * last:.2f} ms in the last"
    )
    print(f"  memory: {growth(marks):.2f} KB a trial; {marks[-1].memory / 2**20:.0f} MiB at the end")
    print(f"  the whole command, with its results and the report: {took:.0f} s")
    return [
        target(f"every one of {Witness.on_disk:,} lines was on disk when it was told", Witness.on_disk == evaluations),
        target(f"under {INLINE_S:.0f} s without the controller", clock - own < INLINE_S),
        target(f"the last tenth at most {SLOWER - 1:.0%} slower than the first", last <= SLOWER * first),
    ]


def on_ray(trials: int) -> list[bool]:
    before = [tune_alone() for _ in range(2)]
    took = run_search("ray", trials, RandomWitness, "engine=ray")
    marks = Witness.marks
    baseline = [*before, tune_alone()]
    overall = (marks[-1].clock - marks[0].clock) / (trials - 1)
    first, last = pace(marks, STRIDE, own=True)
    print(f"{trials:,} trials on Ray: {1e3 * overall:.1f} ms each, {1e3 * first:.1f} in the first thousand, ", end="")
    print(f"{1e3 * last:.1f} in the last; {1e3 * marks[-1].own / trials:.2f} of them in the controller")
    print(f"  memory of the driver: {growth(marks):.1f} KB a trial; {marks[-1].memory / 2**20:.0f} MiB at the end")
    print(f"  the whole command, with Ray's start and end: {took:.0f} s; {Witness.on_disk:,} lines were on disk")
    for name, unit in (("ms", "ms a trial"), ("kilobytes", "KB a trial")):
        values = [run[name] for run in baseline]
        spread = f"{min(values):.1f} to {max(values):.1f}"
        print(f"  Ray Tune alone, {STRIDE} trials after {STRIDE}: {statistics.median(values):.1f} {unit}", end="")
        print(f" (n={len(values)}, {spread})")
    return [
        target(f"at most {ON_RAY_MS:.0f} ms a trial", 1e3 * overall <= ON_RAY_MS),
        target(f"the last thousand at most {SLOWER - 1:.0%} slower than the first", last <= SLOWER * first),
        target(f"at most {DRIVER_KB:.0f} KB a trial", growth(marks) <= DRIVER_KB),
    ]


def replay() -> list[bool]:
    path = RUNS / "inline" / "journal.jsonl"
    start = time.perf_counter()
    settings, entries, _ = read_journal(path)
    reading = time.perf_counter() - start
    journal = Journal(path, settings)
    start = time.perf_counter()
    problem = SearchProblem(MnasNet(), on_macs(mnas_soft, 400e6))
    problem.recall(journal.entries)
    SearchJobs(problem, Witness(problem, 0, str(path)), journal, len(entries), seed=0)
    building = time.perf_counter() - start - Witness.marks[-1].own
    journal.close()
    print(f"replay of {len(entries):,} lines: reading {reading:.1f} s, the search from it {building:.1f} s")
    whole = run_search("inline", len(entries), Witness, "engine=inline")
    print(f"  the whole command, which reads it, finds nothing left to do and writes all results: {whole:.0f} s")
    for name in CONTROLLERS:
        print(f"  controller={name}: {controller_cost(name, entries)}")
    return [target(f"replay in {REPLAY_S:.0f} s", reading + building <= REPLAY_S)]


def controller_cost(name: str, entries: Sequence[Entry]) -> str:
    """What it takes to tell it of the first results, and to have it propose, where many are told."""
    problem = SearchProblem(MnasNet(), on_macs(mnas_soft, 400e6))
    controller = instantiate(OmegaConf.load(CONFIG_FOLDER / "controller" / f"{name}.yaml"), problem=problem, seed=0)
    told, telling, asking = 0, 0.0, []
    for count in (count for count in TOLD if count <= len(entries)):
        results = [Result(e.number, e.picks, e.accuracy, e.reward, e.stopped, e.curve) for e in entries[told:count]]
        start = time.process_time()
        for result in results:
            controller.tell(result)
        telling, told = telling + time.process_time() - start, count
        controller.ask(count, [])  # what is fitted once for many proposals
        start = time.process_time()
        for number in range(3):
            controller.ask(count + number, [])
        asking.append(f"{1e3 * (time.process_time() - start) / 3:.2f} ms after {count:,}")
    return f"{1e3 * telling / told:.3f} ms to be told of one of {told:,}; to propose, {', '.join(asking)}"


def reports() -> list[bool]:
    outcomes = []
    whole = RUNS / "inline"
    text = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for count in sorted({min(10_000, len(text) - 1), len(text) - 1}):
        part = RUNS / f"report{count}"
        part.mkdir()
        shutil.copy(whole / "config.yaml", part)
        (part / "journal.jsonl").write_bytes(b"".join(text[: count + 1]))
        start = time.perf_counter()
        with redirect_stdout(sys.stderr):
            report([str(part)])
        took = time.perf_counter() - start
        page = part / "report.html"
        print(f"report of {count:,}: {took:.1f} s, {page.stat().st_size / 2**20:.2f} MiB; {opened(page)}")
        outcomes.append(target("a page of at most 2 MiB", page.stat().st_size <= 2 * 2**20))
    return outcomes


def opened(page: Path) -> str:
    """Seconds until Chromium has drawn the page, and where the picture is."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return "no Chromium here to open it"
    picture = page.with_suffix(".png").resolve()
    start = time.perf_counter()
    subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,2400",
         f"--screenshot={picture}", page.resolve().as_uri()],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return f"drawn by Chromium in {time.perf_counter() - start:.1f} s, {picture}"


def tune() -> list[bool]:
    """Ray Tune alone: a line of JSON."""
    from phinas.engines.connection import connected  # what sets Ray's environment, before Ray

    # isort: split
    from ray import tune
    from ray.tune.search import Searcher

    marks: list[Mark] = []
    trials = 2 * STRIDE

    class Instant(tune.Trainable):
        def step(self) -> dict[str, Any]:
            return {"accuracy": 0.5, "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

    class Listed(Searcher):
        def __init__(self) -> None:
            super().__init__(metric="accuracy", mode="max")
            self.left, self.running = trials, 0

        def __getstate__(self) -> dict[str, Any]:
            return {}

        def suggest(self, trial_id: str) -> Any:
            if self.running >= (os.cpu_count() or 1):
                return None
            if not self.left:
                return Searcher.FINISHED
            self.left, self.running = self.left - 1, self.running + 1
            return {"number": self.left}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            self.running -= 1
            told = trials - self.left - self.running
            if told % STRIDE == 0:
                marks.append(Mark(told, time.perf_counter(), 0.0, psutil.Process().memory_info().rss))

        def save(self, checkpoint_path: str) -> None: ...

        def restore(self, checkpoint_path: str) -> None: ...

    with connected(None), tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            tune.with_resources(Instant, {"cpu": 1}),
            tune_config=tune.TuneConfig(search_alg=Listed(), num_samples=-1, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=folder, verbose=0, checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)
            ),
        ).fit()
    took = (marks[-1].clock - marks[0].clock) / (marks[-1].told - marks[0].told)
    print(json.dumps({"ms": 1e3 * took, "kilobytes": growth(marks)}))
    return []


# --- what the parts need ---------------------------------------------------------------------------------------------


def run_search(name: str, budget: int, witness: type[Witness], engine: str) -> float:
    """The command as it is typed, with what it says in a log; returns its seconds."""
    watch_fsync()
    start = time.perf_counter()
    with open(f"{name}.log", "w") as log, redirect_stdout(log):
        code = search([
            f"name={name}", f"budget={budget}", "target_flops=400e6", "evaluator=synthetic", engine, "halving=null",
            f"controller._target_=benchmarks.soak.{witness.__name__}",
            f"controller.journal={RUNS / name / 'journal.jsonl'}",
        ])  # fmt: skip
    if code != 0:
        raise SystemExit(f"the search ended with {code}; see {name}.log")
    return time.perf_counter() - start


def watch_fsync() -> None:
    """Note what was forced to disk, and at which length."""

    def noting(force: Callable[[int], None]) -> Callable[[int], None]:
        def forced(descriptor: int) -> None:
            force(descriptor)
            status = os.fstat(descriptor)
            Witness.synced[status.st_ino] = status.st_size

        return forced

    os.fsync, os.fdatasync = noting(os.fsync), noting(os.fdatasync)


def pace(marks: Sequence[Mark], count: int, own: bool = False) -> tuple[float, float]:
    """Seconds of a trial among the first `count` and among the last; with `own`, those of the controller too."""

    def between(start: Mark, end: Mark) -> float:
        seconds = end.clock - start.clock - (0.0 if own else end.own - start.own)
        return seconds / (end.told - start.told)

    steps = max(1, count // STRIDE)
    return between(marks[0], marks[steps]), between(marks[-1 - steps], marks[-1])


def growth(marks: Sequence[Mark]) -> float:
    """KB of memory a trial, by a line through the marks from the first thousand trials on."""
    after = [mark for mark in marks if mark.told >= STRIDE]
    return float(np.polyfit([mark.told for mark in after], [mark.memory / 1e3 for mark in after], 1)[0])


def tune_alone() -> dict[str, float]:
    found = subprocess.run([*COMMAND, "only=tune"], check=True, capture_output=True, text=True, timeout=900)
    measured: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return measured


def target(what: str, reached: bool) -> bool:
    print(f"  {'reached' if reached else 'MISSED'}: {what}", flush=True)
    return reached


COMMAND = (sys.executable, "-m", "benchmarks.soak")


def main() -> int:
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    evaluations, trials = int(options.get("inline", 100_000)), int(options.get("ray", 10_000))
    if "only" in options:
        from benchmarks import soak  # not __main__: the search finds its controller there

        part: dict[str, Callable[[], list[bool]]] = {
            "inline": lambda: soak.inline(evaluations), "replay": soak.replay, "report": soak.reports,
            "ray": lambda: soak.on_ray(trials), "tune": soak.tune,
        }  # fmt: skip
        return 0 if all(part[options["only"]]()) else 1
    folder = Path(options.get("folder", "soak"))
    if folder.exists():
        raise SystemExit(f"folder={folder} is there already; give another")
    folder.mkdir(parents=True)
    print(f"hardware: {provenance()['hardware']}; results in {folder}", flush=True)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    failed = False
    for name in options.get("parts", "inline,replay,report,ray").split(","):
        before = os.getloadavg()[0]
        command = [*COMMAND, f"only={name}", f"inline={evaluations}", f"ray={trials}"]
        failed |= subprocess.run(command, cwd=folder, env=environment).returncode != 0
        print(f"  load of {os.cpu_count()} cores: {before:.1f} before, {os.getloadavg()[0]:.1f} after", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
