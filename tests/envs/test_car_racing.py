"""Stock CarRacing-v3 is the reference for everything here: physics to the bit, pictures nearly."""

import pickle
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pygame
import pytest
from gymnasium.envs.box2d.car_racing import CarRacing
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from envs.car_racing import CarRacing64, FastCarRacing, resize_frames
from envs.car_renderer import TrackMap

STATM = Path("/proc/self/statm")


class UndrawnCarRacing(CarRacing):
    """Stock, drawn only on request: its physics is quick."""

    drawn = False

    def _render(self, mode):
        return super()._render(mode) if self.drawn else np.zeros((96, 96, 3), np.uint8)


def car_state(env):
    """Every number of the car's bodies and wheels, printed so that each bit counts."""
    bodies = [env.car.hull, *env.car.wheels]
    numbers = [env.car.fuel_spent, env.reward, env.t, env.tile_visited_count]
    for body in bodies:
        numbers += [*body.position, body.angle, *body.linearVelocity, body.angularVelocity]
    for wheel in env.car.wheels:
        numbers += [wheel.omega, wheel.phase, wheel.gas, wheel.brake, wheel.steer]
        numbers += [wheel.joint.angle, wheel.joint.motorSpeed, len(wheel.tiles)]
    skids = [(particle.grass, particle.color, particle.poly) for particle in env.car.particles]
    return [float(number).hex() for number in numbers], skids


def follow_track(env, rng):
    """Drive along the middle of the road, looking at the track itself."""
    track = np.array(env.track)[:, 2:4]
    position = np.array(env.car.hull.position)
    nearest = np.linalg.norm(track - position, axis=1).argmin()
    ahead = track[(nearest + 4) % len(track)] - position
    error = np.arctan2(ahead[1], ahead[0]) - env.car.hull.angle - np.pi / 2
    error = (error + np.pi) % (2 * np.pi) - np.pi
    slow = np.hypot(*env.car.hull.linearVelocity) < 45
    action = [-2 * error, 0.6 * slow, 0.3 * (abs(error) > 0.5)] + rng.normal(size=3) * 0.1
    return np.clip(action, [-1, 0, 0], 1).astype(np.float32)


def wander(env, rng):
    return rng.uniform([-1, -0.2, -1], [1, 1.2, 1]).clip([-1, 0, 0], 1).astype(np.float32)


def straight_on(env, rng):
    return np.array([0, 0.3, 0], np.float32)


def press_buttons(env, rng):
    return int(rng.choice([0, 1, 2, 3, 3, 3, 4]))


# ---- physics -------------------------------------------------------------------------------


def assert_same_episode(driver, seed, **kwargs):
    """Drive stock and ours side by side, comparing every step; return the last one's info."""
    stock, ours = UndrawnCarRacing(**kwargs), FastCarRacing(**kwargs)
    ours._observe = lambda: None
    assert ours.action_space == stock.action_space
    stock.reset(seed=seed)
    ours.reset(seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(1500):
        assert car_state(ours) == car_state(stock)
        action = driver(stock, rng)
        expected, result = stock.step(action), ours.step(action)
        assert result[1:] == expected[1:]
        if expected[2]:
            break
    # Tiles that the car has touched have changed colour.
    expected_colors = [np.array(color) for _, color in stock.road_poly]
    assert all(map(np.array_equal, (color for _, color in ours.road_poly), expected_colors))
    return expected[4]


def nightly(*case):
    """What the other cases show too."""
    return pytest.param(*case, marks=pytest.mark.nightly)


@pytest.mark.parametrize(
    ("driver", "seed", "kwargs", "info"),
    [
        (follow_track, 1, {}, {"lap_finished": True}),
        nightly(follow_track, 1, {"lap_complete_percent": 0.5}, {"lap_finished": True}),
        nightly(wander, 3, {}, {}),
        (wander, 4, {"domain_randomize": True}, {}),
        (straight_on, 5, {}, {"lap_finished": False}),
        (press_buttons, 6, {"continuous": False}, {}),
    ],
)
def test_every_bit_of_an_episode_is_stocks(driver, seed, kwargs, info):
    assert assert_same_episode(driver, seed, **kwargs) == info


@pytest.mark.slow
def test_every_bit_of_100_episodes_is_stocks():
    for seed in range(100, 200):
        assert_same_episode((follow_track, follow_track, wander, straight_on)[seed % 4], seed)


def test_episodes_that_follow_a_seed_are_stocks():
    stock, ours = UndrawnCarRacing(), CarRacing64()
    ours.reset(seed=3, options={"start_tile": 40, "zoom": False})
    stock.reset(seed=3)
    for _ in range(2):
        stock.reset()
        ours.reset()
        assert ours.track == stock.track
        assert car_state(ours) == car_state(stock)


def test_lap_complete_percent_decides_when_the_lap_is_done():
    """Two thirds of the track and the finishing line: done at 0.5, not at 0.95."""
    for percent, done in ((0.5, True), (0.95, False)):
        env = CarRacing64(lap_complete_percent=percent)
        env.reset(seed=1, options={"start_tile": 100})
        rng = np.random.default_rng(0)
        for _ in range(1500):
            terminated = env.step(follow_track(env, rng))[2]
            if terminated or env.road[0].road_visited:
                break
        assert terminated is done
        assert 0.5 < env.tile_visited_count / len(env.track) < 0.95


# ---- pictures ------------------------------------------------------------------------------


def drive_both(make, seed, steps, every, **kwargs):
    """Yield (step, stock's 96x96 picture, ours) along a drive that also leaves the road."""
    stock, ours = UndrawnCarRacing(**kwargs), make(**kwargs)
    stock.reset(seed=seed)
    ours.reset(seed=seed)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        action = follow_track(stock, rng) if step % 200 < 150 else wander(stock, rng)
        stock.drawn = step % every == 0
        picture, observation = stock.step(action)[0], ours.step(action)[0]
        if stock.drawn:
            yield step, picture, observation


@pytest.mark.parametrize("kwargs", [{}, {"domain_randomize": True}])
def test_64x64_picture_differs_from_stock_by_less_than_half_a_level(kwargs):
    zooming, driving = [], []
    for step, picture, observation in drive_both(CarRacing64, 1, 640, 9, **kwargs):
        assert observation.shape == (64, 64, 3)
        assert observation.dtype == np.uint8
        difference = observation.astype(int) - resize_frames(picture)
        (zooming if step < 50 else driving).append(difference)
    assert np.abs(driving).mean() < 0.5
    assert abs(np.mean(driving)) < 0.1  # no shift in brightness
    assert np.abs(driving).mean(axis=(1, 2, 3)).max() < 1
    assert np.abs(zooming).mean() < 1
    # Nothing is misplaced: where it differs, it is a share of a pixel along an edge.
    assert (np.abs(driving) > 40).mean() < 1e-3


def test_96x96_picture_and_status_bar_differ_from_stock_by_little():
    views, bars = [], []
    for step, picture, observation in drive_both(FastCarRacing, 2, 400, 9):
        assert observation.shape == (96, 96, 3)
        assert observation.dtype == np.uint8
        difference = np.abs(observation.astype(int) - picture)
        if step >= 50:
            views.append(difference[:84].mean())
        bars.append(difference[84:].mean())
    assert np.mean(views) < 0.5
    assert max(bars) < 0.5


def test_car_is_where_stock_draws_it():
    """Our red must lie on stock's red: the car is too small to matter in a mean."""
    for step, picture, observation in drive_both(FastCarRacing, 3, 160, 30):
        if step >= 60:
            car = (slice(64, 80), slice(42, 54))
            theirs, mine = picture[car].astype(int), observation[car].astype(int)
            assert np.abs(theirs - mine).mean() < 5
            assert (mine[..., 0] - mine[..., 1] > 90).sum() >= 8


def test_black_beyond_the_playfield():
    env, rng = CarRacing64(), np.random.default_rng(0)
    env.reset(seed=5, options={"zoom": False})
    for _ in range(500):
        observation, _, terminated, _, _ = env.step(straight_on(env, rng))
        if terminated:
            break
    assert terminated
    assert (observation[0] == 0).all()
    assert observation[60].any()  # the lawn behind the edge


def test_rgb_array_is_stocks_to_the_pixel():
    stock, ours = CarRacing(render_mode="rgb_array"), CarRacing64(render_mode="rgb_array")
    for env in (stock, ours):
        env._observe = lambda: None
        env.reset(seed=4)
    stock._render, render = lambda mode: None, stock._render
    rng = np.random.default_rng(0)
    for _ in range(120):  # long enough to skid
        action = wander(stock, rng)
        stock.step(action)
        ours.step(action)
    np.testing.assert_array_equal(ours.render(), render("rgb_array"))


def test_a_repainted_map_keeps_nothing_of_earlier_tracks():
    env = CarRacing64()
    for seed in range(5):
        env.reset(seed=seed)
    fresh = TrackMap()
    fresh.paint(env.road_poly, env.bg_color, env.grass_color)
    np.testing.assert_array_equal(env._map.labels, fresh.labels)


def test_randomize_option_keeps_or_changes_the_colours():
    stock, ours = CarRacing(domain_randomize=True), CarRacing64(domain_randomize=True)
    for options in (None, {"randomize": False}, {"randomize": True}):
        seed = 1 if options is None else None
        picture, _ = stock.reset(seed=seed, options=options)
        observation, _ = ours.reset(seed=seed, options=options)
        np.testing.assert_array_equal(ours.bg_color, stock.bg_color)
        assert np.abs(observation.astype(int) - resize_frames(picture)).mean() < 1


# ---- determinism, starting places, upkeep ---------------------------------------------------


def test_same_seed_same_pictures():
    first, second = CarRacing64(), CarRacing64()
    second.reset(seed=9)  # a history must not matter
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(first.reset(seed=8)[0], second.reset(seed=8)[0])
    for _ in range(100):
        action = wander(first, rng)
        np.testing.assert_array_equal(first.step(action)[0], second.step(action)[0])


def test_start_anywhere():
    env = CarRacing64()
    env.reset(seed=1, options={"start_tile": 57, "zoom": False})
    beta, x, y = env.track[57][1:4]
    np.testing.assert_allclose(env.car.hull.position, (x, y), atol=0.1)
    assert env.car.hull.angle == pytest.approx(beta, abs=1e-4)
    assert np.hypot(*env.car.hull.linearVelocity) < 0.1  # set down, not thrown
    visited = {tile.idx for tile in env.road if tile.road_visited}
    assert visited
    assert visited <= set(range(54, 61))
    assert env.tile_visited_count == len(visited)
    assert env.t > 1

    starts = []
    for _ in range(2):
        env.reset(seed=1, options={"start_tile": "random"})
        starts.append(tuple(env.car.hull.position))
    assert starts[0] == starts[1]
    assert starts[0] != pytest.approx(env.track[0][2:4], abs=1)

    env.reset(seed=1, options={"start_tile": len(env.track) + 57})
    np.testing.assert_allclose(env.car.hull.position, (x, y), atol=0.1)
    with pytest.raises(ValueError, match="start_tile is 'somewhere'"):
        env.reset(options={"start_tile": "somewhere"})
    env.reset()  # the error has broken nothing


def test_no_window_and_no_font_loaded_per_frame(monkeypatch):
    loaded = []
    font = pygame.font.Font
    monkeypatch.setattr(pygame.font, "Font", lambda *args: loaded.append(args) or font(*args))
    env = FastCarRacing()
    env.reset(seed=1)
    for _ in range(60):
        env.step(np.array([0, 1, 0], np.float32))
    assert pygame.display.get_surface() is None
    assert len(loaded) <= 1
    pygame.quit()  # as another environment's close() does: the score must survive it
    env.reset(seed=2)
    for _ in range(30):
        env.step(np.array([0, 1, 0], np.float32))


@pytest.mark.skipif(not STATM.exists(), reason="reads Linux's account of memory")
@pytest.mark.parametrize(
    "times", [50, *(pytest.param(n, marks=pytest.mark.nightly) for n in (100, 200))]
)
def test_resets_do_not_leak(times):
    env = CarRacing64()

    def bytes_after_resets(times):
        for _ in range(times):
            env.reset()
        return int(STATM.read_text().split()[1]) * resource.getpagesize()

    # A leak grows with every block of resets; what else the process does, only in some.
    sizes = [bytes_after_resets(60), *(bytes_after_resets(times) for _ in range(4))]
    grown = min(np.diff(sizes))
    assert grown < 1500 * times  # stock's own leak is 2,400 bytes a reset


def test_pickled_environment_is_the_same():
    env = pickle.loads(pickle.dumps(CarRacing64(continuous=False, lap_complete_percent=0.7)))
    assert env.action_space == gymnasium.spaces.Discrete(5)
    assert env.lap_complete_percent == 0.7
    assert env.reset(seed=1)[0].shape == (64, 64, 3)


# ---- resize_frames --------------------------------------------------------------------------


def test_resize_frames_is_the_area_average():
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 96, 96, 3), dtype=np.uint8)
    frames[0, 0] = 255
    # Cut every pixel into 16 x 2, so that output pixels are whole blocks of 21 x 3.
    fine = frames[..., :84, :, :].repeat(16, axis=-3).repeat(2, axis=-2).astype(np.float64)
    expected = np.rint(fine.reshape(2, 3, 64, 21, 64, 3, 3).mean(axis=(3, 5)))
    np.testing.assert_array_equal(resize_frames(frames), expected)
    assert resize_frames(frames).dtype == np.uint8
    np.testing.assert_array_equal(resize_frames(frames[1, 2]), expected[1, 2])


@pytest.mark.parametrize(
    "frames", [np.zeros((64, 64, 3), np.uint8), np.zeros((96, 96, 3), np.float32)]
)
def test_resize_frames_says_what_it_needs(frames):
    with pytest.raises(ValueError, match="needs uint8"):
        resize_frames(frames)


# ---- registration and checkers ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"),
    [("WorldModels/CarRacing64-v0", (64, 64, 3)), ("WorldModels/FastCarRacing-v0", (96, 96, 3))],
)
@pytest.mark.filterwarnings("error")
def test_made_by_name(name, shape):
    env = gymnasium.make(f"envs:{name}", continuous=False)
    assert env.observation_space == gymnasium.spaces.Box(0, 255, shape, np.uint8)
    assert env.spec.max_episode_steps == 1000
    env.reset(seed=1)
    for _ in range(999):
        assert env.step(0)[2:4] == (False, False)
    assert env.step(0)[2:4] == (False, True)


def test_the_id_names_what_to_import():
    code = "import gymnasium; print(gymnasium.make('envs:WorldModels/CarRacing64-v0').unwrapped)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd="/")
    assert b"CarRacing64" in result.stdout


def test_vector_of_processes_sees_the_same():
    actions = np.tile(np.array([0.1, 0.5, 0], np.float32), (2, 1))
    seen = []
    for mode in ("sync", "async"):
        envs = gymnasium.make_vec("envs:WorldModels/CarRacing64-v0", 2, vectorization_mode=mode)
        envs.reset(seed=1)
        seen.append([envs.step(actions)[:2] for _ in range(20)][-1])
        envs.close()
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    np.testing.assert_array_equal(seen[0][1], seen[1][1])


def test_registering_imports_nothing_heavy():
    code = (
        "import sys, envs; envs.register_envs(); "
        "sys.exit(str({'Box2D', 'pygame', 'numba', 'torch', 'envs.dream'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert result.stderr.decode().strip() == "set()"


@pytest.mark.parametrize("make", [CarRacing64, FastCarRacing])
@pytest.mark.parametrize("kwargs", [{}, {"continuous": False}])
def test_both_checkers_pass(make, kwargs, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # one of them tries the render modes
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        name = {CarRacing64: "CarRacing64-v0", FastCarRacing: "FastCarRacing-v0"}[make]
        check_env(gymnasium.make(f"envs:WorldModels/{name}", **kwargs).unwrapped)
        check_env_for_sb3(make(**kwargs))
    told = [str(warning.message) for warning in caught]
    told = [message for message in told if "has no __module__ attribute" not in message]  # Box2D's
    if kwargs:
        assert told == []
    else:  # gas and brake go from 0 to 1, as in stock
        assert len(told) == 1
        assert "symmetric and normalized Box action space" in told[0]


@pytest.mark.parametrize("make", [CarRacing64, FastCarRacing])
@pytest.mark.parametrize(
    ("action", "told"),
    [
        ([0, np.nan, 0], r"action\[1\] is nan"),
        ([-np.inf, 0, 0], r"action\[0\] is -inf"),
        ([0, 0, np.nan], r"action\[2\] is nan"),
    ],
)
def test_actions_that_are_not_finite_are_refused(make, action, told):
    """Two of them were a finished lap: every tile counted as visited."""
    env = make()
    env.reset(seed=1)
    with pytest.raises(ValueError, match=told):
        env.step(np.array(action, np.float32))
    _, reward, terminated, _, info = env.step(np.array([0, 0.5, 0], np.float32))
    assert reward < 30
    assert not terminated
    assert not info
