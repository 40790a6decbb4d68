"""The dream as a VecEnv of Stable-Baselines3: against M by hand, against `Dream`, its contract."""

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor
from torch import nn

from envs.sb3 import DreamVecEnv
from envs.task import Task
from generative.vae import ConvVAEConfig
from worldmodels.actions import from_env
from worldmodels.configs import ActionHead, ControllerConfig, DreamConfig
from worldmodels.dreaming.rollout import Dream
from worldmodels.dreaming.starts import DreamStarts
from worldmodels.memory import MDNRNN, MDNRNNConfig
from worldmodels.world_model import WorldModel

torch.set_num_threads(1)
D, H = 4, 8
FULL = {
    "reward_input": True,
    "predict_reward": True,
    "predict_end": True,
    "residual": True,
    "dropout": 0.3,
    "reward_scale": 2.0,
}


def small_world(end_chance: float = 0.05, actions: int = 3, **changes) -> WorldModel:
    torch.manual_seed(0)
    memory = MDNRNN(MDNRNNConfig(D, actions, H, 3, **{**FULL, **changes}))
    if memory.end_head is not None:
        nn.init.zeros_(memory.end_head.weight)
        nn.init.constant_(memory.end_head.bias, float(np.log(end_chance / (1 - end_chance))))
    return WorldModel(ConvVAEConfig(D, (2, 3, 4, 5)).build(), memory)


def random_starts(n: int = 20) -> DreamStarts:
    g = torch.Generator().manual_seed(0)
    z, c = torch.randn(n, D, generator=g), torch.randn(n, H, generator=g)
    return DreamStarts(z, torch.rand(n, H, generator=g) - 0.5, c, torch.randn(n, generator=g))


def make(n: int = 6, world: WorldModel | None = None, **settings) -> DreamVecEnv:
    settings = {"task": Task(), **settings}
    return DreamVecEnv(n, world or small_world(), random_starts(), **settings)


def random_actions(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.uniform([-1, 0, 0], 1, size=(*shape, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "heads", [{}, {"reward_input": False, "dropout": 0.0, "residual": False, "predict_end": False}]
)
def test_a_step_is_ms(heads):
    """Without heat all of M but the end is certain: z, h and reward by M's own step, row by row."""
    world = small_world(1e-9, **heads)
    env, starts = (
        make(5, world, temperature=0, horizon=30, reward_clip=(-0.2, 0.3)),
        random_starts(),
    )
    obs = env.reset_tensors()
    rows = [(obs[i, :D] - starts.z).abs().sum(1).argmin().item() for i in range(5)]
    torch.testing.assert_close(obs, torch.cat([starts.z[rows], starts.h[rows]], 1))
    z, h, c, reward = (x[rows] for x in (starts.z, starts.h, starts.c, starts.prev_reward))
    mask = env.state_dict()["lanes"].get("mask", torch.ones(5, H))
    for actions in random_actions(4, 5):
        for i in range(5):
            with torch.no_grad():
                _, state = world.memory.step(
                    z[[i]], torch.from_numpy(actions[[i]]), (h[[i]], c[[i]]), reward[[i]]
                )
                out = world.memory.heads(state[0] * mask[i], z[[i]])
            z[i], h[i], c[i] = out.mixture.sample(temperature=0)[0], state[0][0], state[1][0]
            reward[i] = out.reward[0].clamp(-0.2, 0.3)
        step = env.step_tensors(torch.from_numpy(actions))
        torch.testing.assert_close(step.obs, torch.cat([z, h], 1), atol=1e-5, rtol=0)
        torch.testing.assert_close(step.reward, reward, atol=1e-5, rtol=0)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_z_is_drawn_from_ms_mixture(temperature):
    world, starts, lanes = small_world(dropout=0.0), random_starts(1), 4000
    env = DreamVecEnv(lanes, world, starts, temperature=temperature, task=Task())
    env.reset_tensors()
    action = torch.tensor([[0.3, 0.2, 0.1]])
    z = env.step_tensors(action.expand(lanes, 3)).final_obs[:, :D].numpy()
    with torch.no_grad():
        out, _ = world.memory.step(starts.z, action, (starts.h, starts.c), starts.prev_reward)
    log_pi = (out.mixture.log_pi / temperature).log_softmax(-1)
    log_std = out.mixture.log_std + 0.5 * np.log(temperature)
    heated = out.mixture._replace(log_pi=log_pi, log_std=log_std)
    mean, variance = heated.mean()[0].numpy(), heated.variance()[0].numpy()
    assert (np.abs(z.mean(0) - mean) < 4.5 * np.sqrt(variance / lanes)).all()
    np.testing.assert_allclose(z.var(0), variance, rtol=0.12)


def test_starts_masks_and_ends_are_drawn_as_often_as_they_should():
    env = make(4000, small_world(0.2))
    first = env.reset_tensors()
    rows = (first[:, None, :D] - random_starts().z).abs().sum(-1).argmin(1)
    assert np.bincount(rows.numpy(), minlength=20) == pytest.approx(np.full(20, 200), abs=75)
    mask = env.state_dict()["lanes"]["mask"]
    torch.testing.assert_close(mask.unique(), torch.tensor([0, 1 / 0.7]))
    assert (mask == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    step = env.step_tensors(torch.from_numpy(random_actions(4000)))
    assert step.terminated.float().mean().item() == pytest.approx(0.2, abs=0.03)
    # Lanes that go on keep their mask, the others get a new one.
    same = (env.state_dict()["lanes"]["mask"] == mask).all(1)
    assert same[~step.terminated].all()
    assert same[step.terminated].float().mean() < 0.2


@pytest.mark.parametrize(("horizon", "window"), [(12, 5), (10, 5), (3, 4)])
def test_paid_under_the_cap_is_what_a_dream_returns(horizon, window):
    """`Dream.rollout` sums stretches and cuts them; here every decision is paid for itself."""
    world = small_world(dropout=0.0, predict_end=False)
    nn.init.constant_(world.memory.reward_head.bias, 1.0)
    starts, controller = random_starts(1), ControllerConfig(D, H, 3)
    candidate = torch.randn(
        1, controller.num_parameters, generator=torch.Generator().manual_seed(1)
    )

    def dreamed(**capped) -> float:
        dream = Dream(world.memory, controller, DreamConfig(horizon, 0.0, False, **capped))
        return dream.rollout(candidate, starts, torch.Generator()).returns.item()

    free = dreamed()
    cap = 0.8 * free / horizon
    expected = dreamed(pace_cap=cap, pace_window=window)
    assert 0 < expected < 0.9 * free
    env = DreamVecEnv(
        2,
        world,
        starts,
        horizon=horizon,
        temperature=0,
        pace_cap=cap,
        pace_window=window,
        task=Task(),
    )
    obs, total = env.reset_tensors(), 0.0
    weight, bias = candidate[0, :-3].view(3, D + H), candidate[0, -3:]
    for t in range(horizon):
        y = torch.tanh(obs @ weight.t() + bias)
        step = env.step_tensors(torch.stack([y[:, 0], (y[:, 1] + 1) / 2, y[:, 2].clamp(min=0)], 1))
        obs, total = step.obs, total + step.reward[0].item()
        assert step.truncated.all() == (t == horizon - 1)
    assert total == pytest.approx(expected, abs=1e-4)


def test_seed_fixes_everything_and_state_goes_on_from_anywhere():
    def play(env, steps):
        shown = [env.step(actions)[:3] for actions in random_actions(steps, 6)]
        return [np.concatenate([np.ravel(x) for x in step]) for step in shown]

    ours, again, other = (make(horizon=4, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(ours.reset(), again.reset())
    assert not np.array_equal(ours.reset(), other.reset())
    again.reset()
    np.testing.assert_array_equal(play(ours, 9), play(again, 9))
    state = ours.state_dict()
    went_on = play(ours, 9)
    other.load_state_dict(state)
    np.testing.assert_array_equal(play(other, 9), went_on)
    ours.seed(7)
    again.seed(7)
    np.testing.assert_array_equal(ours.reset(), again.reset())
    with pytest.raises(ValueError, match="of 6 lanes, this has 2"):
        make(2).load_state_dict(state)


def test_infos_are_those_sb3_wants():
    env = make(64, small_world(0.15), horizon=6)
    env.reset()
    ages, seen = np.zeros(64, int), set()
    for actions in random_actions(20, 64):
        obs, rewards, dones, infos = env.step(actions)
        ages += 1
        assert (obs.dtype, rewards.dtype, dones.dtype) == (np.float32, np.float32, bool)
        for i, info in enumerate(infos):
            if not dones[i]:
                assert info == {}
                assert ages[i] < 6
                continue
            assert set(info) == {"terminal_observation", "TimeLimit.truncated"}
            assert info["terminal_observation"] in env.observation_space
            assert not np.array_equal(info["terminal_observation"], obs[i])
            assert not info["TimeLimit.truncated"] or ages[i] == 6
            seen.add(info["TimeLimit.truncated"])
            ages[i] = 0
    assert seen == {True, False}


def test_staggered_lanes_do_not_end_together():
    env = make(600, small_world(predict_end=False), horizon=10, stagger=True)
    env.reset()
    ends = [env.step(actions)[2].sum() for actions in random_actions(10, 600)]
    assert sum(ends) == 600
    assert max(ends) < 120


def test_learns_watched_and_evaluated_by_sb3(tmp_path):
    env = VecMonitor(make(8, horizon=5), str(tmp_path / "monitor"))
    model = PPO("MlpPolicy", env, n_steps=10, batch_size=40, n_epochs=1, device="cpu")
    watch = EvalCallback(VecMonitor(make(2, horizon=5)), eval_freq=10, verbose=0)
    model.learn(200, callback=watch)
    assert watch.last_mean_reward != -np.inf
    model.save(tmp_path / "model.zip")
    again = PPO.load(tmp_path / "model.zip", env=env, device="cpu")
    obs = env.reset()
    np.testing.assert_array_equal(again.predict(obs)[0].shape, (8, 3))
    env.close()
    mean, _ = evaluate_policy(again, VecMonitor(make(4, horizon=5)), n_eval_episodes=8)
    assert np.isfinite(mean)


@pytest.mark.nightly
def test_a_reward_of_known_size_is_learned():
    """Where M pays for steering to the right alone, PPO comes to steer to the right."""
    world = small_world(predict_end=False, dropout=0.0, reward_input=False)
    memory = world.memory
    with torch.no_grad():
        for p in memory.lstm.parameters():
            p.zero_()
        # One LSTM unit, open at all gates, holds the last steering; the reward head reads it.
        memory.lstm.bias_ih_l0[:H] = memory.lstm.bias_ih_l0[3 * H :] = 6.0
        memory.lstm.bias_ih_l0[H : 2 * H] = -6.0
        memory.lstm.weight_ih_l0[2 * H, D] = 1.0
        memory.reward_head.weight.zero_()
        memory.reward_head.weight[0, 0] = 1.0
        memory.reward_head.bias.zero_()
    env = make(64, world, horizon=8)
    model = PPO(
        "MlpPolicy",
        VecMonitor(env),
        n_steps=8,
        batch_size=128,
        learning_rate=3e-3,
        gamma=0.5,
        seed=0,
    )
    model.learn(64 * 8 * 12)
    assert model.predict(env.reset())[0][:, 0].mean() > 0.7


@pytest.mark.parametrize(
    ("head", "given"),
    [
        (ActionHead("discrete", num=3, first=2), np.array([2, 4, 3])),
        (ActionHead("box", low=(-2.0, 0.0), high=(2.0, 8.0)), [[3, 2], [0, -1], [-1.5, 9]]),
        (ActionHead("car_racing"), [[3, 2, 0.5], [-2, -1, -1], [0.5, 0.25, 2]]),
    ],
)
def test_m_reads_any_action_as_elsewhere(head, given):
    given = np.array(given)
    world = small_world(actions=head.size)
    ours, theirs = (make(3, world, task=h) for h in (head, ActionHead("raw", num=head.size)))
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    expected = theirs.step(from_env(given, head))
    for mine, other in zip(ours.step(given)[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(mine, other)
    sampled = np.stack([ours.action_space.sample() for _ in range(3)])
    assert ours.step(sampled)[0].shape == (3, D + H)


def test_what_is_wrong_is_told():
    with pytest.raises(ValueError, match="num_envs is 0"):
        make(0)
    with pytest.raises(ValueError, match="no reward head"):
        make(world=small_world(predict_reward=False))
    env = make(2)
    with pytest.raises(RuntimeError, match=r"call reset\(\)"):
        env.step(random_actions(2))
    with pytest.raises(AttributeError, match="build another one"):
        env.set_attr("horizon", 3)
    env.reset()
    with pytest.raises(ValueError, match=r"action\[1, 0\] is nan; needed are 3 finite numbers"):
        env.step(np.array([[0, 0, 0], [np.nan, 0, 0]], np.float32))
    for shape in ((2, 1), (1, 3), (2,), (3,), (3, 3)):
        with pytest.raises(ValueError, match=r"needed \(2, 3\)"):
            env.step(np.zeros(shape, np.float32))
    choices = make(2, task=ActionHead("discrete", num=3, first=1))
    choices.reset()
    for wrong in ([0, 1], [1, 4], [1.5, 2]):
        with pytest.raises(ValueError, match=r"whole numbers .* from 1 to 3"):
            choices.step(np.array(wrong))
    with pytest.raises(ValueError, match=r"actions are \(2, 1\), needed \(2,\)"):
        choices.step(np.array([[1], [2]]))


def test_what_m_gives_that_is_not_finite_names_m_and_the_decision():
    for head in ("reward_head", "end_head"):
        world = small_world()
        env = make(2, world)
        env.reset()
        env.step(random_actions(2))
        with torch.no_grad():
            getattr(world.memory, head).bias.fill_(float("nan"))
        with pytest.raises(FloatingPointError, match=r"M gave .* lane 0 .* after decision 2 of"):
            env.step(random_actions(2))


@pytest.mark.parametrize("field", ["z", "h", "c", "prev_reward"])
def test_starts_that_are_not_finite_are_refused_at_reset(field):
    starts = random_starts()
    getattr(starts, field)[7] = torch.nan
    env = DreamVecEnv(3, small_world(), starts, task=Task())
    with pytest.raises(FloatingPointError, match=f"{field} in row 7 of the starts is not finite"):
        env.reset()


def test_what_a_learner_does_to_its_rewards_and_observations_changes_no_dream():
    ours, theirs = (make(horizon=4, seed=3) for _ in range(2))
    ours.reset()
    theirs.reset()
    for actions in random_actions(9, 6):
        obs, reward, done, _ = ours.step(actions)
        expected_obs, expected_reward, expected_done, infos = theirs.step(actions)
        np.testing.assert_array_equal(obs, expected_obs)
        np.testing.assert_array_equal(reward, expected_reward)
        np.testing.assert_array_equal(done, expected_done)
        expected_obs[:], expected_reward[:], expected_done[:] = 9.0, 9.0, True
        for info in infos:
            info.get("terminal_observation", np.zeros(1))[:] = 9.0


def test_a_learners_seed_leaves_the_dreams_own_in_force():
    """Stable-Baselines3 seeds the environment when a learner with a seed is made."""
    first = {}
    for own in (3, 4):
        for learners in (1, 2):
            env = make(seed=own)
            PPO("MlpPolicy", env, seed=learners, n_steps=2, batch_size=4, device="cpu")
            first[own, learners] = env.reset().tobytes()
    assert len(set(first.values())) == 4


def test_pictures():
    env = make(3, render_mode="rgb_array")
    env.reset()
    images = env.get_images()
    assert [(image.shape, image.dtype) for image in images] == [((64, 64, 3), np.uint8)] * 3
    assert make().get_images() == [None] * 6
