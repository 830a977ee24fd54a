"""Laws that every search space keeps, to be run on people's own spaces, and a profile of what a space holds."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cloudpickle  # type: ignore[import-untyped]
import numpy as np

from phinas.files.errors import InputError
from phinas.networks.arch import Arch
from phinas.networks.cost import Cost
from phinas.networks.network import Network, build_network, cost_of, count
from search_spaces.space import (
    Infeasible,
    Picks,
    Space,
    check_decisions,
    crossover,
    decode,
    encode,
    mutate,
    sample,
    size,
)

ENCODED = 20  # samples that are encoded back; each takes tens of milliseconds in a space of 40 decisions
FORWARDED = 2
TIMEOUT = 120.0  # seconds for another process to import the space and give the keys
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Finding:
    """How a space fared under one law; `detail` says what was tried, or the first thing that broke it."""

    law: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Profile:
    """What random samples of a space look like.

    size            number of picks.
    samples         how many were drawn; `feasible` of them decode, to `distinct` different networks.
    macs, params    of the feasible samples, at `QUANTILES`; empty where none is feasible.
    near_target     share of the samples that are feasible and within 25% of `target` MACs; None without a target.
    """

    size: int
    samples: int
    feasible: int
    distinct: int
    macs: tuple[int, ...]
    params: tuple[int, ...]
    target: float | None
    near_target: float | None


class SpaceBroken(AssertionError):
    """A space broke one or more laws; the message lists them."""


def check_space(space: Space, samples: int = 200, seed: int = 0, build: int = 20) -> list[Finding]:
    """Hold `space` to every law; for a test of one line in your own suite.

    samples   random picks to decode, mutate and cross.
    build     how many of the networks are built on the meta device to compare costs.
    Raises SpaceBroken listing the laws that were broken.
    """
    findings = examine(space, samples, seed, build)
    broken = [f"{finding.law}: {finding.detail}" for finding in findings if not finding.passed]
    if broken:
        raise SpaceBroken(f"{type(space).__name__} breaks {len(broken)} of {len(findings)} laws\n" + "\n".join(broken))
    return findings


def examine(space: Space, samples: int = 200, seed: int = 0, build: int = 20) -> list[Finding]:
    """One finding per law, in order; stops behind the first two laws if they fail, as the others rest on them."""
    if samples < 1 or build < 1:
        raise ValueError(f"samples and build must be 1 or more, got {samples} and {build}")
    trial = _Trial(space, samples, seed, build)
    findings: list[Finding] = []
    for number, (name, law) in enumerate(LAWS.items()):
        try:
            findings.append(Finding(name, True, law(trial)))
        except _Broken as broken:
            findings.append(Finding(name, False, str(broken)))
        except Exception as error:  # other people's code may raise anything: that is what is being found out
            findings.append(Finding(name, False, _describe(error)))
        if number < 2 and not findings[-1].passed:
            break
    return findings


def profile(space: Space, samples: int = 200, target: float | None = None, seed: int = 0) -> Profile:
    """Draw `samples` random picks and describe them; `target` in MACs."""
    networks = [network for _, network in _Trial(space, samples, seed, build=1).feasible]
    cost_by_key = {key: cost_of(network) for key, network in {net.key(): net for net in networks}.items()}
    costs = [cost_by_key[network.key()] for network in networks]
    macs = np.array([cost.macs for cost in costs])
    near = None if target is None else float(np.sum(np.abs(macs - target) <= 0.25 * target)) / samples
    return Profile(
        size=size(space.decisions),
        samples=samples,
        feasible=len(networks),
        distinct=len(cost_by_key),
        macs=_quantiles([cost.macs for cost in costs]),
        params=_quantiles([cost.params for cost in costs]),
        target=target,
        near_target=near,
    )


def _quantiles(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(value) for value in np.quantile(values, QUANTILES)) if values else ()


def _describe(error: Exception) -> str:
    """An unexpected exception in one line, with the place in the space's code that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message} ({os.path.basename(frame.filename)}:{frame.lineno})"


class _Broken(Exception):
    """A law does not hold; the message is what the finding says."""


class _Trial:
    """The space under examination and its random samples."""

    def __init__(self, space: Space, samples: int, seed: int, build: int) -> None:
        self.space = space
        self.samples = samples
        self.seed = seed
        self.build = build

    @cached_property
    def picks(self) -> list[Picks]:
        return [sample(self.space.decisions, np.random.default_rng((self.seed, i))) for i in range(self.samples)]

    @cached_property
    def feasible(self) -> list[tuple[Picks, Network]]:
        pairs = []
        for picks in self.picks:
            try:
                pairs.append((picks, decode(self.space, picks)))
            except Infeasible:
                continue
        return pairs

    @cached_property
    def costed(self) -> list[tuple[Cost, Picks, Network]]:
        """The first `build` feasible samples with what they say they cost."""
        return [(cost_of(network), picks, network) for picks, network in self.feasible[: self.build]]


# --- the laws: each returns what was tried, or raises _Broken --------------------------------------------------------


def _decisions_are_sound(trial: _Trial) -> str:
    decisions = trial.space.decisions
    try:
        check_decisions(decisions)
    except ValueError as error:
        raise _Broken(str(error)) from None
    if tuple(trial.space.decisions) != tuple(decisions):
        raise _Broken("`decisions` gives other decisions when read again")
    return f"{len(decisions)} decisions, {size(decisions):,} combinations"


def _samples_decode(trial: _Trial) -> str:
    for picks, network in trial.feasible:
        for method in ("key", "build"):
            if not isinstance(network, Arch) and not callable(getattr(network, method, None)):
                raise _Broken(f"picks {picks} decode to a {type(network).__name__}, which has no {method}()")
        key = network.key()
        if not isinstance(key, str) or not key:
            raise _Broken(f"picks {picks}: key() must give a non-empty string, got {key!r}")
    if not trial.feasible:
        raise _Broken(f"none of {trial.samples} random samples is feasible")
    return f"{len(trial.feasible)} of {trial.samples} samples are networks, the others declared Infeasible"


def _decode_is_deterministic(trial: _Trial) -> str:
    for picks, network in trial.feasible:
        first, again, anew = network.key(), network.key(), decode(trial.space, picks).key()
        if not first == again == anew:
            raise _Broken(f"picks {picks}: key() gives {first}, then {again}, and {anew} when decoded again")
    feasible = {picks for picks, _ in trial.feasible}
    for picks in trial.picks:
        if picks not in feasible:
            try:
                decode(trial.space, picks)
            except Infeasible:
                continue
            raise _Broken(f"picks {picks} were Infeasible the first time only")
    return f"{trial.samples} samples decoded twice"


def _wrong_picks_are_refused(trial: _Trial) -> str:
    picks = trial.feasible[0][0]
    counts = [len(decision.choices) for decision in trial.space.decisions]
    for wrong in (picks[:-1], (*picks, 0), (-1, *picks[1:]), (*picks[:-1], counts[-1])):
        try:
            decode(trial.space, wrong)
        except Infeasible:
            raise _Broken(f"picks {wrong} are Infeasible; they must be refused") from None
        except ValueError:
            continue
        raise _Broken(f"picks {wrong} do not fit the decisions, and were decoded")
    return "too few, too many, below and above the range"


def _mutation_changes_one_decision(trial: _Trial) -> str:
    if all(len(decision.choices) == 1 for decision in trial.space.decisions):
        return "nothing can change: every decision has a single choice"
    for number, picks in enumerate(trial.picks):
        mutant = mutate(trial.space.decisions, picks, np.random.default_rng((trial.seed, number, 1)))
        if sum(a != b for a, b in zip(picks, mutant, strict=True)) != 1:
            raise _Broken(f"{picks} mutated to {mutant}")
        _decodes_or_is_infeasible(trial.space, mutant)
    return f"{trial.samples} mutants, each of which decodes or is Infeasible"


def _crossover_inherits(trial: _Trial) -> str:
    for number, (first, second) in enumerate(zip(trial.picks, trial.picks[1:], strict=False)):
        child = crossover(first, second, np.random.default_rng((trial.seed, number, 2)))
        if any(gene not in parents for gene, *parents in zip(child, first, second, strict=True)):
            raise _Broken(f"{first} and {second} crossed to {child}")
        _decodes_or_is_infeasible(trial.space, child)
    return f"{trial.samples - 1} children, each of which decodes or is Infeasible"


def _encode_inverts_decode(trial: _Trial) -> str:
    for picks, network in trial.feasible[:ENCODED]:
        try:
            decoded = decode(trial.space, encode(trial.space, network))
        except InputError as error:
            raise _Broken(f"picks {picks}: their network is {error}; offer encode(network) in the space") from None
        if decoded.key() != network.key():
            raise _Broken(f"picks {picks}: encode returned picks of another network")
    return f"{min(ENCODED, len(trial.feasible))} networks found again"


def _values_pickle(trial: _Trial) -> str:
    if [pickle.loads(pickle.dumps(network)).key() for _, network in trial.feasible] != [
        network.key() for _, network in trial.feasible
    ]:
        raise _Broken("a network has another key() after pickling")
    space: Space = pickle.loads(pickle.dumps(trial.space))
    if tuple(space.decisions) != tuple(trial.space.decisions):
        raise _Broken("the space has other decisions after pickling")
    return "the space, and every sampled network"


_MARKER = "--- keys"  # what comes before it is printed by the space's own modules


def _keys_agree_between_processes(trial: _Trial) -> str:
    """A key made with Python's hash() of strings changes from process to process, and resuming would repeat work."""
    picks = [picks for picks, _ in trial.feasible]
    program = "import pickle, sys; s, ps = pickle.load(sys.stdin.buffer); from search_spaces.space import decode\n"
    program += f"print({_MARKER!r})\nfor p in ps: print(decode(s, p).key())"
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    try:
        child = subprocess.run(
            [sys.executable, "-c", program],
            input=cloudpickle.dumps((trial.space, picks)),  # by value where it stands in a notebook, as engines ship it
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "271828"},
            capture_output=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise _Broken(f"another process gave no keys within {TIMEOUT:g} seconds") from None
    if child.returncode:
        raise _Broken(f"another process failed: {child.stderr.decode().strip().splitlines()[-1]}")
    keys = child.stdout.decode().partition(f"{_MARKER}\n")[2].split("\n")
    for (sampled, network), key in zip(trial.feasible, keys, strict=False):
        if network.key() != key:
            raise _Broken(f"picks {sampled}: key() gives {network.key()}, and {key} in another process")
    return f"{len(picks)} keys"


def _cost_is_what_is_built(trial: _Trial) -> str:
    for claimed, picks, network in trial.costed:
        built = count(lambda network=network: build_network(network), _input_shape(network))
        for name in ("macs", "params"):
            claim, counted = getattr(claimed, name), getattr(built, name)
            if claim != counted:
                raise _Broken(f"picks {picks}: cost() says {claim:,} {name}, the module has {counted:,}")
            if isinstance(claim, bool) or not isinstance(claim, int):
                raise _Broken(f"picks {picks}: {name} must be a whole number, got {claim!r}")
    return f"MACs and parameters of {len(trial.costed)} networks, built on the meta device"


def _networks_run(trial: _Trial) -> str:
    import torch  # nothing else here needs it, and a space can be used without it

    smallest = sorted(trial.costed, key=lambda entry: (entry[0].macs, entry[1]))[:FORWARDED]
    for _, picks, network in smallest:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(trial.seed)
            net = build_network(network)
            images = torch.randn(2, *_input_shape(network))
            for mode in ("training", "evaluation"):
                with torch.no_grad():
                    logits = net.train(mode == "training")(images)
                if logits.ndim != 2 or len(logits) != 2:
                    raise _Broken(f"picks {picks}: logits have shape {tuple(logits.shape)}, wanted (2, classes)")
                if not torch.isfinite(logits).all():
                    raise _Broken(f"picks {picks}: logits are not finite in {mode} mode")
    return f"the {len(smallest)} smallest of {len(trial.costed)}, batch 2, training and evaluation mode"


def _input_shape(network: Network) -> tuple[int, ...]:
    if isinstance(network, Arch):
        return network.in_channels, network.resolution, network.resolution
    return tuple(getattr(network, "input_shape", (3, 224, 224)))


def _decodes_or_is_infeasible(space: Space, picks: Picks) -> None:
    try:
        decode(space, picks)
    except Infeasible:
        return


LAWS: dict[str, Callable[[_Trial], str]] = {
    "decisions are sound": _decisions_are_sound,
    "samples decode": _samples_decode,
    "decode is deterministic": _decode_is_deterministic,
    "wrong picks are refused": _wrong_picks_are_refused,
    "mutation changes one decision": _mutation_changes_one_decision,
    "crossover inherits": _crossover_inherits,
    "encode inverts decode": _encode_inverts_decode,
    "values pickle": _values_pickle,
    "keys agree between processes": _keys_agree_between_processes,
    "cost is what is built": _cost_is_what_is_built,
    "networks run": _networks_run,
}
