"""Dreams against a slow loop over single lanes, fed with the same noise."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from worldmodels.configs import ControllerConfig, DreamConfig, MDNRNNConfig
from worldmodels.dreaming.rollout import Dream
from worldmodels.dreaming.starts import DreamStarts
from worldmodels.memory import MDNRNN

torch.set_num_threads(1)
D, H, K = 4, 10, 3
EVERYTHING = {
    "reward_input": True,
    "predict_end": True,
    "residual": True,
    "dropout": 0.3,
    "reward_scale": 2.0,
}


def small_memory(seed: int = 0, **changes) -> MDNRNN:
    torch.manual_seed(seed)
    memory = MDNRNN(MDNRNNConfig(D, 3, H, K, **{"predict_reward": True, **changes})).eval()
    nn.init.normal_(memory.mixture_head.linear.weight)  # mixtures that differ
    return memory


def random_starts(n: int = 5, seed: int = 0) -> DreamStarts:
    g = torch.Generator().manual_seed(seed)
    z, c = torch.randn(n, D, generator=g), torch.randn(n, H, generator=g)
    return DreamStarts(z, torch.rand(n, H, generator=g) - 0.5, c, torch.randn(n, generator=g))


def random_candidates(controller: ControllerConfig, n: int = 3) -> torch.Tensor:
    return torch.randn(n, controller.num_parameters, generator=torch.Generator().manual_seed(1))


def cell_of(memory: MDNRNN) -> nn.LSTMCell:
    cell = nn.LSTMCell(memory.config.input_dim, H)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(cell, name).data.copy_(getattr(memory.lstm, f"{name}_l0"))
    return cell


@torch.no_grad()
def slow_dream(memory, controller, config, candidates, starts, seed):
    """Lane by lane, dimension by dimension; only the noise is drawn as `Dream` draws it."""
    mem, rollouts, generator = memory.config, len(starts), torch.Generator().manual_seed(seed)
    mask = torch.ones(rollouts, H)
    if config.dropout and mem.dropout:
        kept = torch.rand(rollouts, H, generator=generator) < 1 - mem.dropout
        mask = torch.where(kept, 1 / (1 - mem.dropout), 0.0)
    noise = []
    for _ in range(config.horizon):
        uniform = torch.rand(K, rollouts, D, generator=generator)
        eps = torch.randn(rollouts, D, generator=generator)
        u = torch.rand(rollouts, generator=generator) if mem.predict_end else None
        noise.append((-(-uniform.log()).log(), eps, u))

    cell, tau, n = cell_of(memory), config.temperature, controller.feature_dim
    returns, lengths, saturation = torch.zeros(3, len(candidates), rollouts)
    for p, vector in enumerate(candidates):
        weight, bias = vector[: 3 * n].reshape(3, n), vector[3 * n :]
        for r in range(rollouts):
            z, h, c = starts.z[r], starts.h[r], starts.c[r]
            previous, alive, paid = starts.prev_reward[r], True, []
            for gumbel, eps, u in noise:
                raw = weight @ torch.cat([z, h, c])[:n] + bias
                for value in raw.tolist():
                    saturation[p, r] += max(abs(value) - 1, 0) ** 2 / config.horizon
                y = torch.tanh(raw)
                action = torch.stack([y[0], (y[1] + 1) / 2, y[2].clamp(min=0)])
                inputs = [z, action]
                if mem.reward_input:
                    inputs.append(previous.reshape(1) / mem.reward_scale)
                h, c = cell(torch.cat(inputs), (h, c))
                seen = h * mask[r]
                log_pi, mu, log_std = memory.mixture_head.linear(seen).reshape(3, D, K)
                z_next = torch.empty(D)
                for d in range(D):
                    scores = log_pi[d].log_softmax(0) / tau + gumbel[:, r, d]
                    k = int(scores.argmax())
                    std = math.exp(min(max(log_std[d, k].item(), -7), 5)) * math.sqrt(tau)
                    z_next[d] = mu[d, k] + std * eps[r, d] + (z[d] if mem.residual else 0)
                z = z_next
                previous = memory.reward_head(seen)[0] * mem.reward_scale
                if config.reward_clip is not None:
                    previous = previous.clamp(*config.reward_clip)
                paid.append(previous if alive else torch.zeros(()))
                lengths[p, r] += alive
                if mem.predict_end and u[r] < torch.sigmoid(memory.end_head(seen))[0]:
                    alive = False
            window = config.pace_window
            for stretch in (paid[t : t + window] for t in range(0, config.horizon, window)):
                cap = math.inf if config.pace_cap is None else config.pace_cap * len(stretch)
                returns[p, r] += min(sum(stretch), cap)
    return returns, lengths, saturation


@pytest.mark.parametrize(
    ("heads", "features", "config"),
    [
        ({}, "zh", DreamConfig(8, 1.0)),
        ({"residual": True}, "z", DreamConfig(8, 1.3, reward_clip=(-0.1, 0.2))),
        ({"dropout": 0.5}, "zh", DreamConfig(8, 0.5)),
        (EVERYTHING, "zhc", DreamConfig(8, 1.15, reward_clip=(-0.5, 0.5))),
        (EVERYTHING, "zh", DreamConfig(8, 1.0, dropout=False)),
        ({}, "zh", DreamConfig(8, 1.0, pace_cap=0.05, pace_window=3)),
        (EVERYTHING, "zh", DreamConfig(8, 1.0, pace_cap=0.02, pace_window=1)),
    ],
)
def test_equals_a_slow_loop(heads, features, config):
    memory, controller = small_memory(**heads), ControllerConfig(D, H, 3, features)
    candidates, starts = random_candidates(controller), random_starts()
    dream = Dream(memory, controller, config)
    slow = slow_dream(memory, controller, config, candidates, starts, seed=4)
    returns, lengths, saturation = slow
    for result in (
        dream.rollout(candidates, starts, torch.Generator().manual_seed(4)),
        dream.evaluate(candidates, starts, seed=4),
    ):
        torch.testing.assert_close(result.returns, returns, rtol=1e-4, atol=1e-5)
        assert torch.equal(result.lengths, lengths)
        torch.testing.assert_close(result.saturation, saturation, rtol=1e-4, atol=1e-5)
    if heads is EVERYTHING:
        assert len(lengths.unique()) > 2
    assert not torch.allclose(returns[0], returns[1])


def make_dream(heads=EVERYTHING, **settings) -> Dream:
    settings = {"horizon": 12, "temperature": 1.1, **settings}
    return Dream(small_memory(**heads), ControllerConfig(D, H), DreamConfig(**settings))


def test_bf16_is_close():
    """Not lane by lane, where a mixture may be chosen otherwise, but on the whole."""
    returns = []
    for bf16 in (False, True):
        dream = make_dream({"residual": True}, bf16=bf16)
        result = dream.evaluate(random_candidates(dream.controller), random_starts(200), 0)
        assert result.returns.dtype == torch.float32
        returns.append(result.returns)
    correlation = torch.corrcoef(torch.stack([r.flatten() for r in returns]))[0, 1]
    assert 0.95 < correlation < 1


def test_equal_candidates_have_equal_luck():
    dream, starts = make_dream(), random_starts(16)
    one = random_candidates(dream.controller, 1)
    result = dream.evaluate(one.expand(4, -1), starts, seed=3)
    for p in range(1, 4):
        torch.testing.assert_close(result.returns[p], result.returns[0])
        assert torch.equal(result.lengths[p], result.lengths[0])
    # Rollouts from one start differ, as their noise does.
    same = starts.take(np.zeros(16, int))
    assert len(dream.evaluate(one, same, seed=3).returns.unique()) > 8


@pytest.mark.parametrize("max_lanes", [1, 10, 17, 100])
def test_grouping_changes_nothing(max_lanes):
    dream, starts = make_dream(), random_starts(5)
    candidates = random_candidates(dream.controller, 7)
    whole = dream.evaluate(candidates, starts, seed=5)
    grouped = dream.evaluate(candidates, starts, seed=5, max_lanes=max_lanes)
    torch.testing.assert_close(grouped.returns, whole.returns)
    assert torch.equal(grouped.lengths, whole.lengths)


def test_seed_decides():
    dream, starts = make_dream(), random_starts()
    candidates = random_candidates(dream.controller)
    returns = [dream.evaluate(candidates, starts, seed).returns for seed in (1, 1, 2)]
    assert torch.equal(returns[0], returns[1])
    assert not torch.equal(returns[0], returns[2])


def test_temperature_zero_has_no_luck_and_heat_spreads_returns():
    spread = []
    for temperature in (0, 0.3, 3.0):
        dream = make_dream(heads={"residual": True}, temperature=temperature)
        candidate, same = random_candidates(dream.controller, 1), random_starts(1).take([0] * 64)
        spread.append(dream.evaluate(candidate, same, seed=1).returns.std().item())
    assert spread[0] < 1e-6
    assert 1e-3 < spread[1] < spread[2]


def test_reward_is_clipped():
    dream = make_dream(heads={"reward_scale": 100.0}, reward_clip=(-1.0, 2.0))
    returns = dream.evaluate(random_candidates(dream.controller), random_starts(), 0).returns
    assert returns.min() >= -12
    assert returns.max() <= 24
    assert returns.abs().max() > 5


@pytest.mark.parametrize(("chance", "length"), [(0.0, 40), (1.0, 1), (0.25, 4)])
def test_ends_come_as_often_as_m_says(chance, length):
    memory = small_memory(predict_end=True)
    nn.init.zeros_(memory.end_head.weight)
    nn.init.constant_(memory.end_head.bias, torch.logit(torch.tensor(chance), eps=1e-9).item())
    dream = Dream(memory, ControllerConfig(D, H), DreamConfig(horizon=40))
    result = dream.evaluate(torch.zeros(1, dream.controller.num_parameters), random_starts(4000), 0)
    assert result.lengths.mean().item() == pytest.approx(length, rel=0.05)
    if chance == 1:
        first = Dream(memory, dream.controller, DreamConfig(horizon=1))
        once = first.evaluate(torch.zeros(1, 45), random_starts(4000), 0)
        torch.testing.assert_close(result.returns, once.returns)


def test_what_does_not_fit_is_explained():
    controller = ControllerConfig(D, H)
    with pytest.raises(ValueError, match="no reward head"):
        Dream(small_memory(predict_reward=False), controller, DreamConfig())
    with pytest.raises(ValueError, match="M has z 4, h 10 and actions 3, the controller expects z"):
        Dream(small_memory(), ControllerConfig(D, H + 1), DreamConfig())
    with pytest.raises(ValueError, match="and actions 2;"):
        Dream(small_memory(), ControllerConfig(D, H, 2), DreamConfig())
    dream = Dream(small_memory(), controller, DreamConfig())
    with pytest.raises(ValueError, match=r"needs \(P, 45\)"):
        dream.evaluate(torch.zeros(2, 44), random_starts(), 0)
    starts = random_starts()
    wide = DreamStarts(torch.zeros(5, D + 1), starts.h, starts.c, starts.prev_reward)
    for wrong in (wide, starts.take(np.zeros(0, int))):
        with pytest.raises(ValueError, match=r"this M needs z \(N, 4\), h \(N, 10\) and c"):
            dream.rollout(torch.zeros(2, 45), wrong, torch.Generator())
    for wrong in (
        {"horizon": 0},
        {"temperature": -0.1},
        {"truncation": 0},
        {"pace_window": 0},
        {"reward_clip": (1, 0)},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DreamConfig(**wrong)


def test_gradients_stop_at_the_truncation():
    """A reward of the last decision feels the first action only through the steps between."""
    reached = []
    for truncation in (None, 3):
        dream = make_dream({}, horizon=4, truncation=truncation)
        raw = []
        squash = dream.squash
        dream.squash = lambda y, squash=squash, raw=raw: raw.append(y) or squash(y)
        candidates = random_candidates(dream.controller, 1).requires_grad_()
        start, generator = random_starts(2), torch.Generator().manual_seed(0)
        predict = dream.world.predict

        def last_pays(*given, predict=predict, raw=raw):
            found = predict(*given)
            return found._replace(reward=found.reward * (len(raw) == 4))

        dream.world.predict = last_pays
        returns = dream.rollout(candidates, start, generator).returns.sum()
        grads = torch.autograd.grad(returns, raw, allow_unused=True)
        reached.append([g is not None and bool((g != 0).any()) for g in grads])
    assert reached == [[True] * 4, [False, False, False, True]]
