"""How well a network does on images, in evaluation form, and its batch-norm statistics taken anew before that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from phinas.training.convolutions import fast_convolutions
from phinas.training.data.samples import Samples, part_size
from phinas.training.data.training_data import EvaluationData
from phinas.training.device import autocast
from phinas.training.own_failures import Diverged
from phinas.training.workers.worker_group import ONE_WORKER, WorkerGroup


@dataclass(frozen=True)
class Score:
    """How a network does on images held out: fractions in [0, 1], and the mean cross-entropy in nats.

    accuracy  the label's logit is the largest; of equal ones the first counts.
    top5      it is among the five largest; 1 for five classes or fewer.
    """

    accuracy: float
    top5: float
    loss: float


@torch.no_grad()
def evaluate(
    module: nn.Module, images: EvaluationData, bfloat16: bool | None = None, workers: WorkerGroup = ONE_WORKER
) -> Score:
    """`module`, in evaluation form, on all that the workers have to score.

    Raises Diverged where logits are not finite: the last step can break the weights after its loss was still a number.
    """
    module.eval()
    sums = torch.zeros(4, dtype=torch.float64)  # right, among the first five, loss, logits that are not finite
    with fast_convolutions(module):
        for part, labels in images:
            with autocast(labels.device, bfloat16):
                logits = module(part).float()
                right = logits.argmax(1) == labels
                among_five = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
                loss = functional.cross_entropy(logits, labels, reduction="sum")
            counts = [right.sum(), among_five.sum(), loss.double(), (~logits.isfinite()).sum()]
            sums = sums.to(labels.device) + torch.stack(counts)
    # Through the host's memory: a worker with no image to score has met no device.
    *sums_of_all, count = workers.sum(torch.cat([sums.cpu(), sums.new_tensor([len(images)], device="cpu")])).tolist()
    accuracy, top5, mean_loss, broken = (total / count for total in sums_of_all)
    if broken or not math.isfinite(mean_loss):
        raise Diverged("the trained network's logits are not finite")
    return Score(accuracy, top5, mean_loss)


@torch.no_grad()
def recalibrate(module: nn.Module, samples: Samples, bfloat16: bool | None = None) -> None:
    """Set batch-norm statistics to the plain average over batches of the samples, with today's weights.

    Training in batches never reads these statistics, so going on afterwards is not disturbed; dropout is off meanwhile.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's sign for a cumulative average
        norm.train()
    parts = max(1, round(len(samples) / part_size(*samples.pixels.shape[1:3])))
    with fast_convolutions(module), autocast(samples.pixels.device, bfloat16):
        for pixels in samples.pixels.tensor_split(parts):  # equal parts, as each counts the same in the average
            module(samples.normalised(pixels))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()
