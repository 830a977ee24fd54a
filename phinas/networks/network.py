"""What the search may evaluate: an `Arch`, or any value of the user's own that can be identified and built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from phinas.networks.arch import Arch
from phinas.networks.cost import Cost, cost

if TYPE_CHECKING:  # costs and keys are needed where torch is not
    from torch import nn


class CustomNetwork(Protocol):
    """A network of the user's own.

    May also have `cost() -> Cost` (otherwise it is built and counted on torch's meta device) and `input_shape`, the
    (channels, height, width) of one image there, by default (3, 224, 224).
    """

    def key(self) -> str:
        """Stays the same for equal networks, over processes and releases."""
        ...

    def build(self) -> nn.Module:
        """A freshly initialised module from images [batch, channels, height, width] to logits [batch, classes]."""
        ...


Network: TypeAlias = Arch | CustomNetwork


def cost_of(network: Network) -> Cost:
    """The cost of one forward pass of one image."""
    if isinstance(network, Arch):
        return cost(network)
    if hasattr(network, "cost"):
        return network.cost()  # type: ignore[no-any-return]
    return count(network.build, getattr(network, "input_shape", (3, 224, 224)))


def build_network(network: Network) -> nn.Module:
    """A freshly initialised module, from torch's global random generator."""
    if isinstance(network, Arch):
        from phinas.networks.build import build

        return build(network)
    return network.build()


def count(build: Any, input_shape: tuple[int, ...]) -> Cost:
    """Count what `build()` gives, in evaluation mode, for one image of `input_shape`; no memory is used for weights.

    macs is half of what torch's FlopCounterMode counts. activations are the outputs of all convolutions, the few of
    squeeze-excitation included.
    """
    import torch
    from torch.nn.modules.conv import _ConvNd
    from torch.utils.flop_counter import FlopCounterMode

    activations = 0

    def add(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal activations
        activations += output.numel()

    with torch.device("meta"):
        net = build().eval()
        image = torch.empty(1, *input_shape)
    for module in net.modules():
        if isinstance(module, _ConvNd):
            module.register_forward_hook(add)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net(image)
    return Cost(counter.get_total_flops() // 2, sum(p.numel() for p in net.parameters()), activations)
