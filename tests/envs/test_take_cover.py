"""TakeCover64: ViZDoom's own Gymnasium wrapper is the reference for pixels, rewards and ends."""

import copy
import pickle
import subprocess
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import envs  # noqa: F401  registers the environment
from envs import take_cover
from envs.take_cover import TakeCover64, cut_strip

needs_vizdoom = pytest.mark.skipif(
    find_spec("vizdoom") is None,
    reason="vizdoom is not installed (the extra `doom`)",
)
LEFT, STAY, RIGHT = (np.array([a], np.float32) for a in (-1, 0, 1))


@pytest.fixture
def env():
    env = TakeCover64()
    yield env
    env.close()


def play(env, seed, actions):
    """Frames, rewards and ends of an episode, up to its end or that of the actions."""
    frames, rewards, ends = [env.reset(seed=seed)[0]], [], []
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        frames.append(obs)
        rewards.append(reward)
        ends.append((terminated, truncated))
        if terminated or truncated:
            break
    return np.stack(frames), rewards, ends


def random_actions(seed, n=600):
    rng = np.random.default_rng(seed)
    return np.repeat(rng.uniform(-1, 1, (n // 10, 1)), 10, axis=0).astype(np.float32)


def test_a_frame_is_made_of_means_over_areas():
    picture = np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8)
    frame = cut_strip(picture)
    assert frame.shape == (64, 64, 3)
    assert frame.dtype == np.uint8
    for row, column, channel in np.random.default_rng(2).integers(0, (64, 64, 3), (200, 3)):
        area = picture[88 + row, 5 * column : 5 * column + 5, channel]
        assert frame[row, column, channel] == round(sum(map(int, area)) / 5)


@needs_vizdoom
def test_is_what_vizdooms_own_wrapper_plays(env, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the wrapper leaves files behind
    import vizdoom.gymnasium_wrapper  # noqa: F401  registers the reference

    reference = gymnasium.make("VizdoomTakeCover-v1", disable_env_checker=True)
    actions = random_actions(seed=3)
    frames, rewards, ends = play(env, 11, actions)
    seen, _ = reference.reset(seed=11)
    assert (cut_strip(seen["screen"]) == frames[0]).all()
    for t, reward in enumerate(rewards):
        # 0: stay, 1: right, 2: left, as its space of button combinations has them.
        chosen = 2 if actions[t] < -1 / 3 else 1 if actions[t] > 1 / 3 else 0
        seen, paid, terminated, truncated, _ = reference.step(chosen)
        assert (reward, ends[t]) == (paid, (terminated, truncated))
        if not terminated:
            assert (cut_strip(seen["screen"]) == frames[t + 1]).all(), t
    reference.close()
    assert ends[-1] == (True, False)
    assert (frames[-1] == frames[-2]).all()  # nothing is seen after death


@needs_vizdoom
def test_passes_both_checkers(recwarn):
    env = gymnasium.make("envs:WorldModels/TakeCover64-v0", render_mode="rgb_array")
    check_env(env.unwrapped)
    check_env_for_sb3(env)
    assert [str(warning.message) for warning in recwarn] == []
    env.close()


@needs_vizdoom
@pytest.mark.parametrize(
    ("action", "direction"), [(-1, -1), (-0.34, -1), (-0.33, 0), (0, 0), (0.33, 0), (0.34, 1)]
)
def test_an_action_is_cut_at_a_third(env, action, direction):
    from vizdoom import GameVariable

    def moved(action):
        env.reset(seed=1)
        for _ in range(24):  # he gathers speed slowly
            env.step(np.array([action], np.float32))
        names = (GameVariable.POSITION_X, GameVariable.POSITION_Y)
        return np.array([env._game.get_game_variable(name) for name in names])

    stayed, right = moved(0), moved(1) - moved(0)
    assert np.linalg.norm(right) > 20
    assert (moved(action) - stayed) @ right / (right @ right) == pytest.approx(direction, abs=0.05)


@needs_vizdoom
def test_a_seed_fixes_the_episode_whatever_was_played_before(env):
    actions = random_actions(seed=5)
    first = play(env, 21, actions)
    play(env, 22, actions[:50])
    other = TakeCover64()
    for again in (play(env, 21, actions), play(other, 21, actions)):
        assert (again[0] == first[0]).all()
        assert again[1:] == first[1:]
    other.close()
    # Without a seed the next episode is another one.
    env.reset(seed=21)
    another = play(env, None, actions)[0]
    length = min(len(another), len(first[0]))
    assert (another[:length] != first[0][:length]).any()


@needs_vizdoom
def test_environments_side_by_side_do_not_disturb_each_other(env):
    other = TakeCover64()
    alone = play(env, 31, [STAY] * 40)[0]
    env.reset(seed=31)
    other.reset(seed=32)
    for t in range(40):
        other.step(LEFT)
        assert (env.step(STAY)[0] == alone[t + 1]).all()
    other.close()


@needs_vizdoom
def test_an_episode_is_truncated_after_its_tics(env, monkeypatch):
    monkeypatch.setattr(take_cover, "MAX_TICS", 25)
    _, rewards, ends = play(env, 1, [STAY] * 30)
    assert rewards == [1.0] * 25
    assert ends == [(False, False)] * 24 + [(False, True)]


@needs_vizdoom
def test_a_closed_environment_leaves_its_engine_to_the_next_one(monkeypatch):
    monkeypatch.setattr(take_cover, "_idle_engines", defaultdict(list))
    first = TakeCover64()
    first.close()
    first.close()  # twice does no harm
    second, third = TakeCover64(), TakeCover64()
    assert second._game is not third._game
    for env in (second, third):
        env._game.close()


@needs_vizdoom
def test_says_what_it_needs(env):
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        TakeCover64.step(env, STAY)
    env.reset(seed=1)
    for wrong in (0.0, np.zeros(2, np.float32), np.array([np.nan])):
        with pytest.raises(ValueError, match="one finite number"):
            env.step(wrong)
    while not env.step(STAY)[2]:
        pass
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(STAY)


@needs_vizdoom
def test_is_rendered_copied_and_pickled():
    env = TakeCover64(render_mode="rgb_array", skill=5)
    frame, _ = env.reset(seed=1)
    picture = env.render()
    assert picture is not None
    assert picture.shape == (240, 320, 3)
    assert (cut_strip(picture) == frame).all()
    for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert (twin.reset(seed=1)[0] == frame).all()
        assert twin.render_mode == "rgb_array"
        twin.close()
    env.close()


@needs_vizdoom
def test_leaves_no_files_and_makes_no_sound(tmp_path):
    program = (
        "import gymnasium as g; e = g.make('envs:WorldModels/TakeCover64-v0'); e.reset(seed=1);"
        "[e.step(e.action_space.sample()) for _ in range(20)]; e.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize(("kwargs", "what"), [({"skill": 6}, "skill"), ({"render_mode": "x"}, "r")])
def test_refuses_settings_there_are_not(kwargs, what):
    with pytest.raises(ValueError, match=what):
        TakeCover64(**kwargs)


def test_without_vizdoom_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(take_cover, "_idle_engines", defaultdict(list))
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(
        gymnasium.error.DependencyNotInstalled, match=r"pip install .*vizdoom.*extra doom"
    ):
        gymnasium.make("WorldModels/TakeCover64-v0")
