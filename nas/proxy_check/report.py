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
    errors = [(place, error) for place, one in enumerate(found.networks) for error in one.errors]
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


def _costs(found: Outcome) -> str | None:
    """Seconds of one evaluation by each schedule, in a line."""
    proxy, longer = found.seconds
    if proxy is None or longer is None:
        return None
    return f"{proxy:.3g} s by the proxy, {longer:.3g} s by the longer schedule"


def _rows(found: Outcome) -> list[dict[str, str]]:
    """The networks, the longer schedule's best first."""
    places = [_places(found, schedule) for schedule in (0, 1)]
    rows = [
        {
            "key": one.drawn.key,
            "macs": cost_short("macs", one.drawn.costs["macs"]),
            "proxy": f"{100 * (one.accuracy(0) or 0):.2f}%",
            "longer": f"{100 * (one.accuracy(1) or 0):.2f}%",
            "proxy_place": f"{places[0][number]:g}",
            "longer_place": f"{places[1][number]:g}",
        }
        for number, one in enumerate(found.ranked)
    ]
    order = sorted(range(len(rows)), key=lambda number: (places[1][number], places[0][number]))
    return [rows[number] for number in order]


def _places(found: Outcome, schedule: int) -> list[float]:
    """The place of each ranked network, 1 the best; equals share the mean of theirs."""
    values = np.array([one.accuracy(schedule) or 0.0 for one in found.ranked])
    return [float((values > value).sum() + ((values == value).sum() + 1) / 2) for value in values]


def _write_networks(path: Path, found: Outcome) -> None:
    """One row for each network, in the order in which they were chosen."""
    places = {one.drawn.key: number for number, one in enumerate(found.ranked)}
    ranks = [_places(found, schedule) for schedule in (0, 1)]
    rows = []
    for one in found.networks:
        row: dict[str, Any] = {"key": one.drawn.key, **one.drawn.costs}
        for schedule, name in enumerate(("proxy", "longer")):
            place = places.get(one.drawn.key)
            row |= {
                f"{name}_accuracy": one.accuracy(schedule),
                f"{name}_rank": None if place is None else ranks[schedule][place],
                f"{name}_seconds": float(np.median(one.seconds[schedule])) if one.seconds[schedule] else None,
                **{f"{name}_seed{run}": value for run, value in enumerate(one.accuracies(schedule))},
            }
        rows.append({**row, "error": "; ".join(one.errors) or None})
    write_atomically(path, pd.DataFrame(rows).to_csv(index=False))


def _write_summary(path: Path, found: Outcome, about: Mapping[str, Any], left: int) -> None:
    top = found.top
    write_json(
        path,
        {
            **about,
            "finished": left == 0,
            "verdict": verdict(found, times_of(about)),
            "networks": len(found.ranked),
            "left_out": len(found.networks) - len(found.ranked),
            "failures": sum(len(one.errors) for one in found.networks),
            "tau": _plain(found.tau),
            "spearman": _plain(found.spearman),
            "pairs_in_order": found.in_order,
            "top": None if top is None else {"size": top[0], "shared": top[1], "by_chance": top[2]},
            "regret": found.regret,
            "macs_tau": _plain(found.macs),
            "tau_above_macs": _plain(found.beats_macs),
            "partial_tau_given_macs": _plain(found.beyond),
            "by_epoch": [{"epoch": epoch, **vars(one)} for epoch, one in found.by_epoch],
            "seed_to_seed_tau": {"proxy": _plain(found.itself[0]), "longer": _plain(found.itself[1])},
            "noise": {"proxy": found.noise[0], "longer": found.noise[1]},
            "seconds_each": {"proxy": found.seconds[0], "longer": found.seconds[1]},
        },
    )


def _plain(one: Estimate | None) -> dict[str, float | None] | None:
    return None if one is None else dict(vars(one))


def _config_of(folder: Path) -> str:
    return (folder / "config.yaml").read_text()
