"""The report of a comparison of ways to scale, one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phinas.pages.cost_text import macs_text
from phinas.pages.page import drawing, render
from scaling_search.compare.figure import bases_figure, methods_figure, single_figure
from scaling_search.compare.networks import BASELINE, METHODS
from scaling_search.compare.outcome import Outcome, accuracy_text, contrasts, verdicts
from scaling_search.study import Evaluation


def report(
    name: str,
    found: Sequence[Outcome],
    evaluations: Sequence[Evaluation],
    about: Mapping[str, Any],
    config_text: str,
    left: int,
    notes: Sequence[str],
) -> str:
    """The whole report as one page that asks for no other file.

    left   evaluations that are still to come.
    notes  what is to be said of the networks: those that are the same, or wanting.
    """
    pooled = [outcome.noise.deviation for outcome in found if outcome.noise is not None and not outcome.noise.own]
    bases = [outcome for outcome in found if outcome.point.line not in (BASELINE, *METHODS)]
    rows = _rows(found)
    return render(
        Path(__file__).with_name("report.html"),
        name,
        [(number, evaluation.error) for number, evaluation in enumerate(evaluations) if evaluation.error is not None],
        config_text,
        about=about,
        left=left,
        notes=notes,
        baseline=macs_text(about["baseline_macs"]),
        verdicts=verdicts(found),
        within=pooled[0] if pooled else None,
        noisier=[
            f"{outcome.point.line} at {outcome.point.level:.3g}x ({outcome.noise.deviation:.4f})"
            for outcome in found
            if outcome.noise is not None and outcome.noise.own
        ],
        methods=drawing(methods_figure(found), "depth, width, resolution and compound scaling at equal MACs"),
        single=drawing(single_figure(found), "each dimension scaled alone"),
        bases=drawing(bases_figure(found), "width from bases of other depth and resolution") if bases else None,
        rows=[row for row in rows if row["of_methods"]],
        base_rows=[row for row in rows if not row["of_methods"]],
    )


def _rows(results: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The networks as Tables 3 and 7 of the paper have them."""
    whole = next(outcome.point.macs for outcome in results if outcome.point.line == BASELINE)
    contrast_of = {(contrast.level, contrast.method): contrast for contrast in contrasts(results)}
    rows = []
    for outcome in results:
        point, against = outcome.point, contrast_of.get((outcome.point.level, outcome.point.line))
        rows.append(
            {
                "of_methods": point.line in (BASELINE, *METHODS),
                "line": point.line,
                "first": point.line == METHODS[0] or point.line == BASELINE,
                "depth": f"{point.depth:.2f}",
                "layers": str(point.network.blocks),
                "width": f"{point.width:.2f}",
                "resolution": f"{point.resolution:.2f}",
                "side": str(point.network.resolution),
                "macs": f"{point.macs / 1e6:,.1f}M",
                "ratio": f"{point.macs / whole:.2f}×",
                "accuracy": "failed"
                if outcome.errors and outcome.mean is None
                else accuracy_text(outcome)
                if outcome.accuracies
                else "–",
                "seeds": len(outcome.accuracies),
                "difference": _signed(against.estimate) if against else "–",
                "interval": f"{_signed(against.low)} to {_signed(against.high)}"
                if against and against.low is not None and against.high is not None
                else "–",
                "told": against is not None and against.told,
            }
        )
    return rows


def _signed(difference: float) -> str:
    return f"{difference:+.4f}".replace("-", "−")
