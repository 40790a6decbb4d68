"""Times that the help of training commands states are those of the committed reports."""

import importlib
import json

import pytest

from benchmarks.minutes import VERBS
from tests.commands import ROOT

RESULTS = ROOT / "docs/results"
CERTIFIED = {
    "train_image_vae": "vae-digits",
    "train_conditional_gan": "conditional-gan-sprites",
    "train_ffjord": "ffjord-two-moons",
    "train_pixelcnn": "pixelcnn-digits",
    "train_energy": "energy-two-moons",
    "train_score": "score-eight-gaussians",
    "train_diffusion": "diffusion-two-moons",
    "train_gpt": "gpt-reviews",
    "train_rlhf": "rlhf",
    "train_music_transformer": "music-transformer-chorales",
    "train_musegan": "musegan-chorales",
}
"""Certificates that train the default preset of a command, and measure it."""
WORDS = {
    60: "less than a minute",
    120: "1 to 2 minutes",
    300: "2 to 5 minutes",
    600: "5 to 10 minutes",
    1200: "10 to 20 minutes",
    2400: "20 to 40 minutes",
}


def seconds(verb: str, preset: str) -> float:
    """CPU seconds of a command, of the certificate or of the benchmark."""
    if verb in CERTIFIED:
        records = json.loads((RESULTS / "certificates.json").read_text())
        return records[CERTIFIED[verb]]["cpu_seconds"]
    record = json.loads((RESULTS / "benchmarks/minutes.json").read_text())["commands"][verb]
    assert record["preset"] == preset
    return record["cpu_seconds"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_states_the_time_of_the_report(verb):
    script = importlib.import_module(f"scripts.{verb}")
    preset = script.DEFAULT_PRESET
    spent = seconds(verb, preset)
    words = next(words for most, words in WORDS.items() if spent < most)
    sentence = f"The preset {preset} takes {words} on one core."
    assert sentence in " ".join(script.Args.__doc__.split())


def test_help_states_the_minutes_of_the_quick_rounds():
    script = importlib.import_module("scripts.train_in_dream")
    files = (RESULTS / f"quick-seed{seed}/report.json" for seed in (1, 2, 3))
    minutes = [json.loads(file.read_text())["wall_seconds"] / 60 for file in files]
    sentence = f"The preset quick takes {min(minutes):.0f} to {max(minutes):.0f} minutes on 2 cores"
    assert sentence in " ".join(type(script.PRESETS["quick"]).__doc__.split())
