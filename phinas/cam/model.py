"""Trained networks with what it takes to show them an image."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phinas.files.checks import check_number
from phinas.files.errors import InputError
from phinas.files.origin import file_source, read_origin
from phinas.networks.arch import Arch
from phinas.networks.build import ConvNet, build
from phinas.networks.named import named, short_name
from phinas.weights.checkpoints import check_finite, load_weights

_IMAGENET = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "evaluation_crop": 0.875}


@dataclass(frozen=True, eq=False)
class Trained:
    """A network that was trained, and how it wants its images.

    name         what it is called beside others.
    weights      the file that they are from, and its hash.
    mean, std    per channel, on the 0-255 scale.
    share        of an image's shorter side that it looks at.
    class_names  of its classes; their numbers where nobody wrote the names.
    """

    name: str
    arch: Arch
    module: ConvNet
    weights: Mapping[str, str]
    mean: Sequence[float]
    std: Sequence[float]
    share: float
    class_names: Sequence[str]

    def class_index(self, name: str) -> int:
        """InputError where it knows no such class."""
        if name not in self.class_names:
            shown = ", ".join(self.class_names[:10]) + (", ..." if len(self.class_names) > 10 else "")
            raise InputError(f"classes={name}: {self.name} has no such class; it has {shown}")
        return list(self.class_names).index(name)


def read_trained(text: str, say: Callable[[str], None]) -> Trained:
    """The network that `text` names, in one of three forms:

    FOLDER           of `phinas.train`.
    FILE.yaml        a network with weights of its own: such a run's model.yaml, or a member of an exported family.
    NETWORK:WEIGHTS  a published network's name or the YAML of one, and the file of its weights.

    Its YAML says how it was trained to see images; where it does not, as ImageNet's are seen. `say` is told of
    cautions. Raises InputError.
    """
    model, _, file = text.partition(":")
    path = Path(model)
    if path.is_dir():
        path = path / "model.yaml"
        if not path.exists():
            raise InputError(f"models={text}: no model.yaml in it; a folder must be that of a finished training")
    elif "/" in model and not file and not path.exists():
        allowed = "the folder of a training, FILE.yaml, or NETWORK:WEIGHTS"
        raise InputError(f"models={text}: there is no such folder or file; allowed: {allowed}")
    arch = named("models", str(path) if path.suffix else model)
    about = _about(path, say) if path.suffix in (".yaml", ".yml") else {}
    weights = Path(file) if file else _weights(path, about, text)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state = load_weights(weights, arch)
    for warning in caught:
        say(f"warning: {warning.message}")
    check_finite(state, str(weights))
    module = build(arch, seed=0)
    module.load_state_dict(state)
    seen = _seen(about, arch, text)
    names = about.get("class_names")
    if not isinstance(names, list) or len(names) != arch.classes:
        names = [str(number) for number in range(arch.classes)]
    name = short_name(str(path) if path.suffix else model)
    return Trained(
        name, arch, module.eval(), file_source(weights), seen["mean"], seen["std"], seen["evaluation_crop"],
        [str(class_name) for class_name in names],
    )  # fmt: skip


def _about(path: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """What the YAML says it was made from; how its baseline sees images, if it is a member of a family."""
    about = read_origin(path)
    baseline = about.get("baseline")
    if "mean" in about or not isinstance(baseline, dict) or "file" not in baseline:
        return about
    file = Path(str(baseline["file"]))
    if not file.is_file():
        say(f"warning: {path}: {file}, which may say how images are seen, is not there")
        return about
    return {**read_origin(file), **about}


def _weights(path: Path, about: Mapping[str, Any], text: str) -> Path:
    """The file beside the network's YAML."""
    of = about.get("weights")
    places = [path.parent / str(of["file"])] if isinstance(of, dict) and "file" in of else []
    places.append(path.with_suffix("") / "weights.safetensors")  # where phinas.generate exports them
    for place in places:
        if place.is_file():
            return place
    raise InputError(f"models={text}: it has no weights; give them as NETWORK:WEIGHTS, such as resnet50:resnet50.pth")


def _seen(about: Mapping[str, Any], arch: Arch, text: str) -> dict[str, Any]:
    if "mean" not in about:
        if arch.in_channels != 3:
            raise InputError(f"models={text}: nothing says mean and std of its images; give the folder of its training")
        return _IMAGENET
    seen: dict[str, Any] = {}
    for name in ("mean", "std"):
        values = about.get(name)
        if not isinstance(values, list) or len(values) != arch.in_channels:
            raise InputError(f"models={text}: {name} {json.dumps(values)} are not of {arch.in_channels} channels")
        seen[name] = [check_number(f"{text} {name}", value) for value in values]
    seen["evaluation_crop"] = check_number(f"{text} evaluation_crop", about.get("evaluation_crop", 1.0), above=0)
    return seen
