"""B0 to B4 on a GPU: throughput and peak memory, trained and not, compiled and not, beside what our memory model says.

    python -m benchmarks.gpu_family [--models efficientnet_b0 ...] [--batch 128] [--out runs/gpu_family.md]

bfloat16 and channels_last. Inference is that of the folded form, cast to bfloat16; training is a whole step (forward,
backward, RMSProp with momentum) under autocast, weights in float32. Images are made up and lie on the device: what is
measured is the network alone. Each row is timed step by step with the device's own clock after a warm-up; memory is the
most that PyTorch had allocated during the timed steps, images and compiled graphs' buffers included. Without a CUDA
device it says so and exits 2; `--device cpu` runs the same code there, in order to try it out (without figures of
memory).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional

from benchmarks.cost_speed import processor
from phinas.files.atomic_file import write_atomically
from phinas.files.bytes import bytes_text
from phinas.files.errors import DoesNotFit
from phinas.measure.backends import on_device
from phinas.measure.timing import Timing, fits, random_images, timed
from phinas.networks.arch import Arch
from phinas.networks.build import build
from phinas.networks.memory import memory
from phinas.networks.reference import NAMES, reference
from phinas.weights.inference import folded

MODELS = [f"efficientnet_b{number}" for number in range(5)]
HEAD = "| model | px | | batch | images/s (quartiles) | steps | peak memory | our model of it | ratio |"


def inference_step(arch: Arch, batch: int, kind: str, compiled: bool) -> Callable[[], object]:
    """A forward pass of the folded network."""
    module = on_device(folded(build(arch, seed=0)), kind, "bfloat16")
    call = torch.compile(module) if compiled else module
    images = random_images(arch, kind, batch, dtype="bfloat16")

    def step() -> object:
        with torch.inference_mode():
            return call(images)

    return step


def training_step(arch: Arch, batch: int, kind: str, compiled: bool) -> Callable[[], object]:
    """Forward, backward and update."""
    module = on_device(build(arch, seed=0), kind, "float32").train()
    call = torch.compile(module) if compiled else module
    optimiser = torch.optim.RMSprop(module.parameters(), lr=1e-4, alpha=0.9, momentum=0.9, eps=1e-3)
    images, labels = random_images(arch, kind, batch), torch.randint(arch.classes, (batch,), device=kind)

    def step() -> object:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(kind, torch.bfloat16):
            loss: torch.Tensor = functional.cross_entropy(call(images), labels, label_smoothing=0.1)
        loss.backward()
        optimiser.step()
        return loss

    return step


STEPS = {"infer": inference_step, "train": training_step}


def measured(
    make: Callable[[], Callable[[], object]], batch: int, kind: str, seconds: float
) -> tuple[Timing, int | None]:
    """The time of a step, and the most bytes allocated during one (None on a CPU). Raises DoesNotFit."""
    try:
        with fits(batch, kind):
            step = make()
            for _ in range(2):  # compiles what is compiled, and makes the optimiser's state
                step()
            if kind == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            (timing,) = timed([step], kind, spread=0.0, seconds=seconds)
            return timing, torch.cuda.max_memory_allocated() if kind == "cuda" else None
    finally:
        torch.compiler.reset()


def rows(models: list[str], batch: int, kind: str, seconds: float) -> Iterator[str]:
    for name in models:
        arch = reference(name)
        for mode, make in STEPS.items():
            expected = memory(arch, batch, mode, "bfloat16", optimiser="rmsprop", ema=False).total
            for compiled in (False, True):
                what = f"{mode}{', compiled' if compiled else ''}"
                start = f"| {name} | {arch.resolution} | {what} | {batch} |"
                if kind == "cuda":
                    torch.cuda.empty_cache()
                try:
                    timing, peak = measured(partial(make, arch, batch, kind, compiled), batch, kind, seconds)
                except DoesNotFit:
                    yield f"{start} out of memory | | | {bytes_text(expected)} | |"
                    continue
                median, lower, upper = (batch / one for one in (timing.median, timing.upper, timing.lower))
                seen = "" if peak is None else bytes_text(peak)
                ratio = "" if peak is None else f"{expected / peak:.2f}"
                yield (
                    f"{start} {median:,.1f} ({lower:,.1f} to {upper:,.1f}) | {timing.passes} | {seen} "
                    f"| {bytes_text(expected)} | {ratio} |"
                )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--models", nargs="+", default=MODELS, choices=NAMES, metavar="MODEL")
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("error: there is no CUDA device here; --device cpu tries the same code on the processor", file=sys.stderr)
        return 2
    hardware = torch.cuda.get_device_name() if given.device == "cuda" else processor()
    lines = [f"{hardware}, torch {torch.__version__}, {date.today()}, bfloat16, channels_last", "", HEAD]
    lines.append("|" + "---|" * (HEAD.count("|") - 1))
    print("\n".join(lines), flush=True)
    for row in rows(given.models, given.batch, given.device, given.seconds):
        print(row, flush=True)
        lines.append(row)
    if given.out:
        write_atomically(given.out, "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
