"""Settings of runs that were begun before something could be chosen: they load as they were."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from generative.training.run import Run, SettingsChangedError, read_config
from generative.training.settings import from_json, to_json
from scripts import (
    train_attention_gan,
    train_classifier,
    train_clip,
    train_code_prior,
    train_conditional_gan,
    train_controlnet,
    train_diffusion,
    train_flamingo,
    train_gpt,
    train_kl_autoencoder,
    train_latent_diffusion,
    train_pix2pix,
    train_prior,
    train_progan,
    train_stylegan,
    train_stylegan2,
    train_text_to_codes,
    train_text_to_image,
    train_vae_gan,
)

ADDED = {"optimizer", "warmup", "beta2"}


def older(settings: Any, added: set[str]) -> Any:
    """Settings without what has been added, at any depth; ".name" at the top alone."""
    if not isinstance(settings, dict):
        return settings
    inside = {name for name in added if not name.startswith(".")}
    return {
        name: older(value, inside)
        for name, value in settings.items()
        if name not in added and f".{name}" not in added
    }


OLDER = pytest.mark.parametrize(
    ("script", "preset", "added"),
    [
        (train_attention_gan, "smoke", {"projected", "features"}),
        (train_classifier, "digits", ADDED | {"clip", "ema", "mirror", "noise", "vit"}),
        (train_conditional_gan, "smoke", {"generator", "projected", "features"}),
        (train_clip, "emoji", ADDED - {"warmup"}),
        (train_code_prior, "smoke", ADDED),
        (train_controlnet, "paper", ADDED | {"scale", "hint", "block", "sigma_data"}),
        (train_diffusion, "two-moons", ADDED),
        (train_prior, "smoke", ADDED | {"weighting"}),
        (train_pix2pix, "sprites", {"std_group"}),
        (train_progan, "smoke", {"projected", "features"}),
        (train_stylegan, "smoke", {"projected", "features"}),
        (train_pix2pix, "smoke", {"noise_dim", "projected", "features"}),
        (train_gpt, "smoke", {"rotary", "shift"}),
        (train_flamingo, "smoke", {"places", "shift", "latent_dim"}),
        (train_text_to_codes, "smoke", ADDED - {"warmup"}),
        (train_kl_autoencoder, "emoji", {"recon"}),
        (train_vae_gan, "smoke", {"projected", ".features"}),
        (train_text_to_image, "emoji", ADDED | {"interval", "scenes", "spelled", "sigma_data"}),
    ],
)


@OLDER
def test_what_an_older_run_does_not_say_is_what_it_had(script, preset, added):
    """Adam, absolute errors, guidance everywhere."""
    args = script.PRESETS[preset]
    assert from_json(type(args), older(to_json(args), added)) == args


@OLDER
def test_an_older_run_goes_on(script, preset, added, tmp_path):
    """By the same command; then its settings are written as they are now."""
    args = replace(script.PRESETS[preset], out=tmp_path / "run")
    with Run.open(args, kind="any"):
        pass
    file = args.out / "config.json"
    now = json.loads(file.read_text())
    file.write_text(json.dumps({**now, "settings": older(now["settings"], added)}))
    with Run.open(args, kind="any"):
        assert json.loads(file.read_text()) == now
    changed = older(now["settings"], added) | {"batch_size": 44}
    file.write_text(json.dumps({**now, "settings": changed}))
    with (
        pytest.raises(SettingsChangedError, match="batch_size: it has 44") as caught,
        Run.open(args, kind="any"),
    ):
        pass
    assert "not there" not in str(caught.value)


def test_the_committed_run_of_emoji_can_be_read():
    _, settings = read_config(Path(__file__).parents[2] / "pretrained" / "emoji")
    args = from_json(train_latent_diffusion.Args, settings)
    assert {args.clip_loss.optimizer, args.loss.optimizer} == {"adam"}


def test_an_older_classifier_named_one_factor():
    args = train_classifier.PRESETS["sprites"]
    settings = to_json(args)
    assert settings["factor"] == ["shape"]
    assert from_json(train_classifier.Args, {**settings, "factor": "shape"}) == args


def test_an_older_stylegan2_had_a_residual_critic():
    args = train_stylegan2.PRESETS["smoke"]
    assert from_json(type(args), older(to_json(args), {"projected", "features"})) == args
