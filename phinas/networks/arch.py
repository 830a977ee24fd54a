"""`Arch`: the one description of a stage-wise ConvNet, which cost, builder, scaling, journal and report all read."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from phinas.networks.kinds import KINDS, Part

BLOCKS = tuple(KINDS)
SKIPS = ("identity", "pool", "projection", "none")
ACTIVATIONS = ("relu", "relu6", "silu", "hardswish")


@dataclass(frozen=True)
class Stem:
    """The first convolution, and for ResNets the 3x3 stride-2 max pooling behind it."""

    channels: int = 32
    kernel: int = 3
    stride: int = 2
    pool: bool = False

    def __post_init__(self) -> None:
        _check_count("stem.channels", self.channels)
        _check_kernel("stem.kernel", self.kernel)
        _check_count("stem.stride", self.stride)
        _check_bool("stem.pool", self.pool)


@dataclass(frozen=True)
class Stage:
    """`repeats` layers of one block; the first one strides and changes the channels.

    block       its kind, one of `BLOCKS`; `phinas.networks.kinds` spells them out.
    expand      mbconv: middle channels / block input channels; bottleneck: middle / output channels; otherwise 1.
    se_ratio    squeezed channels / block *input* channels (MnasNet's convention); 0 for none.
    skip        identity: where stride is 1 and the channels agree;
                pool: 3x3 average pooling at the block's stride, zero-padded to more channels (never to fewer);
                projection: identity, or 1x1 convolution and norm where the shape changes;
                none.
    """

    block: str
    kernel: int
    stride: int
    channels: int
    repeats: int
    expand: float = 1.0
    se_ratio: float = 0.0
    skip: str = "identity"

    def __post_init__(self) -> None:
        _check_choice("block", self.block, BLOCKS)
        _check_kernel("kernel", self.kernel)
        _check_count("stride", self.stride)
        _check_count("channels", self.channels)
        _check_count("repeats", self.repeats)
        _check_choice("skip", self.skip, SKIPS)
        _check_number("expand", self.expand)
        _check_number("se_ratio", self.se_ratio)
        object.__setattr__(self, "expand", float(self.expand))  # 6 and 6.0 are one network, with one key
        object.__setattr__(self, "se_ratio", float(self.se_ratio) + 0.0)  # -0.0 equals 0.0, and must have its key
        if self.expand <= 0:
            raise ValueError(f"expand must be above 0, got {self.expand}")
        kind = KINDS[self.block]
        if self.expand != 1 and not kind.middle_of:
            raise ValueError(f"expand must be 1 for block {self.block!r}, got {self.expand}")
        if not 0 <= self.se_ratio <= 1:
            raise ValueError(f"se_ratio must lie in [0, 1], got {self.se_ratio}")
        if self.se_ratio and not kind.squeezes:
            raise ValueError(f"se_ratio must be 0 for block {self.block!r}")

    def middle_channels(self, in_channels: int) -> int:
        """Channels in the middle of a block fed `in_channels`, for kinds that have a middle."""
        reference = in_channels if KINDS[self.block].middle_of == "inputs" else self.channels
        return max(1, round(self.expand * reference))

    def squeezed_channels(self, in_channels: int) -> int:
        """Channels between the two squeeze-excitation layers of a block fed `in_channels`; 0 without them."""
        return max(1, int(self.se_ratio * in_channels)) if self.se_ratio else 0

    def branch(self, inputs: int, stride: int) -> list[Part]:
        """The parts of a layer's branch in their order, fed `inputs` channels, striding by `stride`."""
        channels = {"inputs": inputs, "middle": self.middle_channels(inputs), "channels": self.channels}
        squeezed, fed = self.squeezed_channels(inputs), inputs
        parts: list[Part] = []
        for part in KINDS[self.block].branch:
            if isinstance(part, str):
                if squeezed:
                    parts.append((part, fed, fed, 1, 1, 1, False, squeezed))
            elif self.expand != 1 or not part.expanding:
                outputs, groups = channels[part.outputs], fed if part.depthwise else 1
                kernel, step = self.kernel if part.spatial else 1, stride if part.strided else 1
                parts.append((part.name, fed, outputs, kernel, step, groups, part.linear, 0))
                fed = outputs
        return parts

    @cached_property
    def _text(self) -> str:
        """What `Arch.key` hashes of it; kept, as spaces put the same few stages into all of their networks."""
        return _canonical({field.name: getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True)
class Arch:
    """One network, fully described and validated.

    resolution    side of the square input, pixels.
    head_channels channels of the 1x1 convolution before pooling; 0 for none (MobileNetV1, ResNet).
    dropout       rate before the classifier.
    drop_connect  rate of stochastic depth at the end of the network, rising linearly with the block index from 0.
    bn_momentum   weight of the newest batch in the running statistics (PyTorch's sense; TensorFlow's 0.99 is 0.01).
    Raises ValueError naming the field, its value and what is allowed.
    """

    stem: Stem
    stages: tuple[Stage, ...]
    head_channels: int = 1280
    activation: str = "silu"
    resolution: int = 224
    classes: int = 1000
    in_channels: int = 3
    dropout: float = 0.2
    drop_connect: float = 0.2
    bn_momentum: float = 0.01
    bn_eps: float = 1e-3

    def __post_init__(self) -> None:
        if not isinstance(self.stem, Stem):
            raise ValueError(f"stem must be a Stem, got {type(self.stem).__name__}")
        object.__setattr__(self, "stages", _checked(self.stages))
        if isinstance(self.head_channels, bool) or not isinstance(self.head_channels, int) or self.head_channels < 0:
            raise ValueError(f"head_channels must be a whole number, 0 or more, got {self.head_channels!r}")
        _check_choice("activation", self.activation, ACTIVATIONS)
        for name in ("resolution", "classes", "in_channels"):
            _check_count(name, getattr(self, name))
        for name in ("dropout", "drop_connect", "bn_momentum", "bn_eps"):
            value = getattr(self, name)
            _check_number(name, value)
            object.__setattr__(self, name, float(value) + 0.0)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {value}")

    @property
    def blocks(self) -> int:
        """Number of blocks: the sum of all repeats."""
        return sum(stage.repeats for stage in self.stages)

    def with_stages(self, stages: Sequence[Stage]) -> Arch:
        """This network with other stages. As dataclasses.replace, ten times as quick: all else is valid already."""
        arch = object.__new__(Arch)
        vars(arch).update(vars(self), stages=_checked(stages), _frame=self._frame)
        return arch

    def key(self) -> str:
        """Sixteen hex digits that stay the same for equal networks, over processes and releases.

        They hash what json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":")) writes, which is put together
        from parts here: controllers ask for the keys of thousands of networks.
        """
        before, after = self._frame
        text = f"{before}{','.join([stage._text for stage in self.stages])}{after}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def _frame(self) -> tuple[str, str]:
        """What `key` hashes before and after the stages; one for all that `with_stages` makes."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        before, after = _canonical({**values, "stem": vars(self.stem), "stages": []}).split("[]")
        return f"{before}[", f"]{after}"

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, as YAML and JSON hold them."""
        description = asdict(self)
        description["stages"] = list(description["stages"])
        return description

    @staticmethod
    def from_dict(description: Mapping[str, Any]) -> Arch:
        """The inverse of `to_dict`; ValueError names an unknown, missing or wrong field."""
        if not isinstance(description, Mapping):
            raise ValueError(f"a network is a mapping of fields, got {type(description).__name__}")
        values = dict(description)
        values["stem"] = _from_fields(Stem, values.get("stem"), "stem")
        stages = values.get("stages")
        if not isinstance(stages, (list, tuple)):
            raise ValueError("stages must be a list")
        values["stages"] = tuple(_from_fields(Stage, stage, f"stages[{i}]") for i, stage in enumerate(stages))
        arch: Arch = _from_fields(Arch, values, "network")
        return arch


def _from_fields(kind: type[Any], values: Any, where: str) -> Any:
    """Construct a dataclass from a mapping, with errors that say where they are."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be a mapping of fields, got {values!r}")
    allowed = [field.name for field in fields(kind)]
    for name in values:
        if name not in allowed:
            raise ValueError(f"{where}: unknown field {name!r}; allowed: {', '.join(allowed)}")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    except TypeError as error:  # a required field is missing; Python's message names it
        raise ValueError(f"{where}: {str(error).split('__init__() ')[-1]}") from None


# One encoder for all: json.dumps with these arguments makes a new one each time.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def _checked(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    stages = tuple(stages)
    if not stages or any([not isinstance(stage, Stage) for stage in stages]):
        raise ValueError("stages must be one or more Stage values")
    return stages


def _check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number, 1 or more, got {value!r}")
    if value >= 2**31:
        raise ValueError(f"{name} must be below 2^31, got {value!r}")


def _check_kernel(name: str, value: Any) -> None:
    _check_count(name, value)
    if value % 2 == 0:
        raise ValueError(f"{name} must be odd, got {value}")


def _check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{name} must be a finite number, got {value!r}")
