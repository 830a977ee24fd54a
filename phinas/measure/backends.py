"""The ways to run a network for inference, and where."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from phinas.engines.threads import torch_threads
from phinas.files.checks import check_choice
from phinas.files.errors import InputError
from phinas.weights.inference import folded
from phinas.weights.onnx_file import onnx_runner, write_onnx

BACKENDS = ("eager", "folded", "compiled", "onnx")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def check_form(backend: str, kind: str, dtype: str) -> None:
    """InputError unless the backend is one of ours and runs on such a device with such numbers."""
    check_choice("backend", backend, BACKENDS)
    check_choice("dtype", dtype, DTYPES)
    if dtype == "float16" and kind == "cpu":
        raise InputError("dtype=float16: it is for CUDA; a CPU takes float32 and bfloat16")
    if backend == "onnx" and dtype != "float32":
        raise InputError(f"dtype={dtype}: backend=onnx computes in float32")


def on_device(module: nn.Module, kind: str, dtype: str = "float32", channels_last: bool = True) -> nn.Module:
    """`module` itself, moved: to the CPU or to the CUDA device, with its floating-point weights as `dtype`.

    channels_last is the fast layout on CPUs, and on GPUs with half precision; images are best laid out so too.
    """
    if kind not in ("cpu", "cuda"):
        raise InputError(f"kind={kind}: it must be cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("kind=cuda: there is no CUDA device here")
    check_form("eager", kind, dtype)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return module.to(kind, DTYPES[dtype]).to(memory_format=layout)  # type: ignore[call-overload, no-any-return]


def prepare(backend: str, module: nn.Module, images: Tensor, threads: int = 1) -> Callable[[Tensor], Tensor]:
    """What computes the logits of images by `backend`, without gradients, on a CPU with `threads` threads.

    `module` is a network in evaluation mode, on the device of `images`, with their dtype and layout; it is left as it
    is. What comes out takes images of the shape of `images`. Whatever is compiled has been compiled when this returns.

    eager     as PyTorch runs it, layer by layer.
    folded    eager, batch norms folded into convolutions.
    compiled  folded, through torch.compile; needs a C++ compiler for a CPU, Triton for a GPU.
    onnx      in ONNX Runtime, from the file that `write_onnx` writes; float32.

    Denormal numbers, which make CPUs slow, are not flushed to zero: that is a switch of the whole thread, and the
    reference networks, freshly initialised, make none.
    Raises InputError where the backend cannot run here, or not with this dtype.
    """
    check_form(backend, images.device.type, str(images.dtype).removeprefix("torch."))
    if backend == "onnx":
        return _in_onnx_runtime(module, images, threads)
    network: Callable[[Tensor], Tensor] = module if backend == "eager" else folded(module)
    if backend == "compiled":
        network = torch.compile(_own_code(network), dynamic=False)

    def run(images: Tensor) -> Tensor:
        with torch_threads(threads), torch.inference_mode():
            return network(images)

    try:
        run(images)
    except RuntimeError as error:
        if backend == "compiled" and (line := _no_compiler(error)):
            raise InputError(f"backend=compiled: torch.compile finds no compiler here ({line})") from None
        raise
    return run


def _in_onnx_runtime(module: nn.Module, images: Tensor, threads: int) -> Callable[[Tensor], Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        write_onnx(module, images, path)
        run = onnx_runner(path, threads, images.device.type)
    run(images)
    return run


def _own_code(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`network` behind a function with a code object of its own.

    torch.compile keeps what it compiles with the code object, tries one after the other at each call, and runs the
    ninth eager: without this all networks would be calls of one and the same `forward`.
    """

    def forward(images: Tensor) -> Tensor:
        return network(images)

    forward.__code__ = forward.__code__.replace()
    return forward


def _no_compiler(error: RuntimeError) -> str | None:
    """What torch.compile says where a compiler, or what it needs, is missing; None of any other error."""
    text = str(error)
    missing = ("InvalidCxxCompiler", "CppCompileError", "TritonMissing", "Failed to find C compiler")
    return text.splitlines()[0] if any(word in text for word in missing) else None
