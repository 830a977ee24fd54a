"""Compound scaling: depth, width and resolution grow together, each as a power of its own constant."""

from __future__ import annotations

import math
from dataclasses import dataclass

from phinas.files.checks import check_number
from phinas.networks.arch import Arch
from phinas.networks.scale import scale


@dataclass(frozen=True)
class Coefficients:
    """The constants of compound scaling (arXiv 1905.11946, equation 3): multipliers of one step, phi = 1.

    alpha  of the layers of each stage; beta: of all channels; gamma: of the side of the input. Each 1 or more.
    Raises InputError naming the constant that is not.
    """

    alpha: float
    beta: float
    gamma: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, check_number(name, value, least=1))

    @property
    def product(self) -> float:
        """What one step costs by the formula, alpha * beta^2 * gamma^2: the MACs of a convolution, without rounding."""
        return self.alpha * self.beta**2 * self.gamma**2

    @property
    def shares(self) -> tuple[float, float, float]:
        """How the growth of the cost divides among depth, width and resolution; the three sum to 1.

        Raises ZeroDivisionError where all three constants are 1: nothing grows.
        """
        whole = math.log(self.product)
        return math.log(self.alpha) / whole, 2 * math.log(self.beta) / whole, 2 * math.log(self.gamma) / whole

    @staticmethod
    def of_shares(depth: float, width: float, product: float = 2.0) -> Coefficients:
        """The constants with these shares of the growth to `product`; resolution takes the rest of 1."""
        rest = max(0.0, 1 - depth - width)
        return Coefficients(product**depth, product ** (width / 2), product ** (rest / 2))

    def __str__(self) -> str:
        return f"({self.alpha:.4g}, {self.beta:.4g}, {self.gamma:.4g})"


PAPER = Coefficients(1.2, 1.1, 1.15)  # what the authors' grid found for B0


def compound(arch: Arch, coefficients: Coefficients, phi: float, rounding: str = "official") -> Arch:
    """`arch` after `phi` steps: depth alpha^phi, width beta^phi, and the side of its input times gamma^phi.

    The side is rounded to whole pixels; `rounding` is that of the layers, as in `scale`. phi=0 is `arch` itself.
    """
    side = max(1, round(arch.resolution * coefficients.gamma**phi))
    return scale(arch, coefficients.alpha**phi, coefficients.beta**phi, side, rounding)
