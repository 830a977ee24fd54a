"""What the commands of the scaling search share: reading what is compared, foretelling its time, evaluating it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from phinas.command.console import CONSOLE, say
from phinas.command.progress import duration_text, progress
from phinas.command.run_folder import begun
from phinas.engines.engine import RunJobs
from phinas.engines.evaluator import EvaluationFailed, Evaluator
from phinas.files.errors import InputError, RunFailed
from phinas.networks.arch import Arch
from phinas.networks.cost import cost
from phinas.networks.named import named as network_of
from phinas.training.data import dataset
from scaling_search.study import Evaluation, Study, check_study, writing_study
from scaling_search.variant import read_variant


@dataclass(frozen=True)
class Compared:
    """What is scaled, and what scores it.

    named     the baseline as the user named it.
    baseline  what is really scaled: its variant, with the data's channels and classes where the evaluator adapts it.
              MACs are counted of the very networks that are trained.
    """

    named: Arch
    baseline: Arch
    evaluator: Evaluator


def read_compared(given: Mapping[str, Any], evaluator: Evaluator) -> Compared:
    """The baseline that the settings describe, for this evaluator. Raises InputError naming what is wrong."""
    named = network_of("baseline", str(given["baseline"]))
    variant = given["variant"] or {}
    if not isinstance(variant, Mapping):
        raise InputError(f"variant={variant}: it must be null, or have resolution, stem_stride and width")
    baseline = read_variant(variant).of(named)
    if hasattr(evaluator, "check"):  # it may know the networks of one space only
        evaluator.check(baseline)
    if hasattr(evaluator, "adapted"):
        larger = replace(baseline, resolution=baseline.resolution + 1)
        if evaluator.adapted(larger).resolution != larger.resolution:
            raise InputError(
                f"evaluator.resolution={given['evaluator'].get('resolution')}: it trains all networks at one size; "
                "candidates differ in theirs, so give evaluator.resolution=network"
            )
        baseline = evaluator.adapted(baseline)
    return Compared(named, baseline, evaluator)


def data_hash(evaluator: Evaluator) -> str | None:
    """`phinas.training.data.dataset.data_hash` of what an evaluator trains and scores on; None where it has no data."""
    data: Any = getattr(evaluator, "data", None)
    return dataset.data_hash(data) if all(hasattr(data, part) for part in ("train", "val")) else None


def warn_of_enlarging(compared: Compared, networks: Sequence[Arch]) -> None:
    """Say so where images are blown up: a network that sees more pixels sees no more detail then."""
    enlarges = getattr(compared.evaluator, "enlarges", None)
    blown_up = [network for network in networks if enlarges is not None and enlarges(network)]
    if blown_up:
        sides = sorted({network.resolution for network in blown_up})
        say(
            f"note: the images are smaller than the {sides[0]} to {sides[-1]} pixels that {len(blown_up)} of "
            f"{len(networks)} networks see: they are enlarged, and what resolution gains here is no detail of theirs"
        )


def check_folder(folder: Path, settings: Mapping[str, Any]) -> list[Evaluation]:
    """The finished evaluations of the run in the folder; changes nothing.

    Raises InputError where the folder is another command's, or a study of other settings.
    """
    begun(folder, "study.db")
    return check_study(folder / "study.db", settings)


def foretell(
    evaluator: Evaluator,
    networks: Sequence[Arch],
    left: int,
    before: Sequence[Evaluation],
    workers: int = 1,
    threads: int | None = 1,
) -> None:
    """Say how long `left` evaluations take: by those before, else by training one of `networks` for a moment.

    `workers` evaluate at a time, each with as many `threads`; None: as many as it likes.
    """
    if not left:
        return
    whole = f"{left} evaluations left" if before else f"{left} evaluations"
    times = [one.seconds for one in before if one.accuracy is not None]
    how = "as those before took"
    if not times:
        measure = getattr(evaluator, "forecast", None)
        how = "measured on one network"
        typical = sorted(networks, key=lambda network: cost(network).macs)[len(networks) // 2]
        try:
            times = [] if measure is None else [measure(typical, threads)]
        except EvaluationFailed:  # it will be recorded of this network when its turn comes
            times = []
    if not times:
        say(f"{whole}; how long they take is not known before the first")
        return
    each, at_once = median(times), min(workers, left)
    say(
        f"{whole} x {each:.3g} s ({how}) = {duration_text(left * each)} of one worker's time"
        + (f", about {duration_text(left * each / at_once)} with {at_once} at a time" if at_once > 1 else "")
    )


def conduct(
    study: Study,
    run_jobs: RunJobs,
    evaluator: Evaluator,
    networks: Sequence[Arch],
    name_of: Callable[[Evaluation], str],
    folder: Path,
    again: str,
    save: Callable[[], object],
) -> None:
    """Evaluate what is left of a study, from what is said before it to what is said and saved when it is interrupted.

    networks  some that are like those evaluated, by which the time is foretold.
    name_of   how people know an evaluation's network.
    again     the command line that goes on.
    save      writes what is made from the study's results, however many there are.
    """
    before = study.evaluations
    if before or study.stale:
        say(f"resuming {folder}: {len(before)} of {study.wanted} evaluations are done")
    try:
        foretell(evaluator, networks, study.left, before, run_jobs.workers, run_jobs.threads)
        with writing_study(study.path):
            _evaluate(study, run_jobs, evaluator, name_of)
    except (KeyboardInterrupt, RunFailed) as end:
        finished = len(study.evaluations)
        if isinstance(end, KeyboardInterrupt):
            say(f"\nstopped; {finished} of {study.wanted} evaluations are kept. To go on:\n  {again}")
        if finished:
            save()
        raise


def _evaluate(study: Study, run_jobs: RunJobs, evaluator: Evaluator, name_of: Callable[[Evaluation], str]) -> None:
    """Evaluate what is left, and show how it goes."""
    accuracies: dict[str, list[float]] = {}
    names = {}

    def note(one: Evaluation) -> None:
        names[one.network] = name_of(one)
        if one.accuracy is not None:
            accuracies.setdefault(one.network, []).append(one.accuracy)

    for one in study.evaluations:
        note(one)
    with progress(CONSOLE, "evaluating", study.wanted - study.left, study.wanted) as show:

        def watch(one: Evaluation) -> None:
            note(one)
            best = max(accuracies, key=lambda network: fmean(accuracies[network]), default=None)
            leader = "-" if best is None else f"{fmean(accuracies[best]):.4f} {names[best]}"
            show(f"{names[one.network]}  seed {one.replicate}  {_outcome(one)}", leader)

        study.watch = watch
        if study.left:
            run_jobs(study, evaluator)


def _outcome(one: Evaluation) -> str:
    if one.error is not None:
        return f"failed: {one.error}"
    halted = f" stopped after {len(one.curve)}" if one.stopped else ""
    return f"accuracy {one.curve[-1]:.4f}{halted}  {one.seconds:.3g} s"


def settings_of(command: str, given: Mapping[str, Any], free: Sequence[str], compared: Compared) -> dict[str, Any]:
    """What must agree between two runs of one study: all that is given but what is free to change, network and data."""
    kept = {name: value for name, value in given.items() if name not in free}
    data = data_hash(compared.evaluator)
    return {"command": command, **kept, "baseline_key": compared.baseline.key(), "data_hash": data}
