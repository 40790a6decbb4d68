"""A pool of processes against Gymnasium's SyncVectorEnv, to the bit, and in trouble."""

import os
import re
import signal
import threading
import time
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.pool import PooledVectorEnv
from generative.training.parallel import WorkerDiedError
from tests.commands import alive, run_python

pytestmark = pytest.mark.usefixtures("warm_workers")


class Counter(gymnasium.Env):
    """Counts up by its action from a random start; an episode ends at 12, or is cut at 9 steps."""

    def __init__(self, discrete: bool = False, fail_at: int | None = None):
        self.observation_space = spaces.Box(-100, 100, (2,), np.float32)
        self.action_space = spaces.Discrete(4) if discrete else spaces.Box(0, 3, (1,), np.float32)
        self.fail_at = fail_at

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.count = 0, float(self.np_random.integers(5)) + (options or {}).get("at", 0)
        return self._see(), {"start": self.count}

    def step(self, action):
        self.steps += 1
        if self.steps == self.fail_at:
            raise ArithmeticError(f"broken at step {self.steps}")
        self.count += float(np.asarray(action).sum())
        info = {"even": {"is": self.steps}} if self.steps % 2 == 0 else {}
        return self._see(), self.count / 7, self.count >= 12, self.steps >= 9, info

    def _see(self):
        return np.array([self.count, self.steps], np.float32)


class Told(gymnasium.Env):
    """Observations are no array."""

    observation_space = spaces.Dict({"a": spaces.Discrete(2)})
    action_space = spaces.Discrete(2)


def same(ours, theirs) -> None:
    """Equal values and types, in nested dictionaries, tuples and arrays."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            same(ours[key], theirs[key])
    elif isinstance(ours, tuple):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    elif isinstance(ours, np.ndarray) and ours.dtype == object:
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    else:
        np.testing.assert_array_equal(ours, theirs)
        assert getattr(ours, "dtype", None) == getattr(theirs, "dtype", None)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(("workers", "discrete"), [(1, False), (3, True)])
def test_equals_gymnasiums_own(mode, workers, discrete):
    make = partial(Counter, discrete)
    theirs = SyncVectorEnv([make] * 4, autoreset_mode=mode)
    with_pool = PooledVectorEnv(make, 4, workers, mode)
    rng = np.random.default_rng(0)
    try:
        same(with_pool.reset(seed=3), theirs.reset(seed=3))
        for _ in range(40):
            actions = rng.integers(4, size=4) if discrete else rng.uniform(0, 3, (4, 1))
            actions = actions.astype(theirs.action_space.dtype)
            ours, expected = with_pool.step(actions), theirs.step(actions)
            same(ours, expected)
            over = expected[2] | expected[3]
            if mode is AutoresetMode.DISABLED and over.any():
                same(
                    with_pool.reset(options={"reset_mask": over, "at": 1}),
                    theirs.reset(options={"reset_mask": over, "at": 1}),
                )
    finally:
        with_pool.close()
        theirs.close()


def test_the_car_by_name():
    """Two processes see the tracks that one environment after the other sees."""
    name = "envs:WorldModels/CarRacing64-v0"
    pool = gymnasium.make_vec(name, 3, workers=2, max_episode_steps=15)
    assert isinstance(pool, PooledVectorEnv)
    single = [gymnasium.make(name, max_episode_steps=15) for _ in range(3)]
    action = np.array([0.1, 0.5, 0], np.float32)
    obs, _ = pool.reset(seed=[5, 6, 5])
    firsts = [env.reset(seed=seed)[0] for env, seed in zip(single, (5, 6, 5), strict=True)]
    np.testing.assert_array_equal(obs, np.stack(firsts))
    for step in range(15):
        obs, rewards, _, truncated, _ = pool.step(np.tile(action, (3, 1)))
        expected = [env.step(action) for env in single]
        np.testing.assert_array_equal(obs, np.stack([e[0] for e in expected]))
        assert rewards.tolist() == [e[1] for e in expected]
        assert truncated.tolist() == [step == 14] * 3
    pool.close()


def test_what_cannot_be_shared_is_told():
    with pytest.raises(ValueError, match=r"observations are Dict.*FlattenObservation"):
        PooledVectorEnv(Told, 2)
    with pytest.raises(ValueError, match="num_envs is 0"):
        PooledVectorEnv(Counter, 0)


def test_wrong_input_leaves_the_pool_usable():
    pool = PooledVectorEnv(Counter, 2, workers=1)
    pool.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions are \(3, 1\), needed \(2, 1\)"):
        pool.step(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="got 3 seeds for 2"):
        pool.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="reset_mask is bool"):
        pool.reset(options={"reset_mask": np.zeros(2, bool)})
    pool.step(np.zeros((2, 1)))
    pool.close()
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        pool.step(np.zeros((2, 1)))


def test_an_error_of_an_environment_arrives_with_its_traceback():
    pool = PooledVectorEnv(partial(Counter, fail_at=2), 2, workers=2)
    pids = {worker.pid for worker in pool._workers}
    pool.reset(seed=0)
    pool.step(np.zeros((2, 1)))
    with pytest.raises(ArithmeticError, match="broken at step 2") as caught:
        pool.step(np.zeros((2, 1)))
    assert "in step" in caught.value.__notes__[0]
    assert not alive(pids)


def test_a_killed_process_is_told():
    pool = PooledVectorEnv(Counter, 4, workers=2)
    pool.reset(seed=0)
    os.kill(pool._workers[1].pid, signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match=r"exit code -9"):
        for _ in range(2):
            pool.step(np.zeros((4, 1)))
    assert not pool._workers


SCRIPT = """
import os, re, signal, sys, threading, time
from functools import partial
from tests.envs.test_pool import Counter, PooledVectorEnv, Stuck


def begin(kind=Counter):
    pool = PooledVectorEnv(kind, 2, workers=2)
    pool.reset(seed=0)
    print(*[w.pid for w in pool._workers], flush=True)
    return pool


if __name__ == "__main__":
    how = sys.argv[1]
    if how == "function":
        begin()
    elif how == "thread":
        threading.Thread(target=begin).start()
    elif how == "killed while stuck":
        os.fork() or time.sleep(60)  # the fork holds all that its parent has open
        pool = begin(Stuck)
        threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGKILL)).start()
        pool.step(pool.action_space.sample())
    else:
        pool = begin()
    if how == "error":
        raise ArithmeticError("of the script")
    if how == "exit":
        sys.exit(3)
    if how == "del":
        pids = [worker.pid for worker in pool._workers]
        del pool
        assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    if how == "_exit":
        os._exit(4)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


class Stuck(Counter):
    """Computes for ever at its second step, and lets no other thread of Python run meanwhile."""

    def step(self, action):
        return super().step(action) if self.steps else re.match("(a+)+$", "a" * 60 + "b")


def ends(*pairs: tuple[str, int]) -> list:
    """In every run an end of each kind: at the end of the script, before it, by force."""
    quick = ("error", "thread", "del", "_exit", "killed while stuck")
    return [
        pytest.param(*pair, marks=() if pair[0] in quick else pytest.mark.nightly) for pair in pairs
    ]


@pytest.mark.parametrize(
    ("how", "status"),
    ends(
        ("end", 0), ("function", 0), ("error", 1), ("exit", 3), ("del", 0), ("thread", 0),
        ("_exit", 4), ("killed", -signal.SIGKILL), ("killed while stuck", -signal.SIGKILL),
    ),
)  # fmt: skip
def test_processes_end_with_the_one_that_started_them(tmp_path, how, status):
    (tmp_path / "main.py").write_text(SCRIPT)
    done = run_python(tmp_path / "main.py", how)
    text = done.stdout + done.stderr
    assert done.returncode == status, text
    assert ("ArithmeticError" in text) == ("Traceback" in text) == (how == "error"), text
    pids = {int(pid) for pid in text.split("\n")[0].split()}
    assert len(pids) == 2
    end = time.monotonic() + 30
    while alive(pids):
        assert status < 0 or how == "_exit", "a worker outlived its parent"
        assert time.monotonic() < end, "a worker outlived its parent"
        time.sleep(0.05)


def test_a_script_without_a_guard_is_told_what_is_missing(tmp_path):
    (tmp_path / "main.py").write_text(SCRIPT.partition("if __name__")[0] + "begin()\n")
    done = run_python(tmp_path / "main.py")
    assert done.returncode == 1
    assert 'wrap what your script does in `if __name__ == "__main__":`' in done.stderr
    assert done.stderr.count("Traceback") == 1
    assert "memory" not in done.stderr


class Slow(Counter):
    """Its third step takes so long."""

    seconds = 1000.0

    def step(self, action):
        time.sleep(self.seconds if self.steps == 2 else 0)
        return super().step(action)


class Dawdling(Slow):
    seconds = 1.0


@pytest.mark.parametrize("kind", [Dawdling, Slow])
def test_out_of_an_interrupted_step_only_a_whole_reset_leads(kind):
    """Whether the environments come to the end of the step or not."""
    pool, fresh = PooledVectorEnv(kind, 3, workers=2), SyncVectorEnv([Counter] * 3)
    actions = np.ones((3, 1), np.float32)
    pool.reset(seed=7)
    for _ in range(2):
        pool.step(actions)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        pool.step(actions)
    timer.join()
    time.sleep(0 if kind is Slow else 1.5)  # by now the answers are there
    with pytest.raises(RuntimeError, match=r"interrupted.*reset"):
        pool.step(actions)
    with pytest.raises(RuntimeError, match=r"interrupted.*reset"):
        pool.reset(options={"reset_mask": np.array([True, False, False])})
    try:
        same(pool.reset(seed=3), fresh.reset(seed=3))
        for _ in range(2):
            same(pool.step(actions), fresh.step(actions))
    finally:
        pool.close()


def test_an_environment_that_hangs_is_named():
    pool = PooledVectorEnv(Slow, 3, workers=2, deadline=8.0)
    pids = {worker.pid for worker in pool._workers}
    pool.reset(seed=0)
    for _ in range(2):
        pool.step(np.zeros((3, 1)))
    pool._deadline = 0.5
    with pytest.raises(WorkerDiedError, match=r"environments 0 to 1 gave no answer within 0.5 s"):
        pool.step(np.zeros((3, 1)))
    assert not alive(pids)
    with pytest.raises(ValueError, match="deadline is 0"):
        PooledVectorEnv(Slow, 3, deadline=0)
