"""Table 4 of arXiv 1905.11946 on one core: ResNet-152 beside EfficientNet-B1, and our forms beside plain PyTorch.

    python -m benchmarks.table4 [--seconds 10] [--core 0] [--out runs/table4.json]

Latency of one image, float32, one thread on one core. First every network is timed in every form that
`phinas.measure.backends` offers, the forms of a network side by side; its best form is the one with the least median.
Then follow, in the same process and again side by side, what is claimed:

1. ResNet-152 at 224 pixels takes at least 5.7 times as long as B1 at 240, each in its best form (paper: 0.554 s over
   0.098 s).
2. B0 and B1 in their best form are at least 2.0 times as fast as in plain PyTorch: eager, channels_last, in
   inference_mode, batch norms not folded.
3. ONNX Runtime runs B0, B1 and ResNet-152 from our file no slower than from torch.onnx's, norms folded in both.

Passes take turns in an order that is shuffled anew each round, ratios are those within rounds: what else the machine
does hits all alike. Printed are medians and quartiles. Weights are random, made like trained ones: each norm has the
statistics of what it meets, and branches add little to what passes by them. Outputs are compared with those of plain
PyTorch; the difference is the largest over logits, relative to the largest logit. Where a claim does not
hold, it says FAILS and exits 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cost_speed import processor
from phinas.measure.backends import BACKENDS, on_device, prepare
from phinas.measure.timing import Timing, timed
from phinas.networks.blocks import Block
from phinas.networks.build import build
from phinas.networks.reference import reference
from phinas.weights.inference import folded
from phinas.weights.onnx_file import onnx_runner

NETWORKS = ("efficientnet_b0", "efficientnet_b1", "resnet152")
TORCH_ONNX = "torch.onnx"
TOLERANCE, HELD_CLOSE = 1e-4, NETWORKS[:2]  # of the logits in any form
SLOWER, FASTER, NO_SLOWER = 5.7, 2.0, 0.98  # the claims; 2% is what repeats differ by


@dataclass(frozen=True)
class Form:
    """One network as one backend runs it; `difference` of its logits from those of plain PyTorch."""

    network: str
    backend: str
    run: Callable[[], Tensor]
    difference: float


def trained_like(name: str) -> nn.Module:
    net = build(reference(name), seed=0)
    draw = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over all batches
        elif isinstance(module, Block) and module.shortcut is not None:
            last = [layer for layer in module.branch.modules() if isinstance(layer, nn.BatchNorm2d)][-1]
            nn.init.constant_(last.weight, 0.25)
    with torch.no_grad():
        for _ in range(2):
            net.train()(torch.randn(8, 3, 96, 96, generator=draw))
    return on_device(net.eval(), "cpu")


def forms(name: str) -> list[Form]:
    """The network in every form, plain PyTorch first and torch.onnx's file, which is none of ours, last."""
    side = reference(name).resolution
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    images = images.to(memory_format=torch.channels_last)
    net = trained_like(name)
    calls = {backend: prepare(backend, net, images) for backend in BACKENDS}
    calls[TORCH_ONNX] = torch_onnx(net, images)
    plain = calls["eager"](images)
    return [
        Form(name, backend, partial(call, images), float((call(images) - plain).abs().max() / plain.abs().max()))
        for backend, call in calls.items()
    ]


def torch_onnx(net: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor]:
    """From the file of torch's older exporter, which is quicker and quieter than the newer; the operators are equal."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        path = Path(folder, "network.onnx")
        torch.onnx.export(
            folded(net),
            (images,),
            str(path),
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
            dynamo=False,
        )
        return onnx_runner(path)


def milliseconds(form: Form, timing: Timing) -> str:
    quartiles = f"{1e3 * timing.lower:.2f} to {1e3 * timing.upper:.2f}"
    return f"{form.network:16} {form.backend:11} {1e3 * timing.median:8.2f} ms ({quartiles}), n = {timing.passes}"


def machine() -> dict[str, Any]:
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "onnx", "onnxruntime")},
    }


def time_forms(found: Sequence[Form], seconds: float) -> tuple[Form, list[dict[str, Any]]]:
    """The best form of one network among ours, and a record of each."""
    timings = timed([form.run for form in found], "cpu", 0, seconds)
    records = []
    for form, timing in zip(found, timings, strict=True):
        close = form.network not in HELD_CLOSE or form.difference <= TOLERANCE
        print(f"{milliseconds(form, timing)}; logits within {form.difference:.1e}{'' if close else ': FAILS'}")
        what = {"network": form.network, "backend": form.backend, "difference": form.difference}
        records.append({**what, "holds": close, "timing": asdict(timing)})
    ours = [pair for pair in zip(found, timings, strict=True) if pair[0].backend in BACKENDS]
    return min(ours, key=lambda pair: pair[1].median)[0], records


def time_claim(slow: Form, fast: Form, wanted: float, seconds: float) -> dict[str, Any]:
    """A record of how many times as long as `fast` the form `slow` takes."""
    fast_timing, slow_timing = timed([fast.run, slow.run], "cpu", 0, seconds)
    ratio, title = slow_timing.ratio, f"{slow.network} {slow.backend} over {fast.network} {fast.backend}"
    holds = ratio.median >= wanted
    verdict = "holds" if holds else "FAILS"
    print(f"{title}: {ratio.median:.2f} ({ratio.lower:.2f} to {ratio.upper:.2f}); at least {wanted}: {verdict}")
    print(f"    {milliseconds(slow, slow_timing)}\n    {milliseconds(fast, fast_timing)}")
    return {"ratio": title, "wanted": wanted, "holds": holds, "slow": asdict(slow_timing), "fast": asdict(fast_timing)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10, help="that a form is timed for; twice that for ratios")
    parser.add_argument("--core", type=int, help="of the processor, to stay on; default: the last one allowed")
    parser.add_argument("--out", type=Path, default=Path("runs/table4.json"))
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    form = {(form.network, form.backend): form for name in NETWORKS for form in forms(name)}  # compiles, on any core
    core = arguments.core
    if hasattr(os, "sched_setaffinity"):
        core = max(os.sched_getaffinity(0)) if core is None else core
        os.sched_setaffinity(0, {core})
    about = machine() | {"core": core}
    print(", ".join(f"{name} {value}" for name, value in about.items()))

    best, records = {}, []
    for name in NETWORKS:
        best[name], rows = time_forms([form[name, kind] for kind in (*BACKENDS, TORCH_ONNX)], arguments.seconds)
        records += rows
    b0, b1, resnet = NETWORKS
    claims = [
        (best[resnet], best[b1], SLOWER),
        *((form[name, "eager"], best[name], FASTER) for name in (b0, b1)),
        *((form[name, TORCH_ONNX], form[name, "onnx"], NO_SLOWER) for name in NETWORKS),
    ]
    ratios = [time_claim(*claim, 2 * arguments.seconds) for claim in claims]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": about, "forms": records, "claims": ratios}, indent=1) + "\n")
    print(f"written: {arguments.out}")
    return 0 if all(one["holds"] for one in (*records, *ratios)) else 1


if __name__ == "__main__":
    sys.exit(main())
