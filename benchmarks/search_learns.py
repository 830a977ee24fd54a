"""Does a search learn? Best reward so far of each controller, on the default proxy with the default budget.

    python -m benchmarks.search_learns [seeds=3] [controllers=bayesian,evolution,random] [KEY=VALUE of nas.search ...]

Runs `python -m nas.search` for each seed and controller, named `learns-CONTROLLER-SEED`; the same command again goes on
where it stopped. Best so far counts networks that were trained to the end, in the order of asking.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
from pathlib import Path

from nas.journal import read_journal

MARKS = (10, 20, 30, 40, 50, 60)


def best_so_far(journal: Path) -> list[float]:
    """Best reward after each evaluation, by number; -inf before the first that was trained to the end."""
    _, entries, _ = read_journal(journal)
    rewards = {entry.number: entry.reward for entry in entries if entry.reward is not None and not entry.stopped}
    return list(itertools.accumulate((rewards.get(number, float("-inf")) for number in range(len(entries))), max))


def main() -> None:
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    seeds = range(int(options.pop("seeds", 3)))
    controllers = options.pop("controllers", "bayesian,evolution,random").split(",")
    curves: dict[str, list[list[float]]] = {name: [] for name in controllers}
    for seed, controller in itertools.product(seeds, controllers):
        name = f"learns-{controller}-{seed}"
        overrides = [f"{key}={value}" for key, value in options.items()]
        command = [sys.executable, "-m", "nas.search", f"controller={controller}", f"seed={seed}", f"name={name}"]
        subprocess.run([*command, *overrides], check=True)
        curves[controller].append(best_so_far(Path("runs") / name / "journal.jsonl"))
    print("| controller | " + " | ".join(f"best after {mark}" for mark in MARKS) + " |")
    print("|---|" + "---|" * len(MARKS))
    for controller, runs in curves.items():
        cells = []
        for mark in MARKS:
            values = [run[mark - 1] for run in runs if len(run) >= mark]
            spread = f" ({min(values):.4f} to {max(values):.4f})" if values else ""
            cells.append(f"{statistics.median(values):.4f}{spread}" if values else "-")
        print(f"| {controller}, {len(runs)} seeds | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
