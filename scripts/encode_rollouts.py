"""Encode recorded frames with V: mu and logvar of every frame, beside actions and rewards."""

from __future__ import annotations

from pathlib import Path

from agents.rounds.encoding import Encoding as Args
from agents.rounds.encoding import encode
from generative.training.cli import start

PRESETS = {"paper": Args(), "smoke": Args(batch_size=32)}


def main(args: Args) -> Path:
    """Returns the folder of the encoded sequences."""
    return encode(args)


if __name__ == "__main__":
    start(main, PRESETS)
