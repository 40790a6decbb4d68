"""Record episodes: played at random, or by an agent with noise on its actions."""

from __future__ import annotations

from pathlib import Path

from agents.rounds.recording import QUICK_FIRST, record_episodes
from agents.rounds.recording import Recording as Args
from generative.training.cli import start
from generative.training.settings import recast

PRESETS = {
    "paper": Args(),
    "book": Args(episodes=1000, decisions=300, workers=8),
    "quick": recast(Args, QUICK_FIRST, action_repeat=3),
    "smoke": Args(episodes=4, decisions=12, action_repeat=3, anywhere=0.5, workers=0),
}


def main(args: Args) -> Path:
    """Returns the folder of the recorded episodes."""
    return record_episodes(args)


if __name__ == "__main__":
    start(main, PRESETS)
