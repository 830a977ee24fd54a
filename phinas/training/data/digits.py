"""scikit-learn's handwritten digits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phinas.training.data.dataset import Dataset, Images
from phinas.training.data.loader import check_settings
from phinas.training.data.validation_split import hold_out

_CLASSES = tuple("0123456789")


@dataclass(frozen=True)
class Digits:
    """The 1,797 handwritten digits of 8x8 grey pixels that come with scikit-learn: no file, no download.

    A tenth is the test split, whatever the seed; `val_fraction` of the rest is held out for scoring.
    """

    val_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self.val_fraction, self.seed)

    def dataset(self) -> Dataset:
        train, val = hold_out(_digits()[0], self.val_fraction, self.seed, _CLASSES, "digits")
        return Dataset(train, val, _CLASSES)

    def test(self) -> Images:
        return _digits()[1]

    def streamed(self) -> None:
        """None: they are small."""


def _digits() -> tuple[Images, Images]:
    """All but the test split, and that."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # half a second to import

    bunch = load_digits()
    ink = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # 0-16 in the file
    return hold_out(Images(ink[..., None], bunch.target.astype(np.int64)), 0.1, 0, _CLASSES, "digits")
