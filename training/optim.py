"""The optimiser a recipe names, and the learning rate of each of its steps."""

from __future__ import annotations

import math

import torch
from torch import nn

from training.recipe import Recipe


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """The rate for `step` of `steps`, counted from 0: a pure function, so that a resumed run needs no schedule state.

    With w = round(warmup * steps): lr * (step + 1) / w while step < w, then lr * (1 + cos(pi * t)) / 2 where t rises
    from 0 at step w towards 1 at step `steps`, which is never taken.
    """
    warmup = round(recipe.warmup * steps)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    return recipe.lr * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the module's parameters, with weight decay on those of two axes or more.

    What has one axis is a bias or a norm's scale and shift, which decay would only pull towards a dead channel.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        nesterov = recipe.momentum > 0
        return torch.optim.SGD(groups, recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=True)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, recipe.lr, betas=(recipe.momentum, 0.999), fused=True)
    # Fused RMSprop does not exist; foreach is PyTorch's default on GPUs and no gain on CPUs.
    return torch.optim.RMSprop(groups, recipe.lr, alpha=0.9, eps=1e-3, momentum=recipe.momentum)
