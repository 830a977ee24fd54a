"""The report of a training, one HTML page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from phinas.command.progress import duration_text
from phinas.files.atomic_file import write_atomically
from phinas.networks.cost import cost
from phinas.pages.cost_text import macs_text
from phinas.pages.page import drawing, render
from phinas.pages.style import BLUE, MUTED, ORANGE, styled
from phinas.training.full import metrics
from phinas.training.full.metrics import read_metrics
from phinas.training.full.training_loop import Epoch
from phinas.training.full.training_run import TrainingRun


def write_report(what: TrainingRun, command: str) -> None:
    """`report.html`, of a run that is finished or may go on: one page that asks for no other file.

    command  what to type next. There are one or more epochs in its metrics.
    """
    folder, arch, data, about = what.folder, what.arch, what.data, what.about
    history, costs = read_metrics(folder / metrics.FILE), cost(arch)
    best = max(history, key=lambda epoch: (epoch.score.accuracy, epoch.number))
    finished = (folder / "summary.json").exists()
    test = json.loads((folder / "summary.json").read_text())["test"] if finished else None
    facts = [("test accuracy", f"{test['accuracy']:.2%}")] if test else []
    facts += [
        (f"best on the images held out, epoch {best.number}", f"{best.score.accuracy:.2%}"),
        (f"at {arch.resolution} px", macs_text(costs.macs)),
        ("parameters", f"{costs.params:,}"),
        (f"{len(history)} epochs, {history[-1].step:,} steps", duration_text(history[-1].seconds)),
    ]
    text = render(
        Path(__file__).with_name("report.html"),
        folder.name,
        [],
        (folder / "config.yaml").read_text(),
        title=f"{about['model']} trained by recipe {about['recipe']} on {about['data']}",
        unfinished="" if finished else f"{len(history)} of {what.recipe.epochs} epochs so far",
        facts=facts,
        images=f"{data.train_count:,} images to train on, {data.held_out_count:,} held out, "
        + ("no test split." if data.test_count is None else f"{data.test_count:,} looked at once, at the end."),
        curves=drawing(curves(history), "loss and accuracy by epoch"),
        caption="Losses are cross-entropies in nats, that of training with label smoothing and of augmented images. "
        "Accuracy is that of the network that is kept"
        + ("." if what.recipe.average is None else ": of the average of the weights."),
        commands=[command],
    )
    write_atomically(folder / "report.html", text)


def curves(history: Sequence[Epoch]) -> Figure:
    """Loss and accuracy by epoch; points where there are too few epochs for a line."""
    epochs = [epoch.number for epoch in history]
    marker = "o" if len(epochs) < 3 else ""
    with styled((9.0, 3.4)) as figure:
        losses, accuracies = figure.subplots(1, 2)
        losses.set_title("Loss")
        losses.plot(epochs, [epoch.train_loss for epoch in history], MUTED, marker=marker, label="training")
        losses.plot(epochs, [epoch.score.loss for epoch in history], BLUE, marker=marker, label="held out")
        accuracies.set_title("Accuracy held out")
        accuracies.plot(epochs, [epoch.score.accuracy for epoch in history], BLUE, marker=marker, label="top 1")
        if any(epoch.score.top5 < 1 for epoch in history):
            accuracies.plot(epochs, [epoch.score.top5 for epoch in history], ORANGE, marker=marker, label="top 5")
        accuracies.yaxis.set_major_formatter("{x:.0%}")
        for axes in (losses, accuracies):
            axes.set_xlabel("epoch")
            axes.set_xlim(min(epochs) - 0.5 if len(epochs) < 3 else 1, max(epochs) + (0.5 if len(epochs) < 3 else 0))
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend()
    return figure
