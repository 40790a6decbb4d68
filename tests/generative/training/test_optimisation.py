"""Steps of the optimiser, falling rate, clipping and average, each by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from generative.training.optimisation import Optimisation


def line(weight: float = 1.0) -> nn.Linear:
    """y = w x."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    return model


def descend(model: nn.Linear, steps: int, **settings) -> Optimisation[nn.Linear]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Optimisation(model, optimizer, steps, **settings)


def test_rate_falls_along_a_cosine_to_the_last_one():
    """Of loss 3 w the gradient is 3, so the way that w goes in a step tells the rate."""
    model = line()
    optimisation = descend(model, 4, final_lr=0.02)
    for step in range(4):
        assert optimisation.step_number == step
        before = float(model.weight.detach())
        optimisation.step(3 * model.weight.sum())
        rate = 0.02 + (0.1 - 0.02) * (1 + math.cos(math.pi * step / 4)) / 2
        assert before - float(model.weight.detach()) == pytest.approx(3 * rate, rel=1e-5)
    assert optimisation.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.02)


def test_several_optimisers_by_a_rate_of_ones_own():
    """Of loss 3 a + 3 b, each moves its own weight at its own rate, shared by the step's part."""
    a, b = model = nn.ModuleList([line(), line()])
    optimizers = [torch.optim.SGD(part.parameters(), lr=lr) for part, lr in ((a, 0.1), (b, 0.2))]
    optimisation = Optimisation(model, optimizers, 3, rate=lambda step: 1 / (1 + step))
    for step in range(3):
        before = [float(part.weight.detach()) for part in model]
        optimisation.step(3 * (a.weight + b.weight).sum())
        moved = [w - float(part.weight.detach()) for w, part in zip(before, model, strict=True)]
        assert moved == pytest.approx([0.3 / (1 + step), 0.6 / (1 + step)], rel=1e-4)


@pytest.mark.parametrize(("clip", "length"), [(0.0, 5.0), (10.0, 5.0), (0.5, 0.5)])
def test_gradient_is_shortened_to_the_largest_norm(clip, length):
    model = nn.Linear(2, 1, bias=False)
    before = model.weight.detach().clone()
    descend(model, 100, clip=clip).step((model.weight * torch.tensor([3.0, 4.0])).sum())
    assert float((model.weight - before).detach().norm()) == pytest.approx(0.1 * length, rel=1e-4)


def test_gradients_of_earlier_steps_are_gone():
    model = line()
    optimisation = descend(model, 100)
    model.weight.sum().backward()
    optimisation.step(0 * model.weight.sum())
    assert float(model.weight.detach()) == 1.0


def test_what_is_kept_is_the_average_if_there_is_one():
    plain, averaged = line(), line()
    optimisation = descend(averaged, 100, ema=0.5)
    mean = 0.0
    for step in range(3):
        optimisation.step(averaged.weight.square().sum())
        # The first weights are taken as they are; then the memory is at most (1 + n) / (10 + n).
        decay = min(0.5, (1 + step) / (10 + step)) if step else 0.0
        mean = decay * mean + (1 - decay) * float(averaged.weight.detach())
    assert float(optimisation.kept.weight.detach()) == pytest.approx(mean)
    assert float(averaged.weight.detach()) != pytest.approx(mean, abs=1e-3)
    assert optimisation.kept is not optimisation.kept
    assert not optimisation.kept.training
    without = descend(plain, 100)
    without.step(plain.weight.square().sum())
    assert float(without.kept.weight.detach()) == float(plain.weight.detach())


@pytest.mark.parametrize("average_buffers", [False, True])
def test_buffers_are_the_last_ones_or_averaged_and_counters_are_taken_over(average_buffers):
    model = nn.BatchNorm1d(1)
    optimisation = Optimisation(
        model, torch.optim.SGD(model.parameters()), 10, ema=0.9, average_buffers=average_buffers
    )
    means = []
    for x in (1.0, 5.0, 9.0):
        optimisation.step(model(torch.tensor([[x - 1], [x + 1]])).sum())
        means.append(float(model.running_mean))
    kept = optimisation.kept
    assert int(kept.num_batches_tracked) == 3
    last = float(kept.running_mean) == means[-1]
    assert last != average_buffers


def test_goes_on_from_its_state():
    def run(optimisation: Optimisation[nn.Linear], steps: int) -> None:
        for _ in range(steps):
            optimisation.step(optimisation.model.weight.square().sum())

    whole, begun, resumed = (descend(line(), 6, ema=0.9) for _ in range(3))
    run(whole, 6)
    run(begun, 3)
    resumed.load_state_dict({**copy.deepcopy(begun.state_dict()), "of a learner": 1})
    run(resumed, 3)
    assert torch.equal(resumed.model.weight, whole.model.weight)
    assert torch.equal(resumed.kept.weight, whole.kept.weight)
