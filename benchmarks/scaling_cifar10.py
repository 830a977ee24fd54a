"""The scaling search on CIFAR-10: a grid of constants, and compound scaling against depth, width and resolution alone.

    python -m benchmarks.scaling_cifar10 path=FOLDER [grid|compare] [OPTION=VALUE ...]
    python -m benchmarks.scaling_cifar10 tables

`path` is a folder with CIFAR-10 as parquet files. Runs `scaling_search.grid` as runs/cifar10-grid and
`scaling_search.compare` as runs/cifar10-compare, with the settings below and whatever options are given on top; both
resume where they stopped. The baseline (benchmarks/cifar10_baseline.yaml) is a small residual network of plain
convolutions, which a CPU trains four times as fast as depthwise ones of the same MACs. It starts at 16 pixels, so that
the 32 of the images are room to grow: four times the MACs through resolution alone show the images as they are. The
comparison takes the constants that the grid found, and other seeds than those they were found with. `tables` prints
what they found as it stands in docs/results/scaling_cifar10.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from scaling_search import grid
from scaling_search.compare import __main__ as compare

SETTINGS = [
    "baseline=benchmarks/cifar10_baseline.yaml",
    "variant=null",
    "data=parquet",
    "data.limit=25000",
    "data.val_fraction=0.4",
    "evaluator.recipe.optimizer=sgd",
    "evaluator.recipe.lr=0.1",
    "evaluator.recipe.batch_size=64",
    "evaluator.recipe.weight_decay=5e-4",
    "evaluator.recipe.translate=0.125",
    "evaluator.recipe.recalibrate=1024",
    "evaluator.recipe.epochs=5",
    "seeds=3",
]
COMMANDS = {
    "grid": (grid.main, ["name=cifar10-grid", "candidates=12"]),
    "compare": (
        compare.main,
        ["name=cifar10-compare", "scaling=runs/cifar10-grid/scaling.yaml", "seed=1", "figure4=true"],
    ),
}


def tables() -> str:
    """Both results as Markdown."""
    grid_rows = pd.read_csv(Path("runs/cifar10-grid/candidates.csv")).query("status == 'evaluated' and same_as.isna()")
    lines = [
        "| alpha, beta, gamma | layers | px | MACs | accuracy, each seed | mean | true accuracy, 95 % | best with |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in grid_rows.itertuples():
        lines.append(
            f"| {row.alpha:g}, {row.beta:g}, {row.gamma:g} | {row.layers:.0f} | {row.resolution:.0f} "
            f"| {row.ratio:.2f}x | {_each(row.accuracies)} | {row.accuracy_mean:.4f} | {row.low:.4f} to {row.high:.4f} "
            f"| {row.probability_best:.2f} |"
        )
    lines += [
        "",
        "| scaled | layers | width | px | MACs | accuracy, each seed | mean | compound minus this, all three 95 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in pd.read_csv(Path("runs/cifar10-compare/comparison.csv")).itertuples():
        against = "" if pd.isna(row.low) else f"{row.compound_minus_this:+.4f} ({row.low:+.4f} to {row.high:+.4f})"
        lines.append(
            f"| {row.line} | {row.layers} | {row.width:.2f}x | {row.side} | {row.ratio:.2f}x "
            f"| {_each(row.accuracies)} | {row.accuracy_mean:.4f} | {against} |"
        )
    return "\n".join(lines)


def _each(accuracies: str) -> str:
    return " ".join(f"{float(accuracy):.4f}" for accuracy in accuracies.split())


def main(arguments: list[str]) -> None:
    if arguments == ["tables"]:
        print(tables())
        return
    chosen = [name for name in COMMANDS if name in arguments] or list(COMMANDS)
    options = [argument for argument in arguments if argument not in COMMANDS]
    path = [option.removeprefix("path=") for option in options if option.startswith("path=")]
    if len(path) != 1:
        sys.exit("give path=FOLDER of CIFAR-10 as parquet files")
    options = [option for option in options if not option.startswith("path=")]
    for name in chosen:
        command, settings = COMMANDS[name]
        code = command([*SETTINGS, *settings, f"data.path={path[0]}", *options])
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
