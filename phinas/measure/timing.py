"""How long forward passes take here: one network or several side by side, and the device model that measures."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from phinas.engines.out_of_memory import out_of_memory
from phinas.engines.threads import MOST_THREADS, torch_threads
from phinas.files.checks import check_flag, check_number, check_whole
from phinas.files.errors import DoesNotFit, InputError
from phinas.measure.backends import check_form, on_device, prepare
from phinas.networks.arch import Arch
from phinas.networks.network import Network, build_network

LEAST_PASSES = 5  # fewer say nothing of their spread
WARM_UP = 0.2  # share of the time limit: caches fill, clocks rise, libraries choose their kernels
_DAY = 86400.0  # seconds: nobody waits longer for one network
TURN = 0.1  # seconds, at most, that quick passes are repeated for before the next one's turn


@dataclass(frozen=True)
class Ratio:
    """How many times as long a pass takes as the first network's: the median and the quartiles over rounds."""

    median: float = 1.0
    lower: float = 1.0
    upper: float = 1.0


@dataclass(frozen=True)
class Timing:
    """Seconds of one forward pass of a batch.

    median, lower, upper  the median and the quartiles over all passes after the warm-up.
    passes                how many there were.
    memory                as `Prepared.memory`.
    ratio                 its seconds over those of the first network that was timed in the same rounds.
    """

    median: float
    lower: float
    upper: float
    passes: int
    memory: int | None = None
    ratio: Ratio = Ratio()


def timed(
    passes: Sequence[Callable[[], object]], kind: str, spread: float = 0.03, seconds: float = 1.0
) -> list[Timing]:
    """Time several passes side by side on the device `kind`, cpu or cuda, so that drift of the machine cancels.

    After a warm-up of each, they take turns, in an order that is shuffled anew each round, so that none always follows
    the same other. Of several, a turn lasts a tenth of `seconds`, at most 0.1 s, or one pass, whichever is longer;
    where it holds more passes than one, the first does not count: it finds the caches as another left them. A round's
    ratios are those of the medians of its turns. It ends when the quartiles of each are no further apart than `spread`
    of its median, or after `seconds` for each, but not before 5 rounds.
    """
    one_pass = _cuda_pass if kind == "cuda" else _cpu_pass
    for run in passes:
        run()  # compiles what compiles itself when it is first called, however long that takes
        start = time.perf_counter()
        one_pass(run)
        while time.perf_counter() - start < WARM_UP * seconds:
            one_pass(run)
    turn = min(TURN, seconds / (2 * LEAST_PASSES)) if len(passes) > 1 else 0.0
    order, shuffle = list(range(len(passes))), random.Random(0).shuffle
    rounds: list[list[list[float]]] = []  # of each round the seconds of each pass, by its place in `passes`
    start = time.perf_counter()
    while True:
        shuffle(order)
        turns = {place: _turn(passes[place], one_pass, turn) for place in order}
        rounds.append([turns[place] for place in range(len(passes))])
        if len(rounds) < LEAST_PASSES:
            continue
        over = time.perf_counter() - start >= seconds * len(passes)
        if over or all(_steady([turns[place] for turns in rounds], spread) for place in order):
            return [_timing(rounds, place) for place in range(len(passes))]


class ThisMachine:
    """The device model that measures: "latency", seconds per image, and "throughput", images per second."""

    measures = True

    def __init__(
        self,
        kind: str | None = None,
        batch_size: int = 1,
        threads: int = 1,
        resolution: int | None = None,
        channels_last: bool = True,
        spread: float = 0.03,
        seconds: float = 1.0,
        backend: str = "eager",
        dtype: str = "float32",
    ) -> None:
        """Of forward passes of `batch_size` random images, in the form of `backend` (`phinas.measure.backends`).

        kind        cpu or cuda; None is the CUDA device where there is one, else the CPU.
        threads     of the CPU.
        resolution  replaces the network's own.
        spread      enough when the quartiles are no further apart, as a share of the median; or after `seconds`.
        """
        if kind not in (None, "cpu", "cuda"):
            raise InputError(f"kind={kind}: it must be cpu or cuda, or null for what there is")
        if kind == "cuda" and not torch.cuda.is_available():
            raise InputError("kind=cuda: there is no CUDA device here; device=cpu is the processor")
        check_flag("channels_last", channels_last)
        self.kind = kind or ("cuda" if torch.cuda.is_available() else "cpu")
        self.batch_size = check_whole("batch_size", batch_size)
        self.threads = check_whole("threads", threads, most=MOST_THREADS)
        self.resolution = None if resolution is None else check_whole("resolution", resolution)
        self.channels_last = channels_last
        self.spread = check_number("spread", spread, least=0)
        self.seconds = check_number("seconds", seconds, above=0, below=_DAY)
        self.backend = backend
        self.dtype = dtype
        check_form(backend, self.kind, dtype)

    def timing(self, network: Network) -> Timing:
        """Time the network in evaluation mode.

        Other work on the machine makes passes slower, never faster: where the quartiles lie far apart, trust the lower
        one. On CUDA, convolutions may use TF32, as torch lets them by default. Torch's number of threads and its random
        generator are as before afterwards.
        Raises DoesNotFit where the memory of the device is too small, InputError for what the backend cannot prepare.
        """
        with torch_threads(self.threads), torch.random.fork_rng(devices=[]), fits(self.batch_size, self.kind):
            images = random_images(network, self.kind, self.batch_size, self.resolution, self.channels_last, self.dtype)
            ready = prepared(initialised(network), self.backend, images, self.threads, self.channels_last)
            return replace(timed([ready.run], self.kind, self.spread, self.seconds)[0], memory=ready.memory)

    def costs(self, network: Network) -> Mapping[str, float]:
        """The median, as latency and as throughput. Raises DoesNotFit for a network that is too large."""
        seconds = self.timing(network).median / self.batch_size
        return {"latency": seconds, "throughput": 1 / seconds}


def initialised(network: Network, seed: int = 0) -> nn.Module:
    """The network in evaluation mode on the CPU, its weights drawn from `seed`; torch's generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build_network(network).eval()


def random_images(
    network: Network,
    kind: str,
    batch_size: int,
    resolution: int | None = None,
    channels_last: bool = True,
    dtype: str = "float32",
    seed: int = 0,
) -> Tensor:
    """Normally distributed images [batch_size, channels, height, width] of the network's size, or of `resolution`."""
    if isinstance(network, Arch):
        channels, height, width = network.in_channels, network.resolution, network.resolution
    else:
        channels, height, width = getattr(network, "input_shape", (3, 224, 224))
    shape = (batch_size, channels, resolution or height, resolution or width)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(kind, getattr(torch, dtype)).to(memory_format=layout)


@dataclass(frozen=True)
class Prepared:
    """A forward pass that may be timed.

    run     gives the logits [batch, classes] of the same images each time.
    memory  the most bytes that its weights and a pass hold on the CUDA device at a time, the images left out; None on a
            CPU, and of ONNX Runtime, whose memory PyTorch does not see.
    """

    run: Callable[[], Tensor]
    memory: int | None


def prepared(
    module: nn.Module,
    backend: str,
    images: Tensor,
    threads: int = 1,
    channels_last: bool = True,
) -> Prepared:
    """`module`, which may be moved and changed for it, in the form of `backend` on `images`, passed once at least."""
    kind, dtype = images.device.type, str(images.dtype).removeprefix("torch.")
    before = torch.cuda.memory_allocated() if kind == "cuda" else 0
    call = prepare(backend, on_device(module, kind, dtype, channels_last), images, threads)
    if kind == "cpu" or backend == "onnx":
        return Prepared(lambda: call(images), None)
    torch.cuda.reset_peak_memory_stats()
    call(images)
    return Prepared(lambda: call(images), torch.cuda.max_memory_allocated() - before)


@contextmanager
def fits(batch_size: int, kind: str) -> Iterator[None]:
    """Raises DoesNotFit where what is done within runs out of memory."""
    try:
        yield
    except Exception as error:  # those of ONNX Runtime are of no kind
        if not out_of_memory(error):
            raise
        raise DoesNotFit(f"out of memory at batch {batch_size} on {kind}") from error


def _turn(run: Callable[[], object], one_pass: Callable[[Callable[[], object]], float], least: float) -> list[float]:
    """Seconds of each pass of one turn of `least` seconds or more, without the first of several."""
    start = time.perf_counter()
    times = [one_pass(run)]
    while time.perf_counter() - start < least:
        times.append(one_pass(run))
    return times[1:] or times


def _steady(turns: Sequence[Sequence[float]], spread: float) -> bool:
    times = [seconds for turn in turns for seconds in turn]
    lower, median, upper = statistics.quantiles(times, n=4)
    return len(times) >= 4 * LEAST_PASSES and upper - lower <= spread * median


def _timing(rounds: Sequence[Sequence[Sequence[float]]], place: int) -> Timing:
    times = [seconds for turns in rounds for seconds in turns[place]]
    lower, median, upper = statistics.quantiles(times, n=4)
    ratios = [statistics.median(turns[place]) / statistics.median(turns[0]) for turns in rounds]
    ratio_lower, ratio, ratio_upper = statistics.quantiles(ratios, n=4)
    return Timing(median, lower, upper, len(times), ratio=Ratio(ratio, ratio_lower, ratio_upper))


def _cpu_pass(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _cuda_pass(run: Callable[[], object]) -> float:
    """By the device's own clock, launches included: the next pass starts when this pass is through."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3
