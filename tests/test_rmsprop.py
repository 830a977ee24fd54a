"""TensorFlow's RMSProp: against numbers worked by hand, against PyTorch's where they agree and where they must not."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from phinas.files.errors import InputError
from phinas.training.full.rmsprop import TensorFlowRMSProp
from phinas.training.optim import decayed


def one(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value], dtype=torch.float64))


def step(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, gradient: float) -> float:
    parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()
    return parameter.item()


def test_worked_by_hand() -> None:
    """With gradients of 1 the square stays 1, and with eps 9/16 the root is 5/4: the velocity gains lr * 4/5."""
    parameter = one(1.0)
    optimizer = TensorFlowRMSProp([parameter], lr=0.25, decay=0.75, momentum=0.5, eps=0.5625)
    assert step(optimizer, parameter, 1.0) == pytest.approx(0.8, rel=1e-15)  # velocity 0.2
    assert step(optimizer, parameter, 1.0) == pytest.approx(0.5, rel=1e-15)  # 0.1 + 0.2
    optimizer.param_groups[0]["lr"] = 0.5
    assert step(optimizer, parameter, 1.0) == pytest.approx(-0.05, rel=1e-14)  # 0.15 + 0.4
    optimizer.param_groups[0]["lr"] = 0.0
    assert step(optimizer, parameter, 1.0) == pytest.approx(-0.325, rel=1e-14)  # 0.275: momentum keeps its old rates
    # Without a gradient the square decays: 0.75, and with a gradient of 2 it is 0.5625 + 0.25 * 4 = 1.5625.
    optimizer.param_groups[0].update(lr=0.25, eps=0.6875, momentum=0.0)
    assert step(optimizer, parameter, 0.0) == pytest.approx(-0.325, rel=1e-14)
    assert step(optimizer, parameter, 2.0) == pytest.approx(-0.325 - 0.25 * 2 / 1.5, rel=1e-14)  # root of 2.25


def test_efficientnets_settings_in_plain_floats() -> None:
    """Several steps of several numbers with weight decay, recomputed one by one."""
    start, gradients = [0.3, -1.2, 0.0, 4.0], [[0.1, -2.0, 0.0, 1e-3], [0.2, 3.0, 0.0, 1e-3], [-0.5, 0.1, 1e-4, 0.0]]
    parameter = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = TensorFlowRMSProp([parameter], lr=0.016, weight_decay=1e-5)
    expected, square, velocity = list(start), [1.0] * 4, [0.0] * 4
    for rate, gradient in zip((0.016, 0.008, 0.032), gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        for i in range(4):
            g = gradient[i] + 1e-5 * expected[i]
            square[i] = 0.9 * square[i] + 0.1 * g * g
            velocity[i] = 0.9 * velocity[i] + rate * g / math.sqrt(square[i] + 1e-3)
            expected[i] -= velocity[i]
        assert parameter.tolist() == pytest.approx(expected, rel=1e-14)


# --------------------------------------------------------------------------------------------- against PyTorch's own


def both(lr: float, eps: float, same_start: bool) -> tuple[nn.Parameter, TensorFlowRMSProp, nn.Parameter, Any]:
    ours, theirs = one(1.0), one(1.0)
    optimizer = TensorFlowRMSProp([ours], lr, 0.9, 0.8, eps, 0.01)
    other = torch.optim.RMSprop([theirs], lr, alpha=0.9, eps=eps, momentum=0.8, weight_decay=0.01)
    if same_start:
        zero = torch.zeros(1, dtype=torch.float64)
        other.state[theirs] = {"step": torch.tensor(0.0), "square_avg": zero + 1, "momentum_buffer": zero.clone()}
    return ours, optimizer, theirs, other


def test_agrees_with_torch_at_a_constant_rate_without_eps_from_the_same_square() -> None:
    ours, optimizer, theirs, other = both(0.1, 1e-30, same_start=True)
    for gradient in (0.5, -2.0, 0.1, 3.0):
        assert step(optimizer, ours, gradient) == pytest.approx(step(other, theirs, gradient), rel=1e-14)


def test_starts_its_square_at_one() -> None:
    ours, optimizer, theirs, other = both(0.1, 1e-30, same_start=False)
    mine, torchs = 1 - step(optimizer, ours, 0.09), 1 - step(other, theirs, 0.09)  # 0.1 with the decay
    assert torchs / mine == pytest.approx(math.sqrt((0.9 + 0.1 * 0.1**2) / (0.1 * 0.1**2)))


def test_adds_eps_inside_the_root() -> None:
    ours, optimizer, theirs, other = both(0.1, 0.5, same_start=True)
    mine, torchs = 1 - step(optimizer, ours, 0.99), 1 - step(other, theirs, 0.99)  # the square stays 1
    assert mine == pytest.approx(0.1 / math.sqrt(1.5)) and torchs == pytest.approx(0.1 / 1.5)


def test_momentum_keeps_the_rate_it_was_gathered_at() -> None:
    ours, optimizer, theirs, other = both(0.1, 1e-30, same_start=True)
    mine, torchs = step(optimizer, ours, 0.5), step(other, theirs, 0.5)
    optimizer.param_groups[0]["lr"] = other.param_groups[0]["lr"] = 0.0
    assert step(other, theirs, 0.5) == torchs  # stands still at once
    assert mine - step(optimizer, ours, 0.5) == pytest.approx(0.8 * (1 - mine))


# ------------------------------------------------------------------------------------------- groups, gradients, state


def network() -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * 16, 4))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layers.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def learn(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for number in steps:
        generator = torch.Generator().manual_seed(number)
        images = torch.randn(5, 3, 6, 6, generator=generator).to(memory_format=torch.channels_last)
        optimizer.zero_grad()
        functional.cross_entropy(module(images), torch.arange(5) % 4).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def weights(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def test_only_chosen_groups_decay() -> None:
    """Without gradients from the loss, what is pulled towards 0 is what decays."""
    module = network()
    with_decay, without = decayed(module, biases=True)
    groups: list[dict[str, Any]] = [{"params": with_decay, "weight_decay": 0.1}, {"params": without}]
    optimizer, before = TensorFlowRMSProp(groups, lr=0.1), weights(module)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    smaller = [bool((now.abs() < old.abs()).all()) for now, old in zip(weights(module), before, strict=True)]
    assert smaller == [True, True, False, False, True, True]  # all but the batch norm's two
    assert all(torch.equal(before[i], weights(module)[i]) for i in (2, 3))


def test_a_parameter_without_a_gradient_stays() -> None:
    used, unused = one(1.0), one(1.0)
    optimizer = TensorFlowRMSProp([used, unused], lr=0.1, weight_decay=0.1)
    assert step(optimizer, used, 1.0) != 1.0
    assert unused.item() == 1.0 and list(optimizer.state) == [used]
    TensorFlowRMSProp([unused], lr=0.1).step()  # nothing to do at all


def test_sparse_gradients_are_refused() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match=r"a gradient of shape \[4, 2\] is sparse; it must be dense"):
        TensorFlowRMSProp(table.parameters(), lr=0.1).step()


def test_a_closure_computes_loss_and_gradients() -> None:
    parameter = one(3.0)
    optimizer = TensorFlowRMSProp([parameter], lr=0.1)

    def loss() -> float:
        optimizer.zero_grad()
        value = (parameter**2).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    assert optimizer.step(loss) == 9.0 and parameter.item() < 3.0


@pytest.mark.parametrize(
    ("field", "value"),
    [("lr", -1.0), ("lr", math.nan), ("decay", 1.0), ("momentum", -0.1), ("eps", 0.0), ("weight_decay", -1e-5)],
)
def test_a_value_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{field}={value}: it must be a number"):
        TensorFlowRMSProp([one(1.0)], **{"lr": 0.1, field: value})
    with pytest.raises(InputError, match=f"{field}={value}: it must be a number"):
        TensorFlowRMSProp([{"params": [one(1.0)], field: value}], lr=0.1)


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit() -> None:
    whole = network()
    learn(whole, TensorFlowRMSProp(whole.parameters(), lr=0.01, weight_decay=1e-3), range(7))

    first = network()
    optimizer = TensorFlowRMSProp(first.parameters(), lr=0.01, weight_decay=1e-3)
    learn(first, optimizer, range(3))
    file = io.BytesIO()
    torch.save({"module": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    second = network()
    second.load_state_dict(saved["module"])
    resumed = TensorFlowRMSProp(second.parameters(), lr=1.0)  # every setting comes from the checkpoint
    resumed.load_state_dict(saved["optimizer"])
    learn(second, resumed, range(3, 7))
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(second), strict=True))
    assert resumed.param_groups[0]["lr"] == 0.01


def test_how_many_are_updated_together_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for numbers in (0, 200, 2**16):
        monkeypatch.setattr("phinas.training.full.rmsprop._CPU_PART", numbers)
        module = network()
        learn(module, TensorFlowRMSProp(module.parameters(), lr=0.01, weight_decay=1e-3), range(3))
        results.append(weights(module))
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_takes_the_same_steps() -> None:
    module, gradients = network(), [torch.randn_like(parameter) for parameter in network().parameters()]
    results = []
    for where in ("cpu", "cuda"):
        parameters = [nn.Parameter(parameter.to(where)) for parameter in weights(module)]
        optimizer = TensorFlowRMSProp(parameters, lr=0.1, weight_decay=0.01)
        for _ in range(3):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.to(where)
            optimizer.step()
        results.append([parameter.detach().cpu() for parameter in parameters])
    torch.testing.assert_close(results[1], results[0])
