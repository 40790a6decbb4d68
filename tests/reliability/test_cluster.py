"""A Ray cluster of a head and nodes of this machine, on loopback alone, and what befalls clusters.

Every fault leaves the scores what they are in one process, to the last bit.
"""

import os
import secrets
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from generative.training.parallel import NoWorkersError, ParallelConfig
from tests.commands import alive, run_python
from tests.worldmodels.problems import Batch, Logged, broken, sphere
from worldmodels.configs import EvaluationConfig, EvolutionConfig
from worldmodels.evolution import evolve
from worldmodels.scoring import Scoring

SMALL = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}


class Nodes:
    """The cluster's nodes of one core each; the head has none."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.nodes = []

    def add(self):
        self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20))

    def lose(self):
        """Without a word, as a machine is that loses its power."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def set(self, count):
        while len(self.nodes) < count:
            self.add()
        while len(self.nodes) > count:
            self.lose()


@pytest.fixture(scope="module")
def nodes():
    # Read by Ray when it is imported.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "_system_config": QUICK_TO_NOTICE, **SMALL},
    )
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield Nodes(cluster)
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def two(nodes):
    nodes.set(2)
    return nodes


def on_ray(**settings):
    return ParallelConfig(**{"backend": "ray", "workers": 2, "ray_address": "auto", **settings})


def search(problem, parallel, generations=4, popsize=8, episodes=2, **config):
    """(what evolution found, the scheduler's counts of lost, repeated and copied jobs)."""
    evaluation = EvaluationConfig(episodes, **config)
    with Scoring(problem, evaluation, parallel, seed=1) as evaluate:
        result = evolve(evaluate, np.zeros(4), EvolutionConfig(popsize, 0.5, generations), 1)
        scheduler = evaluate._scheduler
        counts = (scheduler.lost, scheduler.repeated, scheduler.copied) if scheduler else None
    return result, counts


def assert_as_in_one_process(result, problem=sphere, **sizes):
    expected, _ = search(problem, ParallelConfig(), **sizes)
    assert result.generations == expected.generations
    assert np.array_equal(result.mean, expected.mean)


@pytest.mark.parametrize(
    ("count", "workers"),
    [(2, 0), *(pytest.param(*case, marks=pytest.mark.nightly) for case in ((1, 1), (2, 2)))],
)
def test_nodes_and_workers_leave_no_trace_in_the_scores(nodes, count, workers):
    nodes.set(count)
    result, counts = search(sphere, on_ray(workers=workers))
    assert_as_in_one_process(result)
    assert counts == (0, 0, 0)
    # Four workers of half a core, and a problem whose scores tell what was scored together.
    result, _ = search(Batch(), on_ray(workers=2 * count, cpus=0.5), candidates_per_task=3)
    assert_as_in_one_process(result, Batch(), candidates_per_task=3)


def test_what_a_problem_raises_is_raised(two):
    with pytest.raises(ZeroDivisionError, match="axle") as caught:
        search(broken, on_ray())
    assert "after 3 steps" in caught.value.__notes__[0]
    assert "raise error" in caught.value.__notes__[1]  # the worker's traceback


@contextmanager
def killer(problem, every):
    """Kills, every so many seconds, the process that began an episode last; yields the victims."""
    victims, over = [], threading.Event()

    def kill():
        while not over.wait(every):
            calls = sorted(problem.folder.iterdir(), key=lambda path: int(path.name.split(".")[3]))
            pids = [int(path.name.split(".")[2]) for path in calls]
            last = next((pid for pid in reversed(pids) if alive({pid})), None)
            if last is not None:
                os.kill(last, signal.SIGKILL)
                victims.append(last)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield victims
    finally:
        over.set()
        thread.join()


def kill_workers(tmp_path, parallel, generations, capfd):
    problem, sizes = Logged(tmp_path, 0.1), {"popsize": 16, "episodes": 1}
    sizes["generations"] = generations
    with killer(problem, 2.0) as victims:
        result, (lost, repeated, _) = search(problem, parallel, **sizes)
    assert_as_in_one_process(result, **sizes)
    assert len(victims) > generations // 7
    assert problem.episodes() == 16 * generations
    # At most one for each: a worker may be killed before it has begun what it was sent.
    assert problem.calls() - problem.episodes() <= repeated <= lost
    assert lost <= len(victims)  # the last one may not have been noticed any more
    return capfd.readouterr().err


@pytest.mark.nightly
def test_a_worker_killed_every_two_seconds(two, tmp_path, capfd):
    """20 generations of 16; no kill costs more than the episode that it hit.

    In every run workers die in `test_the_last_lines_of_a_dead_workers_log_are_shown`, and processes
    are killed in the next test.
    """
    told = kill_workers(tmp_path, on_ray(straggler=0.0), 20, capfd)
    assert "a worker was lost (ActorDiedError, process" in told
    assert "another one takes it over" in told


@pytest.mark.parametrize("generations", [5, pytest.param(20, marks=pytest.mark.nightly)])
def test_a_process_killed_every_two_seconds(tmp_path, capfd, generations):
    parallel = ParallelConfig("processes", 2, straggler=0.0)
    told = kill_workers(tmp_path, parallel, generations, capfd)
    assert "a worker was lost (exit code -9) on job" in told


def test_the_last_lines_of_a_dead_workers_log_are_shown(two, tmp_path, capfd):
    """Two generations of eight, in which some die: each is a process that Ray starts again."""
    problem, sizes = Logged(tmp_path, 0.05, "speak and die", share=0.25), {"generations": 2}
    sizes["episodes"] = 1
    result, (lost, *_) = search(problem, on_ray(straggler=0.0), **sizes)
    assert lost
    assert_as_in_one_process(result, **sizes)
    assert "\n    the axle is about to break" in capfd.readouterr().err


@pytest.mark.nightly
def test_a_worker_that_hangs_and_one_that_dawdles(two, tmp_path, capfd):
    """In every run processes hang and dawdle, in `tests/worldmodels/test_scoring.py`: what notices
    it and what it does then is the same."""
    (tmp_path / "hang").mkdir()  # episodes long enough to be sent one by one
    problem = Logged(tmp_path / "hang", 0.06, "hang")
    result, (lost, repeated, _) = search(problem, on_ray(deadline=1.0, straggler=0.0))
    assert_as_in_one_process(result)
    assert 0 < lost == repeated == problem.calls() - problem.episodes()
    (tmp_path / "slow").mkdir()
    problem = Logged(tmp_path / "slow", 0.06, "slow")
    result, (lost, _, copied) = search(problem, on_ray())
    assert_as_in_one_process(result)
    assert lost == 0
    assert 0 < copied == problem.calls() - problem.episodes()
    told = capfd.readouterr().err
    assert "no answer within the 1 s" in told
    assert "a second worker tries it too" in told


def search_while(action, problem, calls, **settings):
    """`search`, and something that happens as soon as so many episodes have begun.

    The search runs in a thread, because nodes can only be added by the main one.
    """
    sizes = {key: settings.pop(key) for key in ("generations",) if key in settings}
    with ThreadPoolExecutor() as pool:
        found = pool.submit(search, problem, on_ray(**settings), **sizes)
        while problem.calls() < calls and not found.done():
            time.sleep(0.02)
        action()
        result, counts = found.result()
    assert_as_in_one_process(result, **sizes)
    return counts


@pytest.mark.nightly
def test_a_node_lost_in_the_middle_of_a_generation(two, tmp_path):
    """In every run workers are lost, in `test_the_last_lines_of_a_dead_workers_log_are_shown`."""
    problem = Logged(tmp_path, 0.1)
    lost, repeated, _ = search_while(two.lose, problem, 10, straggler=0.0)
    assert lost >= 1
    assert problem.calls() - problem.episodes() <= repeated <= 1


@pytest.mark.nightly
def test_all_nodes_gone_then_one_returns(two, tmp_path, monkeypatch, capfd):
    """In every run it waits in vain, in `test_nothing_to_run_on_is_an_error_after_a_set_time`, and
    workers die and are replaced, in `test_the_last_lines_of_a_dead_workers_log_are_shown`."""
    monkeypatch.setattr("generative.training.parallel.scheduler.WARN_AFTER", 1.0)
    problem = Logged(tmp_path, 0.1)

    def outage():
        two.set(0)
        time.sleep(4)  # it notices after 1.5 s
        two.add()

    lost, repeated, _ = search_while(outage, problem, 10, straggler=0.0)
    assert lost >= 2
    assert problem.calls() - problem.episodes() <= repeated <= 2
    told = capfd.readouterr().err
    assert "no worker for" in told
    assert "a worker needs 1 CPU, and the 1 nodes of the cluster that are alive have 0 CPU" in told


def test_nothing_to_run_on_is_an_error_after_a_set_time(nodes, monkeypatch, capfd):
    monkeypatch.setattr("generative.training.parallel.scheduler.WARN_AFTER", 0.5)
    nodes.set(0)
    began = time.monotonic()
    with pytest.raises(NoWorkersError, match=r"no worker for 2 s: a worker needs 1 CPU.*again"):
        search(sphere, on_ray(patience=2.0))
    assert time.monotonic() - began > 2
    assert "waiting for one, at most 2 s" in capfd.readouterr().err


@pytest.mark.nightly
def test_nodes_that_join_are_put_to_use(nodes, tmp_path):
    """In every run nodes join before a search, one after the other."""
    nodes.set(1)
    problem = Logged(tmp_path, 0.1)
    search_while(nodes.add, problem, 5, workers=0, generations=12)
    pids = {path.name.split(".")[2] for path in tmp_path.iterdir()}
    assert len(pids) == 2


def test_an_address_without_a_cluster_is_said(nodes):
    """In a process of its own: this one has joined one already."""
    script = (
        "from generative.training.parallel import ParallelConfig\n"
        "from generative.training.parallel.ray_pool import connect\n"
        "connect(ParallelConfig('ray', ray_address='127.0.0.1:1'))\n"
    )
    done = run_python("-c", script)
    assert done.returncode == 1
    assert "there is no Ray cluster at '127.0.0.1:1'" in done.stderr


ALONE = """
import os, signal, sys
import numpy as np
from tests.worldmodels.problems import sphere
from worldmodels.configs import EvaluationConfig
from generative.training.parallel import ParallelConfig
from worldmodels.scoring import Scoring
if __name__ == "__main__":
    other = Scoring(sphere, EvaluationConfig(1), ParallelConfig("processes", 1))
    evaluate = Scoring(sphere, EvaluationConfig(1), ParallelConfig("ray", 1))
    evaluate(np.zeros((2, 3)), 0)
    assert os.listdir(os.environ["TMPDIR"])
    if sys.argv[1] == "close":
        evaluate.close()
        assert not os.listdir(os.environ["TMPDIR"])
        other(np.zeros((2, 3)), 0)  # Ray's end is that of none but Ray's processes
        assert other._scheduler.lost == 0
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def naming(folder: str) -> list[str]:
    """The processes whose command line names the folder, as those of a Ray in it do."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            if os.fsencode(folder) in path.read_bytes():
                found.append(path.parent.name)
    return found


@pytest.mark.parametrize(
    ("how", "status"),
    # Killed is the hardest: nothing of the process itself can clean up.
    [("kill", -9), *(pytest.param(how, 0, marks=pytest.mark.nightly) for how in ("end", "close"))],
)
def test_a_ray_of_our_own_leaves_nothing_behind(tmp_path, how, status):
    (tmp_path / "main.py").write_text(ALONE)
    before = set(os.listdir("/tmp"))
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as folder:  # a short name: sockets
        for _ in range(3):  # Ray gives itself 30 s to start, which a busy machine may exceed
            done = run_python(tmp_path / "main.py", how, TMPDIR=folder)
            if "Ray could not be started" not in done.stderr:
                break
        assert done.returncode == status, done.stderr
        end = time.monotonic() + 30
        while os.listdir(folder) or (how == "kill" and naming(folder)):
            assert how == "kill", "it should be gone with the process"
            assert time.monotonic() < end
            time.sleep(0.1)
    assert "ray" not in set(os.listdir("/tmp")) - before
