"""Whether this machine has room for a network at all."""

from __future__ import annotations

import psutil

from phinas.files.bytes import bytes_text
from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.cost import cost


def check_room(arch: Arch, named: str) -> None:
    """InputError where the weights alone are more than the memory: the system would end the process without a word.

    named  the option that names the network.
    """
    params, there = cost(arch).params, psutil.virtual_memory().total
    if 4 * params > there:
        raise InputError(
            f"{named}: its {params:,} parameters take {bytes_text(4 * params)}, and the memory is {bytes_text(there)}"
        )
