"""A network as an ONNX file, in the form that ONNX Runtime runs fastest, and such files run."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convnets.errors import InputError
from convnets.inference import folded

OPSET = 20


def write_onnx(module: nn.Module, images: Tensor, path: str | Path) -> None:
    """Write `module` in evaluation mode, batch norms folded, as an ONNX file: `images` -> `logits`.

    `images` [batch, channels, height, width] is an example: the file takes any batch of images of its size. It is
    checked. Raises InputError where the packages of the extra "onnx" are missing.
    """
    checker = _package("onnx.checker")
    module, images = folded(module).cpu().float(), images.detach().cpu().float().contiguous()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (images,),
            str(path),
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    checker.check_model(str(path), full_check=True)


def onnx_runner(path: str | Path, threads: int = 1) -> Callable[[Tensor], Tensor]:
    """What runs the file at `path` in ONNX Runtime with `threads` threads: images to logits, both on the CPU, float32.

    Raises InputError where the packages of the extra "onnx" are missing.
    """
    runtime = _package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.detach().contiguous().numpy()})[0])

    return run


def _package(name: str) -> Any:
    """Imported when it is needed. A package that is there but broken raises other errors than ImportError too."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f'{name} cannot be imported ({reason}); install the extra: pip install "phinas[onnx]"'
        ) from None
