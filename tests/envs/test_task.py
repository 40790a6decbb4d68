"""Any environment: what V sees of it and how actions reach it."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

import envs  # noqa: F401  registers this project's environments
from envs.car_racing import resize_frames
from envs.task import (
    Prepared,
    Preprocess,
    Task,
    action_head,
    action_space,
    preprocess_for,
    resize_by_area,
)
from generative.training.files import DamagedFileError
from worldmodels.actions import bounds, from_env, to_env
from worldmodels.configs import ActionHead


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


def test_the_area_under_a_pixel_is_averaged():
    images = noise(2, 128, 192, 3)
    blocks = images.reshape(2, 64, 2, 64, 3, 3).astype(float).mean(axis=(2, 4))
    np.testing.assert_allclose(resize_by_area(images, 64), blocks, rtol=1e-5)


def test_car_racing_is_cropped_and_resized_the_same():
    """By whole numbers in `resize_frames`, which has been checked on its own."""
    frames = noise(3, 96, 96, 3)
    generic = Preprocess("image", (96, 96, 3), crop=(0, 12, 0, 0))(frames)
    np.testing.assert_array_equal(generic, resize_frames(frames))
    np.testing.assert_array_equal(Preprocess()(frames), resize_frames(frames))


def test_smaller_images_grow():
    image = np.array([[0, 200], [100, 50]], np.uint8)[None]
    grown = Preprocess("image", (2, 2))(image)
    expected = np.kron(image[0], np.ones((32, 32), np.uint8))
    np.testing.assert_array_equal(grown[0], np.repeat(expected[..., None], 3, -1))


def test_grey_is_the_luma_of_the_colours():
    image = np.broadcast_to(np.array([200, 100, 50], np.uint8), (1, 64, 64, 3))
    grey = Preprocess("image", (64, 64, 3), grey=True)(image)
    assert np.unique(grey).tolist() == [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]
    assert grey.shape == (1, 64, 64, 3)


def test_numbers_become_one_float_vector():
    seen = Preprocess("vector", (2, 3))
    batch, single = seen.batch_of(np.arange(6, dtype=np.float64).reshape(2, 3))
    assert single
    assert seen(batch).dtype == np.float32
    assert seen(batch).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert not seen.batch_of(np.zeros((5, 2, 3)))[1]
    with pytest.raises(ValueError, match=r"got observations of shape \(3,\).* of shape \(2, 3\)"):
        seen.batch_of(np.zeros(3))
    with pytest.raises(ValueError, match=r"uint8 images of \(8, 8, 3\)"):
        Preprocess("image", (8, 8, 3)).batch_of(np.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match="leaves nothing"):
        Preprocess("image", (8, 8, 3), crop=(4, 4, 0, 0))


@pytest.mark.parametrize(
    ("env_id", "kwargs", "preprocess", "head"),
    [
        ("CartPole-v1", {}, Preprocess("vector", (4,)), ActionHead("discrete", num=2)),
        ("Pendulum-v1", {}, Preprocess("vector", (3,)), ActionHead("box", (-2.0,), (2.0,))),
        ("CarRacing-v3", {}, Preprocess(), ActionHead()),
        (
            "WorldModels/CarRacing64-v0",
            {"continuous": False},
            Preprocess(),
            ActionHead("discrete", num=5),
        ),
    ],
)
def test_settings_follow_from_the_spaces(tmp_path, env_id, kwargs, preprocess, head):
    task = Task.of(env_id, kwargs)
    assert (task.env_id, task.env_kwargs) == (env_id, kwargs)
    assert (task.preprocess, task.action) == (preprocess, head)
    env = gymnasium.make(env_id, **kwargs)
    assert action_space(task.action) == env.action_space
    env.close()
    task.save(tmp_path)
    assert Task.load(tmp_path) == task


def test_a_folder_without_a_task_is_of_the_car_race(tmp_path):
    Task.of("CartPole-v1").save(tmp_path)
    Task().save(tmp_path)
    assert not list(tmp_path.iterdir())
    assert Task.load(tmp_path) == Task()
    (tmp_path / "task.json").write_text('{"env_id": "X"}')
    with pytest.raises(DamagedFileError, match=r"task\.json: Task: fields do not fit"):
        Task.load(tmp_path)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.MultiDiscrete([2, 3]), r"actions MultiDiscrete\(\[2 3\]\); supported are Discrete"),
        (spaces.MultiBinary(3), "supported are Discrete"),
        (spaces.Dict({"a": spaces.Discrete(2)}), "supported are Discrete"),
        (spaces.Box(-1, 1, (2, 2)), "a bounded Box of one axis"),
        (spaces.Box(0, np.inf, (2,)), r"which are not bounded; .*RescaleAction"),
    ],
)
def test_other_actions_are_told(space, message):
    with pytest.raises(ValueError, match=message):
        action_head(space, "Toy-v0")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Discrete(16), r"Toy-v0 has the observations Discrete\(16\); .*FlattenObservation"),
        (spaces.Dict({"a": spaces.Discrete(2)}), "FlattenObservation"),
        (spaces.Tuple([spaces.Discrete(2)]), "FlattenObservation"),
        (spaces.Box(0, 255, (3, 84, 84), np.uint8), r"uint8 observations of \(3, 84, 84\).* last"),
    ],
)
def test_other_observations_are_told(space, message):
    with pytest.raises(ValueError, match=message):
        preprocess_for(space, "Toy-v0")


def test_an_image_of_other_sizes_is_an_image_and_bytes_are_numbers():
    space = spaces.Box(0, 255, (210, 160, 3), np.uint8)
    assert preprocess_for(space) == Preprocess("image", (210, 160, 3))
    assert preprocess_for(spaces.Box(0, 255, (128,), np.uint8)) == Preprocess("vector", (128,))


def test_an_unknown_environment_is_told():
    with pytest.raises(ValueError, match="Nothing-v7 cannot be made"):
        Task.of("Nothing-v7")


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_prepared_is_the_same_game(env_id):
    ours, stock = Task.of(env_id).make(), gymnasium.make(env_id)
    assert isinstance(ours, Prepared)
    seen, _ = ours.reset(seed=3)
    obs, _ = stock.reset(seed=3)
    np.testing.assert_array_equal(seen, obs.astype(np.float32))
    rng = np.random.default_rng(0)
    for _ in range(12):
        if env_id == "CartPole-v1":
            given = int(rng.integers(2))
            read = np.eye(2, dtype=np.float32)[given]
        else:
            read = rng.uniform(-1, 1, 1).astype(np.float32)
            given = 2 * read
        assert ours.action_space.contains(read)
        seen, reward, *ends, _ = ours.step(read)
        obs, wanted, *stock_ends, _ = stock.step(given)
        assert ours.observation_space.contains(seen)
        np.testing.assert_allclose(seen, obs, rtol=1e-6, atol=1e-6)
        assert reward == pytest.approx(wanted)
        assert ends == stock_ends
        if any(ends):
            break


def boxes(dtype):
    """Boxes of one axis, some of their ends infinite, others close together or far apart."""
    width = np.finfo(dtype).max if dtype == np.float32 else 1e30
    numbers = st.floats(-width, width, width=32 if dtype == np.float32 else 64)
    sides = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4)
    ends = st.sampled_from(["none", "low", "high", "both"])
    return st.builds(lambda s, e: _box(s, e, dtype), sides, ends)


def _box(sides, infinite, dtype):
    low, high = (np.array([f(side) for side in sides], dtype) for f in (min, max))
    if infinite in ("low", "both"):
        low[0] = -np.inf
    if infinite in ("high", "both"):
        high[-1] = np.inf
    return spaces.Box(low, high, dtype=dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
def test_what_a_box_is_given_lies_in_it(dtype, data):
    space = data.draw(boxes(dtype))
    try:
        head = action_head(space)
    except ValueError:
        with np.errstate(over="ignore"):
            close = np.nextafter(space.low.astype(np.float32), np.float32(np.inf)) >= space.high
        assert close.any() or not space.is_bounded("both")
        return
    assert space.is_bounded("both")
    size = len(space.low)
    raw = data.draw(st.lists(st.floats(-1, 1, width=32), min_size=size, max_size=size))
    for numbers in (raw, [-1.0] * size, [1.0] * size):
        given_ = to_env(np.array([numbers], np.float32), head)[0]
        assert space.contains(given_)
        assert action_space(head).contains(given_)
        read = from_env(given_[None], head)[0]
        assert spaces.Box(*bounds(head)).contains(read)


@pytest.mark.parametrize("start", [-3, 0, 5, 2**40])
@pytest.mark.parametrize("n", [2, 7])
def test_what_a_discrete_space_is_given_lies_in_it(start, n):
    space = spaces.Discrete(n, start=start)
    head = action_head(space)
    assert action_space(head) == space
    for i in range(n):
        chosen = to_env(np.eye(n, dtype=np.float32)[i : i + 1], head)[0]
        assert space.contains(chosen)
        assert chosen == start + i
        assert from_env(np.array([chosen]), head)[0].argmax() == i


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (spaces.Box(0, 10, (1,), np.int64), "of int64; a Box has to take float32 or float64"),
        (spaces.Box(0, 255, (2,), np.uint8), "of uint8; a Box has to take"),
        (spaces.Box(-1, 1, (2,), np.float16), "of float16; a Box has to take"),
        (spaces.Box(-np.inf, np.inf, (2,)), "not bounded"),
        (spaces.Box(np.array([0.0, -np.inf], np.float32), np.ones(2, np.float32)), "not bounded"),
        (spaces.Box(-1, 1, (2, 3)), "bounded Box of one axis"),
        (spaces.Box(-1, 1, ()), "bounded Box of one axis"),
        (spaces.Box(np.array([0.1]), np.array([0.1 + 1e-12]), dtype=np.float64), "no two numbers"),
        (spaces.Box(-1e300, 1e300, (1,), np.float64), "as many finite bounds"),
        (spaces.MultiDiscrete([2, 3]), "MultiDiscrete"),
        (spaces.MultiBinary(3), "MultiBinary"),
        (spaces.Discrete(1), "2 actions or more"),
        (spaces.Text(5), "Text"),
    ],
)
def test_spaces_whose_actions_could_not_be_kept_are_refused(space, told):
    with pytest.raises(ValueError, match=told):
        action_head(space, "Toy-v0")
