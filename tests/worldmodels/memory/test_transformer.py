"""The Transformer as M: against naive attention, position by position, and in a dream's place."""

import dataclasses
import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import nn

from agents.world_model_agent import WorldModelAgent
from envs.dream import DreamEnv, DreamVectorEnv
from envs.task import Task
from generative.vae import ConvVAEConfig
from worldmodels.configs import (
    PAPER_MDNRNN,
    ControllerConfig,
    DreamConfig,
    GradientConfig,
    MDNRNNConfig,
    MemoryLossConfig,
    TransformerMemoryConfig,
)
from worldmodels.controller import LinearController
from worldmodels.dreaming.backends.graphed import StaticDream
from worldmodels.dreaming.gradient import climb
from worldmodels.dreaming.rollout import Dream
from worldmodels.dreaming.starts import DreamStarts, warm_up
from worldmodels.memory import MDNRNN, MemoryLearner, TransformerMemory, load_memory, memory_loss
from worldmodels.sequences import EncodedRollouts
from worldmodels.world_model import WorldModel

torch.set_num_threads(1)
D, H, K = 4, 12, 3
SMALL = TransformerMemoryConfig(
    latent_dim=D, hidden_dim=H, num_mixtures=K, num_layers=2, num_heads=2, head_dim=4, ff_dim=16,
    context=5, reward_input=True, predict_reward=True, predict_end=True, residual=True,
    dropout=0.3, reward_scale=2.0,
)  # fmt: skip


def small_memory(seed: int = 0, **changes) -> TransformerMemory:
    torch.manual_seed(seed)
    memory = TransformerMemory(dataclasses.replace(SMALL, **changes)).eval()
    for parameter in memory.parameters():  # first weights are so small that all looks alike
        nn.init.normal_(parameter, 0, 0.5)
    return memory.requires_grad_(True)


def sequence(b: int = 3, t: int = 17, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """z, action, prev_reward."""
    g = torch.Generator().manual_seed(seed)
    z, action = torch.randn(b, t, D, generator=g), torch.rand(b, t, 3, generator=g)
    return z, action, torch.randn(b, t, generator=g)


@torch.no_grad()
def naive_h(memory: TransformerMemory, inputs: np.ndarray) -> np.ndarray:
    """h of one sequence (T, input_dim) in float64, by a loop over layers, queries, heads, keys."""
    config = memory.config
    weights = {name: p.double().numpy() for name, p in memory.state_dict().items()}

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean(-1, keepdims=True)
        root = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return centred / root * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = linear("embed", inputs)
    for layer in range(config.num_layers):
        name, seen = f"blocks.{layer}", norm(f"blocks.{layer}.attention_norm", x)
        q, k, v = (linear(f"{name}.attention.{part}", seen) for part in ("query", "key", "value"))
        gathered = np.zeros_like(q)
        for head in range(config.num_heads):
            span = slice(head * config.head_dim, (head + 1) * config.head_dim)
            for t in range(len(x)):
                keys = range(max(0, t - config.context + 1), t + 1)
                scores = []
                for j in keys:
                    place = weights[f"relative.{layer}.vectors"][head, t - j]
                    scores.append(q[t, span] @ (k[j, span] + place) / math.sqrt(config.head_dim))
                shares = np.exp(np.array(scores) - max(scores))
                shares /= shares.sum()
                gathered[t, span] = sum(s * v[j, span] for s, j in zip(shares, keys, strict=True))
        x = x + linear(f"{name}.attention.out", gathered)
        inner = linear(f"{name}.feed_forward.0", norm(f"{name}.feed_forward_norm", x))
        gelu = 0.5 * inner * (1 + np.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        x = x + linear(f"{name}.feed_forward.3", gelu)
    return np.tanh(norm("norm", x))


@pytest.mark.parametrize("context", [2, 5, 17, 40])
def test_reads_like_naive_attention(context):
    memory, (z, action, reward) = small_memory(context=context), sequence()
    out, _ = memory(z, action, prev_reward=reward)
    inputs = torch.cat([z, action, reward.unsqueeze(-1) / 2.0], -1).double().numpy()
    expected = np.stack([naive_h(memory, row) for row in inputs])
    np.testing.assert_allclose(out.h.detach(), expected, atol=1e-5)
    h = out.h
    logits, mu, log_std = memory.mixture_head.linear(h).unflatten(-1, (3, D, K)).unbind(-3)
    torch.testing.assert_close(out.mixture.log_pi, logits.log_softmax(-1))
    torch.testing.assert_close(out.mixture.mu, mu + z.unsqueeze(-1))
    torch.testing.assert_close(out.mixture.log_std, log_std.clamp(-7, 5))
    torch.testing.assert_close(out.reward, 2.0 * memory.reward_head(h)[..., 0])
    torch.testing.assert_close(out.end_logit, memory.end_head(h)[..., 0])


@pytest.mark.parametrize("context", [2, 5, 40])
@pytest.mark.parametrize("pieces", [[1] * 17, [3, 1, 6, 7], [16, 1], [0, 17]])
def test_in_pieces_it_reads_the_same(context, pieces):
    """With the window sliding over what has gone (contexts 2 and 5), and without (40)."""
    memory, (z, action, reward) = small_memory(context=context), sequence()
    whole, last = memory.read(z, action, None, reward)
    state, read, first = memory.initial_state(3), [], 0
    for length in filter(None, pieces):
        part = slice(first, first + length)
        h, state = memory.read(z[:, part], action[:, part], state, reward[:, part])
        read.append(h)
        first += length
    torch.testing.assert_close(torch.cat(read, 1), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-5)
    out, _ = memory.step(z[:, 0], action[:, 0], memory.initial_state(3), reward[:, 0])
    torch.testing.assert_close(out.h, whole[:, 0], rtol=1e-5, atol=1e-5)


def test_lanes_of_different_age_share_a_batch():
    memory, (z, action, reward) = small_memory(), sequence()
    states, expected = [], []
    for lane, age in enumerate((0, 2, 11)):
        state = memory.initial_state(1)
        row = slice(lane, lane + 1)
        if age:
            _, state = memory.read(z[row, :age], action[row, :age], None, reward[row, :age])
        states.append(state)
        h, _ = memory.read(z[row, 15:], action[row, 15:], state, reward[row, 15:])
        expected.append(h)
    h, c = (torch.cat(part) for part in zip(*states, strict=True))
    together, _ = memory.read(z[:, 15:], action[:, 15:], (h, c), reward[:, 15:])
    torch.testing.assert_close(together, torch.cat(expected), rtol=1e-5, atol=1e-5)


def test_every_block_looks_a_context_further_back():
    memory, (z, action, reward) = small_memory(), sequence(1)
    z.requires_grad_()
    h, _ = memory.read(z, action, None, reward)
    (gradient,) = torch.autograd.grad(h[0, 12].sum(), z)
    reached = (gradient[0] != 0).any(-1).tolist()
    assert reached == [12 - 2 * 4 <= t <= 12 for t in range(17)]


def test_it_is_as_large_as_the_papers_mdn_rnn():
    sizes = [
        sum(p.numel() for p in memory.parameters() if p.requires_grad)
        for memory in (TransformerMemory(), MDNRNN(PAPER_MDNRNN))
    ]
    assert sizes[1] == 422_368
    assert abs(sizes[0] / sizes[1] - 1) < 0.01
    config = TransformerMemoryConfig(reward_input=True, predict_reward=True)
    assert config.input_dim == 36
    h, c = TransformerMemory(config).initial_state(2)
    assert (h.shape, c.shape) == ((2, 192), (2, config.state_dim))
    assert config.state_dim == 2 * 2 * 31 * 64 + 1


def test_learner_overfits_and_reaches_every_parameter():
    torch.manual_seed(0)
    memory, (z, action, reward) = TransformerMemory(SMALL), sequence(3, 9)
    batch = {
        "z": z[:, :-1],
        "next_z": z[:, 1:],
        "action": action[:, :-1],
        "reward": reward[:, 1:],
        "prev_reward": reward[:, :-1],
        "terminated": (torch.rand(3, 8) < 0.2).float(),
        "mask": torch.ones(3, 8),
    }
    learner = MemoryLearner(memory, MemoryLossConfig(lr=0.01, final_lr=1e-3), steps=150)

    @torch.no_grad()
    def calm():
        out, _ = memory.eval()(batch["z"], batch["action"], prev_reward=batch["prev_reward"])
        return memory_loss(out, batch, memory.config, learner.config)

    first = calm()
    learner.update(batch)
    for name, parameter in memory.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name.endswith("key.bias"), name  # shifts all scores alike
    for _ in range(149):
        learner.update(batch)
    last = calm()
    assert last.nll < first.nll - 1
    assert last.reward < 0.4 * first.reward
    assert last.end < 0.2 * first.end


def test_autocast_keeps_the_state_in_float32():
    memory, (z, action, reward) = small_memory(), sequence()
    exact, _ = memory.read(z, action, None, reward)
    with torch.autocast("cpu", torch.bfloat16):
        h, (last, c) = memory.read(z, action, None, reward)
    assert last.dtype == c.dtype == torch.float32
    assert (h - exact).abs().mean() < 0.05


# --------------------------------------------------------------------------------------------
# In the place of the MDN-RNN
# --------------------------------------------------------------------------------------------


def random_starts(memory: TransformerMemory, n: int = 5) -> DreamStarts:
    """Moments that M has read up to, after 0 to 8 decisions."""
    z, action, reward = sequence(n, 9, seed=1)
    rows = []
    for i in range(n):
        state = memory.initial_state(1)
        if age := 2 * i % 9:
            with torch.no_grad():
                part = z[i : i + 1, :age], action[i : i + 1, :age]
                _, state = memory.read(*part, None, reward[i : i + 1, :age])
        rows.append(state)
    h, c = (torch.cat(part) for part in zip(*rows, strict=True))
    return DreamStarts(z[:, -1], h, c, reward[:, -1])


@torch.no_grad()
def slow_dream(memory, controller, config, candidates, starts, seed):
    """One lane after another by `naive_h` over all that the lane has read, and by hand."""
    generator = torch.Generator().manual_seed(seed)
    mem, rollouts, n = memory.config, len(starts), controller.feature_dim
    kept = torch.rand(rollouts, H, generator=generator) < 1 - mem.dropout
    mask, noise = torch.where(kept, 1 / (1 - mem.dropout), 0.0), []
    for _ in range(config.horizon):
        uniform = torch.rand(K, rollouts, D, generator=generator)
        eps = torch.randn(rollouts, D, generator=generator)
        ends = torch.rand(rollouts, generator=generator)
        noise.append((-(-uniform.log()).log(), eps, ends))
    returns, lengths = torch.zeros(2, len(candidates), rollouts)
    for p, vector in enumerate(candidates):
        weight, bias = vector[: 3 * n].reshape(3, n), vector[3 * n :]
        for r in range(rollouts):
            z, h, previous, alive, read = starts.z[r], starts.h[r], starts.prev_reward[r], 1, []
            for gumbel, eps, ends in noise:
                y = torch.tanh(weight @ torch.cat([z, h]) + bias)
                action = torch.stack([y[0], (y[1] + 1) / 2, y[2].clamp(min=0)])
                read.append(torch.cat([z, action, previous.reshape(1) / mem.reward_scale]))
                h = naive_h(memory, torch.stack(read).double().numpy())[-1]
                h = torch.from_numpy(h).float()
                seen = h * mask[r]
                log_pi, mu, log_std = memory.mixture_head.linear(seen).reshape(3, D, K)
                scores = log_pi.log_softmax(-1) / config.temperature + gumbel[:, r].t()
                k = scores.argmax(-1, keepdim=True)
                std = log_std.clamp(-7, 5).exp().gather(1, k)[:, 0] * config.temperature**0.5
                z = z + mu.gather(1, k)[:, 0] + std * eps[r]
                previous = memory.reward_head(seen)[0] * mem.reward_scale
                returns[p, r] += alive * previous
                lengths[p, r] += alive
                alive *= int(ends[r] >= torch.sigmoid(memory.end_head(seen))[0])
    return returns, lengths


def test_dream_equals_a_slow_loop():
    """From the beginning of an episode, so that the loop knows all that M has read."""
    memory, controller = small_memory(), ControllerConfig(D, H)
    nn.init.constant_(memory.end_head.bias, -2.0)
    config = DreamConfig(horizon=9, temperature=1.1)
    starts = random_starts(memory, 4)
    starts = DreamStarts(starts.z, starts.h * 0, starts.c * 0, starts.prev_reward)
    candidates = torch.randn(2, controller.num_parameters, generator=torch.Generator())
    returns, lengths = slow_dream(memory, controller, config, candidates, starts, seed=4)
    dream = Dream(memory, controller, config)
    for result in (
        dream.rollout(candidates, starts, torch.Generator().manual_seed(4)),
        dream.evaluate(candidates, starts, seed=4),
        dream.evaluate(candidates, starts, seed=4, max_lanes=5),
        StaticDream(dream, 2, 4).rollout(candidates, starts, torch.Generator().manual_seed(4)),
    ):
        torch.testing.assert_close(result.returns, returns, rtol=1e-3, atol=1e-3)
        assert torch.equal(result.lengths, lengths)
    assert len(lengths.unique()) > 1


def test_gradients_flow_through_the_dream():
    memory = small_memory(residual=False).double()
    dream = Dream(memory, ControllerConfig(D, H), DreamConfig(horizon=5, temperature=0.0))
    starts = random_starts(small_memory(residual=False))
    starts = DreamStarts(*(field.double() for field in vars(starts).values()))
    point = 0.3 * torch.randn(1, 51, generator=torch.Generator().manual_seed(3)).double()
    point[0, -1] = 1.0  # brakes in earnest: a released one has a gradient that is no slope

    def returns(vector):
        return dream.rollout(vector, starts, torch.Generator().manual_seed(0)).returns.sum()

    point.requires_grad_()
    (gradient,) = torch.autograd.grad(returns(point), point)
    for i in (0, 7, 20, 49):
        step = torch.zeros_like(point)
        step[0, i] = 1e-5
        slope = (returns(point + step) - returns(point - step)) / 2e-5
        assert gradient[0, i].item() == pytest.approx(slope.item(), rel=1e-3, abs=1e-6)


def encoded_episodes(lengths=(6, 1, 9)) -> EncodedRollouts:
    rng = np.random.default_rng(0)
    starts = np.cumsum([0] + [n + 1 for n in lengths])
    actions = rng.uniform(0, 1, (starts[-1], 3)).astype(np.float32)
    rewards = np.where(rng.random(starts[-1]) < 0.3, 3.2, -0.1).astype(np.float32)
    actions[starts[1:] - 1], rewards[starts[1:] - 1] = 0, 0
    mu, logvar = rng.normal(size=(2, starts[-1], D)).astype(np.float16)
    return EncodedRollouts(mu, logvar, actions, rewards, np.zeros(starts[-1], bool), starts)


def test_warm_up_reads_every_episode_from_its_beginning(tmp_path):
    memory, encoded = small_memory(), encoded_episodes()
    starts, row = warm_up(memory, encoded), 0
    assert len(starts) == encoded.lengths.sum()
    for first, last in zip(encoded.starts[:-1], encoded.starts[1:] - 1, strict=True):
        z = encoded.mu[first:last].astype(np.float64)
        paid = np.append(0, encoded.rewards[first : last - 1])[:, None] / 2.0
        inputs = np.concatenate([z, encoded.actions[first:last], paid], 1)
        h = np.concatenate([np.zeros((1, H)), naive_h(memory, inputs)])[:-1]
        np.testing.assert_allclose(starts.h[row : row + last - first], h, atol=2e-3)
        assert starts.c[row, -1] == 0
        assert starts.c[row + last - first - 1, -1] == min(last - first - 1, 4)
        row += last - first
    starts.save(tmp_path / "starts.safetensors")
    again = DreamStarts.load(tmp_path / "starts.safetensors")
    assert torch.equal(again.c, starts.c)
    with pytest.raises(ValueError, match=r"c \(16, 129\); this M needs .* and c \(N, 12\)"):
        again.check_fits(MDNRNNConfig(D, 3, H))


def test_a_controller_learns_in_its_dream_by_gradient():
    memory = small_memory(predict_end=False).requires_grad_(False)
    dream = Dream(memory, ControllerConfig(D, H), DreamConfig(horizon=6, truncation=3))
    starts, vector = random_starts(memory), torch.zeros(51)
    config = GradientConfig(steps=25, lr=0.15, lanes=16, check_every=5, check_dreams=64)
    found = climb(dream, starts, vector, config, seed=1)
    both = torch.stack([vector, found.vector])
    before, after = dream.evaluate(both, starts.take([0, 1, 2, 3, 4] * 40), 9).returns.mean(1)
    assert after > before + 0.5


@pytest.fixture
def world():
    memory = small_memory(reward_input=False)
    nn.init.constant_(memory.end_head.bias, -3.0)
    return WorldModel(ConvVAEConfig(D, (2, 3, 4, 5)).build(), memory).eval()


def test_dream_environments_take_it(world):
    starts = random_starts(world.memory)
    env = DreamEnv(world, starts, horizon=10, task=Task())
    check_env(env, skip_render_check=True)
    vector = DreamVectorEnv(3, world, starts, horizon=10, autoreset_mode="Disabled", task=Task())
    together = [vector.reset(seed=5)[0]]
    actions = np.random.default_rng(1).uniform([-1, 0, 0], 1, size=(4, 3)).astype(np.float32)
    over = np.zeros(3, bool)
    for action in actions:
        obs, _, terminated, _, _ = vector.step(np.tile(action, (3, 1)))
        over |= terminated
        if over.any():
            break
        together.append(obs)
    for lane in range(3):
        obs, _ = env.reset(seed=5 + lane)
        np.testing.assert_allclose(obs, together[0][lane], atol=1e-5)
        for action, expected in zip(actions, together[1:], strict=False):
            np.testing.assert_allclose(env.step(action)[0], expected[lane], atol=1e-4)
    assert isinstance(env.observation_space, gymnasium.spaces.Box)


def test_agent_drives_with_it_and_is_saved(world, tmp_path):
    controller = LinearController(ControllerConfig(D, H))
    nn.init.normal_(controller.linear.weight)
    agent = WorldModelAgent(world, controller)
    agent.save_pretrained(tmp_path / "agent")
    again = WorldModelAgent.from_pretrained(tmp_path / "agent")
    assert isinstance(again.world.memory, TransformerMemory)
    frames = np.random.default_rng(0).integers(0, 256, (7, 2, 64, 64, 3), np.uint8)
    states, read = [None, None], []
    for t, obs in enumerate(frames):
        (ours, states[0]), (theirs, states[1]) = (
            a.predict(obs, s, episode_start=t == 0)
            for a, s in zip((agent, again), states, strict=True)
        )
        np.testing.assert_array_equal(ours, theirs)
        z = world.encode(obs)
        if t:
            z_read, actions = (torch.stack(column, 1) for column in zip(*read, strict=True))
            h = world.memory.read(z_read, actions, None, None)[0][:, -1]
        else:
            h = torch.zeros(2, H)
        np.testing.assert_allclose(ours, controller.act(z, h, h).detach(), atol=1e-5)
        read.append((z, torch.from_numpy(ours)))


def test_memories_are_found_by_name(tmp_path):
    torch.manual_seed(0)
    small_memory().save_pretrained(tmp_path / "transformer")
    MDNRNN(MDNRNNConfig(D, 3, H)).save_pretrained(tmp_path / "lstm")
    LinearController(ControllerConfig(D, H)).save_pretrained(tmp_path / "controller")
    assert load_memory(tmp_path / "transformer").config == SMALL
    assert isinstance(load_memory(tmp_path / "lstm"), MDNRNN)
    with pytest.raises(ValueError, match="holds a LinearController, which cannot be M"):
        load_memory(tmp_path / "controller")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_memory(tmp_path / "nothing")
    (tmp_path / "run" / "model").mkdir(parents=True)
    with pytest.raises(ValueError, match="is the folder of a run"):
        load_memory(tmp_path / "run")


def test_sizes_that_cannot_be_are_refused():
    for wrong in (
        {"context": 1},
        {"num_layers": 0},
        {"dropout": 1.0},
        {"reward_scale": 0.0},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TransformerMemoryConfig(**wrong)
