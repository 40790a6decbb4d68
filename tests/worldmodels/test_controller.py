"""C: its size, its squashing and its flat vectors."""

import math

import pytest
import torch

from worldmodels.actions import BRAKE_LEAK, car_racing_action
from worldmodels.controller import (
    ControllerConfig,
    LinearController,
    split_candidates,
)

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (ControllerConfig(), 867),
        (ControllerConfig(features="z"), 99),
        # Doom in the paper: z 64, h and c of 512, one action.
        (ControllerConfig(64, 512, 1, "zhc"), 1089),
    ],
)
def test_sizes_of_the_paper(config, count):
    controller = LinearController(config)
    assert sum(p.numel() for p in controller.parameters()) == config.num_parameters == count


def test_squashing():
    y = torch.tensor([[0.0, 0.0, 0.0], [0.5, -1.0, 2.0], [-30.0, 30.0, -0.3]])
    expected = [
        [0.0, 0.5, 0.0],
        [math.tanh(0.5), (1 + math.tanh(-1)) / 2, math.tanh(2)],
        [-1.0, 1.0, 0.0],
    ]
    torch.testing.assert_close(car_racing_action(y), torch.tensor(expected))
    assert car_racing_action(torch.zeros(4, 5, 3)).shape == (4, 5, 3)


@pytest.mark.parametrize("features", ["z", "zh", "zhc"])
def test_acts_as_its_vector_says(features):
    config = ControllerConfig(4, 6, 3, features)
    vector = torch.randn(config.num_parameters)
    controller = LinearController(config).load_vector(vector)
    z, h, c = torch.randn(5, 4), torch.randn(5, 6), torch.randn(5, 6)
    rows, n = vector.tolist(), config.feature_dim
    for i in range(5):
        seen = [*z[i].tolist(), *h[i].tolist(), *c[i].tolist()][:n]
        y = [
            sum(w * x for w, x in zip(rows[a * n : (a + 1) * n], seen, strict=True))
            + rows[3 * n + a]
            for a in range(3)
        ]
        torch.testing.assert_close(controller(z, h, c)[i], torch.tensor(y))
        action = [math.tanh(y[0]), (math.tanh(y[1]) + 1) / 2, max(math.tanh(y[2]), 0)]
        torch.testing.assert_close(controller.act(z, h, c)[i], torch.tensor(action))


def test_vector_round_trip():
    vector = torch.randn(867)
    controller = LinearController().load_vector(vector)
    assert torch.equal(controller.to_vector(), vector)
    assert torch.equal(LinearController().to_vector(), torch.zeros(867))
    weight, bias = split_candidates(vector.unsqueeze(0), controller.config)
    assert torch.equal(weight[0], controller.linear.weight)
    assert torch.equal(bias[0], controller.linear.bias)


@pytest.mark.parametrize("wrong", [(866,), (2, 867)])
def test_other_lengths_are_refused(wrong):
    with pytest.raises(ValueError, match=r"288 features and 3 actions needs \(P, 867\)"):
        LinearController().load_vector(torch.zeros(wrong))


def test_saved_and_loaded(tmp_path):
    controller = LinearController().load_vector(torch.randn(867))
    controller.save_pretrained(tmp_path / "controller")
    again = LinearController.from_pretrained(tmp_path / "controller")
    assert torch.equal(again.to_vector(), controller.to_vector())


def test_a_released_brake_lets_part_of_the_gradient_through():
    y = torch.tensor([[0.3, -0.4, -0.7], [0.3, -0.4, 0.7]], requires_grad=True)
    action = car_racing_action(y)
    torch.testing.assert_close(action.detach(), car_racing_action(y.detach()), rtol=0, atol=0)
    action.sum().backward()
    slope = [1 - math.tanh(x) ** 2 for x in (0.3, -0.4, 0.7)]
    expected = [[slope[0], slope[1] / 2, BRAKE_LEAK * slope[2]], [slope[0], slope[1] / 2, slope[2]]]
    torch.testing.assert_close(y.grad, torch.tensor(expected))
