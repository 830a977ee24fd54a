"""Every allocation of a forward and backward pass of eager PyTorch, followed with integers; nothing is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

FULL, HALF, INDEX = 4, 2, 8  # bytes of a float32, a bfloat16, an int64


@dataclass(eq=False)
class Map:
    """A tensor [batch, channels, side, side]; several may share one storage, where layers work in place."""

    storage: Storage
    channels: int
    side: int
    wants_gradient: bool = True


@dataclass(eq=False)
class Storage:
    size: int  # bytes
    holders: int = 1


@dataclass(frozen=True)
class Node:
    """A step of the backward pass.

    passed     the gradient of the output is that of the inputs too; otherwise each input gets a gradient of its own.
    momentary  bytes that the step allocates besides, and frees.
    """

    output: Map
    inputs: tuple[Map, ...]
    saved: tuple[Storage, ...]
    parameters: int
    passed: bool
    momentary: int


Layer = Callable[[Map], Map]  # its input stays its caller's; the output becomes the caller's


class Pass:
    """Follows a forward pass, and the backward pass behind it, storage by storage.

    A storage lives while somebody holds it: the frames of running Python calls hold their inputs (hence all of
    `nn.Sequential`'s levels theirs), and nodes of the backward pass what they will need.
    """

    def __init__(self, training: bool, batch: int, dtype: str) -> None:
        self.training, self.batch = training, batch
        self.autocast = training and dtype == "bfloat16"
        self.element = HALF if dtype == "bfloat16" else FULL
        self.live = self.peak = self.norms = self.norm_channels = 0
        self._nodes: list[Node] = []

    # Storages and their holders.

    def new(self, size: int) -> Storage:
        self.live += size
        self.peak = max(self.peak, self.live)
        return Storage(size)

    def release(self, storage: Storage) -> None:
        storage.holders -= 1
        if not storage.holders:
            self.live -= storage.size

    def map(self, channels: int, side: int = 1, element: int = 0) -> Map:
        return Map(self.new(self.batch * channels * side * side * (element or self.element)), channels, side)

    def node(
        self,
        output: Map,
        inputs: tuple[Map, ...],
        saved: tuple[Storage, ...] = (),
        parameters: int = 0,
        passed: bool = False,
        momentary: int = 0,
    ) -> Map:
        """`output`, of which the backward pass gets a step that holds what is `saved`."""
        if self.training:
            for storage in saved:
                storage.holders += 1
            self._nodes.append(Node(output, inputs, saved, parameters, passed, momentary))
        return output

    def saved(self) -> int:
        """Bytes that the backward pass holds; each storage once."""
        return sum({id(storage): storage.size for node in self._nodes for storage in node.saved}.values())

    def backward(self) -> int:
        """Run the backward pass; the most bytes that were alive in it, gradients of parameters among them."""
        self.peak = self.live
        last = self._nodes[-1].output
        gradients = {last: self.new(last.storage.size)}
        for node in reversed(self._nodes):
            gradient = gradients.pop(node.output)
            arriving = []
            for entry in node.inputs:
                if node.passed:
                    gradient.holders += 1
                    arriving.append((entry, gradient))
                elif entry.wants_gradient:
                    arriving.append((entry, self.new(entry.storage.size)))
            self._parameter_gradients(node.parameters)
            self.release(self.new(node.momentary))
            for storage in (*node.saved, gradient):
                self.release(storage)
            for entry, arrived in arriving:
                if entry in gradients:  # added to in place, and then the gradient that arrived goes
                    self.release(arrived)
                else:
                    gradients[entry] = arrived
        return self.peak

    def _parameter_gradients(self, parameters: int) -> None:
        half = self.new(HALF * parameters if self.autocast else 0)
        self.new(FULL * parameters)
        self.release(half)

    # Layers; each takes a map that its caller holds.

    def images(self, channels: int, side: int) -> Map:
        images = self.map(channels, side, FULL if self.autocast else 0)
        images.wants_gradient = False
        return images

    def conv(self, x: Map, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = False) -> Map:
        """A convolution, or with a single pixel a linear layer."""
        weights = kernel * kernel * x.channels * outputs // groups
        saved = [x.storage]
        if self.autocast:  # it casts weights, and what is not of half precision yet: the images
            saved = [x.storage if x.wants_gradient else self.map(x.channels, x.side).storage, self.new(HALF * weights)]
        y = self.node(self.map(outputs, -(-x.side // stride)), (x,), tuple(saved), weights + (outputs if bias else 0))
        for storage in saved:
            if storage is not x.storage:
                self.release(storage)
        return y

    def norm(self, x: Map) -> Map:
        self.norms, self.norm_channels = self.norms + 1, self.norm_channels + x.channels
        y = self.map(x.channels, x.side)
        statistics = self.new(2 * FULL * x.channels if self.training else 0)  # means and inverse deviations
        self.node(y, (x,), (x.storage, statistics), 2 * x.channels)
        self.release(statistics)
        return y

    def smooth(self, x: Map) -> Map:
        """SiLU and Hardswish need their input for the gradient."""
        return self.node(self.map(x.channels, x.side), (x,), (x.storage,))

    def relu(self, x: Map) -> Map:
        """In place: the gradient needs the output alone."""
        x.storage.holders += 1
        return self.node(Map(x.storage, x.channels, x.side), (x,), (x.storage,))

    def relu6(self, x: Map) -> Map:
        """In place too, but autograd keeps a copy of the input first."""
        x.storage.holders += 1
        y = Map(x.storage, x.channels, x.side)
        if self.training:
            copy = self.new(x.storage.size)
            self.node(y, (x,), (copy,))
            self.release(copy)
        return y

    def mean(self, x: Map) -> Map:
        return self.node(self.map(x.channels), (x,))

    def sigmoid(self, x: Map) -> Map:
        y = self.map(x.channels)
        return self.node(y, (x,), (y.storage,))

    def gated(self, x: Map, gate: Map) -> Map:
        """The gate's gradient is a product as large as the map, before it is summed over the pixels."""
        y = self.map(x.channels, x.side)
        return self.node(y, (x, gate), (x.storage, gate.storage), momentary=x.storage.size)

    def masked(self, x: Map, values: int) -> Map:
        """Times a random mask of so many `values` for each image, of the map's type (on CUDA dropout's has bytes)."""
        mask = self.new(self.batch * values * self.element)
        y = self.node(self.map(x.channels, x.side), (x,), (mask,))
        self.release(mask)
        return y

    def add(self, x: Map, y: Map) -> Map:
        return self.node(self.map(x.channels, x.side), (x, y), passed=True)

    def max_pool(self, x: Map) -> Map:
        y = self.map(x.channels, -(-x.side // 2))
        indices = self.new(self.batch * y.channels * y.side**2 * INDEX)
        self.node(y, (x,), (x.storage, indices))
        self.release(indices)
        return y

    def average_pool(self, x: Map, stride: int) -> Map:
        return self.node(self.map(x.channels, -(-x.side // stride)), (x,), (x.storage,))

    def padded(self, x: Map, channels: int) -> Map:
        return self.node(self.map(channels, x.side), (x,))

    def loss(self, logits: Map) -> Map:
        """Cross-entropy in full precision; autograd keeps the logarithms of the probabilities, and the labels."""
        full = self.node(self.map(logits.channels, element=FULL), (logits,)) if self.autocast else logits
        logarithms = self.map(logits.channels, element=FULL)
        self.node(logarithms, (full,), (logarithms.storage,))
        if full is not logits:
            self.release(full.storage)
        labels, weight = self.new(self.batch * INDEX), self.new(FULL)  # the sum of the labels' weights
        loss = self.node(Map(self.new(FULL), 1, 1), (logarithms,), (logarithms.storage, labels, weight))
        self.release(logarithms.storage)
        self.release(weight)
        return loss

    def sequence(self, x: Map, layers: Iterable[Layer]) -> Map:
        """As `nn.Sequential`: what a layer puts out lives until the next layer has returned."""
        x.storage.holders += 1
        for layer in layers:
            y = layer(x)
            self.release(x.storage)
            x = y
        return x
