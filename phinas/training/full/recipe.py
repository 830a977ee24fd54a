"""`FullRecipe`: how a network is trained to the end; the `Recipe` of a search's candidates is in `training/short`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from phinas.files.checks import check_flag, check_number, check_whole
from phinas.files.errors import InputError
from phinas.training.augment.crops import padded
from phinas.training.optim import parameter_groups
from phinas.training.schedule import Cosine, Schedule, Staircase, scaled

FIXED = "fixed"  # an evaluation crop that leaves out 32 pixels whatever the resolution

# Settings of optimisers and schedules that a training makes itself, and of what.
_GIVEN = {
    "lr": "recipe.lr",
    "weight_decay": "recipe.weight_decay",
    "peak": "recipe.lr",
    "steps_per_epoch": "the data",
    "steps": "recipe.epochs",
}


class Policy(Protocol):
    """What is done to images but moving them, drawn apart from being applied; as in `training/augment/policies.py`."""

    def draw(self, count: int, generator: torch.Generator) -> Any:
        """The draws of `count` images; one slice of them belongs to the same slice of the images."""

    def apply(self, pixels: Tensor, draws: Any) -> Tensor:
        """uint8 [n, side, side, channels] -> the same, changed."""


def staircase(
    peak: float, steps_per_epoch: int, steps: int, warmup: float = 5.0, factor: float = 0.97, every: float = 2.4
) -> Schedule:
    """`schedule.Staircase`; `warmup` and `every` are epochs."""
    return Staircase(peak, steps_per_epoch, warmup, factor, every)


def cosine(peak: float, steps_per_epoch: int, steps: int, warmup: float = 0.1) -> Schedule:
    """`schedule.Cosine`; `warmup` is a share of all steps."""
    return Cosine(peak, steps, warmup)


@dataclass(frozen=True)
class FullRecipe:
    """How to train; InputError names the field, its value and what is allowed.

    epochs            passes over the training images; the last, incomplete batch of each is left out.
    batch_size        images per step; all of them if there are fewer.
    lr                learning rate at its peak for 256 images a step; in proportion for others.
    optimizer         (parameter groups, lr=...) -> optimiser, such as functools.partial(torch.optim.SGD, momentum=0.9).
    schedule          (peak, steps_per_epoch, steps) -> the rate of each step: `staircase` or `cosine`, or a partial.
    weight_decay      on weights, never on norms; an L2 penalty or decoupled, as the optimiser has it.
    decay_biases      on biases too.
    label_smoothing   share of the target probability that is spread over all classes.
    average           decay of the average of weights and batch-norm statistics that is scored and kept; null: none.
    dropout           before the classifier; None: the network's own.
    drop_connect      of its last block, rising linearly from 0 at the first; None: the network's own.
    crop              random crops of 8 to 100% of an image's area (Inception's); otherwise its central square.
    translate         the central square is shifted by up to this share of its side, either way; black comes in.
    policy            what else is done to images; None: nothing.
    evaluation_crop   share of the side that scoring looks at; "fixed": all but 32 pixels, side / (side + 32).
    enlarge           images smaller than the network's resolution are enlarged to it; otherwise it trains at theirs.
    early_side        share of the side at which the first epochs train, for speed.
    early_epochs      share of the epochs that do.
    recalibrate       training images from which batch-norm statistics are averaged anew before scoring; 0: none.
    patience          stop after so many epochs without a better score, and keep the best; None: train to the end.
    accumulate        parts a batch is computed in, for a batch that does not fit into memory; norms see a part.
    bfloat16          compute in it under autocast; None: on CUDA devices only.
    compile           by torch.compile.
    new_head          weights to start from may be of other classes; then the classifier starts anew.
    head_only         train nothing but the classifier; the rest is in evaluation form throughout.
    """

    epochs: int
    batch_size: int
    lr: float
    optimizer: Callable[..., torch.optim.Optimizer]
    schedule: Callable[..., Schedule]
    weight_decay: float = 0.0
    decay_biases: bool = False
    label_smoothing: float = 0.1
    average: float | None = 0.9999
    dropout: float | None = None
    drop_connect: float | None = None
    crop: bool = False
    translate: float = 0.0
    policy: Policy | None = None
    evaluation_crop: float | str = 1.0
    enlarge: bool = True
    early_side: float = 1.0
    early_epochs: float = 0.0
    recalibrate: int = 0
    patience: int | None = None
    accumulate: int = 1
    bfloat16: bool | None = None
    compile: bool = False
    new_head: bool = False
    head_only: bool = False

    def __post_init__(self) -> None:
        for name, fewest in (("epochs", 1), ("batch_size", 2), ("recalibrate", 0), ("accumulate", 1)):
            check_whole(f"recipe.{name}", getattr(self, name), fewest)
        if self.recalibrate == 1:
            raise InputError("recipe.recalibrate=1: it must be 0, or 2 images or more")
        if self.accumulate > self.batch_size // 2:
            raise InputError(f"recipe.accumulate={self.accumulate}: parts of a batch must have 2 images or more")
        if self.patience is not None:
            check_whole("recipe.patience", self.patience)
        check_number("recipe.lr", self.lr, above=0)
        check_number("recipe.weight_decay", self.weight_decay, least=0)
        for name in ("label_smoothing", "translate", "average", "dropout", "drop_connect"):
            if getattr(self, name) is not None or name in ("label_smoothing", "translate"):
                check_number(f"recipe.{name}", getattr(self, name), least=0, below=1)
        check_number("recipe.early_epochs", self.early_epochs, least=0, below=1)
        share: Any = 1.0 if self.evaluation_crop == FIXED else self.evaluation_crop
        for name, value in (("evaluation_crop", share), ("early_side", self.early_side)):
            if check_number(f"recipe.{name}", value, above=0) > 1:
                raise InputError(f"recipe.{name}={value}: it must be at most 1")
        for name in ("decay_biases", "crop", "enlarge", "compile", "new_head", "head_only", "bfloat16"):
            value = getattr(self, name)
            if name != "bfloat16" or value is not None:
                check_flag(f"recipe.{name}", value)
        if self.head_only and self.recalibrate:
            raise InputError(f"recipe.recalibrate={self.recalibrate}: with head_only it must be 0, as statistics stay")
        if self.crop and self.translate:
            raise InputError(f"recipe.crop=true and recipe.translate={self.translate}: give one of them")
        self._check_parts()

    def _check_parts(self) -> None:
        """InputError unless optimiser, schedule and policy can be made with the settings they were given."""
        groups = [{"params": [nn.Parameter(torch.zeros(1))], "weight_decay": 0.0}]
        calls: tuple[tuple[str, Any, tuple[Any, ...], Mapping[str, Any]], ...] = (
            ("optimizer", self.optimizer, (groups,), {"lr": 0.1}),
            ("schedule", self.schedule, (), {"peak": 0.1, "steps_per_epoch": 10, "steps": 10 * self.epochs}),
        )
        for name, make, positional, named in calls:
            if not callable(make):
                raise InputError(f"recipe.{name}={make}: it must be a YAML with _target_ and _partial_: true")
            for setting, value in getattr(make, "keywords", {}).items():  # of a partial; it would not be heard
                if setting in _GIVEN:
                    raise InputError(f"recipe.{name}.{setting}={value}: leave it out; {_GIVEN[setting]} gives it")
            try:
                make(*positional, **named)
            except InputError as error:
                raise InputError(f"recipe.{name}: {error}") from None
            except (TypeError, ValueError) as error:
                raise InputError(f"recipe.{name}: {' '.join(str(error).split())}") from None
        if self.policy is not None and not (hasattr(self.policy, "draw") and hasattr(self.policy, "apply")):
            raise InputError(
                f"recipe.policy={self.policy}: it must have draw and apply, as phinas.training.augment.policies' have"
            )

    def peak(self, batch: int) -> float:
        """The learning rate at its peak for `batch` images a step."""
        return scaled(self.lr, batch)

    def evaluated_share(self, side: int) -> float:
        """The share of an image's side that scoring at `side` pixels looks at."""
        return padded(side) if self.evaluation_crop == FIXED else float(self.evaluation_crop)

    def side(self, epoch: int, side: int) -> int:
        """Pixels at which `epoch`, counted from 1, trains, of `side` at the end."""
        early = epoch <= round(self.early_epochs * self.epochs)
        return max(1, round(self.early_side * side)) if early else side


def full_optimizer(module: nn.Module, recipe: FullRecipe) -> torch.optim.Optimizer:
    """The recipe's, over what of the module is trained, with weight decay on what the recipe lets decay."""
    return recipe.optimizer(parameter_groups(module, recipe.weight_decay, recipe.decay_biases), lr=recipe.lr)


def plain_sgd(epochs: int, batch_size: int, lr: float, **settings: Any) -> FullRecipe:
    """Nesterov's momentum of 0.9 with a cosine: the shortest way to a recipe from Python."""
    optimizer = partial(torch.optim.SGD, momentum=0.9, nesterov=True)
    return FullRecipe(epochs, batch_size, lr, optimizer, cosine, **settings)
