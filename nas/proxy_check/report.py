"""What a check of a proxy leaves behind: `networks.csv`, `summary.json`, `report.html` and `proxy_check.png`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nas.proxy_check.agreement import Estimate
from nas.proxy_check.figure import check_figure, scatter_figure, standings_figure
from nas.proxy_check.outcome import Outcome, notes, verdict
from phinas.command.run_folder import write_json
from phinas.files.atomic_file import write_atomically
from phinas.pages.cost_text import cost_short
from phinas.pages.page import drawing, render
from phinas.pages.style import png

PICTURE_WIDTH = 1600  # pixels


def write_all(folder: Path, found: Outcome, about: Mapping[str, Any], left: int) -> None:
    """All of them, from what was found so far.

    about  what `summary.json` and the page say of the check itself: epochs, longer_epochs, seeds, space, evaluator, ...
    left   evaluations that are still to come.
    """
    _write_networks(folder / "networks.csv", found)
    _write_summary(folder / "summary.json", found, about, left)
    write_atomically(folder / "report.html", report(folder.name, found, about, left, _config_of(folder)))
    png(check_figure(found), folder / "proxy_check.png", PICTURE_WIDTH)


def report(name: str, found: Outcome, about: Mapping[str, Any], left: int, config_text: str) -> str:
    """The whole report as one page that asks for no other file."""
    errors = [(place, error) for place, network in enumerate(found.networks) for error in network.errors]
    return render(
        Path(__file__).with_name("report.html"),
        name,
        errors,
        config_text,
        about=about,
        left=left,
        verdict=verdict(found, times_of(about)),
        notes=notes(found),
        found=found,
        beyond=found.beyond,
        rows=_rows(found),
        costs=_costs(found),
        scatter=drawing(scatter_figure(found), "Accuracy by the proxy against accuracy by the longer schedule"),
        standings=drawing(standings_figure(found), "Kendall's tau of the proxy and of MACs, with intervals"),
    )


def times_of(about: Mapping[str, Any]) -> float:
    """How many times the proxy's epochs the longer schedule has."""
    return float(about["longer_epochs"] / about["epochs"])


def _costs(outcome: Outcome) -> str | None:
    """Seconds of one evaluation by each schedule, in a line."""
    proxy, longer = outcome.seconds
    if proxy is None or longer is None:
        return None
    return f"{proxy:.3g} s by the proxy, {longer:.3g} s by the longer schedule"


def _rows(outcome: Outcome) -> list[dict[str, str]]:
    """The networks, the longer schedule's best first."""
    places = [_places(outcome, schedule) for schedule in (0, 1)]
    rows = [
        {
            "key": network.drawn.key,
            "macs": cost_short("macs", network.drawn.costs["macs"]),
            "proxy": f"{100 * (network.accuracy(0) or 0):.2f}%",
            "longer": f"{100 * (network.accuracy(1) or 0):.2f}%",
            "proxy_place": f"{places[0][number]:g}",
            "longer_place": f"{places[1][number]:g}",
        }
        for number, network in enumerate(outcome.ranked)
    ]
    order = sorted(range(len(rows)), key=lambda number: (places[1][number], places[0][number]))
    return [rows[number] for number in order]


def _places(outcome: Outcome, schedule: int) -> list[float]:
    """The place of each ranked network, 1 the best; equals share the mean of theirs."""
    values = np.array([network.accuracy(schedule) or 0.0 for network in outcome.ranked])
    return [float((values > value).sum() + ((values == value).sum() + 1) / 2) for value in values]


def _write_networks(path: Path, outcome: Outcome) -> None:
    """One row for each network, in the order in which they were chosen."""
    places = {network.drawn.key: number for number, network in enumerate(outcome.ranked)}
    ranks = [_places(outcome, schedule) for schedule in (0, 1)]
    rows = []
    for network in outcome.networks:
        row: dict[str, Any] = {"key": network.drawn.key, **network.drawn.costs}
        for schedule, name in enumerate(("proxy", "longer")):
            place = places.get(network.drawn.key)
            row |= {
                f"{name}_accuracy": network.accuracy(schedule),
                f"{name}_rank": None if place is None else ranks[schedule][place],
                f"{name}_seconds": float(np.median(network.seconds[schedule])) if network.seconds[schedule] else None,
                **{f"{name}_seed{run}": value for run, value in enumerate(network.accuracies(schedule))},
            }
        rows.append({**row, "error": "; ".join(network.errors) or None})
    write_atomically(path, pd.DataFrame(rows).to_csv(index=False))


def _write_summary(path: Path, outcome: Outcome, about: Mapping[str, Any], left: int) -> None:
    top = outcome.top
    write_json(
        path,
        {
            **about,
            "finished": left == 0,
            "verdict": verdict(outcome, times_of(about)),
            "networks": len(outcome.ranked),
            "left_out": len(outcome.networks) - len(outcome.ranked),
            "failures": sum(len(network.errors) for network in outcome.networks),
            "tau": _plain(outcome.tau),
            "spearman": _plain(outcome.spearman),
            "pairs_in_order": outcome.in_order,
            "top": None if top is None else {"size": top[0], "shared": top[1], "by_chance": top[2]},
            "regret": outcome.regret,
            "macs_tau": _plain(outcome.macs),
            "tau_above_macs": _plain(outcome.beats_macs),
            "partial_tau_given_macs": _plain(outcome.beyond),
            "by_epoch": [{"epoch": epoch, **vars(estimate)} for epoch, estimate in outcome.by_epoch],
            "seed_to_seed_tau": {"proxy": _plain(outcome.itself[0]), "longer": _plain(outcome.itself[1])},
            "noise": {"proxy": outcome.noise[0], "longer": outcome.noise[1]},
            "seconds_each": {"proxy": outcome.seconds[0], "longer": outcome.seconds[1]},
        },
    )


def _plain(estimate: Estimate | None) -> dict[str, float | None] | None:
    return None if estimate is None else dict(vars(estimate))


def _config_of(folder: Path) -> str:
    return (folder / "config.yaml").read_text()
