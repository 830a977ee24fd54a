"""Networks that are no stage-wise ConvNets: a small cell graph (after NAS-Bench-201, arXiv 2001.00326) on the digits.

Three things plug into the search: `Cells` (the space), `Cell` (what it decodes to; counted by phinas, as it has no
`cost()` of its own) and `DigitsAccuracy` (how a network is measured).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from phinas.engines.evaluator import EvaluationFailed, Measurement
from search_spaces.space import Decision, Infeasible

OPERATIONS = ("none", "skip", "conv1x1", "conv3x3", "avgpool")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # node 0 is the cell's input, node 3 its output


class Cells:
    """One operation for each of the six edges: 5^6 combinations, fewer networks, as dead edges are all alike."""

    def __init__(self, channels: int = 8, cells: int = 2) -> None:
        self.channels, self.cells = channels, cells
        self.decisions = tuple(Decision(f"edge{a}{b}", OPERATIONS) for a, b in EDGES)

    def decode(self, choices: Mapping[str, Any]) -> Cell:
        operations = {(a, b): choices[f"edge{a}{b}"] for a, b in EDGES}
        fed, needed = {0}, {3}  # nodes that the input reaches, and nodes that reach the output
        for a, b in EDGES:  # in topological order
            if a in fed and operations[a, b] != "none":
                fed.add(b)
        for a, b in reversed(EDGES):
            if b in needed and operations[a, b] != "none":
                needed.add(a)
        if 3 not in fed:
            raise Infeasible("no path leads from the cell's input to its output")
        alive = tuple(operations[a, b] if a in fed and b in needed else "none" for a, b in EDGES)
        return Cell(alive, self.channels, self.cells)


@dataclass(frozen=True)
class Cell:
    """A stem, `cells` copies of the cell at doubling channels and halving sides, global average, classifier."""

    operations: tuple[str, ...]  # one for each of EDGES
    channels: int
    cells: int
    input_shape: ClassVar[tuple[int, int, int]] = (1, 8, 8)

    def key(self) -> str:
        return hashlib.sha256(repr((self.operations, self.channels, self.cells)).encode()).hexdigest()[:16]

    def build(self) -> nn.Module:
        channels = self.channels
        layers: list[nn.Module] = [_conv_norm(1, channels, 3)]
        for number in range(self.cells):
            if number:
                layers += [nn.ReLU(), _conv_norm(channels, 2 * channels, 3, stride=2)]
                channels *= 2
            layers.append(CellModule(self.operations, channels))
        return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


class CellModule(nn.Module):
    """Each node is the sum of its incoming edges; [batch, channels, height, width] in and out."""

    def __init__(self, operations: tuple[str, ...], channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict(
            {
                f"{a}{b}": _operation(operation, channels)
                for (a, b), operation in zip(EDGES, operations, strict=True)
                if operation != "none"
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        nodes = {0: x}
        for a, b in EDGES:
            if f"{a}{b}" in self.edges:
                y = self.edges[f"{a}{b}"](nodes[a])
                nodes[b] = nodes[b] + y if b in nodes else y
        return nodes[3]


class DigitsAccuracy:
    """Validation accuracy after `epochs` of training on scikit-learn's 8x8 digits: 1,077 to train, 360 to validate.

    The last 360 are never looked at here; they are for testing what was found.
    """

    def __init__(self, epochs: int = 5, batch: int = 32, learning_rate: float = 5e-3) -> None:
        self.epochs, self.batch, self.learning_rate = epochs, batch, learning_rate
        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.target))
        images = (digits.images[order, None] / 16).astype(np.float32)  # [n, 1, 8, 8] in [0, 1]
        labels = digits.target[order].astype(np.int64)
        self.train = images[:1077], labels[:1077]
        self.validation = images[1077:1437], labels[1077:1437]

    def __call__(self, network: Cell, seed: int) -> Iterator[Measurement]:
        images, labels = (torch.from_numpy(part) for part in self.train)
        val_images, val_labels = (torch.from_numpy(part) for part in self.validation)
        torch.manual_seed(seed)
        shuffles = torch.Generator().manual_seed(seed)
        net = network.build()
        steps = self.epochs * len(labels) // self.batch
        optimiser = torch.optim.AdamW(net.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for epoch in range(1, self.epochs + 1):
            net.train()
            order = torch.randperm(len(labels), generator=shuffles)
            for chosen in order[: len(order) // self.batch * self.batch].split(self.batch):
                loss = functional.cross_entropy(net(images[chosen]), labels[chosen])
                if not torch.isfinite(loss):
                    raise EvaluationFailed(f"diverged in epoch {epoch}")
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
            net.eval()
            with torch.no_grad():
                correct = (net(val_images).argmax(1) == val_labels).float().mean().item()
            yield Measurement(correct, final=epoch == self.epochs)


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def _operation(name: str, channels: int) -> nn.Module:
    if name == "skip":
        return nn.Identity()
    if name == "avgpool":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.Sequential(nn.ReLU(), _conv_norm(channels, channels, 1 if name == "conv1x1" else 3))
