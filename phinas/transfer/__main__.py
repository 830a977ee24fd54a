"""`python -m phinas.transfer from=runs/NAME sets.flowers=PATH`: fine-tune networks on several data sets."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from phinas.command.configuration import configuration
from phinas.command.console import CONSOLE, say, saying_what_is_kept
from phinas.command.parts import construct
from phinas.command.progress import duration_text, progress
from phinas.command.run import run
from phinas.command.run_folder import another_commands, begun, locked, run_folder, write_config, write_json
from phinas.command.verbs import command_line
from phinas.engines import inline
from phinas.engines.engine import RunJobs
from phinas.engines.forecast import seconds_each
from phinas.files.checks import check_flag, check_number, check_whole
from phinas.files.errors import InputError
from phinas.files.moved import renamed
from phinas.files.origin import file_source
from phinas.files.settings import flatten
from phinas.networks.arch import Arch
from phinas.networks.arch_file import read_arch
from phinas.networks.cost import cost
from phinas.networks.named import named, short_name
from phinas.pages.cost_text import macs_text
from phinas.training.data.load_for_training import load_for_training, takes
from phinas.training.data.training_data import TrainingData
from phinas.training.full.initial_network import SMALL_IMAGES, below_head, fitted_to_data, read_weights
from phinas.training.full.recipe import FullRecipe
from phinas.training.full.trained_network import NETWORK, WEIGHTS
from phinas.transfer.data_sets import Described, described
from phinas.transfer.plan import FILE, Contender, Result, Results, Start, Trainings
from phinas.transfer.report import Entrant, Outcome, outcome, table, table_text, write_all
from phinas.transfer.training import FineTuning

COMMAND = "phinas.transfer"
SETTINGS = "settings.json"  # what must agree between the runs of one transfer

# Those of the grid, and how a batch is computed.
_FREE_OF_RECIPE = ("lr", "weight_decay", "accumulate", "compile")
_EMBEDDED = "digits"
_SECONDS_BETWEEN_REPORTS = 60
_STARTS: tuple[Start, ...] = ("pretrained", "scratch")


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit code; raises InputError for what the user can mend."""
    given, names = configuration(COMMAND, "transfer", arguments, open_ended=("sets",))
    seed, seeds = check_whole("seed", given["seed"], least=0), check_whole("seeds", given["seeds"])
    for option in ("scratch", "dry_run"):
        check_flag(option, given[option])
    for option in ("resolution", "stem_stride"):
        if given[option] is not None:
            check_whole(option, given[option])
    for argument in arguments:
        if argument.split("=")[0] in ("recipe.lr", "recipe.weight_decay"):
            option = argument.split("=")[0].removeprefix("recipe.")
            raise InputError(f"{argument}: the grid says it; give {option}=[...]")
    folder = run_folder(given["name"])

    # Everything is checked, and the engine is up, before anything is written.
    recipes = _recipes(given)
    grids = _grids(given)
    checkpoints = _checkpoints(given)
    if not isinstance(given["sets"], Mapping) or not given["sets"]:
        raise InputError("sets: give one or more data sets, as in sets.flowers=/data/flowers")
    side = max(given["resolution"] or checkpoint.arch.resolution for checkpoint in checkpoints)
    sets = [_data_set(given, str(name), side) for name in given["sets"]]
    contenders = {data_set.name: _contenders(data_set, checkpoints, recipes, grids, given) for data_set in sets}
    weights = {}
    for checkpoint in checkpoints:
        state, _ = read_weights(checkpoint.weights, checkpoint.arch, f"from={checkpoint.text}", say)
        weights[checkpoint.name] = below_head(state)
    settings = _settings(given, recipes, checkpoints, contenders, sets)
    _check_folder(folder, settings)
    results = Results(folder / FILE)
    entrants = [
        Entrant(data_set.name, data_set.source, data_set.described, tuple(contenders[data_set.name]))
        for data_set in sets
    ]
    evaluators = {
        data_set.name: FineTuning(data_set.source, recipes, weights, (folder / data_set.name).resolve(), seed)
        for data_set in sets
    }
    asked = _Asked(folder, names["recipe"], entrants, evaluators, results, seed, seeds, tuple(arguments))

    _introduce(asked, recipes)
    if given["dry_run"]:
        _foretell(asked)
        return 0
    # What is finished needs no engine; inline costs nothing.
    engine = construct(given, "engine") if asked.left else inline.engine()
    with engine as run_jobs, locked(folder):
        asked = replace(asked, results=Results(folder / FILE))  # nobody else adds to it from here on
        write_json(folder / SETTINGS, {**_settings_before(folder), **settings})
        write_config(folder, {**given, "sets": {data_set.name: dict(data_set.settings) for data_set in sets}})
        with saying_what_is_kept(asked.kept):
            return _conduct(asked, run_jobs)


@dataclass(frozen=True)
class _Checkpoint:
    """Weights to start from, and whose they are; `text` is how the user named them.

    name  of a run's folder, or of the network; of a second file of weights for one network, the file's.
    """

    name: str
    text: str
    weights: Path
    arch: Arch


@dataclass(frozen=True)
class _DataSet:
    """What the networks are transferred to, with its loader's settings; `described` where it is in table 6."""

    name: str
    settings: Mapping[str, Any]
    source: TrainingData
    described: Described | None


@dataclass(frozen=True)
class _Asked:
    """What the user asked for, and what that comes to."""

    folder: Path
    recipe: str
    entrants: Sequence[Entrant]
    evaluators: Mapping[str, FineTuning]
    results: Results
    seed: int
    seeds: int
    arguments: tuple[str, ...]

    @property
    def contenders(self) -> list[Contender]:
        return [contender for entrant in self.entrants for contender in entrant.contenders]

    @property
    def wanted(self) -> int:
        """Trainings in all."""
        return sum(len(contender.grid(self.seed)) + self.seeds for contender in self.contenders)

    @property
    def left(self) -> int:
        """Trainings without a result, the finals of unfinished grids among them."""
        return sum(len(contender.left(self.results, self.seed, self.seeds)) for contender in self.contenders)

    @property
    def done(self) -> int:
        return self.wanted - self.left

    def kept(self, before_command: str = " ") -> str:
        """What a run that ends too soon says."""
        return f"{self.done} of {self.wanted} trainings are kept. To go on:{before_command}{self.command()}"

    def command(self, **changes: object) -> str:
        """The command line that resumes this run, with options changed."""
        return command_line(COMMAND, self.arguments, **{**changes, "name": self.folder.name})


# ---------------------------------------------------------------------------------------------------- what is asked for


def _recipes(given: Mapping[str, Any]) -> dict[Start, FullRecipe]:
    """How each start is trained, but for learning rate and weight decay."""
    recipe: FullRecipe = construct(given, "recipe")
    if recipe.patience is not None:
        raise InputError(
            f"recipe.patience={recipe.patience}: it must be null; of the final trainings nothing is held out to stop by"
        )
    epochs = given["scratch_epochs"]
    if epochs is not None:
        check_whole("scratch_epochs", epochs)
    return {"pretrained": recipe, "scratch": replace(recipe, epochs=epochs or recipe.epochs, head_only=False)}


def _grids(given: Mapping[str, Any]) -> dict[Start, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Learning rates and weight decays of each start."""

    def grid(prefix: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        lr, decay = f"{prefix}lr", f"{prefix}weight_decay"
        return _numbers(lr, given[lr], above=0), _numbers(decay, given[decay], least=0)

    return {"pretrained": grid(""), "scratch": grid("scratch_")}


def _numbers(option: str, value: Any, **bounds: float) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else [value]
    if not numbers:
        raise InputError(f"{option}=[]: give at least one")
    checked = tuple(check_number(option, number, **bounds) for number in numbers)
    if len(set(checked)) < len(checked):
        raise InputError(f"{option}={value}: each must differ from the others")
    return checked


def _checkpoints(given: Mapping[str, Any]) -> list[_Checkpoint]:
    texts = [str(text) for text in (given["from"] if isinstance(given["from"], list) else [given["from"]])]
    models = given["model"] if isinstance(given["model"], list) else [given["model"]] * len(texts)
    if not texts:
        raise InputError("from=[]: give at least one")
    if len(models) != len(texts):
        raise InputError(f"model={given['model']}: {len(models)} networks for {len(texts)} weights in from=")
    checkpoints: list[_Checkpoint] = []
    for text, model in zip(texts, models, strict=True):
        checkpoint, names = _checkpoint(text, model), [other.name for other in checkpoints]
        # The first keeps the name of the network.
        if checkpoint.name in names and checkpoint.weights == Path(text).expanduser():
            checkpoint = replace(checkpoint, name=short_name(text))
        if checkpoint.name in names:
            raise InputError(
                f"from={','.join(texts)}: two are called {checkpoint.name}; give them files or folders of other names"
            )
        checkpoints.append(checkpoint)
    return checkpoints


def _checkpoint(text: str, model: Any) -> _Checkpoint:
    path = Path(text).expanduser()
    if path.is_dir():
        if model is not None:
            raise InputError(f"model={model}: from={text} is the folder of a run, which brings its own network")
        for name in (WEIGHTS, NETWORK):
            if not (path / name).is_file():
                raise InputError(f"from={text}: no {name} there; give the folder of a finished training, runs/NAME")
        return _Checkpoint(path.resolve().name, text, path / WEIGHTS, read_arch(path / NETWORK))
    if not path.exists():
        raise InputError(f"from={text}: no such file or folder")
    if model is None:
        raise InputError(f"from={text}: weights alone; give their network, as in model=efficientnet_b0")
    return _Checkpoint(short_name(str(model)), text, path, named("model", str(model)))


def _data_set(given: Mapping[str, Any], name: str, side: int) -> _DataSet:
    """Read, and checked against table 6 where it is of it. Raises InputError where it has no test split.

    side  pixels at which the networks see it, for what has to be read at one size.
    """
    told, known = given["sets"][name], described(name)
    settings: dict[str, Any] = dict(told) if isinstance(told, Mapping) else {"path": told}
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise InputError(f"sets.{name}: a data set's name has letters, digits, '_' and '-' only")
    if "_target_" not in settings:
        settings = _loader(name, settings, known, side)
    target = str(settings["_target_"])
    fraction = check_number("val_fraction", given["val_fraction"], above=0, below=1)
    try:
        if takes(target, "val_fraction"):
            settings = {"val_fraction": fraction, "seed": given["seed"], **settings}
            fraction = settings["val_fraction"]
        images = load_for_training(name, settings, fraction)
    except InputError as error:
        raise InputError(f"sets.{name}: {str(error).removeprefix(f'{name}: ')}") from None
    if images.test_count is None:
        raise InputError(
            f"sets.{name}: no test split in {settings.get('path', target)}; it must have one to be scored on"
        )
    if known is not None:
        known.check_classes(len(images.classes))
        if differences := known.differences(images.train_count + images.held_out_count, images.test_count):
            say(f"warning: sets.{name}: {differences}: accuracies are not those of {known.title} in table 5")
    return _DataSet(name, settings, images, known)


def _loader(name: str, settings: dict[str, Any], known: Described | None, side: int) -> dict[str, Any]:
    """The settings with a loader that reads what is at the path: parquet files, or folders of images."""
    path = settings.get("path")
    if path == _EMBEDDED:
        return {
            "_target_": "phinas.training.data.images.digits",
            **{key: value for key, value in settings.items() if key != "path"},
        }
    if not isinstance(path, str):
        raise InputError(f"sets.{name}={path}: it must be the path of its images")
    root = Path(path).expanduser()
    if root.suffix != ".parquet" and not (root.is_dir() and next(root.rglob("*.parquet"), None)):
        return {"_target_": "phinas.training.data.images.imagefolder", **settings}
    defaults: dict[str, Any] = {}
    if known is not None:
        defaults = {"label_column": known.label, "resolution": side if known.photos else None}
    return {"_target_": "phinas.training.data.images.parquet", **defaults, **settings}


def _fitted(checkpoint: _Checkpoint, to: _DataSet, recipe: FullRecipe, given: Mapping[str, Any]) -> Arch:
    arch, channels = checkpoint.arch, to.source.channels
    if channels != arch.in_channels:
        raise InputError(
            f"sets.{to.name}: images of {channels} channels, from={checkpoint.text} takes {arch.in_channels}"
        )
    # Weights that were learnt on small images go with the stride that they were learnt with.
    stride = given["stem_stride"] or (arch.stem.stride if arch.resolution < SMALL_IMAGES else None)
    return fitted_to_data(arch, to.source, recipe, given["resolution"], stride)


def _contenders(
    to: _DataSet,
    checkpoints: Sequence[_Checkpoint],
    recipes: Mapping[Start, FullRecipe],
    grids: Mapping[Start, tuple[tuple[float, ...], tuple[float, ...]]],
    given: Mapping[str, Any],
) -> list[Contender]:
    return [
        Contender(to.name, checkpoint.name, start, _fitted(checkpoint, to, recipes["pretrained"], given), *grids[start])
        for checkpoint in checkpoints
        for start in _STARTS
        if start == "pretrained" or given["scratch"]
    ]


# ------------------------------------------------------------------------------------------------------------ to resume


def _settings(
    given: Mapping[str, Any],
    recipes: Mapping[Start, FullRecipe],
    checkpoints: Sequence[_Checkpoint],
    contenders: Mapping[str, Sequence[Contender]],
    sets: Sequence[_DataSet],
) -> dict[str, Any]:
    """By dotted name, what must not change for results of two runs to go together; what is new may come to it."""
    recipe = {name: value for name, value in given["recipe"].items() if name not in _FREE_OF_RECIPE}
    return flatten(
        {
            "command": COMMAND,
            "seed": given["seed"],
            "recipe": recipe,
            "from": {checkpoint.name: file_source(checkpoint.weights)["sha256"] for checkpoint in checkpoints},
            **({"scratch_epochs": recipes["scratch"].epochs} if given["scratch"] else {}),
            "sets": {
                data_set.name: {
                    "images": data_set.source.hash,
                    "tested": data_set.source.test_count,
                    "classes": len(data_set.source.classes),
                    "flip": data_set.source.flip,
                    "networks": {contender.model: contender.arch.key() for contender in contenders[data_set.name]},
                }
                for data_set in sets
            },
        }
    )


def _settings_before(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    if not path.exists():
        return {}
    try:
        return dict(renamed(json.loads(path.read_text())))
    except (OSError, ValueError, TypeError, RecursionError):
        raise InputError(f"{path}: damaged; give another name=") from None


def _check_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """InputError where the folder is another command's, or what was trained in it was trained otherwise."""
    before = _settings_before(folder)
    if begun(folder, SETTINGS) and not before:
        raise another_commands(folder)
    for option, value in before.items():
        if option in settings and settings[option] != value:
            raise InputError(
                f"name={folder.name}: {folder} was begun with {option}={value}, not {settings[option]}; "
                "give another name="
            )


# -------------------------------------------------------------------------------------------------------- the trainings


def _introduce(asked: _Asked, recipes: Mapping[Start, FullRecipe]) -> None:
    """Say what is about to happen."""
    for entrant in asked.entrants:
        images, known = entrant.source, entrant.described
        title = entrant.name if known is None else f"{entrant.name} ({known.title})"
        say(
            f"{title}: {len(images.classes)} classes, {images.train_count:,} images to learn from, "
            f"{images.held_out_count:,} held out for the grid, {images.test_count:,} for the test"
        )
        for contender in entrant.contenders:
            arch, cells, macs = contender.arch, len(contender.cells), macs_text(cost(contender.arch).macs)
            grid = f"a grid of {cells}, then " if cells > 1 else ""
            say(
                f"  {contender.name}: {macs} at {arch.resolution} px, stem stride {arch.stem.stride}; "
                f"{grid}{asked.seeds} seeds of {recipes[contender.start].epochs} epochs by recipe {asked.recipe}"
            )
    if asked.done:
        say(f"resuming {asked.folder}: {asked.done} of {asked.wanted} trainings are done")


def _foretell(asked: _Asked) -> None:
    """Say how long the trainings that are left take, by doing each kind of them for a moment."""
    whole, unknown = 0.0, False
    for entrant in asked.entrants:
        evaluator = asked.evaluators[entrant.name]
        for contender in entrant.contenders:
            left = contender.left(asked.results, asked.seed, asked.seeds)
            for _, each in itertools.groupby(left, key=lambda trial: trial.stage):
                trials = list(each)
                seconds = seconds_each(evaluator, trials[0])
                unknown |= seconds is None
                whole += len(trials) * (seconds or 0)
    say(
        f"{asked.left} trainings, {duration_text(whole)} of one worker's time on one thread"
        + (", without those that fail" if unknown else "")
    )


def _conduct(asked: _Asked, run_jobs: RunJobs) -> int:
    """Train what is left, one data set after the other; then say and write what was found. Returns the exit code."""

    saved = time.monotonic()

    def save() -> Outcome:
        nonlocal saved
        so_far = outcome(asked.entrants, asked.results, asked.seed, asked.seeds)
        write_all(asked.folder, so_far, asked.command(), asked.left)
        saved = time.monotonic()
        return so_far

    try:
        with progress(CONSOLE, "transfer", asked.done, asked.wanted) as show:

            def watch(row: Result) -> None:
                best = max(
                    (result.accuracy for result in asked.results
                     if (result.data, result.stage) == (row.data, row.stage) and result.accuracy is not None),
                    default=None,
                )  # fmt: skip
                show(_came_of(row), "" if best is None else f"{row.data} {best:.4f}")
                if time.monotonic() - saved >= _SECONDS_BETWEEN_REPORTS:
                    save()

            for entrant in asked.entrants:
                left = Trainings(entrant.contenders, asked.results, asked.seed, asked.seeds, watch)
                if left.left:
                    run_jobs(left, asked.evaluators[entrant.name])
                    save()
    except KeyboardInterrupt:
        say("\nstopped; " + asked.kept("\n  "))
        if len(asked.results):
            save()
        raise
    return _conclude(asked, save())


def _came_of(row: Result) -> str:
    start = "" if row.start == "pretrained" else " from scratch"
    what = f"lr {row.lr:g}, weight decay {row.weight_decay:g}" if row.stage == "grid" else f"tested, seed {row.seed}"
    came = f"failed: {row.error}" if row.error is not None else f"accuracy {row.accuracy:.4f}"
    return f"{row.data} {row.model}{start}, {what}: {came}  {row.seconds:.3g} s"


def _conclude(asked: _Asked, so_far: Outcome) -> int:
    """Say what was found and where it is. Returns the exit code."""
    if CONSOLE.is_terminal:
        headings, *rows = table(so_far)
        shown = Table(title=f"accuracy on the test split, of {asked.seeds} seeds", title_justify="left")
        for heading in headings:
            shown.add_column(heading, no_wrap=True)
        for row in rows:
            shown.add_row(*row)
        CONSOLE.print(shown)
    else:  # a log has lines of any length
        say(table_text(so_far))
    for note in so_far.notes:
        say(f"note: {note}")
    folder = asked.folder
    say(
        f"written: {folder}/ with {FILE}, table.md, transfer.png, summary.json; in SET/NETWORK the fine-tuned weights\n"
        f"look at it: {folder}/report.html"
    )
    return 0 if so_far.complete else 1


if __name__ == "__main__":
    run(main)
