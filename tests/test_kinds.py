"""A new kind of block is written in one place: cost, memory, module, names and `model.py` follow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import phinas.networks.arch
from phinas.networks.arch import SKIPS, Arch, Stage, Stem
from phinas.networks.build import build
from phinas.networks.cost import cost
from phinas.networks.kinds import KINDS, SQUEEZE_EXCITE, Conv, Kind
from phinas.networks.memory import memory
from phinas.weights.checkpoints import as_ours, to_timm
from tests.test_cost import counted_by_hooks, counted_on_meta
from tests.test_memory import _kept_by_autograd, _peak_of_inference, _peak_of_training
from tests.test_standalone import check_equal

NEW = {
    # Of EfficientNetV2, arXiv 2104.00298.
    "fused": Kind(
        (
            Conv("expand", "middle", spatial=True, strided=True),
            SQUEEZE_EXCITE,
            Conv("project", "channels", linear=True),
        ),
        summary="Convolution that expands{}, linear projection",
        label="FusedMBConv{}",
        outline="fused{}",
        middle_of="inputs",
        timm=("conv_exp conv_pwl",),
    ),
    # Of ResNet-18, arXiv 1512.03385.
    "basic": Kind(
        (
            Conv("first", "channels", spatial=True, strided=True),
            Conv("second", "channels", spatial=True, linear=True),
        ),
        summary="Two convolutions{}",
        label="Basic",
        outline="basic",
        activated=True,
    ),
}


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in NEW.items():
        monkeypatch.setitem(KINDS, name, kind)
    monkeypatch.setattr(phinas.networks.arch, "BLOCKS", tuple(KINDS))


def networks() -> Iterator[Arch]:
    """New kinds alone and among others, with every shortcut."""
    for skip in SKIPS:
        fused = Stage("fused", 3, 1, 12, 2, expand=3, se_ratio=0.25, skip=skip)
        basic = Stage("basic", 5, 2, 16, 2, skip=skip)
        for stages in (
            (fused,),
            (basic,),
            (fused, Stage("mbconv", 3, 2, 12, 1), basic, Stage("bottleneck", 3, 1, 8, 1)),
        ):
            yield Arch(Stem(8), stages, head_channels=16, activation="relu", resolution=20, classes=5)


def test_what_a_new_kind_costs_is_what_its_module_has() -> None:
    for arch in networks():
        assert cost(arch) == counted_by_hooks(arch) == counted_on_meta(arch)


def test_the_memory_of_a_new_kind_is_what_its_module_takes() -> None:
    for arch in networks():
        assert memory(arch, 2).activations == _kept_by_autograd(arch, 2, "cpu")
        # Batch norms in evaluation mode may put out statistics of no use, a few hundred bytes.
        assert memory(arch, 2, "infer").total == pytest.approx(_peak_of_inference(arch, 2), abs=500)
        peak = _peak_of_training(arch, 2, device="cpu")
        assert memory(arch, 2, optimiser="sgd", ema=False).total == pytest.approx(peak, abs=500)


def test_the_file_of_a_new_kind_is_its_module_to_the_bit() -> None:
    for arch in networks():
        check_equal(arch)


def test_weights_of_a_new_kind_have_the_names_of_its_parts_and_timms() -> None:
    fused = Stage("fused", 3, 2, 12, 2, expand=3, se_ratio=0.25)
    arch = Arch(Stem(8), (fused,), head_channels=16, resolution=20, classes=5, bn_eps=1e-5)
    state = build(arch).state_dict()
    parts = {name.split(".")[4] for name in state if name.startswith("stages.0.0.branch")}
    assert parts == {"expand", SQUEEZE_EXCITE, "project"}
    theirs = to_timm(arch, state)
    assert {"blocks.0.1.conv_exp.weight", "blocks.0.1.bn2.bias", "blocks.0.1.se.conv_reduce.bias"} <= set(theirs)
    assert all(torch.equal(tensor, state[name]) for name, tensor in as_ours(arch, theirs).items())


def test_a_new_kind_allows_what_its_parts_do() -> None:
    with pytest.raises(ValueError, match="expand must be 1 for block 'basic', got 2"):
        Stage("basic", 3, 1, 8, 1, expand=2)
    with pytest.raises(ValueError, match="se_ratio must be 0 for block 'basic'"):
        Stage("basic", 3, 1, 8, 1, se_ratio=0.5)
