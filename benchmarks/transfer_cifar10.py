"""Transfer on CIFAR-10: pretrained on six of its classes, fine-tuned on few images of the other four.

    python -m benchmarks.transfer_cifar10 path=FOLDER

`path` is a folder with CIFAR-10 as parquet files. Writes runs/cifar10-classes/{first,others} (parquet, disjoint
classes), trains examples/cifar10/b0_half.yaml at 24 pixels on the first as runs/cifar10-first, and transfers it to 50
images a class of the others as runs/cifar10-transfer: three seeds, beside the same network from fresh weights with
twice the epochs and a grid of its own. Tested on all 4,000 test images of the four classes. One thread, no GPU;
the same command again resumes. Prints what stands in docs/results/transfer_cifar10.md.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import torch

from phinas.files.atomic_file import write_atomically
from phinas.train import __main__ as train
from phinas.transfer import __main__ as transfer

FIRST, OTHERS = range(6), range(6, 10)  # in the order of their labels: airplane ... dog, and frog ... truck
CLASSES = Path("runs/cifar10-classes")
PRETRAINING = [
    "model=examples/cifar10/b0_half.yaml", "resolution=24", "data=parquet", f"data.path={CLASSES / 'first'}",
    "recipe=fast", "recipe.epochs=6", "recipe.batch_size=64", "recipe.early_epochs=0.5", "recipe.schedule.warmup=0.15",
    "name=cifar10-first",
]  # fmt: skip
TRANSFER = [
    "from=runs/cifar10-first", f"sets.others.path={CLASSES / 'others'}", "sets.others.limit=200", "val_fraction=0.3",
    "recipe.batch_size=32", "recipe.epochs=30", "lr=[0.03,0.1,0.3]", "weight_decay=[1e-5,1e-3]",
    "scratch=true", "scratch_epochs=60", "scratch_lr=[0.1,0.3,1.0]", "scratch_weight_decay=[1e-5,1e-3]",
    "seeds=3", "engine=inline", "name=cifar10-transfer",
]  # fmt: skip


def main() -> None:
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    torch.set_num_threads(1)
    for name, labels in (("first", FIRST), ("others", OTHERS)):
        for split in ("train", "test"):
            write_classes(Path(options["path"]), split, list(labels), CLASSES / name / f"{split}.parquet")
    if train.main(PRETRAINING) or transfer.main(TRANSFER):
        sys.exit(1)
    print(found())


def write_classes(folder: Path, split: str, labels: list[int], path: Path) -> None:
    """The images of some labels of a split, the labels counted anew from 0, with the names of their classes."""
    if path.exists():
        return
    (source,) = folder.glob(f"{split}*.parquet")
    table = pq.read_table(source)
    about = json.loads(table.schema.metadata[b"huggingface"])
    names = about["info"]["features"]["label"]["names"]
    about["info"]["features"]["label"]["names"] = [names[label] for label in labels]
    chosen = table.filter(pc.is_in(table["label"], pa.array(labels)))
    places = pc.index_in(chosen["label"], pa.array(labels)).cast(pa.int64())
    chosen = chosen.set_column(chosen.schema.get_field_index("label"), "label", places)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = io.BytesIO()
    pq.write_table(chosen.replace_schema_metadata({"huggingface": json.dumps(about)}), written)
    write_atomically(path, written.getvalue())


def found() -> str:
    """What came of it, as Markdown."""
    runs = Path("runs")
    before = json.loads((runs / "cifar10-first/summary.json").read_text())
    others = json.loads((runs / "cifar10-transfer/summary.json").read_text())["sets"]["others"]
    images = others["images"]
    lines = [
        f"`examples/cifar10/b0_half.yaml` at 24 pixels, {before['macs'] / 1e6:.1f}M MACs, was trained on the first six",
        f"classes ({before['images']['train']:,} images, {before['seconds'] / 60:.0f} minutes; test accuracy on them "
        f"{100 * before['test']['accuracy']:.2f} %),",
        f"and then on the other four: {images['train']} images to learn from, {images['held_out']} held out to choose "
        "learning rate and weight decay by,",
        f"and, once these are chosen, {images['train'] + images['held_out']} to learn from and {images['test']:,} to "
        "test on. From scratch: the same network,",
        "images and procedure from fresh weights, for twice the epochs, with a grid of its own.",
        "",
        "| start | lr | weight decay | held out | test accuracy, each seed | mean | spread |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in others["networks"]:
        each = " ".join(f"{accuracy:.4f}" for accuracy in one["test"]["seeds"])
        lines.append(
            f"| {one['start']} | {one['lr']:g} | {one['weight_decay']:g} | {one['held_out']:.4f} | {each} "
            f"| {one['test']['mean']:.4f} | {one['test']['spread']:.4f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
