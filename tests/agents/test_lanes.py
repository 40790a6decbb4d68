"""Episodes side by side against one after another."""

import gymnasium
import numpy as np
import pytest

from agents.collect import NotFiniteError
from agents.evaluation import evaluate
from agents.lanes import LANES, play_in_lanes


class Balances:
    """Pushes the cart to where the pole leans; counts its calls in each lane."""

    def predict(self, obs, state=None, episode_start=None, deterministic=True):
        lean = obs[..., 2] + 0.3 * obs[..., 3]
        count = np.zeros(len(obs)) if state is None else np.where(episode_start, 0, state)
        tired = count > 40  # so that episodes end at different times
        return np.where(tired, 0, lean > 0).astype(np.int64), count + 1


def alone(seed: int) -> tuple[float, int]:
    env, score, state, start = gymnasium.make("CartPole-v1"), 0.0, None, np.array([True])
    obs, _ = env.reset(seed=seed)
    while True:
        action, state = Balances().predict(obs[None], state, start)
        obs, reward, terminated, truncated, _ = env.step(int(action[0]))
        score, start = score + float(reward), np.array([False])
        if terminated or truncated:
            return score, int(score)


@pytest.mark.parametrize("count", [1, LANES, LANES + 3])
def test_every_seed_has_the_episode_it_has_alone(count):
    seeds = range(50, 50 + count)
    assert play_in_lanes(Balances(), "CartPole-v1", {}, seeds) == [alone(seed) for seed in seeds]


def test_the_number_of_lanes_is_always_the_same():
    shapes = []

    class Counts(Balances):
        def predict(self, obs, *args, **kwargs):
            shapes.append(obs.shape)
            return super().predict(obs, *args, **kwargs)

    play_in_lanes(Counts(), "CartPole-v1", {}, [1, 2])
    assert set(shapes) == {(LANES, 4)}


def test_the_time_limit_counts():
    assert play_in_lanes(Balances(), "CartPole-v1", {"max_episode_steps": 7}, [3]) == [(7.0, 7)]


def test_what_is_not_finite_is_told_with_its_seed():
    class Broken:
        def predict(self, obs, state=None, episode_start=None, deterministic=True):
            return np.full((len(obs), 1), np.nan), None

    with pytest.raises(NotFiniteError, match=r"Pendulum-v1, seed 4: .* not finite at step 1"):
        play_in_lanes(Broken(), "Pendulum-v1", {}, [4])


def test_agents_without_a_task_are_driven_one_by_one():
    class Single:
        def predict(self, obs, state=None, episode_start=None, deterministic=True):
            assert obs.shape == (4,)
            return 0, None

    result = evaluate(Single(), [1, 2], env_id="CartPole-v1")
    assert [track.seed for track in result.tracks] == [1, 2]
