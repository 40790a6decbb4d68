"""Folders that do not fit together: what is said, and that nothing is left behind.

Every error must name the folder, what is in it and what to pass, and a refused command must leave
no run folder that would stand in the way of the right one.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from generative.autoencoder import ConvAutoencoderConfig
from generative.training.cli import parse
from generative.training.run import Run
from generative.vae.config import ConvVAEConfig
from scripts import (
    collect_rollouts,
    encode_rollouts,
    train_controller,
    train_in_dream,
    train_mdnrnn,
    train_vae,
    train_vision,
)
from worldmodels.configs import ControllerConfig, MDNRNNConfig
from worldmodels.controller import LinearController
from worldmodels.memory import MDNRNN
from worldmodels.rollouts import Episode, RolloutStore
from worldmodels.sequences import EncodedRollouts

CHANNELS = (2, 2, 4, 4)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Vs and Ms of 16 and 32 numbers in z, and what belongs to them; do not change it."""
    folder = tmp_path_factory.mktemp("a shelf")
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    episode = Episode(
        rng.integers(256, size=(6, 64, 64, 3), dtype=np.uint8),
        rng.uniform(0, 1, (5, 3)).astype(np.float32),
        np.ones(5, np.float32),
        np.zeros(5, bool),
    )
    RolloutStore(folder / "episodes").append(episode)
    for dim in (16, 32):
        ConvVAEConfig(latent_dim=dim, channels=CHANNELS).build().save_pretrained(folder / f"v{dim}")
        MDNRNN(MDNRNNConfig(latent_dim=dim, hidden_dim=8, predict_reward=True)).save_pretrained(
            folder / f"m{dim}"
        )
        LinearController(ControllerConfig(dim, 8)).save_pretrained(folder / f"c{dim}")
        EncodedRollouts(
            rng.normal(size=(6, dim)).astype(np.float16),
            np.zeros((6, dim), np.float16),
            np.pad(episode.actions, ((0, 1), (0, 0))),
            np.pad(episode.rewards, (0, 1)),
            np.zeros(6, bool),
            np.array([0, 6]),
        ).save(folder / f"e{dim}")
    ConvAutoencoderConfig(latent_dim=32).build().save_pretrained(folder / "v of another shape")
    MDNRNN(MDNRNNConfig(hidden_dim=8)).save_pretrained(folder / "m32 without rewards")
    LinearController(ControllerConfig(32, 9)).save_pretrained(folder / "c of another h")
    return folder


def refuse(script, shelf: Path, out: Path, *words: str) -> str:
    """The message of a command that must fail and leave nothing; {x} is x on the shelf."""
    words = [word.replace("{", f"{shelf}/").replace("}", "") for word in words]
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        script.main(parse(script.PRESETS, argv=["smoke", "--out", str(out), *words]))
    assert not out.exists()
    return str(caught.value).replace(f"{shelf}/", "")


DREAM = ("--memory", "{m32}", "--encoded", "{e32}")
REAL = ("--where", "real", "--evolution.popsize", "2", "--evolution.generations", "1")


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        # z of 16 where an M of 32 is trained
        (
            train_mdnrnn,
            ("--encoded", "{e16}"),
            "e16 holds z of 16 dimensions, this M is to have 32; pass --model.latent-dim 16",
        ),
        (
            train_mdnrnn,
            ("--encoded", "{e32}", "{e16}"),
            "cannot join encoded rollouts whose (z, action) sizes are [(32, 3), (16, 3)]; encode "
            "all of them with one V",
        ),
        (
            train_mdnrnn,
            ("--encoded", "{e32}", "--start-from", "{m32}"),
            "m32 holds a model of MDNRNNConfig(latent_dim=32, ",
        ),
        # ... where an M of 32 dreams
        (
            train_controller,
            ("--memory", "{m32}", "--encoded", "{e16}"),
            "e16 holds z of 16 dimensions, the M of m32 was trained with 32; pass the encoded "
            "episodes it was trained on",
        ),
        # ... where it drives
        (
            train_controller,
            (*REAL, "--memory", "{m32}", "--vision", "{v16}"),
            "v16 holds a V with z of 16 dimensions, the M of m32 was trained with 32; pass the V "
            "that M was trained on",
        ),
        # C of another M
        (
            train_controller,
            (*DREAM, "--start-from", "{c16}"),
            "m32 holds an M of z 32, h 8 and actions 3, c16 a controller for z 16, h 8 and "
            "actions 3; pass the M it was trained with, or another start_from",
        ),
        (
            train_controller,
            (*REAL, "--memory", "{m32}", "--vision", "{v32}", "--start-from", "{c of another h}"),
            "c of another h a controller for z 32, h 9",
        ),
        (
            train_controller,
            ("--memory", "{m32 without rewards}", "--encoded", "{e32}"),
            "m32 without rewards holds an M without a reward head, and a dream needs rewards; "
            "train it with train_mdnrnn.py --model.predict-reward",
        ),
        # something else altogether
        (
            train_controller,
            ("--memory", "{v32}", "--encoded", "{e32}"),
            "v32 holds a ConvVAE, which cannot be M; pass the folder of an MDNRNN or "
            "TransformerMemory",
        ),
        (
            encode_rollouts,
            ("--vision", "{v of another shape}", "--rollouts", "{episodes}"),
            "the ConvAutoencoder of v of another shape is made for images of (1, 32, 32), V sees "
            "frames of (3, 64, 64)",
        ),
        (
            train_vision,
            ("--rollouts", "{episodes}", "--start-from", "{v32}"),
            "v32 holds a ConvVAE, not an Autoencoder; pass the folder of an Autoencoder",
        ),
        (
            encode_rollouts,
            ("--vision", "{m32}", "--rollouts", "{episodes}"),
            "m32 holds an MDNRNN, which cannot be V; pass the folder of a ConvVAE, ",
        ),
        (train_mdnrnn, ("--encoded", "{m32}"), "m32 holds MDNRNN, not EncodedRollouts"),
        (
            train_vae,
            ("--rollouts", "{episodes}", "--start-from", "{v16}"),
            "v16 holds a model of ConvVAEConfig(latent_dim=16",
        ),
        # wrong paths
        (train_vision, ("--rollouts", "{nothing}"), "no episodes in nothing; collect some with"),
        (train_vae, ("--rollouts", "{nothing}"), "no episodes in nothing; collect some with"),
        (train_vae, ("--rollouts", "{m32}"), "m32 is not a rollout store"),
        (encode_rollouts, ("--vision", "{nothing}"), "nothing: no such folder"),
        (
            train_mdnrnn,
            ("--encoded", "{nothing}"),
            "nothing: no such folder; make it with `worldmodels encode_rollouts`",
        ),
        (train_controller, ("--memory", "{nothing}"), "nothing: no such folder"),
        (
            collect_rollouts,
            ("--agent", "{v32}"),
            "v32 holds no agent; pass the `agent` folder of a train_in_dream run",
        ),
    ],
)
def test_what_does_not_fit_is_named(shelf, tmp_path, script, words, message):
    assert message in refuse(script, shelf, tmp_path / "run", *words)


def test_the_command_works_once_the_path_is_right(shelf, tmp_path):
    """And so after a mistake in the same folder."""
    out = tmp_path / "run"
    refuse(train_mdnrnn, shelf, out, "--encoded", "{nothing}")
    words = ["smoke", "--out", str(out), "--encoded", str(shelf / "e32")]
    assert train_mdnrnn.main(parse(train_mdnrnn.PRESETS, argv=words)) == out / "model"
    assert MDNRNN.from_pretrained(out / "model").config.latent_dim == 32


def test_a_failure_later_on_keeps_what_was_done(shelf, tmp_path):
    args = parse(train_mdnrnn.PRESETS, argv=["smoke", "--out", str(tmp_path / "run")])
    with pytest.raises(ZeroDivisionError), Run.open(args, kind="train_mdnrnn") as run:
        run.metrics.log(1, {"loss": 1.0})
        raise ZeroDivisionError
    assert (tmp_path / "run" / "config.json").exists()


def test_a_gradient_of_real_tracks_is_refused_before_anything_is_written(tmp_path, capsys):
    out = tmp_path / "run"
    for method in ("gradient", "both"):
        with pytest.raises(SystemExit) as caught:
            parse(
                train_controller.PRESETS,
                argv=["smoke", "--out", str(out), "--where", "real", "--method", method],
            )
        assert caught.value.code == 2
        assert "real tracks have no gradient" in capsys.readouterr().err
        with pytest.raises(ValueError, match="use method cma, or where dream"):
            train_controller.Args(where="real", method=method)
    assert not out.exists()


@pytest.mark.parametrize("changes", [{}, {"agent": Path("pretrained/doom-take-cover")}])
def test_starts_anywhere_on_a_track_need_our_drawing(changes, tmp_path):
    """The stock game ignores the option, and the recording would say that it had been done."""
    settings = {"out": tmp_path / "out", "workers": 0, "episodes": 1, "decisions": 3, **changes}
    env = "" if changes else "CarRacing-v3"
    told = (
        "anywhere is 0.5, but .* always begins at the start: set it to 0, or record WorldModels/Car"
    )
    with pytest.raises(ValueError, match=told):
        collect_rollouts.main(collect_rollouts.Args(env=env, anywhere=0.5, **settings))
    assert not (tmp_path / "out").exists()
    args = replace(train_in_dream.PRESETS["smoke"], out=tmp_path / "run", env="CarRacing-v3")
    with pytest.raises(ValueError, match=r"first\.anywhere is 0\.5, but CarRacing-v3"):
        train_in_dream.main(args)


def test_the_papers_presets_are_the_papers():
    """Ha & Schmidhuber (2018), appendix A; dreams pay what M says."""
    args = train_in_dream.PRESETS["paper"]
    assert args.pace is None
    assert args.controller.reward_quantile is None
    assert args.controller.dream.reward_clip is None
    assert args.controller.max_idle is None
    assert (args.first.episodes, args.first.decisions, args.first.anywhere) == (10_000, 1000, 0.0)
    for memory in (args.memory, train_mdnrnn.PRESETS["paper"]):
        assert (memory.loss.lr, memory.loss.final_lr, memory.loss.clip_value) == (1e-3, "paper", 1)
        assert (memory.batch_size, memory.length) == (100, 999)
    assert (args.vision.loss.lr, args.vision.loss.final_lr) == (1e-4, 1e-4)
    evolution = train_controller.PRESETS["paper"].evolution
    assert (evolution.popsize, evolution.sigma, evolution.generations) == (64, 0.1, 1800)
