"""`python -m phinas.measure model=efficientnet_b0 device=cpu`: how fast networks are here, side by side."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from phinas.command.configuration import configuration
from phinas.command.console import CONSOLE, say
from phinas.command.parts import construct
from phinas.command.progress import Show, progress
from phinas.command.run import run
from phinas.command.run_folder import locked, provenance, run_folder, version_of, write_config, write_json
from phinas.engines.threads import torch_threads
from phinas.files.atomic_file import write_atomically
from phinas.files.checks import check_whole
from phinas.files.errors import DoesNotFit, InputError, one_line
from phinas.measure.backends import check_form
from phinas.measure.machine import Load, watch_load
from phinas.measure.report import (
    Measured,
    measured_figure,
    milliseconds,
    quartiles_text,
    rate_text,
    ratio_text,
    report,
    short_name,
)
from phinas.measure.timing import (
    ThisMachine,
    Timing,
    fits,
    initialised,
    prepared,
    random_images,
    timed,
)
from phinas.networks.arch import Arch
from phinas.networks.cost import cost
from phinas.networks.named import named
from phinas.networks.reference import reference
from phinas.networks.room import check_room
from phinas.pages.cost_text import macs_text
from phinas.pages.style import png

THROUGHPUT_BATCH = {"cpu": 8, "cuda": 128}
# How far outputs in float32 on the CPU may be from the exact ones, as a share of the largest of them, or how many times
# as far as the plain network's: deep ones amplify what rounding does. Elsewhere numbers are coarser, TF32 in
# convolutions on CUDA too, and the distance is only reported.
TOLERANCE, TIMES_PLAIN = 1e-4, 10
COMPARED = 8  # images at most, of the first batch size: in float64 they take their time
PICTURE_WIDTH = 1600  # pixels


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit code; raises InputError for what the user can mend."""
    given, names = configuration("phinas.measure", "measure", arguments)
    folder = run_folder(given["name"])
    if folder.exists():
        raise InputError(f"name={folder.name}: {folder} is there already; give another name=")
    models = {str(name): named("model", str(name)) for name in _listed("model", given["model"])}
    device_model = construct(given, "device")
    if not isinstance(device_model, ThisMachine):
        for option in ("backend", "batch_size"):
            if given[option] is not None:
                raise InputError(f"{option}={given[option]}: device={names['device']} tells costs itself")
        content = _costs(models, device_model, names["device"])
        with _whole(folder):
            write_config(folder, given)
            write_json(folder / "summary.json", content)
        say(f"written: {folder}/ with config.yaml, summary.json")
        return 0
    asked = _asked(given, models, device_model)
    for name, arch in models.items():
        check_room(arch, f"model={name}")
    check_works(asked)
    with _whole(folder):
        measurements, load = measure(asked)
        notes = _notes(asked, measurements, load)
        _show(asked, measurements, notes, names["device"])
        content = _summary(asked, measurements, load, notes, names["device"])
        machine = content["machine"]
        about = {
            "processor": machine.get("gpu", machine["processor"]), "precision": _precision(device_model),
            "channels_last": device_model.channels_last,
            "machine": {name: text for name, text in machine.items() if text},
        }  # fmt: skip
        write_config(folder, given)
        write_json(folder / "summary.json", content)
        png(measured_figure(measurements, asked.batches), folder / "measure.png", PICTURE_WIDTH)
        page = report(folder.name, measurements, asked.batches, about, notes, (folder / "config.yaml").read_text())
        write_atomically(folder / "report.html", page)
    say(f"written: {folder}/ with config.yaml, summary.json, measure.png\nlook at it: {folder}/report.html")
    return 0


@dataclass(frozen=True)
class Asked:
    """What is to be measured: each network in each form, at each batch size."""

    models: Mapping[str, Arch]
    backends: Sequence[str]
    batches: Sequence[int]
    device: ThisMachine
    seed: int

    @property
    def compares(self) -> bool:
        """Whether there is anything but the plain network, whose outputs are to be compared."""
        return list(self.backends) != ["eager"] or self.device.dtype != "float32"

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return [(model, backend) for model in self.models for backend in self.backends]


def measure(asked: Asked) -> tuple[list[Measured], Load]:
    """Time all that is asked for, side by side. Raises InputError where nothing of it could be timed.

    Of each batch size all are prepared first, then timed in turns. What has no room, or cannot be brought into a form,
    is a row that says so.
    """
    machine = asked.device
    rows = {pair: _Row() for pair in asked.pairs}
    total = (len(rows) + 1) * len(asked.batches)
    with torch_threads(machine.threads), progress(CONSOLE, "measuring", 0, total) as done:
        load_since = watch_load()
        for batch in asked.batches:
            _measure_batch(asked, batch, rows, done)
        load = load_since()
    measurements = []
    for (model, backend), row in rows.items():
        arch = asked.models[model]
        size = machine.resolution or arch.resolution
        measurements.append(Measured(model, arch.key(), cost(arch), size, backend, **vars(row)))
    if not any(measurement.timings for measurement in measurements):
        first = measurements[0]
        raise InputError(f"model={first.model}: {next(iter(first.errors.values()))}")
    return measurements, load


@dataclass
class _Row:
    """What is known so far of one network in one form."""

    timings: dict[int, Timing] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    difference: float | None = None
    of_plain: float | None = None


def _measure_batch(asked: Asked, batch: int, rows: Mapping[tuple[str, str], _Row], done: Show) -> None:
    machine, ready = asked.device, {}
    for model, arch in asked.models.items():
        network: nn.Module | None = None
        images: Tensor | None = None
        exact: Tensor | None = None
        for backend in asked.backends:
            row, said = rows[model, backend], "prepared"
            try:
                with fits(batch, machine.kind):
                    if network is None or images is None:
                        network = settled(arch, machine.resolution, asked.seed)
                        images = random_images(
                            arch, "cpu", batch, machine.resolution, machine.channels_last, seed=asked.seed
                        )
                    here = images.to(machine.kind, getattr(torch, machine.dtype))
                    form = prepared(copy.deepcopy(network), backend, here, machine.threads, machine.channels_last)
                    if asked.compares and batch == asked.batches[0]:
                        if exact is None:
                            few = images[:COMPARED]
                            exact, plain = outputs(network, few, torch.float64), outputs(network, few)
                        row.difference = difference(form.run()[:COMPARED], exact)
                        row.of_plain = difference(plain, exact)
                ready[model, backend] = form
            except (DoesNotFit, InputError) as error:
                row.errors[batch] = said = one_line(error)
            done(f"{short_name(model)} {backend}, batch {batch}: {said}", "")
    best = ""
    try:
        with fits(batch, machine.kind):
            timings = timed([form.run for form in ready.values()], machine.kind, machine.spread, machine.seconds)
        for (pair, form), timing in zip(ready.items(), timings, strict=True):
            rows[pair].timings[batch] = replace(timing, memory=form.memory)
        if timings:
            best = f"{milliseconds(min(timing.median for timing in timings))} ms"
    except DoesNotFit as error:  # each for itself had room
        for pair in ready:
            rows[pair].errors[batch] = f"{error}, all side by side"
    done(f"batch {batch}: timed", best)


def settled(arch: Arch, resolution: int | None, seed: int) -> nn.Module:
    """The network with weights from `seed`, and batch norms with the statistics of two random images.

    As in a trained network they then do something, and outputs are neither all but zero nor huge: forms of the network
    can be compared by them.
    """
    module = initialised(arch, seed)
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean over all batches, of which there is one
        norm.reset_running_stats()
        norm.train()
    with torch.inference_mode():
        module(random_images(arch, "cpu", 2, resolution, seed=seed + 1))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return module.eval()


def outputs(network: nn.Module, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """What the plain network gives on the CPU, computed in `dtype`."""
    with torch.inference_mode():
        logits: Tensor = copy.deepcopy(network).to(dtype)(images.to(dtype))
    return logits


def difference(found: Tensor, exact: Tensor) -> float:
    """The largest difference of outputs from the exact ones, as a share of the largest of those."""
    return float((found.cpu().double() - exact).abs().max() / exact.abs().max())


def check_works(asked: Asked) -> None:
    """InputError for a backend that does not work here: a network of one block goes through each of them first."""
    machine, whole = asked.device, reference("mobilenet_v1")
    tiny = replace(whole, stages=whole.stages[:1], resolution=32)
    for backend in asked.backends:
        images = random_images(tiny, machine.kind, 1, None, machine.channels_last, machine.dtype)
        try:
            prepared(initialised(tiny), backend, images, machine.threads, machine.channels_last)
        except InputError:
            raise
        except Exception as error:  # no compiler, a driver too old, a broken package: each has an exception of its own
            raise InputError(f"backend={backend}: it does not work here: {one_line(error)[:300]}") from None


# --- what was asked for ----------------------------------------------------------------------------------------------


def _asked(given: Mapping[str, Any], models: Mapping[str, Arch], machine: ThisMachine) -> Asked:
    backends = [machine.backend] if given["backend"] is None else _listed("backend", given["backend"])
    for backend in backends:
        check_form(backend, machine.kind, machine.dtype)
    if given["batch_size"] is not None:
        batches = [check_whole("batch_size", size) for size in _listed("batch_size", given["batch_size"])]
    elif machine.batch_size == 1:
        batches = [1, THROUGHPUT_BATCH[machine.kind]]
    else:
        batches = [machine.batch_size]
    return Asked(models, backends, batches, machine, check_whole("seed", given["seed"], least=0))


def _listed(name: str, value: Any) -> list[Any]:
    """One or several, each once."""
    values = list(value) if isinstance(value, list) else [value]
    if not values:
        raise InputError(f"{name}=[]: give one or more")
    for value in values:
        if values.count(value) > 1:
            raise InputError(f"{name}: {value} is there twice")
    return values


# --- what is said and written ----------------------------------------------------------------------------------------


def _notes(asked: Asked, measurements: Sequence[Measured], load: Load) -> list[str]:
    """What is to be known before the figures are quoted."""
    machine, notes = asked.device, []
    if load.disturbs:
        notes.append(
            f"other processes kept {load.others:.1f} of {load.cores} cores busy meanwhile: these are figures of a busy "
            "machine; ratios suffer least, and of times the lower quartiles; measure again when it is idle"
        )
    if machine.kind == "cpu" and machine.threads > load.cores:
        notes.append(f"device.threads={machine.threads}, but this process may use {load.cores} cores")
    in_full = machine.kind == "cpu" and machine.dtype == "float32"
    for measurement in measurements:
        allowed = max(TOLERANCE, TIMES_PLAIN * (measurement.of_plain or 0.0)) if in_full else math.inf
        if measurement.difference is not None and not measurement.difference <= allowed:  # NaN is not
            notes.append(
                f"outputs of {measurement.title} differ from the exact ones by {measurement.difference:.1e} "
                f"of the largest, those of the plain network by {measurement.of_plain:.1e}: do not trust it"
            )
    return notes


def _show(asked: Asked, measurements: Sequence[Measured], notes: Sequence[str], device_name: str) -> None:
    if len(measurements) == 1:
        table = Table(title=f"{measurements[0].model} on device={device_name}", title_justify="left", show_header=False)
        for name, text in _rows(asked, measurements[0]).items():
            table.add_row(name, text)
        CONSOLE.print(table)
    else:
        for batch in asked.batches:
            CONSOLE.print(_table(asked, measurements, batch))
        say(f"all in {_precision(asked.device)}; as fast, as long: as {measurements[0].title}, in the same rounds")
    for note in notes:
        say(f"warning: {note}")


def _table(asked: Asked, measurements: Sequence[Measured], batch: int) -> Table:
    """All at one batch size; 80 columns hold it."""
    memory = asked.device.kind == "cuda"
    table = Table(title="one image" if batch == 1 else f"a batch of {batch}", title_justify="left")
    table.add_column("model", overflow="fold")
    for heading in ("form", "ms (quartiles)", "", "images/s", *(["MiB"] if memory else [])):
        table.add_column(heading, justify="right" if heading in ("images/s", "MiB") else "left")
    for measurement in measurements:
        timing = measurement.timings.get(batch)
        if timing is None:
            table.add_row(short_name(measurement.model), measurement.backend, measurement.errors[batch])
            continue
        cells = [quartiles_text(timing), ratio_text(timing), rate_text(timing, batch)]
        peak = f"{timing.memory / 2**20:,.0f}" if timing.memory is not None else ""
        table.add_row(short_name(measurement.model), measurement.backend, *cells, *([peak] if memory else []))
    return table


def _rows(asked: Asked, measurement: Measured) -> dict[str, str]:
    """What is known of a single network in a single form, for people."""
    machine = asked.device
    rows = {"compute": macs_text(measurement.cost.macs), "parameters": f"{measurement.cost.params / 1e6:.2f}M"}
    own = asked.models[measurement.model].resolution
    if measurement.resolution != own:
        rows["measured at"] = f"{measurement.resolution} pixels, not at its own {own}, of which the compute is"
    for batch in asked.batches:
        what, timing = "one image" if batch == 1 else f"a batch of {batch}", measurement.timings.get(batch)
        if timing is None:
            rows[f"latency of {what}"] = measurement.errors[batch]
            continue
        rows[f"latency of {what}"] = f"{quartiles_text(timing)} ms"
        rows[f"throughput of {what}"] = f"{rate_text(timing, batch)} images/s"
        if timing.memory is not None:
            rows[f"peak memory of {what}"] = f"{timing.memory / 2**20:,.0f} MiB"
    if measurement.difference is not None:
        error = f"{measurement.difference:.1e} of the largest; of the plain network {measurement.of_plain:.1e}"
        rows["error of the outputs"] = error
    passes = " and ".join(str(timing.passes) for timing in measurement.timings.values())
    rows["form"] = f"{measurement.backend}, {_precision(machine)}"
    return {**rows, "medians, quartiles of": f"{passes} passes"}


def _precision(machine: ThisMachine) -> str:
    if machine.kind == "cpu":
        return f"{machine.dtype} on cpu, {machine.threads} thread{'s' if machine.threads > 1 else ''}"
    return f"{machine.dtype}{' (convolutions: TF32 where there is)' if machine.dtype == 'float32' else ''} on cuda"


def _machine(machine: ThisMachine) -> dict[str, Any]:
    """What it was measured on and with."""
    ran = provenance()
    gpus = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda} if machine.kind == "cuda" else {}
    versions = {"torch": torch.__version__, "onnxruntime": version_of("onnxruntime"), "python": ran["python"]}
    return {**{name: ran["hardware"][name] for name in ("processor", "machine", "cores")}, **gpus, **versions}


def _summary(
    asked: Asked, measurements: Sequence[Measured], load: Load, notes: Sequence[str], device_name: str
) -> dict[str, Any]:  # fmt: skip
    """For programs. Of one network in one form, what is known of it at the first batch size stands at the top too."""
    machine, first = asked.device, asked.batches[0]
    content: dict[str, Any] = {"device": device_name, **vars(machine), "batch_sizes": list(asked.batches)}
    content |= {"backends": list(asked.backends), "seed": asked.seed, "against": measurements[0].title}
    if len(measurements) == 1 and first in measurements[0].timings:
        only, timing = measurements[0], measurements[0].timings[first]
        per_image = timing.median / first
        content |= {"model": only.model, "key": only.key, "backend": only.backend, "batch_size": first}
        content |= {"latency": per_image, "throughput": 1 / per_image, "batch_latency": asdict(timing)}
        content |= asdict(only.cost)
    content |= {"machine": _machine(machine), "load": asdict(load), "notes": list(notes)}
    return content | {"measurements": [_measurement(measurement) for measurement in measurements]}


def _measurement(measurement: Measured) -> dict[str, Any]:
    timings = [
        {"batch_size": batch, **asdict(timing), "throughput": batch / timing.median}
        for batch, timing in measurement.timings.items()
    ]
    return {
        "model": measurement.model, "key": measurement.key, **asdict(measurement.cost),
        "resolution": measurement.resolution, "backend": measurement.backend, "difference": measurement.difference,
        "difference_of_plain": measurement.of_plain, "timings": timings,
        "errors": {str(batch): error for batch, error in measurement.errors.items()},
    }  # fmt: skip


def _costs(models: Mapping[str, Arch], device_model: Any, device_name: str) -> dict[str, Any]:
    """Print what a device of another kind tells of each network; gives the content of summary.json."""
    if not callable(getattr(device_model, "costs", None)):
        raise InputError(f"device={device_name}: it has no method costs(network)")
    told = {}
    for model, arch in models.items():
        try:
            told[model] = dict(device_model.costs(arch))
        except DoesNotFit as error:
            raise InputError(f"model={model}: {error}") from None
        if not told[model]:
            raise InputError(f"device={device_name} measures nothing; allowed: here, cpu, cuda")
    for model, arch in models.items():
        counted = cost(arch)
        table = Table(title=f"{model} on device={device_name}", title_justify="left", show_header=False)
        table.add_row("compute", macs_text(counted.macs))
        table.add_row("parameters", f"{counted.params / 1e6:.2f}M")
        for name, value in told[model].items():
            table.add_row(name, f"{value:.6g}")
        CONSOLE.print(table)
    measurements = [
        {"model": model, "key": arch.key(), "costs": told[model], **asdict(cost(arch))}
        for model, arch in models.items()
    ]
    return {"device": device_name, **(measurements[0] if len(measurements) == 1 else {}), "measurements": measurements}


@contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """A new folder, locked; it goes again where what is done meanwhile does not get finished."""
    with locked(folder):
        try:
            yield
        except BaseException:
            shutil.rmtree(folder)
            raise


if __name__ == "__main__":
    run(main)
