"""`python -m phinas.cam models=[runs/A,runs/B] images=photos`: where in images networks see what they name."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from phinas.cam.activation_map import ActivationMaps, activation_maps, enlarged, looked_at, prepared, shaded
from phinas.cam.figure import Cell, cam_figure, shown_side
from phinas.cam.model import Trained, read_trained
from phinas.command.configuration import configuration
from phinas.command.console import say
from phinas.command.run import run
from phinas.command.run_folder import another_commands, empty, locked, read_config, run_folder, write_config, write_json
from phinas.files.atomic_file import write_atomically
from phinas.files.checks import check_flag, check_whole
from phinas.files.errors import InputError
from phinas.files.settings import check_same_settings
from phinas.networks.cost import cost
from phinas.pages.cost_text import cost_short
from phinas.pages.page import drawing, render
from phinas.pages.style import png
from phinas.training.augment.crops import central_boxes, cut
from phinas.training.data.decode import decode
from phinas.training.data.image_files import SUFFIXES
from phinas.training.data.images import digits, imagefolder, parquet
from phinas.training.data.loader import Loader
from phinas.training.data.streamed import StreamedData

_LOADERS: Mapping[str, Loader[...]] = {
    "phinas.training.data.images.digits": digits,
    "phinas.training.data.images.imagefolder": imagefolder,
    "phinas.training.data.images.parquet": parquet,
}
_NO_TEST = "the data of {} has no test split to take some from"
_MOST_SIDE = 320  # pixels at which an image is drawn
_WIDTH = 400  # of a column in the PNG, pixels


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit code; raises InputError for what the user can mend."""
    given, _ = configuration("phinas.cam", "cam", arguments)
    folder = run_folder(given["name"])
    # Everything is checked, read and computed before anything is written.
    count, seed = check_whole("count", given["count"]), check_whole("seed", given["seed"], least=0)
    check_flag("maps", given["maps"])
    texts = _several("models", given["models"])
    models = [read_trained(text, say) for text in texts]
    if len({model.name for model in models}) < len(models):  # as runs of several folders may be called
        names = [text.partition(":")[0] for text in texts]
        raise InputError(f"models={','.join(names)}: two of them are called {_twice([m.name for m in models])}")
    if given["images"] is None:
        images = _tested(texts[0], models[0], count, seed)
    else:
        images = _read(_several("images", given["images"]), models, count, seed)
    asked = None if given["classes"] is None else str(given["classes"])
    made_from = {
        "models": {model.name: dict(model.weights) for model in models},
        "images": [image.name for image in images],
    }
    settings = {name: value for name, value in given.items() if name != "name"} | {"made_from": made_from}
    _check_folder(folder, settings)
    seen = [[_see(model, image, asked) for model in models] for image in images]
    rows = [
        _row(image, model, maps)
        for image, by in zip(images, seen, strict=True)
        for model, maps in zip(models, by, strict=True)
    ]
    with locked(folder):
        # First what says that the folder is ours: a run that was killed here can be run again.
        write_json(folder / "summary.json", {"images": rows, "settings": settings})
        write_config(folder, given)
        _write(folder, models, images, seen, rows, asked, given["maps"])
    for row in rows:
        say(f"{row['image']}  {row['model']}: {row['answer']} ({row['answer_probability']:.1%})")
    maps = ", maps.npz" if given["maps"] else ""
    say(f"written: {folder}/ with cam.png, summary.json{maps}\nlook at it: {folder}/report.html")
    return 0


@dataclass(frozen=True, eq=False)
class _Image:
    """uint8 [height, width, c] by its name, and its class where that is known."""

    name: str
    pixels: NDArray[np.uint8]
    label: str | None = None


def _several(option: str, given: Any) -> list[str]:
    texts = [str(text) for text in (given if isinstance(given, list) else [given])]
    if not texts:
        raise InputError(f"{option}=[]: give one or more")
    if len(set(texts)) < len(texts):
        raise InputError(f"{option}: {_twice(texts)} is there twice")
    return texts


def _twice(texts: Sequence[str]) -> str:
    return next(text for number, text in enumerate(texts) if text in texts[:number])


# ----------------------------------------------------------------------------------------------------------- the images


def _read(places: Sequence[str], models: Sequence[Trained], count: int, seed: int) -> list[_Image]:
    """The files, and `count` of each folder's at random, in the order of their names.

    Those in a folder that is called like a class of a model are of that class.
    """
    images, known = [], {name for model in models for name in model.class_names}
    for place in places:
        path = Path(place).expanduser()
        if not path.exists():
            raise InputError(f"images={place}: no such file or folder")
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not files:
                raise InputError(f"images={place}: no images in it ({', '.join(SUFFIXES)})")
            files = [files[index] for index in _some(len(files), count, seed)]
        for file in files:
            label = file.parent.name if file.parent.name in known else None
            images.append(_Image(_text(file.name), decode(file, str(file), 3, None), label))
    return images


def _tested(text: str, model: Trained, count: int, seed: int) -> list[_Image]:
    """`count` of the images that the training in the folder `text` was tested on, which it never saw."""
    folder = Path(text) if Path(text).is_dir() else Path(text).parent
    content = read_config(folder)
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, dict) or "_target_" not in data:
        raise InputError(f"images is missing; models={text} is no folder of a training, whose images could be taken")
    if data["_target_"] not in _LOADERS:  # the file may be anybody's, and a name in it is no reason to run something
        raise InputError(
            f"images is missing; {folder}/config.yaml has data._target_={data['_target_']}, "
            "which is not run from a file"
        )
    loader = _LOADERS[data["_target_"]]
    known = {name: value for name, value in data.items() if name in signature(loader).parameters}
    if loader is imagefolder:
        streamed = loader.open(**{**known, "stream": True}).streamed()
        assert isinstance(streamed, StreamedData)
        return _tested_files(text, streamed, model, count, seed)
    test = loader.open(**known).test()
    if test is None:
        raise InputError(f"images is missing; {_NO_TEST.format(text)}")
    return [
        _Image(f"test {index}", test.pixels[index], model.class_names[test.labels[index]])
        for index in _some(len(test), count, seed)
    ]


def _tested_files(text: str, data: StreamedData, model: Trained, count: int, seed: int) -> list[_Image]:
    """As `_tested`, of a folder, whose images may be many and of several sizes."""
    if data.test_files is None:
        raise InputError(f"images is missing; {_NO_TEST.format(text)}")
    chosen = data.test_files[np.array(_some(len(data.test_files), count, seed))]
    return [
        _Image(
            _text(Path(path).name), decode(Path(path), path, data.channels, data.resolution), model.class_names[label]
        )
        for path, label in zip(chosen.paths, chosen.labels, strict=True)
    ]


def _text(name: str) -> str:
    """A file's name, which may be any bytes, for people and files of text."""
    return os.fsencode(name).decode(errors="replace")


def _some(of: int, count: int, seed: int) -> list[int]:
    """`count` of so many, or all, ascending."""
    return sorted(np.random.default_rng(seed).permutation(of)[:count].tolist())


def _in_channels(pixels: NDArray[np.uint8], channels: int, model: Trained) -> NDArray[np.uint8]:
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return pixels.repeat(3, 2)
    if channels != 1:
        raise InputError(f"models: {model.name} takes images of {channels} channels; it can be looked into with 1 or 3")
    return np.array(Image.fromarray(pixels).convert("L"))[..., None]


# ------------------------------------------------------------------------------------------------------------- the maps


def _see(model: Trained, image: _Image, asked: str | None) -> ActivationMaps:
    pixels = _in_channels(image.pixels, model.arch.in_channels, model)
    shown = prepared(pixels, model.share, model.arch.resolution, model.mean, model.std)
    classes = None if asked is None else torch.tensor([model.class_index(asked)])
    maps = activation_maps(model.module, shown, classes)
    if not maps.logits.isfinite().all():
        raise InputError(f"models: {model.name} gives logits that are not finite for {image.name}")
    return maps


def _row(image: _Image, model: Trained, maps: ActivationMaps) -> dict[str, Any]:
    """What summary.json and the report say of an image and a network."""
    chances = maps.logits.softmax(1)[0]
    answer = int(chances.argmax())
    return {
        "image": image.name,
        "label": image.label,
        "model": model.name,
        "class": model.class_names[int(maps.classes[0])],
        "probability": maps.probabilities[0].item(),
        "answer": model.class_names[answer],
        "answer_probability": chances[answer].item(),
    }


# ------------------------------------------------------------------------------------------------------ what is written


def _check_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """InputError unless the folder is empty, or of an earlier run of the command with these settings."""
    if empty(folder):
        return
    try:
        settings_before = json.loads((folder / "summary.json").read_text())["settings"]
        settings_before["made_from"]["images"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise another_commands(folder) from None
    check_same_settings(folder / "summary.json", settings_before, settings)


def _write(
    folder: Path,
    models: Sequence[Trained],
    images: Sequence[_Image],
    seen: Sequence[Sequence[ActivationMaps]],
    rows: Sequence[Mapping[str, Any]],
    asked: str | None,
    keep_maps: bool,
) -> None:
    """The picture, the report, and the maps if they are to be kept."""
    told = iter(rows)
    cells = []
    for image, by in zip(images, seen, strict=True):
        label = image.name if image.label is None else image.label
        line = [Cell(_drawn(looked_at(image.pixels, 1.0)), None, label)]
        for model, maps in zip(models, by, strict=True):
            line.append(_cell(model, image, maps, next(told)))
        cells.append(line)
    columns = [("original", "")] + [
        (model.name, f"{cost_short('params', cost(model.arch).params)} parameters, {model.arch.resolution} px")
        for model in models
    ]
    figure = cam_figure(columns, cells)
    picture = io.BytesIO()
    png(figure, picture, _WIDTH * len(columns))
    write_atomically(folder / "cam.png", picture.getvalue())
    if keep_maps:
        stored = io.BytesIO()
        by_model = {
            model.name: np.stack([by[place].maps[0].numpy() for by in seen]) for place, model in enumerate(models)
        }
        np.savez(stored, allow_pickle=False, **by_model)
        write_atomically(folder / "maps.npz", stored.getvalue())
    page = render(
        Path(__file__).with_name("report.html"), folder.name, [], (folder / "config.yaml").read_text(),
        several=len(models) > 1, classes="what it names" if asked is None else f"the class {asked}",
        picture=drawing(figure, "class activation maps"), caption=_CAPTION, rows=rows,
    )  # fmt: skip
    write_atomically(folder / "report.html", page)


_CAPTION = (
    "Each cell shows the part of the image that the network looks at. Colours go from the least of its map to the "
    "most, map by map: they say where, not how much; a map of a single place, as of small images, has one colour. "
    "Below: the class whose map it is, and its probability; in green where it is the image's, in red where it is not."
)


def _cell(model: Trained, image: _Image, maps: ActivationMaps, row: Mapping[str, Any]) -> Cell:
    drawn = _drawn(looked_at(image.pixels, model.share))
    heat = shaded(enlarged(maps.maps, shown_side(len(drawn)))[0])
    right = row["class"] == image.label if image.label in model.class_names else None
    chance = f"{row['probability']:.0%}" if row["probability"] >= 0.01 else "below 1%"
    return Cell(drawn, heat.numpy(), f"{row['class']}  {chance}", right)


def _drawn(square: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A square image, made smaller where it is larger than can be seen."""
    if len(square) <= _MOST_SIDE:
        return square
    whole = central_boxes(torch.tensor([square.shape[:2]]), 1.0)
    return cut(torch.from_numpy(np.ascontiguousarray(square)[None]), whole, _MOST_SIDE)[0].numpy()


if __name__ == "__main__":
    run(main)
