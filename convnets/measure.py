"""`python -m convnets.measure model=efficientnet_b0 device=cpu`: how fast a network is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from conf.command import configuration, construct, run
from conf.run_folder import locked, run_folder, write_config, write_json
from convnets.arch import Arch
from convnets.arch_file import read_arch
from convnets.cost import cost, macs_text
from convnets.errors import DoesNotFit, InputError
from convnets.reference import NAMES, reference
from convnets.timing import ThisMachine, Timing


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
