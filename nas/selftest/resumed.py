"""The searches of `searches.py`, resumed in this process: hundreds of times where the command took minutes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from nas.controllers.evolution import Evolution
from nas.evaluators.synthetic import Synthetic
from nas.halving import Halving
from nas.jobs import SearchJobs
from nas.journal import Journal, read_journal
from nas.problem import SearchProblem
from nas.reward import mnas_soft, on_macs
from nas.selftest import ledger
from nas.selftest.outcome import Finding
from nas.selftest.searches import EPOCHS, SEED
from phinas.engines import inline
from phinas.files.errors import InputError
from search_spaces.efficientnet import EfficientNet


def resumed(path: Path, left: bytes, undisturbed: Path, budget: int) -> list[Finding]:
    """What is wrong after a resumption from what was `left` of the undisturbed journal."""
    path.write_bytes(left)
    try:
        resume(path, undisturbed, budget)
    except InputError as error:
        return [Finding("lost", f"what is sound of a journal is refused: {error}")]
    return ledger.judge(left, path.read_bytes(), budget, undisturbed.read_bytes())


def resume(path: Path, undisturbed: Path, budget: int) -> None:
    """Go on with the journal at `path` as the command would, to the end of the budget.

    undisturbed  a journal that the command wrote, for its settings.
    Raises InputError where the journal is damaged.
    """
    journal = Journal(path, read_journal(undisturbed)[0])
    try:
        problem = _problem()
        problem.recall(journal.entries)
        controller = Evolution(problem, SEED, population=8, sample=8, start=4)
        search = SearchJobs(problem, controller, journal, budget, SEED, Halving(EPOCHS))
        inline.run(search, Synthetic(EPOCHS))
    finally:
        journal.close()


@cache
def _problem() -> SearchProblem:
    return SearchProblem(EfficientNet(), on_macs(mnas_soft, 400e6))
