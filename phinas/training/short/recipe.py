"""`Recipe`: everything about a training run but the network, the data and the seed."""

from __future__ import annotations

from dataclasses import dataclass

from phinas.files.checks import check_choice, check_number, check_whole
from phinas.files.errors import InputError

OPTIMIZERS = ("sgd", "rmsprop", "adamw")


@dataclass(frozen=True)
class Recipe:
    """How to train; InputError names the field, its value and what is allowed.

    epochs           passes over the training images; the last, incomplete batch of each is left out.
    batch_size       images per step; all of them if there are fewer.
    optimizer        sgd (Nesterov), rmsprop (decay 0.9, eps 1e-3) or adamw. EfficientNet's rmsprop has the same two
                     constants and is another: TensorFlow's adds eps under the root, starts the mean square at 1, and
                     folds the learning rate into the momentum buffer, so that its rates do not carry over.
    lr               learning rate at its peak; it is not scaled by the batch size.
    momentum         of sgd and rmsprop; beta1 of adamw.
    weight_decay     on convolution and linear weights, never on biases and norms; decoupled for adamw, else L2.
    warmup           share of all steps over which the learning rate rises linearly, before it falls to 0 as a cosine.
    label_smoothing  share of the target probability that is spread over all classes.
    translate        images are shifted by up to this share of their side, either way; black comes in.
    recalibrate      training images from which batch-norm statistics are averaged anew before scoring; 0: score with
                     the running averages, which a few dozen steps cannot bring near the truth at momentum 0.01. Not
                     1: a single image has no variance.
    """

    epochs: int = 3
    batch_size: int = 32
    optimizer: str = "sgd"
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-5
    warmup: float = 0.2
    label_smoothing: float = 0.1
    translate: float = 0.125
    recalibrate: int = 512

    def __post_init__(self) -> None:
        for name, fewest in (("epochs", 1), ("batch_size", 2), ("recalibrate", 0)):
            check_whole(name, getattr(self, name), fewest)
        if self.recalibrate == 1:
            raise InputError("recalibrate=1: it must be 0, or 2 images or more")
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_number("lr", self.lr, above=0)
        check_number("weight_decay", self.weight_decay, least=0)
        for name in ("momentum", "warmup", "label_smoothing", "translate"):
            check_number(name, getattr(self, name), least=0, below=1)
