"""Speed of dreams for a learner, by `DreamVecEnv` and by `DreamVectorEnv`.

    OMP_NUM_THREADS=1 python benchmarks/sb3_dream.py [--json FILE] [--rounds N]

Steps of all lanes together, per CPU-second on one thread, with the committed V and M and the
settings of `train_ppo.py dream`: as tensors, through Stable-Baselines3's NumPy interface, and by
the Gymnasium vector environment, whose lanes each have their own generator. The ways take turns;
the medians are printed. About a minute.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from envs.dream import DreamVectorEnv
from envs.sb3 import DreamVecEnv

PRETRAINED = Path(__file__).parents[1] / "pretrained" / "carracing-dream"
LANES = (256, 1024, 4096)
SETTINGS = {"horizon": 150, "temperature": 1.15, "reward_clip": (-1.0, 6.0)}


def ways(lanes: int) -> dict[str, Callable[[], object]]:
    """One step of every way, with fixed actions."""
    actions = np.random.default_rng(0).uniform([-1, 0, 0], 1, (lanes, 3)).astype(np.float32)
    tensors = torch.from_numpy(actions)
    ours = DreamVecEnv(lanes, PRETRAINED, pace_cap=2.7, stagger=True, **SETTINGS)
    theirs = DreamVectorEnv(lanes, PRETRAINED, **SETTINGS)
    ours.reset()
    theirs.reset(seed=0)
    return {
        "DreamVecEnv, tensors": lambda: ours.step_tensors(tensors),
        "DreamVecEnv, NumPy": lambda: ours.step(actions),
        "DreamVectorEnv": lambda: theirs.step(actions),
    }


def rate(step: Callable[[], object], lanes: int, steps: int) -> float:
    """Lane steps per CPU-second."""
    start = time.process_time()
    for _ in range(steps):
        step()
    return lanes * steps / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, int]] = {}
    print(f"{'lanes':>6}{'':4}{'lane steps per CPU-second':>30}")
    for lanes in LANES:
        steps = {name: [] for name in ways(1)}
        turns = ways(lanes)
        for step in turns.values():
            step()  # fills caches
        for _ in range(args.rounds):
            for name, step in turns.items():
                steps[name].append(rate(step, lanes, max(2, 8192 // lanes)))
        found[str(lanes)] = {name: round(statistics.median(r)) for name, r in steps.items()}
        for name, median in found[str(lanes)].items():
            print(f"{lanes:6}{'':4}{name:22}{median:8,}", flush=True)
    report = {
        "lane_steps_per_cpu_second": found,
        "rounds": args.rounds,
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("torch", "numpy", "stable-baselines3")},
    }
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written to {args.json}")


if __name__ == "__main__":
    main()
