"""z and h in place of frames: against V and M by hand, and what is refused."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import envs
from agents.configs import NetworkConfig, PolicyConfig
from agents.policy_agent import PolicyAgent, build_policy, space_to_config
from envs.action_repeat import ActionRepeat
from envs.latent import LatentObservation, SeenObservation
from envs.task import Preprocess, Task
from generative.vae import ConvVAEConfig
from worldmodels.configs import ActionHead
from worldmodels.memory import MDNRNN, MDNRNNConfig
from worldmodels.world_model import WorldModel

torch.set_num_threads(1)
D, H = 4, 8
SLIDES = ActionHead("discrete", num=3, first=1)
CAR = "WorldModels/CarRacing64-v0"


def small_world(actions: int = 3, **heads) -> WorldModel:
    torch.manual_seed(0)
    memory = MDNRNN(MDNRNNConfig(D, actions, H, 3, **heads))
    world = WorldModel(ConvVAEConfig(D, (2, 3, 4, 5)).build(), memory)
    with torch.no_grad():
        world.vision.posterior.to_mu.weight *= 20  # frames must differ in z
    return world


class Slides(gymnasium.Env):
    """Pictures of one colour each; the episode ends after six of them."""

    def __init__(self, shape=(64, 64, 3), dtype=np.uint8, actions=None):
        self.observation_space = spaces.Box(0, 255, shape, dtype)
        self.action_space = actions or spaces.Discrete(3, start=1)

    def _show(self):
        return np.full(self.observation_space.shape, 40 * self.t, self.observation_space.dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._show(), {}

    def step(self, action):
        self.t += 1
        return self._show(), float(self.t), self.t == 6, False, {"t": self.t}


@torch.no_grad()
def by_hand(world: WorldModel, frames: list, actions: np.ndarray) -> np.ndarray:
    """z and h before each of these actions (as M reads them), by torch's own LSTMCell."""
    memory = world.memory
    cell = torch.nn.LSTMCell(memory.config.input_dim, H)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(cell, name).data.copy_(getattr(memory.lstm, f"{name}_l0"))
    h, c, reward, rows = torch.zeros(1, H), torch.zeros(1, H), torch.zeros(1, 1), []
    for frame, action in zip(frames, [*actions, None], strict=True):
        x = torch.from_numpy(frame / 255.0).float().permute(2, 0, 1).unsqueeze(0)
        z = world.vision.encode_mu_logvar(x)[0]
        rows.append(torch.cat([z, h], 1)[0].numpy())
        if action is not None:
            inputs = [z, torch.from_numpy(action).float()[None]]
            if memory.config.reward_input:
                inputs.append(reward / memory.config.reward_scale)
            h, c = cell(torch.cat(inputs, 1), (h, c))
            if memory.reward_head is not None:
                reward = memory.reward_head(h) * memory.config.reward_scale
    return np.stack(rows)


@pytest.mark.parametrize(
    "heads", [{}, {"reward_input": True, "predict_reward": True, "reward_scale": 0.5}]
)
def test_z_and_h_by_hand(heads):
    world = small_world(**heads)
    plain, latent = Slides(), LatentObservation(Slides(), world)
    choices = np.array([1, 3, 2, 2])
    frames = [plain.reset()[0], *(plain.step(a)[0] for a in choices)]
    for _ in range(2):  # the second episode knows nothing of the first
        shown = [latent.reset()[0], *(latent.step(a)[0] for a in choices)]
        expected = by_hand(world, frames, np.eye(3)[choices - 1])
        np.testing.assert_allclose(np.stack(shown), expected, atol=1e-5)
    assert np.ptp(expected[:, :D], axis=0).max() > 0.01


def test_car_racing_is_read_as_a_finished_agent_reads_it():
    """A policy on LatentObservation is told what `PolicyAgent` tells it of the stock frames."""
    world = small_world(predict_reward=True, reward_input=True)
    env = LatentObservation(ActionRepeat(gymnasium.make("WorldModels/FastCarRacing-v0"), 2), world)
    plain = ActionRepeat(gymnasium.make("WorldModels/FastCarRacing-v0"), 2)
    config = PolicyConfig(
        "ppo", "zh", space_to_config(env.observation_space), space_to_config(env.action_space),
        NetworkConfig((), (4,)), action_repeat=1,
    )  # fmt: skip
    torch.manual_seed(3)
    policy = build_policy(config)
    agent = PolicyAgent(policy, config, world.vision, world.memory)
    seen, obs = env.reset(seed=5)[0], plain.reset(seed=5)[0]
    state, start = None, True
    for _ in range(4):
        ours = policy.predict(seen, deterministic=True)[0]
        theirs, state = agent.predict(obs, state, start)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        seen, obs, start = env.step(ours)[0], plain.step(ours)[0], False


def test_v_alone_and_the_folder_of_one(tmp_path):
    world = small_world()
    world.save_pretrained(tmp_path)
    Task("Slides", {}, Preprocess("image", (64, 64, 3)), SLIDES).save(tmp_path)
    shown = [
        LatentObservation(Slides(), model, memory=memory).reset()[0]
        for model, memory in (
            (world.vision, None), (tmp_path / "vision", None), (tmp_path, False), (world, False),
        )
    ]  # fmt: skip
    assert shown[0].shape == (D,)
    for other in shown[1:]:
        np.testing.assert_array_equal(other, shown[0])


@pytest.mark.parametrize("memory", [True, False])
def test_both_checkers_pass(memory):
    env = LatentObservation(Slides(), small_world(), memory=memory)
    assert env.observation_space.shape == (D + H * memory,)
    with pytest.warns(UserWarning, match="infinity"):
        check_env(env)
    sb3_check_env(env)


def test_found_in_the_package_without_torch():
    assert envs.LatentObservation is LatentObservation
    code = "import sys, envs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    with pytest.raises(AttributeError, match="no attribute 'Latent'"):
        _ = envs.Latent


def test_an_action_is_held():
    env = ActionRepeat(Slides(), 4)
    env.reset()
    assert env.step(1)[1:] == (1 + 2 + 3 + 4, False, False, {"t": 4})
    assert env.step(1)[1:] == (5 + 6, True, False, {"t": 6})
    with pytest.raises(ValueError, match="repeat is 0"):
        ActionRepeat(Slides(), 0)


def test_seen_is_what_v_sees():
    rng = np.random.default_rng(0)
    env = SeenObservation(Slides((128, 64, 3)), Preprocess("image", (128, 64, 3)))
    frame = rng.integers(256, size=(128, 64, 3), dtype=np.uint8)
    mean = frame.reshape(64, 2, 64, 3).astype(float).mean(1)
    assert np.abs(env.observation(frame) - mean).max() <= 0.51
    assert env.observation_space == spaces.Box(0, 255, (64, 64, 3), np.uint8)


def test_what_does_not_fit_is_named(tmp_path):
    world = small_world()
    world.save_pretrained(tmp_path / "car")
    with pytest.raises(
        ValueError, match=r"car was trained on CarRacing-v3, the environment is Sli"
    ):
        LatentObservation(Slides(), tmp_path / "car")
    Task("Slides-v3", {}, Preprocess("image", (64, 64, 3)), ActionHead("discrete", num=3)).save(
        tmp_path / "car"
    )
    with pytest.raises(
        ValueError, match="was trained on Slides-v3, the environment is WorldModels"
    ):
        LatentObservation(gymnasium.make(CAR), tmp_path / "car")
    with pytest.raises(
        ValueError, match=r"Discrete\(5\), 5 numbers to M; the M was trained with 3"
    ):
        LatentObservation(Slides(actions=spaces.Discrete(5)), world)
    with pytest.raises(ValueError, match=r"sees frames of \(64, 64, 3\), Slides shows vectors"):
        LatentObservation(Slides((7,), np.float32), world.vision)
    with pytest.raises(ValueError, match="supported are a Box of uint8 images"):
        env = Slides()
        env.observation_space = spaces.Discrete(4)
        LatentObservation(env, world)
    with pytest.raises(ValueError, match="memory is True, but the model is a V alone"):
        LatentObservation(Slides(), world.vision, memory=True)
