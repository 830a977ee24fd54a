"""Class activation maps (Zhou et al. 2016, arXiv 1512.04150): where in an image a network sees a class.

A network that ends in a global average and a linear classifier adds up its logit place by place: what the classifier
makes of the last features there, without its bias, is the map, and the mean of the map plus the bias is the logit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from phinas.networks.build import ConvNet
from phinas.training.augment.crops import Boxes, central_boxes, cut


@dataclass(frozen=True, eq=False)
class ActivationMaps:
    """Of n images: maps float32 [n, height, width] of the last features' size, in logits; of which classes int64 [n];
    and logits float32 [n, classes].
    """

    maps: Tensor
    classes: Tensor
    logits: Tensor

    @property
    def probabilities(self) -> Tensor:
        """Of the classes that the maps are of: float32 [n]."""
        return self.logits.softmax(1).gather(1, self.classes[:, None])[:, 0]


@torch.no_grad()
def activation_maps(module: ConvNet, images: Tensor, classes: Tensor | None = None) -> ActivationMaps:
    """The maps of `images` float32 [n, c, height, width], normalised; `module` is left in evaluation form.

    classes  int64 [n], whose maps; None: of each image that with the largest logit.
    """
    module.eval()
    features = module.head(module.stages(module.stem(images)))
    weight, bias = module.classifier.weight, module.classifier.bias
    logits = module.classifier(features.mean((2, 3)))
    chosen = logits.argmax(1) if classes is None else classes
    maps = torch.einsum("nkhw,nk->nhw", features, weight[chosen])
    assert bias is not None
    return ActivationMaps(maps, chosen, logits)


def looked_at(pixels: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """What scoring looks at of an image uint8 [height, width, c]: its central square, `share` of the shorter side."""
    box = _box(pixels, share)
    top, left, side = int(box.top), int(box.left), int(box.height)
    return pixels[top : top + side, left : left + side]


def prepared(pixels: NDArray[np.uint8], share: float, side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """An image uint8 [height, width, c] as scoring shows it: float32 [1, c, side, side], normalised.

    share      of its shorter side that is looked at.
    mean, std  of each channel, on the 0-255 scale.
    """
    seen = cut(torch.from_numpy(pixels[None]), _box(pixels, share), side).float()
    return seen.sub_(torch.tensor(mean)).div_(torch.tensor(std)).permute(0, 3, 1, 2)


def enlarged(maps: Tensor, side: int) -> Tensor:
    """Maps [n, height, width] at side x side pixels, bicubic."""
    return functional.interpolate(maps[:, None], (side, side), mode="bicubic")[:, 0]


def shaded(heat: Tensor) -> Tensor:
    """A map from its least, 0, to its most, 1; nothing but 0 where it is the same everywhere, but for rounding."""
    least, most = heat.min(), heat.max()
    if most - least <= 1e-5 * heat.abs().max():  # as of one place, enlarged: its last bits would look like a pattern
        return torch.zeros_like(heat)
    return (heat - least) / (most - least)


def _box(pixels: NDArray[np.uint8], share: float) -> Boxes:
    return central_boxes(torch.tensor([pixels.shape[:2]]), share)
