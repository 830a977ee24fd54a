"""`Arch`: validation that names the culprit, keys that last, and YAML files that round-trip."""

from __future__ import annotations

import errno
import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from phinas.files.errors import CannotWrite, InputError
from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.arch_file import read_arch, write_arch
from phinas.networks.reference import EFFICIENTNET_B0, NAMES, reference

STAGE = Stage("mbconv", 3, 1, 16, 1)


def test_keys_last() -> None:
    """Journals and tables refer to networks by key. Repin only with a migration of what is already written."""
    assert EFFICIENTNET_B0.key() == "052b05a52272c6d6"
    assert reference("resnet50").key() == "f2968b30c029f0e9"


@pytest.mark.parametrize("name", NAMES)
def test_keys_hash_the_description(name: str) -> None:
    """`key` puts its text together from parts; this is what the parts must come to."""
    arch = reference(name)
    text = json.dumps(arch.to_dict(), sort_keys=True, separators=(",", ":"))
    assert arch.key() == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_other_stages_make_another_network_and_are_checked() -> None:
    resnet = reference("resnet50")
    changed = resnet.with_stages([STAGE])
    assert changed == replace(resnet, stages=(STAGE,)) and changed.key() == replace(resnet, stages=(STAGE,)).key()
    assert pickle.loads(pickle.dumps(changed)).key() == changed.key() != resnet.key()
    for wrong in ((), (STAGE, "mbconv")):
        with pytest.raises(ValueError, match="stages must be one or more Stage values"):
            resnet.with_stages(wrong)  # type: ignore[arg-type]


def test_equal_networks_have_one_key_and_different_ones_many() -> None:
    assert replace(STAGE, expand=6) == replace(STAGE, expand=6.0)
    six, six_float = (Arch(Stem(), (replace(STAGE, expand=e),)) for e in (6, 6.0))
    assert six.key() == six_float.key()
    assert replace(EFFICIENTNET_B0, dropout=-0.0).key() == replace(EFFICIENTNET_B0, dropout=0.0).key()
    minus = EFFICIENTNET_B0.with_stages([replace(STAGE, se_ratio=-0.0)])
    assert minus.key() == EFFICIENTNET_B0.with_stages([STAGE]).key()
    changed = [
        replace(EFFICIENTNET_B0, **change)
        for change in (
            {"stem": Stem(40)},
            {"stem": Stem(pool=True)},
            {"stages": EFFICIENTNET_B0.stages[:-1]},
            {"stages": (*EFFICIENTNET_B0.stages[:-1], replace(EFFICIENTNET_B0.stages[-1], skip="pool"))},
            {"head_channels": 1288},
            {"activation": "relu"},
            {"resolution": 225},
            {"classes": 10},
            {"dropout": 0.3},
            {"drop_connect": 0.3},
            {"bn_momentum": 0.1},
            {"bn_eps": 1e-5},
        )
    ]
    keys = {arch.key() for arch in [*changed, *map(reference, NAMES)]}
    assert len(keys) == len(changed) + len(NAMES)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("block", "mb", "block must be one of conv, linear, separable, mbconv, bottleneck, got 'mb'"),
        ("kernel", 4, "kernel must be odd, got 4"),
        ("kernel", 3.0, "kernel must be a whole number, 1 or more, got 3.0"),
        ("stride", 0, "stride must be a whole number, 1 or more, got 0"),
        ("channels", "16", "channels must be a whole number, 1 or more, got '16'"),
        ("repeats", True, "repeats must be a whole number, 1 or more, got True"),
        ("expand", 0, "expand must be above 0, got 0"),
        ("expand", float("nan"), "expand must be a finite number, got nan"),
        ("se_ratio", 1.5, r"se_ratio must lie in \[0, 1\], got 1.5"),
        ("skip", "max", "skip must be one of identity, pool, projection, none, got 'max'"),
    ],
)
def test_a_wrong_stage_is_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(STAGE, **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("stages", (), "stages must be one or more Stage values"),
        ("stem", 32, "stem must be a Stem, got int"),
        ("activation", "gelu", "activation must be one of relu, relu6, silu, hardswish, got 'gelu'"),
        ("resolution", 0, "resolution must be a whole number"),
        ("classes", 1.5, "classes must be a whole number"),
        ("head_channels", -1, "head_channels must be a whole number, 0 or more, got -1"),
        ("dropout", 1, r"dropout must lie in \[0, 1\), got 1"),
        ("bn_eps", "1e-3", "bn_eps must be a finite number, got '1e-3'"),
    ],
)
def test_a_wrong_network_is_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(EFFICIENTNET_B0, **{field: value})


def test_combinations_that_describe_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="expand must be 1 for block 'conv', got 6"):
        Stage("conv", 3, 1, 16, 1, expand=6)
    with pytest.raises(ValueError, match="se_ratio must be 0 for block 'bottleneck'"):
        Stage("bottleneck", 3, 1, 16, 1, se_ratio=0.25)


@pytest.mark.parametrize("name", NAMES)
def test_files_round_trip(name: str, tmp_path: Path) -> None:
    arch = reference(name)
    assert Arch.from_dict(arch.to_dict()) == arch
    write_arch(arch, tmp_path / "arch.yaml")
    assert read_arch(tmp_path / "arch.yaml") == arch
    assert read_arch(tmp_path / "arch.yaml").key() == arch.key()
    assert [path.name for path in tmp_path.iterdir()] == ["arch.yaml"]


def test_a_file_reads_in_the_order_of_the_network(tmp_path: Path) -> None:
    write_arch(EFFICIENTNET_B0, tmp_path / "b0.yaml")
    written = yaml.safe_load((tmp_path / "b0.yaml").read_text())
    assert list(written)[:3] == ["stem", "stages", "head_channels"]
    assert list(written["stages"][0])[0] == "block"


def test_a_short_file_takes_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text("stem: {}\nstages:\n- {block: mbconv, kernel: 3, stride: 1, channels: 16, repeats: 1}\n")
    assert read_arch(path) == Arch(Stem(), (STAGE,))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (b"", "a network is a mapping of fields, got NoneType"),
        (b"- 1\n", "a network is a mapping of fields, got list"),
        (b"stem: [", "not YAML: "),
        (b"stem: !!python/object:os.system {}", "not YAML: "),
        (b"stem: \xff\n", "not UTF-8 text (byte 6)"),
        (b"stem: {}\n", "stages must be a list"),
        (b"stages: []\n", "stem must be a mapping of fields, got None"),
        (b"stem: {}\nstages: []\n", "stages must be one or more Stage values"),
        (b"stem: {depth: 3}\nstages: []\n", "stem: unknown field 'depth'; allowed: channels, kernel, stride, pool"),
        (b"stem: {kernel: 2}\nstages: []\n", "stem: stem.kernel must be odd, got 2"),
        (b"stem: {}\nstages: [{block: conv}]\n", "stages[0]: missing 4 required positional arguments: 'kernel', "),
        (b"stem: {}\nstages: [3]\n", "stages[0] must be a mapping of fields, got 3"),
        (b"stem: {}\nstages: []\nflops: 3\n", "network: unknown field 'flops'; allowed: stem, stages, head_channels"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_path_and_culprit(text: bytes, wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_bytes(text)
    with pytest.raises(InputError) as caught:
        read_arch(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and wrong in message and "\n" not in message


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere.yaml: No such file or directory"):
        read_arch(tmp_path / "nowhere.yaml")
    with pytest.raises(InputError, match="Is a directory"):
        read_arch(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "arch.yaml"
    write_arch(EFFICIENTNET_B0, path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CannotWrite, match="arch.yaml cannot be written: No space left on device"):
        write_arch(reference("resnet50"), path)
    assert read_arch(path) == EFFICIENTNET_B0
    assert [path.name for path in tmp_path.iterdir()] == ["arch.yaml"]
