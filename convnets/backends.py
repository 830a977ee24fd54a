"""The ways to run a network for inference, and where."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from convnets.errors import InputError
from convnets.inference import folded
from convnets.onnx_file import onnx_runner, write_onnx
from convnets.timing import torch_threads

BACKENDS = ("eager", "folded", "compiled", "onnx")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def on_device(module: nn.Module, kind: str, dtype: str = "float32", channels_last: bool = True) -> nn.Module:
    """`module` itself, moved: to the CPU or to the CUDA device, with its floating-point weights as `dtype`.

    channels_last is the fast layout on CPUs, and on GPUs with half precision; images are best laid out so too.
    """
    if kind not in ("cpu", "cuda"):
        raise InputError(f"kind={kind}: it must be cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("kind=cuda: there is no CUDA device here")
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype}: it must be one of {', '.join(DTYPES)}")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return module.to(kind, DTYPES[dtype]).to(memory_format=layout)  # type: ignore[call-overload, no-any-return]


def prepare(backend: str, module: nn.Module, images: Tensor, threads: int = 1) -> Callable[[Tensor], Tensor]:
    """What computes the logits of images of the shape of `images` by `backend`, without gradients.

    `module` is a network in evaluation mode, on the device of `images`, with their dtype and layout; it is left as it
    is. Whatever is compiled has been when this returns.

    eager     as PyTorch runs it, layer by layer.
    folded    eager, batch norms folded into convolutions.
    compiled  folded, through torch.compile for this shape; on a CPU it needs a C++ compiler.
    onnx      in ONNX Runtime, from the file that `write_onnx` writes.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend={backend}: it must be one of {', '.join(BACKENDS)}")
    if backend == "onnx":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "network.onnx")
            write_onnx(module, images, path)
            return onnx_runner(path, threads)
    network: Callable[[Tensor], Tensor] = module if backend == "eager" else folded(module)
    if backend == "compiled":
        network = torch.compile(network)

    def run(images: Tensor) -> Tensor:
        with torch_threads(threads), torch.inference_mode():
            return network(images)

    run(images)
    return run
