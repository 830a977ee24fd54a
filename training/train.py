"""`python -m training.train model=efficientnet_b0 data=... recipe=fast`: train one network to the end."""

from __future__ import annotations

import json
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from torch import nn

from conf.command import configuration, construct, plain, run
from conf.console import CONSOLE, command_line, say
from conf.progress import duration_text, progress
from conf.run_folder import locked, run_folder, write_config, write_json
from convnets.arch import Arch
from convnets.arch_file import write_arch
from convnets.atomic_file import write_atomically
from convnets.build import ConvNet, build
from convnets.checkpoints import as_ours, read_tensors, save_weights
from convnets.checks import check_number, check_whole
from convnets.cost import cost, macs_text
from convnets.errors import InputError
from convnets.named import named
from convnets.origin import file_source
from convnets.out_of_memory import out_of_memory
from convnets.settings import flatten
from training import checkpoint, metrics
from training.batches import Batches
from training.fit import Score, Training, evaluate, fit, fitting_parts
from training.full_recipe import FullRecipe
from training.loggers import Log, LoggedRun, check_loggers, logging
from training.loop import Diverged, device
from training.metrics import read_metrics, write_metrics
from training.source import Scored, Source
from training.splits import source, takes

# What may change between the runs of one training: how it is kept and shown, and by which parts it is computed.
_FREE_TO_CHANGE = ("name", "data", "checkpoint_seconds", "loggers")  # the data is known by its hash
_FREE_OF_RECIPE = ("accumulate", "compile")
_SMALL_IMAGES = 64  # pixels below which a stem keeps them all
_MANY_CLASSES = 1000  # from which on the classifier's initialiser starts at a loss near log(classes)
_SECONDS_BETWEEN_REPORTS = 60
WEIGHTS = "weights.safetensors"


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit code; raises InputError for what the user can mend."""
    config, names = configuration("training.train", "train", arguments)
    given = plain(config)
    seed = check_whole("seed", given["seed"], least=0)
    every = check_number("checkpoint_seconds", given["checkpoint_seconds"], least=0)
    loggers = check_loggers(given["loggers"])
    folder = run_folder(given["name"])

    # Everything is checked before anything is written.
    recipe: FullRecipe = construct(config, "recipe")
    model = named("model", str(given["model"]))
    data = _source(config, given)
    arch = _fitted(model, data, recipe, given)
    weights = None if given["from"] is None else _weights(str(given["from"]), arch, recipe)
    settings = _settings(given, arch, data, weights)
    state = _state_before(folder, settings)
    module = _built(arch, seed, weights)
    if state is not None:
        checkpoint.check_same_network(state["module"], module.state_dict(), f"{folder}/checkpoints")
    where = device()
    batches = data.batches(recipe, seed, arch.resolution, where)
    held_out = data.held_out(recipe, arch.resolution, where)
    training = Training(module, recipe, batches.steps, where)
    if state is not None:
        training.load_state_dict(state)
    asked = _Asked(folder, given, names, tuple(arguments), model, arch, recipe, data, settings, weights)

    _introduce(asked, batches, training)
    with locked(folder):
        if not asked.finished:
            write_config(folder, config)
            logged = LoggedRun(folder, flatten(given), training.step)
            try:
                with logging(loggers, logged, say) as log:
                    _train(asked, training, batches, held_out, seed, every, log)
                    _finish(asked, training, batches, held_out, log)
            except Diverged as error:
                say(f"failed: {error}; a lower recipe.lr= may help, under another name=")
                return 1
        return _conclude(asked)


@dataclass(frozen=True)
class _Weights:
    """What to start from."""

    source: Mapping[str, str]
    state: Mapping[str, torch.Tensor]
    new_head: bool


@dataclass(frozen=True)
class _Asked:
    """What the user asked for, and what that comes to."""

    folder: Path
    given: Mapping[str, Any]
    names: Mapping[str, str]
    arguments: Sequence[str]
    model: Arch  # as it was named
    arch: Arch  # as it is trained
    recipe: FullRecipe
    data: Source
    settings: Mapping[str, Any]
    weights: _Weights | None

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def finished(self) -> bool:
        return (self.folder / "summary.json").exists()

    @property
    def command(self) -> str:
        """The command line that resumes this run."""
        return command_line("training.train", self.arguments, name=self.folder.name)

    @property
    def export(self) -> str:
        """The command line that carries the trained network away."""
        model, weights = self.folder / "model.yaml", self.folder / WEIGHTS
        return f"python -m convnets.generate baseline={model} phi=0 export=all weights={weights}"


# ------------------------------------------------------------------------------------------------- before the training


def _source(config: Any, given: Mapping[str, Any]) -> Source:
    """What is trained on, held out, and tested on."""
    target, settings = str(given["data"]["_target_"]), dict(given["data"])
    fraction = check_number("data.val_fraction", settings["val_fraction"], above=0, below=1)
    if not takes(target, "val_fraction"):  # a loader of the user's own that knows what to hold out
        del config["data"]["val_fraction"], settings["val_fraction"]
    del settings["_target_"]
    return source(target, settings, fraction, lambda: construct(config, "data"))


def _fitted(model: Arch, data: Source, recipe: FullRecipe, given: Mapping[str, Any]) -> Arch:
    """The network as it is trained: its sides, channels and classes are the data's."""
    own = model.resolution if data.size is None else max(data.size)
    if given["resolution"] is not None:
        resolution = check_whole("resolution", given["resolution"])
    else:
        resolution = model.resolution if recipe.enlarge else min(own, model.resolution)
    if given["stem_stride"] is not None:
        stride = check_whole("stem_stride", given["stem_stride"])
    else:
        stride = 1 if resolution < _SMALL_IMAGES else model.stem.stride
    return replace(
        model,
        stem=replace(model.stem, stride=stride),
        resolution=resolution,
        in_channels=data.channels,
        classes=len(data.classes),
        dropout=model.dropout if recipe.dropout is None else recipe.dropout,
        drop_connect=model.drop_connect if recipe.drop_connect is None else recipe.drop_connect,
    )


def _weights(text: str, arch: Arch, recipe: FullRecipe) -> _Weights:
    """What is in the file, or in the folder of a run, under our names; without a head of other classes."""
    path = Path(text) / WEIGHTS if Path(text).is_dir() else Path(text)
    tensors = read_tensors(path)
    heads = [tensors[name] for name in ("classifier.weight", "classifier.1.weight", "fc.weight") if name in tensors]
    classes = len(heads[0]) if heads and heads[0].ndim else arch.classes
    if classes != arch.classes and not recipe.new_head:
        raise InputError(
            f"from={text}: it has {classes} classes, the data {arch.classes}; recipe=finetune gives a new head"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state = as_ours(replace(arch, classes=classes), tensors, f"from={text}")
    for one in caught:
        say(f"warning: {one.message}")
    new_head = classes != arch.classes
    if new_head:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    return _Weights(file_source(path), state, new_head)


def _built(arch: Arch, seed: int, weights: _Weights | None) -> ConvNet:
    module = build(arch, seed)
    if arch.classes < _MANY_CLASSES:  # the initialiser, 1 / sqrt(classes), starts 10 classes at a loss of 6
        nn.init.zeros_(module.classifier.weight)
    if weights is not None:
        module.load_state_dict(weights.state, strict=not weights.new_head)
    return module


def _settings(given: Mapping[str, Any], arch: Arch, data: Source, weights: _Weights | None) -> dict[str, Any]:
    """What must agree between two runs of one training."""
    kept = {name: value for name, value in given.items() if name not in _FREE_TO_CHANGE}
    kept["recipe"] = {name: value for name, value in given["recipe"].items() if name not in _FREE_OF_RECIPE}
    return {
        **kept,
        "network": arch.key(),
        "weights": None if weights is None else weights.source["sha256"],
        "data_hash": data.hash,
        "classes": list(data.classes),
        "flip": data.flip,
    }


def _state_before(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where the run in the folder stands; None where it has not begun.

    Raises InputError where the folder is another command's, or of a training with other settings.
    """
    checkpoints = folder / "checkpoints"
    before = checkpoint.settings_of(checkpoints)
    config = folder / "config.yaml"
    if before is None:
        ours = not config.exists() or "recipe" in (yaml.safe_load(config.read_text()) or {})
        if not ours or (folder / "summary.json").exists():
            what = "results without their checkpoints" if ours else "another command's results"
            raise InputError(f"name={folder.name}: {folder} holds {what}; give another name=")
        return None
    for option, value in flatten(settings).items():
        earlier = flatten(before).get(option)
        if earlier != value:
            raise InputError(
                f"name={folder.name}: {folder} was trained with {option}={earlier}, not {value}; give another name="
            )
    return checkpoint.load_newest(checkpoints, say)


def _introduce(asked: _Asked, batches: Batches, training: Training) -> None:
    """Say what is about to happen."""
    model, arch, data, recipe = asked.model, asked.arch, asked.data, asked.recipe
    costs = cost(arch)
    changed = [
        f"{name} {before} -> {after}"
        for name, before, after in (
            ("resolution", model.resolution, arch.resolution),
            ("stem stride", model.stem.stride, arch.stem.stride),
            ("classes", model.classes, arch.classes),
            ("channels", model.in_channels, arch.in_channels),
        )
        if before != after
    ]
    say(
        f"{asked.given['model']}: {macs_text(costs.macs)}, {costs.params:,} parameters at {arch.resolution} px"
        + (f"; fitted to the data: {', '.join(changed)}" if changed else "")
    )
    if asked.weights is not None:
        head = ", with a new head" if asked.weights.new_head else ""
        say(f"from {asked.weights.source['file']}{head}")
    test = "no test split" if data.test_count is None else f"{data.test_count:,} for the test at the end"
    say(
        f"{data.train_count:,} images to train on, {data.held_out_count:,} held out, {test}; "
        f"recipe {asked.names['recipe']}: {recipe.epochs} epochs of {batches.steps} steps of {batches.size}"
    )
    if training.step:
        say(f"{asked.folder}: going on after step {training.step:,} of {recipe.epochs * batches.steps:,}")


# --------------------------------------------------------------------------------------------------------- the training


def _train(
    asked: _Asked,
    training: Training,
    batches: Batches,
    held_out: Scored,
    seed: int,
    checkpoint_seconds: float,
    log: Log,
) -> None:
    """Train to the end, saving on the way. Raises KeyboardInterrupt, with everything saved, when told to stop."""
    folder, recipe = asked.folder, asked.recipe
    history = [one for one in read_metrics(folder / metrics.FILE) if one.number <= training.epochs]
    total, saved, shown = recipe.epochs * batches.steps, time.monotonic(), time.monotonic()
    forward = torch.compile(training.module) if recipe.compile else None

    def save(accuracy: float | None = None) -> None:
        nonlocal saved
        training.check_finite()
        checkpoint.save(asked.checkpoints, training.state_dict(), asked.settings, accuracy)
        saved = time.monotonic()

    by_step = CONSOLE.is_terminal  # a log has a line an epoch
    done, of = (training.step, total) if by_step else (training.epochs, recipe.epochs)
    with (
        _stopping() as told_to_stop,
        progress(CONSOLE, "steps" if by_step else "epochs", done, of) as show,
    ):

        def after_step() -> None:
            if by_step:
                show("", _best(training))
            if told_to_stop():
                save()
                say(f"\nstopped after step {training.step:,} of {total:,}; going on:\n  {asked.command}")
                raise KeyboardInterrupt
            if time.monotonic() - saved >= checkpoint_seconds:
                save()

        epochs = fit(training, batches, held_out, recipe, seed, after_step, forward)
        with _own_failures(asked, training, batches):
            for epoch in epochs:
                history.append(epoch)
                # Before the checkpoint: rows that it does not know of are dropped, but a missing one would stay so.
                write_metrics(folder / metrics.FILE, history)
                save(epoch.score.accuracy)
                log(epoch.step, {name: value for name, value in metrics.row(epoch).items() if name != "step"})
                if time.monotonic() - shown >= _SECONDS_BETWEEN_REPORTS:
                    _write_report(asked, training, None)
                    shown = time.monotonic()
                if not by_step:
                    text = f"loss {epoch.train_loss:.4f}  held out {epoch.score.accuracy:.4f}"
                    show(text, _best(training))


def _best(training: Training) -> str:
    return f"{training.best:.4f}" if training.epochs else ""


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C or SIGTERM only makes the yielded function true; the second stops at once."""
    told = False

    def listen(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told:
            raise KeyboardInterrupt
        told = True

    before = {number: signal.signal(number, listen) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _own_failures(asked: _Asked, training: Training, batches: Batches) -> Iterator[None]:
    """Too little memory inside, as InputError with what would fit."""
    try:
        yield
        return
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    training.optimizer.zero_grad(set_to_none=True)  # and the exception is gone, with what it held
    parts = fitting_parts(training.module, batches, asked.recipe)
    help = "no accumulate helps" if parts is None else f"recipe.accumulate={parts} would fit"
    raise InputError(
        f"out of memory at recipe.batch_size={batches.size} and {asked.arch.resolution} px; {help}"
    ) from None


# --------------------------------------------------------------------------------------------------- after the training


def _finish(asked: _Asked, training: Training, batches: Batches, held_out: Scored, log: Log) -> None:
    """Write what is kept, and test it once."""
    folder, recipe = asked.folder, asked.recipe
    if recipe.patience is not None:
        training.load_state_dict(checkpoint.load_best(asked.checkpoints))
    module = training.scored(batches.calibration)
    kept = _write_network(asked, module)
    score = evaluate(module, held_out, recipe.bfloat16)
    test = None
    if asked.data.test_count is not None:
        tested = asked.data.test(recipe, asked.arch.resolution, training.where)
        test = evaluate(module, tested, recipe.bfloat16)
        log(training.step, {f"test_{name}": value for name, value in asdict(test).items()})
    # One write, by which the run is finished: the test split is not looked at again.
    write_json(folder / "summary.json", _summary(asked, training, score, test, kept))
    _write_report(asked, training, test)


def _conclude(asked: _Asked) -> int:
    """Say what came of it."""
    folder = asked.folder
    summary = json.loads((folder / "summary.json").read_text())
    test = summary["test"]
    accuracy = "no test split" if test is None else f"test accuracy {test['accuracy']:.4f} (top 5: {test['top5']:.4f})"
    say(
        f"{accuracy}; held out {summary['held_out']['accuracy']:.4f} after epoch {summary['epoch']}, "
        f"{duration_text(summary['seconds'])} of training\n"
        f"written: {folder}/ with {WEIGHTS}, model.yaml, metrics.csv, summary.json, checkpoints\n"
        f"look at it: {folder}/report.html\n"
        f"carry it away:\n  {asked.export}"
    )
    return 0


def _write_network(asked: _Asked, module: nn.Module) -> dict[str, str]:
    """The weights, and the network as an `Arch`; each says what it takes to use them. Returns the weights' origin."""
    mean, std = asked.data.mean.tolist(), asked.data.std.tolist()
    about: dict[str, Any] = {
        "made_by": "training.train",
        "run": asked.folder.name,
        "model": str(asked.given["model"]),
        "key": asked.arch.key(),
        "recipe": asked.names["recipe"],
        "data": asked.names["data"],
        "mean": mean,  # of the pixels, from 0 to 255
        "std": std,
        "evaluation_crop": asked.recipe.evaluated_share(asked.arch.resolution),
        "class_names": list(asked.data.classes),
    }
    path = asked.folder / WEIGHTS
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
    save_weights(module.state_dict(), path, texts)
    source = file_source(path)
    write_arch(asked.arch, asked.folder / "model.yaml", {**about, "weights": {**source, "file": WEIGHTS}})
    return source


def _summary(
    asked: _Asked, training: Training, score: Score, test: Score | None, weights: Mapping[str, str]
) -> dict[str, Any]:
    costs = cost(asked.arch)
    return {
        "model": str(asked.given["model"]),
        "key": asked.arch.key(),
        "macs": costs.macs,
        "params": costs.params,
        "resolution": asked.arch.resolution,
        "classes": asked.arch.classes,
        "recipe": asked.names["recipe"],
        "data": asked.names["data"],
        "images": {
            "train": asked.data.train_count,
            "held_out": asked.data.held_out_count,
            "test": asked.data.test_count,
        },
        "seed": asked.given["seed"],
        "from": None if asked.weights is None else dict(asked.weights.source),
        "epoch": training.epochs,
        "steps": training.step,
        "seconds": round(training.seconds, 1),
        "held_out": asdict(score),
        "test": None if test is None else asdict(test),
        "weights": dict(weights),
    }


def _write_report(asked: _Asked, training: Training, test: Score | None) -> None:
    """`report.html`, of a run that may go on."""
    from training.train_report import training_report  # with matplotlib, which takes a second

    folder, recipe, costs = asked.folder, asked.recipe, cost(asked.arch)
    history = read_metrics(folder / metrics.FILE)
    best = max(history, key=lambda one: (one.score.accuracy, one.number))
    facts = [("test accuracy", f"{test.accuracy:.2%}")] if test else []
    facts += [
        (f"best on the images held out, epoch {best.number}", f"{best.score.accuracy:.2%}"),
        (f"at {asked.arch.resolution} px", macs_text(costs.macs)),
        ("parameters", f"{costs.params:,}"),
        (f"{len(history)} epochs, {history[-1].step:,} steps", duration_text(history[-1].seconds)),
    ]
    data = asked.data
    text = training_report(
        folder.name,
        (folder / "config.yaml").read_text(),
        history,
        title=f"{asked.given['model']} trained by recipe {asked.names['recipe']} on {asked.names['data']}",
        unfinished="" if asked.finished else f"{len(history)} of {recipe.epochs} epochs so far",
        facts=facts,
        images=f"{data.train_count:,} images to train on, {data.held_out_count:,} held out, "
        + ("no test split." if data.test_count is None else f"{data.test_count:,} looked at once, at the end."),
        caption="Losses are cross-entropies in nats, that of training with label smoothing and of augmented images. "
        "Accuracy is that of the network that is kept"
        + ("." if recipe.average is None else ": of the average of the weights."),
        commands=[asked.export] if asked.finished else [asked.command],
    )
    write_atomically(folder / "report.html", text)


if __name__ == "__main__":
    run(main)
