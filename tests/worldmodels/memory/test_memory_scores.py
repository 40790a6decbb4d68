"""Open-loop errors and dreamed returns against loops over single moments."""

import numpy as np
import pytest
import torch
from torch import nn

from worldmodels.configs import ControllerConfig, MDNRNNConfig, TransformerMemoryConfig
from worldmodels.controller import LinearController
from worldmodels.dreaming.starts import warm_up
from worldmodels.memory import MDNRNN, TransformerMemory
from worldmodels.memory.scores import Driver, dreamed_returns, moments, open_loop, real_returns
from worldmodels.sequences import EncodedRollouts

torch.set_num_threads(1)
D, H = 3, 6
HEADS = {"predict_reward": True, "predict_end": True, "residual": True}


def episodes(lengths=(9, 4, 12)) -> EncodedRollouts:
    rng = np.random.default_rng(0)
    starts = np.cumsum([0] + [n + 1 for n in lengths])
    actions = rng.uniform(-1, 1, (starts[-1], 3)).astype(np.float32)
    rewards = rng.normal(size=starts[-1]).astype(np.float32)
    actions[starts[1:] - 1], rewards[starts[1:] - 1] = 0, 0
    mu, logvar = rng.normal(size=(2, starts[-1], D)).astype(np.float16)
    return EncodedRollouts(mu, logvar, actions, rewards, np.zeros(starts[-1], bool), starts)


def lstm(**changes) -> MDNRNN:
    torch.manual_seed(0)
    return MDNRNN(MDNRNNConfig(D, 3, H, 2, **{**HEADS, **changes})).eval()


def transformer(**changes) -> TransformerMemory:
    torch.manual_seed(0)
    config = TransformerMemoryConfig(
        D,
        3,
        H,
        2,
        num_layers=1,
        num_heads=2,
        head_dim=4,
        ff_dim=8,
        context=4,
        **{**HEADS, **changes},
    )
    return TransformerMemory(config).eval()


def test_moments_lie_inside_their_episodes():
    # Decisions 0-8, 9-12 and 13-24; three before and five after leave 3, 4 and, of the last, 3-7.
    assert moments(episodes(), horizon=5, history=3, every=1).tolist() == [3, 4, 16, 17, 18, 19, 20]
    assert moments(episodes(), horizon=5, history=3, every=3).tolist() == [3, 16, 19]
    with pytest.raises(ValueError, match="no episode has 13 decisions, the longest 12"):
        moments(episodes(), horizon=10, history=3, every=1)


@torch.no_grad()
@pytest.mark.parametrize("make", [lstm, transformer])
@pytest.mark.parametrize("reward_input", [False, True])
def test_open_loop_is_a_loop_over_moments(make, reward_input):
    memory, encoded, horizon = make(reward_input=reward_input), episodes(), 4
    rows = moments(encoded, horizon, history=2, every=2)
    errors = open_loop(memory, warm_up(memory, encoded), encoded, rows, horizon, 2, temperature=0)
    real = real_returns(encoded, rows, horizon)
    off = {name: [] for name in ("z", "still", "reward", "paid")}
    decisions = [
        (first, t)
        for first, length in zip(encoded.starts, encoded.lengths, strict=False)
        for t in range(length)
    ]
    for row, total in zip(rows, real, strict=True):
        first, t = decisions[row]
        frames = torch.from_numpy(encoded.mu).float()
        actions, rewards = torch.from_numpy(encoded.actions), torch.from_numpy(encoded.rewards)
        state, paid = None, torch.zeros(1)
        for u in range(first, first + t):
            args = frames[u][None, None], actions[u][None, None], state, paid[None]
            _, state = memory.read(*args)
            paid = rewards[u][None]
        z, found, so_far = frames[first + t], {name: [] for name in off}, 0.0
        for k in range(first + t, first + t + horizon):
            out, state = memory.step(z[None], actions[k][None], state, paid)
            best = out.mixture.log_pi.argmax(-1, keepdim=True)
            z, paid = out.mixture.mu.gather(-1, best)[0, :, 0], out.reward
            so_far += float(paid - rewards[k])
            found["z"].append((z - frames[k + 1]).square().mean())
            found["still"].append((frames[first + t] - frames[k + 1]).square().mean())
            found["reward"].append((paid - rewards[k]).square()[0])
            found["paid"].append(abs(so_far))
        for name, values in found.items():
            off[name].append(values)
        assert total == pytest.approx(float(rewards[first + t : first + t + horizon].sum()), 1e-5)
    for name in ("z", "still", "reward"):
        expected = np.sqrt(np.mean(np.array(off[name]), 0))
        np.testing.assert_allclose(getattr(errors, name), expected, rtol=0.01)
    np.testing.assert_allclose(errors.paid, np.mean(off["paid"], 0), rtol=0.02, atol=2e-3)


@torch.no_grad()
def test_dreams_are_averaged():
    """An M that always says N(0, 4): n draws have the mean 0, but for 2 / sqrt(n)."""
    memory, encoded = lstm(residual=False), episodes((400,))
    for parameter in memory.mixture_head.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(memory.mixture_head.linear.bias[-2 * D :], np.log(2.0))
    rows, starts = moments(encoded, 5, 1, every=1), warm_up(memory, encoded)
    real = np.sqrt(np.mean(encoded.mu.astype(float) ** 2))
    for dreams in (1, 16):
        errors = open_loop(memory, starts, encoded, rows, 5, dreams)
        np.testing.assert_allclose(errors.z, np.sqrt(real**2 + 4 / dreams), rtol=0.05)


@torch.no_grad()
@pytest.mark.parametrize("make", [lstm, transformer])
def test_dreamed_returns_without_luck_are_a_loop(make):
    """At temperature 0 and without ends a dream is certain; the driver has an M of its own."""
    memory, encoded, horizon = make(), episodes(), 5
    nn.init.constant_(memory.end_head.bias, -40.0)
    own, controller = lstm(residual=False), LinearController(ControllerConfig(D, H))
    nn.init.normal_(controller.linear.weight)
    rows = moments(encoded, horizon, history=1, every=4)
    starts, driver = warm_up(memory, encoded), Driver(controller, own, warm_up(own, encoded))
    found = dreamed_returns(memory, starts, driver, rows, horizon, 3, temperature=0.0)
    for row, value in zip(rows, found, strict=True):
        now, mind = starts.take([row]), driver.starts.take([row])
        z, state, own_state, total = now.z, (now.h, now.c), (mind.h, mind.c), 0.0
        for _ in range(horizon):
            action = controller.act(z, *own_state)
            out, state = memory.step(z, action, state)
            _, own_state = own.step(z, action, own_state)
            best = out.mixture.log_pi.argmax(-1, keepdim=True)
            z, total = out.mixture.mu.gather(-1, best)[..., 0], total + out.reward.item()
        assert value == pytest.approx(total, rel=1e-4, abs=1e-5)
    # An end that is certain comes after the first decision, which pays.
    nn.init.constant_(memory.end_head.bias, 40.0)
    once = dreamed_returns(memory, starts, driver, rows, horizon)
    expected = dreamed_returns(memory, starts, driver, rows, 1)
    np.testing.assert_allclose(once, expected, rtol=1e-5)  # float32


def test_an_m_without_rewards_is_refused():
    memory, encoded = lstm(predict_reward=False), episodes()
    with pytest.raises(ValueError, match="no reward head"):
        open_loop(memory, warm_up(memory, encoded), encoded, np.array([2]), 3)
