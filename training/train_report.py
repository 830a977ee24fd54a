"""The report of a training, one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from pages.page import drawing, render
from pages.style import BLUE, MUTED, ORANGE, styled
from training.fit import Epoch


def training_report(
    name: str,
    config_text: str,
    history: Sequence[Epoch],
    title: str,
    unfinished: str,
    facts: Sequence[tuple[str, str]],
    images: str,
    caption: str,
    commands: Sequence[str],
) -> str:
    """The whole report as one page that asks for no other file.

    history     the epochs so far, one or more.
    unfinished  how far it has come; empty where it is done.
    facts       what stands out, with its value.
    """
    return render(
        Path(__file__).with_name("train.html"),
        name,
        [],
        config_text,
        title=title,
        unfinished=unfinished,
        facts=facts,
        images=images,
        curves=drawing(_curves(history), "loss and accuracy by epoch"),
        caption=caption,
        commands=commands,
    )


def _curves(history: Sequence[Epoch]) -> Figure:
    """Loss and accuracy by epoch; points where there are too few epochs for a line."""
    epochs = [one.number for one in history]
    marker = "o" if len(epochs) < 3 else ""
    with styled((9.0, 3.4)) as figure:
        losses, accuracies = figure.subplots(1, 2)
        losses.set_title("Loss")
        losses.plot(epochs, [one.train_loss for one in history], MUTED, marker=marker, label="training")
        losses.plot(epochs, [one.score.loss for one in history], BLUE, marker=marker, label="held out")
        accuracies.set_title("Accuracy held out")
        accuracies.plot(epochs, [one.score.accuracy for one in history], BLUE, marker=marker, label="top 1")
        if any(one.score.top5 < 1 for one in history):
            accuracies.plot(epochs, [one.score.top5 for one in history], ORANGE, marker=marker, label="top 5")
        accuracies.yaxis.set_major_formatter("{x:.0%}")
        for axes in (losses, accuracies):
            axes.set_xlabel("epoch")
            axes.set_xlim(min(epochs) - 0.5 if len(epochs) < 3 else 1, max(epochs) + (0.5 if len(epochs) < 3 else 0))
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend()
    return figure
