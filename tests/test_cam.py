"""Class activation maps: their mean and the bias are the logit, and the command shows what scoring would see."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from phinas.cam.__main__ import main
from phinas.cam.activation_map import activation_maps, enlarged, looked_at, prepared, shaded
from phinas.files.errors import InputError
from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.arch_file import write_arch
from phinas.networks.build import ConvNet, build
from phinas.networks.reference import NAMES, reference
from phinas.train.__main__ import main as train
from phinas.training.data.dataset import Dataset, Images
from phinas.training.data.in_memory import as_scored
from phinas.training.full.recipe import plain_sgd
from phinas.training.full.trained_network import save_network
from phinas.weights.checkpoints import save_weights
from tests.conftest import contents

TINY = Arch(
    stem=Stem(channels=8, stride=2),
    stages=(Stage("mbconv", 3, 2, channels=8, repeats=2, expand=2, se_ratio=0.25),),
    head_channels=16,
    resolution=16,
    classes=4,
)
IN_SHORT = ("efficientnet_b0", "mnasnet_a1", "mobilenet_v1", "mobilenet_v2", "resnet50")


@pytest.mark.parametrize("name", IN_SHORT)
def test_the_mean_of_the_map_and_the_bias_are_the_logit(name: str) -> None:
    assert name in NAMES
    module = build(replace(reference(name), classes=7), seed=0).double().eval()
    with torch.no_grad():
        module.classifier.weight.normal_()
        module.classifier.bias.normal_()
    images = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        logits = module(images)
    for number in (0, 6):
        classes = torch.full((2,), number)
        seen = activation_maps(module, images, classes)
        assert seen.maps.shape == (2, 3, 2) and not torch.allclose(seen.maps[0], seen.maps[0].mean())
        torch.testing.assert_close(seen.maps.mean((1, 2)) + module.classifier.bias[number], logits[:, number])
        torch.testing.assert_close(seen.logits, logits)
    best = activation_maps(module, images)
    assert best.classes.equal(logits.argmax(1))
    torch.testing.assert_close(best.probabilities, logits.softmax(1).amax(1))


def test_a_network_worked_by_hand() -> None:
    """Features are the image and its negative; class 0 looks at the one, class 1 at twice the other."""
    stem = nn.Conv2d(1, 2, 1, bias=False)
    module = ConvNet(stem, nn.Identity(), nn.Identity(), 0.5, nn.Linear(2, 2))
    module.load_state_dict(
        {
            "stem.weight": torch.tensor([1.0, -1.0]).view(2, 1, 1, 1),
            "classifier.weight": torch.tensor([[1.0, 0.0], [0.0, 2.0]]),
            "classifier.bias": torch.tensor([0.5, 1.0]),
        }
    )
    image = torch.tensor([[0.0, 4.0], [0.0, 0.0]])[None, None]
    seen = activation_maps(module, image)
    assert seen.logits.tolist() == [[1.5, -1.0]] and seen.classes.tolist() == [0]
    assert seen.maps.tolist() == [[[0, 4], [0, 0]]]
    assert activation_maps(module, image, torch.tensor([1])).maps.tolist() == [[[0, -8], [0, 0]]]
    assert seen.probabilities.item() == pytest.approx(1 / (1 + np.exp(-2.5)))
    large = enlarged(seen.maps, 8)[0]
    assert large.shape == (8, 8) and large.argmax() in (6, 7)  # in the upper right corner


@pytest.mark.parametrize("share", [1.0, 0.875, "fixed"])
@pytest.mark.parametrize("side", [20, 16, 9])
def test_images_are_prepared_as_they_are_scored(share: float | str, side: int) -> None:
    random = np.random.default_rng(0)
    images = Images(random.integers(0, 256, (3, 20, 26, 3), np.uint8), np.array([0, 1, 0]))
    data = Dataset(images, images, ("a", "b"))
    recipe = plain_sgd(1, 2, 0.1, evaluation_crop=share)
    samples = as_scored(images, data, recipe, side, torch.device("cpu"))
    for pixels, expected in zip(images.pixels, samples.normalised(samples.pixels), strict=True):
        own = prepared(pixels, recipe.evaluated_share(side), side, data.mean.tolist(), data.std.tolist())
        assert own[0].equal(expected)
    assert looked_at(images.pixels[0], 1.0).tolist() == images.pixels[0, :, 3:23].tolist()


# ---------------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs on digits, two untrained networks of four classes, and photos."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        write_arch(TINY, "tiny.yaml")
        save_weights(build(TINY, seed=0).state_dict(), "tiny.safetensors", {})
        write_arch(replace(TINY, in_channels=1), "grey.yaml")
        save_weights(build(replace(TINY, in_channels=1), seed=0).state_dict(), "grey.safetensors", {})
        for name in ("one", "two"):
            train(["model=tiny.yaml", "recipe.epochs=1", f"name={name}", f"seed={len(name)}", "recipe.batch_size=256"])
        Path("photos").mkdir()
        random = np.random.default_rng(0)
        for name, size in (("wide.jpg", (60, 90, 3)), ("tall.png", (400, 340, 3))):
            Image.fromarray(random.integers(0, 256, size, np.uint8)).save(f"photos/{name}")
        Path("photos/notes.txt").write_text("no image")
        Path("runs/other").mkdir()
        Path("runs/other/config.yaml").write_text("budget: 3\n")
        Path("broken.png").write_bytes(b"nothing")
        Path("empty").mkdir()
    return folder


def test_it_writes_what_the_contract_names(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    command = ["models=[runs/one,runs/two/model.yaml]", "count=3", "maps=true", "name=cam"]
    assert main(command) == 0
    assert "look at it: runs/cam/report.html" in capsys.readouterr().out
    run = trained / "runs/cam"
    with Image.open(run / "cam.png") as picture:
        assert picture.width > 1000
    assert "<svg" in (run / "report.html").read_text()
    rows = json.loads((run / "summary.json").read_text())["images"]
    assert [row["model"] for row in rows] == ["one", "two"] * 3 and len({row["image"] for row in rows}) == 3
    assert all(row["label"] in "0123456789" and row["class"] == row["answer"] for row in rows)
    with np.load(run / "maps.npz") as maps:
        assert maps["one"].shape == maps["two"].shape == (3, 4, 4)
    before = {name: content for name, content in contents(run).items() if name in ("cam.png", "maps.npz")}
    assert main(command) == 0
    assert before.items() <= contents(run).items()  # the same again


@pytest.mark.slow
def test_photos_of_any_size_and_one_class_for_all(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    command = ["models=[runs/one,tiny.yaml:tiny.safetensors]", "images=[photos,photos/wide.jpg]", "classes='3'"]
    assert main([*command, "name=photos-seen"]) == 0
    rows = json.loads(Path("runs/photos-seen/summary.json").read_text())["images"]
    assert [row["image"] for row in rows[::2]] == ["tall.png", "wide.jpg", "wide.jpg"]
    assert {row["class"] for row in rows} == {"3"} and {row["label"] for row in rows} == {None}
    Path("sorted/7").mkdir(parents=True)
    Path("sorted/7/x$^$y.png").write_bytes(Path("photos/tall.png").read_bytes())  # no mathematics
    for models in ("runs/one", "[tiny.yaml:tiny.safetensors,runs/one]"):  # of 10 classes, and first one of 4
        assert main([f"models={models}", "images=sorted", f"name=sorted{len(models)}"]) == 0
        assert json.loads(Path(f"runs/sorted{len(models)}/summary.json").read_text())["images"][0]["label"] == "7"
    assert all(0 < row["probability"] <= row["answer_probability"] <= 1 for row in rows)


def test_a_run_on_photos_of_unequal_sizes_shows_those_it_was_tested_on(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    arch, random = replace(TINY, classes=2), np.random.default_rng(0)
    for split, name, size in ((split, name, size) for split in ("train", "test") for name in "ab" for size in (20, 30)):
        Path("unequal", split, name).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (size, 24, 3), np.uint8)
        Image.fromarray(pixels).save(f"unequal/{split}/{name}/{name}{size}.png")
    Path("runs/photos").mkdir()
    about = {"mean": [127.0] * 3, "std": [64.0] * 3, "evaluation_crop": 1.0, "class_names": ["a", "b"]}
    save_network(Path("runs/photos"), arch, build(arch, seed=0).state_dict(), about)
    Path("runs/photos/config.yaml").write_text(
        "data: {_target_: phinas.training.data.images.imagefolder, path: unequal}\n"
    )
    assert main(["models=runs/photos", "name=unequal"]) == 0
    rows = json.loads(Path("runs/unequal/summary.json").read_text())["images"]
    assert [(row["image"], row["label"]) for row in rows] == [
        ("a20.png", "a"), ("a30.png", "a"), ("b20.png", "b"), ("b30.png", "b"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["models=nowhere"], "models=nowhere: no file, and no published network"),
        (["models=runs/v1.2"], "models=runs/v1.2: there is no such folder or file; allowed: the folder of a training"),
        (["models=nets/b0:w.pt"], "models=nets/b0: no file, and no published network"),
        (["models=resnet50"], "models=resnet50: it has no weights; give them as NETWORK:WEIGHTS"),
        (["models=tiny.yaml"], "models=tiny.yaml: it has no weights"),
        (["models=runs/other"], "models=runs/other: no model.yaml in it"),
        (["models=[]"], "models=[]: give one or more"),
        (["models=[runs/one,runs/one]"], "models: runs/one is there twice"),
        (["models=[runs/one,runs/one/model.yaml]"], "two of them are called one"),
        (["models=tiny.yaml:missing.pt", "images=photos"], "missing.pt: No such file"),
        (["models=resnet50:tiny.safetensors", "images=photos"], "tiny.safetensors: 4 classes, the network has 1000"),
        (["models=grey.yaml:grey.safetensors", "images=photos"], "nothing says mean and std of its images"),
        (["models=tiny.yaml:tiny.safetensors"], "images is missing"),
        (["images=nowhere"], "images=nowhere: no such file or folder"),
        (["images=empty"], "images=empty: no images in it"),
        (["images=broken.png"], "broken.png: not a readable image"),
        (["images=photos", "classes=cat"], "classes=cat: one has no such class; it has 0, 1, 2"),
        (["count=0"], "count=0"),
        (["seed=-1"], "seed=-1"),
        (["maps=perhaps"], "maps=perhaps: it must be true or false"),
        (["name=other"], "runs/other holds another command's results; give another name="),
        (["model=runs/one"], "did you mean models"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(
    trained: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(trained)
    before = contents(trained)
    with pytest.raises(InputError) as caught:
        main(["models=runs/one", "name=wrong", *arguments])
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert contents(trained) == before


@pytest.mark.parametrize("logit", [0.1, -0.7312, 12.3])
def test_a_map_of_one_place_has_no_pattern_and_others_go_from_0_to_1(logit: float) -> None:
    assert not shaded(enlarged(torch.full((1, 1, 1), logit), 123)[0]).any()
    heat = shaded(torch.tensor([[logit, logit + 0.01]]))
    assert (float(heat.min()), float(heat.max())) == (0.0, 1.0)
