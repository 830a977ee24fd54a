"""The average of weights: its ramp, its closed form, what it averages and what it copies, and exact resuming."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torch import nn

from phinas.files.errors import InputError
from phinas.training.full.average import WeightAverage, ramped_decay


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))


def wander(module: nn.Module, seed: int) -> None:
    """New weights, and new batch-norm statistics from a batch."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        module.train()
        module(torch.randn(3, 2, 5, 5, generator=generator))


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(name == other and torch.equal(one, two) for (name, one), (other, two) in pairs)


@pytest.mark.parametrize(
    ("updates", "decay"),
    [(0, 0.1), (1, 2 / 11), (2, 0.25), (89, 90 / 99), (90, 0.91), (890, 0.99), (89_989, 89_990 / 89_999),
     (89_990, 0.9999), (89_991, 0.9999), (10**9, 0.9999)],
)  # fmt: skip
def test_the_ramp(updates: int, decay: float) -> None:
    assert ramped_decay(updates) == pytest.approx(decay, rel=1e-15)
    assert ramped_decay(updates, 0.5) == pytest.approx(min(0.5, decay), rel=1e-15)


def test_each_past_value_has_its_share_of_the_product_formula() -> None:
    """Value k is 1 in place k alone, so that the average is the list of all values' shares."""
    updates = 40
    values = torch.eye(updates + 1, dtype=torch.float64)
    module = nn.Module()
    module.weight = nn.Parameter(values[0].clone())
    average = WeightAverage(module, decay=0.7)  # reached at update 20
    for value in values[1:]:
        module.weight.data.copy_(value)
        average.update(module)
    decays = [1.0] + [min(0.7, (1 + t) / (10 + t)) for t in range(1, updates + 1)]
    shares = [math.prod(decays)]
    shares += [(1 - decays[k]) * math.prod(decays[k + 1 :]) for k in range(1, updates + 1)]
    assert sum(shares) == pytest.approx(1)
    assert average.module.weight.tolist() == pytest.approx(shares, rel=1e-12)  # type: ignore[operator]


def test_constant_weights_are_a_fixed_point() -> None:
    module = network()
    wander(module, 0)
    average = WeightAverage(module)
    for _ in range(100):
        average.update(module)
    assert same(average.module, module) and average.updates == 100


def test_statistics_are_averaged_and_counts_copied() -> None:
    module = network()
    average = WeightAverage(module)
    wander(module, 1)
    average.update(module)
    norm, averaged = module[1], average.module[1]  # type: ignore[index]
    assert isinstance(norm, nn.BatchNorm2d) and isinstance(averaged, nn.BatchNorm2d)
    assert norm.running_mean is not None and averaged.running_mean is not None  # it started at 0
    torch.testing.assert_close(averaged.running_mean, norm.running_mean * 9 / 11)
    assert averaged.num_batches_tracked == norm.num_batches_tracked == 1


def test_the_average_is_a_network_to_evaluate_and_its_own() -> None:
    module = network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = WeightAverage(module)
    assert not average.module.training and module.training
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    assert average.module[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[index]
    before = {name: tensor.clone() for name, tensor in average.module.state_dict().items()}
    wander(module, 2)
    assert all(torch.equal(before[name], tensor) for name, tensor in average.module.state_dict().items())
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_shared_weights_are_averaged_once() -> None:
    layer = nn.Linear(1, 1, bias=False)
    module = nn.Sequential(layer, layer)
    nn.init.zeros_(layer.weight)
    average = WeightAverage(module)
    nn.init.ones_(layer.weight)
    average.update(module)
    assert average.module[0].weight.item() == pytest.approx(9 / 11)  # type: ignore[index]


def test_a_resumed_average_is_the_uninterrupted_one_to_the_bit() -> None:
    module = network()
    whole = WeightAverage(module)
    first = WeightAverage(module)
    for number in range(3):
        wander(module, number)
        whole.update(module)
        first.update(module)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = WeightAverage(network())
    second.load_state_dict(torch.load(file, weights_only=True))
    for number in range(3, 7):
        wander(module, number)
        whole.update(module)
        second.update(module)
    assert same(whole.module, second.module) and second.updates == whole.updates == 7


def test_another_networks_average_is_refused() -> None:
    state = WeightAverage(nn.Sequential(nn.Conv2d(2, 5, 3))).state_dict()
    average = WeightAverage(nn.Sequential(nn.Conv2d(2, 4, 3)))
    with pytest.raises(RuntimeError, match="size mismatch for 0.weight"):
        average.load_state_dict(state)
    assert average.updates == 0


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(InputError, match="decay=1.0: it must be a number 0 or more and below 1"):
        WeightAverage(network(), decay=1.0)
    with pytest.raises(ValueError, match="weights are torch.bfloat16; an average needs float32 or wider"):
        WeightAverage(network().to(torch.bfloat16))
