"""Wrong input to every command: one line that names the culprit and what is allowed, exit code 2, nothing written.

The rows are what other test files do not have for their own commands. All run in one folder, in which `make` puts what
they name; whatever a row changed there, the next would see.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from nas import search
from nas.proxy_check import __main__ as proxy_check
from phinas.__main__ import command_module
from phinas.command.run import run
from phinas.command.run_folder import locked
from phinas.networks.arch import Arch, Stage, Stem
from phinas.networks.arch_file import write_arch
from phinas.networks.build import build
from phinas.networks.compound import Coefficients
from phinas.networks.scaling_file import Scaling, write_scaling
from phinas.train import __main__ as train
from phinas.weights.checkpoints import save_weights
from scaling_search import grid
from tests.conftest import states

TINY = Arch(
    stem=Stem(channels=8, stride=1),
    stages=(Stage("mbconv", 3, 2, channels=8, repeats=1, expand=2),),
    head_channels=16,
    resolution=8,
    classes=10,
    in_channels=1,
)

# What makes each command quick and otherwise right; a row's own options take the place of these.
SOUND = {
    "nas.search": "evaluator=synthetic engine=inline budget=3",
    "nas.proxy_check": "evaluator=synthetic evaluator.epochs=2 engine=inline networks=3",
    "nas.report": "",
    "nas.selftest": "engine=inline torn=1",
    "scaling_search.grid": "evaluator=synthetic engine=inline candidates=2 seeds=1 baseline=tiny.yaml variant=null "
    "lattice.step=0.1 tolerance=0.3",
    "scaling_search.compare": "evaluator=synthetic engine=inline seeds=1 baseline=tiny.yaml variant=null factors=[2] "
    "figure4=false tolerance=0.5",
    "phinas.generate": "baseline=tiny.yaml scaling=paper phi=0",
    "phinas.measure": "model=tiny.yaml device=cpu device.seconds=0.01",
    "phinas.train": "model=tiny.yaml recipe.epochs=1 recipe.batch_size=256 recipe.recalibrate=0",
    "phinas.transfer": "from=runs/trained sets.digits=digits engine=inline recipe.epochs=1",
    "phinas.cam": "models=runs/trained",
}
PICTURES = "data=imagefolder data.path=pictures"
PHOTOS = "evaluator=proxy data=imagefolder data.path"
TABLE = "evaluator=proxy data=parquet data.path"


# ------------------------------------------------------------------------------------------------ what is in the folder


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims this size, in a hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def pictures(
    folder: str, culprit: bytes | None = None, name: str = "cat/1.png", splits: tuple[str, ...] = ("",)
) -> None:
    """Two classes of three images; `culprit` are the bytes of one more."""
    for split in splits:
        for label, grey in (("cat", 20), ("dog", 200)):
            place = Path(folder, split, label)
            place.mkdir(parents=True, exist_ok=True)
            for number in (0, 2, 4):
                Image.new("RGB", (8, 8), (grey, grey, number)).save(place / f"{number}.png")
    if culprit is not None:
        Path(folder, splits[0], name).write_bytes(culprit)


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (8, 8), **options: Any) -> bytes:
    path = Path(f"encoded.{kind}")
    Image.new(mode, size).save(path, **options)
    data = path.read_bytes()
    path.unlink()
    return data


def table(name: str, images: Any, labels: Any, classes: list[str] | None = None) -> None:
    """A parquet file as dataset hubs publish them."""
    rows = pa.table({"image": images, "label": labels})
    if classes is not None:
        features = {"info": {"features": {"label": {"names": classes}}}}
        rows = rows.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(rows, name)


def make_images() -> None:
    whole = encoded("png")
    pictures("pictures")
    for folder, culprit in {
        "zero_bytes": b"",
        "truncated": whole[:-30],
        "text": b"this is no image\n",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EOF\n",
        "bomb": png_header(100_000, 100_000),
        "huge": png_header(20_000, 5_000),
        "thin": encoded("png", size=(60_000, 1)),
    }.items():
        pictures(folder, culprit)
    pictures("floats")
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save("floats/cat/1.tiff")
    pictures("unequal", encoded("png", size=(9, 8)))
    pictures("jpeg", encoded("jpg", size=(64, 64))[:200], "dog/1.jpg")
    pictures("one_class")
    shutil.rmtree("one_class/dog")
    pictures("one_image", whole, "cat/1.png")
    for number in (0, 2):
        Path(f"one_image/dog/{number}.png").unlink()
    pictures("split", splits=("train", "test"))
    pictures("split_unequal", encoded("png", size=(9, 8)), "cat/1.png", splits=("train", "test"))
    pictures("unknown_class", splits=("train", "val"))
    Path("unknown_class/val/cow").mkdir()
    pictures("not_text")
    os.rename("not_text/cat", b"not_text/caf\xe9")
    Path("file").touch()
    Path("empty").mkdir()


def make_tables() -> None:
    image = encoded("png")
    four, pairs = [image] * 4, [0, 1] * 2
    table("sound.parquet", four, pairs)
    whole = Path("sound.parquet").read_bytes()
    Path("cut.parquet").write_bytes(whole[: len(whole) // 2])
    Path("zero.parquet").touch()
    table("above.parquet", four, [0, 1, 2, 1], ["cat", "dog"])
    table("below.parquet", four, [0, 1, -1, 1], ["cat", "dog"])
    table("one.parquet", four, [1] * 4)
    table("missing.parquet", [image, None, image, image], pairs)
    table("unlabelled.parquet", four, [0, 1, None, 1])
    table("bomb.parquet", [image, image, png_header(100_000, 100_000), image], pairs)
    table("cut_image.parquet", [image, image, image[:-30], image], pairs)
    table("script.parquet", [image, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", image, image], pairs)
    table("pixels.parquet", [[0.5, float("nan")]] * 4, pairs)
    table("float.parquet", four, [0.0, float("nan"), 1.0, 1.0])
    table("no_rows.parquet", pa.array([], pa.binary()), pa.array([], pa.int64()))


def make_networks() -> None:
    write_arch(TINY, "tiny.yaml")
    write_arch(replace(TINY, in_channels=3), "colour.yaml")
    text = Path("tiny.yaml").read_text()
    Path("cut.yaml").write_text(text[: text.index("stages")] + "stages: [")
    Path("zero.yaml").touch()
    Path("latin.yaml").write_bytes(b"# caf\xe9\n" + text.encode())
    Path("bomb.yaml").write_text(aliases())
    Path("itself.yaml").write_text("stem: &a\n  channels: *a\nstages: []\n")
    Path("object.yaml").write_text("!!python/object/apply:os.system ['touch ran']\n")
    Path("date.yaml").write_text("stem: 2024-99-99\nstages: []\n")
    for name, field, value in (
        ("wide", "head_channels", 2**30),
        ("many", "classes", 2**30),
        ("far", "resolution", 2**30),
    ):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(TINY.to_dict() | {field: value}))
    state = build(TINY, 0).state_dict()
    save_weights(state, "tiny.safetensors", {})
    whole = Path("tiny.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[:-100])
    Path("zero.safetensors").touch()
    Path("tensors.txt").write_bytes(whole)
    Path("folder.pt").mkdir()
    torch.save({**state, "code": Ran()}, "code.pt")
    torch.save({**state, "classifier.bias": torch.full_like(state["classifier.bias"], torch.nan)}, "nan.pt")
    torch.save([1, 2], "list.pt")
    for name, change in {
        "sound": {},
        "nan": {"constants": {"alpha": float("nan"), "beta": 1.1, "gamma": 1.1}},
        "text": {"constants": {"alpha": "much", "beta": 1.1, "gamma": 1.1}},
        "two": {"constants": {"alpha": 1.2, "beta": 1.1}},
        "rounded": {"rounding": "up"},
        "no_phi": {"phi": None},
        "no_baseline": {"baseline": {"stem": {}}},
        "evidence": {"evidence": [1]},
    }.items():
        write_scaling(Scaling(Coefficients(1.3, 1.1, 1.1), 1, "nearest", TINY, {}), f"scaling_{name}.yaml")
        content = yaml.safe_load(Path(f"scaling_{name}.yaml").read_text()) | change
        Path(f"scaling_{name}.yaml").write_text(yaml.safe_dump(content))


def aliases() -> str:
    """Ten lines that stand for 10^9 values."""
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return "\n".join([*lines, "stem: *a8", "stages: []", ""])


class Ran:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("ran",)


EVIL = """
from pathlib import Path

Path("ran").touch()


def load(**settings):
    raise RuntimeError("it was run")


load_test = Space = load
"""


def make_runs() -> None:
    """A run of each command that can go on, and copies of them that are damaged."""
    train.main([*SOUND["phinas.train"].split(), "name=trained"])
    search.main([*SOUND["nas.search"].split(), "name=searched"])
    proxy_check.main([*SOUND["nas.proxy_check"].split(), "name=checked"])
    grid.main([*SOUND["scaling_search.grid"].split(), "name=scaled"])

    def copied(name: str, new: str) -> Path:
        shutil.copytree(f"runs/{name}", f"runs/{new}")
        return Path("runs", new)

    journal = copied("searched", "damaged") / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"number":1', b'"number":7'))
    journal = copied("searched", "doubled") / "journal.jsonl"
    first, second, *rest = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([first, second, second, *rest]))
    version = copied("searched", "newer") / "journal.jsonl"
    head = json.dumps({"journal": 99, "settings": {}}, separators=(",", ":"))
    version.write_text(f'{head[:-1]},"crc":{zlib.crc32(head.encode())}}}\n')
    (copied("searched", "binary") / "journal.jsonl").write_bytes(bytes(range(256)) + b"\n")
    for name, content in {
        "config_list": b"- 1\n",
        "config_cut": b"a: [",
        "config_latin": b"a: caf\xe9\n",
        "config_bomb": aliases().encode(),
    }.items():
        (copied("searched", name) / "config.yaml").write_bytes(content)
    for group, name in (("space", "Space"), ("evaluator", "load")):
        evil(copied("searched", f"evil_{group}"), {group: {"_target_": f"evil.{name}"}})
    evil(copied("searched", "shell"), {"space": {"_target_": "os.system", "command": "touch ran"}})
    evil(copied("searched", "nested"), {"evaluator": {"_target_": "nas.evaluators.synthetic.Synthetic", "epochs": 2,
                                                      "noise": {"_target_": "evil.load"}}})  # fmt: skip
    evil(copied("searched", "computed"), {"space": {"_target_": "search_spaces.mnasnet.MnasNet",
                                                    "kernels": "${oc.create:'{_target_: evil.load}'}"}})  # fmt: skip

    link = copied("searched", "linked") / "trials.csv"
    link.unlink()
    link.symlink_to("../../tiny.yaml")
    lock = copied("searched", "lock_linked") / ".lock"
    lock.unlink()
    lock.symlink_to("../../tiny.yaml")

    checkpoints = copied("trained", "spoilt") / "checkpoints"
    for file in checkpoints.glob("*.pt"):
        file.write_bytes(file.read_bytes()[:-1])
    Path("runs/spoilt/summary.json").unlink()
    (copied("trained", "unlisted") / "checkpoints/checkpoints.json").write_text('{"checkpoints": [')
    (copied("trained", "deep") / "checkpoints/checkpoints.json").write_text("[" * 100_000)
    for name, file in (("elsewhere", "../../../tiny.yaml"), ("coded", None)):
        listed = copied("trained", name) / "checkpoints/checkpoints.json"
        content = json.loads(listed.read_text())
        (listed.parents[1] / "summary.json").unlink()
        for one in content["checkpoints"]:
            if file is None:
                torch.save({"step": 1, "epochs": 0, "module": Ran()}, listed.parent / one["file"])
                one |= train.file_source(listed.parent / one["file"]) | {"file": one["file"]}
            else:
                one["file"] = file
        listed.write_text(json.dumps(content))
    (copied("trained", "summary") / "summary.json").write_text("[" * 100_000)
    metrics = copied("trained", "metrics") / "metrics.csv"
    metrics.write_text(metrics.read_text().replace(",", ";"))
    (metrics.parent / "summary.json").unlink()
    evil(copied("trained", "evil_data"), {"data": {"_target_": "evil.load", "path": "."}})
    (copied("trained", "no_class") / "model.yaml").write_text("classes: 3\n")

    for name, content in {"garbage": b"what is this?", "cut": Path("runs/scaled/study.db").read_bytes()[:5000]}.items():
        (copied("scaled", f"study_{name}") / "study.db").write_bytes(content)
    with closing(sqlite3.connect(copied("scaled", "study_newer") / "study.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    Path("runs/study_other").mkdir()
    optuna.create_study(storage="sqlite:///runs/study_other/study.db", study_name="mine")

    for name, file, text in (
        ("family", "summary.json", '{"settings": {}}'), ("family_deep", "summary.json", "[" * 100_000),
        ("family_zero", "summary.json", ""), ("transfer", "settings.json", "[1]"),
        ("transfer_deep", "settings.json", "[" * 100_000), ("other", "config.yaml", "space: mnasnet\n"),
    ):  # fmt: skip
        Path("runs", name).mkdir()
        Path("runs", name, file).write_text(text)
    Path("runs/rows").mkdir()
    Path("runs/rows/settings.json").write_text("{}")
    Path("runs/rows/results.csv").write_bytes(b"data,model\0\n\xff,")
    Path("runs/plain").touch()
    Path("in_the_way").mkdir()
    Path("in_the_way/runs").touch()
    Path("refused").mkdir()
    Path("refused/runs").symlink_to("/proc")  # where nobody can make a folder, root neither
    for folder in ("in_the_way", "refused"):
        shutil.copy("tiny.yaml", folder)


def evil(run: Path, change: dict[str, Any]) -> None:
    """The configuration of a run that somebody sent."""
    content = yaml.safe_load((run / "config.yaml").read_text()) | change
    (run / "config.yaml").write_text(yaml.safe_dump(content))


def make_options() -> None:
    Path("evil.py").write_text(EVIL)
    for name, text in {
        "deep.json": "[" * 100_000,
        "cut.json": '{"00000000": {"mean_acc": ', "list.json": "[]", "percent.json": '{"00000000": {"mean_acc": 101}}',
        "archive.tar.gz": "no archive",
    }.items():  # fmt: skip
        Path(name).write_text(text)
    own = Path("own/experiment")
    own.mkdir(parents=True)
    text = (
        "# @package _global_\ndefaults:\n  - override /evaluator: synthetic\n  - override /engine: inline\n"
        "budget: 3\nname: compared\nexperiment:\n  controllers: [random, rl]\n"
    )
    (own / "front.yaml").write_text(text.replace("budget", "front: [macs]\nbudget"))
    for name, content in (("cut", b"space: ["), ("latin", b"# caf\xe9\n_target_: a.B\n"), ("bare", b"width: 3\n")):
        Path(f"own_{name}/space").mkdir(parents=True)
        Path(f"own_{name}/space/mine.yaml").write_bytes(content)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder with everything that rows name; runs/held is in use."""
    folder = tmp_path_factory.mktemp("spoilt")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        make_images()
        make_tables()
        make_networks()
        make_options()
        make_runs()
    with locked(folder / "runs/held"):
        yield folder


# ------------------------------------------------------------------------------------------------------------ the table

# By command: what is typed, and what the one line must say.
ROWS: dict[str, list[tuple[str, str]]] = {
    "nas.search": [
        # types and ranges
        ("target_flops=-1", "target_flops=-1: it must be a number above 0"),
        ("target_flops=0", "target_flops=0: it must be a number above 0"),
        ("target_flops=many", "target_flops=many: it must be a number above 0"),
        ("target_flops=null", "target_flops=null, and there is no other target, limit or front"),
        ("target_flops=inf", "target_flops=inf: it must be a number above 0"),
        ("target_flops=1e400", "target_flops=inf: it must be a number above 0"),
        ("budget=0", "budget=0: it must be a whole number, 1 or more"),
        ("budget=1.5", "budget=1.5: it must be a whole number"),
        ("budget=true", "budget=True: it must be a whole number"),
        ("budget=[3", "budget=[3: not an option of the form key=value"),
        ("seed=-1", "seed=-1: it must be a whole number, 0 or more"),
        ("seed=99999999999999999999", "seed=99999999999999999999: it must be a whole number"),
        ("refuse_above=0", "refuse_above=0: it must be a number above 0"),
        ("refuse_above=0.0001", "no network within limits and refuse_above"),
        ("halving.eta=1", "halving.eta=1: it must be a whole number, 2 or more"),
        ("halving.eta=many", "halving.eta=many: it must be a whole number"),
        ("halving=3", "halving=3: it must be null, or have grace and eta"),
        ("evaluator.noise=7", "evaluator.noise=7: it must be a number 0 or more and below 0.25"),
        ("evaluator.seconds=nan", "evaluator.seconds=nan: it must be a number 0 or more"),
        ("controller=evolution controller.population=0", "controller.population=0: it must be a whole number"),
        ("controller=evolution controller.population=many", "controller.population=many: it must be a whole number"),
        ("controller=bayesian controller.start=1", "controller.start=1: it must be a whole number, 2 or more"),
        ("controller=rl controller.clip=1", "controller.clip=1: it must be a number above 0 and below 1"),
        ("controller=rl controller.hidden=1000000000", "controller.hidden=1000000000: it must be a whole number, from"),
        ("controller=rl controller.embedding=1000000000", "controller.embedding=1000000000: it must be a whole number"),
        ("evaluator=proxy evaluator.recipe.optimizer=magic", "optimizer=magic: it must be one of sgd, rmsprop, adamw"),
        ("evaluator=proxy evaluator.recipe.lr=0", "lr=0: it must be a number above 0"),
        ("evaluator=proxy evaluator.recipe.epochs=0", "epochs=0: it must be a whole number, 1 or more"),
        ("evaluator=proxy evaluator.recipe.batch_size=1.5", "batch_size=1.5: it must be a whole number, 2 or more"),
        ("evaluator=proxy evaluator.resolution=0", "evaluator.resolution=0: it must be a whole number"),
        ("evaluator=proxy evaluator.resolution=1000000", "evaluator.resolution=1000000: it must be a whole number, fr"),
        ("evaluator=proxy data.val_fraction=1", "data.val_fraction=1: it must be a number above 0 and below 1"),
        ("space.kernels=[]", "kernels must be a list of one or more"),
        ("space.kernels=3", "kernels must be a list of one or more"),
        ("space.kernels=[2]", "kernel must be odd, got 2"),
        ("space.classes=0", "classes must be a whole number, 1 or more, got 0"),
        ("space.resolution=99999999999", "resolution must be below 2^31, got 99999999999"),
        ("reward.exponent=many", "reward=mnas_soft, reward.exponent=many: must be real number, not str"),
        ("engine=ray engine.workers=0", "engine.workers=0: it must be a whole number, 1 or more"),
        ("engine=ray engine.workers=many", "engine.workers=many: it must be a whole number, 1 or more"),
        ("engine=ray engine.cpus_per_trial=0", "engine.cpus_per_trial=0: it must be a number above 0"),
        ("engine=ray engine.address=127.0.0.1:1", "engine.address=127.0.0.1:1: no Ray cluster answers there"),
        ("device=cpu device.threads=100000000000 targets.latency=1", "threads=100000000000: it must be a whole number"),
        ("device=cpu device.threads=1e11 targets.latency=1", "threads=100000000000.0: it must be a whole number, from"),
        # what there is not
        ("space=nowhere", "space=nowhere: there is no such space; allowed: custom, efficientnet, mnasnet, nasbench_"),
        ("controller=genius", "controller=genius: there is no such controller; allowed: bayesian, "),
        ("evaluator=oracle", "evaluator=oracle: there is no such evaluator; allowed: accel_nasbench, "),
        ("engine=steam", "engine=steam: there is no such engine; allowed: inline, ray"),
        ("reward=fame", "reward=fame: there is no such reward; allowed: absolute, "),
        ("data=dreams", "data=dreams: there is no such data; allowed: digits, imagefolder, parquet"),
        ("space=null", "space=null: it must name one space of custom, efficientnet, mnasnet, nasbench_macro"),
        ("engine=null", "engine=null: it must name one engine of inline, ray"),
        ("space=[mnasnet]", "space=[mnasnet]: it must name one space of custom, "),
        ("controler=random", "unknown option 'controler'; did you mean controller? allowed: "),
        ("budgets=3", "unknown option 'budgets'; did you mean budget?"),
        ("controller.mood=3", "controller.mood: controller has no mood; it has _target_"),
        ("space.wings=3", "space.wings: space has no wings; it has _target_, resolution, "),
        ("evaluator=proxy evaluator.recipe.wings=3", "evaluator.recipe.wings: evaluator.recipe has no wings; it has"),
        ("+controller.mood=3", "controller: Bayesian.__init__() got an unexpected keyword argument 'mood'"),
        ("+reward.mood=3", "reward: got an unexpected keyword argument 'mood'"),
        ("engine=ray +engine.mood=3", "engine: engine() got an unexpected keyword argument 'mood'"),
        ("space._target_=nowhere.Space", "space: Error loading 'nowhere.Space'"),
        ("space._target_=pathlib.Path", "space=pathlib.Path: 'PosixPath' object has no attribute 'decisions'"),
        ("reward._target_=math.nothing", "reward: Error loading 'math.nothing'"),
        ("~space", "~space: options can be set, not deleted"),
        ("~budget", "~budget: options can be set, not deleted"),
        ("+mood=3", "unknown option 'mood'; allowed: space, controller, "),
        ("hydra.verbose=true", "hydra.verbose=true: options can be set, not deleted, and Hydra's own are not for sett"),
        ("--budget 3", "unrecognized arguments: --budget 3"),
        ("justaword", "justaword: not an option of the form key=value"),
        ("name='caf\udce9'", "name=caf\\udce9: not UTF-8 text"),
        ("--config-dir nowhere", "--config-dir nowhere: no such folder"),
        ("--config-dir own_cut space=mine", "expected the node content, but found '<stream end>' in"),
        ("--config-dir own_latin space=mine", "own_latin/space/mine.yaml: not UTF-8 text (byte 5)"),
        ("--config-dir own_bare space=mine", "space=mine: its YAML has no _target_"),
        # options that do not go together
        ("controller=rl front=[macs]", "controller=rl cannot search for a front; those that can: bayesian, "),
        ("--config-dir own experiment=front", "controller=rl cannot search for a front; those that can: bayesian, "),
        ("target_flops=null refuse_above=2 limits.macs=1e9", "refuse_above=2 is times target_flops, and there is none"),
        ("evaluator=proxy data=imagefolder data.path=pictures data.stream=true", "data.stream=true: this command hold"),
        # names and folders
        ("name=../out", "name=../out: a run's name has letters, digits, '.', '_' and '-' only, and no folders"),
        ("name=a/b", "name=a/b: a run's name has letters"),
        ("name=.", "name=.: a run's name has letters"),
        (f"name={'n' * 101}", "a run's name has letters"),
        ("name=plain", "name=plain: runs/plain is there already, and no folder"),
        ("name=held", "runs/held is in use by process"),
        ("name=linked", "runs/linked/trials.csv is a link; what is in a run's folder must be its own"),
        ("name=lock_linked", "runs/lock_linked/.lock is a link"),
        ("name=trained", "name=trained: runs/trained holds another command's results; give another name="),
        ("name=scaled", "name=scaled: runs/scaled holds another command's results; give another name="),
        ("name=checked", "runs/checked/journal.jsonl is of nas.proxy_check; give another name="),
        ("name=searched seed=1", "runs/searched/journal.jsonl was started with seed=0 (now 1); give another name="),
        ("name=damaged", "runs/damaged/journal.jsonl, line 3 is damaged"),
        ("name=doubled", "runs/doubled/journal.jsonl, line 3 is damaged"),
        ("name=binary", "runs/binary/journal.jsonl, line 1 is damaged"),
        ("name=newer", "runs/newer/journal.jsonl, line 1: a journal of version 99, of a later release or damaged; thi"),
        ("name=config_list", "runs/config_list/config.yaml: damaged: it is no configuration of a run"),
        ("name=config_cut", "runs/config_cut/config.yaml: not YAML: "),
        ("name=config_latin", "runs/config_latin/config.yaml: not UTF-8 text (byte 6)"),
        ("name=config_bomb", "runs/config_bomb/config.yaml: not YAML: its aliases stand for more than 1,000,000 value"),
        # images
        (f"{PHOTOS}=nowhere", "nowhere: no such file or folder"),
        (f"{PHOTOS}=3", "data.path=3: it must be the name of a file or folder"),
        (f"{PHOTOS}={'p' * 5000}", "p: File name too long"),
        ("evaluator=proxy data=parquet", "data.path is missing"),
        (f"{PHOTOS}=file", "file: not a folder; it must hold one folder of images per class"),
        (f"{PHOTOS}=empty", "empty: no class folders in it"),
        (f"{PHOTOS}=zero_bytes", "zero_bytes/cat/1.png: not a readable image (none of PNG, JPEG, "),
        (f"{PHOTOS}=truncated", "truncated/cat/1.png: not a readable image ("),
        (f"{PHOTOS}=text", "text/cat/1.png: not a readable image (none of PNG, "),
        (f"{PHOTOS}=postscript", "postscript/cat/1.png: not a readable image (none of PNG, "),
        (f"{PHOTOS}=jpeg", "jpeg/dog/1.jpg: not a readable image ("),
        (f"{PHOTOS}=bomb", "bomb/cat/1.png: too many pixels; an image may have 67,108,864, as 8192 x 8192 has"),
        (f"{PHOTOS}=huge", "huge/cat/1.png: 20000 x 5000 pixels; an image may have 67,108,864"),
        (f"{PHOTOS}=thin data.resolution=2000", "thin/cat/1.png: not a readable image (60000 x 1 cannot be resized"),
        (f"{PHOTOS}=floats", "floats/cat/1.tiff: floating-point pixels; convert the image to 8 bits per channel"),
        (f"{PHOTOS}=unequal", "unequal/cat/1.png: 9 x 8 pixels, but unequal/cat/0.png has 8 x 8; set resolution"),
        (f"{PHOTOS}=one_class", "one_class: all images are of one class; there must be two or more"),
        (f"{PHOTOS}=one_image", "one_image: class 'dog' has one image; two or more are needed"),
        (f"{PHOTOS}=unknown_class", "unknown_class/val/cow: no such class in the training split (cat, dog)"),
        (f"{PHOTOS}=not_text", "not_text/caf\\udce9: the name of a class must be UTF-8 text"),
        (f"{PHOTOS}=pictures data.limit=3", "data.limit=3: two images of each class in pictures are 4"),
        (f"{PHOTOS}=pictures data.mean=[nan,0,0] data.std=[1,1,1]", "data.mean=nan: it must be a number 0 or more and"),
        (f"{PHOTOS}=pictures data.mean=[1,2,3]", "data.mean=[1, 2, 3] and data.std=None: give both, or neither"),
        (f"{PHOTOS}=pictures data.resolution=100000", "data.resolution=100000: it must be 4096 pixels or less"),
        # tables
        (f"{TABLE}=nowhere", "nowhere: no such file or folder"),
        (f"{TABLE}=empty", "empty: no .parquet files in this folder"),
        (f"{TABLE}=zero.parquet", "zero.parquet: cannot be read as parquet"),
        (f"{TABLE}=cut.parquet", "cut.parquet: cannot be read as parquet"),
        (f"{TABLE}=tiny.yaml", "tiny.yaml: cannot be read as parquet"),
        (f"{TABLE}=no_rows.parquet", "no_rows.parquet: no rows"),
        (f"{TABLE}=sound.parquet data.label_column=kind", "sound.parquet: no label column kind; the columns are image"),
        (f"{TABLE}=above.parquet", "above.parquet: label 2 is out of range; 2 classes are numbered from 0"),
        (f"{TABLE}=below.parquet", "below.parquet: label -1 is out of range; 2 classes are numbered from 0"),
        (f"{TABLE}=one.parquet", "one.parquet: all images are of one class; there must be two or more"),
        (f"{TABLE}=missing.parquet", "missing.parquet row 1: the image is missing"),
        (f"{TABLE}=unlabelled.parquet", "unlabelled.parquet row 2: the label is missing"),
        (f"{TABLE}=bomb.parquet", "bomb.parquet row 2: too many pixels; an image may have 67,108,864"),
        (f"{TABLE}=cut_image.parquet", "cut_image.parquet row 2: not a readable image ("),
        (f"{TABLE}=script.parquet", "script.parquet row 1: not a readable image (none of PNG, "),
        (f"{TABLE}=pixels.parquet", "pixels.parquet: column image holds list"),
        (f"{TABLE}=float.parquet", "float.parquet: column label holds double; labels must be integers"),
        # published results
        ("evaluator=nasbench_macro evaluator.path=empty", "empty: Is a directory; it must be the table of"),
        ("evaluator=nasbench_macro evaluator.path=zero.yaml", "zero.yaml: Expecting value: line 1 column 1 (char 0)"),
        ("evaluator=nasbench_macro evaluator.path=cut.json", "cut.json: Expecting value: line 1 column 27 (char 26)"),
        ("evaluator=nasbench_macro evaluator.path=deep.json", "deep.json: maximum recursion depth exceeded"),
        ("evaluator=nasbench_macro evaluator.path=list.json", "list.json: list indices must be integers or slices, no"),
        ("evaluator=nasbench_macro evaluator.path=percent.json", "percent.json: mean_acc=101 is no accuracy"),
        ("evaluator=nasbench_macro evaluator.path=latin.yaml", "latin.yaml: 'utf-8' codec can't decode byte 0xe9"),
        ("evaluator=accel_nasbench evaluator.path=archive.tar.gz", "archive.tar.gz: not a whole .tar.gz archive"),
        ("evaluator=accel_nasbench evaluator.path=empty", "empty: 0 files result_*.json in it, not the 5,138 of"),
    ],
    "nas.proxy_check": [
        ("networks=2", "networks=2: it must be a whole number, 3 or more"),
        ("networks=1e12", "networks=1000000000000.0: it must be a whole number"),
        ("longer.epochs=1", "longer.epochs=1: it is not longer than the proxy's 2 epochs"),
        ("trust=evil.Space", "trust=evil.Space: it goes with from="),
        ("name=searched", "name=searched: runs/searched holds another command's results; give another name="),
        ("name=held", "runs/held is in use by process"),
        ("from=runs/trained", "from=runs/trained: no journal.jsonl there; give the folder of a search"),
        ("from=runs/checked", "from=runs/checked: its journal is not a search's"),
        ("from=runs/damaged", "runs/damaged/journal.jsonl, line 3 is damaged"),
        ("from=runs/newer", "runs/newer/journal.jsonl, line 1: a journal of version 99, of a later release"),
        ("from=runs/config_list", "runs/config_list/config.yaml has no space; it is not the configuration of a search"),
        ("from=runs/config_latin", "runs/config_latin/config.yaml: not UTF-8 text (byte 6)"),
        ("from=runs/config_bomb", "runs/config_bomb/config.yaml: not YAML: its aliases stand for more than 1,000,000"),
        ("from=runs/evil_space", "runs/evil_space/config.yaml: space._target_=evil.Space is code that is not ours"),
        ("from=runs/shell", "runs/shell/config.yaml: space._target_=os.system is code that is not ours; if you know i"),
        ("from=runs/computed", "runs/computed/config.yaml: space.kernels is to be computed"),
        ("from=runs/searched space=mnasnet", "from=runs/searched brings the space of that search; leave space= out"),
    ],
    "nas.report": [
        ("", "give one folder of a search, such as runs/NAME; got 0"),
        ("runs/nowhere", "runs/nowhere: no config.yaml there; give the folder of a search, such as runs/NAME"),
        ("runs/searched pdf=a", "unknown option 'pdf'; allowed: png=FILE, trust=TARGET,..."),
        ("runs/searched png=no/where.png", "png=no/where.png: no folder no"),
        ("runs/damaged", "runs/damaged/journal.jsonl, line 3 is damaged"),
        ("runs/config_list", "runs/config_list/config.yaml has no space; it is not the configuration of a search"),
        ("runs/evil_space", "runs/evil_space/config.yaml: space._target_=evil.Space is code that is not ours"),
        ("runs/shell", "runs/shell/config.yaml: space._target_=os.system is code that is not ours; if you know it, le"),
    ],
    "nas.selftest": [
        ("corrupted=-1", "corrupted=-1: it must be a whole number, 0 or more"),
        ("only=[moon]", "only=['moon']: it must be a list of torn, "),
        ("only=[workers]", "workers needs a Ray of its own, and engine=inline has none"),
        ("name=searched", "name=searched: runs/searched holds another command's results; give another name="),
        ("name=held", "runs/held is in use by process"),
    ],
    "scaling_search.grid": [
        ("phi=100", "phi=100: it must be a number above 0 and below 20"),
        ("phi=nan", "phi=nan: it must be a number above 0"),
        ("tolerance=-1", "tolerance=-1: it must be a number 0 or more and below 1"),
        ("lattice.step=0", "lattice.step=0: it must be a number 0.001 or more"),
        ("lattice.step=1e-9", "lattice.step=1e-09: it must be a number 0.001 or more"),
        ("lattice.alpha=[2,1]", "lattice.alpha=[2,1]: the highest is below the lowest"),
        ("lattice.alpha=2", "lattice.alpha=2: it must be [lowest,highest]"),
        ("seeds=99999999999999999999", "seeds=99999999999999999999: it must be a whole number"),
        ("baseline=cut.yaml", "cut.yaml: not YAML: "),
        ("baseline=bomb.yaml", "bomb.yaml: not YAML: its aliases stand for more than 1,000,000 values"),
        ("baseline=runs/no_class/model.yaml", "runs/no_class/model.yaml: stem must be a mapping of fields, got None"),
        ("evaluator=proxy_own_size data=parquet data.path=bomb.parquet", "bomb.parquet row 2: too many pixels"),
        ("name=held", "runs/held is in use by process"),
        ("name=searched", "name=searched: runs/searched holds another command's results; give another name="),
        ("name=study_garbage", "runs/study_garbage/study.db is no study of Optuna's (file is not a database)"),
        ("name=study_cut", "runs/study_cut/study.db is no study of Optuna's (database disk image is malformed)"),
        ("name=study_newer", "runs/study_newer/study.db: The runtime optuna version"),
        ("name=study_other", "runs/study_other/study.db holds no study of scaling constants; give another name="),
    ],
    "scaling_search.compare": [
        ("factors=[nan]", "factors=nan: it must be a number above 1"),
        ("factors=[1e300]", "factors=1e+300: it must be a number above 1 and below 1000"),
        ("scaling=scaling_nan.yaml", "scaling_nan.yaml: alpha=nan: it must be a number 1 or more"),
        ("scaling=zero.yaml", "zero.yaml: it is no mapping of fields"),
        ("scaling=latin.yaml", "latin.yaml: not UTF-8 text (byte 5)"),
        ("name=scaled", "runs/scaled/study.db is a study of scaling_search.grid; give another name="),
        ("name=held", "runs/held is in use by process"),
    ],
    "phinas.generate": [
        ("export=[onnx,onnx]", "export=[onnx,onnx]: onnx is there twice"),
        ("export=all weights=code.pt", "code.pt: holds more than tensors, which might run code; save its state dict a"),
        ("export=all weights=nan.pt", "weights=nan.pt: classifier.bias holds numbers that are not finite"),
        ("export=all weights=list.pt", "list.pt: holds no state dict, alone or under"),
        ("export=all weights=folder.pt", "folder.pt: Is a directory"),
        ("export=all weights=zero.safetensors", "zero.safetensors: damaged, or of another format"),
        ("export=all weights=cut.safetensors", "cut.safetensors: damaged, or of another format"),
        ("export=all weights=tensors.txt", "tensors.txt: weights are read from .safetensors, .pt, .pth and .bin files"),
        ("export=all weights=tiny.safetensors classes=7", "tiny.safetensors: 10 classes, the network has 7"),
        ("baseline=zero.yaml", "zero.yaml: a network is a mapping of fields, got NoneType"),
        ("baseline=cut.yaml", "cut.yaml: not YAML: "),
        ("baseline=latin.yaml", "latin.yaml: not UTF-8 text (byte 5)"),
        ("baseline=bomb.yaml", "bomb.yaml: not YAML: its aliases stand for more than 1,000,000 values"),
        ("baseline=itself.yaml", "itself.yaml: not YAML: its aliases stand for more than 1,000,000 values"),
        ("baseline=object.yaml", "object.yaml: not YAML: could not determine a constructor for the tag"),
        ("baseline=date.yaml", "date.yaml: not YAML: "),
        ("baseline=/proc/self/mem", "/proc/self/mem: Input/output error"),
        ("baseline=wide.yaml export=weights", "export=weights of wide_phi0: its 21,474,837,058 parameters take 80.0"),
        ("scaling=scaling_nan.yaml", "scaling_nan.yaml: alpha=nan: it must be a number 1 or more"),
        ("scaling=scaling_text.yaml", "scaling_text.yaml: alpha=much: it must be a number 1 or more"),
        ("scaling=scaling_two.yaml", "scaling_two.yaml: constants must be alpha, beta and gamma"),
        ("scaling=scaling_rounded.yaml", "scaling_rounded.yaml: rounding=up: it must be one of "),
        ("scaling=scaling_no_phi.yaml", "scaling_no_phi.yaml: phi=None: it must be a number above 0"),
        ("scaling=scaling_no_baseline.yaml", "scaling_no_baseline.yaml: stages must be a list"),
        ("scaling=scaling_evidence.yaml", "scaling_evidence.yaml: evidence=[1]: it must be a mapping"),
        ("scaling=tiny.yaml", "tiny.yaml: it has no constants"),
        ("phi=1e300", "phi=1e+300: with scaling=paper, phi goes from 0 to"),
        ("phi=[0,0.0]", "phi=[0, 0.0]: one of them is there twice"),
        ("batch_size=1000000000000000000000", "batch_size=1000000000000000000000: it must be a whole number"),
        ("measure=true device=cpu device.threads=100000000000", "threads=100000000000: it must be a whole number, fro"),
        ("measure=true device=cpu device.seconds=inf", "seconds=inf: it must be a number above 0 and below 86400"),
        ("name=family", "name=family: runs/family holds another command's results; give another name="),
        ("name=family_deep", "name=family_deep: runs/family_deep holds another command's results"),
        ("name=family_zero", "name=family_zero: runs/family_zero holds another command's results"),
        ("name=held", "runs/held is in use by process"),
    ],
    "phinas.measure": [
        ("device.threads=100000000000", "threads=100000000000: it must be a whole number, from 1 to 1024"),
        ("device.threads=0", "threads=0: it must be a whole number, from 1 to 1024"),
        ("device.seconds=nan", "seconds=nan: it must be a number above 0"),
        ("device.spread=-1", "spread=-1: it must be a number 0 or more"),
        ("batch_size=[1,1]", "batch_size: 1 is there twice"),
        ("batch_size=1000000000000000", "model=tiny.yaml: out of memory at batch 1000000000000000 on cpu"),
        ("model=wide.yaml", "model=wide.yaml: its 21,474,837,058 parameters take 80.0 GiB, and the memory is"),
        ("model=many.yaml", "model=many.yaml: its 18,253,611,736 parameters take 68.0 GiB, and the memory is"),
        ("model=far.yaml", "model=far.yaml: out of memory at batch 1 on cpu"),
        ("model=empty", "empty: Is a directory"),
        ("model=latin.yaml", "latin.yaml: not UTF-8 text (byte 5)"),
        ("model=bomb.yaml", "bomb.yaml: not YAML: its aliases stand for more than 1,000,000 values"),
        (f"model={'m' * 5000}.yaml", "File name too long"),
        ("name=held", "name=held: runs/held is there already; give another name="),
    ],
    "phinas.train": [
        ("recipe.epochs=0", "recipe.epochs=0: it must be a whole number, 1 or more"),
        ("recipe.batch_size=0", "recipe.batch_size=0: it must be a whole number, 2 or more"),
        ("recipe.lr=nan", "recipe.lr=nan: it must be a number above 0"),
        ("recipe.crop=perhaps", "recipe.crop=perhaps: it must be true or false"),
        ("checkpoint_seconds=nan", "checkpoint_seconds=nan: it must be a number 0 or more"),
        ("engine.cpus_per_worker=100000000000", "engine.cpus_per_worker=100000000000: it must be a whole number, from"),
        ("engine.address=auto", "engine.address=auto: one worker trains here; it takes engine.workers=2"),
        ("resolution=1000000", "the data's 1618 images do not fit into the memory of cpu at 1000000 pixels"),
        ("model=wide.yaml", "model=wide.yaml: its 21,474,837,058 parameters take 80.0 GiB, and the memory is"),
        ("model=cut.yaml", "cut.yaml: not YAML: "),
        ("from=code.pt", "code.pt: holds more than tensors, which might run code; save its state dict alone"),
        ("from=nan.pt", "from=nan.pt: classifier.bias holds numbers that are not finite"),
        ("from=zero.safetensors", "zero.safetensors: damaged, or of another format"),
        ("from=runs/searched", "runs/searched/weights.safetensors: No such file or directory"),
        (f"model=colour.yaml {PICTURES} data.path=bomb", "bomb/cat/1.png: too many pixels; an image may have 67,108,8"),
        (f"model=colour.yaml {PICTURES} data.path=zero_bytes", "zero_bytes/cat/1.png: not a readable image"),
        (f"model=colour.yaml {PICTURES} data.path=floats", "floats/cat/1.tiff: floating-point pixels"),
        (f"model=colour.yaml {PICTURES} data.path=one_class", "one_class: all images are of one class"),
        (f"model=colour.yaml {PICTURES} data.path=split_unequal data.stream=false", "split_unequal/train/cat/1.png: 9"),
        (f"{PICTURES} data.loaders=-1", "data.loaders=-1: it must be a whole number, 0 or more"),
        ("name=spoilt", "damaged: its SHA-256 is not the one in checkpoints.json, and no other is whole; remove"),
        ("name=unlisted", "runs/unlisted/checkpoints/checkpoints.json: damaged; remove runs/unlisted/checkpoints to b"),
        ("name=deep", "runs/deep/checkpoints/checkpoints.json: damaged"),
        ("name=elsewhere", "runs/elsewhere/checkpoints/checkpoints.json: damaged"),
        ("name=coded", "holds something else than tensors and numbers (which might run code), and no other is whole"),
        ("name=summary", "runs/summary/summary.json: damaged; remove it, and the same command makes it again"),
        ("name=metrics", "runs/metrics/metrics.csv: damaged; remove it to go on without the epochs before"),
        ("name=config_latin", "runs/config_latin/config.yaml: not UTF-8 text (byte 6)"),
        ("name=held", "runs/held is in use by process"),
        ("name=linked", "runs/linked/trials.csv is a link"),
    ],
    "phinas.transfer": [
        ("sets.up/down=digits", "sets.up/down=digits: not an option of the form key=value"),
        ("sets.x=truncated", "truncated/cat/1.png: not a readable image (none of PNG, "),
        ("sets.x=bomb.parquet", "sets.x: bomb.parquet row 2: too many pixels; an image may have 67,108,864"),
        ("from=nan.pt model=tiny.yaml", "from=nan.pt: classifier.bias holds numbers that are not finite"),
        ("from=code.pt model=tiny.yaml", "code.pt: holds more than tensors, which might run code"),
        ("from=runs/no_class", "runs/no_class/model.yaml: stem must be a mapping of fields, got None"),
        ("name=transfer", "runs/transfer/settings.json: damaged; give another name="),
        ("name=transfer_deep", "runs/transfer_deep/settings.json: damaged; give another name="),
        ("name=rows", "name=rows: runs/rows holds another command's results; give another name="),
        ("name=searched", "name=searched: runs/searched holds another command's results; give another name="),
        ("name=held", "runs/held is in use by process"),
    ],
    "phinas.cam": [
        ("images=bomb count=9", "bomb/cat/1.png: too many pixels; an image may have 67,108,864, as 8192 x 8192 has"),
        ("images=huge/cat/1.png", "huge/cat/1.png: 20000 x 5000 pixels; an image may have 67,108,864"),
        ("images=truncated/cat/1.png", "truncated/cat/1.png: not a readable image ("),
        ("images=floats/cat/1.tiff", "floats/cat/1.tiff: floating-point pixels"),
        ("images=postscript/cat/1.png", "postscript/cat/1.png: not a readable image (none of PNG, "),
        ("images=tiny.yaml", "tiny.yaml: not a readable image (none of PNG, "),
        ("models=tiny.yaml:code.pt images=pictures", "code.pt: holds more than tensors, which might run code"),
        ("models=colour.yaml:nan.pt images=pictures", "nan.pt: not the weights of this network: stem.conv.weight is "),
        ("models=runs/no_class", "runs/no_class/model.yaml: stem must be a mapping of fields, got None"),
        ("models=runs/evil_data", "runs/evil_data/config.yaml has data._target_=evil.load, which is not run from a fi"),
        ("count=1e30", "count=1e+30: it must be a whole number"),
        ("name=searched", "runs/searched holds another command's results; give another name="),
        ("name=family_deep", "runs/family_deep holds another command's results; give another name="),
        ("name=plain", "name=plain: runs/plain is there already, and no folder"),
    ],
}  # fmt: skip

# Of every command: what a folder does that cannot be written.
PLACES = {"in_the_way": "runs is there already, and no folder", "refused": "runs/new cannot be written: "}

TABLE_OF_ALL = [(command, typed, says, ".") for command, rows in ROWS.items() for typed, says in rows]
TABLE_OF_ALL += [
    (command, "", says, place)
    for command in ("nas.search", "scaling_search.grid", "phinas.generate")
    for place, says in PLACES.items()
]


def arguments_of(command: str, typed: str) -> list[str]:
    """What makes the command right, and what makes it wrong."""
    own = shlex.split(typed)
    known = {one.split("=")[0] for one in own}
    if command != "nas.report":
        own += ["name=new"] * ("name" not in known)
    return [one for one in SOUND[command].split() if one.split("=")[0] not in known] + own


@pytest.fixture
def unmoved(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `run` changes of this process is as it was afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def rows() -> Iterator[Any]:
    """The table; of rows that say the same of other options, numbers or files, all but the first are slow."""
    rules = set()
    for command, typed, says, place in TABLE_OF_ALL:
        rule = re.sub(r"[\d.,]+", "0", says.partition(": ")[2] or says)[:24]
        marks = [pytest.mark.slow] if rule in rules else []
        rules.add(rule)
        yield pytest.param(command, typed, says, place, marks=marks, id=f"{command} {typed[:60]} {place}".rstrip(". "))


@pytest.mark.usefixtures("unmoved")
@pytest.mark.parametrize(("command", "typed", "says", "place"), list(rows()))
def test_one_line_says_what_is_wrong_and_nothing_is_written(
    spoilt: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
    typed: str,
    says: str,
    place: str,
) -> None:
    monkeypatch.chdir(spoilt / place)
    monkeypatch.setattr(sys, "argv", [command, *arguments_of(command, typed)])
    before = states(spoilt)
    with pytest.raises(SystemExit) as exit:
        run(command_module(command).main)
    output, errors = capfd.readouterr()
    assert errors.startswith("error: ") and errors.count("\n") == 1 and errors.endswith("\n")
    assert says in errors and len(errors) < 800 + len(typed)
    assert exit.value.code == 2 and "Traceback" not in output
    assert states(spoilt) == before


@pytest.mark.parametrize(
    ("command", "typed", "says"),
    [
        ("nas.search", "space=nowhere", "error: space=nowhere: there is no such space; allowed: custom, "),
        ("nas.search", "name=caf\udce9", "error: name=caf\\udce9: not UTF-8 text"),
        ("phinas.generate", "export=[onnx,onnx]", "error: export=[onnx,onnx]: onnx is there twice"),
    ],
)
def test_it_is_so_in_a_process_of_its_own(
    spoilt: Path, command_environment: dict[str, str], command: str, typed: str, says: str
) -> None:
    typed_all = [sys.executable, "-m", command, *arguments_of(command, typed)]
    before = states(spoilt)
    done = subprocess.run(typed_all, cwd=spoilt, env=command_environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(says) and states(spoilt) == before
