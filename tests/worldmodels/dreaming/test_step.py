"""Every dream of the project takes the same step: returns, flags and refusals, one against all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from agents.video import Decision, LoneDream
from agents.world_model_agent import WorldModelAgent
from envs.dream import DreamEnv, DreamVectorEnv
from envs.sb3 import DreamVecEnv
from envs.task import Task
from generative.vae import ConvVAEConfig
from worldmodels.configs import (
    ControllerConfig,
    DreamConfig,
    MDNRNNConfig,
    TransformerMemoryConfig,
)
from worldmodels.controller import LinearController
from worldmodels.dreaming.backends.graphed import StaticDream
from worldmodels.dreaming.rollout import Dream
from worldmodels.dreaming.starts import DreamStarts
from worldmodels.dreaming.step import DreamState, Prediction, draw_noise, dream_step
from worldmodels.memory import MDNRNN, TransformerMemory
from worldmodels.memory.scores import Driver, dreamed_returns
from worldmodels.world_model import WorldModel

torch.set_num_threads(1)
D, H = 4, 8
HEADS = {
    "reward_input": True,
    "predict_reward": True,
    "predict_end": True,
    "residual": True,
    "reward_scale": 2.0,
}


def lstm() -> MDNRNN:
    return MDNRNN(MDNRNNConfig(D, 3, H, 3, **HEADS))


def transformer() -> TransformerMemory:
    sizes = {"num_layers": 1, "num_heads": 2, "head_dim": 4, "ff_dim": 8, "context": 4}
    return TransformerMemory(TransformerMemoryConfig(D, 3, H, 3, **HEADS, **sizes))


def make_agent(make, end_bias: float = -40.0) -> WorldModelAgent:
    """V, M and C with random weights; M ends a dream for certain, or never."""
    torch.manual_seed(0)
    memory = make().requires_grad_(False)
    nn.init.zeros_(memory.end_head.weight)
    nn.init.constant_(memory.end_head.bias, end_bias)
    controller = LinearController(ControllerConfig(D, H))
    nn.init.normal_(controller.linear.weight, std=0.5)
    world = WorldModel(ConvVAEConfig(D, (2, 3, 4, 5)).build(), memory)
    return WorldModelAgent(world, controller.requires_grad_(False))


def one_start(agent: WorldModelAgent) -> DreamStarts:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(1, D, generator=generator)
    h, c = agent.world.memory.initial_state(1)
    return DreamStarts(z, h, c, torch.ones(1))


# Each gives the return of the agent's own driving, decisions, and (terminated, truncated).


def population(way):
    def dream(agent, start, config):
        dreams = Dream(agent.world.memory, agent.controller.config, config)
        candidates = agent.controller.to_vector()[None].repeat(2, 1)
        result = way(dreams, candidates, start.take([0, 0, 0]))
        assert result.returns.shape == (2, 3)
        torch.testing.assert_close(result.returns, result.returns[:1, :1].expand(2, 3))
        return result.returns[1, 2].item(), int(result.lengths[1, 2]), None

    return dream


def rollout(dream, candidates, starts):
    return dream.rollout(candidates, starts, torch.Generator().manual_seed(0))


def evaluate(dream, candidates, starts):
    return dream.evaluate(candidates, starts, seed=0)


def static(dream, candidates, starts):
    kept = StaticDream(dream, len(candidates), len(starts))
    return kept.rollout(candidates, starts, torch.Generator().manual_seed(0))


def act(agent: WorldModelAgent, obs: np.ndarray) -> np.ndarray:
    z, h = torch.from_numpy(obs).split([D, H], 1)
    return agent.controller.act(z, h, h).numpy()


def settings(config: DreamConfig) -> dict:
    names = ("horizon", "temperature", "dropout", "reward_clip", "pace_cap", "pace_window")
    return {"task": Task(), **{name: getattr(config, name) for name in names}}


def environment(agent, start, config):
    env = DreamEnv(agent.world, start, **settings(config))
    (obs, _), total, length = env.reset(seed=0), 0.0, 0
    while True:
        obs, reward, terminated, truncated, _ = env.step(act(agent, obs[None])[0])
        total, length = total + reward, length + 1
        if terminated or truncated:
            return total, length, (terminated, truncated)


def vector_environment(agent, start, config):
    env = DreamVectorEnv(3, agent.world, start, **settings(config))
    (obs, _), total, length = env.reset(seed=0), 0.0, 0
    while True:
        obs, rewards, terminated, truncated, _ = env.step(act(agent, obs))
        total, length = total + rewards[2], length + 1
        if terminated[2] or truncated[2]:
            return total, length, (bool(terminated[2]), bool(truncated[2]))


def lanes_of_sb3(agent, start, config):
    env = DreamVecEnv(3, agent.world, start, **settings(config))
    obs, total, length = env.reset_tensors(), 0.0, 0
    while True:
        step = env.step_tensors(torch.from_numpy(act(agent, obs.numpy())))
        obs, total, length = step.obs, total + step.reward[2].item(), length + 1
        if step.terminated[2] or step.truncated[2]:
            return total, length, (bool(step.terminated[2]), bool(step.truncated[2]))


def film(agent, start, config):
    seen, nothing = np.zeros((64, 64, 3), np.uint8), np.zeros(3, np.float32)
    begun = Decision(seen, start.z, start.h, start.c, start.prev_reward, nothing)
    dream, total = LoneDream(agent, begun, config.temperature, seed=0), 0.0
    dream.config = config
    for _ in range(config.horizon):
        outcome = dream.step()
        total += outcome.paid.item()
        if outcome.p_end.item() > 0.5:
            break
    return total, dream.age, None


DREAMS = {
    "rollout": population(rollout),
    "evaluate": population(evaluate),
    "static": population(static),
    "DreamEnv": environment,
    "DreamVectorEnv": vector_environment,
    "DreamVecEnv": lanes_of_sb3,
    "LoneDream": film,
}


def by_hand(agent, start, config, ends: bool):
    """M's own step with clip, cap and horizon in a loop; at temperature 0 nothing is drawn."""
    memory, controller = agent.world.memory, agent.controller
    z, state, previous, paid = start.z, (start.h, start.c), start.prev_reward, []
    for _ in range(1 if ends else config.horizon):
        action = controller.act(z, *state)
        out, state = memory.step(z, action, state, previous)
        best = out.mixture.log_pi.argmax(-1, keepdim=True)
        z = out.mixture.mu.gather(-1, best).squeeze(-1)
        previous = out.reward.clamp(*config.reward_clip)
        paid.append(previous.item())
    total, window = 0.0, config.pace_window
    for t in range(0, len(paid), window):
        decisions = min(window, config.horizon - t)  # of the stretch, also where it is cut short
        total += min(sum(paid[t : t + window]), config.pace_cap * decisions)
    return total, len(paid), (ends, not ends)


@pytest.mark.parametrize("make", [lstm, transformer])
@pytest.mark.parametrize("dream", DREAMS)
@pytest.mark.parametrize(("ends", "horizon"), [(False, 12), (True, 12), (True, 1), (False, 4)])
def test_every_dream_is_the_same_dream(make, dream, ends, horizon):
    agent = make_agent(make, 40.0 if ends else -40.0)
    nn.init.constant_(agent.world.memory.reward_head.bias, 0.2)
    config = DreamConfig(horizon, 0.0, False, reward_clip=(-0.3, 0.5), pace_cap=0.35, pace_window=4)
    start = one_start(agent)
    returned, length, flags = DREAMS[dream](agent, start, config)
    expected, expected_length, expected_flags = by_hand(agent, start, config, ends)
    assert returned == pytest.approx(expected, abs=1e-4)
    assert length == expected_length
    assert flags in (None, expected_flags)


@pytest.mark.parametrize("make", [lstm, transformer])
def test_scores_of_memories_dream_the_same(make):
    agent = make_agent(make)
    start, config = one_start(agent), DreamConfig(9, 0.0, False, (-9, 9), 9.0)
    driver = Driver(agent.controller, agent.world.memory, start)
    memory, rows = agent.world.memory, np.array([0])
    [found] = dreamed_returns(memory, start, driver, rows, 9, dreams=2, temperature=0.0)
    assert found == pytest.approx(by_hand(agent, start, config, False)[0], abs=1e-4)


@pytest.mark.parametrize("make", [lstm, transformer])
@pytest.mark.parametrize("head", ["reward_head", "end_head", "mixture_head"])
@pytest.mark.parametrize("dream", [*DREAMS, "imagine"])
def test_every_dream_refuses_what_is_not_finite(make, head, dream):
    agent = make_agent(make)
    found = getattr(agent.world.memory, head)
    bias = found.linear.bias if head == "mixture_head" else found.bias
    bias.fill_(torch.nan)
    start = one_start(agent)
    with pytest.raises(FloatingPointError, match=r"M gave .* a z, reward or end .* not finite"):
        if dream == "imagine":
            state, actions = (start.h, start.c), torch.zeros(1, 2, 3)
            agent.world.imagine(start.z, actions, state, start.prev_reward)
        else:
            DREAMS[dream](agent, start, DreamConfig(3, 0.0, False))


@pytest.mark.parametrize("make", [lstm, transformer])
def test_joined_predicts_as_the_readable_form_does(make):
    """The same numbers in the order of the other: (R, D, K) against (K, R, D)."""
    memory = make_agent(make, -1.0).world.memory
    joined, generator = memory.joined(), torch.Generator().manual_seed(0)
    p, r = 3, 5
    h, c = memory.initial_state(r)
    z, previous = torch.randn(p, r, D), torch.randn(p, r)
    mask = torch.rand(r, H)
    state = DreamState.at(z, h.expand(p, r, H), c.expand(p, r, -1), previous, mask)
    action = torch.rand(p, r, 3)
    noise = joined.noise(r, generator)
    numbers = -(-noise.uniform.clone().log()).log()
    readable = memory.noise(r, None)._replace(gumbel=numbers.permute(1, 2, 0), eps=noise.eps)
    ours = joined.predict(state, action, noise, 1.2)
    theirs = memory.predict(state, action, readable, 1.2)
    for name in Prediction._fields:
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))


class Counting:
    """A world model of another kind: z counts decisions, every one pays 1, the third ends."""

    kind = {"device": torch.device("cpu"), "dtype": torch.float32}  # noqa: RUF012

    def noise(self, n, random):
        return None

    def predict(self, state, action, noise, temperature):
        p_end = (state.z[..., 0] >= 2).float()
        return Prediction(state.z + 1, torch.ones_like(p_end), p_end, state.h, state.c)


def test_another_kind_of_world_takes_the_step():
    world, zeros = Counting(), torch.zeros(2, 5, 1)
    state = DreamState.at(zeros, zeros, zeros, torch.zeros(2, 5))
    flags, paid = [], 0.0
    for _ in range(3):
        noise = draw_noise(world, 5, torch.Generator().manual_seed(0), ends=True)
        before, (state, outcome) = state, dream_step(world, state, zeros, noise, DreamConfig(3))
        paid = paid + before.alive * outcome.paid
        flags.append((outcome.ended.all().item(), outcome.truncated.all().item()))
    assert flags == [(False, False), (False, False), (True, False)]
    assert (paid == 3).all()
    assert (state.alive == 0).all()


def test_files_of_this_folder_do_not_name_a_kind_of_m():
    """Whoever adds a kind of world model changes nothing here."""
    folder = Path(__file__).parents[3] / "worldmodels" / "dreaming"
    for file in folder.glob("*.py"):
        assert "isinstance(memory" not in file.read_text()
        assert "mdnrnn" not in file.read_text()
