import numpy as np
import pytest

from agents.explorers import STYLES, DrivingStyle, NoisyDriver, RandomWalkDriver
from envs.car_racing import CarRacing64

FRAME = np.zeros((64, 64, 3), np.uint8)


class Straight:
    """An agent that always gives the same action, and counts its calls in its state."""

    action = np.array([0.25, 0.5, 0.0], np.float32)

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        count = len(observation) if np.ndim(observation) == 4 else None
        action = self.action if count is None else np.tile(self.action, (count, 1))
        return action, (state or 0) + 1


def actions_of(driver, steps, frame=FRAME):
    """The driver's actions over one episode, (steps, ..., 3)."""
    actions, state = [], None
    for _ in range(steps):
        action, state = driver.predict(frame, state)
        actions.append(action)
    return np.array(actions)


MAKERS = [RandomWalkDriver, lambda seed: NoisyDriver(Straight(), seed)]


@pytest.mark.parametrize("make", MAKERS)
def test_actions_come_from_the_seed_and_stay_in_bounds(make):
    actions = actions_of(make(3), 1000)
    assert actions.shape == (1000, 3)
    assert actions.dtype == np.float32
    assert CarRacing64().action_space.contains(actions[0])
    assert (actions >= [-1, 0, 0]).all()
    assert (actions <= 1).all()
    np.testing.assert_array_equal(actions, actions_of(make(3), 1000))
    assert np.abs(actions - actions_of(make(4), 1000)).max() > 0.1


@pytest.mark.parametrize("make", MAKERS)
def test_the_nth_episode_depends_on_nothing_but_the_seed_and_n(make):
    short, long = make(3), make(3)
    actions_of(short, 1)
    actions_of(long, 50)
    np.testing.assert_array_equal(actions_of(short, 20), actions_of(long, 20))


@pytest.mark.parametrize("make", MAKERS)
def test_many_environments_are_as_many_episodes(make):
    together = actions_of(make(3), 40, np.stack([FRAME] * 3))
    one_by_one = make(3)
    for n in range(3):
        np.testing.assert_array_equal(together[:, n], actions_of(one_by_one, 40))


@pytest.mark.parametrize("make", MAKERS)
def test_episode_start_begins_anew_where_it_is_true(make):
    frames = np.stack([FRAME] * 2)
    driver, undisturbed = make(3), actions_of(make(3), 30, frames)
    third = make(3)
    for _ in range(2):
        actions_of(third, 1)
    third = actions_of(third, 20)
    state = None
    for step in range(30):
        starts = np.array([False, step == 10])
        action, state = driver.predict(frames, state, starts)
        np.testing.assert_array_equal(action[0], undisturbed[step, 0])
        expected = undisturbed[step, 1] if step < 10 else third[step - 10]
        np.testing.assert_array_equal(action[1], expected)


@pytest.mark.parametrize("make", MAKERS)
def test_a_state_of_other_environments_is_refused(make):
    driver = make(0)
    _, state = driver.predict(FRAME)
    with pytest.raises(ValueError, match="state is of 1 environments and the observation of 2"):
        driver.predict(np.stack([FRAME] * 2), state)


def test_walks_have_the_mean_and_spread_of_their_style(monkeypatch):
    style = DrivingStyle(steer_std=0.2, gas=0.5, gas_std=0.1, brake=0.4, brake_std=0.05, ease=0.0)
    for name in STYLES:
        monkeypatch.setitem(STYLES, name, style)
    actions = actions_of(RandomWalkDriver(0), 40_000)
    # 2,400 seconds at 0.6 seconds' memory: about 2,000 independent values.
    np.testing.assert_allclose(actions.mean(axis=0), [0, 0.5, 0.4], atol=0.03)
    np.testing.assert_allclose(actions.std(axis=0), [0.2, 0.1, 0.05], rtol=0.1)
    steer = actions[:, 0]
    lag = 10  # 0.6 seconds at 3 environment steps each: correlation 1 / e
    correlation = np.corrcoef(steer[:-lag], steer[lag:])[0, 1]
    assert correlation == pytest.approx(np.exp(-1), abs=0.08)


def test_noise_is_absent_at_scale_0_and_differs_between_episodes():
    np.testing.assert_array_equal(
        actions_of(NoisyDriver(Straight(), 0, scale=0.0), 200), np.tile(Straight.action, (200, 1))
    )
    driver = NoisyDriver(Straight(), 0, burst_seconds=1e9)
    spreads = [actions_of(driver, 400)[:, 0].std() for _ in range(30)]
    assert min(spreads) < 0.08 < 0.25 < max(spreads)
    driver = NoisyDriver(Straight(), 0, burst_seconds=1e9)
    means = np.mean([actions_of(driver, 400).mean(axis=0) for _ in range(30)], axis=0)
    np.testing.assert_allclose(means[:2], Straight.action[:2], atol=0.03)


def test_bursts_hold_one_wrong_action_for_two_to_eight_decisions():
    driver = NoisyDriver(Straight(), 1, burst_seconds=0.5)
    actions = actions_of(driver, 2000)
    same = (actions[1:] == actions[:-1]).all(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same.astype(int), [0]])))
    lengths = edges[1::2] - edges[::2] + 1
    assert len(lengths) > 20
    assert lengths.min() >= 2
    assert set(range(2, 9)) <= set(lengths.tolist())


def test_the_agent_keeps_its_own_state():
    driver = NoisyDriver(Straight(), 0)
    state = None
    for _ in range(5):
        _, state = driver.predict(FRAME, state)
    assert state[0] == 5


def test_random_walks_show_every_speed_the_road_and_the_lawn():
    env = CarRacing64()
    env._observe = lambda: FRAME
    driver = RandomWalkDriver(0)
    speeds, on_road, returns = [], [], 0
    for episode in range(8):
        env.reset(seed=100 + episode, options={"start_tile": "random", "zoom": False})
        state, was_on_road = None, True
        for _ in range(200):
            action, state = driver.predict(FRAME, state)
            for _ in range(3):
                terminated = env.step(action)[2]
            if terminated:
                break
            speeds.append(np.hypot(*env.car.hull.linearVelocity))
            on_road.append(any(wheel.tiles for wheel in env.car.wheels))
            returns += on_road[-1] and not was_on_road
            was_on_road = on_road[-1]
    slow, fast = np.quantile(speeds, [0.1, 0.95])
    assert slow < 10
    assert fast > 50
    assert 0.15 < np.mean(on_road) < 0.9
    assert returns >= 8
