"""What a scaling search found: its rows with what was measured, and the files that hold it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd
import yaml
from scipy.stats import spearmanr

from phinas.command.run_folder import provenance, write_json
from phinas.files.atomic_file import write_atomically
from phinas.files.errors import InputError
from phinas.files.moved import named_before
from phinas.files.origin import file_source
from phinas.networks.arch import Arch
from phinas.networks.cost import cost
from phinas.networks.reference import NAMES
from phinas.networks.scaling_file import Scaling, read_scaling, write_scaling
from scaling_search.plan import Row, Surface
from scaling_search.ranking import Ranking, rank
from scaling_search.session import Subject, data_hash
from scaling_search.study import Evaluation

_NAMED = 3  # of constants that share a network; the rest is counted
_LEAST_FOR_CORRELATION = 5  # networks


@dataclass(frozen=True)
class Found:
    """A row of the plan, and what is known of its network.

    place  of its network in the ranking; None for a network that is not evaluated.
    """

    row: Row
    place: int | None
    evaluations: tuple[Evaluation, ...]

    @property
    def accuracies(self) -> tuple[float, ...]:
        """One for each seed that was evaluated to the end, in the order of seeds."""
        return tuple(evaluation.accuracy for evaluation in self.evaluations if evaluation.accuracy is not None)

    @property
    def label(self) -> str:
        return str(self.row.coefficients)


@dataclass(frozen=True)
class Outcome:
    """All rows, and the ranking of the distinct networks that were chosen."""

    found: tuple[Found, ...]
    ranking: Ranking
    ranked: tuple[Found, ...]  # one for each network of the ranking, in its order

    @property
    def in_order(self) -> list[Found]:
        """The networks that have an accuracy, the most probably best first, and of equals the highest mean."""
        known = [entry for entry in self.ranked if _of(self.ranking.mean, entry.place) is not None]
        return sorted(
            known,
            key=lambda entry: (-(_of(self.ranking.probability_best, entry.place) or 0.0), -mean(entry.accuracies)),
        )

    @property
    def best(self) -> Found | None:
        """The most probably best; None without any accuracy."""
        return next(iter(self.in_order), None)

    @property
    def verdict(self) -> str:
        """What the data say, in one line."""
        return self.ranking.verdict([entry.label for entry in self.ranked])

    @property
    def counts(self) -> str:
        """How the evaluations ended, and why those that failed did."""
        every = [evaluation for entry in self.ranked for evaluation in entry.evaluations]
        errors = [evaluation.error for evaluation in every if evaluation.error is not None]
        complete = sum(evaluation.accuracy is not None for evaluation in every)
        stopped = sum(evaluation.stopped for evaluation in every)
        reasons = f" ({'; '.join(sorted(set(errors)))})" if errors else ""
        return f"{complete} evaluations to the end, {stopped} stopped early, {len(errors)} failed{reasons}"

    @property
    def notes(self) -> list[str]:
        """What a reader of the verdict must know, a sentence each."""
        notes = [self.counts]
        halted = sum(any(evaluation.stopped for evaluation in entry.evaluations) for entry in self.ranked)
        if halted:
            notes.append(f"the {halted} networks that were stopped early are not ranked: all this is of the others")
        within, between = self.ranking.within, self.ranking.between
        if within is not None and between is not None:
            notes.append(f"seeds of one network differ by {within:.4f} (standard deviation), networks by {between:.4f}")
        if self.best and (others := self.sharing(self.best)):
            named = ", ".join(others[:_NAMED]) + (f" and {len(others) - _NAMED} more" if len(others) > _NAMED else "")
            notes.append(f"the network of {self.best.label} is also that of {named}: all are as good here")
        known = [(entry.row.candidate.macs, mean(entry.accuracies)) for entry in self.in_order if entry.row.candidate]
        if len(known) >= _LEAST_FOR_CORRELATION and len(set(known)) > 1:
            macs, accuracies = zip(*known, strict=True)
            correlation, chance = spearmanr(macs, accuracies)
            if correlation > 0 and chance < 0.05:
                notes.append(
                    f"warning: accuracy follows MACs, unequal as they still are (rank correlation {correlation:.2f}): "
                    "a smaller tolerance= tells whether what won was only dearer"
                )
        return notes

    def sharing(self, one: Found) -> list[str]:
        """The other constants whose network is that of `one`."""
        return [entry.label for entry in self.found if entry.row.same_as == one.row.coefficients]


def outcome(rows: Sequence[Row], evaluations: Sequence[Evaluation]) -> Outcome:
    """Put what was measured beside what was planned, and rank it."""
    by_network: dict[str, list[Evaluation]] = {}
    for evaluation in sorted(evaluations, key=lambda evaluation: evaluation.replicate):
        by_network.setdefault(evaluation.network, []).append(evaluation)
    own = [row for row in rows if row.chosen and row.same_as is None]
    places = {_key(row): place for place, row in enumerate(own)}
    entries = []
    for row in rows:
        of_network = by_network.get(_key(row), []) if row.chosen else []
        entries.append(Found(row, places[_key(row)] if row.chosen else None, tuple(of_network)))
    ranked = tuple(entry for entry in entries if entry.row.chosen and entry.row.same_as is None)
    # A network of which one seed was stopped early is out: its other seeds were not asked for.
    ranking = rank([() if any(run.stopped for run in entry.evaluations) else entry.accuracies for entry in ranked])
    return Outcome(tuple(entries), _of_fractions(ranking), ranked)


def _of_fractions(ranking: Ranking) -> Ranking:
    """Intervals cut to [0, 1]: the ranking knows no bounds, but accuracies have them."""
    low, high = (
        tuple(None if end is None else min(1.0, max(0.0, end)) for end in ends) for ends in (ranking.low, ranking.high)
    )
    return replace(ranking, low=low, high=high)


def _key(row: Row) -> str:
    return row.candidate.network.key() if row.candidate else ""


def write_candidates(path: Path, surface: Surface, result: Outcome) -> None:
    """`candidates.csv`: one row for each set of constants, those of the best networks first."""
    baseline, base_macs = surface.baseline, cost(surface.baseline).macs
    rows = []
    for entry in result.found:
        row, candidate, place = entry.row, entry.row.candidate, entry.place
        network = candidate.network if candidate else None
        rows.append(
            {
                "alpha": row.coefficients.alpha, "beta": row.coefficients.beta, "gamma": row.coefficients.gamma,
                "nominal": round(row.nominal, 6),
                "formula_ratio": round(row.formula, 6),
                "realised_macs": candidate.macs if candidate else None,
                "ratio": round(candidate.macs / base_macs, 6) if candidate else None,
                "ratio_to_target": round(candidate.macs / surface.macs, 6) if candidate else None,
                "phi": round(candidate.phi, 6) if candidate else None,
                "layers": network.blocks if network else None,
                "layers_ratio": round(network.blocks / baseline.blocks, 4) if network else None,
                "resolution": network.resolution if network else None,
                "trim": round(candidate.trim, 6) if candidate else None,
                "params": cost(network).params if network else None,
                "status": _status(entry),
                "accuracy_mean": _of(result.ranking.mean, place),
                "accuracy_sd": stdev(entry.accuracies) if len(entry.accuracies) > 1 else None,
                "seeds": len(entry.accuracies),
                "expected": _of(result.ranking.expected, place),
                "low": _of(result.ranking.low, place),
                "high": _of(result.ranking.high, place),
                "probability_best": _of(result.ranking.probability_best, place),
                "contender": place in result.ranking.contenders and bool(entry.accuracies),
                "accuracies": " ".join(f"{accuracy:.6f}" for accuracy in entry.accuracies),
                "network": network.key() if network else None,
                "same_as": str(row.same_as) if row.same_as else None,
            }
        )  # fmt: skip
    frame = pd.DataFrame(rows)
    keys = ["probability_best", "accuracy_mean", "alpha", "beta"]
    order = frame.sort_values(keys, ascending=[False, False, True, True], kind="stable").index
    write_atomically(path, frame.loc[order].to_csv(index=False))


def _of(values: Sequence[float | None], place: int | None) -> float | None:
    return None if place is None else values[place]


def _status(entry: Found) -> str:
    if entry.row.candidate is None:
        return "no network of these MACs"
    if not entry.row.chosen:
        return "not chosen"
    if any(evaluation.stopped for evaluation in entry.evaluations):
        return "stopped early"
    if entry.accuracies:
        return "evaluated"
    return "failed" if entry.evaluations else "waiting"


def about_of(
    given: Mapping[str, Any], names: Mapping[str, str], subject: Subject, surface: Surface, seeds: int
) -> dict[str, Any]:
    """What the results came from, for people and scripts: settings, baselines, and hashes of what was trained on."""
    base = cost(surface.baseline)
    return {
        "baseline": {
            "name": str(given["baseline"]),
            "key": subject.named.key(),
            "sha256": None if str(given["baseline"]) in NAMES else file_source(str(given["baseline"]))["sha256"],
            "variant": given["variant"],
            "trained_key": surface.baseline.key(),
            "macs": base.macs,
            "params": base.params,
            "resolution": surface.baseline.resolution,
        },
        "constraint": surface.constraint,
        "tolerance": surface.tolerance,
        "sampler": given["sampler"],
        "evaluator": names["evaluator"],
        "settings_hash": _settings_hash(given["evaluator"]),
        "data": names.get("data") if data_hash(subject.evaluator) else None,
        "data_hash": data_hash(subject.evaluator),
        "engine": names["engine"],
        "seeds": seeds,
        "seed": given["seed"],
    }


def _settings_hash(evaluator: Mapping[str, Any]) -> str:
    """Sixteen hex digits, of the names that the first releases gave our modules: a file of theirs stays as it is."""
    return hashlib.sha256(json.dumps(named_before(evaluator), sort_keys=True).encode()).hexdigest()[:16]


def _top(result: Outcome, most: int) -> list[dict[str, Any]]:
    ranking = result.ranking
    return [
        {
            **{name: float(value) for name, value in vars(entry.row.coefficients).items()},
            **_network(entry),
            "same_network": result.sharing(entry),
            "accuracy": _of(ranking.mean, entry.place),
            "seeds": len(entry.accuracies),
            "expected": _of(ranking.expected, entry.place),
            "low": _of(ranking.low, entry.place),
            "high": _of(ranking.high, entry.place),
            "probability_best": _of(ranking.probability_best, entry.place),
            "contender": entry.place in ranking.contenders,
        }
        for entry in result.in_order[:most]
    ]


def _network(entry: Found) -> dict[str, Any]:
    """The network that stood for the constants: `phi` steps in their direction, its input trimmed."""
    candidate = entry.row.candidate
    assert candidate is not None  # it was evaluated
    return {
        "phi": round(candidate.phi, 6),
        "trim": round(candidate.trim, 6),
        "layers": candidate.network.blocks,
        "resolution": candidate.network.resolution,
        "macs": candidate.macs,
        "network": candidate.network.key(),
    }


def write_constants(path: Path, named: Arch, surface: Surface, result: Outcome, about: Mapping[str, Any]) -> None:
    """`scaling.yaml`: the best constants, and with them how sure they are and what else may be the best."""
    assert result.best is not None  # there is something to write
    evidence = {
        "verdict": result.verdict,
        "notes": result.notes,
        "told_apart": len(result.ranking.contenders) == 1 and result.ranking.within is not None,
        "noise_between_seeds": result.ranking.within,
        "spread_of_candidates": result.ranking.between,
        "top": _top(result, 10),
        **about,
    }
    scaling = Scaling(result.best.row.coefficients, surface.phi, surface.rounding, named, evidence)
    if not _says(path, scaling):
        write_scaling(replace(scaling, evidence=evidence | {"made_by": provenance()}), path)


def _says(path: Path, new: Scaling) -> bool:
    """Whether the file says so already, whoever made it and when: families know it by its hash."""
    try:
        there = read_scaling(path)
    except InputError:  # there is none, or not a whole one
        return False
    evidence = {name: value for name, value in there.evidence.items() if name != "made_by"}
    return replace(there, evidence=evidence) == replace(new, evidence=yaml.safe_load(yaml.safe_dump(new.evidence)))


def write_summary(path: Path, result: Outcome, about: Mapping[str, Any], seconds: float) -> None:
    """`summary.json`: the best constants and the totals, for scripts."""
    evaluations = [evaluation for entry in result.ranked for evaluation in entry.evaluations]
    top = _top(result, 1)
    write_json(
        path,
        {
            "best": top[0] if top else None,
            "verdict": result.verdict,
            "notes": result.notes,
            "contenders": [result.ranked[place].label for place in result.ranking.contenders],
            "noise_between_seeds": result.ranking.within,
            "candidates": len(result.ranked),
            "constants": len(result.found),
            "evaluations": len(evaluations),
            "failures": sum(evaluation.error is not None for evaluation in evaluations),
            "stopped": sum(evaluation.stopped for evaluation in evaluations),
            "seconds_of_work": round(seconds, 3),
            **about,
        },
    )
