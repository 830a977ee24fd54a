"""The optimiser a recipe names, the learning rate of each of its steps, and which parameters decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from phinas.training.schedule import Cosine
from phinas.training.short.recipe import Recipe

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """The rate for `step` of `steps`, counted from 0: that of `schedule.Cosine`."""
    return Cosine(recipe.lr, steps, recipe.warmup)(step)


def decayed(module: nn.Module, biases: bool) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that are trained, as (with weight decay, without), each in the module's order.

    Scales and shifts of norms never decay: that would only pull towards a dead channel. Neither do other parameters of
    one axis, unless `biases`: tensorflow/tpu's EfficientNet decays everything but batch norm, so the biases of
    squeeze-excitation and of the classifier too.
    """
    of_norms = {
        parameter for layer in module.modules() if isinstance(layer, _NORMS) for parameter in layer.parameters()
    }
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []
    for parameter in module.parameters():
        if parameter.requires_grad:
            groups[parameter in of_norms or not (biases or parameter.ndim > 1)].append(parameter)
    return groups


def parameter_groups(module: nn.Module, weight_decay: float, biases: bool) -> list[dict[str, Any]]:
    """For an optimiser: those that decay, `biases` among them or not, and those that do not; none that is empty."""
    decays = zip(decayed(module, biases), (weight_decay, 0.0), strict=True)
    return [{"params": parameters, "weight_decay": decay} for parameters, decay in decays if parameters]


def optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the module's parameters, with weight decay on neither biases nor norms."""
    groups = parameter_groups(module, recipe.weight_decay, biases=False)
    if recipe.optimizer == "sgd":
        nesterov = recipe.momentum > 0
        return torch.optim.SGD(groups, recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=True)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, recipe.lr, betas=(recipe.momentum, 0.999), fused=True)
    # Fused RMSprop does not exist; foreach is PyTorch's default on GPUs and no gain on CPUs.
    return torch.optim.RMSprop(groups, recipe.lr, alpha=0.9, eps=1e-3, momentum=recipe.momentum)
