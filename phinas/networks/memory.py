"""How much memory a network needs at its peak, by following every allocation of a pass; nothing is built."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from phinas.files.checks import check_whole
from phinas.files.errors import InputError
from phinas.networks.allocations import FULL, INDEX, Layer, Map, Pass
from phinas.networks.arch import Arch, Stage
from phinas.networks.cost import cost
from phinas.networks.kinds import KINDS, added

MODES = ("train", "infer")
DTYPES = ("float32", "bfloat16")
# Copies of the parameters: what the optimiser keeps, and what its step allocates for a moment on a GPU. The fused
# steps of SGD and AdamW allocate nothing; RMSprop's adds the weight decay to the gradients and takes a root.
_OPTIMISERS = {"sgd": (1, 0), "rmsprop": (2, 2), "adamw": (2, 0)}
OPTIMISERS = tuple(_OPTIMISERS)
_MOST_BLOCKS = 100_000  # that are followed, in seconds; nobody trains more


@dataclass(frozen=True)
class Memory:
    """Bytes: what stays, what the backward pass needs, and `total`, the most that is in use at one time.

    weights      parameters, and the running statistics of batch norms.
    gradients    of the parameters.
    optimiser    momenta and the like, and the averaged copy of weights and statistics (EMA).
    activations  what autograd keeps from the forward pass for the backward pass, but for the parameters themselves;
                 with bfloat16 also the half-precision copies of the weights.
    working      what the peak has beyond them: at inference the batch and the feature maps that are alive at one time;
                 in training maps nobody keeps and gradients of maps, or what the optimiser's step allocates.
    """

    weights: int
    gradients: int
    optimiser: int
    activations: int
    working: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.activations + self.working


def memory(
    arch: Arch,
    batch_size: int = 1,
    mode: str = "train",
    dtype: str = "float32",
    optimiser: str = "rmsprop",
    ema: bool = True,
) -> Memory:
    """What the tensors of one step of `arch` take, as `build` makes it and eager PyTorch runs it, at its resolution.

    mode       train: forward, loss, backward and optimiser's step, in the order of a search's short training: the
               gradients of the last step stay until this step's loss is there. Where they go before the forward pass,
               as in training to the end, the peak is lower by at most their size. infer: a forward pass without
               gradients.
    dtype      of the maps. bfloat16 is autocast in training, where weights, gradients and optimiser stay float32; at
               inference everything is of this type.
    optimiser  sgd (with momentum), rmsprop (with momentum) or adamw; ema: whether an average of the weights is kept.
               Neither matters at inference.

    The batch of images is counted, the data set is not. Nor is what a device adds: the CUDA context, workspaces of
    cuDNN and cuBLAS, and what the allocator rounds up and cannot reuse; nor what compiling, or folding batch norms,
    changes. Raises InputError naming the setting that is not allowed, and for a network of more than 100,000 blocks.
    """
    check_whole("batch_size", batch_size)
    for name, value, allowed in (("mode", mode, MODES), ("dtype", dtype, DTYPES), ("optimiser", optimiser, OPTIMISERS)):
        if value not in allowed:
            raise InputError(f"{name}={value}: allowed: {', '.join(allowed)}")
    if arch.blocks > _MOST_BLOCKS:
        raise InputError(f"a network of {arch.blocks:,} blocks: memory is counted for at most {_MOST_BLOCKS:,}")
    training = mode == "train"
    run = Pass(training, batch_size, dtype)
    saved = _step(run, arch)

    element = FULL if training else run.element
    params, copies, momentary = cost(arch).params, *_OPTIMISERS[optimiser]
    weights = element * (params + 2 * run.norm_channels) + INDEX * run.norms  # each norm counts its batches
    if not training:
        return Memory(weights, 0, 0, 0, run.peak)
    gradients = element * params
    forward = run.peak + gradients  # those of the step before
    backward = run.backward()  # gradients of its own among it, which are all there now
    peak = max(forward, backward, run.live + momentary * gradients)
    return Memory(
        weights=weights,
        gradients=gradients,
        optimiser=copies * gradients + (weights if ema else 0),
        activations=saved,
        working=peak - gradients - saved,
    )


def _step(run: Pass, arch: Arch) -> int:
    """The forward pass of `arch`, in training with the loss; the bytes that are saved for the backward pass.

    Mirrors `build` and `ConvNet.forward`. Images and logits stay alive behind it, in training the labels too.
    """
    images = run.images(arch.in_channels, arch.resolution)
    stem = _conv_norm(run, arch, arch.stem.channels, arch.stem.kernel, arch.stem.stride)
    if arch.stem.pool:
        stem.append(run.max_pool)
    head = _conv_norm(run, arch, arch.head_channels) if arch.head_channels else []
    features = run.sequence(
        images,
        [_sequence(run, stem), _sequence(run, _stages(run, arch)), _sequence(run, head)],
    )
    after: list[Layer] = [run.mean]
    if run.training and arch.dropout:
        after.append(partial(run.masked, values=features.channels))
    logits = run.sequence(features, [*after, partial(run.conv, outputs=arch.classes, bias=True)])
    run.release(features.storage)
    if run.training:
        run.loss(logits)
    return run.saved()


def _stages(run: Pass, arch: Arch) -> list[Layer]:
    stages: list[Layer] = []
    index = 0
    for stage in arch.stages:
        blocks: list[Layer] = []
        for repeat in range(stage.repeats):
            stride, dropped = stage.stride if repeat == 0 else 1, arch.drop_connect > 0 and index > 0
            blocks.append(partial(_block, run, arch, stage, stride=stride, dropped=dropped))
            index += 1
        stages.append(_sequence(run, blocks))
    return stages


def _block(run: Pass, arch: Arch, stage: Stage, x: Map, stride: int, dropped: bool) -> Map:
    """Mirrors `phinas.networks.blocks.Block`."""
    y = run.sequence(x, _branch(run, arch, stage, x.channels, stride))
    shortcut = _shortcut(run, arch, stage, x.channels, stride)
    if shortcut is not None:
        if run.training and dropped:
            masked = run.masked(y, values=1)
            run.release(y.storage)
            y = masked
        z = run.sequence(x, shortcut)
        total = run.add(y, z)
        run.release(y.storage)
        run.release(z.storage)
        y = total
    if KINDS[stage.block].activated:
        after = _activation(run, arch)(y)
        run.release(y.storage)
        y = after
    return y


def _shortcut(run: Pass, arch: Arch, stage: Stage, inputs: int, stride: int) -> list[Layer] | None:
    """Layers of the shortcut, none of them for the identity; None where nothing is added."""
    match added(stage.skip, inputs, stage.channels, stride):
        case "identity":
            return []
        case "projection":
            return _conv_norm(run, arch, stage.channels, 1, stride, linear=True)
        case "pool":
            pool: list[Layer] = [partial(run.average_pool, stride=stride)]
            return pool + ([partial(run.padded, channels=stage.channels)] if stage.channels > inputs else [])
    return None


def _branch(run: Pass, arch: Arch, stage: Stage, inputs: int, stride: int) -> list[Layer]:
    """Mirrors `phinas.networks.blocks.branch`."""
    return [
        partial(_squeeze_excite, run, arch, squeezed=squeezed)
        if squeezed
        else _sequence(run, _conv_norm(run, arch, outputs, kernel, step, groups, linear))
        for _, _, outputs, kernel, step, groups, linear, squeezed in stage.branch(inputs, stride)
    ]


def _conv_norm(
    run: Pass, arch: Arch, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, linear: bool = False
) -> list[Layer]:
    layers: list[Layer] = [partial(run.conv, outputs=outputs, kernel=kernel, stride=stride, groups=groups), run.norm]
    return layers if linear else [*layers, _activation(run, arch)]


def _activation(run: Pass, arch: Arch) -> Layer:
    return {"relu": run.relu, "relu6": run.relu6}.get(arch.activation, run.smooth)


def _squeeze_excite(run: Pass, arch: Arch, x: Map, squeezed: int) -> Map:
    """Mirrors `phinas.networks.blocks.SqueezeExcite`."""
    linear = partial(run.conv, bias=True)
    chain: list[Layer] = [
        run.mean,
        partial(linear, outputs=squeezed),
        _activation(run, arch),
        partial(linear, outputs=x.channels),
        run.sigmoid,
    ]
    gate = run.sequence(x, chain)
    y = run.gated(x, gate)
    run.release(gate.storage)
    return y


def _sequence(run: Pass, layers: list[Layer]) -> Layer:
    return partial(run.sequence, layers=layers)
