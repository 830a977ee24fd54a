"""The data sets on which EfficientNet was transferred, and what it reached: tables 5 and 6 of arXiv 1905.11946."""

from __future__ import annotations

from dataclasses import dataclass

from phinas.files.errors import InputError


@dataclass(frozen=True)
class Published:
    """A network's accuracy on a data set as table 5 prints it.

    accuracy  percent, on the test split.
    params    in millions, without the classifier; None where the table has none.
    ours      it is an EfficientNet.
    """

    name: str
    accuracy: float
    params: float | None
    ours: bool


@dataclass(frozen=True)
class Described:
    """A data set of table 6.

    train    images to learn from, those that its authors call validation included.
    test     images of the test split.
    home     where its authors publish it.
    splits   how their lists become those two.
    photos   images are of many sizes, rather than of one.
    label    the column of labels where a dataset hub has it as parquet.
    results  of table 5: by the best public network then and by an EfficientNet as good, by the best at all and by the
             best EfficientNet.
    """

    name: str
    title: str
    train: int
    test: int
    classes: int
    home: str
    splits: str
    results: tuple[Published, ...]
    photos: bool = True
    label: str = "label"

    def check_classes(self, found: int) -> None:
        """InputError where there are others: it is another data set."""
        if found != self.classes:
            raise InputError(
                f"sets.{self.name}: {found} classes, {self.title} has {self.classes}; "
                "data of your own go by another name"
            )

    def differences(self, train: int, test: int) -> str:
        """In how many images a copy of the data set differs from it, in words; empty where it does not."""
        parts = [
            f"{images:,} images to {use} instead of {wanted:,}"
            for use, images, wanted in (("learn from", train, self.train), ("test on", test, self.test))
            if images != wanted
        ]
        return " and ".join(parts)


_Printed = tuple[str, float, float | None]


def _results(public: _Printed, as_good: _Printed, best: _Printed, best_of_ours: _Printed) -> tuple[Published, ...]:
    printed = ((public, False), (as_good, True), (best, False), (best_of_ours, True))
    return tuple(Published(name, accuracy, params, ours) for (name, accuracy, params), ours in printed)


# Images as in table 6, but for the test split of the pets: printed are 3,369, in their authors' list are 3,669.
DESCRIBED = (
    Described(
        "cifar10", "CIFAR-10", 50_000, 10_000, 10,
        "https://www.cs.toronto.edu/~kriz/cifar.html", "its five training batches, and its test batch",
        _results(("NASNet-A", 98.0, 85), ("B0", 98.1, 4), ("GPipe", 99.0, 556), ("B7", 98.9, 64)), photos=False,
    ),
    Described(
        "cifar100", "CIFAR-100", 50_000, 10_000, 100,
        "https://www.cs.toronto.edu/~kriz/cifar.html", "its train and its test file, the fine labels",
        _results(("NASNet-A", 87.5, 85), ("B0", 88.1, 4), ("GPipe", 91.3, 556), ("B7", 91.7, 64)), photos=False,
        label="fine_label",
    ),
    Described(
        "birdsnap", "Birdsnap", 47_386, 2_443, 500,
        "https://thomasberg.org", "images.txt without, and with, those of test_images.txt",
        _results(("Inception-v4", 81.8, 41), ("B5", 82.0, 28), ("GPipe", 83.6, 556), ("B7", 84.3, 64)),
    ),
    Described(
        "cars", "Stanford Cars", 8_144, 8_041, 196,
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html", "its train and its test annotations",
        _results(("Inception-v4", 93.4, 41), ("B3", 93.6, 10), ("DAT", 94.8, None), ("B7", 94.7, None)),
    ),
    Described(
        "flowers", "Flowers", 2_040, 6_149, 102,
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102", "trnid with valid, and tstid, of setid.mat",
        _results(("Inception-v4", 98.5, 41), ("B5", 98.5, 28), ("DAT", 97.7, None), ("B7", 98.8, None)),
    ),
    Described(
        "aircraft", "FGVC Aircraft", 6_667, 3_333, 100,
        "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft",
        "images_variant_trainval.txt, and images_variant_test.txt",
        _results(("Inception-v4", 90.9, 41), ("B3", 90.7, 10), ("DAT", 92.9, None), ("B7", 92.9, None)),
    ),
    Described(
        "pets", "Oxford-IIIT Pets", 3_680, 3_669, 37,
        "https://www.robots.ox.ac.uk/~vgg/data/pets", "trainval.txt, and test.txt",
        _results(("ResNet-152", 94.5, 58), ("B4", 94.8, 17), ("GPipe", 95.9, 556), ("B6", 95.4, 41)),
    ),
    Described(
        "food101", "Food-101", 75_750, 25_250, 101,
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101", "train.txt, and test.txt",
        _results(("Inception-v4", 90.8, 41), ("B4", 91.5, 17), ("GPipe", 93.0, 556), ("B7", 93.0, 64)),
    ),
)  # fmt: skip


def described(name: str) -> Described | None:
    """The data set of this name; None where it is none of table 6."""
    return next((data_set for data_set in DESCRIBED if data_set.name == name), None)
