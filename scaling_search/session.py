"""What the commands of the scaling search share: reading what is compared, foretelling its time, evaluating it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol, TypeVar

from phinas.command.console import CONSOLE, say, saying_what_is_kept
from phinas.command.parts import construct
from phinas.command.progress import progress, worker_time_text
from phinas.command.run_folder import begun, locked, write_config
from phinas.engines import inline
from phinas.engines.engine import RunJobs
from phinas.engines.evaluator import Evaluator
from phinas.engines.forecast import seconds_each
from phinas.files.errors import InputError, RunFailed
from phinas.networks.arch import Arch
from phinas.networks.cost import cost
from phinas.networks.named import named as network_of
from phinas.training.data import dataset
from scaling_search.study import Evaluation, Study, check_study, writing_study
from scaling_search.variant import read_variant

Saved = TypeVar("Saved")  # what was found, as a command's report and last words need it


@dataclass(frozen=True)
class Subject:
    """What is scaled, and what scores it.

    named     the baseline as the user named it.
    baseline  what is really scaled: its variant, with the data's channels and classes where the evaluator adapts it.
              MACs are counted of the very networks that are trained.
    """

    named: Arch
    baseline: Arch
    evaluator: Evaluator


def read_subject(given: Mapping[str, Any], evaluator: Evaluator) -> Subject:
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
    return Subject(named, baseline, evaluator)


def data_hash(evaluator: Evaluator) -> str | None:
    """`phinas.training.data.dataset.data_hash` of what an evaluator trains and scores on; None where it has no data."""
    data: Any = getattr(evaluator, "data", None)
    return dataset.data_hash(data) if all(hasattr(data, part) for part in ("train", "val")) else None


def warn_of_enlarging(subject: Subject, networks: Sequence[Arch]) -> None:
    """Say so where images are blown up: a network that sees more pixels sees no more detail then."""
    enlarges = getattr(subject.evaluator, "enlarges", None)
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
    times = [evaluation.seconds for evaluation in before if evaluation.accuracy is not None]
    typical = sorted(networks, key=lambda network: cost(network).macs)[len(networks) // 2]
    each = seconds_each(evaluator, typical, times, threads)
    if each is None:
        say(f"{whole}; how long they take is not known before the first")
        return
    how = "as those before took" if times else "measured on one network"
    say(f"{whole} x {each:.3g} s ({how}) = {worker_time_text(left * each, left, workers)}")


class Asked(Protocol):
    """What a command was asked for that evaluates networks of one study."""

    @property
    def folder(self) -> Path: ...

    @property
    def given(self) -> Mapping[str, Any]: ...

    @property
    def subject(self) -> Subject: ...

    @property
    def alike(self) -> Sequence[Arch]:
        """Networks like those that are evaluated, by which the time is foretold."""

    def command(self) -> str:
        """The command line that resumes this run."""

    def kept(self, evaluations: int) -> str:
        """What a run says that ends too soon."""


def conduct(
    asked: Asked,
    left: int,
    before: int,
    study_at: Callable[[Path], Study],
    introduce: Callable[[], None],
    name_of: Callable[[Evaluation], str],
    save: Callable[[Study], Saved],
) -> Saved:
    """Evaluate what is left of a study, and save what is made of it: at the end, and where it is interrupted.

    left       evaluations that are to come; where there are none, no engine is started.
    before     evaluations that are there already.
    study_at   opens the study, or makes it, in the file that is free then.
    introduce  says what is about to happen, once nothing can be refused any more.
    name_of    how people know an evaluation's network.
    save       writes what is made from the study's results, however many there are.
    """
    folder = asked.folder
    engine = construct(asked.given, "engine") if left else inline.engine()
    with engine as run_jobs, locked(folder):
        with saying_what_is_kept(lambda: asked.kept(before)), writing_study(folder / "study.db") as path:
            study = study_at(path)
        with closing(study), saying_what_is_kept(lambda: asked.kept(len(study.evaluations))):
            write_config(folder, asked.given)
            introduce()
            _go_on(study, run_jobs, asked, name_of, save)
            return save(study)


def _go_on(
    study: Study,
    run_jobs: RunJobs,
    asked: Asked,
    name_of: Callable[[Evaluation], str],
    save: Callable[[Study], object],
) -> None:
    """Evaluate what is left, from what is said before it to what is said and saved when it is interrupted."""
    before, evaluator = study.evaluations, asked.subject.evaluator
    if before or study.stale:
        say(f"resuming {asked.folder}: {len(before)} of {study.wanted} evaluations are done")
    try:
        foretell(evaluator, asked.alike, study.left, before, run_jobs.workers, run_jobs.threads)
        with writing_study(study.path):
            _evaluate(study, run_jobs, evaluator, name_of)
    except (KeyboardInterrupt, RunFailed) as end:
        finished = len(study.evaluations)
        if isinstance(end, KeyboardInterrupt):
            say(f"\nstopped; {finished} of {study.wanted} evaluations are kept. To go on:\n  {asked.command()}")
        if finished:
            save(study)
        raise


def _evaluate(study: Study, run_jobs: RunJobs, evaluator: Evaluator, name_of: Callable[[Evaluation], str]) -> None:
    """Evaluate what is left, and show how it goes."""
    accuracies: dict[str, list[float]] = {}
    names = {}

    def note(evaluation: Evaluation) -> None:
        names[evaluation.network] = name_of(evaluation)
        if evaluation.accuracy is not None:
            accuracies.setdefault(evaluation.network, []).append(evaluation.accuracy)

    for evaluation in study.evaluations:
        note(evaluation)
    with progress(CONSOLE, "evaluating", study.wanted - study.left, study.wanted) as show:

        def watch(evaluation: Evaluation) -> None:
            note(evaluation)
            best = max(accuracies, key=lambda network: fmean(accuracies[network]), default=None)
            leader = "-" if best is None else f"{fmean(accuracies[best]):.4f} {names[best]}"
            show(f"{names[evaluation.network]}  seed {evaluation.replicate}  {_outcome(evaluation)}", leader)

        study.watch = watch
        if study.left:
            run_jobs(study, evaluator)


def _outcome(evaluation: Evaluation) -> str:
    if evaluation.error is not None:
        return f"failed: {evaluation.error}"
    halted = f" stopped after {len(evaluation.curve)}" if evaluation.stopped else ""
    return f"accuracy {evaluation.curve[-1]:.4f}{halted}  {evaluation.seconds:.3g} s"


def settings_of(command: str, given: Mapping[str, Any], free: Sequence[str], subject: Subject) -> dict[str, Any]:
    """What must agree between two runs of one study: all that is given but what is free to change, network and data."""
    fixed = {name: value for name, value in given.items() if name not in free}
    data = data_hash(subject.evaluator)
    return {"command": command, **fixed, "baseline_key": subject.baseline.key(), "data_hash": data}
