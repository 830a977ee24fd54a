"""How many evaluations a search needs: our controllers beside what people would use instead, on published results.

    pip install -e ".[bench]"    # the others: PyGlove, Syne Tune, SMAC3; Optuna is there
    python -m benchmarks.search_quality path.accel_nasbench=... path.nasbench_macro=... [seeds=10] [only=NAME,NAME]

Two problems: ImageNet top-1 in the efficientnet space, as predicted from Accel-NASBench, and CIFAR-10 in all of
NAS-Bench-Macro; the reward is accuracy * (MACs / T)^-0.07 with T = 400M and the median of the space. Everybody meets
the same predictor, with and without Gaussian noise of 0.3 points of accuracy, drawn from (seed, evaluation). The
others are given plain categorical choices, as people would, and may propose a network again. Ours are told which picks
are one network (a third of NAS-Bench-Macro's are copies), and bayesian what each costs and which choices are numbers.
Options, with their defaults:

    seeds=10        slow_seeds=5    of those that are slow (benchmarks.searchers)
    budget=1000     evaluations of a search
    only=...        of bayesian, evolution, rl, random, optuna_gp, optuna_tpe, optuna_nsga2, pyglove, syne_tune, smac
    problems=imagenet,macro         noises=0,0.3
    in_flight=1     with 8, our controllers have 8 evaluations running, and results come late and out of order
    workers=2       processes, one thread each
    out=runs/search_quality         results.jsonl, a line per finished search: the same command again goes on there;
                                    best_known_*.json; table.md, the table that is also printed
    figure=docs/search_quality.png

Rewards are true ones, without noise. "Best" is the best true reward among the networks evaluated; "picked", with noise,
the true reward of the network whose noisy reward is best. Milliseconds are CPU time of one ask and one tell, means over
the evaluations around the mark; evaluating is not in them. Duplicates are evaluations of a network seen before.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from benchmarks.published_problems import Published, best_known, published
from benchmarks.search_quality_figure import figure
from benchmarks.searchers import ENTRANTS, seed_global_generators
from nas.controller import Result
from nas.evaluators.published import with_noise
from phinas.command.run_folder import provenance
from phinas.files.errors import InputError
from phinas.pages.style import png
from search_spaces.space import Picks

MARKS = (50, 100, 200, 500, 1000)
TIMED = (100, 200, 1000)
SHARES = (0.995, 0.999)  # of the best known reward
SOON = 250  # evaluations by which it is counted who reached the latter
DEFAULTS = {
    "path.accel_nasbench": "../shared/data/accel_nasbench.tar.gz",
    "path.nasbench_macro": "../shared/data/nas-bench-macro_cifar10.json",
    "seeds": "10",
    "slow_seeds": "5",
    "budget": "1000",
    "only": ",".join(ENTRANTS),
    "problems": "imagenet,macro",
    "noises": "0,0.3",
    "in_flight": "1",
    "workers": "2",
    "out": "runs/search_quality",
    "figure": "docs/search_quality.png",
}


@dataclass(frozen=True)
class Job:
    """One search, and all that its record depends on."""

    problem: str
    noise: float  # points of accuracy
    searcher: str
    state: str  # of the searcher: a version, or a hash of our code
    seed: int
    budget: int
    in_flight: int
    best_known: float  # the reward; it stands for the predictor

    def identity(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def search(job: Job, problem_of: Published) -> dict[str, Any]:
    """Run one search; returns its record.

    `best` and `picked` hold [evaluations, true reward] wherever the value changed.
    """
    seed_global_generators(job.seed)
    problem = problem_of.problem()
    searcher = ENTRANTS[job.searcher].make(problem, job.seed, job.noise > 0, job.budget)
    rng = np.random.default_rng((job.seed, 8))
    running: dict[int, Picks] = {}
    asked = finished = duplicates = 0
    seen: set[str | None] = set()
    best, picked, highest = -np.inf, -np.inf, -np.inf
    best_at: list[tuple[int, float]] = []
    picked_at: list[tuple[int, float]] = []
    milliseconds: list[float] = []
    while finished < job.budget:
        start = time.process_time()
        while len(running) < job.in_flight and asked < job.budget:
            picks = searcher.ask(asked, list(running.values()))
            if picks is None:
                break
            running[asked] = picks
            asked += 1
        spent = time.process_time() - start
        if not running:  # the space is exhausted
            break
        number = sorted(running)[int(rng.integers(len(running)))]
        picks = running.pop(number)
        accuracy = float(problem_of.accuracies([picks])[0])
        true = problem.reward(picks, accuracy)
        noise_seed = int(np.random.SeedSequence((job.seed, number)).generate_state(1)[0])  # as nas.jobs draws it
        measured = with_noise(accuracy, job.noise, noise_seed)
        result = Result(number, picks, measured, problem.reward(picks, measured))
        finished += 1
        key = problem.key(picks)
        duplicates += key in seen
        seen.add(key)
        if true > best:
            best = true
            best_at.append((finished, true))
        if result.reward is not None and result.reward > highest:
            highest, picked = result.reward, true
            picked_at.append((finished, picked))
        start = time.process_time()
        searcher.tell(result)
        milliseconds.append(1e3 * (spent + time.process_time() - start))
    return {
        **asdict(job),
        "evaluations": finished,
        "best": best_at,
        "picked": picked_at,
        "milliseconds": {
            mark: mean(milliseconds[int(0.9 * mark) : int(1.1 * mark)])  # some work hard every few evaluations only
            for mark in TIMED
            if finished >= mark
        },
        "duplicates": duplicates / max(finished, 1),
        "seconds": sum(milliseconds) / 1e3,
    }  # fmt: skip


_problems: dict[str, Published] = {}  # of a worker process


def _start_worker(paths: dict[str, str]) -> None:
    _problems.update(published(paths))


def _work(job: Job) -> dict[str, Any]:
    return search(job, _problems[job.problem])


def main() -> None:
    options = {**DEFAULTS, **dict(argument.split("=", 1) for argument in sys.argv[1:])}
    if unknown := sorted(set(options) - set(DEFAULTS)):
        sys.exit(f"{unknown[0]}: no such option; allowed: {', '.join(DEFAULTS)}")
    for option, allowed in (("only", list(ENTRANTS)), ("problems", ["imagenet", "macro"])):
        if wrong := sorted(set(options[option].split(",")) - set(allowed)):
            sys.exit(f"{option}={wrong[0]}: it must be of {', '.join(allowed)}")
    out, in_flight = Path(options["out"]), int(options["in_flight"])
    paths = {name.removeprefix("path."): path for name, path in options.items() if name.startswith("path.")}
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
    try:
        problems = {name: one for name, one in published(paths).items() if name in options["problems"].split(",")}
    except InputError as error:
        sys.exit(str(error))
    known = {}
    for name, one in problems.items():
        known[name], picks = best_known(name, one, out)
        print(f"best known, {one.title}: {known[name]:.6f}, picks {''.join(map(str, picks))}", flush=True)

    jobs, skipped = [], {}
    for name in options["only"].split(","):
        entrant = ENTRANTS[name]
        if in_flight > 1 and not entrant.ours:
            continue
        try:
            state = entrant.state()
        except ImportError as error:
            skipped[name] = str(error)
            print(f"skipped: {entrant.title}: {error}", flush=True)
            continue
        for problem in problems:
            for noise in map(float, options["noises"].split(",")):
                cap = entrant.caps.get((problem, noise > 0))
                seeds = int(options["seeds"])
                seeds = min(seeds, int(options["slow_seeds"])) if entrant.slow else seeds
                budget = min(int(options["budget"]), cap or sys.maxsize)
                jobs += [
                    Job(problem, noise, name, state, seed, budget, in_flight, known[problem]) for seed in range(seeds)
                ]

    records = run(jobs, out / "results.jsonl", paths, int(options["workers"]))
    lines = [
        f"{_machine()}; {options['workers']} processes, one thread each.",
        *(f"Skipped: {ENTRANTS[name].title}: {reason}." for name, reason in skipped.items()),
    ]
    for problem, one in problems.items():
        for noise in sorted({record["noise"] for record in records}):
            chosen = [record for record in records if (record["problem"], record["noise"]) == (problem, noise)]
            lines += ["", *table(one.title, known[problem], noise, in_flight, chosen)]
    text = "\n".join(lines) + "\n"
    (out / f"table{'' if in_flight == 1 else f'_{in_flight}_in_flight'}.md").write_text(text)
    print(text)
    clean = [record for record in records if record["noise"] == 0]
    if in_flight == 1 and clean:
        titles = {name: one.title for name, one in problems.items()}
        Path(options["figure"]).parent.mkdir(parents=True, exist_ok=True)
        png(figure(clean, titles, known), options["figure"], width=1600)


def _machine() -> str:
    hardware = provenance()["hardware"]
    return f"{hardware['processor']}, {hardware['cores']} cores"


def run(jobs: Sequence[Job], file: Path, paths: dict[str, str], workers: int) -> list[dict[str, Any]]:
    """The records of all jobs, in their order; those that `file` does not hold are run, and appended to it."""
    done = finished(file)
    left = [job for job in jobs if job.identity() not in done]
    left.sort(key=lambda job: -len(ENTRANTS[job.searcher].caps))  # the slow first, or one process waits at the end
    start = time.monotonic()
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (paths,)) as pool:
        running = {pool.submit(_work, job): job for job in left}
        try:
            for count, future in enumerate(as_completed(running), start=1):
                job, record = running[future], future.result()
                with file.open("a") as lines:
                    lines.write(json.dumps(record) + "\n")
                done[job.identity()] = json.loads(json.dumps(record))
                print(
                    f"[{count}/{len(left)}, {(time.monotonic() - start) / 60:.1f} min] "
                    f"{job.searcher} on {job.problem}, noise {job.noise:g}, seed {job.seed}: "
                    f"{100 * record['best'][-1][1] / job.best_known:.2f}% of the best known "
                    f"in {record['evaluations']} evaluations, {record['seconds']:.2f} s of its own",
                    flush=True,
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [done[job.identity()] for job in jobs]


def finished(file: Path) -> dict[str, dict[str, Any]]:
    """The records in `file` by identity. A line that an interruption tore is skipped."""
    text = file.read_text() if file.exists() else ""
    if text and not text.endswith("\n"):  # so that the next record has a line of its own
        with file.open("a") as lines:
            lines.write("\n")
    records = {}
    for line in text.splitlines():
        try:
            record = json.loads(line)
            identity = Job(**{name: record[name] for name in Job.__dataclass_fields__}).identity()
        except (json.JSONDecodeError, KeyError):
            continue
        records[identity] = record
    return records


# --- the table --------------------------------------------------------------------------------------------------------


def value_at(steps: Iterable[Sequence[float]], evaluations: int) -> float:
    """The value of a record's `best` or `picked` after so many evaluations."""
    return max((step for step in steps if step[0] <= evaluations), key=lambda step: step[0])[1]


def evaluations_to(record: dict[str, Any], share: float) -> float:
    """Evaluations until the best true reward was `share` of the best known; infinite where it never was."""
    wanted = share * record["best_known"] - 1e-12
    return next((float(evaluations) for evaluations, best in record["best"] if best >= wanted), np.inf)


def table(title: str, known: float, noise: float, in_flight: int, records: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: medians, with quartiles in brackets; best at 200 evaluations first."""
    columns = [f"best after {mark}" for mark in MARKS]
    columns += [f"picked after {mark}" for mark in MARKS[1:3]] if noise else []
    columns += [f"evaluations to {100 * share:g}%" for share in SHARES] + [f"99.9% by {SOON}", "to the best known"]
    columns += [f"ms at {mark}" for mark in TIMED] + ["duplicates"]
    conditions = [f"noise of {noise:g} points" if noise else "no noise"]
    conditions += [f"{in_flight} evaluations in flight"] if in_flight > 1 else []
    lines = [
        f"**{title}**, {', '.join(conditions)}. Best known reward {known:.5f}.",
        "",
        f"| | seeds | {' | '.join(columns)} |",
        "|---|" + "---|" * (1 + len(columns)),
    ]
    by_searcher: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_searcher.setdefault(record["searcher"], []).append(record)

    def order(name: str) -> float:
        return -median(value_at(record["best"], min(200, record["budget"])) for record in by_searcher[name])

    for name in sorted(by_searcher, key=order):
        runs = by_searcher[name]
        budget = runs[0]["budget"]
        cells = []
        for kind, marks in (("best", MARKS), ("picked", MARKS[1:3] if noise else ())):
            for mark in marks:
                values = [value_at(record[kind], mark) for record in runs] if mark <= budget else []
                cells.append(_spread(values, "{:.4f}"))
        for share in (*SHARES, 1.0):
            reached = [evaluations_to(record, share) for record in runs]
            cells.append(_spread(reached, "{:.0f}", budget))
            if share == SHARES[-1]:
                cells.append(f"{sum(evaluations <= SOON for evaluations in reached)} of {len(runs)}")
        for mark in TIMED:
            times = [record["milliseconds"][str(mark)] for record in runs if str(mark) in record["milliseconds"]]
            cells.append(f"{median(times):.3g}" if times else "-")
        cells.append(f"{100 * median(record['duplicates'] for record in runs):.0f}%")
        entrant = ENTRANTS[name]
        capped = f", to {budget} evaluations" if entrant.caps else ""
        label = f"**{entrant.title}**{capped}" if entrant.ours else f"{entrant.title} {runs[0]['state']}{capped}"
        lines.append(f"| {label} | {len(runs)} | {' | '.join(cells)} |")
    return lines


def _spread(values: Sequence[float], form: str, budget: int = 0) -> str:
    """`median (lower quartile - upper quartile)`; `>budget` for what was not reached."""
    if not values:
        return "-"
    shown = [
        form.format(value) if np.isfinite(value) else f">{budget}"
        for value in (median(values), *np.quantile(values, [0.25, 0.75], method="nearest"))
    ]
    return f"{shown[0]} ({shown[1]} - {shown[2]})"


if __name__ == "__main__":
    main()
