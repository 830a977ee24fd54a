"""How fast a network is here, and `python -m convnets.measure model=efficientnet_b0 device=cpu`, which says so."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from conf.command import configuration, construct, run
from conf.run_folder import locked, run_folder, write_config, write_json
from convnets.arch import Arch
from convnets.arch_file import read_arch
from convnets.checks import check_number, check_whole
from convnets.cost import cost, macs_text
from convnets.errors import DoesNotFit, InputError
from convnets.network import Network, build_network
from convnets.out_of_memory import out_of_memory
from convnets.reference import NAMES, reference

LEAST_PASSES = 5  # fewer say nothing of their spread
WARM_UP = 0.2  # share of the time limit: caches fill, clocks rise, libraries choose their kernels


@dataclass(frozen=True)
class Timing:
    """Seconds of one forward pass of a batch.

    median, lower, upper  the median and the quartiles over all passes after the warm-up.
    passes                how many there were.
    memory                the most bytes that were allocated on the CUDA device at a time; None on a CPU.
    """

    median: float
    lower: float
    upper: float
    passes: int
    memory: int | None = None


def latency(
    network: Network,
    kind: str = "cpu",
    batch_size: int = 1,
    threads: int = 1,
    resolution: int | None = None,
    channels_last: bool = True,
    spread: float = 0.03,
    seconds: float = 1.0,
) -> Timing:
    """Time forward passes of `network` in evaluation mode, in float32, on random images.

    Passes are timed until the quartiles are no further apart than `spread` of the median, or for `seconds`. Other work
    on the machine makes passes slower, never faster: where the quartiles lie far apart, trust the lower one.
    `resolution` replaces the network's own. On CUDA, convolutions may use TF32, as torch lets them by default.
    Torch's number of threads and its random generator are as before afterwards.
    Raises DoesNotFit where the memory of the device is too small.
    """
    try:
        with _threads(threads), torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            layout = torch.channels_last if channels_last else torch.contiguous_format
            module = build_network(network).eval().to(kind)
            module = module.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stubs do not know it
            images = torch.randn(batch_size, *_shape(network, resolution), device=kind).to(memory_format=layout)
            return _timing(module, images, spread, seconds)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise DoesNotFit(f"out of memory at batch {batch_size} on {kind}") from error


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
    ) -> None:
        """As `latency`; kind None is the CUDA device where there is one, else the CPU."""
        if kind not in (None, "cpu", "cuda"):
            raise InputError(f"kind={kind}: it must be cpu or cuda, or null for what there is")
        if kind == "cuda" and not torch.cuda.is_available():
            raise InputError("kind=cuda: there is no CUDA device here; device=cpu is the processor")
        if not isinstance(channels_last, bool):
            raise InputError(f"channels_last={channels_last}: it must be true or false")
        self.kind = kind or ("cuda" if torch.cuda.is_available() else "cpu")
        self.batch_size = check_whole("batch_size", batch_size)
        self.threads = check_whole("threads", threads)
        self.resolution = None if resolution is None else check_whole("resolution", resolution)
        self.channels_last = channels_last
        self.spread = check_number("spread", spread, least=0)
        self.seconds = check_number("seconds", seconds, above=0)

    def timing(self, network: Network) -> Timing:
        """Time the network. Raises DoesNotFit where it is too large."""
        return latency(network, **vars(self))

    def costs(self, network: Network) -> Mapping[str, float]:
        """The median, as latency and as throughput. Raises DoesNotFit for a network that is too large."""
        seconds = self.timing(network).median / self.batch_size
        return {"latency": seconds, "throughput": 1 / seconds}


def _timing(module: nn.Module, images: torch.Tensor, spread: float, seconds: float) -> Timing:
    cuda = images.is_cuda
    one_pass = _cuda_pass if cuda else _cpu_pass
    if cuda:
        torch.cuda.reset_peak_memory_stats(images.device)
    start = time.perf_counter()
    one_pass(module, images)
    while time.perf_counter() - start < WARM_UP * seconds:
        one_pass(module, images)
    times: list[float] = []
    start = time.perf_counter()
    while True:
        times.append(one_pass(module, images))
        if len(times) < LEAST_PASSES:
            continue
        lower, median, upper = statistics.quantiles(times, n=4)
        steady = len(times) >= 4 * LEAST_PASSES and upper - lower <= spread * median
        if steady or time.perf_counter() - start >= seconds:
            memory = torch.cuda.max_memory_allocated(images.device) if cuda else None
            return Timing(median, lower, upper, len(times), memory)


def _cpu_pass(module: nn.Module, images: torch.Tensor) -> float:
    start = time.perf_counter()
    module(images)
    return time.perf_counter() - start


def _cuda_pass(module: nn.Module, images: torch.Tensor) -> float:
    """By the device's own clock, launches included: the next pass starts when this one is through."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    module(images)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def _shape(network: Network, resolution: int | None) -> tuple[int, int, int]:
    """(channels, height, width) of one image."""
    if isinstance(network, Arch):
        channels, height, width = network.in_channels, network.resolution, network.resolution
    else:
        channels, height, width = getattr(network, "input_shape", (3, 224, 224))
    return channels, resolution or height, resolution or width


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit code; raises InputError for what the user can mend."""
    config, names = configuration("convnets.measure", "measure", arguments)
    folder = run_folder(config.name)
    if folder.exists():
        raise InputError(f"name={folder.name}: {folder} is there already; give another name=")
    arch = _network(str(config.model))
    device = construct(config, "device")
    counted = cost(arch)
    content: dict[str, Any] = {"model": str(config.model), "key": arch.key(), "device": names["device"]}
    try:
        if hasattr(device, "timing"):  # ThisMachine, which has two names where its module is the command
            timing = device.timing(arch)
            per_image = timing.median / device.batch_size
            content |= {
                **vars(device),
                "latency": per_image,
                "throughput": 1 / per_image,
                "batch_latency": asdict(timing),
            }
            rows = _rows(timing, device)
        elif not callable(getattr(device, "costs", None)):
            raise InputError(f"device={names['device']}: it has no method costs(network)")
        elif costs := device.costs(arch):
            content |= {"costs": dict(costs)}
            rows = {name: f"{value:.6g}" for name, value in costs.items()}
        else:
            raise InputError(f"device={names['device']} measures nothing; allowed: here, cpu, cuda")
    except DoesNotFit as error:
        raise InputError(f"model={config.model}: {error}") from None
    table = Table(title=f"{config.model} on device={names['device']}", title_justify="left", show_header=False)
    for name, text in {
        "compute": macs_text(counted.macs),
        "parameters": f"{counted.params / 1e6:.2f}M",
        **rows,
    }.items():
        table.add_row(name, text)
    console = Console(highlight=False)
    console.print(table)
    with locked(folder):
        write_config(folder, config)
        write_json(folder / "summary.json", content | asdict(counted))
    console.print(f"written: {folder}/ with config.yaml, summary.json", markup=False, soft_wrap=True)
    return 0


def _rows(timing: Timing, device: ThisMachine) -> dict[str, str]:
    """What a timing says, for people."""
    what = "one image" if device.batch_size == 1 else f"a batch of {device.batch_size}"
    cores = f", {device.threads} thread{'s' if device.threads > 1 else ''}" if device.kind == "cpu" else ""
    precision = "float32 (convolutions: TF32 where there is)" if device.kind == "cuda" else "float32"
    rows = {
        f"latency of {what}": f"{1e3 * timing.median:.2f} ms ({1e3 * timing.lower:.2f} to {1e3 * timing.upper:.2f})",
        "median and quartiles of": f"{timing.passes} passes on {device.kind}{cores}, {precision}",
        "throughput": f"{device.batch_size / timing.median:,.1f} images/s",
    }
    return rows if timing.memory is None else {**rows, "peak memory": f"{timing.memory / 2**20:,.0f} MiB"}


def _network(model: str) -> Arch:
    """A published network by its name, or the one in a file."""
    if model in NAMES:
        return reference(model)
    if Path(model).suffix in (".yaml", ".yml") or Path(model).exists():
        return read_arch(model)
    raise InputError(f"model={model}: no file, and no published network; allowed: FILE.yaml, {', '.join(NAMES)}")


if __name__ == "__main__":
    run(main)
