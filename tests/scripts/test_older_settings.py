"""Settings of runs that were begun before Muon could be chosen: they load, with Adam."""

from pathlib import Path
from typing import Any

import pytest

from generative.training.run import read_config
from generative.training.settings import from_json, to_json
from scripts import (
    train_clip,
    train_code_prior,
    train_controlnet,
    train_diffusion,
    train_latent_diffusion,
    train_text_to_codes,
    train_text_to_image,
)

ADDED = {"optimizer", "warmup", "beta2"}


def older(settings: dict[str, Any], added: set[str]) -> dict[str, Any]:
    """The settings of a loss without what has been added."""
    loss = {name: value for name, value in settings["loss"].items() if name not in added}
    return {name: value for name, value in {**settings, "loss": loss}.items() if name not in added}


@pytest.mark.parametrize(
    ("script", "preset", "added"),
    [
        (train_clip, "emoji", ADDED - {"warmup"}),
        (train_code_prior, "smoke", ADDED),
        (train_controlnet, "paper", ADDED | {"scale"}),
        (train_diffusion, "two-moons", ADDED),
        (train_text_to_codes, "smoke", ADDED - {"warmup"}),
        (train_text_to_image, "emoji", ADDED),
    ],
)
def test_a_run_without_an_optimiser_of_choice_had_adam(script, preset, added):
    args = script.PRESETS[preset]
    assert args.loss.optimizer == "adam"
    assert from_json(type(args), older(to_json(args), added)) == args


def test_the_committed_run_of_emoji_can_be_read():
    _, settings = read_config(Path(__file__).parents[2] / "pretrained" / "emoji")
    args = from_json(train_latent_diffusion.Args, settings)
    assert {args.clip_loss.optimizer, args.loss.optimizer} == {"adam"}
