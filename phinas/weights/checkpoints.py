"""Weights on disk, and the names they have in other libraries: torchvision's and timm's.

A state dict of ours has the names of `phinas.networks`. Those of other libraries are told apart by their names, and
their tensors are the same but for squeeze-excitation: 1x1 convolutions [out, in, 1, 1] there, linear layers [out, in]
here. Networks that a layout has names for, all with identity shortcuts wherever shapes allow:

    torchvision  mbconv throughout, with squeeze-excitation and SiLU (EfficientNet) or without and ReLU6 (MobileNetV2);
                 bottlenecks (ResNet)
    timm         mbconv, separable and plain convolutions in any order (EfficientNet, MnasNet, MobileNetV2); bottlenecks

Weights are not all of a network, and what they were trained with does not stand in them:

- The constant of batch norms, `bn_eps`. torchvision's B0 to B4 and timm's own weights have 1e-5, torchvision's B5 to B7
  and timm's `tf_` weights 1e-3. Reading warns where the Arch's is another, as far as the names tell.
- The padding. timm's `tf_` weights, NoisyStudent and AdvProp among them, expect the odd pixel of strided convolutions
  on the other side. They can be read, and fine-tuned; but as they are, they are less accurate here than in timm, and
  no field of an Arch mends that. torchvision pads as we do, with its B5 to B7 too.
- What was done to images: mean and standard deviation, crop, interpolation. The page of the weights says it.
"""

from __future__ import annotations

import json
import os
import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from phinas.files.atomic_file import write_atomically
from phinas.files.errors import InputError
from phinas.networks.arch import Arch, Stage
from phinas.networks.build import build
from phinas.networks.kinds import KINDS, SQUEEZE_EXCITE
from phinas.networks.reference import efficientnet

State = dict[str, Tensor]

# Under which name files that hold more than a state dict have it, and what wrappers put before each of its names.
_WITHIN = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)  # of parameters, and of counters


def load_weights(path: str | os.PathLike[str], arch: Arch) -> State:
    """The state dict in a .safetensors, .pt, .pth or .bin file, under our names, on the CPU, in the file's precision.

    Nothing in the file is executed (`weights_only`). Warns as `as_ours`.
    Raises InputError, one line, for a file that is missing or damaged or holds other weights than this network's.
    """
    return as_ours(arch, read_tensors(path), os.fspath(path))


def save_weights(state: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    """Write `path`, a .safetensors file, whole or not at all; equal tensors and metadata make equal bytes.

    The metadata stand as JSON under the one name "about": of several names, the library writes the order at random.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    about = json.dumps({name: str(text) for name, text in metadata.items()})
    write_atomically(Path(path), safetensors.torch.save(tensors, {"about": about}))


def to_torchvision(arch: Arch, state: Mapping[str, Tensor]) -> State:
    """Our `state` under torchvision's names; InputError where torchvision has no such network."""
    return _to(arch, state, "torchvision")


def to_timm(arch: Arch, state: Mapping[str, Tensor]) -> State:
    """Our `state` under timm's names; InputError where timm has no such network."""
    return _to(arch, state, "timm")


def as_ours(arch: Arch, state: Mapping[str, Tensor], source: str = "the state dict") -> State:
    """`state` under our names, whosever it has now; `source` is what messages call it.

    Counters of batches, which only cumulative statistics need, may be missing and become 0. Warns where the weights go
    with another `bn_eps`. Raises InputError where `state` does not fit `arch`, above all in the number of classes.
    """
    layout = _layout(state, source)
    try:
        theirs = _names(arch, layout)
    except InputError as error:
        raise InputError(f"{source}: names as in {layout}, but {error}") from None
    with torch.device("meta"):
        ours = build(arch).state_dict()
    wanted = {_renamed(name, theirs): name for name in ours}
    classes = state.get(_renamed("classifier.weight", theirs))
    if classes is not None and classes.dim() == 2 and len(classes) != arch.classes:
        raise InputError(f"{source}: {len(classes)} classes, the network has {arch.classes}")
    missing = [name for name in wanted if name not in state and not name.endswith(_COUNTER)]
    unexpected = [name for name in state if name not in wanted and not name.endswith(_COUNTER)]
    if missing or unexpected:
        faults = " and ".join(
            f"{_some(names)} {verb}" for names, verb in ((missing, "missing"), (unexpected, "unexpected")) if names
        )
        raise InputError(f"{source}: not the weights of this network: {faults}")
    under_our_names = {}
    for name, mine in wanted.items():
        tensor = state.get(name, torch.zeros((), dtype=torch.int64))
        if tensor.shape == (*ours[mine].shape, 1, 1):
            tensor = tensor.flatten(1)
        if tensor.shape != ours[mine].shape:
            shapes = f"{list(tensor.shape)}, the network's is {list(ours[mine].shape)}"
            raise InputError(f"{source}: not the weights of this network: {name} is {shapes}")
        under_our_names[mine] = tensor
    if caution := _caution(arch, layout):
        warnings.warn(f"{source}: {caution}", stacklevel=3)
    return under_our_names


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """InputError, naming `source` and the parameter, where a number is not finite."""
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise InputError(f"{source}: {name} holds numbers that are not finite")


def read_tensors(path: str | os.PathLike[str]) -> State:
    """The tensors in the file by their names there; InputError `path: what is wrong` in one line."""
    path = Path(path)
    if path.suffix not in (".safetensors", ".pt", ".pth", ".bin"):
        raise InputError(f"{path}: weights are read from .safetensors, .pt, .pth and .bin files")
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    try:
        if path.suffix == ".safetensors":
            return _dense(safetensors.torch.load_file(path), path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how others pickled
            content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        if "unsupported global" not in str(error).lower():
            raise InputError(f"{path}: damaged, or no file of torch.save") from None
        raise InputError(f"{path}: holds more than tensors, which might run code; save its state dict alone") from None
    except Exception as error:  # readers of damaged files raise whatever their parts do
        raise InputError(f"{path}: damaged, or of another format ({type(error).__name__})") from None
    return _dense(_unwrapped(content, path), path)


def _dense(state: State, path: Path) -> State:
    """The tensors; InputError for a tensor that is sparse, nested, quantised, complex or without content."""
    for name, tensor in state.items():
        if tensor.is_nested or tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in _DTYPES:
            raise InputError(f"{path}: {name} is no dense tensor of real numbers of 16, 32 or 64 bits")
    return state


def _unwrapped(content: Any, path: Path) -> State:
    """The state dict within what training programs save."""
    while isinstance(content, Mapping) and (
        within := [name for name in _WITHIN if isinstance(content.get(name), Mapping)]
    ):
        content = content[within[0]]
    if not isinstance(content, Mapping) or not content or not all(isinstance(one, Tensor) for one in content.values()):
        raise InputError(f"{path}: holds no state dict, alone or under {', '.join(_WITHIN)}")
    state = {str(name): tensor for name, tensor in content.items()}
    for prefix in _PREFIXES * 2:  # in either order
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


# --- names -----------------------------------------------------------------------------------------------------------
# A layout's function gives (our module, their module) for every module that has parameters.

_COUNTER = "num_batches_tracked"
_Pairs = Iterator[tuple[str, str]]


def _layout(state: Mapping[str, Tensor], source: str) -> str:
    """Whose names these are."""
    for first, layout in (
        ("stem.conv.weight", "ours"),
        ("features.0.0.weight", "torchvision"),
        ("conv1.weight", "torchvision"),
        ("conv_stem.weight", "timm"),
    ):
        if first in state:
            return layout
    raise InputError(f"{source}: names neither ours, nor torchvision's, nor timm's: {_some(list(state))}")


def _names(arch: Arch, layout: str) -> dict[str, str]:
    """Our modules -> the layout's, for `arch`; InputError where it has no such network."""
    if layout == "ours":
        return {}
    kinds = {stage.block for stage in arch.stages}
    if kinds == {"bottleneck"}:
        if not arch.stem.pool or arch.head_channels:
            raise InputError(f"{layout}'s networks of bottlenecks have pooling in the stem and no head")
        _check_shortcuts(arch, layout, "projection")
        return dict(_resnet(arch))
    if arch.stem.pool or not arch.head_channels:
        raise InputError(f"{layout}'s networks of other blocks than bottlenecks have a head and no pooling in the stem")
    _check_shortcuts(arch, layout, "identity")
    if layout == "timm":
        if odd := [stage.block for stage in arch.stages if not KINDS[stage.block].timm]:
            raise InputError(f"timm has no network with {odd[0]} blocks among others")
        if any(stage.block == "conv" and stage.se_ratio for stage in arch.stages):
            raise InputError("timm has no conv blocks with squeeze-excitation")
        return dict(_timm(arch))
    squeezed = {stage.se_ratio > 0 for stage in arch.stages}
    if kinds == {"mbconv"} and squeezed == {True} and arch.activation == "silu":
        return dict(_torchvision_efficientnet(arch))
    if kinds == {"mbconv"} and squeezed == {False} and arch.activation == "relu6":
        return dict(_torchvision_mobilenet(arch))
    raise InputError(
        "torchvision's are of mbconv throughout, all with squeeze-excitation and silu, or without and relu6"
    )


def _check_shortcuts(arch: Arch, layout: str, skip: str) -> None:
    """That no layer adds anything else than with this `skip`."""
    for number, (stage, inputs) in enumerate(zip(arch.stages, _stage_inputs(arch), strict=True)):
        as_good = {skip}
        if stage.stride == 1 and inputs == stage.channels:
            as_good |= {"identity", "projection"}
        elif stage.repeats == 1 and skip == "identity":
            as_good.add("none")
        if stage.skip not in as_good:
            raise InputError(f"{layout} has no network like it: stages[{number}].skip is {stage.skip!r}")


def _torchvision_efficientnet(arch: Arch) -> _Pairs:
    yield from _conv_norm("stem", "features.0.0", "features.0.1")
    for number, stage in enumerate(arch.stages):
        for repeat in range(stage.repeats):
            ours, theirs = f"stages.{number}.{repeat}.branch", f"features.{number + 1}.{repeat}.block"
            parts = _parts(stage)
            for index, part in enumerate(parts):
                if part == SQUEEZE_EXCITE:
                    yield f"{ours}.{part}.reduce", f"{theirs}.{index}.fc1"
                    yield f"{ours}.{part}.expand", f"{theirs}.{index}.fc2"
                else:
                    yield from _conv_norm(f"{ours}.{part}", f"{theirs}.{index}.0", f"{theirs}.{index}.1")
    last = len(arch.stages) + 1
    yield from _conv_norm("head", f"features.{last}.0", f"features.{last}.1")
    yield "classifier", "classifier.1"


def _torchvision_mobilenet(arch: Arch) -> _Pairs:
    yield from _conv_norm("stem", "features.0.0", "features.0.1")
    block = 0
    for number, stage in enumerate(arch.stages):
        for repeat in range(stage.repeats):
            block += 1
            ours, theirs = f"stages.{number}.{repeat}.branch", f"features.{block}.conv"
            *before, last = _parts(stage)
            for index, part in enumerate(before):
                yield from _conv_norm(f"{ours}.{part}", f"{theirs}.{index}.0", f"{theirs}.{index}.1")
            yield from _conv_norm(f"{ours}.{last}", f"{theirs}.{len(before)}", f"{theirs}.{len(before) + 1}")
    yield from _conv_norm("head", f"features.{block + 1}.0", f"features.{block + 1}.1")
    yield "classifier", "classifier.1"


def _timm(arch: Arch) -> _Pairs:
    yield from _conv_norm("stem", "conv_stem", "bn1")
    for number, stage in enumerate(arch.stages):
        convolutions = [part for part in _parts(stage) if part != SQUEEZE_EXCITE]
        # An mbconv that does not expand is a block of another class there, with other names.
        names = next(names for text in KINDS[stage.block].timm if len(names := text.split()) == len(convolutions))
        for repeat in range(stage.repeats):
            ours, theirs = f"stages.{number}.{repeat}.branch", f"blocks.{number}.{repeat}"
            for norm, (part, name) in enumerate(zip(convolutions, names, strict=True), start=1):
                yield from _conv_norm(f"{ours}.{part}", f"{theirs}.{name}", f"{theirs}.bn{norm}")
            if stage.se_ratio:
                yield f"{ours}.{SQUEEZE_EXCITE}.reduce", f"{theirs}.se.conv_reduce"
                yield f"{ours}.{SQUEEZE_EXCITE}.expand", f"{theirs}.se.conv_expand"
    yield from _conv_norm("head", "conv_head", "bn2")
    yield "classifier", "classifier"


def _resnet(arch: Arch) -> _Pairs:
    """torchvision's names, which are timm's too."""
    yield from _conv_norm("stem", "conv1", "bn1")
    for number, (stage, inputs) in enumerate(zip(arch.stages, _stage_inputs(arch), strict=True)):
        for repeat in range(stage.repeats):
            ours, theirs = f"stages.{number}.{repeat}", f"layer{number + 1}.{repeat}"
            for index, part in enumerate(_parts(stage), start=1):
                yield from _conv_norm(f"{ours}.branch.{part}", f"{theirs}.conv{index}", f"{theirs}.bn{index}")
            if repeat == 0 and (stage.stride > 1 or inputs != stage.channels):
                yield from _conv_norm(f"{ours}.shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    yield "classifier", "fc"


def _conv_norm(ours: str, conv: str, norm: str) -> _Pairs:
    yield f"{ours}.conv", conv
    yield f"{ours}.norm", norm


def _parts(stage: Stage) -> list[str]:
    """The names of the parts of the stage's branches, in their order."""
    return [name for name, *_ in stage.branch(stage.channels, 1)]


def _stage_inputs(arch: Arch) -> list[int]:
    return [arch.stem.channels, *(stage.channels for stage in arch.stages[:-1])]


def _to(arch: Arch, state: Mapping[str, Tensor], layout: str) -> State:
    theirs = _names(arch, layout)
    linear = (f".{SQUEEZE_EXCITE}.reduce.weight", f".{SQUEEZE_EXCITE}.expand.weight")
    return {
        _renamed(name, theirs): tensor[:, :, None, None] if name.endswith(linear) else tensor
        for name, tensor in state.items()
    }


def _renamed(name: str, theirs: Mapping[str, str]) -> str:
    module, _, parameter = name.rpartition(".")
    return f"{theirs.get(module, module)}.{parameter}"


def _caution(arch: Arch, layout: str) -> str:
    """What the user has to know about weights with these names in this network; "" for nothing."""
    if layout == "ours":
        return ""
    if layout == "timm" and "bottleneck" not in {stage.block for stage in arch.stages}:
        if arch.bn_eps == 1e-5:
            return ""
        return (
            f"timm's own weights go with bn_eps 1e-05, its tf_ weights with 0.001 and another padding than ours "
            f"(less accurate here); the network has {arch.bn_eps:g}"
        )
    large = any(arch.stages == efficientnet(name).stages for name in ("b5", "b6", "b7"))
    trained = 1e-3 if large else 1e-5
    return (
        ""
        if arch.bn_eps == trained
        else f"{layout}'s weights go with bn_eps {trained:g}, the network has {arch.bn_eps:g}"
    )


def _some(names: list[str]) -> str:
    """The first names, and how many there are."""
    more = f", ... ({len(names)} in all)" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more
