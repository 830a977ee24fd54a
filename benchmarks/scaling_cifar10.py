"""The scaling search on CIFAR-10: a grid of constants, and compound scaling against depth, width and resolution alone.

    python -m benchmarks.scaling_cifar10 path=FOLDER [grid|compare] [OPTION=VALUE ...]

`path` is a folder with CIFAR-10 as parquet files. Runs `scaling_search.grid` as runs/cifar10-grid and
`scaling_search.compare` as runs/cifar10-compare, with the settings below and whatever options are given on top; both
resume where they stopped. The baseline (benchmarks/cifar10_baseline.yaml) is a small residual network of plain
convolutions, which a CPU trains four times as fast as depthwise ones of the same MACs. It starts at 16 pixels, so that
the 32 of the images are room to grow: four times the MACs through resolution alone show the images as they are. The
comparison takes the constants that the grid found, and other seeds than those they were found with.
"""

from __future__ import annotations

import sys

from scaling_search import compare, grid

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
    "compare": (compare.main, ["name=cifar10-compare", "scaling=runs/cifar10-grid/scaling.yaml", "seed=1", "figure4=true"]),
}


def main(arguments: list[str]) -> None:
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
