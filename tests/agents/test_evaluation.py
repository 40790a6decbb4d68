"""Scores with known answers, and the same scores whatever drives them."""

import dataclasses
import math
import statistics
import time

import gymnasium
import numpy as np
import pytest
import torch

from agents.collect import EpisodeError
from agents.evaluation import (
    EVALUATION_SEEDS,
    SELECTION_SEEDS,
    EpisodeScore,
    Evaluation,
    TrainingFacts,
    bootstrap_interval,
    evaluate,
    evaluate_many,
    run_episode,
    undrawn,
)
from agents.world_model_agent import AgentConfig, WorldModelAgent
from envs.car_racing import FastCarRacing
from generative.training.parallel import WorkerDiedError
from generative.vae import ConvVAEConfig
from worldmodels.controller import ControllerConfig, LinearController
from worldmodels.memory import MDNRNN, MDNRNNConfig
from worldmodels.world_model import WorldModel

FAST = "WorldModels/FastCarRacing-v0"

pytestmark = pytest.mark.usefixtures("warm_workers")


class Counter(gymnasium.Env):
    """Pays seed + action at each of 4 steps; at step `bad` something goes wrong."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, bad=None, what="reward"):
        self.bad, self.what = bad, what

    def reset(self, *, seed=None, options=None):
        self.seed, self.steps = seed, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        poison = np.nan if self.steps == self.bad else 0.0
        obs = np.full(1, self.steps + (poison if self.what == "observation" else 0), np.float32)
        reward = self.seed + float(action[0]) + (poison if self.what == "reward" else 0)
        if self.steps == self.bad and self.what == "shape":
            obs = np.zeros((2, 2), np.float32)
        if self.steps == self.bad and self.what == "nothing":
            obs = None
        if self.steps == self.bad and self.what == "exception":
            raise ZeroDivisionError("the axle broke")
        return obs, reward, self.steps == 4, False, {"lap_finished": self.steps == 4}


gymnasium.register("Counter-v0", Counter)


class Echo:
    """Acts by the number of steps it has seen; counts its episodes."""

    def __init__(self):
        self.starts = 0

    def predict(self, obs, state=None, episode_start=None, deterministic=False):
        assert deterministic
        assert (state is None) == bool(episode_start)
        self.starts += bool(episode_start)
        return obs / 10, "remembered"


class Dice:
    """Acts by torch's global generator; asserts that it is asked to."""

    def predict(self, obs, state=None, episode_start=None, deterministic=True):
        assert not deterministic
        return torch.rand(1).numpy(), state


class Stuck:
    """Never answers."""

    def predict(self, obs, state=None, episode_start=None, deterministic=True):
        time.sleep(1000)


def test_an_episode_that_hangs_is_named():
    with pytest.raises(WorkerDiedError, match=r"no answer within the 1 s\) .*Counter-v0, seed 5"):
        evaluate(Stuck(), [5], env_id=f"{__name__}:Counter-v0", workers=1, deadline=1.0)


def test_drawn_actions_follow_from_the_seed_of_the_episode():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    alone, reversed_order, in_a_worker = (
        evaluate(Dice(), seeds, env_id=f"{__name__}:Counter-v0", workers=workers, sampled=True)
        for seeds, workers in (([5, 2, 9], 0), ([9, 2, 5], 0), ([5, 2, 9], 1))
    )
    expected = []
    for seed in (5, 2, 9):
        torch.manual_seed(seed)
        expected.append(4 * seed + sum(float(torch.rand(1)) for _ in range(4)))
    torch.set_rng_state(before)
    assert alone.scores.tolist() == pytest.approx(expected)
    assert in_a_worker.scores.tolist() == alone.scores.tolist()
    assert reversed_order.scores.tolist() == alone.scores.tolist()[::-1]


def tiny_agent(gas=1.0):
    torch.manual_seed(1)
    world = WorldModel(
        ConvVAEConfig(latent_dim=4, channels=(2, 2, 4, 4)).build(),
        MDNRNN(MDNRNNConfig(latent_dim=4, hidden_dim=8)),
    )
    controller = LinearController(ControllerConfig(latent_dim=4, hidden_dim=8))
    controller.load_vector(0.1 * torch.randn(controller.config.num_parameters))
    controller.linear.bias.data[1] = gas
    return WorldModelAgent(world, controller, AgentConfig(action_repeat=3))


def test_known_scores():
    agent = Echo()
    result = evaluate(agent, [5, 2, 9], env_id="Counter-v0")
    # Rewards seed + (0 + 1 + 2 + 3) / 10 over four steps.
    assert [t.score for t in result.tracks] == pytest.approx([20.6, 8.6, 36.6])
    assert [t.seed for t in result.tracks] == [5, 2, 9]
    assert all(t.length == 4 and t.tiles is None and t.lap_finished for t in result.tracks)
    assert agent.starts == 3
    scores = [20.6, 8.6, 36.6]
    assert result.mean == pytest.approx(statistics.mean(scores))
    assert result.std == pytest.approx(statistics.pstdev(scores))  # divided by n
    summary = result.to_json()
    assert summary["real_median"] == pytest.approx(20.6)
    assert (summary["real_min"], summary["real_max"]) == pytest.approx((8.6, 36.6))
    assert (summary["episodes"], summary["laps_finished"]) == (3, 3)


def test_evaluation_survives_json():
    result = evaluate(Echo(), [1, 2], env_id="Counter-v0")
    assert Evaluation.from_json(result.to_json()) == result
    with pytest.raises(ValueError, match="tracks"):
        Evaluation.from_json({"env_id": "x"})


def test_bootstrap_against_a_loop_and_the_normal_interval():
    rng = np.random.default_rng(3)
    scores = rng.normal(500, 200, size=100)
    low, high = bootstrap_interval(scores)
    half = 1.984 * scores.std(ddof=1) / 10  # Student's t of 99 degrees of freedom
    assert low == pytest.approx(scores.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(scores.mean() + half, abs=0.1 * half)
    few, again = [2.0, 3.0, 7.0, 30.0], np.random.default_rng(0)
    mean, std, found = statistics.mean(few), statistics.stdev(few), []
    for row in again.integers(4, size=(10_000, 4)):
        drawn = [few[i] for i in row]
        found.append((statistics.mean(drawn) - mean) / max(statistics.stdev(drawn), 0.3 * std))
    low, high = np.percentile(found, [2.5, 97.5])
    assert bootstrap_interval(few) == pytest.approx((mean - high * std, mean - low * std))
    assert bootstrap_interval([4.0, 4.0]) == (4.0, 4.0)
    assert bootstrap_interval([4.0]) == (4.0, 4.0)
    with pytest.raises(ValueError, match=r"\(N,\)"):
        bootstrap_interval([])


@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (lambda rng, size: 900 - rng.exponential(200, size), 700.0),
        (lambda rng, size: rng.normal(700, 200, size), 700.0),
    ],
    ids=["left-skewed", "normal"],
)
def test_the_interval_covers_the_mean_in_95_of_100_cases(draw, mean):
    """20 scores each. 93.5 to 96.5 %, and a deviation of 0.7 % by chance in 1,000 cases."""
    samples = draw(np.random.default_rng(11), (1000, 20))
    covered = [
        low <= mean <= high for low, high in (bootstrap_interval(x, resamples=500) for x in samples)
    ]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_the_interval_of_scores_of_two_values():
    """A quarter of the episodes fails; the number of failures among 20 is binomial."""
    covered = 0.0
    for failures in range(21):
        low, high = bootstrap_interval([100.0] * failures + [900.0] * (20 - failures))
        chance = math.comb(20, failures) * 0.25**failures * 0.75 ** (20 - failures)
        covered += chance * (low <= 700 <= high)
    assert 0.935 <= covered <= 0.965


def test_seeds_for_choosing_and_reporting_are_apart():
    assert not set(EVALUATION_SEEDS) & set(SELECTION_SEEDS)
    assert list(EVALUATION_SEEDS) == list(range(1_000_000, 1_000_100))


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_not_finite_stops_with_seed_and_step(what):
    with pytest.raises(EpisodeError, match=rf"Counter-v0, seed 7: {what} at step 3"):
        evaluate(Echo(), [7], env_id="Counter-v0", env_kwargs={"bad": 3, "what": what})


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("shape", EpisodeError, r"seed 7: observation at step 3 is of shape \(2, 2\); .* \(1,\)"),
        ("nothing", EpisodeError, r"seed 7: observation at step 3 is None; .* \(1,\)"),
        ("exception", ZeroDivisionError, "the axle broke"),
    ],
)
def test_an_environment_that_goes_wrong_is_named_with_seed_and_step(what, error, words):
    with pytest.raises(error, match=words) as caught:
        evaluate(Echo(), [7], env_id="Counter-v0", env_kwargs={"bad": 3, "what": what})
    if what == "exception":
        assert "Counter-v0, seed 7, after 2 steps" in caught.value.__notes__[0]


def test_what_is_asked_for_must_make_sense():
    with pytest.raises(ValueError, match="no seed twice"):
        evaluate(Echo(), [1, 1], env_id="Counter-v0")
    with pytest.raises(ValueError, match="at least one"):
        evaluate(Echo(), [], env_id="Counter-v0")
    with pytest.raises(ValueError, match="Missing-v0 cannot be made"):
        evaluate(Echo(), [1], env_id="Missing-v0")


def test_scores_do_not_depend_on_workers_or_order(tmp_path):
    agents = [tiny_agent(gas=3.0), tiny_agent(gas=-3.0)]
    agents[0].save_pretrained(tmp_path / "agent")
    what = {"env_id": FAST, "env_kwargs": {"max_episode_steps": 40}}
    here = evaluate_many(agents, [11, 12, 13], **what)
    spread = evaluate_many([tmp_path / "agent", agents[1]], [13, 11, 12], workers=2, **what)
    for one, other in zip(here, spread, strict=True):
        assert {t.seed: t for t in one.tracks} == {t.seed: t for t in other.tracks}
        assert [t.seed for t in other.tracks] == [13, 11, 12]
        assert other.action_repeat == 3
    assert here[0].scores.tolist() != here[1].scores.tolist()
    assert all(t.length == 40 and 0 < t.tiles < 1 for t in here[0].tracks)


def test_a_failure_in_a_worker_is_told_with_its_seed():
    agent = tiny_agent()
    agent.controller.linear.bias.data.fill_(torch.nan)
    with pytest.raises(EpisodeError, match=r"seed 4: action at step 0 is not finite"):
        evaluate(agent, [4], workers=1, env_id=FAST)


class Watched:
    """An agent that keeps the frames at which it decided."""

    def __init__(self, agent):
        self.agent, self.frames = agent, []

    def predict(self, obs, state=None, **kwargs):
        if state is None or state.countdown[0] == 0:
            self.frames.append(obs.copy())
        return self.agent.predict(obs, state, **kwargs)


@pytest.mark.parametrize("env_id", [FAST, "CarRacing-v3"])
def test_scores_and_frames_are_those_of_a_plain_loop(env_id):
    agent = Watched(tiny_agent())
    env = gymnasium.make(env_id, max_episode_steps=40)
    score = run_episode(agent, env, 3)
    seen = agent.frames.copy()
    agent.frames.clear()
    obs, _ = env.reset(seed=3)
    total, state, start, done = 0.0, None, True, False
    while not done:
        action, state = agent.predict(obs, state, episode_start=start)
        obs, reward, terminated, truncated, _ = env.step(action)
        total, start, done = total + reward, False, terminated or truncated
    tiles = env.unwrapped.tile_visited_count / len(env.unwrapped.track)
    assert score == EpisodeScore(3, total, 40, tiles, False)
    # What a tile and a step are worth in CarRacing.
    assert total == pytest.approx(1000 * tiles - 0.1 * 40)
    assert len(seen) == 14
    assert not np.array_equal(seen[0], seen[-1])
    np.testing.assert_array_equal(seen, agent.frames)
    env.close()


def test_what_is_not_looked_at_is_not_drawn(monkeypatch):
    env = gymnasium.make(FAST, max_episode_steps=40)
    drawn = []
    observe = FastCarRacing._observe
    monkeypatch.setattr(FastCarRacing, "_observe", lambda self: drawn.append(0) or observe(self))
    run_episode(tiny_agent(), env, 3)
    assert len(drawn) == 1 + 40 // 3  # by reset, then the third of every three
    env.close()
    watched = gymnasium.make(FAST, render_mode="rgb_array", max_episode_steps=40)
    watched.reset(seed=3)
    before = len(drawn)
    with undrawn(watched):
        watched.step(np.zeros(3, np.float32))
    assert len(drawn) == before + 1
    watched.close()


def test_training_facts_survive_the_disk(tmp_path):
    assert TrainingFacts.load(tmp_path) is None
    facts = TrainingFacts(48_000, 60, 12_000_000, 4012.5, seed=1)
    facts.save(tmp_path)
    assert TrainingFacts.load(tmp_path) == facts
    (tmp_path / "training.json").write_text('{"real_frames": 3}')
    with pytest.raises(ValueError, match=r"training\.json.*missing"):
        TrainingFacts.load(tmp_path)
    assert dataclasses.asdict(facts)["dream_mean"] is None
