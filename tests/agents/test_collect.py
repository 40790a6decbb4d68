"""Collecting episodes: the same bytes for any number of workers and after any interruption."""

import dataclasses
import os
import signal
import time
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from agents.collect import (
    DriverSpec,
    EpisodeError,
    EpisodeSpec,
    collect,
    make_driver,
    record_episode,
)
from generative.training.files import DamagedFileError
from generative.training.parallel import WorkerDiedError
from tests.warm import Program
from worldmodels.rollouts import RolloutStore

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("warm_workers")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Workers import the drivers below by the name of this file, from this process's path."""
    monkeypatch.syspath_prepend(str(ROOT))
    assert __name__ == "tests.agents.test_collect"


class CountingEnv(gymnasium.Env):
    """Frames count the steps; pays the action's first number; ends by chance, or at step 60."""

    def __init__(self, bad_step: int = -1, bad: str = ""):
        self.observation_space = gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,))
        self.bad_step, self.bad = bad_step, bad
        self.frame = np.zeros((4, 4, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_count = (options or {}).get("start_tile", 0)
        self.frame[:] = self.step_count
        self.frame[0, 0] = seed % 256
        return self.frame, {"gauge": np.float64(1.5), "map": np.zeros(3)}

    def step(self, action):
        self.step_count += 1
        self.frame[:] = self.step_count  # in place, as some environments draw
        reward = float(action[0])
        obs = self.frame
        if self.step_count == self.bad_step:
            if self.bad == "reward":
                reward = float("nan")
            elif self.bad == "obs":
                obs = obs.astype(np.float32)
            else:
                raise ZeroDivisionError("the axle broke")
        terminated = bool(self.np_random.random() < 0.05)
        return obs, reward, terminated, self.step_count >= 60, {"lap_finished": False}


class Walk:
    """A random walk, a little beyond the box."""

    def __init__(self, seed: int, scale: float = 0.5):
        self.rng = np.random.default_rng(seed)
        self.scale = scale

    def predict(self, obs, state=None, episode_start=None, deterministic=True):
        assert obs.shape == (4, 4, 3)
        assert episode_start.tolist() == [state is None]
        assert not deterministic
        state = (np.zeros(2) if state is None else state) + self.rng.normal(0, self.scale, 2)
        return state, state


def nan_driver(seed: int) -> Walk:
    return Walk(seed, scale=np.nan)


def slow_walk(seed: int, pids: str | Path) -> Walk:
    """Notes its process and takes its time."""
    (Path(pids) / str(os.getpid())).touch()
    time.sleep(0.05)
    return Walk(seed)


def deadly_walk(seed: int, notes: Path, deadly_seed: int, times: int) -> Walk:
    if seed == deadly_seed:
        deaths = len(os.listdir(notes))
        if deaths < times:
            (notes / str(deaths)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return Walk(seed)


class Stuck(Walk):
    """Hangs at its third decision, in as many of its episodes."""

    def __init__(self, seed: int, notes: Path, times: int):
        super().__init__(seed)
        self.notes, self.times, self.decisions = notes, times, 0

    def predict(self, *args, **kwargs):
        self.decisions += 1
        hung = len(os.listdir(self.notes))
        if self.decisions == 3 and hung < self.times:
            (self.notes / str(hung)).touch()
            time.sleep(1000)
        return super().predict(*args, **kwargs)


def make_counting_env(spec: EpisodeSpec) -> CountingEnv:
    return CountingEnv(**spec.env_kwargs)


WALK = DriverSpec(Walk, key="walk")


def make_specs(n: int, driver: DriverSpec = WALK, **kwargs) -> list[EpisodeSpec]:
    return [EpisodeSpec(i, 100 + i, "Counting-v0", driver, **kwargs) for i in range(n)]


def collect_to(folder: Path, specs: list[EpisodeSpec], workers: int = 0) -> dict[str, bytes]:
    collect(specs, RolloutStore(folder), workers=workers, make_env=make_counting_env)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run_one(spec: EpisodeSpec, seed: int = 0):
    return record_episode(make_counting_env(spec), spec.driver.factory(seed=seed), spec)


# --- one episode ----------------------------------------------------------------------------------


def test_episode_against_driving_by_hand():
    spec = make_specs(1, action_repeat=3, reset_options={"start_tile": 7})[0]
    episode = run_one(spec, seed=4)
    env, driver, state = CountingEnv(), Walk(4), None
    frame, _ = env.reset(seed=100, options={"start_tile": 7})
    steps = 0
    for t in range(len(episode)):
        np.testing.assert_array_equal(episode.frames[t], frame)
        action, state = driver.predict(frame, state, np.array([t == 0]), deterministic=False)
        action = np.clip(action, -1, 1).astype(np.float32)
        np.testing.assert_array_equal(episode.actions[t], action)
        total = 0.0
        for _ in range(3):
            frame, reward, terminated, truncated, _ = env.step(action)
            steps += 1
            total += reward
            if terminated or truncated:
                break
        assert episode.rewards[t] == np.float32(total)
        assert episode.terminated[t] == terminated
    assert terminated or truncated
    np.testing.assert_array_equal(episode.frames[-1], frame)
    assert len(episode.frames) == len(episode) + 1
    assert episode.info == {
        "index": 0,
        "seed": 100,
        "env_id": "Counting-v0",
        "driver": f"{__name__}.Walk:walk",
        "action_repeat": 3,
        "env_steps": steps,
        "truncated": not terminated,
        "start_tile": 7,
        "gauge": 1.5,
        "lap_finished": False,
        "spec": spec.digest(),
    }


def test_max_decisions_counts_as_truncated():
    episode = run_one(make_specs(1, max_decisions=2)[0])
    assert (len(episode), episode.info["truncated"]) == (2, True)
    assert not episode.terminated.any()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bad": "reward"}, "Counting-v0, seed 100: reward at step 2 is nan"),
        ({"bad": "obs"}, "Counting-v0, seed 100: observation at step 2 is float32 (4, 4, 3)"),
        ({"driver": DriverSpec(nan_driver)}, f"seed 100: driver {__name__}.nan_driver gave act"),
    ],
)
def test_what_is_not_finite_or_of_the_wrong_kind_stops_the_collection(
    tmp_path, change, words, workers
):
    if "driver" in change:
        specs = make_specs(2, change["driver"])
    else:
        specs = make_specs(2, env_kwargs={**change, "bad_step": 2})
    with pytest.raises(EpisodeError) as error:
        collect_to(tmp_path / "store", specs, workers)
    assert words in str(error.value)
    assert len(RolloutStore(tmp_path / "store")) == 0


def test_an_error_in_a_worker_comes_with_its_traceback(tmp_path):
    specs = make_specs(2, env_kwargs={"bad": "raise", "bad_step": 2})
    words = r"episode 0, .*seed 100: .*axle broke"
    for workers in (0, 1):
        with pytest.raises(EpisodeError, match=words) as caught:
            collect_to(tmp_path / f"store {workers}", specs, workers)
    assert "in step" in caught.value.__notes__[0]


# --- collections ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    """Ten episodes, collected in this process."""
    specs = make_specs(10)
    return collect_to(tmp_path_factory.mktemp("undisturbed") / "store", specs)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_write_the_same_bytes(tmp_path, undisturbed, workers):
    specs = make_specs(10)
    assert collect_to(tmp_path / "store", specs[::-1], workers) == undisturbed


def test_stopping_and_going_on_gives_the_same_bytes(tmp_path, undisturbed):
    specs = make_specs(10)
    store = RolloutStore(tmp_path / "store")
    done = collect(specs, store, make_env=make_counting_env, stop=lambda: len(store) == 3)
    assert done == len(store) == 3
    assert collect(specs, store, make_env=make_counting_env) == 7
    assert collect(specs, store, make_env=make_counting_env) == 0
    assert contents(tmp_path / "store") == undisturbed


def test_another_collection_is_not_mixed_in(tmp_path):
    folder = tmp_path / "store"
    specs = make_specs(3)
    collect_to(folder, specs)
    for other in (
        make_specs(3, action_repeat=2),
        make_specs(3, DriverSpec(Walk, {"scale": 0.1})),
        make_specs(2),
        [dataclasses.replace(spec, seed=7) for spec in specs],
    ):
        with pytest.raises(ValueError, match=r"episode-00000.\.npz .* not of this collection"):
            collect_to(folder, other)
    with pytest.raises(ValueError, match="3 specs share 1 indices"):
        collect_to(folder, [specs[0]] * 3)
    assert len(collect_to(folder, make_specs(4))) == 5  # a longer one goes on


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_episodes_are_collected_again_where_they_were(tmp_path, undisturbed, workers):
    """Two files, and a line of the index; an interruption in the midst of it all."""
    folder, specs = tmp_path / "store", make_specs(10)
    collect_to(folder, specs[:7])
    path = folder / "episode-000001.npz"
    path.write_bytes(path.read_bytes()[:-1])
    (folder / "episode-000003.npz").unlink()
    index = folder / "index.jsonl"
    lines = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(b"".join(lines[:5] + lines[6:]))
    with pytest.raises(DamagedFileError, match=r"episode-000001\.npz \(.* is damaged, and 2 more"):
        RolloutStore(folder)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"episode-000001\.npz|episode-000003\.npz"):
            store = RolloutStore(folder, mend=True)
        asked = iter([False, True])
        assert collect(specs, store, make_env=make_counting_env, stop=lambda a=asked: next(a)) == 1
    with pytest.warns(UserWarning, match=r"episode-000005\.npz"):
        store = RolloutStore(folder, mend=True)
    assert collect(specs, store, workers=workers, make_env=make_counting_env) == 4
    assert contents(folder) == undisturbed


def deadly(folder: Path, index: int, times: int) -> DriverSpec:
    """Kills its process the first `times` times that episode `index` is driven."""
    folder.mkdir()
    kwargs = {"notes": folder, "deadly_seed": driver_seed(index), "times": times}
    return DriverSpec(deadly_walk, kwargs, key="deadly")


def driver_seed(index: int) -> int:
    """The seed that the driver of episode `index` gets."""
    return make_driver(make_specs(index + 1, DriverSpec(lambda seed: seed))[index])


def test_a_killed_worker_is_replaced(tmp_path):
    harmless = make_specs(10, deadly(tmp_path / "0", 4, times=0))
    with pytest.warns(
        UserWarning, match=r"lost \(exit code -9\) on episode 4, .*seed 104; another"
    ):
        found = collect_to(tmp_path / "a", make_specs(10, deadly(tmp_path / "1", 4, times=1)), 2)
    assert found == collect_to(tmp_path / "b", harmless)


def test_an_episode_that_kills_two_workers_stops_the_collection(tmp_path):
    specs = make_specs(3, deadly(tmp_path / "notes", 1, times=9))
    with (
        pytest.warns(UserWarning, match="was lost"),
        pytest.raises(
            WorkerDiedError, match=r"episode 1, .*seed 101, for the 2\. time; -9 .*memory"
        ),
    ):
        collect_to(tmp_path / "store", specs, 1)
    assert len(os.listdir(tmp_path / "notes")) == 2
    assert len(RolloutStore(tmp_path / "store")) == 1


def test_an_episode_that_hangs_is_begun_once_more(tmp_path):
    """And stops the collection when it hangs again; what takes long but goes on does not."""
    (tmp_path / "notes").mkdir()
    stuck = {"notes": tmp_path / "notes", "times": 1}
    store = RolloutStore(tmp_path / "store")
    specs = make_specs(2, DriverSpec(Stuck, stuck, key="walk"))
    with pytest.warns(UserWarning, match=r"no answer within the 2 s\) on episode 0, .*seed 100; "):
        collect(specs, store, workers=1, make_env=make_counting_env, deadline=2.0)
    again = make_specs(2, DriverSpec(Stuck, stuck, key="walk"))
    assert contents(tmp_path / "store") == collect_to(tmp_path / "other", again)
    specs = make_specs(1, DriverSpec(Stuck, {**stuck, "times": 9}))
    third = RolloutStore(tmp_path / "third")
    with (
        pytest.warns(UserWarning, match="another one takes it over"),
        pytest.raises(WorkerDiedError, match=r"no answer .* episode 0, .*seed 100, for the 2\."),
    ):
        collect(specs, third, workers=1, make_env=make_counting_env, deadline=1.0)


def test_killed_at_any_moment_and_continued(tmp_path):
    """kill -9 of the parent: no worker lives on, and the rest gives the undisturbed bytes."""
    folder, pids = tmp_path / "store", tmp_path / "pids"
    pids.mkdir()
    code = (
        f"import {__name__} as t; t.collect_to(t.Path({str(folder)!r}), t.make_specs(10, "
        f"t.DriverSpec(t.slow_walk, dict(pids={str(pids)!r}), key='walk')), workers=2)"
    )
    for episodes in (1, 4):
        with Program(("-c", code), cwd=ROOT, env={}) as child:
            index = folder / "index.jsonl"
            deadline = time.monotonic() + 30
            while not index.exists() or index.read_bytes().count(b"\n") < episodes:
                assert time.monotonic() < deadline
                assert child.poll() is None, child.stderr
                time.sleep(0.005)
            child.send_signal(signal.SIGKILL)
            child.wait(60)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it may have been writing a line
            assert episodes <= len(RolloutStore(folder)) < 10
    deadline = time.monotonic() + 5
    while any(Path("/proc", pid.name).exists() for pid in pids.iterdir()):
        assert time.monotonic() < deadline, "a worker outlived its parent by 5 s"
        time.sleep(0.05)
    specs = make_specs(10, DriverSpec(slow_walk, {"pids": pids}, key="walk"))
    assert collect_to(folder, specs) == collect_to(tmp_path / "other", specs)


def test_car_racing_is_the_same_in_a_worker(tmp_path):
    pytest.importorskip("Box2D")
    driver = DriverSpec(Gas)
    specs = [
        EpisodeSpec(
            index=i,
            seed=5 + i,
            env_id="envs:WorldModels/CarRacing64-v0",
            driver=driver,
            action_repeat=3,
            reset_options={"start_tile": "random", "zoom": False},
            max_decisions=10,
        )
        for i in range(3)
    ]
    stores = []
    for workers in (0, 1):
        stores.append(RolloutStore(tmp_path / str(workers)))
        collect(specs, stores[-1], workers=workers)
    assert contents(tmp_path / "0") == contents(tmp_path / "1")
    assert stores[0].frame_shape == (64, 64, 3)
    assert [record.info["env_steps"] for record in stores[0].records] == [30] * 3
    assert stores[0].records[0].info["start_tile"] == "random"


class Gas:
    def __init__(self, seed: int):
        self.steer = np.random.default_rng(seed).uniform(-0.3, 0.3)

    def predict(self, obs, state=None, episode_start=None, deterministic=True):
        return np.array([self.steer, 0.5, 0]), state
