"""Settings for all tests: one thread per process, no window, no sound."""

import multiprocessing.forkserver
import multiprocessing.util
import os
import re
import shutil
import tempfile

# Read by the libraries when they are first imported, so before any test module is.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import hypothesis
import pytest

from tests.commands import crash, once, run_script, shared_base
from tests.hub_server import serving
from tests.warm import WarmWorkers, fork_server

# Tests kill processes, never the machine, and what a process wrote outlives it.
# What a power cut needs is asked for by the tests that use the fixture `disk`.
os.fsync = lambda descriptor: None

hypothesis.settings.register_profile("quick", max_examples=15, deadline=None, derandomize=True)
hypothesis.settings.register_profile("nightly", max_examples=200, deadline=None)
hypothesis.settings.load_profile("quick")


def pytest_configure(config):
    """Give all processes a folder for temporary files; what they leave in it is deleted at the end.

    Processes that are killed leave some, and so do browsers, music21 and Stable-Baselines3.
    """
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist inherits it
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # keeps tmp_path
        folder = tempfile.mkdtemp(prefix="t")  # a short name, for Ray's sockets
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        # After multiprocessing has removed what it has there, which is at -100.
        multiprocessing.util.Finalize(None, shutil.rmtree, (folder, True), exitpriority=-200)


@pytest.fixture
def disk(monkeypatch) -> list[tuple[str, str]]:
    """What reached the disk or got its name, in order; files beside theirs without the random."""
    happened, rename = [], os.rename

    def plain(name: str) -> str:
        return re.sub(r"^\.(.+)\.\w+\.tmp$", r"\1.tmp", os.path.basename(name))

    def renamed(old, new):
        happened.append(("rename", plain(os.fspath(new))))
        rename(old, new)

    def synced(descriptor):
        happened.append(("sync", plain(os.readlink(f"/proc/self/fd/{descriptor}"))))

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(os, "replace", renamed)
    return happened


@pytest.fixture
def warm_workers(monkeypatch):
    """Worker processes are forks too, where it is not the processes that are tested."""
    if "COLD_PROGRAMS" not in os.environ:
        fork_server()
        multiprocessing.forkserver.ensure_running()
        monkeypatch.setattr(multiprocessing, "get_context", lambda method: WarmWorkers())


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """Folder of an undisturbed `train_in_dream.py smoke`, made once per session; do not change it.

    The file `operations` in it holds the number of its file operations; see `commands.crash`.
    """

    def make(folder):
        log = folder.parent / "operations of the smoke run"
        done = run_script("train_in_dream", "smoke", "--out", folder, **crash(folder, log))
        assert done.returncode == 0, done.stderr
        assert "tracks of the stock game" in done.stdout
        log.rename(folder / "operations")

    return once(shared_base(tmp_path_factory), "a smoke run", make)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub with an empty cache, in an empty working folder."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.chdir(tmp_path)
    with serving() as served:
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in (
            ("ENDPOINT", served.url),
            ("HUGGINGFACE_CO_URL_TEMPLATE", template),
            ("HF_HUB_CACHE", str(tmp_path / "cache")),
            ("AGENT_HARNESSES_PATH", str(tmp_path / "harnesses")),
            ("HF_HUB_DISABLE_PROGRESS_BARS", True),
        ):
            monkeypatch.setattr(constants, name, value, raising=False)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield served
