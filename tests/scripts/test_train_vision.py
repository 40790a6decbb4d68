"""An autoencoder as V: trained, killed, continued, encoded with, and a whole run in its dream."""

import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

import scripts.train_in_dream as dream_script
from agents.rounds.vision import AutoencoderSettings
from agents.world_model_agent import WorldModelAgent
from generative.autoencoder import Autoencoder, ConvAutoencoderConfig
from generative.training.cli import parse
from generative.training.metrics import read_metrics
from scripts import encode_rollouts, train_mdnrnn, train_vision
from tests.commands import copy_run, crash, once, run_script, shared_base
from tests.generative.families.common import recorded_frames
from tests.reliability.test_train_in_dream_killed import outcome
from worldmodels.rollouts import RolloutStore, load_frames
from worldmodels.vision import NO_NOISE

SMOKE = train_vision.PRESETS["smoke"].model
WORDS = ("smoke-autoencoder", "--vision-rounds", 2, "--vision-steps", 2)


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory) -> Path:
    """Two short recorded episodes; do not change them."""
    folder = tmp_path_factory.mktemp("recorded")
    recorded_frames(folder)
    return folder / "episodes"


@pytest.fixture(scope="module")
def autoencoder_run(tmp_path_factory):
    """Folder of an undisturbed run in which both rounds train V; do not change it."""

    def make(folder):
        log = folder.parent / "operations of the autoencoder run"
        done = run_script("train_in_dream", *WORDS, "--out", folder, **crash(folder, log))
        assert done.returncode == 0, done.stderr
        log.rename(folder / "operations")

    return once(shared_base(tmp_path_factory), "a run with an autoencoder", make)


def train(script, *words: object) -> Path:
    return script.main(parse(script.PRESETS, argv=["smoke", *map(str, words)]))


def model_files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "model").iterdir()}


# ---------------------------------------------------------------------------------------------
# The stages
# ---------------------------------------------------------------------------------------------


def test_code_has_unit_scale_on_what_was_recorded(rollouts, tmp_path):
    folder = train(train_vision, "--out", tmp_path / "run", "--rollouts", rollouts)
    model = Autoencoder.from_pretrained(folder)
    frames = load_frames(RolloutStore(rollouts))
    x = torch.from_numpy(frames.transpose(0, 3, 1, 2)).float() / 255
    with torch.no_grad():
        z, again = model.encode(x).numpy(), model.reconstruct(x)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(z.std(0), 1, atol=1e-2)
    summary = json.loads((tmp_path / "run" / "result.json").read_text())
    assert summary["frames"] == len(frames)
    assert summary["recon"] == pytest.approx(float((again - x).square().sum()) / len(x), rel=1e-3)


@pytest.mark.nightly
def test_training_lowers_the_error(rollouts, tmp_path):
    """In every run that of ConvAutoencoder is lowered, in `tests/generative/test_families.py`."""
    words = ("--out", tmp_path / "run", "--rollouts", rollouts, "--steps", 101)
    train(train_vision, *words)
    errors = [line["mse"] for line in read_metrics(tmp_path / "run")]
    assert errors[-1] < errors[0]


def test_codes_are_encoded_without_noise_and_m_learns_from_them(rollouts, tmp_path):
    vision = train(train_vision, "--out", tmp_path / "v", "--rollouts", rollouts)
    encoded = train(
        encode_rollouts, "--out", tmp_path / "e", "--rollouts", rollouts, "--vision", vision
    )
    data = safetensors.numpy.load((encoded / "encoded.safetensors").read_bytes())
    model = Autoencoder.from_pretrained(vision)
    frames = load_frames(RolloutStore(rollouts))
    with torch.no_grad():
        for row in range(0, len(frames), 5):
            x = torch.from_numpy(frames[row : row + 1].transpose(0, 3, 1, 2)).float() / 255
            np.testing.assert_allclose(data["mu"][row], model.encode(x)[0], atol=5e-3)
    assert data["logvar"].dtype == np.float16
    assert (data["logvar"] == NO_NOISE).all()
    train(train_mdnrnn, "--out", tmp_path / "m", "--encoded", encoded)
    summary = json.loads((tmp_path / "m" / "result.json").read_text())
    assert np.isfinite(summary["nll"])


def test_goes_on_from_an_earlier_v(rollouts, tmp_path):
    """With a learning rate of nearly zero it is still the same."""
    first = train(train_vision, "--out", tmp_path / "a", "--rollouts", rollouts)
    words = ("--rollouts", rollouts, "--start-from", first)
    model = Autoencoder.from_pretrained(first)
    still = ("--loss.lr", 1e-9, "--loss.final-lr", 1e-9)
    again = train(train_vision, "--out", tmp_path / "b", *words, *still)
    other = Autoencoder.from_pretrained(again)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-4)


def test_what_does_not_fit_is_named(rollouts, tmp_path, capsys):
    ConvAutoencoderConfig((3, 64, 64), 5, (2, 2)).build().save_pretrained(tmp_path / "v5")
    with pytest.raises(ValueError, match=r"v5 holds a model of ConvAutoencoderConfig\(.*dim=5"):
        train(
            train_vision, "--out", tmp_path / "r", "--rollouts", rollouts,
            "--start-from", tmp_path / "v5",
        )  # fmt: skip
    assert not (tmp_path / "r").exists()
    with pytest.raises(SystemExit):
        parse(train_vision.PRESETS, argv=["smoke", "--model.image-shape", "3", "32", "32"])
    told = " ".join(re.sub("[│╭╮╰╯─|+]", " ", capsys.readouterr().err).split())
    assert "image_shape is (3, 32, 32); V sees frames of (3, 64, 64)" in told


@pytest.mark.nightly
def test_killed_and_continued_ends_as_if_never_stopped(rollouts, tmp_path):
    """From an earlier V, as in a later round; by SIGTERM, then by SIGKILL.

    In every run V of the plain command is, in `tests/generative/test_families.py` (ConvVAE), by the
    same loop, and a whole run with its Vs in `tests/reliability/test_train_in_dream_killed.py`.
    """
    torch.manual_seed(0)
    SMOKE.build().save_pretrained(tmp_path / "earlier")
    words = ("smoke", "--rollouts", rollouts, "--steps", 101, "--start-from", tmp_path / "earlier")
    whole, stopped, log = tmp_path / "whole", tmp_path / "stopped", tmp_path / "log"
    assert run_script("train_vision", *words, "--out", whole).returncode == 0
    expected = model_files(whole), json.loads((whole / "result.json").read_text())
    for number, status in ((signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)):
        env = crash(stopped / "metrics.jsonl", log, 1, number)
        assert run_script("train_vision", *words, "--out", stopped, **env).returncode == status
        assert not (stopped / "result.json").exists()
    assert run_script("train_vision", *words, "--out", stopped).returncode == 0
    assert (model_files(stopped), json.loads((stopped / "result.json").read_text())) == expected


# ---------------------------------------------------------------------------------------------
# A whole run
# ---------------------------------------------------------------------------------------------


def test_presets_differ_in_v_alone():
    for name, args in dream_script.PRESETS.items():
        if name.endswith("-autoencoder"):
            plain = dream_script.PRESETS[name.removesuffix("-autoencoder")]
            assert type(args.vision) is AutoencoderSettings
            assert vars(args) == {**vars(plain), "vision": args.vision}
            assert args.vision.model.latent_dim == plain.vision.model.latent_dim
            assert args.vision.steps == plain.vision.steps
            assert args.vision.batch_size == plain.vision.batch_size


def test_every_part_is_of_the_family_asked_for(autoencoder_run):
    assert (autoencoder_run / "result.json").exists()
    for folder in ("round-00/vision/model", "round-01/choose/agent/vision", "agent/vision"):
        assert type(Autoencoder.from_pretrained(autoencoder_run / folder)) is Autoencoder
    settings = json.loads((autoencoder_run / "config.json").read_text())["settings"]
    assert settings["vision"]["model"]["image_shape"] == [3, 64, 64]
    assert "beta" not in settings["vision"]["loss"]
    report = json.loads((autoencoder_run / "report.json").read_text())
    assert report["rounds"][0]["vae_recon"] > 0
    assert report["rounds"][0]["vae_kl"] is None
    agent = WorldModelAgent.from_pretrained(autoencoder_run / "agent")
    frame = np.random.default_rng(0).integers(256, size=(96, 96, 3), dtype=np.uint8)
    action, _ = agent.predict(frame)
    assert np.isfinite(action).all()


def test_a_later_round_goes_on_from_the_v_before(autoencoder_run):
    settings = json.loads((autoencoder_run / "round-01/vision/config.json").read_text())["settings"]
    assert settings["start_from"] == str(autoencoder_run / "round-00/vision/model")
    assert settings["steps"] == 2
    first, second = (model_files(autoencoder_run / f"round-0{i}/vision") for i in (0, 1))
    assert first["config.json"] == second["config.json"]
    assert first["model.safetensors"] != second["model.safetensors"]


def test_resume_reads_the_family_back(autoencoder_run, tmp_path):
    copy = copy_run(autoencoder_run, tmp_path / "a copy")
    for name in ("agent", "final", "round-01/choose"):
        shutil.rmtree(copy / name)
    for name in ("result.json", "evaluation.json", "final.seconds", "round-01/choose.seconds"):
        (copy / name).unlink()
    done = run_script("train_in_dream", "--resume", copy)
    assert done.returncode == 0, done.stderr
    assert outcome(copy) == outcome(autoencoder_run)


def test_another_family_in_the_same_folder_is_refused(autoencoder_run):
    done = run_script("train_in_dream", "smoke", "--out", autoencoder_run)
    assert done.returncode == 1
    assert "vision.loss.beta: it has '(not there)', you ask for 1.0" in done.stderr
    assert "Choose another folder" in done.stderr


@pytest.mark.slow
def test_whole_run_killed_and_continued_ends_as_if_never_stopped(autoencoder_run, tmp_path):
    run, rng = tmp_path / "stopped", np.random.default_rng(3)
    operations = int((autoencoder_run / "operations").read_text())
    for _ in range(3):
        at = int(rng.uniform(0.1, 0.3) * operations)
        env = crash(run, tmp_path / "struck", at)
        done = run_script("train_in_dream", *WORDS, "--out", run, **env)
        assert done.returncode == -signal.SIGKILL, done.stderr
    done = run_script("train_in_dream", *WORDS, "--out", run)
    assert done.returncode == 0, done.stderr
    assert outcome(run) == outcome(autoencoder_run)
