"""Steps of the optimiser, falling rate, clipping and average, each by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from generative.training.optimisation import Optimisation, learning_rate, parameter_groups


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


def test_several_optimisers_rise_from_zero_and_fall_each_from_its_own_rate():
    """Of loss 3 a + 3 b, each moves its own weight at its own rate."""
    a, b = model = nn.ModuleList([line(), line()])
    optimizers = [torch.optim.SGD(part.parameters(), lr=lr) for part, lr in ((a, 0.1), (b, 0.2))]
    optimisation = Optimisation(model, optimizers, 4, final_lr=0.02, warmup=2)
    for shares in ((1 / 3, 1 / 3), (2 / 3, 2 / 3), (1, 1), (0.6, 0.55), (0.2, 0.1)):
        before = [float(part.weight.detach()) for part in model]
        optimisation.step(3 * (a.weight + b.weight).sum())
        moved = [w - float(part.weight.detach()) for w, part in zip(before, model, strict=True)]
        assert moved == pytest.approx([0.3 * shares[0], 0.6 * shares[1]], rel=1e-4)


@pytest.mark.parametrize(("steps", "warmup"), [(20, 0), (20, 5), (20, 100), (1, 0), (0, 0)])
def test_rate_stays_at_its_end(steps, warmup):
    model = line()
    optimisation = descend(model, steps, final_lr=1e-3, warmup=warmup)
    rates = []
    for _ in range(45):
        rates.append(optimisation.optimizers[0].param_groups[0]["lr"])
        optimisation.step(model.weight.sum())
    assert rates[steps:] == [1e-3] * (45 - steps)
    assert 1e-3 not in rates[:steps]


def test_longer_run_goes_on_with_the_rates_of_its_length():
    """Saved at the end of 100 steps and taken over for 300: at every step what 300 have there."""
    begun, longer, whole = (descend(line(), steps, final_lr=1e-5) for steps in (100, 300, 300))
    for _ in range(100):
        begun.step(begun.model.weight.sum())
        whole.step(whole.model.weight.sum())
    longer.load_state_dict(copy.deepcopy(begun.state_dict()))
    assert longer.step_number == 100
    for step in range(100, 320):
        rates = [o.optimizers[0].param_groups[0]["lr"] for o in (longer, whole)]
        assert rates[0] == rates[1] == learning_rate(step, 300, 0.1, 1e-5)
        for one in (longer, whole):
            one.step(one.model.weight.sum())


def test_matrices_of_layers_decay_and_nothing_else():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.ones(2, 2))
            self.bias_table = nn.Embedding(3, 2)
            self.linear = nn.Linear(2, 2)

    layers = nn.ModuleList(
        [
            nn.Linear(2, 3), nn.Conv2d(1, 2, 3), nn.ConvTranspose1d(1, 2, 3), nn.Embedding(4, 2),
            nn.LSTM(2, 2), nn.LayerNorm(2), nn.BatchNorm2d(2), nn.GroupNorm(1, 2), nn.PReLU(2),
            Scaled(),
        ]
    )  # fmt: skip
    names = {id(parameter): name for name, parameter in layers.named_parameters()}
    decayed, plain = parameter_groups(layers, 0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert {names[id(p)] for p in decayed["params"]} == {
        "0.weight", "1.weight", "2.weight", "3.weight", "4.weight_ih_l0", "4.weight_hh_l0",
        "9.linear.weight",
    }  # fmt: skip
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


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


def test_buffers_are_averaged_as_weights_are_and_counters_are_taken_over():
    model = nn.BatchNorm1d(1)
    optimisation = Optimisation(model, torch.optim.SGD(model.parameters()), 10, ema=0.9)
    average = 0.0
    for n, x in enumerate((1.0, 5.0, 9.0)):
        optimisation.step(model(torch.tensor([[x - 1], [x + 1]])).sum())
        decay = min(0.9, (1 + n) / (10 + n)) if n else 0.0
        average = decay * average + (1 - decay) * float(model.running_mean)
    kept = optimisation.kept
    assert int(kept.num_batches_tracked) == 3
    assert float(kept.running_mean) == pytest.approx(average)


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
