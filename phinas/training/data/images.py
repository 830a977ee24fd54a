"""The loaders that `data=` names, each by the class that has its settings. Configurations of users name this module."""

from __future__ import annotations

from phinas.training.data.dataset import Dataset, Images
from phinas.training.data.digits import Digits
from phinas.training.data.image_folder import ImageFolder
from phinas.training.data.loader import Loader
from phinas.training.data.parquet import Parquet

__all__ = ["Dataset", "Images", "digits", "imagefolder", "parquet"]

digits = Loader(Digits)
parquet = Loader(Parquet)
imagefolder = Loader(ImageFolder)
