"""Budgets: what is found meets every limit and the next step does not, for any rule, and few networks are measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from phinas.files.errors import InputError
from phinas.generate.budget import Limit, largest
from phinas.generate.rules import PRESETS, Rule, read_rule
from phinas.networks.arch import Arch
from phinas.networks.compound import Coefficients
from phinas.networks.cost import cost
from phinas.networks.memory import memory
from phinas.networks.reference import EFFICIENTNET_B0, MOBILENET_V2, RESNET_50
from phinas.networks.scaling_file import Scaling, write_scaling

FORMULAS = [rule for rule in PRESETS.values() if rule.steps is None]


def limit(name: str, most: float, value: Callable[[Arch], float], measured: bool = False) -> Limit:
    return Limit(f"target_{name}", most, value, lambda number: f"{number:g} {name}", measured)


def flops(most: float) -> Limit:
    return limit("flops", most, lambda arch: cost(arch).macs)


def params(most: float) -> Limit:
    return limit("params", most, lambda arch: cost(arch).params)


def training_memory(most: float) -> Limit:
    return limit("memory", most, lambda arch: memory(arch, batch_size=32, mode="train").total)


class Clock:
    """Latency as a device may have it: a constant, and so much for each multiplication and each activation."""

    def __init__(self, noise: float = 0.0) -> None:
        self.asked: list[Arch] = []
        self.known: dict[str, float] = {}
        self.noise = noise

    def __call__(self, arch: Arch) -> float:
        key = replace(arch, dropout=0.0).key()  # which takes no time
        if key not in self.known:
            self.asked.append(arch)
            counted = cost(arch)
            shake = 1 + self.noise * (int(key, 16) % 1000 / 500 - 1)
            self.known[key] = (2e-3 + counted.macs / 40e9 + counted.activations / 1e9) * shake
        return self.known[key]

    def limit(self, most: float) -> Limit:
        return limit("latency", most, self, measured=True)


def constants(tmp_path: Any, alpha: float, beta: float, gamma: float) -> Rule:
    path = tmp_path / "scaling.yaml"
    write_scaling(Scaling(Coefficients(alpha, beta, gamma), 1, "nearest", EFFICIENTNET_B0, {}), path)
    return read_rule(str(path))


@pytest.mark.parametrize("rule", FORMULAS, ids=lambda rule: rule.name)
@pytest.mark.parametrize("baseline", [EFFICIENTNET_B0, MOBILENET_V2, RESNET_50], ids=["b0", "v2", "resnet50"])
@pytest.mark.parametrize("times", [1.0, 1.6, 7.3, 90.0])
def test_what_is_found_meets_the_limit_and_the_next_step_does_not(rule: Rule, baseline: Arch, times: float) -> None:
    for make, base in (
        (flops, cost(baseline).macs),
        (params, cost(baseline).params),
        (training_memory, memory(baseline, 32).total),
    ):
        asked = make(times * base)
        fit = largest(rule, baseline, [asked])
        assert fit.beyond == pytest.approx(fit.phi + 0.1) and fit.phi == round(fit.phi, 1)
        assert asked.meets(rule.grow(baseline, fit.phi)) and not asked.meets(rule.grow(baseline, fit.beyond))
        assert fit.binding == ((asked, asked.value(rule.grow(baseline, fit.beyond))),)


def test_a_billion_flops_from_b0() -> None:
    assert largest(PRESETS["paper"], EFFICIENTNET_B0, [flops(1e9)]).phi == 1.0  # 993M; 1.04G at 1.1
    assert largest(PRESETS["published"], EFFICIENTNET_B0, [flops(1e9)]).phi == 2


def test_two_gibibytes_of_training_need_less_than_b0() -> None:
    asked = training_memory(2 * 2**30)
    fit = largest(PRESETS["dwr"], EFFICIENTNET_B0, [asked])
    assert fit.phi < 0 and fit.beyond is not None
    assert asked.meets(PRESETS["dwr"].grow(EFFICIENTNET_B0, fit.phi))
    assert not asked.meets(PRESETS["dwr"].grow(EFFICIENTNET_B0, fit.beyond))
    with pytest.raises(InputError, match="phi=0, needs .* memory; scaling=dwr or scaling=tinynet has smaller ones"):
        largest(PRESETS["paper"], EFFICIENTNET_B0, [asked])


@pytest.mark.parametrize("rule", PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize("macs", [400e6, 450e6, 1.1e9, 6e9])
def test_it_is_the_largest_of_all_phi(rule: Rule, macs: float) -> None:
    asked = [flops(macs), params(9e6)]
    fit = largest(rule, EFFICIENTNET_B0, asked)
    phis = rule.steps or [step / 10 for step in range(-30 if rule.shrinks else 0, 100)]
    assert fit.phi == max(phi for phi in phis if all(one.meets(rule.grow(EFFICIENTNET_B0, phi)) for one in asked))


def test_of_several_limits_it_says_which_binds() -> None:
    both = [flops(4e9), params(8e6)]
    fit = largest(PRESETS["paper"], EFFICIENTNET_B0, both)
    assert [one.option for one, _ in fit.binding] == ["target_params"]
    tight = largest(PRESETS["published"], EFFICIENTNET_B0, [flops(994e6), params(9.2e6)])
    assert [one.option for one, _ in tight.binding] == ["target_flops", "target_params"] and tight.beyond == 3


def test_a_finer_step_comes_nearer() -> None:
    coarse, fine = (largest(PRESETS["dwr"], EFFICIENTNET_B0, [flops(3e9)], step) for step in (0.5, 0.01))
    assert coarse.phi <= fine.phi and fine.beyond == pytest.approx(fine.phi + 0.01)
    assert coarse.phi % 0.5 == 0


def test_channels_that_are_no_multiples_of_eight_may_cost_less_at_phi_zero_than_below() -> None:
    # 20 channels are kept as they are at phi=0; just below and above it they become 24.
    odd = replace(
        EFFICIENTNET_B0, stages=tuple(replace(one, channels=one.channels + 4) for one in EFFICIENTNET_B0.stages)
    )
    dwr = PRESETS["dwr"]
    exact = flops(cost(odd).macs)
    assert cost(dwr.grow(odd, -0.05)).macs > cost(odd).macs  # or this test is of nothing
    fit = largest(dwr, odd, [exact])
    assert fit.phi == 0 and exact.meets(dwr.grow(odd, 0)) and not exact.meets(dwr.grow(odd, 0.1))


def test_phi_zero_is_not_found_where_it_alone_exceeds_a_limit() -> None:
    # 51 channels are kept as they are at phi=0; just below and above it they become 48.
    odd = replace(EFFICIENTNET_B0, stages=tuple(replace(one, channels=51) for one in EFFICIENTNET_B0.stages))
    dwr = PRESETS["dwr"]
    above = dwr.grow(odd, 0.01)
    assert cost(above).macs < cost(odd).macs  # or this test is of nothing
    slow_above = limit("latency", 1.0, lambda arch: 2.0 if arch == above else 0.5, measured=True)
    asked = [flops(cost(above).macs), slow_above]
    fit = largest(dwr, odd, asked, step=0.01)
    assert (fit.phi, fit.beyond) == (-0.01, 0) and all(one.meets(dwr.grow(odd, fit.phi)) for one in asked)
    assert fit.binding == ((asked[0], cost(odd).macs),)


def test_a_table_of_mixed_order_is_asked_row_by_row() -> None:
    # TinyNet-A has fewer MACs than its baseline, but more parameters.
    assert largest(PRESETS["tinynet"], EFFICIENTNET_B0, [params(6e6)]).phi == 0
    assert largest(PRESETS["tinynet"], EFFICIENTNET_B0, [flops(350e6), params(6e6)]).phi == -2


@pytest.mark.parametrize("rule", PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize("seconds", [0.012, 0.03, 0.2, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05, 0.1, 0.3])
def test_latency_is_measured_on_few_networks_none_far_beyond_the_limit(
    rule: Rule, seconds: float, noise: float
) -> None:
    clock = Clock(noise)
    asked = clock.limit(seconds)
    try:
        fit = largest(rule, EFFICIENTNET_B0, [asked])
    except InputError:
        assert clock(rule.grow(EFFICIENTNET_B0, min(0, rule.least))) > seconds
        return
    measured = len(clock.asked)
    found = [rule.grow(EFFICIENTNET_B0, phi) for phi in (fit.phi, fit.beyond) if phi is not None]
    assert [clock(arch) <= seconds for arch in found] == [True, False][: len(found)]
    assert len(clock.asked) == measured <= 12  # both were
    assert max(clock.known.values()) < max(4 * seconds, 0.02)  # the baseline itself takes 0.018


def test_latency_is_asked_only_of_what_meets_the_other_limits() -> None:
    clock = Clock()
    fit = largest(PRESETS["paper"], EFFICIENTNET_B0, [clock.limit(0.3), flops(1e9)])
    assert fit.phi == 1.0 and [one.option for one, _ in fit.binding] == ["target_flops"]
    assert max(cost(arch).macs for arch in clock.asked) <= 1e9


def test_what_does_not_fit_the_device_is_too_slow() -> None:
    def seconds(arch: Arch) -> float:
        return 0.01 if cost(arch).macs < 900e6 else float("inf")

    fit = largest(PRESETS["paper"], EFFICIENTNET_B0, [limit("latency", 0.02, seconds, measured=True)])
    assert cost(PRESETS["paper"].grow(EFFICIENTNET_B0, fit.phi)).macs < 900e6
    assert fit.binding[0][1] == float("inf")


@pytest.mark.parametrize(
    ("preset", "asked", "says"),
    [
        ("paper", [flops(1e6)], "of 1e+06 flops: the smallest network of scaling=paper, phi=0, needs 3.85815e+08 "),
        ("published", [flops(1e6), params(1e6)], "; target_params of 1e+06 params: the smallest network of scaling="),
        ("tinynet", [flops(1e6)], "scaling=tinynet, phi=-5, needs 2.43568e+07 flops; scaling=dwr has smaller ones"),
        ("dwr", [params(10)], "scaling=dwr, phi=-24.9, needs .* params; give a smaller baseline="),
        ("paper", [flops(1e30)], "scaling=paper stays within target_flops of 1e+30 flops up to phi=37.8"),
    ],
)  # fmt: skip
def test_a_budget_that_nothing_meets_or_nothing_exceeds_is_one_line(preset: str, asked: list[Limit], says: str) -> None:
    with pytest.raises(InputError) as caught:
        largest(PRESETS[preset], EFFICIENTNET_B0, asked)
    assert says.split(" .* ")[0] in str(caught.value) and says.split(" .* ")[-1] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_largest_of_a_table_may_meet_everything() -> None:
    fit = largest(PRESETS["published"], EFFICIENTNET_B0, [flops(1e30)])
    assert (fit.phi, fit.beyond, fit.binding) == (9, None, ())


def test_a_rule_that_does_not_grow_comes_to_an_end(tmp_path: Any) -> None:
    still = constants(tmp_path, 1, 1, 1)
    with pytest.raises(InputError, match="stays within target_flops of 1e\\+09 flops up to phi=1000"):
        largest(still, EFFICIENTNET_B0, [flops(1e9)])
    clock = Clock()
    with pytest.raises(InputError, match="stays within"):
        largest(still, EFFICIENTNET_B0, [clock.limit(1.0)])
    assert len(clock.asked) == 1
    larger_images = constants(tmp_path, 1, 1, 1.4)
    with pytest.raises(InputError, match="stays within target_params"):
        largest(larger_images, EFFICIENTNET_B0, [params(6e6)])
    assert largest(larger_images, EFFICIENTNET_B0, [params(6e6), flops(1e9)]).binding[0][0].option == "target_flops"
