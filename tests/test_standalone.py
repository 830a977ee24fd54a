"""model.py: the same names, weights, outputs and gradients as ours to the bit, and formatted as people format."""

from __future__ import annotations

import ast
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from phinas.networks.arch import ACTIVATIONS, BLOCKS, SKIPS, Arch, Stage, Stem
from phinas.networks.build import build
from phinas.networks.reference import (
    EFFICIENTNET_B0,
    MNASNET_A1,
    MOBILENET_V1,
    MOBILENET_V2,
    NAMES,
    RESNET_50,
    reference,
)
from phinas.weights import model_template
from phinas.weights.standalone import TEMPLATE, class_name, standalone
from search_spaces.mnasnet import MnasNet
from search_spaces.space import decode, sample

PUBLISHED = (EFFICIENTNET_B0, MNASNET_A1, MOBILENET_V1, MOBILENET_V2, RESNET_50)
SHAPES = ((3, 1, 8), (5, 2, 12), (3, 2, 4))  # kernel, stride, channels, behind a stem of 8


def expand_and_ratio(block: str, expand: float = 3) -> tuple[float, float]:
    """What the block may have."""
    return {"mbconv": expand, "bottleneck": 0.5}.get(block, 1), 0 if block == "bottleneck" else 0.25


def single_stages(block: str) -> Iterator[Arch]:
    """Every skip and activation with this block: with and without pooling, head, dropout and drop-connect."""
    for skip in SKIPS:
        for activation in ACTIVATIONS:
            for number, (kernel, stride, channels) in enumerate(SHAPES):
                yield Arch(
                    stem=Stem(8, pool=activation == "relu"),
                    stages=(Stage(block, kernel, stride, channels, 2, *expand_and_ratio(block), skip),),
                    head_channels=0 if activation == "relu6" else 16,
                    activation=activation,
                    resolution=20,
                    classes=5,
                    dropout=0 if activation == "silu" else 0.3,
                    drop_connect=0.4 * (number > 0),
                )


def mixtures(count: int) -> Iterator[Arch]:
    """Networks whose stages have nothing in common."""
    draw = random.Random(0)
    for _ in range(count):
        stages = []
        for block in draw.choices(BLOCKS, k=draw.randint(1, 4)):
            expand = {"mbconv": draw.choice((0.05, 1, 1.5, 3)), "bottleneck": draw.choice((0.1, 0.25, 1, 2))}.get(
                block, 1
            )
            ratio = 0 if block == "bottleneck" else draw.choice((0, 0, 0.1, 0.25, 1))
            shape = draw.choice((1, 3, 5)), draw.choice((1, 2)), draw.choice((4, 7, 8, 12)), draw.randint(1, 3)
            stages.append(Stage(block, *shape, expand, ratio, draw.choice(SKIPS)))
        yield Arch(
            stem=Stem(draw.choice((3, 8)), draw.choice((1, 3)), draw.choice((1, 2)), draw.random() < 0.3),
            stages=tuple(stages),
            head_channels=draw.choice((0, 16)),
            activation=draw.choice(ACTIVATIONS),
            resolution=20,
            classes=5,
            in_channels=draw.choice((1, 3)),
            dropout=draw.choice((0, 0.5)),
            drop_connect=draw.choice((0, 0.2, 0.6)),
            bn_eps=draw.choice((1e-3, 1e-5)),
        )


def builder(arch: Arch, name: str = "some_net") -> Callable[..., nn.Module]:
    """`build` of the file for `arch`."""
    names: dict[str, Any] = {"__name__": "model"}
    exec(compile(standalone(arch, name, {}), "model.py", "exec"), names)
    build_net: Callable[..., nn.Module] = names["build"]
    return build_net


def two_steps(net: nn.Module, images: Tensor) -> list[Tensor]:
    """All there is to compare: training twice under one seed, its gradients, and evaluation with what was learnt."""
    torch.manual_seed(5)
    net.train()
    seen = []
    for _ in range(2):  # the second sees no other weights, but draws other samples to drop
        logits = net(images)
        logits.square().sum().backward()
        seen.append(logits)
    seen += [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    with torch.inference_mode():
        return [*seen, net.eval()(images)]


def check_equal(arch: Arch, side: int = 20) -> None:
    torch.manual_seed(1)
    ours = build(arch)
    torch.manual_seed(1)
    check_same(ours, builder(arch)(), arch, side)


def check_same(ours: nn.Module, theirs: nn.Module, arch: Arch, side: int) -> None:
    """All weights, outputs and gradients of the two, to the bit."""
    for (name, mine), (other_name, other) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert name == other_name and torch.equal(mine, other), name
    images = torch.randn(4, arch.in_channels, side, side)
    for mine, other in zip(two_steps(ours, images), two_steps(theirs, images), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_skip_and_activation_is_ours_to_the_bit(block: str) -> None:
    for arch in single_stages(block):
        check_equal(arch)


@pytest.mark.slow
def test_mixtures_are_ours_to_the_bit() -> None:
    for arch in mixtures(120):
        check_equal(arch)


@pytest.mark.parametrize("arch", PUBLISHED)
def test_published_networks_are_ours_to_the_bit(arch: Arch) -> None:
    check_equal(replace(arch, classes=10), side=32)


def test_networks_of_a_search_are_ours_to_the_bit() -> None:
    space = MnasNet(resolution=32, classes=10)
    for seed in range(3):
        arch = decode(space, sample(space.decisions, np.random.default_rng(seed)))
        assert isinstance(arch, Arch)
        check_equal(arch, side=32)


@pytest.mark.slow
def test_the_large_ones_have_our_names_and_shapes() -> None:
    for name in ("efficientnet_b7", "efficientnet_l2", "resnet152"):
        with torch.device("meta"):
            ours, theirs = build(reference(name)).state_dict(), builder(reference(name))().state_dict()
        assert [(key, tensor.shape) for key, tensor in ours.items()] == [(k, t.shape) for k, t in theirs.items()]


def test_the_classes_can_be_others() -> None:
    net = builder(replace(MOBILENET_V2, resolution=32))(classes=7)
    assert net.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize(("arch", "absent"), [
    (EFFICIENTNET_B0, ("PoolShortcut", "bottleneck", "functional", "ACTIVATED", "self.after", "MaxPool2d")),
    (RESNET_50, ("SqueezeExcite", "mbconv", "drop_samples", "import torch\n", "Dropout", "head", "HEAD", "index")),
    (MOBILENET_V1, ("SqueezeExcite", "shortcut(", "drop_samples", "HEAD", "self.shortcut", "after")),
    (MOBILENET_V2, ("SqueezeExcite", "drop_samples", "PoolShortcut", "import torch\n")),
])  # fmt: skip
def test_nothing_stands_in_it_that_the_network_does_not_need(arch: Arch, absent: tuple[str, ...]) -> None:
    text = standalone(arch, "x", {})
    assert [word for word in absent if word in text] == []
    assert len(text.splitlines()) < 210 and "#:" not in text


def test_the_template_is_the_file_of_its_own_network() -> None:
    """So what is read there, and checked by mypy and Ruff, is what people get."""
    torch.manual_seed(1)
    theirs = model_template.build()
    stages = tuple(
        Stage(stage.branch.__name__, stage.kernel, stage.stride, stage.channels, stage.layers, *stage[5:])
        for stage in model_template.STAGES
    )
    channels, outputs, kernel, stride = model_template.STEM
    arch = Arch(
        stem=Stem(outputs, kernel, stride, pool=True),
        stages=stages,
        head_channels=model_template.HEAD,
        resolution=model_template.RESOLUTION,
        classes=model_template.CLASSES,
        in_channels=channels,
    )
    torch.manual_seed(1)
    check_same(build(arch), theirs, arch, side=32)

    def code(text: str) -> str:
        return re.sub(r"  #: .*", "", text.split('"""', 2)[2])

    assert code(standalone(arch, "ConvNet", {})) == code(TEMPLATE.read_text())


def test_it_imports_torch_and_the_standard_library_alone() -> None:
    for name in NAMES:
        text = standalone(reference(name), name, {"scaling": "published"})
        imported = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
        assert imported - set(sys.stdlib_module_names) == {"torch"}
        assert "phinas" not in text


def test_it_says_what_it_is_and_where_it_came_from() -> None:
    about = {"scaling": "runs/a/scaling.yaml", "sha256": "ab" * 32}
    text = str(ast.get_docstring(ast.parse(standalone(EFFICIENTNET_B0, "efficientnet_b0", about))))
    for fact in ("efficientnet_b0", "386M MACs (0.77 GFLOPs)", "5,288,548 parameters", "224 x 224", *about.values()):
        assert fact in text.replace("\n", " ")


def test_no_text_breaks_it() -> None:
    hostile = 'a """ \\N \n\t x\u2028y \ud800 ' + "word " * 60 + "x" * 200
    text = standalone(RESNET_50, f"9{hostile}", {hostile: hostile})
    text.encode()
    assert "word word" in str(ast.get_docstring(ast.parse(text)))


def test_class_names() -> None:
    for name, called in {
        "efficientnet_b0": "EfficientNetB0",
        "resnet50": "ResNet50",
        "mnasnet_a1": "MnasNetA1",
        "best phi=1.5": "BestPhi15",
        "block": "ConvNetBlock",
        "RESOLUTION": "ConvNetRESOLUTION",
        "none": "ConvNetNone",
        "3x": "ConvNet3x",
        "": "ConvNet",
        "Ä": "ConvNet",
    }.items():
        assert class_name(name) == called
        assert called.isidentifier()


def test_formatter_and_linter_leave_it_as_it_is(tmp_path: Path) -> None:
    about = {"scaling": "runs/family/scaling.yaml", "sha256": "ab" * 32}
    archs = [*mixtures(40), *(reference(name) for name in NAMES), *(next(single_stages(block)) for block in BLOCKS)]
    for number, arch in enumerate(archs):
        (tmp_path / f"model_{number}.py").write_text(standalone(arch, f"net_{number}", about))
    ruff = [sys.executable, "-m", "ruff"]
    for width in ("88", "120"):
        for command in (["format", "--diff"], ["check", "--select", "E,W,F,I,UP,B", "--ignore", "E501"]):
            ran = subprocess.run(
                [*ruff, *command, "--isolated", "--no-cache", "--line-length", width, str(tmp_path)],
                capture_output=True, text=True,
            )  # fmt: skip
            assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-500:]
