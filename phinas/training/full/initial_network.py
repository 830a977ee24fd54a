"""What a training starts from: a network fitted to its data, and weights, perhaps without their classifier."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from phinas.networks.arch import Arch
from phinas.networks.build import ConvNet, build
from phinas.training.data.training_data import TrainingData
from phinas.training.full.recipe import FullRecipe
from phinas.weights.checkpoints import as_ours, check_finite, read_tensors

SMALL_IMAGES = 64  # pixels below which a stem keeps them all
_MANY_CLASSES = 1000  # from which on the classifier's initialiser starts at a loss near log(classes)
_HEADS = ("classifier.weight", "classifier.1.weight", "fc.weight")  # ours, and those of other libraries


def fitted_to_data(
    model: Arch, data: TrainingData, recipe: FullRecipe, resolution: int | None = None, stem_stride: int | None = None
) -> Arch:
    """The network as it is trained: its sides, channels and classes are the data's.

    resolution   None: the model's, or the images' own where the recipe enlarges none.
    stem_stride  None: 1 below 64 pixels, else the model's.
    """
    own = model.resolution if data.size is None else min(data.size)
    side = resolution or (model.resolution if recipe.enlarge else min(own, model.resolution))
    stride = stem_stride or (1 if side < SMALL_IMAGES else model.stem.stride)
    return replace(
        model,
        stem=replace(model.stem, stride=stride),
        resolution=side,
        in_channels=data.channels,
        classes=len(data.classes),
        dropout=model.dropout if recipe.dropout is None else recipe.dropout,
        drop_connect=model.drop_connect if recipe.drop_connect is None else recipe.drop_connect,
    )


def read_weights(path: Path, arch: Arch, source: str, say: Callable[[str], None]) -> tuple[dict[str, Tensor], int]:
    """The weights in the file under our names, and of how many classes they are, whatever `arch` has.

    source  what messages call it; `say` is told of cautions. Raises InputError where it is not of this network, or not
    finite.
    """
    tensors = read_tensors(path)
    heads = [tensors[name] for name in _HEADS if name in tensors]
    classes = len(heads[0]) if heads and heads[0].ndim else arch.classes
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state = as_ours(replace(arch, classes=classes), tensors, source)
    check_finite(state, source)
    for warning in caught:
        say(f"warning: {warning.message}")
    return state, classes


def below_head(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the classifier's."""
    return {name: tensor for name, tensor in weights.items() if not name.startswith("classifier.")}


def initial_network(arch: Arch, seed: int, weights: Mapping[str, Tensor] | None) -> ConvNet:
    """The network with fresh weights of the seed, and `weights` over them."""
    module = build(arch, seed)
    if arch.classes < _MANY_CLASSES:  # the initialiser, 1 / sqrt(classes), starts 10 classes at a loss of 6
        nn.init.zeros_(module.classifier.weight)
    if weights is not None:
        module.load_state_dict(weights, strict=False)
    return module
