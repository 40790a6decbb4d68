"""Action heads: raw outputs to what M reads, to what an environment takes, and back."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from worldmodels.actions import (
    NotFiniteActionError,
    bounds,
    check_finite_actions,
    from_env,
    squash,
    to_env,
)
from worldmodels.configs import CAR_RACING, ActionHead, ControllerConfig
from worldmodels.controller import LinearController

BOX = ActionHead("box", low=(-2.0, 0.0), high=(2.0, 10.0))
FOUR = ActionHead("discrete", num=4, first=1)


def test_a_box_is_reached_by_tanh():
    y = torch.tensor([[0.0, 0.0], [0.7, -1.2], [-50.0, 50.0]])
    read = squash(y, BOX)
    np.testing.assert_allclose(read, [[math.tanh(v) for v in row] for row in y.tolist()], rtol=1e-6)
    expected = [
        [-2 + 4 * (math.tanh(a) + 1) / 2, 10 * (math.tanh(b) + 1) / 2] for a, b in y.tolist()
    ]
    given = to_env(read.numpy(), BOX)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(from_env(given, BOX), read.numpy(), atol=1e-6)


def test_numbers_beyond_a_box_are_clipped():
    np.testing.assert_allclose(from_env(np.array([[9.0, -3.0]]), BOX), [[1.0, -1.0]])


def test_the_highest_output_is_the_discrete_action():
    y = torch.tensor([[0.1, 0.3, -2.0, 0.2], [5.0, 1.0, 1.0, 1.0]])
    assert squash(y, FOUR).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    given = to_env(squash(y, FOUR).numpy(), FOUR)
    assert given.tolist() == [2, 1]  # counted from 1
    assert from_env(given, FOUR).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    assert from_env(np.array([4.0]), FOUR).tolist() == [[0, 0, 0, 1]]


def test_a_choice_has_the_gradient_of_the_softmax():
    y = torch.tensor([0.3, -0.4, 1.1, 0.0], requires_grad=True)
    worth = torch.tensor([1.0, -2.0, 0.5, 3.0])
    chosen = squash(y, FOUR)
    assert chosen.detach().tolist() == [0, 0, 1, 0]
    (chosen * worth).sum().backward()
    e = [math.exp(v) for v in y.tolist()]
    p = [v / sum(e) for v in e]
    mean = sum(a * b for a, b in zip(p, worth.tolist(), strict=True))
    # d/dy_i of sum_j p_j w_j is p_i (w_i - mean).
    expected = [a * (b - mean) for a, b in zip(p, worth.tolist(), strict=True)]
    assert y.grad.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("head", "low", "high"),
    [(CAR_RACING, [-1, 0, 0], [1, 1, 1]), (BOX, [-1, -1], [1, 1]), (FOUR, [0] * 4, [1] * 4)],
)
def test_bounds_of_what_m_reads(head, low, high):
    assert [b.tolist() for b in bounds(head)] == [low, high]
    assert head.size == len(low)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "box"}, "box takes low and high"),
        ({"kind": "box", "low": (0.0,), "high": (math.inf,)}, "as many finite bounds"),
        ({"kind": "box", "low": (1.0,), "high": (1.0,)}, "the lower ones below"),
        ({"kind": "box", "low": (0.0, 0.0), "high": (1.0,)}, "as many finite bounds"),
        ({"kind": "discrete", "num": 1}, "2 actions or more"),
        ({"kind": "discrete", "num": 3, "low": (0.0,), "high": (1.0,)}, "discrete num"),
        ({"num": 3}, "car_racing none of them"),
    ],
)
def test_heads_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        ActionHead(**settings)


@pytest.mark.parametrize(
    ("head", "actions", "message"),
    [
        (FOUR, [0], "whole numbers .* from 1 to 4"),
        (FOUR, [1.5], "whole numbers"),
        (FOUR, [[1]], r"of shape \(1, 1\)"),
        (BOX, [[0.0, math.nan]], "2 finite numbers between"),
        (BOX, [0.0, 1.0], r"of shape \(2,\)"),
        (CAR_RACING, [[0.0, 1.0]], "3 finite numbers between"),
    ],
)
def test_actions_that_are_none_are_told(head, actions, message):
    with pytest.raises(ValueError, match=message):
        from_env(np.array(actions), head)


def test_a_controller_carries_its_head(tmp_path):
    config = ControllerConfig(2, 3, 4, "z", FOUR)
    LinearController(config).save_pretrained(tmp_path / "c")
    again = LinearController.from_pretrained(tmp_path / "c")
    assert again.config == config
    vector = torch.zeros(config.num_parameters)
    vector[2 * 2] = 1.0  # the third action's weight of the first number
    acted = again.load_vector(vector).act(torch.tensor([[1.0, 0], [-1.0, 0]]), *[None] * 2)
    assert acted.argmax(-1).tolist() == [2, 0]
    with pytest.raises(ValueError, match="action_dim is 3 and the action head has 4"):
        ControllerConfig(2, 3, 3, "z", FOUR)


def test_a_controller_from_before_there_were_heads_drives_the_car():
    folder = Path(__file__).parents[2] / "pretrained" / "carracing-dream" / "controller"
    assert "action" not in (folder / "config.json").read_text().replace("action_dim", "")
    assert LinearController.from_pretrained(folder).config.action == CAR_RACING


@pytest.mark.parametrize(
    ("actions", "told"),
    [
        (math.nan, "action is nan"),
        ([0.0, math.inf, 0.0], r"action\[1\] is inf"),
        (np.array([[0, 1], [-np.inf, np.nan]], np.float32), r"action\[1, 0\] is -inf"),
        ([0.0, None], r"action\[1\] is nan"),
        (torch.tensor([[0.0, math.nan]]), r"action\[0, 1\] is nan"),
        (torch.tensor([math.inf, 0.0], dtype=torch.bfloat16), r"action\[0\] is inf"),
    ],
)
def test_what_is_not_finite_is_named_by_its_place(actions, told):
    for kind in (ValueError, FloatingPointError):
        with pytest.raises(kind, match=f"{told}; needed are finite numbers"):
            check_finite_actions(actions)


def test_what_is_finite_passes():
    for actions in (0, 3.5, [], [1, 2], np.zeros((2, 3), np.int64), torch.ones(2), True):
        check_finite_actions(actions)


@pytest.mark.parametrize("head", [CAR_RACING, BOX, FOUR])
def test_no_agent_gives_an_environment_what_is_not_finite(head):
    actions = np.zeros((2, head.size), np.float32)
    actions[1, 0] = np.nan
    with pytest.raises(NotFiniteActionError, match=r"action\[1, 0\] is nan"):
        to_env(actions, head)
