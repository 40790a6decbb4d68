"""The fast ways through a dream against the plain one, and their pieces against other libraries."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numba import njit
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, Normal

from generative.training.precision import default_bf16
from worldmodels.configs import ControllerConfig, DreamConfig, MDNRNNConfig
from worldmodels.controller import LinearController
from worldmodels.dreaming.backends import kernels as dream_kernels
from worldmodels.dreaming.backends.graphed import GraphedDream, StaticDream
from worldmodels.dreaming.rollout import Dream
from worldmodels.dreaming.starts import DreamStarts
from worldmodels.memory import MDNRNN

torch.set_num_threads(1)
PRETRAINED = Path(__file__).parents[3] / "pretrained" / "carracing-dream"
EVERYTHING = {
    "reward_input": True,
    "predict_end": True,
    "residual": True,
    "dropout": 0.3,
    "reward_scale": 2.0,
}
CASES = [
    ({}, "zh", DreamConfig(12, 1.0)),
    ({"residual": True, "predict_end": True}, "z", DreamConfig(12, 1.3, reward_clip=(-0.1, 0.2))),
    ({"dropout": 0.5}, "zhc", DreamConfig(12, 0.5, pace_cap=0.05, pace_window=5)),
    (EVERYTHING, "zh", DreamConfig(12, 0.0, dropout=False)),
    (EVERYTHING, "zhc", DreamConfig(12, 1.15, reward_clip=(-0.5, 0.5), pace_cap=0.02)),
]


def make_dream(heads, features="zh", config=None, device="cpu", seed=0, sizes=(6, 3, 21, 4)):
    torch.manual_seed(seed)
    memory = MDNRNN(MDNRNNConfig(*sizes, **{"predict_reward": True, **heads})).eval()
    nn.init.normal_(memory.mixture_head.linear.weight, std=0.5)  # mixtures that differ
    if memory.end_head is not None:
        nn.init.constant_(memory.end_head.bias, -1.5)
    latent_dim, action_dim, hidden_dim, _ = sizes
    controller = ControllerConfig(latent_dim, hidden_dim, action_dim, features)
    return Dream(memory.to(device), controller, config or DreamConfig(12, 1.1))


def make_starts(dream, n=9, seed=0) -> DreamStarts:
    mem, g = dream.memory.config, torch.Generator().manual_seed(seed)
    z, h, c = (
        torch.randn(n, size, generator=g)
        for size in (mem.latent_dim, mem.hidden_dim, mem.hidden_dim)
    )
    return DreamStarts(z, torch.tanh(h), c, torch.randn(n, generator=g))


def make_candidates(dream, n=7, seed=1) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, dream.controller.num_parameters, generator=g)


@torch.no_grad()
def plain(dream, candidates, starts, seed=2):
    generator = torch.Generator(dream.device).manual_seed(seed)
    return dream.rollout(candidates, starts, generator)


@pytest.mark.parametrize(("heads", "features", "config"), CASES)
def test_evaluate_is_a_rollout(heads, features, config):
    dream = make_dream(heads, features, config)
    candidates, starts = make_candidates(dream).requires_grad_(), make_starts(dream)
    result, expected = dream.evaluate(candidates, starts, 2), plain(dream, candidates, starts)
    assert not result.returns.requires_grad
    torch.testing.assert_close(result.returns, expected.returns, rtol=1e-4, atol=1e-5)
    assert torch.equal(result.lengths, expected.lengths)
    torch.testing.assert_close(result.saturation, expected.saturation, rtol=1e-4, atol=1e-5)
    assert (len(expected.lengths.unique()) > 3) == dream.memory.config.predict_end


@pytest.mark.nightly
def test_bf16_takes_the_same_way():
    """A mixture chosen otherwise, after other roundings, shifts few lanes."""
    dream = make_dream({"residual": True}, config=DreamConfig(12, 1.1, bf16=True))
    candidates, starts = make_candidates(dream), make_starts(dream, 200)
    result, expected = dream.evaluate(candidates, starts, 2), plain(dream, candidates, starts)
    off = (result.returns - expected.returns).abs()
    assert off.median() < 0.02 * expected.returns.std()
    assert off.max() > 0


def test_a_squashing_of_ones_own():
    dream = make_dream({}, sizes=(6, 2, 21, 4))
    dream = Dream(dream.memory, dream.controller, dream.config, squash=torch.sin)
    candidates, starts = make_candidates(dream), make_starts(dream)
    expected = plain(dream, candidates, starts)
    torch.testing.assert_close(dream.evaluate(candidates, starts, 2), expected)


def test_what_is_not_a_number_is_not_hidden():
    dream = make_dream(EVERYTHING, config=DreamConfig(12, 1.1, reward_clip=(-1, 1)))
    candidates = make_candidates(dream)
    candidates[3, 5] = math.nan
    returns = dream.evaluate(candidates, make_starts(dream), 2).returns
    assert returns[3].isnan().all()
    assert returns[[0, 1, 2, 4, 5, 6]].isfinite().all()


def ranks(scores: torch.Tensor) -> torch.Tensor:
    return scores.argsort().argsort().float()


@pytest.mark.skipif(not default_bf16(), reason="takes minutes where bfloat16 is emulated")
def test_bf16_ranks_as_float32_does():
    """CMA-ES sees ranks alone. Around the committed controller, in the committed M's dreams.

    Other roundings move ranks a tenth as much as other noise does, or less. A population that is
    hard to rank by any noise (sigma 0.1) falls with both: 0.985 to 0.998 against 0.80 to 0.97.
    """
    memory = MDNRNN.from_pretrained(PRETRAINED / "memory")
    controller = LinearController.from_pretrained(PRETRAINED / "controller")
    starts = DreamStarts.load(PRETRAINED / "starts.safetensors")
    starts = starts.draw(64, np.random.default_rng(0))
    noise = torch.randn(64, 867, generator=torch.Generator().manual_seed(0))
    candidates = controller.to_vector() + 0.3 * noise
    found = []
    for bf16, luck in ((False, 0), (True, 0), (False, 1)):
        config = DreamConfig(30, 1.15, reward_clip=(-1.0, 6.0), bf16=bf16)
        dream = Dream(memory, controller.config, config)
        found.append(ranks(dream.evaluate(candidates, starts, luck).returns.mean(1)))
    _, roundings, other_noise = torch.corrcoef(torch.stack(found))[0].tolist()
    assert roundings >= 0.99
    assert 1 - roundings < 0.1 * (1 - other_noise)


def test_exponential():
    x = np.linspace(-87, 87, 20_001, dtype=np.float32)
    found = np.array([dream_kernels._exp(value) for value in x], np.float64)
    exact = np.exp(x.astype(np.float64))
    assert np.abs(found / exact - 1).max() < 5e-6
    assert np.abs(found / exact - 1)[np.abs(x) < 20].max() < 2e-6
    assert math.isnan(dream_kernels._exp(np.float32(math.nan)))


@njit
def copy_row(source, target):
    for j in range(len(source)):
        dream_kernels._store(target, j, dream_kernels._load(source, j))


@pytest.mark.parametrize("compiled", [True, False])
def test_bfloat16_as_torch_has_it(compiled):
    copy = copy_row if compiled else copy_row.py_func
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 10
    ties = (torch.arange(-300, 300) * 2 + 1) / 512 + 1  # in the middle between neighbours
    x = torch.cat([x, ties, torch.tensor([0.0, -0.0, math.inf, -math.inf, 1e-38, 3e38])])
    rounded = torch.zeros_like(x, dtype=torch.bfloat16)
    copy(x.numpy(), rounded.view(torch.uint16).numpy())
    assert torch.equal(rounded, x.bfloat16())
    back = np.empty(len(x), np.float32)
    copy(rounded.view(torch.uint16).numpy(), back)
    assert np.array_equal(back, rounded.float().numpy())


@pytest.mark.parametrize("size", [1.0, 100.0])
def test_lstm_cell(size):
    """Also where gates are so large that exponentials would overflow."""
    dim, lanes, rollouts = 19, 6, 3
    torch.manual_seed(0)
    cell = nn.LSTMCell(4, dim)
    for weight in (cell.weight_ih, cell.weight_hh):
        nn.init.normal_(weight, std=size)
    x, h, c = torch.randn(lanes, 4), torch.rand(lanes, dim), torch.randn(lanes, dim)
    with torch.no_grad():
        h_next, c_next = cell(x, (h, c))
        gates = x @ cell.weight_ih.T + h @ cell.weight_hh.T
        bias = cell.bias_ih + cell.bias_hh
    z, mask = torch.randn(lanes, 2), torch.rand(rollouts, dim)
    state, inputs = torch.cat([z, h, c], 1), torch.zeros(lanes, dim + 5)
    features = torch.zeros(lanes, dim)
    arrays = [part.numpy() for part in (gates, bias, mask, state, inputs)]
    dream_kernels.lstm_cell(*arrays, 3, features.numpy())
    kept_z, h, c = state.split([2, dim, dim], 1)
    # Gates of a thousand are themselves rounded to the fourth decimal.
    tolerance = {"rtol": 2e-6 * max(1, size / 5), "atol": 2e-6 * max(1, size / 5)}
    torch.testing.assert_close(c, c_next, **tolerance)
    torch.testing.assert_close(h, h_next, **tolerance)
    assert torch.equal(kept_z, z)
    assert torch.equal(inputs[:, 3 : 3 + dim], h)
    assert not inputs[:, :3].any()
    assert not inputs[:, 3 + dim :].any()
    torch.testing.assert_close(features, h * mask.repeat(2, 1))


def test_the_next_z_has_the_mixture_s_distribution():
    """Quantiles of 40,000 draws against torch.distributions."""
    dream = make_dream({}, sizes=(2, 3, 5, 3), config=DreamConfig(1, 1.3))
    rollouts, tau = 40_000, 1.3
    log_pi = torch.tensor([[0.5, 0.3, 0.2], [0.05, 0.05, 0.9]]).log()  # (D, K)
    mu, log_std = torch.tensor([[-1.0, 0.5, 2.0], [3.0, 1.0, 0.0]]), torch.full((2, 3), -0.7)
    log_std[0, 0] = 0.1
    bias = torch.stack([log_pi, mu, log_std]).transpose(1, 2).flatten()
    noise = dream.noise(rollouts, torch.Generator().manual_seed(0))
    z, inputs = torch.ones(rollouts, 4), torch.zeros(rollouts, 3)
    gumbel = dream.world.gumbel(noise.world, tau).numpy()
    for residual in (False, True):
        dream_kernels.sample_z(
            torch.zeros(rollouts, 20).numpy(),
            bias.numpy(),
            gumbel,
            noise.world.eps.numpy(),
            np.float32(math.sqrt(tau)),
            residual,
            z.numpy(),
            inputs.numpy(),
        )
        if not residual:
            once = z[:, :2].clone()
    torch.testing.assert_close(z[:, :2], 2 * once)
    assert torch.equal(inputs[:, :2], z[:, :2])
    expected = MixtureSameFamily(
        Categorical(logits=log_pi / tau), Normal(mu, math.sqrt(tau) * log_std.exp())
    )
    for x in torch.linspace(-2, 4, 13):
        share = (once <= x).float().mean(0)
        assert (share - expected.cdf(x.expand(2))).abs().max() < 0.01  # 4 standard errors


@pytest.mark.parametrize(("heads", "features", "config"), CASES)
def test_tensors_that_stay_where_they_are(heads, features, config):
    """What a CUDA graph replays, run without one; nothing is left over from the rollout before."""
    dream = make_dream(heads, features, config)
    static = StaticDream(dream, 7, 9)
    places = [x.data_ptr() for x in (*static.state, *static.tally) if x is not None]
    for seed in (1, 2):
        candidates, starts = make_candidates(dream, seed=seed), make_starts(dream, seed=seed)
        result = static.rollout(candidates, starts, torch.Generator().manual_seed(seed))
        expected = plain(dream, candidates, starts, seed)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(result.lengths, expected.lengths)
    assert places == [x.data_ptr() for x in (*static.state, *static.tally) if x is not None]


def test_without_graphs_dreams_run_on(monkeypatch):
    def record(static):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(StaticDream, "record", record)
    dream = make_dream(EVERYTHING)
    graphed, candidates, starts = GraphedDream(dream), make_candidates(dream), make_starts(dream)
    expected = plain(dream, candidates, starts)
    with pytest.warns(UserWarning, match="without a CUDA graph: operation not permitted"):
        result = graphed.rollout(candidates, starts, torch.Generator().manual_seed(2))
    assert torch.equal(result.returns, expected.returns)
    # Said once.
    result = graphed.rollout(candidates, starts, torch.Generator().manual_seed(2))
    assert torch.equal(result.returns, expected.returns)


def test_few_graphs_are_kept(monkeypatch):
    recorded = []
    monkeypatch.setattr(StaticDream, "record", lambda static: recorded.append(static))
    dream = make_dream({})
    graphed = GraphedDream(dream)
    for n in (1, 2, 1, 3, 2, 4, 5, 5, 1):
        candidates, starts = make_candidates(dream, n), make_starts(dream)
        result = graphed.rollout(candidates, starts, torch.Generator().manual_seed(2))
        torch.testing.assert_close(result, plain(dream, candidates, starts))
    assert [len(static.state.z) for static in recorded] == [1, 2, 3, 4, 5, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("heads", "features", "config"), CASES)
def test_a_replayed_graph_is_a_rollout(heads, features, config):
    dream = make_dream(heads, features, config, device="cuda")
    for seed in (2, 3):
        candidates, starts = make_candidates(dream, seed=seed).cuda(), make_starts(dream)
        result = dream.evaluate(candidates, starts, seed)
        expected = plain(dream, candidates, starts, seed)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    assert dream.backend.__self__._recorded  # not the fallback


WAYS = {
    "plain": plain,
    "fused": lambda dream, *given: dream.evaluate(*given, seed=2),
    "static": lambda dream, candidates, starts: StaticDream(
        dream, len(candidates), len(starts)
    ).rollout(candidates, starts, torch.Generator().manual_seed(2)),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_end_that_m_does_not_know_stops_every_way_to_dream(way):
    """NaN from the third decision on, in one dream: M's reward is finite all the while."""
    dream = make_dream(EVERYTHING, config=DreamConfig(6, 0.0, dropout=False))
    with torch.no_grad():
        dream.memory.end_head.bias.fill_(-20.0)  # no other end
        dream.memory.end_head.weight.zero_()
    dream = Dream(dream.memory, dream.controller, dream.config)
    candidates, starts = make_candidates(dream), make_starts(dream)
    assert (WAYS[way](dream, candidates, starts).lengths == 6).all()
    dream.world.head_bias[-1] = torch.nan
    dream = copy.copy(dream)
    dream.__dict__.pop("backend", None)
    told = r"M gave dream 0 of candidate 0 a z, reward or end .* after decision 1;"
    with pytest.raises(FloatingPointError, match=told):
        WAYS[way](dream, candidates, starts)


def test_the_kernel_names_the_decision_of_a_late_nan():
    alive, stretch, lengths = (np.ones(3, np.float32), *np.zeros((2, 3), np.float32))
    out, bias = np.zeros((3, 2), np.float32), np.zeros(2, np.float32)
    z, counted = np.zeros((3, 4), np.float32), (alive, stretch, lengths)
    uniform, inputs = np.full(3, 0.7, np.float32), np.zeros((3, 1), np.float32)
    limits = [np.float32(x) for x in (1, -np.inf, np.inf)]
    logits = [[-9.0, -9.0, 9.0], [math.nan, -9.0, math.nan], [-9.0, -9.0, -9.0]]
    for logit in logits:  # the first is lost at the second decision, the last had ended before
        out[:, 1] = logit
        dream_kernels.settle(out, 0, bias, *limits, uniform, z, 4, *counted, inputs, -1)
    assert np.isnan(alive).tolist() == [True, False, False]
    assert alive[1:].tolist() == [1, 0]
    assert lengths.tolist() == [2, 3, 1]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("field", ["z", "h", "c", "prev_reward"])
def test_starts_that_are_not_finite_are_refused(way, field):
    dream = make_dream(EVERYTHING)
    starts = make_starts(dream)
    getattr(starts, field)[4] = torch.inf
    with pytest.raises(FloatingPointError, match=f"{field} in row 4 of the starts is not finite"):
        WAYS[way](dream, make_candidates(dream), starts)
