"""RMSProp as TensorFlow computes it, with which MnasNet and EfficientNet were trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from phinas.files.checks import check_number

# Numbers that are updated by one call on a CPU: 256 KiB of each operand, which its cache keeps from operation to
# operation. On one core a step of B0 takes 12.3 ms like this, 11.3 tensor by tensor and 18.4 in one call for each
# operation; of a B0 of a quarter of the channels 2.1, 3.0 and 2.1. On a GPU launching kernels takes the time, hence no
# limit there.
_CPU_PART = 2**16


class TensorFlowRMSProp(torch.optim.Optimizer):
    """Gradients divided by their root mean square, with momentum; for each parameter p with gradient g,

        g <- g + weight_decay * p
        square <- decay * square + (1 - decay) * g * g, from 1
        velocity <- momentum * velocity + lr * g / sqrt(square + eps), from 0
        p <- p - velocity

    torch.optim.RMSprop differs in three places, so that learning rates do not carry over: its square starts at 0, which
    makes the first steps up to 1 / sqrt(1 - decay) times as long; its eps stands outside the root; and it multiplies by
    today's rate what its momentum gathered at the rates of earlier steps.

    lr            learning rate.
    decay         of the mean square.
    momentum      0 for none.
    eps           added to the mean square; 1e-3 is EfficientNet's.
    weight_decay  of an L2 penalty weight_decay / 2 * |p|^2 on the loss.

    Each can be set per group. Raises InputError for a value out of range, RuntimeError for sparse gradients. Sources:
    ApplyRMSProp of TensorFlow's training ops, models/official/efficientnet/utils.py of tensorflow/tpu.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        decay: float = 0.9,
        momentum: float = 0.9,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, dict(lr=lr, decay=decay, momentum=momentum, eps=eps, weight_decay=weight_decay))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As every optimiser's, by which the constructor's groups come in too."""
        group = {**self.defaults, **param_group}
        check_number("lr", group["lr"], least=0)
        check_number("decay", group["decay"], least=0, below=1)
        check_number("momentum", group["momentum"], least=0, below=1)
        check_number("eps", group["eps"], above=0)
        check_number("weight_decay", group["weight_decay"], least=0)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step along the gradients there are; a parameter without a gradient stays as it is, and so does its state.

        `closure` is called first, to compute the loss and its gradients; the loss is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in trained:
                if parameter.grad.is_sparse:
                    raise RuntimeError(f"a gradient of shape {list(parameter.shape)} is sparse; it must be dense")
                if not self.state[parameter]:
                    self.state[parameter].update(
                        square=torch.ones_like(parameter), velocity=torch.zeros_like(parameter)
                    )
            for part in _parts(trained):
                self._update(part, group)
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        squares = [self.state[parameter]["square"] for parameter in parameters]
        velocities = [self.state[parameter]["velocity"] for parameter in parameters]
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        torch._foreach_mul_(squares, group["decay"])
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - group["decay"])
        roots = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(roots)
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_addcdiv_(velocities, gradients, roots, value=group["lr"])
        torch._foreach_sub_(parameters, velocities)


def _parts(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours that are updated together: all on one device and, on a CPU, of few enough numbers or alone."""
    part: list[Tensor] = []
    numbers = 0
    for parameter in parameters:
        numbers += parameter.numel()
        too_many = parameter.device.type == "cpu" and numbers > _CPU_PART
        if part and (too_many or parameter.device != part[0].device):
            yield part
            part, numbers = [], parameter.numel()
        part.append(parameter)
    if part:
        yield part
