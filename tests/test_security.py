"""Files that a stranger made: nothing in them is run, and they take no more memory and time than ours do."""

from __future__ import annotations

import ast
import io
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from nas.evaluators.boosted_trees import _load
from phinas.command.parts import check_inert
from phinas.command.run_folder import run_folder
from phinas.files.errors import InputError
from phinas.files.yaml_file import safe_yaml
from phinas.networks.reference import reference
from phinas.pages.page import render
from phinas.training.data.decode import FORMATS, decode
from phinas.training.data.image_files import SUFFIXES
from phinas.training.data.images import parquet
from phinas.weights.checkpoints import read_tensors
from phinas.weights.standalone import standalone
from tests.conftest import ROOT

# ---------------------------------------------------------------------------------------------------- nothing is run


def test_no_reader_that_runs_what_it_reads_is_called() -> None:
    """YAML by `safe_yaml`, checkpoints by `weights_only`, arrays without pickles, JSON alone by `loads`."""
    packages = ("nas", "scaling_search", "search_spaces", "phinas")
    for file in (file for package in packages for file in (ROOT / package).rglob("*.py")):
        path = file.relative_to(ROOT).as_posix()
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            called, given = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
            name = called.rpartition(".")[2]
            where = f"{path}:{call.lineno}: {called}"
            assert called not in ("eval", "yaml.load", "yaml.unsafe_load", "pickle.load", "joblib.load"), where
            assert called != "torch.load" or given.get("weights_only") == "True", where
            assert given.get("allow_pickle", "False") == "False", where
            assert name != "exec" or path == "phinas/weights/export.py", where  # model.py, just written from an Arch
            assert called != "OmegaConf.load", where
            if called in ("pickle.loads", "cloudpickle.loads"):  # its own values; Ray's own files of this run
                assert path == "search_spaces/testing.py", where


SETTINGS = {"space": {"_target_": "search_spaces.mnasnet.MnasNet", "kernels": [3, 5]}}


def test_settings_from_a_file_run_what_is_ours_or_trusted() -> None:
    check_inert(SETTINGS, Path("config.yaml"), [])
    check_inert({"evaluator": {"_target_": "nas.evaluators.proxy.Proxy"}}, Path("config.yaml"), None)
    mine = {"space": {"_target_": "mine.Space"}}
    check_inert(mine, Path("config.yaml"), ["other.Space", "mine.Space"])
    check_inert(mine, Path("config.yaml"), "mine.Space")
    with pytest.raises(InputError, match="config.yaml: space._target_=mine.Space is code .* trust=mine.Space"):
        check_inert(mine, Path("config.yaml"), "mine.Spac")


@pytest.mark.parametrize(
    "settings",
    [
        {"_target_": "os.system", "command": "true"},
        {"_target_": "search_spaces.mnasnet.MnasNet", "kernels": {"_target_": "os.getcwd"}},
        {"_target_": "search_spaces.mnasnet.MnasNet", "kernels": [3, {"_target_": "os.getcwd"}]},
        {"_target_": "search_spaces.mnasnet.MnasNet", "kernels": "${oc.create:'{_target_: os.getcwd}'}"},
        {"_target_": "nas.controllers.optuna.Optuna", "sampler": "os.system"},  # ours, but no space
        {"_target_": "hydra.utils.get_method", "path": "os.system"},
        {"_target_": "???"},
        {"_target_": None},
    ],
)
def test_settings_from_a_file_run_nothing_else(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="config.yaml: space"):
        check_inert({"space": settings}, Path("config.yaml"), [])


class Code:
    """What a pickle of a stranger's may hold."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        import os

        return os.mkdir, (self.path,)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    ran, weights, cache = tmp_path / "ran", tmp_path / "a.pt", tmp_path / "a.npz"
    torch.save({"stem.conv.weight": torch.zeros(1), "more": Code(ran)}, weights)
    with pytest.raises(InputError, match="holds more than tensors, which might run code"):
        read_tensors(weights)
    weights.write_bytes(pickle.dumps(Code(ran)))
    with pytest.raises(InputError, match="a.pt: "):
        read_tensors(weights)
    np.savez(cache, allow_pickle=True, **{name: np.array(Code(ran)) for name in ("base", "bits", "leaves", "quality")})
    assert _load(cache) is None
    assert not ran.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.to("meta"),
        lambda tensor: tensor.to(torch.float8_e4m3fn),
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: torch.quantize_per_tensor(tensor, 1.0, 0, torch.qint8),
        lambda tensor: torch.nested.nested_tensor([tensor]),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:torch.quantize_per_tensor")
def test_weights_are_dense_tensors_of_numbers(tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    torch.save({"stem.conv.weight": change(torch.ones(2))}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="a.pt: stem.conv.weight is no dense tensor of real numbers"):
        read_tensors(tmp_path / "a.pt")


def kinds(code: str) -> list[str]:
    """What the code is made of."""
    return [type(node).__name__ for node in ast.walk(ast.parse(code))]


def test_words_of_others_stay_words_in_generated_code_and_pages(tmp_path: Path) -> None:
    arch = reference("mobilenet_v2")
    plain = kinds(standalone(arch, "name", {"baseline": "mine"}))
    for words in ('"""\nraise SystemExit\n"""', "\\", '\\"""\nraise SystemExit #', "'''", "\r\nraise SystemExit", "\0"):
        assert kinds(standalone(arch, words, {words: words, "baseline": words})) == plain
    template = tmp_path / "a.html"
    template.write_text('{% extends "page.html" %}{% block body %}{{ words }}{% endblock %}')
    page = render(template, "<script>1</script>", [(0, "<script>2</script>")], "<script>3</script>", words="<script>4")
    assert "<script>" not in page


# ------------------------------------------------------------------------------------------------ YAML, and run folders


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(["a0: &a0 [1, 1]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 99))]),
        "\n".join(["a0: &a0 {b: 1}", *(f"a{n}: &a{n} {{<<: *a{n - 1}, c: *a{n - 1}}}" for n in range(1, 99))]),
        "&a [*a]",
        "&a {b: [*a]}",
    ],
)
def test_aliases_cannot_blow_yaml_up(text: str) -> None:
    start = time.process_time()
    with pytest.raises(yaml.YAMLError, match="stand for more than 1,000,000 values"):
        safe_yaml(text)
    assert time.process_time() - start < 1


def test_aliases_of_people_are_read() -> None:
    assert safe_yaml("a: &a {b: 1}\nc: [*a, *a]\nd: {<<: *a, e: 2}") == {
        "a": {"b": 1}, "c": [{"b": 1}, {"b": 1}], "d": {"b": 1, "e": 2},
    }  # fmt: skip
    assert safe_yaml("") is None and safe_yaml("3") == 3


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.getcwd []", "!!python/name:os.system", "!!timestamp noon", "!!int many", "? {a: 1}\n: 2",
     "a: 2024-13-01", "!!bool perhaps"],
)  # fmt: skip
def test_only_values_are_read_from_yaml(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        safe_yaml(text)


def test_a_run_stays_in_its_folder(empty_folder: Path) -> None:
    for name in ("..", "a/b", "/tmp", "a\\b", "~", "", ".hidden", "a\nb", "a" * 101):
        with pytest.raises(InputError, match="a run's name has letters"):
            run_folder(name)
    (empty_folder / "disk/one").mkdir(parents=True)
    (empty_folder / "runs").symlink_to("disk")  # people keep runs on other disks, all of them or one
    (empty_folder / "runs/two").symlink_to("one")
    assert run_folder("one") == Path("runs/one") and run_folder("two") == Path("runs/two")
    (empty_folder / "precious").write_text("mine")
    for link in ("config.yaml", ".lock", "journal.jsonl", "checkpoints"):
        (empty_folder / "runs/one" / link).symlink_to("../../precious")
        with pytest.raises(InputError, match=f"runs/one/{link} is a link"):
            run_folder("one")
        (empty_folder / "runs/one" / link).unlink()
    (empty_folder / "runs/one/.lock").symlink_to("../../absent")
    with pytest.raises(InputError, match="runs/one/.lock is a link"):
        run_folder("one")


# --------------------------------------------------------------------------------------------------------------- images


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (12, 8)) -> Image.Image:
    random = np.random.default_rng(0)
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8)).convert(mode)


def test_formats_are_those_of_the_suffixes_and_no_other_is_opened() -> None:
    known = Image.registered_extensions()
    assert {known[suffix] for suffix in SUFFIXES} == set(FORMATS)
    others = [encoded(noise(), kind) for kind in ("EPS", "PDF", "ICO", "TGA", "SGI")]
    for data in others:  # PostScript would be given to a program
        with pytest.raises(InputError, match=r"x: not a readable image \(none of PNG, "):
            decode(data, "x", 3, None)


@pytest.mark.parametrize("kind", FORMATS)
def test_spoilt_images_are_read_or_refused(kind: str) -> None:
    """Whatever bytes are changed, cut off or put in, there is an image or an InputError."""
    random, whole = np.random.default_rng(1), encoded(noise(), kind)
    read = 0
    for _ in range(150):
        data = bytearray(whole)
        for place in random.integers(0, min(len(data), 400), random.integers(1, 6)):
            data[place] = random.integers(0, 256)
        start, length = random.integers(0, len(data)), random.integers(0, 20)
        data[start : start + length] = random.bytes(random.integers(0, 20))
        try:
            read += decode(bytes(data), "x", 3, 8).shape == (8, 8, 3)
        except InputError as error:
            assert str(error).startswith("x: ") and "\n" not in str(error)
    assert decode(whole, "x", 3, 8).shape == (8, 8, 3) and read < 150


def test_pixels_are_taken_as_they_are_stored() -> None:
    picture = noise()
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by a quarter
    assert (decode(encoded(picture, "PNG", exif=turned), "x", 3, None) == np.array(picture)).all()
    first, second = noise("L"), Image.new("L", (12, 8))
    animated = encoded(first, "GIF", save_all=True, append_images=[second])
    assert (decode(animated, "x", 1, None)[..., 0] == np.array(first)).all()
    assert (
        decode(encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG"), "x", 3, None)[0, 0] // 128 == [1, 0, 0]
    ).all()


def write(path: Path, rows: int) -> str:
    image = encoded(noise(), "PNG")
    pq.write_table(pa.table({"image": [image] * rows, "label": [row % 2 for row in range(rows)]}), path)
    return str(path)


def test_data_that_no_memory_holds_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.parquet", 8)
    parquet(path)
    room = psutil.virtual_memory()._replace(total=8 * 12 * 8 * 3 - 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: room)
    with pytest.raises(InputError, match="a.parquet row 0: 8 images of 12 x 8 pixels take .* lower data.resolution or"):
        parquet(path)
    monkeypatch.setattr("phinas.training.data.parquet._MOST_ROWS", 7)
    with pytest.raises(InputError, match="a.parquet: 8 rows; a file may have 7"):
        parquet(path)
