"""The stages one after another by command line: smoke presets, default paths, spaces in the path.

What they wrote is read without the project's own readers wherever that says more.
"""

import hashlib
import importlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from generative.training.cli import parse
from generative.training.run import SettingsChangedError
from generative.vae import ConvVAE
from scripts import train_controller
from tests.commands import copy_run, imported, once, read_lines, run_script, shared_base, snapshot

STAGES = {
    "collect_rollouts": "rollouts",
    "train_vae": "vae",
    "encode_rollouts": "encoded",
    "train_mdnrnn": "mdnrnn",
}
"""Scripts and where they write by default, in `runs`."""

TINY = ("--evolution.popsize", 2, "--evolution.generations", 1, "--evaluation.episodes", 1)
CONTROLLERS = {
    "dream cma": (),
    "dream gradient": ("--method", "gradient"),
    "dream both": ("--method", "both"),
    "real cma": ("--where", "real", "--action-repeat", 3, *TINY),
}


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """A working folder in which everything up to M was run; do not change it."""

    def make(folder):
        folder.mkdir()
        for script in STAGES:
            done = run_script(script, "smoke", cwd=folder)
            assert done.returncode == 0, done.stderr

    return once(shared_base(tmp_path_factory), "a working folder", make) / "runs"


@pytest.fixture(scope="module")
def episodes(work):
    """What was recorded, in order."""
    found = []
    for path in sorted((work / "rollouts" / "episodes").glob("episode-*.npz")):
        with np.load(path) as archive:
            found.append({name: archive[name] for name in archive.files if name != "info.json"})
    return found


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def tensors(path: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load(path.read_bytes())


def test_collect(work, episodes):
    assert len(episodes) == 4
    lines = read_lines(work / "rollouts" / "episodes" / "index.jsonl")
    for line, episode in zip(lines, episodes, strict=True):
        data = (work / "rollouts" / "episodes" / line["file"]).read_bytes()
        assert line["sha256"] == hashlib.sha256(data).hexdigest()
        decisions = len(episode["actions"])
        assert 1 <= decisions <= 12
        assert episode["frames"].shape == (decisions + 1, 3, 64, 64)
        assert episode["frames"].std() > 10
        assert line["info"]["action_repeat"] == 3
    summary = result(work / "rollouts")
    assert summary["episodes"] == 4
    assert summary["frames"] == sum(len(episode["frames"]) for episode in episodes)
    returns = [episode["rewards"].sum(dtype=np.float64) for episode in episodes]
    assert summary["return_mean"] == pytest.approx(np.mean(returns), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "logged"),
    [("vae", {"loss", "recon", "kl"}), ("mdnrnn", {"loss", "nll", "reward", "end"})],
)
def test_gradient_training(work, episodes, name, logged):
    lines = read_lines(work / name / "metrics.jsonl")
    assert [line["step"] for line in lines] == [5]
    assert logged <= lines[0].keys()
    summary = result(work / name)
    assert summary["frames"] == sum(len(episode["frames"]) for episode in episodes)
    assert all(np.isfinite(summary[key]) and summary[key] == lines[0][key] for key in logged)
    saved = tensors(work / name / "model" / "model.safetensors")
    kept = tensors(work / name / "checkpoints" / "000005" / "state.safetensors")
    # The checkpoint keeps strides; sorted, equal weights are equal bytes.
    known = {np.sort(array, axis=None).tobytes() for array in kept.values()}
    for key, array in saved.items():
        assert np.isfinite(array).all(), key
        assert np.sort(array, axis=None).tobytes() in known, key
    versions = json.loads((work / name / "versions.json").read_text())
    assert versions[0]["packages"]["torch"] == importlib.metadata.version("torch")
    assert json.loads((work / name / "config.json").read_text())["settings"]["steps"] == 5


def test_encode(work, episodes):
    data = tensors(work / "encoded" / "data" / "encoded.safetensors")
    frames = np.concatenate([episode["frames"] for episode in episodes])
    model = ConvVAE.from_pretrained(work / "vae" / "model")
    with torch.no_grad():
        for row in range(0, len(frames), 7):  # one by one, in the plainest layout
            x = torch.from_numpy(frames[row : row + 1]).float() / 255
            mu, logvar = model.encode_mu_logvar(x)
            np.testing.assert_allclose(data["mu"][row], mu[0], atol=2e-3)
            np.testing.assert_allclose(data["logvar"][row], logvar[0], atol=2e-3)
    pad = {"actions": ((0, 1), (0, 0)), "rewards": (0, 1), "terminated": (0, 1)}
    for name, width in pad.items():
        expected = np.concatenate([np.pad(episode[name], width) for episode in episodes])
        np.testing.assert_array_equal(data[name], expected)
    lengths = [len(episode["frames"]) for episode in episodes]
    np.testing.assert_array_equal(data["starts"], np.cumsum([0, *lengths]))
    assert result(work / "encoded") == result(work / "encoded") | {
        "episodes": 4,
        "frames": sum(lengths),
    }


@pytest.mark.parametrize("name", CONTROLLERS)
def test_controller(work, episodes, tmp_path, name):
    out = tmp_path / "a controller"
    words = ("smoke", "--out", out, *CONTROLLERS[name])
    done = run_script("train_controller", *words, cwd=work.parent)
    assert done.returncode == 0, done.stderr
    model = tensors(out / "model-0" / "model.safetensors")
    # z of 32 and h of 16 numbers in, 3 actions out.
    assert {key: array.shape for key, array in model.items()} == {
        "linear.weight": (3, 48),
        "linear.bias": (3,),
    }
    if "cma" in name:  # a climb that gets nowhere gives back its start, zeros
        assert all(np.abs(array).max() > 0 for array in model.values())
    summary = result(out)
    assert len(summary["returns"]) == len(summary["curves"]) == 1
    assert np.isfinite(summary["returns"] + summary["curves"][0]).all()

    settings = train_controller.PRESETS["smoke"]
    evolution, climb, test = settings.evolution, settings.gradient, settings.test_dreams
    assert (evolution.generations, climb.steps, settings.dream.horizon) == (2, 2, 5)
    cma = 2 * evolution.popsize * settings.evaluation.episodes
    # Checked before the first and after the second and last step.
    gradient = 2 * climb.lanes + 2 * climb.check_dreams
    dreams, steps = {
        "dream cma": (cma + test, 2),
        "dream gradient": (gradient + test, 2),
        "dream both": (cma + gradient + test, 4),
        "real cma": (0, 1),
    }[name]
    assert summary["dream_steps"] == dreams * 5
    assert len(summary["curves"][0]) == steps
    assert summary["real_episodes"] == (1 * 2 + 1 if name == "real cma" else 0)

    journal = out / "search-0" / "journal.jsonl"
    if "cma" in name or "both" in name:
        averages = [np.mean(line["scores"]) for line in read_lines(journal)]
        np.testing.assert_allclose(summary["curves"][0][: len(averages)], averages, rtol=1e-6)
    else:
        assert not journal.exists()
    if name.startswith("dream"):
        rewards = np.concatenate([np.pad(episode["rewards"], (0, 1)) for episode in episodes])
        low, high = summary["reward_clip"]
        assert low == pytest.approx(rewards.min(), abs=1e-6)
        assert low < high <= rewards.max() + 1e-6
        # With at most 12 decisions an episode, every moment is at most 12 after a reward.
        starts = tensors(out / "starts.safetensors")
        assert len(starts["z"]) == sum(len(episode["actions"]) for episode in episodes)
        assert (starts["h"].shape[1], starts["z"].shape[1]) == (16, 32)
    else:
        assert summary["reward_clip"] is None
        assert not (out / "starts.safetensors").exists()


# ---------------------------------------------------------------------------------------------
# Again
# ---------------------------------------------------------------------------------------------


def test_the_same_call_again_does_nothing(work, monkeypatch):
    monkeypatch.chdir(work.parent)
    before = snapshot(work, times=True)
    for name in STAGES:
        script = importlib.import_module(f"scripts.{name}")
        script.main(parse(script.PRESETS, argv=["smoke"]))
    assert snapshot(work, times=True) == before


def test_resume_goes_on_from_the_checkpoint(work, tmp_path):
    """In folders that were moved, and by an absolute path where it was a relative one."""
    run = copy_run(work, tmp_path / "runs") / "vae"
    expected = (run / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(run / "model")
    (run / "result.json").unlink()
    done = run_script("train_vae", "--resume", run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (run / "model" / "model.safetensors").read_bytes() == expected
    assert [line["step"] for line in read_lines(run / "metrics.jsonl")] == [5]
    assert result(run) == result(work / "vae")


def test_resume_refuses_other_settings(work):
    before = snapshot(work, times=True)
    changes = ("--batch-size", 6, "--loss.lr", 1, "--steps", 6)  # more steps alone are welcome
    done = run_script("train_vae", "--resume", work / "vae", *changes)
    assert done.returncode == 2
    assert "batch_size: stays 8, not 6" in done.stderr
    assert "steps: stays" not in done.stderr
    assert "loss.lr: stays 0.0001, not 1.0" in done.stderr
    done = run_script("train_mdnrnn", "--resume", work / "vae")
    assert done.returncode == 2
    assert "is a run of train_vae" in done.stderr
    assert snapshot(work, times=True) == before


def test_other_settings_are_refused_and_listed(work, monkeypatch):
    monkeypatch.chdir(work.parent)
    before = snapshot(work, times=True)
    script = importlib.import_module("scripts.train_mdnrnn")
    args = parse(script.PRESETS, argv=["smoke", "--model.hidden-dim", "17", "--seed", "3"])
    with pytest.raises(SettingsChangedError) as caught:
        script.main(args)
    assert "model.hidden_dim: it has 16, you ask for 17" in str(caught.value)
    assert "seed: it has 1, you ask for 3" in str(caught.value)
    assert snapshot(work, times=True) == before


def test_a_moved_experiment_is_still_finished(work, tmp_path, monkeypatch):
    """All runs moved together: paths from one to the other still lead where they did."""
    copy_run(work, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path / "elsewhere", times=True)
    for name, folder in STAGES.items():
        script = importlib.import_module(f"scripts.{name}")
        words = ["smoke", "--out", f"elsewhere/{folder}"]
        if name in ("train_vae", "encode_rollouts"):
            words += ["--rollouts", "elsewhere/rollouts/episodes"]
        if name == "encode_rollouts":
            words += ["--vision", "elsewhere/vae/model"]
        if name == "train_mdnrnn":
            words += ["--encoded", "elsewhere/encoded/data"]
        script.main(parse(script.PRESETS, argv=words))
    after = snapshot(tmp_path / "elsewhere", times=True)
    changed = {Path(name).name for name in after if after[name] != before[name]}
    assert changed == {"config.json"}


def test_workers_record_the_same_episodes(work, tmp_path):
    """And the console command is the same as the script."""
    words = ("collect-rollouts", "smoke", "--workers", "2", "--out", tmp_path / "two workers")
    program = Path(sys.executable).with_name("worldmodels")
    start = [program] if program.exists() else [sys.executable, "-m", "scripts"]
    done = subprocess.run(
        [*map(str, [*start, *words])], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    found = snapshot(tmp_path / "two workers" / "episodes")
    assert found == snapshot(work / "rollouts" / "episodes")


def test_a_finished_stage_loads_no_game(work):
    done = run_script("collect_rollouts", "smoke", cwd=work.parent, modules=True)
    assert done.returncode == 0, done.stderr
    assert "gymnasium" not in imported(done)
