"""Accel-NASBench (Ahmad et al., 2024): 5,138 networks of our efficientnet space trained on ImageNet, and their speed.

A predictor fitted to them stands in for training, and another one for measuring on an accelerator.
"""

from __future__ import annotations

import hashlib
import json
import math
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.evaluators.boosted_trees import BoostedTrees, Floats, Integers, Quality, load_or_fit
from nas.evaluators.published import published_file, with_noise
from phinas.engines.evaluator import Measurement
from phinas.files.checks import check_choice, check_number
from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.network import Network
from search_spaces.efficientnet import SE_RATIOS, EfficientNet
from search_spaces.space import Decision, Picks, decode

ADDRESS = "https://github.com/afzalxo/Accel-NASBench (anb_dataset/anb_dataset_jsons.tar.gz)"
# Device -> its quantities, by our names, and the fields of the archive that hold them.
DEVICES: dict[str, dict[str, str]] = {
    "a100": {"throughput": "throughput_a100"},
    "rtx3090": {"throughput": "throughput_3090"},
    "tpuv2": {"throughput": "throughput_tpuv2"},
    "tpuv3": {"throughput": "throughput_tpuv3"},
    "zcu102": {"throughput": "throughput_zcu102", "latency": "latency_zcu102"},
    "vck190": {"throughput": "throughput_vck190", "latency": "latency_vck190"},
}
RESULTS = 5138  # in the archive; from a part of it, a worse predictor would be learned
_SPACE = EfficientNet()
_CHOICES = max(len(decision.choices) for decision in _SPACE.decisions)
_FIELDS = {"expand": "e", "kernel": "k", "layers": "l", "se": "se"}  # of a decision's name, and in the archive


@dataclass(frozen=True)
class Archive:
    """The published results, one row per trained network; 13 networks are there twice.

    picks         [networks, 28], in the space EfficientNet().
    top1          validation accuracy on ImageNet, in percent.
    macs, params  in millions, as the archive counts them: its MACs add 4 for each element that a batch norm puts out,
                  and height * width + 1 for each channel that is pooled.
    speed         field -> values: throughput in images per second, latency in milliseconds; NaN where the measurement
                  failed.
    """

    picks: Integers
    top1: Floats
    macs: Floats
    params: Floats
    speed: Mapping[str, Floats]


class AccelNASBench:
    """Predicted ImageNet top-1 of any network of space=efficientnet.

    path   the published archive, or the folder that it unpacks to.
    noise  standard deviation, in points of accuracy, of Gaussian noise drawn from the evaluation's seed: real trainings
           differ by about 0.27 points from seed to seed.

    The first use of an archive fits the predictor, prints its quality and keeps it on disk (see boosted_trees.py);
    later uses load it in milliseconds.
    Raises InputError for a path or a setting that is wrong.
    """

    def __init__(self, path: str | Path | None, noise: float = 0.0) -> None:
        self.noise = check_number("evaluator.noise", noise, least=0)
        results = _Results("evaluator.path", path)
        self._path, self._trees = results.path, results.top1()

    @property
    def quality(self) -> Quality:
        """How well the accuracies of held-out networks are predicted; the error is in points."""
        return self._trees.quality

    def check(self, network: Network) -> None:
        """InputError for a network that is not in space=efficientnet."""
        _picks(network, "evaluator=accel_nasbench")

    def accuracies(self, picks: npt.ArrayLike) -> Floats:
        """Predicted accuracies without noise, fractions [networks], for picks [networks, 28] of EfficientNet()."""
        return np.clip(self._trees.predict(np.asarray(picks)) / 100, 0.0, 1.0)

    def expected(self, network: Network) -> float:
        """The predicted accuracy without noise. Raises InputError for a network of another space."""
        [accuracy] = self.accuracies([_picks(network, "evaluator=accel_nasbench")])
        return float(accuracy)

    def trained(self) -> Iterator[tuple[Network, float]]:
        """The networks of the archive with the accuracies that their trainings came to, fractions."""
        archive = read_archive(self._path)
        for picks, top1 in zip(archive.picks.tolist(), archive.top1.tolist(), strict=True):
            yield decode(_SPACE, picks), top1 / 100

    def __call__(self, network: Network, seed: int) -> Iterator[Measurement]:
        """Yield the one measurement. Raises InputError for a network of another space."""
        yield Measurement(with_noise(self.expected(network), self.noise, seed))


class AccelNASBenchDevice:
    """A device model: predicted speed of any network of space=efficientnet on one of the archive's accelerators.

    path    as of the evaluator.
    device  a100, rtx3090, tpuv2, tpuv3, or one of the FPGAs zcu102 and vck190.
    Fitted and kept like the evaluator's predictor, for this device only. `quality` has a Quality for each quantity,
    of its natural logarithm: an error of 0.01 is 1%.
    Raises InputError for a path or a device that is wrong.
    """

    def __init__(self, path: str | Path | None, device: str = "a100") -> None:
        check_choice("device.device", device, DEVICES)
        results = _Results("device.path", path)
        self._trees = {name: results.speed(field) for name, field in DEVICES[device].items()}

    @property
    def quality(self) -> dict[str, Quality]:
        """How well held-out networks are predicted: quantity -> Quality of its logarithm."""
        return {name: trees.quality for name, trees in self._trees.items()}

    def costs(self, network: Network) -> dict[str, float]:
        """`throughput` in images per second; on the FPGAs also `latency`, seconds of one image.

        Raises InputError for a network of another space.
        """
        picks = [_picks(network, "device=accel_nasbench")]
        return {name: float(values[0]) for name, values in self.all_costs(picks).items()}

    def all_costs(self, picks: npt.ArrayLike) -> dict[str, Floats]:
        """As `costs`, arrays [networks] for picks [networks, 28] of EfficientNet()."""
        unit = {"throughput": 1.0, "latency": 1e-3}  # the archive's latencies are in milliseconds
        return {name: unit[name] * np.exp(trees.predict(np.asarray(picks))) for name, trees in self._trees.items()}


def read_archive(path: str | Path) -> Archive:
    """The results in the published archive, or in the folder that it unpacks to.

    Raises InputError naming the file and what is wrong with it.
    """
    path = Path(path)
    contents = _files(path) if path.is_dir() else _members(path)
    if len(contents) != RESULTS:
        raise InputError(f"{path}: {len(contents):,} files result_*.json in it, not the {RESULTS:,} of {ADDRESS}")
    picks, top1, macs, params, speeds = zip(
        *(_row(path, name, contents[name]) for name in sorted(contents)), strict=True
    )
    speed = {field: np.array([row[field] for row in speeds]) for field in speeds[0]}
    return Archive(np.array(picks), np.array(top1), np.array(macs), np.array(params), speed)


# --- predictors ------------------------------------------------------------------------------------------------------


class _Results:
    """The archive at a path that the user gave; it is read only where a predictor has to be fitted."""

    def __init__(self, setting: str, path: str | Path | None) -> None:
        self.path = published_file(setting, path, "the archive of Accel-NASBench", ADDRESS)
        self._hash = _hash(self.path)
        self._archive: Archive | None = None

    def top1(self) -> BoostedTrees:
        """The predictor of top-1, in percent."""

        def read() -> tuple[Integers, Floats]:
            archive = self._read()
            return archive.picks, archive.top1

        trees, new = load_or_fit("accel_nasbench-top1", self._hash, _CHOICES, read)
        if new:
            _say("ImageNet top-1", trees.quality, f"{trees.quality.error:.2f} points")
        return trees

    def speed(self, field: str) -> BoostedTrees:
        """The predictor of the logarithm of a field of `Archive.speed`."""

        def read() -> tuple[Integers, Floats]:
            archive = self._read()
            known = ~np.isnan(archive.speed[field])
            return archive.picks[known], np.log(archive.speed[field][known])

        trees, new = load_or_fit(f"accel_nasbench-{field}", self._hash, _CHOICES, read)
        if new:
            _say(field.replace("_", " on "), trees.quality, f"{100 * trees.quality.error:.1f}%")
        return trees

    def _read(self) -> Archive:
        if self._archive is None:
            self._archive = read_archive(self.path)
        return self._archive


def _say(what: str, quality: Quality, error: str) -> None:
    print(
        f"fitted {what} to {quality.networks:,} networks of Accel-NASBench; on held-out ones R2 {quality.r2:.4f}, "
        f"Kendall tau {quality.tau:.4f}, mean error {error}",
        flush=True,
    )


def _picks(network: Network, asker: str) -> Picks:
    """The picks of a network in EfficientNet(). Raises InputError for any other network."""
    if isinstance(network, Arch):
        chosen = [
            value for stage in network.stages for value in (stage.expand, stage.kernel, stage.repeats, stage.se_ratio)
        ]
        try:
            picks = tuple(d.choices.index(value) for d, value in zip(_SPACE.decisions, chosen, strict=True))
        except ValueError:  # a choice that the space lacks, or another number of stages
            picks = None
        if picks is not None and decode(_SPACE, picks) == network:
            return picks
    raise InputError(f"{asker} knows the networks of space=efficientnet only, with 224 pixels and 1000 classes")


# --- reading ---------------------------------------------------------------------------------------------------------


def _hash(path: Path) -> str:
    """Of the archive, or of the results in the folder."""
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            for name, content in sorted(_files(path).items()):
                digest.update(f"{name} {len(content)}\n".encode() + content)
        else:
            digest.update(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return digest.hexdigest()


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.rglob("result_*.json")}


def _members(path: Path) -> dict[str, bytes]:
    contents = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if fnmatch(Path(member.name).name, "result_*.json") else None
                if file is not None:
                    contents[Path(member.name).name] = file.read()
            while archive.fileobj is not None and archive.fileobj.read(1 << 20):  # to its end, where gzip has the CRC
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError):
        raise InputError(f"{path}: not a whole .tar.gz archive; it is published at {ADDRESS}") from None
    return contents


def _row(path: Path, name: str, content: bytes) -> tuple[Picks, float, float, float, dict[str, float]]:
    """Picks, top-1, MACs, parameters and speeds of one trained network."""
    try:
        result = json.loads(content)
        architecture, speeds = result["architecture"], result["platform_perf"]
        picks = tuple(_pick(decision, architecture) for decision in _SPACE.decisions)
        speed = {
            field: _measured(speeds[field][f"{quantity}_mean"])
            for fields in DEVICES.values()
            for quantity, field in fields.items()
        }
        info = result["model_info"]
        top1, macs, params = (float(value) for value in (result["metrics"]["val_top1"], info["macs"], info["params"]))
        if not 0 <= top1 <= 100:
            raise ValueError(f"val_top1={top1}")
    except KeyError as error:
        raise InputError(f"{path}: {name} has no {error}; the archive is published at {ADDRESS}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {name}: {error}; the archive is published at {ADDRESS}") from None
    return picks, top1, macs, params, speed


def _pick(decision: Decision, architecture: Mapping[str, Any]) -> int:
    """The decision `block5.layers` is the field `block5_l`."""
    block, _, kind = decision.name.partition(".")
    field = f"{block}_{_FIELDS[kind]}"
    value = architecture[field]
    value = SE_RATIOS[value] if kind == "se" else value  # false or true
    if value not in decision.choices:
        raise ValueError(f"{field}={value} is not in space=efficientnet")
    return decision.choices.index(value)


def _measured(value: float | None) -> float:
    """A few measurements failed and are recorded as 0 or below."""
    return float(value) if value is not None and value > 0 else math.nan
