"""Learners, their checkpoints, and the agents that come of them."""

import copy
import pickle
import tempfile
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from agents.configs import NetworkConfig, OffPolicyConfig, PolicyConfig, PPOConfig
from agents.loading import ArchiveAgent, load_agent
from agents.policy_agent import (
    PolicyAgent,
    build_policy,
    space_from_config,
    space_to_config,
)
from agents.ppo import check_action_space, make_learner, train
from agents.world_model_agent import WorldModelAgent
from envs.sb3 import DreamVecEnv
from envs.task import Preprocess, Task
from generative.training.checkpoint import Checkpoints
from generative.training.files import DamagedFileError
from tests.envs.test_sb3 import D, H, random_starts, small_world
from worldmodels.configs import ActionHead
from worldmodels.controller import LinearController

torch.set_num_threads(1)
QUICK = PPOConfig(1e-2, 1e-3, n_steps=5, batch_size=20, n_epochs=2)
CAR = spaces.Box(np.array([-1, 0, 0], np.float32), np.array([1, 1, 1], np.float32))
FRAMES = spaces.Box(0, 255, (3, 64, 64), np.uint8)


def dreams(n: int = 8, seed: int = 1) -> VecMonitor:
    return VecMonitor(
        DreamVecEnv(n, small_world(), random_starts(), horizon=4, seed=seed, task=Task())
    )


def learner_in_dreams(config: PPOConfig = QUICK, **network) -> PPO:
    return make_learner("ppo", dreams(), config, NetworkConfig((6,), (6,), **network), seed=2)


class Killed(Exception):
    pass


class KillAt(BaseCallback):
    """Ends everything in the middle of a rollout, as a signal would."""

    def __init__(self, decisions: int):
        super().__init__()
        self.decisions = decisions

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.decisions:
            raise Killed
        return True


def test_stop_and_go_on_equals_never_stopped(tmp_path):
    whole = learner_in_dreams()
    assert train(whole, 400)
    broken = learner_in_dreams()
    with pytest.raises(Killed):
        train(broken, 400, checkpoints=Checkpoints(tmp_path), every=80, callback=KillAt(216))
    resumed, lines = learner_in_dreams(), []
    with torch.no_grad():
        resumed.policy.action_net.weight.fill_(9.0)  # the checkpoint is what counts
    np.random.seed(77)  # noqa: NPY002
    assert train(
        resumed, 400, checkpoints=Checkpoints(tmp_path), log=lambda *line: lines.append(line)
    )
    assert resumed.num_timesteps == whole.num_timesteps == 400
    for name, weight in whole.policy.state_dict().items():
        assert torch.equal(weight, resumed.policy.state_dict()[name]), name
    assert lines[-1][0] == 400
    assert {"episode_return", "train/loss"} <= set(lines[-1][1])
    assert train(learner_in_dreams(), 400, checkpoints=Checkpoints(tmp_path))  # nothing to do


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch, ends):
    """Where Stable-Baselines3 makes a folder for every learner that logs to nowhere."""
    there = tmp_path / "temporary"
    there.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(there))
    learner = learner_in_dreams()
    if ends == "well":
        assert train(learner, 80, checkpoints=Checkpoints(tmp_path / "checkpoints"))
        assert train(learner_in_dreams(), 80, checkpoints=Checkpoints(tmp_path / "checkpoints"))
    else:
        with pytest.raises(Killed):
            train(learner, 80, callback=KillAt(24))
    assert not list(there.iterdir())


def test_stop_is_heard_between_decisions(tmp_path):
    learner, asked = learner_in_dreams(), iter([False] * 12 + [True] * 9)
    assert not train(learner, 400, checkpoints=Checkpoints(tmp_path), stop=lambda: next(asked))
    assert learner.num_timesteps == 13 * 8


def test_the_learning_rate_goes_from_first_to_last():
    learner = learner_in_dreams(PPOConfig(1e-2, 1e-3, n_steps=5, batch_size=20))
    assert [learner.lr_schedule(x) for x in (1.0, 0.5, 0.0)] == pytest.approx([1e-2, 5.5e-3, 1e-3])
    assert learner.lr_schedule(-0.5) == 1e-3  # its last update ends above the number of decisions


def test_an_untrained_policy_begins_at_the_initial_action():
    learner = learner_in_dreams(initial_action=(0.2, 0.5, 0.1), log_std=-3.0)
    obs = learner.env.reset()
    actions = learner.predict(obs, deterministic=True)[0]
    assert np.abs(actions - [0.2, 0.5, 0.1]).max() < 0.05
    drawn = np.stack([learner.predict(obs)[0] for _ in range(200)]) - actions
    assert drawn[..., 1].std() == pytest.approx(np.exp(-3), rel=0.1)
    with pytest.raises(ValueError, match=r"Box.* has 3 numbers"):
        learner_in_dreams(initial_action=(0.2,))


@pytest.mark.parametrize("algorithm", ["sac", "dqn"])
def test_others_learn_where_the_actions_allow_it(algorithm, tmp_path):
    head = ActionHead("discrete", num=3) if algorithm == "dqn" else ActionHead()
    dream = DreamVecEnv(4, small_world(), random_starts(), horizon=4, task=Task(action=head))
    settings = OffPolicyConfig(learning_starts=16, batch_size=8, buffer_size=100, gradient_steps=1)
    learner = make_learner(algorithm, VecMonitor(dream), settings, NetworkConfig((6,), (6,)))
    before = copy.deepcopy(learner.policy.state_dict())
    assert train(learner, 64, checkpoints=Checkpoints(tmp_path), every=20)
    again = make_learner(algorithm, VecMonitor(dream), settings, NetworkConfig((6,), (6,)))
    assert train(again, 64, checkpoints=Checkpoints(tmp_path))
    for name, weight in learner.policy.state_dict().items():
        assert torch.equal(weight, again.policy.state_dict()[name])
    assert any(not torch.equal(w, before[n]) for n, w in learner.policy.state_dict().items())


@pytest.mark.parametrize(
    ("algorithm", "space", "words"),
    [
        ("dqn", CAR, r"DQN takes actions of Discrete, CarRacing has Box.*continuous=False"),
        ("sac", spaces.Discrete(3), r"SAC takes actions of Box, CarRacing has Discrete\(3\)"),
        ("ppo", spaces.MultiBinary(3), r"PPO takes actions of Box and Discrete, CarRacing has Mu"),
    ],
)
def test_actions_that_do_not_fit_are_named(algorithm, space, words):
    with pytest.raises(ValueError, match=words):
        check_action_space(algorithm, space, "CarRacing")


def test_settings_of_another_algorithm_are_refused():
    with pytest.raises(ValueError, match="ppo got the settings of an OffPolicyConfig"):
        make_learner("ppo", dreams(), OffPolicyConfig())


@pytest.mark.parametrize(
    "space",
    [CAR, FRAMES, spaces.Discrete(4, start=1), spaces.Box(-np.inf, np.inf, (2, 3), np.float32)],
)
def test_spaces_survive_their_settings(space):
    assert space_from_config(space_to_config(space)) == space


def policy_config(observation: str, stack: int = 1, algorithm: str = "ppo", **changes):
    seen = {
        "pixels": spaces.Box(0, 255, (3 * stack, 64, 64), np.uint8),
        "z": spaces.Box(-np.inf, np.inf, (D,)),
        "zh": spaces.Box(-np.inf, np.inf, (D + H,)),
    }[observation]
    actions = spaces.Discrete(5) if algorithm == "dqn" else CAR
    return PolicyConfig(
        algorithm, observation, space_to_config(seen), space_to_config(actions),
        NetworkConfig((5,), (4,)), frame_stack=stack, **changes,
    )  # fmt: skip


def make_agent(observation: str, algorithm: str = "ppo", **changes) -> PolicyAgent:
    config = policy_config(observation, algorithm=algorithm, **changes)
    world = small_world(actions=5 if algorithm == "dqn" else 3)
    torch.manual_seed(5)
    policy = build_policy(config)
    vision = None if observation == "pixels" else world.vision
    memory = world.memory if observation == "zh" else None
    task = Task()
    if algorithm == "dqn":
        task = Task(env_kwargs={"continuous": False}, action=ActionHead("discrete", num=5))
    return PolicyAgent(policy, config, vision, memory, task)


def drive(agent, frames: np.ndarray) -> np.ndarray:
    state, actions = None, []
    for t, frame in enumerate(frames):
        action, state = agent.predict(frame, state, episode_start=t == 0)
        actions.append(action)
    return np.stack(actions)


def random_frames(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(*shape, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("observation", "algorithm", "stack"),
    [
        ("zh", "ppo", 1),
        ("z", "ppo", 1),
        ("pixels", "ppo", 2),
        ("pixels", "dqn", 1),
        ("zh", "sac", 1),
        ("zh", "dqn", 1),
    ],
)
def test_saved_and_loaded_drives_the_same(observation, algorithm, stack, tmp_path):
    agent = make_agent(observation, algorithm, stack=stack, action_repeat=2)
    agent.save_pretrained(tmp_path / "agent")
    assert not any(path.suffix in (".zip", ".pkl", ".pt") for path in tmp_path.rglob("*"))
    again = load_agent(tmp_path / "agent")
    assert isinstance(again, PolicyAgent)
    frames = random_frames(5)
    np.testing.assert_array_equal(drive(agent, frames), drive(again, frames))
    np.testing.assert_array_equal(
        drive(pickle.loads(pickle.dumps(again)), frames), drive(again, frames)
    )
    space = gymnasium.make("CarRacing-v3", continuous=algorithm != "dqn").action_space
    assert all(action in space for action in drive(agent, frames))


@pytest.mark.parametrize("observation", ["zh", "z", "pixels"])
def test_a_batch_is_its_rows_and_actions_are_held(observation):
    agent, frames = make_agent(observation, action_repeat=3), random_frames(7, 2)
    state, batched = None, []
    for t in range(7):
        start = np.array([t == 0, t in (0, 4)])
        actions, state = agent.predict(frames[t], state, episode_start=start)
        batched.append(actions)
    batched = np.stack(batched)
    np.testing.assert_allclose(batched[:, 0], drive(agent, frames[:, 0]), atol=1e-5)
    np.testing.assert_allclose(batched[4:, 1], drive(agent, frames[4:, 1]), atol=1e-5)
    assert (batched[0, 0] == batched[2, 0]).all()


def test_pixels_are_stacked_as_sb3_stacks_them():
    from stable_baselines3.common.vec_env import VecFrameStack, VecTransposeImage

    agent, frames = make_agent("pixels", stack=3), random_frames(4)

    class Film(gymnasium.Env):
        observation_space, action_space = spaces.Box(0, 255, (64, 64, 3), np.uint8), CAR

        def reset(self, *, seed=None, options=None):
            self.t = 0
            return frames[0], {}

        def step(self, action):
            self.t += 1
            return frames[self.t], 0.0, False, False, {}

    env = VecTransposeImage(VecFrameStack(DummyVecEnv([Film]), 3))
    obs, expected = env.reset(), []
    for t in range(4):
        expected.append(agent.policy.predict(obs, deterministic=True)[0])
        obs = env.step(expected[-1])[0] if t < 3 else obs
    np.testing.assert_allclose(drive(agent, frames), np.concatenate(expected), atol=1e-6)


def test_a_linear_policy_of_z_and_h_is_the_linear_controller_before_it_squashes():
    """Same V, same M, weights so small that tanh is the identity: the same steering."""
    world = small_world()
    controller = LinearController(policy_controller := make_agent("zh")._controller.config)
    weight = 1e-2 * torch.randn(policy_controller.num_parameters)
    controller.load_vector(weight)
    config = PolicyConfig(
        "ppo", "zh", space_to_config(spaces.Box(-np.inf, np.inf, (D + H,))), space_to_config(CAR),
        NetworkConfig((), (4,)),
    )  # fmt: skip
    policy = build_policy(config)
    with torch.no_grad():
        # Gas is (tanh + 1) / 2 of the controller's output.
        scale, shift = torch.tensor([1.0, 0.5, 1.0]), torch.tensor([0.0, 0.5, 0.0])
        policy.action_net.weight.copy_(controller.linear.weight * scale[:, None])
        policy.action_net.bias.copy_(controller.linear.bias * scale + shift)
    ours = PolicyAgent(policy, config, world.vision, world.memory)
    theirs = WorldModelAgent(world, controller)
    frames = random_frames(5)
    np.testing.assert_allclose(drive(ours, frames), drive(theirs, frames), atol=1e-3)


def test_v_and_m_can_stay_where_they_are_but_must_not_change(tmp_path):
    agent = make_agent("zh")
    small_world().save_pretrained(tmp_path / "world")
    agent.save_pretrained(tmp_path / "agents" / "ppo", world=tmp_path / "world")
    assert sorted(p.name for p in (tmp_path / "agents" / "ppo").iterdir()) == ["policy"]
    frames = random_frames(3)
    again = load_agent(tmp_path / "agents" / "ppo")
    np.testing.assert_array_equal(drive(agent, frames), drive(again, frames))
    small_world(dropout=0.0).save_pretrained(tmp_path / "world")
    with pytest.raises(ValueError, match="trained on another V or M"):
        load_agent(tmp_path / "agents" / "ppo")


def test_what_is_damaged_or_missing_is_named(tmp_path):
    make_agent("z").save_pretrained(tmp_path / "run" / "agent")
    with pytest.raises(ValueError, match="is the folder of a run; pass its agent"):
        load_agent(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="holds no agent"):
        load_agent(tmp_path / "nothing")
    weights = tmp_path / "run" / "agent" / "policy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedFileError, match=r"model\.safetensors: its content has changed"):
        load_agent(tmp_path / "run" / "agent")
    with pytest.raises(ValueError, match=r"sees zh; it needs \['M'\] too"):
        PolicyAgent(build_policy(policy_config("zh")), policy_config("zh"), small_world().vision)
    with pytest.raises(ValueError, match=r"needs uint8 \(96, 96, 3\) frames"):
        make_agent("z").predict(np.zeros((50, 50, 3), np.uint8))


class Evil:
    """Whoever unpickles this runs code of ours."""

    def __reduce__(self):
        return exec, ("raise SystemError('code of a stranger ran')",)


def test_archives_are_read_only_if_trusted(tmp_path):
    env = gymnasium.make("CarRacing-v3")
    model = PPO("CnnPolicy", env, n_steps=8, batch_size=8, device="cpu")
    path = tmp_path / "model.zip"
    model.save(path)
    with pytest.raises(ValueError, match=r"can run any code .* pass --trust"):
        load_agent(path)
    agent = load_agent(path, trust=True)
    assert isinstance(agent, ArchiveAgent)
    frame = np.random.default_rng(0).integers(256, size=(96, 96, 3), dtype=np.uint8)
    ours, _ = agent.predict(frame, None, True)
    np.testing.assert_array_equal(ours, model.predict(frame, deterministic=True)[0])

    model.gamma = Evil()
    model.save(path)
    with pytest.raises(ValueError, match="trust"):
        load_agent(path)  # and no code has run
    with pytest.raises(DamagedFileError, match="a stranger"):
        load_agent(path, trust=True)
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(ValueError, match="no archive"):
        load_agent(tmp_path / "text.zip", trust=True)


def test_an_archive_of_another_environment_is_refused(tmp_path):
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu")
    model.save(tmp_path / "cart.zip")
    with pytest.raises(ValueError, match=r"cart\.zip was trained on Box.*supported are policies"):
        load_agent(tmp_path / "cart.zip", trust=True)


def test_vectors_are_seen_as_they_are():
    task = Task("CartPole-v1", {}, Preprocess("vector", (4,)), ActionHead("discrete", num=2))
    config = PolicyConfig(
        "ppo", "pixels", space_to_config(spaces.Box(-np.inf, np.inf, (4,))),
        space_to_config(spaces.Discrete(2)), NetworkConfig((5,), (4,)),
    )  # fmt: skip
    agent = PolicyAgent(build_policy(config), config, task=task)
    obs = np.float32([0.1, 0.2, -0.1, 0.3])
    assert agent.predict(obs)[0] == agent.policy.predict(obs, deterministic=True)[0]


class Seeds(gymnasium.Env):
    """Ends at once, and keeps the seeds that it was reset with."""

    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,))
    seeds: ClassVar[list[int]] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.seeds.append(seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, True, False, {}


def test_a_learner_leaves_the_environments_their_seeds(tmp_path):
    """Stable-Baselines3 would seed them by the learner's; a run that goes on takes new ones."""
    Seeds.seeds.clear()
    settings = PPOConfig(1e-2, n_steps=5, batch_size=10)

    def learner():
        env = DummyVecEnv([Seeds] * 2)
        env.seed(70)
        return make_learner("ppo", env, settings, NetworkConfig((6,), (6,)), seed=2)

    train(learner(), 20)
    assert Seeds.seeds == [70, 71]
    for decisions in (20, 40):
        checkpoints = Checkpoints(tmp_path)
        train(learner(), decisions, checkpoints=checkpoints, env_seed=lambda done: 1000 + done)
    assert Seeds.seeds == [70, 71, 1000, 1001, 1020, 1021]


def test_the_seed_of_dreams_and_the_learners_both_count():
    def weights(env_seed: int, seed: int) -> bytes:
        learner = make_learner(
            "ppo", dreams(seed=env_seed), QUICK, NetworkConfig((6,), (6,)), seed=seed
        )
        train(learner, 40)
        return learner.policy.action_net.weight.detach().numpy().tobytes()

    found = {(a, b): weights(a, b) for a in (1, 2) for b in (1, 2)}
    assert len(set(found.values())) == 4
    assert weights(1, 1) == found[1, 1]


def test_the_weights_are_those_that_stable_baselines3_would_draw():
    ours = learner_in_dreams()
    theirs = PPO("MlpPolicy", dreams(), policy_kwargs=ours.policy_kwargs, seed=2, device="cpu")
    for name, weight in theirs.policy.state_dict().items():
        assert torch.equal(weight, ours.policy.state_dict()[name]), name
