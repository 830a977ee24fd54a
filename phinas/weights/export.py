"""A network in the forms that people carry away, each compared with ours before it stands under its name."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from phinas.files.atomic_file import sync_folder, write_atomically
from phinas.files.errors import InputError
from phinas.files.origin import file_source
from phinas.networks.arch import Arch
from phinas.networks.build import build
from phinas.weights.checkpoints import read_tensors, save_weights
from phinas.weights.onnx_file import check_packages, onnx_runner, write_onnx
from phinas.weights.standalone import standalone

FORMS = ("pytorch", "weights", "onnx", "pt2")
TOLERANCE = 1e-4  # of the largest logit; "pytorch" and "weights" are exact
ABOUT = "about.json"  # its name within a .pt2
UNFINISHED = ".export-"  # how folders begin in which files are made; a killed process leaves its own


@dataclass(frozen=True)
class Exported:
    """One file, checked.

    form        one of `FORMS`.
    difference  the largest difference of its logits from ours, as a share of our largest logit.
    sha256      of its bytes, in hex.
    """

    form: str
    file: Path
    difference: float
    sha256: str
    bytes: int


def check_forms(forms: Sequence[str]) -> tuple[str, ...]:
    """The forms in the order of `FORMS`, "weights" among them where "pytorch" is.

    Raises InputError for a form that is unknown, or whose packages cannot be imported.
    """
    for form in forms:
        if form not in FORMS:
            raise InputError(f"export={form}: allowed: {', '.join(FORMS)}")
    if "onnx" in forms:
        check_packages()
    return tuple(form for form in FORMS if form in forms or (form == "weights" and "pytorch" in forms))


def export(
    arch: Arch, module: nn.Module, folder: Path, name: str, forms: Sequence[str], about: Mapping[str, str]
) -> list[Exported]:
    """Write `module`, built from `arch`, into `folder`, which is made where it is missing.

    pytorch  model.py, one file that depends on torch alone; with it
    weights  weights.safetensors, the state dict.
    onnx     model.onnx, evaluation form, any batch size.
    pt2      model.pt2 of torch.export, evaluation form, any batch size.

    All are float32, for images of the Arch's resolution (model.py of any). `name` and `about`, such as hashes of what
    the network came from, stand in each file. A file is written beside its place, read back, run on images and
    compared with `module`, and only then moved there.
    Raises InputError as `check_forms`, and for logits that are not finite; RuntimeError for a file that differs.
    """
    forms = check_forms(forms)
    folder.mkdir(parents=True, exist_ok=True)
    net = _plain(module)
    about = {**about, "name": name, "arch": arch.key()}
    images = _images(arch)
    logits = _run(net, images)
    if not logits.isfinite().all():
        raise InputError(f"{name}: its weights give logits that are not finite, so that no export could be checked")
    checked: dict[str, tuple[str, float]] = {}
    with TemporaryDirectory(dir=folder, prefix=UNFINISHED) as staging:
        for form, (file, write, run) in _FORMS.items():
            if form not in forms:
                continue
            path = Path(staging, file)
            write(path, arch, net, about, images[:2])
            difference = _difference(run(path, arch, images), logits)
            if not difference <= (TOLERANCE if form in ("onnx", "pt2") else 0):
                raise RuntimeError(f"{file} of {name} differs from its network: by {difference:.2g} of the logits")
            checked[form] = file, difference
        for path in sorted(Path(staging).iterdir()):
            _flush(path)
            os.replace(path, folder / path.name)
        sync_folder(folder)
    return [_exported(form, folder / checked[form][0], checked[form][1]) for form in forms]


# One pair of functions per form: write its file; run what stands in the file. They take the example images of the
# export, a batch of two, and other images in another number.


def _write_pytorch(path: Path, arch: Arch, net: nn.Module, about: Mapping[str, str], images: Tensor) -> None:
    write_atomically(path, standalone(arch, about["name"], {key: about[key] for key in about if key != "name"}))


def _run_pytorch(path: Path, arch: Arch, images: Tensor) -> Tensor:
    names: dict[str, Any] = {"__name__": "model"}
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), names)  # importing it would leave a __pycache__
    return _run(_loaded(names["build"], path.with_name("weights.safetensors")), images)


def _write_weights(path: Path, arch: Arch, net: nn.Module, about: Mapping[str, str], images: Tensor) -> None:
    save_weights(net.state_dict(), path, about)


def _run_weights(path: Path, arch: Arch, images: Tensor) -> Tensor:
    return _run(_loaded(lambda: build(arch), path), images)


def _write_onnx(path: Path, arch: Arch, net: nn.Module, about: Mapping[str, str], images: Tensor) -> None:
    write_onnx(net, images, path, about)


def _run_onnx(path: Path, arch: Arch, images: Tensor) -> Tensor:
    return onnx_runner(path, torch.get_num_threads())(images)


def _write_pt2(path: Path, arch: Arch, net: nn.Module, about: Mapping[str, str], images: Tensor) -> None:
    program = torch.export.export(net, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, path, extra_files={ABOUT: json.dumps(about)})


def _run_pt2(path: Path, arch: Arch, images: Tensor) -> Tensor:
    return _run(torch.export.load(path).module(), images)


_FORMS = {  # the weights first, which model.py is run with
    "weights": ("weights.safetensors", _write_weights, _run_weights),
    "pytorch": ("model.py", _write_pytorch, _run_pytorch),
    "onnx": ("model.onnx", _write_onnx, _run_onnx),
    "pt2": ("model.pt2", _write_pt2, _run_pt2),
}


def _plain(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode on the CPU, in float32 and the layout that every tool expects."""
    copied = copy.deepcopy(module).eval().requires_grad_(False).to("cpu", torch.float32)
    return copied.to(memory_format=torch.contiguous_format)  # type: ignore[no-any-return,call-overload]  # stubs


def _loaded(build_net: Callable[[], nn.Module], weights: Path) -> nn.Module:
    """A network with the weights of the file; copies, as matrix products may round otherwise on memory not aligned."""
    with torch.device("meta"):
        net = build_net()
    net.load_state_dict({name: tensor.clone() for name, tensor in read_tensors(weights).items()}, assign=True)
    return net.eval()


def _images(arch: Arch) -> Tensor:
    """Three images of mean 0 and variance 1, as networks are fed, coarse and fine; the same each time.

    Of more contrast, which trained batch norms never saw, logits grow and rounding with them, a hundredfold.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(3, arch.in_channels, 4, 4, generator=generator)
    fine = torch.randn(3, arch.in_channels, arch.resolution, arch.resolution, generator=generator)
    return 0.8 * nn.functional.interpolate(coarse, fine.shape[2:]) + 0.6 * fine


def _run(net: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = net(images)
    return logits


def _difference(logits: Tensor, ours: Tensor) -> float:
    """The largest, as a share of our largest logit."""
    if torch.equal(logits, ours):
        return 0.0
    return float((logits - ours).abs().max() / ours.abs().max())


def _exported(form: str, path: Path, difference: float) -> Exported:
    return Exported(form, path, difference, file_source(path)["sha256"], path.stat().st_size)


def _flush(path: Path) -> None:
    """To disk, before it gets its name."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
