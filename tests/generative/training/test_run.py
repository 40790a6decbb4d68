"""Run folders: who may continue them, with what, and what they keep."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from generative.training import lock
from generative.training.files import (
    DamagedFileError,
    append_file,
    write_file,
    write_folder,
)
from generative.training.run import (
    Run,
    RunInUseError,
    SettingsChangedError,
    read_config,
    read_result,
)


@dataclass(frozen=True)
class Model:
    dim: int = 32


@dataclass(frozen=True)
class Args:
    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps", "log_every"})
    out: Path = Path("runs/x")
    model: Model = field(default_factory=Model)
    steps: int = 100
    log_every: int = 10
    lr: float = 0.1
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Paths:
    resumable_fields: ClassVar[frozenset[str]] = frozenset({"workers"})
    out: Path = Path("runs/x")
    data: tuple[Path, ...] = ()
    model: Path | None = None
    workers: int = 0


def test_new_run_holds_its_settings_and_versions(tmp_path):
    args = Args(out=tmp_path / "deep" / "run", seed=5)
    with Run.open(args, kind="train_vae") as run:
        assert run.path == args.out
        assert run.seed == 5
        assert not run.done
        assert str(run.device) == "cpu"
    kind, settings = read_config(args.out)
    assert kind == "train_vae"
    assert settings["model"] == {"dim": 32}
    (versions,) = json.loads((args.out / "versions.json").read_text())
    assert versions["packages"]["numpy"] == np.__version__
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))


def test_folder_may_be_given_apart_from_the_settings(tmp_path):
    with Run.open(Args(), tmp_path / "here", kind="x") as run:
        assert run.path == tmp_path / "here"


def test_every_changed_setting_is_listed(tmp_path):
    args = Args(out=tmp_path / "run")
    Run.open(args, kind="x").close()
    with pytest.raises(SettingsChangedError) as caught:
        Run.open(replace(args, model=Model(16), lr=0.2, steps=7), kind="x")
    text = str(caught.value)
    assert "model.dim: it has 32, you ask for 16" in text
    assert "lr: it has 0.1, you ask for 0.2" in text
    assert "steps" not in text
    assert read_config(args.out)[1]["lr"] == 0.1
    # And the folder is free again.
    Run.open(args, kind="x").close()


def test_budget_may_change_and_reopens_a_finished_run(tmp_path):
    args = Args(out=tmp_path / "run")
    with Run.open(args, kind="x") as run:
        run.finish({"loss": 0.5})
    with Run.open(args, kind="x") as run:
        assert run.done
        assert run.result == {"loss": 0.5}
    with Run.open(replace(args, steps=200), kind="x") as run:
        assert not run.done
    assert read_config(args.out)[1]["steps"] == 200


def test_moved_folder_goes_on_and_stays_finished(tmp_path):
    with Run.open(Args(out=tmp_path / "a"), kind="x") as run:
        run.finish({})
    (tmp_path / "a").rename(tmp_path / "b")
    with Run.open(Args(out=tmp_path / "b"), kind="x") as run:
        assert run.done
    assert read_config(tmp_path / "b")[1]["out"] == str(tmp_path / "b")


def test_paths_that_moved_along_are_the_same(tmp_path):
    args = Paths(out=tmp_path / "a/run", data=(tmp_path / "a/data", Path("/elsewhere")))
    with Run.open(args, kind="x") as run:
        run.finish({})
    (tmp_path / "a").rename(tmp_path / "b")
    moved = Paths(out=tmp_path / "b/run", data=(tmp_path / "b/data", Path("/elsewhere")))
    for wrong in (
        replace(moved, data=moved.data[:1]),
        replace(moved, data=(moved.data[0], Path("/elsewhere/b"))),
        replace(moved, model=tmp_path / "b/model"),
    ):
        with pytest.raises(SettingsChangedError):
            Run.open(wrong, kind="x")
    with Run.open(moved, kind="x") as run:
        assert run.done
    Run.open(moved, kind="x").close()


def test_workers_may_change_without_reopening_a_finished_run(tmp_path):
    args = Paths(out=tmp_path / "run")
    with Run.open(args, kind="x") as run:
        run.finish({})
    with Run.open(replace(args, workers=4), kind="x") as run:
        assert run.done
    assert read_config(args.out)[1]["workers"] == 4


def test_a_run_that_fails_before_it_wrote_anything_leaves_nothing(tmp_path):
    args = Args(out=tmp_path / "run")
    with pytest.raises(ZeroDivisionError), Run.open(args, kind="x"):
        raise ZeroDivisionError
    assert not args.out.exists()
    # So the right settings can follow wrong ones.
    with pytest.raises(ZeroDivisionError), Run.open(replace(args, lr=0.2), kind="x") as run:
        run.metrics.log(1, {"loss": 1.0})
        raise ZeroDivisionError
    assert read_config(args.out)[1]["lr"] == 0.2


def test_other_kinds_and_other_folders_are_refused(tmp_path):
    Run.open(Args(out=tmp_path / "run"), kind="train_vae").close()
    with pytest.raises(ValueError, match="is a run of train_vae, not of train_mdnrnn"):
        Run.open(Args(out=tmp_path / "run"), kind="train_mdnrnn")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds files but is not a run"):
        Run.open(Args(out=tmp_path / "home"), kind="x")
    with pytest.raises(ValueError, match="is a file"):
        Run.open(Args(out=tmp_path / "home/letter.txt"), kind="x")
    assert os.listdir(tmp_path / "home") == ["letter.txt"]
    with pytest.raises(ValueError, match=r"home is not a run: there is no config\.json"):
        read_config(tmp_path / "home")


def test_killed_before_the_settings_were_written(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "run.lock").write_text("")
    (path / ".config.json.17.tmp").write_text("{")
    with Run.open(Args(out=path), kind="x"):
        assert not (path / ".config.json.17.tmp").exists()


def test_damaged_config_is_named(tmp_path):
    Run.open(Args(out=tmp_path / "run"), kind="x").close()
    for content in ("{", "[]", '{"kind": "x"}', ""):
        (tmp_path / "run/config.json").write_text(content)
        with pytest.raises(DamagedFileError, match=r"run/config\.json"):
            Run.open(Args(out=tmp_path / "run"), kind="x")


def test_other_versions_are_said_and_kept(tmp_path, monkeypatch, capsys):
    args = Args(out=tmp_path / "run")
    Run.open(args, kind="x").close()
    monkeypatch.setattr("generative.training.run._cpu_name", lambda: "another")
    Run.open(args, kind="x").close()
    Run.open(args, kind="x").close()
    assert "other versions (cpu)" in capsys.readouterr().err
    assert len(json.loads((args.out / "versions.json").read_text())) == 2


def test_result_that_is_not_finite_is_refused(tmp_path):
    with Run.open(Args(out=tmp_path / "run"), kind="x") as run:
        with pytest.raises(ValueError, match="not finite"):
            run.finish({"score": float("nan")})
        assert not run.done


def test_changed_result_is_named(tmp_path):
    args = Args(out=tmp_path / "run")
    with Run.open(args, kind="x") as run:
        run.finish({"scores": [0.1, -1e-300, 3], "name": "Grün", "none": None})
    file = args.out / "result.json"
    whole = file.read_bytes()
    assert read_result(args.out) == {"scores": [0.1, -1e-300, 3], "name": "Grün", "none": None}
    for i in range(len(whole) - 1):
        if not whole[i : i + 1].isspace():
            for damaged in (whole[:i], whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :]):
                file.write_bytes(damaged)
                with pytest.raises(DamagedFileError, match=r"run/result\.json"):
                    read_result(args.out)


def test_seeds_depend_on_seed_name_and_numbers_only(tmp_path):
    with (
        Run.open(Args(out=tmp_path / "a", seed=1), kind="x") as a,
        Run.open(Args(out=tmp_path / "b", seed=1, lr=3.0), kind="y") as b,
        Run.open(Args(out=tmp_path / "c", seed=2), kind="x") as c,
    ):
        assert a.seed_for("step", 4) == b.seed_for("step", np.int64(4))
        assert a.rng("tracks", 1, 2).random() == b.rng("tracks", 1, 2).random()
        calls = [(), (0,), (1,), (0, 0), (1, 2), (1 + 2 * 2**32,), (12,)]
        seeds = {
            run.seed_for(name, *numbers)
            for run in (a, c)
            for name in ("step", "steps", "")
            for numbers in calls
        }
        assert len(seeds) == 2 * 3 * len(calls)
        assert all(0 <= seed < 2**63 for seed in seeds)


HOLD = """
import sys, time
from pathlib import Path
from generative.training.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_second_process_is_refused_and_told_who_is_there(tmp_path, holder):
    host = os.uname().nodename
    with pytest.raises(RunInUseError, match=f"in use by process {holder.pid} on {host}"):
        Run.open(Args(out=tmp_path), kind="x")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    Run.open(Args(out=tmp_path), kind="x").close()


def test_same_process_is_refused_until_it_closes(tmp_path):
    run = Run.open(Args(out=tmp_path), kind="x")
    with pytest.raises(RunInUseError, match=f"process {os.getpid()} "):
        Run.open(Args(out=tmp_path), kind="x")
    run.close()
    Run.open(Args(out=tmp_path), kind="x").close()


def test_forked_child_does_not_keep_the_lock(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "from generative.training.lock import FolderLock\n"
        "lock = FolderLock(Path(sys.argv[1]))\n"
        "child = os.fork()\n"
        "if child == 0: print(os.getpid(), flush=True); time.sleep(30)\n"
        "os._exit(0)\n"
    )
    result = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert result.stdout is not None
    child = int(result.stdout.readline())
    result.wait()
    try:
        lock.FolderLock(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_without_file_locks_process_and_start_time_decide(tmp_path, monkeypatch, holder):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    path = tmp_path / "run.lock"
    with pytest.raises(RunInUseError, match=str(holder.pid)):
        lock.FolderLock(tmp_path)
    owner = json.loads(path.read_text())
    # The same number, but a process that began at another time: the owner is gone.
    path.write_text(json.dumps(owner | {"started": "1"}))
    lock.FolderLock(tmp_path).release()
    path.write_text(json.dumps(owner | {"pid": 2**22 + 1}))
    lock.FolderLock(tmp_path).release()
    path.write_text("{")
    lock.FolderLock(tmp_path).release()
    path.write_text(json.dumps(owner | {"host": "elsewhere"}))
    with pytest.raises(RunInUseError, match="on elsewhere"):
        lock.FolderLock(tmp_path)


def test_versions_tell_and_decide_nothing(tmp_path, capsys):
    """Whatever becomes of them, the run goes on."""
    args = Args(out=tmp_path / "run")
    Run.open(args, kind="x").close()
    file = args.out / "versions.json"
    whole = file.read_text()
    for content in ("", "{", "null", "[null]", "[1, 2]", '"x"', "{}", "[[]]", "\udcff", "[" * 9999):
        file.write_bytes(content.encode(errors="surrogateescape"))
        Run.open(args, kind="x").close()
        assert file.read_text() == whole
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{file}: ")
        assert line.endswith("it is begun anew, versions.json.damaged is what it was")
        assert (args.out / "versions.json.damaged").read_bytes() == content.encode(
            errors="surrogateescape"
        )
    file.unlink()
    file.mkdir()
    Run.open(args, kind="x").close()
    assert file.read_text() == whole
    assert (args.out / "versions.json.damaged").is_dir()


def model(folder: Path, weights: bytes = b"weights") -> None:
    write_folder(folder, {"model.safetensors": weights, "config.json": b"{}"})


def finished(tmp_path: Path) -> Paths:
    model(tmp_path / "earlier/model", b"of an earlier run")
    args = Paths(out=tmp_path / "run", model=tmp_path / "earlier/model")
    with Run.open(args, kind="x") as run:
        model(run.path / "model")
        model(run.path / "agent/vision")
        model(run.path / "checkpoints/000010", b"a state")
        (run.path / "starts.safetensors").write_bytes(b"moments")
        run.finish({"loss": 0.5})
    with Run.open(args, kind="x") as run:
        assert run.done
        assert run.result == {"loss": 0.5}
    return args


def test_a_finished_run_knows_what_it_made(tmp_path):
    args = finished(tmp_path)
    shutil.rmtree(args.out / "checkpoints")  # they have books of their own

    def flip(file: Path) -> None:
        file.write_bytes(file.read_bytes()[:-1] + b"?")

    damages = {
        "model/model.safetensors": flip,
        "model/config.json": Path.unlink,
        "model/manifest.json": flip,
        "agent/vision/model.safetensors": flip,
        "agent/vision/manifest.json": Path.unlink,
        "starts.safetensors": flip,
    }
    for name, damage in damages.items():
        file = args.out / name
        before = file.read_bytes()
        damage(file)
        with (
            Run.open(args, kind="x") as run,
            pytest.raises(DamagedFileError, match=f"{file}: .*delete .*result.json, and the same"),
        ):
            assert run.done
        file.write_bytes(before)
    model(args.out / "model", b"of another run")
    with Run.open(args, kind="x") as run:
        with pytest.raises(DamagedFileError, match=r"run/model/manifest\.json: has changed since"):
            assert run.done
        (args.out / "result.json").unlink()  # as it says
        assert not run.done


def test_a_run_goes_on_with_the_models_that_it_was_begun_with(tmp_path):
    args = finished(tmp_path)
    shutil.rmtree(args.model)
    model(args.model, b"of another run")
    for _ in range(2):
        with pytest.raises(SettingsChangedError, match=r"was begun with another .*earlier/model"):
            Run.open(args, kind="x")
        (args.out / "result.json").unlink(missing_ok=True)  # finished or not
    shutil.rmtree(args.model)
    Run.open(args, kind="x").close()  # whoever has to read it says that it is gone
    model(args.model, b"of an earlier run")
    Run.open(args, kind="x").close()


def test_a_folder_in_the_place_of_a_file(tmp_path):
    args = Args(out=tmp_path / "run")
    Run.open(args, kind="x").close()
    (args.out / "config.json").unlink()
    (args.out / "config.json").mkdir()
    with pytest.raises(DamagedFileError, match=r"run/config\.json: is a folder"):
        Run.open(args, kind="x")
    for write in (write_file, append_file):
        with pytest.raises(IsADirectoryError, match=r"config\.json is a folder, where a file is"):
            write(args.out / "config.json", b"{}")
