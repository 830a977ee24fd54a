"""A network as an ONNX file, written so that ONNX Runtime keeps it in its blocked layout, and such files run.

On a CPU ONNX Runtime runs convolutions in a layout of its own, channels in blocks of a vector's width, and changes
layouts around every operator that it has not got in it. The file is therefore written from the operators that it has:

- squeeze-excitation and the classifier as 1x1 convolutions of 1x1 maps, behind a GlobalAveragePool;
- the gates of squeeze-excitation spread over the map, by nearest neighbours, before they multiply it: ONNX Runtime
  multiplies blocked maps only where it can prove that they are of one shape, for which the shape is written down too;
- SiLU as x * Sigmoid(x), which it fuses into one operator.

On one AVX-512 core B0 and B1 run 6 to 7% faster than from the file of torch.onnx (`benchmarks.table4`).
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from phinas.files.atomic_file import write_atomically
from phinas.files.errors import InputError
from phinas.networks.blocks import Block, PoolShortcut, SqueezeExcite
from phinas.networks.build import ConvNet
from phinas.weights.inference import folded

# The newest whose Resize ONNX Runtime had in the blocked layout before 1.25, and the file format that goes with it.
OPSET, FORMAT = 17, 8
LARGEST = 2**31 - 1  # bytes of one protobuf message


def check_packages() -> None:
    """Raises InputError, which says what to install, unless files can be written and run here."""
    for name in ("onnx", "onnxruntime"):
        _package(name)


def write_onnx(module: nn.Module, images: Tensor, path: str | Path, about: Mapping[str, str] | None = None) -> None:
    """Write a network of `phinas.networks.build` as an ONNX file: `images` -> `logits`, float32, batch norms folded.

    `images` [batch, channels, height, width] is an example: the file takes images of its size, any number of them.
    `about` stands in its metadata. It is checked before it is written. Raises InputError where the package onnx is
    missing, or for a module with layers of other kinds.
    """
    onnx = _package("onnx")
    _, channels, height, width = images.shape
    graph = _Graph(onnx)
    logits = graph.write("", folded(copy.deepcopy(module).float()), _Map("images", channels, height, width))
    float32 = onnx.TensorProto.FLOAT
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "convnet",
            [onnx.helper.make_tensor_value_info("images", float32, ["batch", channels, height, width])],
            [onnx.helper.make_tensor_value_info("logits", float32, ["batch", logits.channels])],
            graph.weights,
            value_info=graph.shapes,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=FORMAT,
        producer_name="phinas",
    )
    onnx.helper.set_model_props(model, dict(about or {}))
    if (size := model.ByteSize()) > LARGEST:
        raise InputError(f"{path}: the network takes {size / 2**30:.1f} GiB, an ONNX file holds 2 GiB at most")
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, model.SerializeToString())


def onnx_runner(path: str | Path, threads: int = 1, kind: str = "cpu") -> Callable[[Tensor], Tensor]:
    """What runs the file at `path` in ONNX Runtime: images to logits, float32, on the device `kind`, cpu or cuda.

    On a CPU with `threads` threads. Raises InputError where the package onnxruntime is missing, or has no CUDA.
    """
    runtime = _package("onnxruntime")
    provider = "CUDAExecutionProvider" if kind == "cuda" else "CPUExecutionProvider"
    if provider not in runtime.get_available_providers():
        raise InputError(f"onnxruntime {runtime.__version__} has no {provider}: pip install onnxruntime-gpu")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised, and a warning on the terminal tells nobody anything
    # Before 1.25 the fused SiLU is not in the blocked layout: Sigmoid and Mul, which are, take 20% less time on B1.
    old = tuple(map(int, runtime.__version__.split(".")[:2])) < (1, 25)
    slow = ["QuickGeluFusion"] if old and kind == "cpu" else []
    session = runtime.InferenceSession(str(path), options, providers=[provider], disabled_optimizers=slow)
    if provider not in session.get_providers():  # its libraries do not load: ONNX Runtime falls back to the CPU
        raise InputError(f"onnxruntime {runtime.__version__} cannot load its {provider}")
    classes = session.get_outputs()[0].shape[1]

    def run(images: Tensor) -> Tensor:
        if images.dtype != torch.float32:
            raise InputError(f"dtype={str(images.dtype).removeprefix('torch.')}: ONNX files compute in float32")
        images = images.detach().contiguous()
        logits = images.new_empty(images.shape[0], classes)
        binding = session.io_binding()
        for bind, name, tensor in ((binding.bind_input, "images", images), (binding.bind_output, "logits", logits)):
            bind(name, kind, tensor.device.index or 0, "float32", tuple(tensor.shape), tensor.data_ptr())
        if kind == "cuda":
            torch.cuda.current_stream().synchronize()  # ONNX Runtime has a stream of its own
        session.run_with_iobinding(binding)
        return logits

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


# --- writing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Map:
    """A feature map [batch, channels, height, width] (logits: 1 x 1), and what it is called in the file."""

    name: str
    channels: int
    height: int
    width: int


class _Graph:
    """Operators and weights of a file, in the order they are written; both are called as their layers in the module."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.shapes: list[Any] = []

    def write(self, name: str, module: nn.Module, x: _Map) -> _Map:
        """Write what `module` computes of `x`, and say what comes out."""
        writer = _WRITERS.get(type(module))
        if writer is None:
            raise InputError(
                f"{name or 'the module'}: {type(module).__name__} has no ONNX form here; "
                f"allowed: {', '.join(kind.__name__ for kind in _WRITERS)}"
            )
        return writer(self, name, module, x)

    def node(self, operator: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """One operator, called `name`, as is its output."""
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def weight(self, name: str, values: Tensor) -> str:
        array = values.detach().cpu().contiguous().numpy()
        self.weights.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def convolution(self, name: str, layer: nn.Conv2d | nn.Linear, x: _Map, **attributes: Any) -> str:
        """Of a linear layer the 1x1 convolution."""
        weight = layer.weight if isinstance(layer, nn.Conv2d) else layer.weight[:, :, None, None]
        inputs = [x.name, self.weight(f"{name}.weight", weight)]
        if layer.bias is not None:
            inputs.append(self.weight(f"{name}.bias", layer.bias))
        return self.node("Conv", name, inputs, kernel_shape=weight.shape[2:], **attributes)

    def average(self, name: str, x: _Map) -> _Map:
        return _Map(self.node("GlobalAveragePool", name, [x.name]), x.channels, 1, 1)

    def shape(self, x: _Map) -> None:
        """Write down the shape of `x`, where ONNX Runtime would not find out that the batch is that of the images."""
        shape = ["batch", x.channels, x.height, x.width]
        self.shapes.append(self.onnx.helper.make_tensor_value_info(x.name, self.onnx.TensorProto.FLOAT, shape))


def _network(graph: _Graph, name: str, net: ConvNet, x: _Map) -> _Map:
    for part in ("stem", "stages", "head"):
        x = graph.write(part, getattr(net, part), x)
    average = graph.average("average", x)
    scores = graph.convolution("classifier", net.classifier, average)
    return _Map(graph.node("Flatten", "logits", [scores]), net.classifier.out_features, 1, 1)


def _sequence(graph: _Graph, name: str, layers: nn.Sequential, x: _Map) -> _Map:
    for child, layer in layers.named_children():
        x = graph.write(f"{name}.{child}", layer, x)
    return x


def _block(graph: _Graph, name: str, block: Block, x: _Map) -> _Map:
    y = graph.write(f"{name}.branch", block.branch, x)
    if block.shortcut is not None:
        short = graph.write(f"{name}.shortcut", block.shortcut, x)
        y = _Map(graph.node("Add", f"{name}.add", [y.name, short.name]), y.channels, y.height, y.width)
    return graph.write(f"{name}.after", block.after, y)


def _squeeze_excite(graph: _Graph, name: str, layer: SqueezeExcite, x: _Map) -> _Map:
    squeezed = graph.convolution(f"{name}.reduce", layer.reduce, graph.average(f"{name}.average", x))
    squeezed_map = graph.write(f"{name}.activation", layer.activation, _Map(squeezed, layer.reduce.out_features, 1, 1))
    gate = graph.node("Sigmoid", f"{name}.gate", [graph.convolution(f"{name}.expand", layer.expand, squeezed_map)])
    if (x.height, x.width) != (1, 1):
        scales = graph.weight(f"{name}.scales", torch.tensor([1.0, 1.0, x.height, x.width]))
        how = {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": "floor"}
        gate = graph.node("Resize", f"{name}.gates", [gate, "", scales], **how)
        graph.shape(_Map(gate, x.channels, x.height, x.width))
    return _Map(graph.node("Mul", name, [x.name, gate]), x.channels, x.height, x.width)


def _pool_shortcut(graph: _Graph, name: str, layer: PoolShortcut, x: _Map) -> _Map:
    pooled = graph.write(f"{name}.pool", layer.pool, x)
    if not layer.extra:
        return pooled
    pads = graph.weight(f"{name}.pads", torch.tensor([0, 0, 0, 0, 0, layer.extra, 0, 0]))
    return _Map(
        graph.node("Pad", name, [pooled.name, pads]), pooled.channels + layer.extra, pooled.height, pooled.width
    )


def _convolution(graph: _Graph, name: str, layer: nn.Conv2d, x: _Map) -> _Map:
    (height, width), pads = _window(layer, x)
    output = graph.convolution(name, layer, x, strides=layer.stride, pads=pads, group=layer.groups)
    return _Map(output, layer.out_channels, height, width)


def _pool(graph: _Graph, name: str, layer: nn.MaxPool2d | nn.AvgPool2d, x: _Map) -> _Map:
    (height, width), pads = _window(layer, x)
    operator = "MaxPool" if isinstance(layer, nn.MaxPool2d) else "AveragePool"
    more = {"kernel_shape": _pair(layer.kernel_size), "strides": _pair(layer.stride), "pads": pads}
    return _Map(graph.node(operator, name, [x.name], **more), x.channels, height, width)


def _window(layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d, x: _Map) -> tuple[list[int], list[int]]:
    """The height and width that a window of `layer` leaves of `x`, and its padding as ONNX wants it: starts, ends."""
    kernel, stride, padding = _pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding)
    sides = zip((x.height, x.width), kernel, stride, padding, strict=True)
    return [(side + 2 * pad - k) // step + 1 for side, k, step, pad in sides], [*padding, *padding]


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _operator(operator: str) -> Callable[..., _Map]:
    """An operator without settings, of one map."""

    def write(graph: _Graph, name: str, layer: nn.Module, x: _Map) -> _Map:
        return _Map(graph.node(operator, name, [x.name]), x.channels, x.height, x.width)

    return write


def _silu(graph: _Graph, name: str, layer: nn.SiLU, x: _Map) -> _Map:
    gate = graph.node("Sigmoid", f"{name}.sigmoid", [x.name])
    return _Map(graph.node("Mul", name, [x.name, gate]), x.channels, x.height, x.width)


def _relu6(graph: _Graph, name: str, layer: nn.ReLU6, x: _Map) -> _Map:
    limits = [graph.weight(f"{name}.{limit}", torch.tensor(limit)) for limit in (0.0, 6.0)]
    return _Map(graph.node("Clip", name, [x.name, *limits]), x.channels, x.height, x.width)


def _nothing(graph: _Graph, name: str, layer: nn.Module, x: _Map) -> _Map:
    return x


_WRITERS: dict[type[nn.Module], Callable[..., _Map]] = {
    ConvNet: _network,
    nn.Sequential: _sequence,
    Block: _block,
    SqueezeExcite: _squeeze_excite,
    PoolShortcut: _pool_shortcut,
    nn.Conv2d: _convolution,
    nn.MaxPool2d: _pool,
    nn.AvgPool2d: _pool,
    nn.SiLU: _silu,
    nn.ReLU: _operator("Relu"),
    nn.ReLU6: _relu6,
    nn.Hardswish: _operator("HardSwish"),
    nn.Identity: _nothing,
}
