"""Exploring with any actions: seeds, bounds, how long actions last, and how much is noise."""

import numpy as np
import pytest

from agents.random_actions import NoisyActions, RandomActions
from generative.training.settings import to_json
from worldmodels.configs import ActionHead

BOX = ActionHead("box", low=(-2.0, 0.0), high=(2.0, 10.0))
FIVE = ActionHead("discrete", num=5)
SEEN = np.zeros(3, np.float32)


class Fixed:
    """An agent that always gives the same action, as the environment takes it."""

    def __init__(self, action):
        self.action = action

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        return self.action, state


def play(driver, steps: int) -> np.ndarray:
    actions, state = [], None
    for _ in range(steps):
        action, state = driver.predict(SEEN, state)
        actions.append(action)
    return np.array(actions)


MAKERS = [
    lambda head, seed: RandomActions(seed, head),
    lambda head, seed: NoisyActions(Fixed(0 if head is FIVE else np.zeros(2)), seed, head, 1.0),
]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("head", [BOX, FIVE])
def test_actions_come_from_the_seed_and_are_what_m_reads(make, head):
    actions = play(make(head, 3), 500)
    assert actions.shape == (500, head.size)
    assert actions.dtype == np.float32
    if head is FIVE:
        assert set(np.unique(actions)) == {0, 1}
        assert (actions.sum(1) == 1).all()
    else:
        assert np.abs(actions).max() <= 1
    np.testing.assert_array_equal(actions, play(make(head, 3), 500))
    assert (actions != play(make(head, 4), 500)).any()


def test_another_episode_is_another_walk():
    driver = RandomActions(1, FIVE)
    assert (play(driver, 100) != play(driver, 100)).any()


def test_a_head_from_a_recording_is_the_same():
    ours, theirs = RandomActions(1, BOX), RandomActions(1, to_json(BOX))
    np.testing.assert_array_equal(play(ours, 20), play(theirs, 20))


def test_discrete_actions_last_as_long_as_promised():
    """Between 1 and 8 on a logarithmic scale; a new draw is the old action again in 1 of 5."""
    lasted = []
    for seed in range(60):
        actions = play(RandomActions(seed, FIVE, hold=8.0), 1000).argmax(1)
        changes = (np.diff(actions) != 0).mean()  # (4 / 5) / hold
        lasted.append(0.8 / changes)
    assert 0.9 < min(lasted) < 1.5
    assert 5.5 < max(lasted) < 10
    # The logarithm is uniform: its mean is that of 1 and 8.
    assert np.exp(np.log(lasted).mean()) == pytest.approx(8**0.5, rel=0.25)


def test_a_box_is_explored_to_its_bounds():
    """A standard normal clipped to [-1, 1] lies on a bound with probability 0.317."""
    on_bound = [np.abs(play(RandomActions(seed, BOX), 400)) == 1 for seed in range(40)]
    assert np.mean(on_bound) == pytest.approx(0.317, abs=0.05)


@pytest.mark.parametrize("head", [BOX, FIVE])
def test_without_noise_the_agent_acts_alone(head):
    action = 3 if head is FIVE else np.array([1.0, 7.5])
    wanted = [0, 0, 0, 1, 0] if head is FIVE else [0.5, 0.5]
    actions = play(NoisyActions(Fixed(action), 0, head, scale=0.0), 50)
    np.testing.assert_allclose(actions, np.tile(wanted, (50, 1)))


@pytest.mark.nightly
def test_the_level_is_about_the_share_of_random_actions():
    """Runs of 4 on average, begun with probability p = level / 4: share 4 p / (1 + 3 p)."""
    shares = []
    for seed in range(200):
        actions = play(NoisyActions(Fixed(0), seed, FIVE, scale=0.8), 200).argmax(1)
        shares.append((actions != 0).mean() / 0.8)  # a random action is the agent's in 1 of 5
    begin = np.linspace(0, 0.8 / 4, 1001)
    assert np.mean(shares) == pytest.approx(np.mean(4 * begin / (1 + 3 * begin)), rel=0.15)
    assert min(shares) < 0.03  # some episodes are nearly clean


def test_an_agent_that_remembers_is_told():
    class Remembers(Fixed):
        def predict(self, observation, state=None, episode_start=None, deterministic=True):
            return self.action, state or self

        def executed(self, action):
            self.told = action
            return self

    agent = Remembers(0)
    driver, state = NoisyActions(agent, 5, FIVE, scale=1.0), None
    for _ in range(40):
        action, state = driver.predict(SEEN, state)
        np.testing.assert_array_equal(agent.told, action)
