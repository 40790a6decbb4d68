"""The dream as an environment: checkers, seeds, lanes against single environments."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from torch import nn

import envs
from envs.dream import DreamEnv, DreamVectorEnv
from envs.task import Preprocess, Task
from generative.training.files import DamagedFileError
from generative.vae import ConvVAEConfig
from worldmodels.configs import ActionHead
from worldmodels.dreaming.starts import STARTS_NAME, DreamStarts
from worldmodels.memory import MDNRNN, MDNRNNConfig
from worldmodels.vision import VectorVision
from worldmodels.world_model import WorldModel

torch.set_num_threads(1)
D, H = 4, 8
ID = "WorldModels/CarRacingDream-v0"
FULL = {
    "reward_input": True,
    "predict_reward": True,
    "predict_end": True,
    "residual": True,
    "dropout": 0.3,
    "reward_scale": 2.0,
}


def small_world(seed: int = 0, end_chance: float = 0.05, **changes) -> WorldModel:
    torch.manual_seed(seed)
    memory = MDNRNN(MDNRNNConfig(D, 3, H, 3, **{**FULL, **changes}))
    if memory.end_head is not None:
        nn.init.constant_(memory.end_head.bias, float(np.log(end_chance / (1 - end_chance))))
    return WorldModel(ConvVAEConfig(D, (2, 3, 4, 5)).build(), memory)


def random_starts(n: int = 20) -> DreamStarts:
    g = torch.Generator().manual_seed(0)
    z, c = torch.randn(n, D, generator=g), torch.randn(n, H, generator=g)
    return DreamStarts(z, torch.rand(n, H, generator=g) - 0.5, c, torch.randn(n, generator=g))


def make(world: WorldModel | None = None, **settings) -> DreamEnv:
    return DreamEnv(world or small_world(), random_starts(), **{"task": Task(), **settings})


@pytest.fixture
def folder(tmp_path):
    """A model folder with its starts."""
    small_world().save_pretrained(tmp_path / "model")
    random_starts().save(tmp_path / "model" / STARTS_NAME)
    return tmp_path / "model"


def play(env: gymnasium.Env, seed: int | None, steps: int = 8) -> list:
    """Everything an episode shows under fixed actions."""
    obs, info = env.reset(seed=seed)
    shown = [(obs, info)]
    for action in random_actions(steps):
        shown.append(env.step(action))
        if shown[-1][2] or shown[-1][3]:
            break
    return shown


def random_actions(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.uniform([-1, 0, 0], 1, size=(*shape, 3)).astype(np.float32)


def assert_same(ours, theirs) -> None:
    np.testing.assert_equal(ours, theirs)


INFINITE = [
    "A Box observation space minimum value is -infinity",
    "A Box observation space maximum value is infinity",
]
ASYMMETRIC = ["We recommend you to use a symmetric and normalized Box action space"]


@pytest.mark.parametrize(
    ("observation", "gymnasiums", "sb3s"),
    # z has no bounds; CarRacing's gas and brake begin at 0.
    [("zh", INFINITE, ASYMMETRIC), ("frames", [], ASYMMETRIC)],
)
def test_both_checkers_pass(folder, observation, gymnasiums, sb3s):
    env = gymnasium.make(ID, model=folder, observation=observation).unwrapped
    for check, expected in ((check_env, gymnasiums), (sb3_check_env, sb3s)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check(env)
        messages = [str(w.message) for w in caught]
        for message in expected:
            assert sum(message in m for m in messages) == 1
        assert len(messages) == len(expected), messages


def test_made_by_its_id(folder):
    env = gymnasium.make(ID, model=str(folder), horizon=5, temperature=0.5, render_mode="rgb_array")
    direct = DreamEnv(folder, horizon=5, temperature=0.5)
    for ours, theirs in zip(play(env, 3), play(direct, 3), strict=True):
        assert_same(ours, theirs)
    assert env.render().shape == (64, 64, 3)
    vector = gymnasium.make_vec(ID, num_envs=3, model=folder, horizon=5)
    assert isinstance(vector.unwrapped, DreamVectorEnv)
    assert vector.reset(seed=1)[0].shape == (3, D + H)
    assert envs.register_envs() is None  # a second time changes nothing


def test_spaces():
    env = make()
    assert env.action_space == gymnasium.make("CarRacing-v3").action_space
    assert env.observation_space.shape == (D + H,)
    assert env.observation_space.dtype == np.float32
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space
    obs[-1] = 1.5  # h cannot leave -1..1
    assert obs not in env.observation_space


@pytest.mark.parametrize(
    ("heads", "settings"),
    [
        ({}, {"reward_clip": (-0.2, 0.3)}),
        ({"reward_input": False, "dropout": 0.0, "residual": False}, {}),
    ],
)
def test_a_step_is_ms(heads, settings):
    """Without heat the next z is certain, and all else is M's own `step` on the masked h."""
    world = small_world(end_chance=1e-9, **heads)
    env, starts = make(world, temperature=0, horizon=30, **settings), random_starts()
    obs, info = env.reset(seed=4)
    row = info["start"]
    z, state = starts.z[[row]], (starts.h[[row]], starts.c[[row]])
    reward = starts.prev_reward[[row]]
    np.testing.assert_array_equal(obs, np.concatenate([z[0], state[0][0]]))
    mask = env._lanes.state.mask
    for action in random_actions(6):
        with torch.no_grad():
            _, state = world.memory.step(z, torch.from_numpy(action[None]), state, reward)
            seen = state[0] if mask is None else state[0] * mask
            out = world.memory.heads(seen, z)
        z = out.mixture.sample(temperature=0)
        reward = out.reward if not settings else out.reward.clamp(-0.2, 0.3)
        obs, paid, terminated, truncated, info = env.step(action)
        np.testing.assert_allclose(obs, np.concatenate([z[0], state[0][0]]), atol=1e-5)
        assert paid == pytest.approx(reward.item(), abs=1e-5)
        assert (terminated, truncated, info) == (False, False, {})


def test_dropout_is_one_mask_an_episode():
    env = make()
    masks = []
    for seed in range(200):
        env.reset(seed=seed)
        masks.append(env._lanes.state.mask.clone())
        env.step(env.action_space.sample())
        assert torch.equal(env._lanes.state.mask, masks[-1])
    masks = torch.cat(masks)
    torch.testing.assert_close(masks.unique(), torch.tensor([0, 1 / 0.7]))
    assert (masks == 0).float().mean().item() == pytest.approx(0.3, abs=0.04)
    off = make(dropout=False)
    assert off._lanes.state.mask is None


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_z_is_drawn_from_ms_mixture(temperature):
    """Moments of many draws of one step; lanes differ in their noise alone."""
    world, starts = small_world(dropout=0.0), random_starts(1)
    lanes, action = 4000, np.array([0.3, 0.2, 0.1], np.float32)
    many = DreamVectorEnv(lanes, world, starts, temperature=temperature, task=Task())
    many.reset(seed=0)
    obs = many.step(np.repeat(action[None], lanes, axis=0))[0][:, :D]
    with torch.no_grad():
        out, _ = world.memory.step(
            starts.z, torch.from_numpy(action[None]), (starts.h, starts.c), starts.prev_reward
        )
    log_pi = (out.mixture.log_pi / temperature).log_softmax(-1)
    heated = out.mixture._replace(
        log_pi=log_pi, log_std=out.mixture.log_std + 0.5 * np.log(temperature)
    )
    mean, variance = heated.mean()[0].numpy(), heated.variance()[0].numpy()
    assert (np.abs(obs.mean(0) - mean) < 4 * np.sqrt(variance / lanes)).all()
    np.testing.assert_allclose(obs.var(0), variance, rtol=0.1)


@pytest.mark.parametrize("chance", [0.0001, 0.2, 0.9999])
def test_ends_come_as_often_as_m_says(chance):
    world = small_world(end_chance=chance)
    nn.init.zeros_(world.memory.end_head.weight)
    many = DreamVectorEnv(4000, world, random_starts(), task=Task())
    many.reset(seed=0)
    terminated = many.step(many.action_space.sample())[2]
    assert terminated.mean() == pytest.approx(chance, abs=0.03)


def test_horizon_truncates():
    env = make(small_world(predict_end=False), horizon=3)
    assert [step[2:4] for step in play(env, 0)[1:]] == [(False, False)] * 2 + [(False, True)]


def test_seed_fixes_the_episode():
    env = make(horizon=6)
    first, again, other = play(env, 1), play(env, 1), play(env, 2)
    assert_same(first, again)
    assert not np.array_equal(first[0][0], other[0][0])
    play(env, 1)
    second = play(env, None)
    play(env, 1, steps=2)  # how an episode goes does not decide the next one's seed
    assert_same(play(env, None), second)
    assert not np.array_equal(second[0][0], first[0][0])
    seed = second[0][1]["episode_seed"]
    assert_same(play(make(horizon=6), seed), second)
    assert make().reset()[1] != make().reset()[1]


def test_observations_are_the_callers_own():
    env = make()
    obs, _ = env.reset(seed=0)
    kept = obs.copy()
    env.step(random_actions())
    assert np.array_equal(obs, kept)
    obs += 1
    assert np.array_equal(env.reset(seed=0)[0], kept)


def test_frames_are_vs_pictures_of_z():
    world = small_world()
    blind, seeing = make(world), make(world, observation="frames", render_mode="rgb_array")
    for (obs, *_), (frame, *_) in zip(play(blind, 1), play(seeing, 1), strict=True):
        image = world.vision.decode(torch.from_numpy(obs[:D])[None])[0].permute(1, 2, 0)
        assert frame.dtype == np.uint8
        assert np.abs(frame - 255 * image.detach().numpy()).max() <= 0.501
    assert np.array_equal(seeing.render(), frame)
    assert blind.render() is None


def test_actions_out_of_range_are_clipped():
    env = make()
    obs = []
    for action in ([1.0, 0.0, 1.0], np.array([7, -3, 2])):
        env.reset(seed=0)
        obs.append(env.step(action)[0])
    assert np.array_equal(*obs)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_vector_is_single_environments_side_by_side(mode):
    """Observations, rewards, ends, automatic resets and infos, through many episodes."""
    world, settings = small_world(end_chance=0.15), {"horizon": 7}
    ours = DreamVectorEnv(5, world, random_starts(), autoreset_mode=mode, **settings, task=Task())
    theirs = SyncVectorEnv([lambda: make(world, **settings)] * 5, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"]
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    for seed in (3, [9, 8, 7, 6, 5], None):
        assert_same_step(ours.reset(seed=seed), theirs.reset(seed=seed))
        ends = np.zeros(2)
        for actions in random_actions(25, 5):
            step, expected = ours.step(actions), theirs.step(actions)
            assert_same_step(step, expected)
            ends += expected[2].sum(), expected[3].sum()
        assert (ends > 2).all()


def assert_same_step(ours: tuple, theirs: tuple) -> None:
    """Floats up to rounding: a batch is summed in another order than a row."""
    for value, expected in zip(ours[:-1], theirs[:-1], strict=True):
        assert value.dtype == expected.dtype
        np.testing.assert_allclose(value, expected, atol=1e-4)
    assert ours[-1].keys() == theirs[-1].keys()
    for key, expected in theirs[-1].items():
        if key == "final_obs":
            for value, other in zip(ours[-1][key], expected, strict=True):
                assert (value is None) == (other is None)
                np.testing.assert_allclose(
                    *([0, 0] if value is None else [value, other]), atol=1e-4
                )
        else:
            np.testing.assert_equal(ours[-1][key], expected)


def test_reset_mask_and_no_autoreset():
    world = small_world(predict_end=False)
    ours = DreamVectorEnv(
        3, world, random_starts(), horizon=2, autoreset_mode="Disabled", task=Task()
    )
    theirs = SyncVectorEnv(
        [lambda: make(world, horizon=2)] * 3, autoreset_mode=AutoresetMode.DISABLED
    )
    assert_same_step(ours.reset(seed=1), theirs.reset(seed=1))
    assert_same_step(ours.step(random_actions(3)), theirs.step(random_actions(3)))
    mask = np.array([True, False, False])
    assert_same_step(
        ours.reset(seed=4, options={"reset_mask": mask}),
        theirs.reset(seed=4, options={"reset_mask": mask}),
    )
    step = ours.step(random_actions(3))
    assert step[3].tolist() == [False, True, True]
    with pytest.raises(gymnasium.error.ResetNeeded, match="lane 1 is over"):
        ours.step(random_actions(3))
    ours.reset(options={"reset_mask": ~mask})
    assert ours.step(random_actions(3))[3].tolist() == [True, False, False]
    for wrong in (np.ones(2, bool), np.zeros(3, bool), np.ones(3)):
        with pytest.raises(ValueError, match=r"reset_mask is .* give bool \(3,\)"):
            ours.reset(options={"reset_mask": wrong})


def test_vector_renders_every_lane():
    vector = DreamVectorEnv(2, small_world(), random_starts(), render_mode="rgb_array", task=Task())
    vector.reset(seed=0)
    frames = vector.render()
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 2
    single = make(render_mode="rgb_array")
    single.reset(seed=1)
    assert np.abs(single.render().astype(int) - frames[1]).max() <= 1


def test_what_is_not_finite_names_seed_and_step():
    world = small_world(predict_end=False)
    env, vector = make(world), DreamVectorEnv(3, world, random_starts(), task=Task())
    env.reset(seed=11)
    vector.reset(seed=11)
    env.step(random_actions())
    with torch.no_grad():
        world.memory.reward_head.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="after step 2 of the episode with seed 11"):
        env.step(random_actions())
    with pytest.raises(
        FloatingPointError, match=r"lane 0 .* after step 1 of the episode with seed"
    ):
        vector.step(random_actions(3))
    bad = DreamStarts(*(torch.full_like(f, torch.inf) for f in vars(random_starts()).values()))
    with pytest.raises(FloatingPointError, match="after step 0 of the episode with seed 2"):
        DreamEnv(world, bad, task=Task()).reset(seed=2)


def test_wrong_use_is_explained():
    env, vector = make(), DreamVectorEnv(2, small_world(), random_starts(), task=Task())
    for never_reset in (env, vector):
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\)"):
            never_reset.step(never_reset.action_space.sample())
    env.reset()
    vector.reset()
    for action, got in (
        ([0.0, 0.5], r"of shape \(1, 2\)"),
        ([0.0, 0.5, np.nan], r"action\[0, 2\] is nan"),
        ([0.0, -np.inf, 0.0], r"action\[0, 1\] is -inf"),
    ):
        with pytest.raises(ValueError, match=rf"{got}; needed are 3 finite numbers between"):
            env.step(action)
    with pytest.raises(ValueError, match=r"action\[1, 0\] is nan"):
        vector.step(np.array([[0, 0, 0], [np.nan, 0, 0]], np.float32))
    with pytest.raises(ValueError, match=r"actions are \(3,\), needed \(2, 3\)"):
        vector.step(random_actions())
    with pytest.raises(ValueError, match="3 seeds for 2 environments"):
        vector.reset(seed=[1, 2, 3])
    for wrong, message in (
        ({"observation": "h"}, "observation is 'h'"),
        ({"render_mode": "human"}, "render_mode is 'human'"),
        ({"temperature": -1}, "temperature is -1"),
        ({"horizon": 0}, "horizon is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**wrong)
    with pytest.raises(ValueError, match="num_envs is 0"):
        DreamVectorEnv(0, small_world(), random_starts(), task=Task())
    with pytest.raises(ValueError, match="no reward head"):
        make(small_world(predict_reward=False))


def test_starts_come_from_the_model_folder_or_by_hand(folder, tmp_path):
    expected = DreamEnv(folder, DreamStarts.load(folder / STARTS_NAME)).reset(seed=1)
    assert_same(DreamEnv(folder).reset(seed=1), expected)
    (folder / STARTS_NAME).rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(FileNotFoundError, match=r"starts\.safetensors is missing.*warm_up"):
        DreamEnv(folder)
    assert_same(DreamEnv(folder, tmp_path / "elsewhere.safetensors").reset(seed=1), expected)
    with pytest.raises(ValueError, match="pass starts, a DreamStarts"):
        DreamEnv(small_world())
    (folder / STARTS_NAME).write_bytes(b"nonsense")
    with pytest.raises(DamagedFileError, match=r"starts\.safetensors"):
        DreamEnv(folder)
    with pytest.raises(ValueError, match=r"this M needs z \(N, 4\)"):
        DreamEnv(folder, DreamStarts(*(torch.zeros(3, 5) for _ in range(3)), torch.zeros(3)))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        DreamEnv(tmp_path / "nothing", random_starts())
    for nothing in ("/nope", tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=f"{nothing}: no such folder"):
            DreamEnv(nothing)
    with pytest.raises(FileNotFoundError, match=r"nothing is missing.*warm_up"):
        DreamEnv(small_world(), tmp_path / "nothing", task=Task())


def test_a_world_model_alone_does_not_tell_what_its_three_numbers_are():
    with pytest.raises(
        ValueError, match=r"pass `task`, envs\.task\.Task\(\) for CarRacing.*ActionHead"
    ):
        DreamEnv(small_world(), random_starts())
    with pytest.raises(ValueError, match="pass `task`"):
        DreamVectorEnv(2, small_world(), random_starts())
    torques = ActionHead("box", low=(-2.0,) * 3, high=(2.0,) * 3)
    env = DreamEnv(small_world(), random_starts(), task=torques)
    assert env.action_space.low.tolist() == [-2.0] * 3
    with pytest.raises(ValueError, match="the action head has 2"):
        DreamEnv(small_world(), random_starts(), task=ActionHead("raw", num=2))


def test_an_end_that_m_does_not_know_stops_the_dream():
    world = small_world()
    env, vector = make(world), DreamVectorEnv(3, world, random_starts(), task=Task())
    env.reset(seed=11)
    vector.reset(seed=11)
    with torch.no_grad():
        world.memory.end_head.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"M gave .* end .* step 1 of .* seed 11"):
        env.step(random_actions())
    with pytest.raises(FloatingPointError, match=r"M gave .* lane 0 .* step 1 of"):
        vector.step(random_actions(3))


def test_every_start_is_used():
    vector = DreamVectorEnv(400, small_world(), random_starts(), task=Task())
    obs, infos = vector.reset(seed=0)
    assert set(infos["start"]) == set(range(20))
    assert infos["episode_seed"].tolist() == list(range(400))
    np.testing.assert_array_equal(obs[:, :D], random_starts().z[infos["start"]])


def test_stable_baselines3_trains_in_it_unchanged():
    agent = PPO("MlpPolicy", make(), n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu")
    agent.learn(32)
    assert agent.num_timesteps == 32


POLE = Task("CartPole-v1", {}, Preprocess("vector", (D,)), ActionHead("discrete", num=3, first=1))


def vector_world(**changes) -> WorldModel:
    world = small_world(**changes)
    return WorldModel(VectorVision.of(torch.randn(50, D) * 2 + 1), world.memory)


def test_a_dream_has_the_spaces_of_its_task(tmp_path):
    vector_world().save_pretrained(tmp_path)
    random_starts().save(tmp_path / STARTS_NAME)
    POLE.save(tmp_path)
    env = DreamEnv(tmp_path)  # the task is read from the folder
    assert env.action_space == gymnasium.spaces.Discrete(3, start=1)
    assert env.observation_space.shape == (D + H,)
    with warnings.catch_warnings(record=True):
        check_env(env, skip_render_check=True)
    lanes = DreamVectorEnv(3, tmp_path, observation="frames")
    assert lanes.single_observation_space.shape == (D,)
    obs, _ = lanes.reset(seed=0)
    assert obs.shape == (3, D)
    assert lanes.step(lanes.action_space.sample())[1].shape == (3,)
    with pytest.raises(ValueError, match="no picture"):
        DreamEnv(tmp_path, render_mode="rgb_array")
    with pytest.raises(ValueError, match="this M takes 3 actions, Pendulum-v1 has 1"):
        box = ActionHead("box", low=(-2.0,), high=(2.0,))
        DreamEnv(tmp_path, task=Task("Pendulum-v1", {}, POLE.preprocess, box))


def test_a_discrete_action_is_dreamed_as_its_one_hot_vector():
    world = vector_world(end_chance=1e-9)
    env = DreamEnv(world, random_starts(), temperature=0.0, dropout=False, task=POLE)
    obs, info = env.reset(seed=5)
    start = random_starts().take([info["start"]])
    z, state, reward = start.z, (start.h, start.c), start.prev_reward
    for action in (1, 3, 2, 2):
        obs, paid, *_ = env.step(action)
        one_hot = torch.eye(3)[action - 1][None]
        z, out, state = world.step(z, one_hot, state, reward, temperature=0.0)
        reward = out.reward
        np.testing.assert_allclose(obs, torch.cat([z, state[0]], 1)[0], atol=1e-5)
        assert paid == pytest.approx(reward.item(), abs=1e-5)
    with pytest.raises(ValueError, match=r"whole numbers .* from 1 to 3"):
        env.step(0)
