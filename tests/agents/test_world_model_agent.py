"""The agent: V + M + C behind one predict, against the chain by hand."""

import copy
import json

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.evaluation import evaluate
from agents.world_model_agent import AgentConfig, AgentState, WorldModelAgent
from envs.car_racing import resize_frames
from envs.task import Preprocess, Task
from generative.vae import ConvVAEConfig
from worldmodels.configs import ActionHead
from worldmodels.controller import ControllerConfig, LinearController
from worldmodels.memory import MDNRNN, MDNRNNConfig
from worldmodels.vision import VectorVision
from worldmodels.world_model import WorldModel

torch.set_num_threads(1)

ROUNDING = 1e-5
"""Relative: float32 sums of a batch of another size are taken in another order."""


def small_agent(repeat: int = 1, features: str = "zhc", seed: int = 0) -> WorldModelAgent:
    torch.manual_seed(seed)
    config = MDNRNNConfig(4, 3, 8, 2, reward_input=True, predict_reward=True, reward_scale=0.1)
    world = WorldModel(ConvVAEConfig(4, (2, 3, 4, 5)).build(), MDNRNN(config))
    with torch.no_grad():
        world.vision.posterior.to_mu.weight *= 20  # frames of noise must differ in z
    controller = LinearController(ControllerConfig(4, 8, 3, features))
    controller.load_vector(torch.randn(controller.config.num_parameters))
    return WorldModelAgent(world, controller, AgentConfig(repeat))


def random_frames(*shape: int, seed: int = 0, side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    level = rng.integers(256, size=(*shape, 1, 1, 3))
    noise = rng.integers(-40, 40, size=(*shape, side, side, 3))
    return (level + noise).clip(0, 255).astype(np.uint8)


@torch.no_grad()
def drive_by_hand(agent: WorldModelAgent, frames: np.ndarray) -> np.ndarray:
    """Actions for frames (T, 64, 64, 3) of one episode, one decision a frame."""
    vision, memory = agent.world.vision, agent.world.memory
    cell = torch.nn.LSTMCell(memory.config.input_dim, 8)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(cell, name).data.copy_(getattr(memory.lstm, f"{name}_l0"))
    h, c, reward, actions = torch.zeros(1, 8), torch.zeros(1, 8), torch.zeros(1, 1), []
    for frame in frames:
        image = torch.from_numpy(frame / 255.0).float().permute(2, 0, 1).unsqueeze(0)
        z = vision.encode_mu_logvar(image)[0]
        y = torch.tanh(agent.controller.linear(torch.cat([z, h, c], 1)))[0]
        action = torch.stack([y[0], (y[1] + 1) / 2, y[2].clamp(min=0)])
        h, c = cell(torch.cat([z, action[None], reward / 0.1], 1), (h, c))
        reward = memory.reward_head(h) * 0.1  # M's own estimate takes the place of the reward
        actions.append(action.numpy())
    return np.stack(actions)


def test_acts_as_the_chain_by_hand():
    agent, frames = small_agent(), random_frames(6)
    state, actions = None, []
    for frame in frames:
        action, state = agent.predict(frame, state)
        assert action.shape == (3,)
        assert action.dtype == np.float32
        actions.append(action)
    np.testing.assert_allclose(np.stack(actions), drive_by_hand(agent, frames), atol=1e-5)
    assert np.ptp(actions, axis=0).max() > 0.05


def test_stock_frames_are_cut_and_shrunk():
    agent, frames = small_agent(), random_frames(3, side=96)
    ours, state = agent.predict(frames)
    theirs, expected = agent.predict(resize_frames(frames))
    assert np.array_equal(ours, theirs)
    assert torch.equal(state.h, expected.h)


@pytest.mark.parametrize("repeat", [1, 3])
def test_a_batch_is_its_rows(repeat):
    agent, frames = small_agent(repeat), random_frames(7, 4)
    starts = np.zeros((7, 4), bool)
    starts[0], starts[3, 1], starts[5, 2] = True, True, True
    state, batched = None, []
    for t in range(7):
        action, state = agent.predict(frames[t], state, episode_start=starts[t])
        assert action.shape == (4, 3)
        batched.append(action)
    for lane in range(4):
        state = None
        for t in range(7):
            action, state = agent.predict(frames[t, lane], state, episode_start=starts[t, lane])
            np.testing.assert_allclose(action, batched[t][lane], atol=1e-5)


def test_action_repeat_holds_and_looks_only_when_due():
    agent, frames = small_agent(3), random_frames(9)
    state, actions = None, []
    for frame in frames:
        action, state = agent.predict(frame, state)
        actions.append(action)
        action += 5  # the caller's own copy
    decided = drive_by_hand(agent, frames[::3])
    np.testing.assert_allclose(np.stack(actions) - 5, np.repeat(decided, 3, axis=0), atol=1e-5)
    assert np.abs(decided[0] - decided[1]).max() > 1e-3


def test_m_reads_what_was_executed():
    """A driver that adds noise to the action says so; holding the own action changes nothing."""
    agent, frames = small_agent(), random_frames(3, 2)
    other = np.array([[0.5, 0.25, 0.0], [-0.5, 1.0, 0.75]], np.float32)
    action, state = agent.predict(frames[0])
    told, changed = state.executed(action), state.executed(other)
    plain, _ = agent.predict(frames[1], state)
    assert np.array_equal(agent.predict(frames[1], told)[0], plain)
    assert not np.allclose(agent.predict(frames[1], changed)[0], plain, atol=1e-4)
    assert np.array_equal(state.action, action)
    z, memory = agent.world.encode(frames[0]), agent.world.memory
    _, (h, c) = memory.step(z, torch.from_numpy(other), memory.initial_state(2), torch.zeros(2))
    _, after = agent.predict(frames[1], changed)
    torch.testing.assert_close((after.h, after.c), (h, c))


def assert_equal_states(ours: AgentState, theirs: AgentState) -> None:
    for name, value in ours._asdict().items():
        np.testing.assert_allclose(value, getattr(theirs, name), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("start", [True, np.array([True, True]), [True, True]])
def test_episode_start_forgets(start):
    agent, frames = small_agent(3), random_frames(3, 2)
    state = None
    for t in range(2):  # an action is being held when the episode ends
        _, state = agent.predict(frames[t], state)
    again, after = agent.predict(frames[2], state, episode_start=start)
    fresh, expected = agent.predict(frames[2])
    np.testing.assert_allclose(again, fresh, rtol=ROUNDING)
    assert_equal_states(after, expected)


def test_forgetting_one_lane_leaves_the_other():
    agent, frames = small_agent(3), random_frames(3, 2)
    _, state = agent.predict(frames[0])
    mixed, after = agent.predict(frames[1], state, episode_start=np.array([False, True]))
    kept, expected = agent.predict(frames[1], state)
    fresh, begun = agent.predict(frames[1])
    np.testing.assert_allclose(mixed[0], kept[0], rtol=ROUNDING)
    np.testing.assert_allclose(mixed[1], fresh[1], rtol=ROUNDING)
    np.testing.assert_allclose(after.h[0], expected.h[0], atol=1e-6)
    np.testing.assert_allclose(after.h[1], begun.h[1], atol=1e-6)
    assert after.countdown.tolist() == [1, 2]


@pytest.mark.parametrize("repeat", [1, 2])
def test_predict_leaves_its_inputs_alone(repeat):
    """A state may be passed again: planning ahead, or trying another frame."""
    agent, frames = small_agent(repeat), random_frames(3, 2)
    _, state = agent.predict(frames[0])
    kept, seen = copy.deepcopy(state), frames.copy()
    first, _ = agent.predict(frames[1], state, episode_start=np.array([True, False]))
    agent.predict(frames[2], state)
    assert_equal_states(state, kept)
    assert np.array_equal(frames, seen)
    again, _ = agent.predict(frames[1], state, episode_start=np.array([True, False]))
    assert np.array_equal(first, again)


def test_not_deterministic_draws_z():
    agent, frames = small_agent(), random_frames(2)
    calm = [agent.predict(frames)[0] for _ in range(2)]
    drawn = [agent.predict(frames, deterministic=False)[0] for _ in range(2)]
    assert np.array_equal(*calm)
    assert not np.array_equal(*drawn)
    again = small_agent().predict(frames, deterministic=False)[0]
    assert np.array_equal(drawn[0], again)  # the same seed


def test_what_does_not_fit_is_explained():
    agent = small_agent()
    wrong = [np.zeros(s, np.uint8) for s in [(84, 84, 3), (2, 64, 64, 4), (64, 64), (1, 3, 96, 96)]]
    for obs in [*wrong, np.zeros((96, 96, 3))]:
        with pytest.raises(ValueError, match=r"needs uint8 \(96, 96, 3\) frames of CarRacing-v3"):
            agent.predict(obs)
    _, state = agent.predict(random_frames(2))
    with pytest.raises(ValueError, match="got 3 observations and the state of 2"):
        agent.predict(random_frames(3), state)
    with pytest.raises(ValueError, match="trained on z 4, h 9 and actions 3, this M has z 4, h 8"):
        WorldModelAgent(agent.world, LinearController(ControllerConfig(4, 9)))
    with pytest.raises(ValueError, match="and actions 2, this M"):
        WorldModelAgent(agent.world, LinearController(ControllerConfig(4, 8, 2)))
    with pytest.raises(ValueError, match="action_repeat is 0"):
        AgentConfig(action_repeat=0)


def test_saved_and_loaded(tmp_path):
    agent, frames = small_agent(2), random_frames(4)
    folder = tmp_path / "an agent"
    agent.save_pretrained(folder)
    again = WorldModelAgent.from_pretrained(folder)
    assert again.config == agent.config
    states = [None, None]
    for frame in frames:
        ours, states[0] = agent.predict(frame, states[0])
        theirs, states[1] = again.predict(frame, states[1])
        assert np.array_equal(ours, theirs)
    agent.save_pretrained(folder, dtype=torch.float16)  # over the first
    half = WorldModelAgent.from_pretrained(folder)
    np.testing.assert_allclose(half.predict(frames)[0], agent.predict(frames)[0], atol=0.02)
    assert torch.equal(half.controller.to_vector(), agent.controller.to_vector())


def test_folders_that_hold_no_agent(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no agent \(no agent\.json\)"):
        WorldModelAgent.from_pretrained(tmp_path)
    small_agent().save_pretrained(tmp_path / "agent")
    (tmp_path / "agent" / "agent.json").write_text(json.dumps({"action_repeats": 3}))
    with pytest.raises(ValueError, match=r"agent\.json.*action_repeats"):
        WorldModelAgent.from_pretrained(tmp_path / "agent")
    (tmp_path / "agent" / "agent.json").write_text('{"action_re')
    with pytest.raises(ValueError, match=r"agent\.json"):
        WorldModelAgent.from_pretrained(tmp_path / "agent")


def test_stable_baselines3_drives_it_in_the_stock_game():
    def make() -> gymnasium.Env:
        return gymnasium.make("CarRacing-v3", max_episode_steps=12)

    returns, lengths = evaluate_policy(
        small_agent(2), DummyVecEnv([make, make]), 2, warn=False, return_episode_rewards=True
    )
    assert lengths == [12, 12]
    assert np.isfinite(returns).all()


POLE = Task("CartPole-v1", {}, Preprocess("vector", (4,)), ActionHead("discrete", num=2))


def pole_agent(repeat: int = 1) -> WorldModelAgent:
    torch.manual_seed(1)
    vision = VectorVision.of(torch.randn(100, 4) * torch.tensor([1.0, 2.0, 0.1, 3.0]))
    memory = MDNRNN(MDNRNNConfig(4, 2, 8, 2, predict_reward=True))
    controller = LinearController(ControllerConfig(4, 8, 2, "zh", POLE.action))
    controller.load_vector(torch.randn(controller.config.num_parameters))
    return WorldModelAgent(WorldModel(vision, memory), controller, AgentConfig(repeat), task=POLE)


@torch.no_grad()
def test_acts_on_vectors_as_the_chain_by_hand():
    agent = pole_agent()
    vision, memory = agent.world.vision, agent.world.memory
    seen = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    state, h, c, chosen = None, torch.zeros(1, 8), torch.zeros(1, 8), []
    for obs in seen:
        action, state = agent.predict(obs, state)
        z = (torch.from_numpy(obs)[None] - vision.mean) / vision.std
        y = agent.controller.linear(torch.cat([z, h], 1))
        assert action == int(y.argmax())
        assert gymnasium.spaces.Discrete(2).contains(action)
        one_hot = torch.eye(2)[int(action)][None]
        _, (h, c) = memory.read(z[:, None], one_hot[:, None], (h, c), None)
        chosen.append(int(action))
    assert set(chosen) == {0, 1}


def test_a_batch_of_vectors_is_its_rows():
    agent = pole_agent()
    seen = np.random.default_rng(1).normal(size=(6, 3, 4)).astype(np.float32)
    together, state = [], None
    for obs in seen:
        actions, state = agent.predict(obs, state)
        together.append(actions)
    for lane in range(3):
        state = None
        for t, obs in enumerate(seen[:, lane]):
            action, state = agent.predict(obs, state)
            assert action == together[t][lane]


def test_an_agent_is_saved_with_its_task(tmp_path):
    agent = pole_agent(repeat=2)
    agent.save_pretrained(tmp_path / "a")
    again = WorldModelAgent.from_pretrained(tmp_path / "a")
    assert again.task == POLE
    result = evaluate(tmp_path / "a", range(3))
    assert result.env_id == "CartPole-v1"
    env = gymnasium.make("CartPole-v1")
    obs, _ = env.reset(seed=1)
    state, score, over = None, 0.0, False
    while not over:
        action, state = again.predict(obs, state)
        obs, reward, terminated, truncated, _ = env.step(action)
        score, over = score + float(reward), terminated or truncated
    assert result.tracks[1].score == score


def test_an_agent_of_another_environment_is_refused(tmp_path):
    agent = pole_agent()
    with pytest.raises(ValueError, match=r"this agent's V sees vectors of \(4,\), LunarLander-v3 "
                       r"shows vectors of \(8,\)"):  # fmt: skip
        task = Task("LunarLander-v3", {}, Preprocess("vector", (8,)), POLE.action)
        WorldModelAgent(agent.world, agent.controller, task=task)
    with pytest.raises(ValueError, match=r"the controller was trained for actions of .*num=2"):
        WorldModelAgent(agent.world, agent.controller)
    with pytest.raises(ValueError, match=r"got observations of shape \(3,\)"):
        agent.predict(np.zeros(3, np.float32))
