"""Comparison of an agent's scores on the stock drawing and on ours.

    python benchmarks/drawings.py [--json FILE] [--tracks N] [--workers N]

The committed agent drives the first of the published tracks twice: with the stock game's drawing,
and with ours. The simulations are equal bit for bit; only pixels differ, by a quarter of a level. A
track's two scores still differ, as a car that steers by its observations soon takes another line.
The question is whether the means differ by more than chance. About four minutes for 50 tracks.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from pathlib import Path

import numpy as np

from agents.evaluation import EVALUATION_SEEDS, evaluate
from generative.training.run import collect_versions

AGENT = Path(__file__).parents[1] / "pretrained" / "carracing-dream"
DRAWINGS = {"stock": "CarRacing-v3", "ours": "WorldModels/FastCarRacing-v0"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--tracks", type=int, default=50, help="of the 100 published ones")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    args = parser.parse_args()

    seeds = EVALUATION_SEEDS[: args.tracks]
    found = {
        name: evaluate(AGENT, seeds, workers=args.workers, env_id=env_id)
        for name, env_id in DRAWINGS.items()
    }
    difference = found["ours"].scores - found["stock"].scores
    error = float(difference.std(ddof=1) / math.sqrt(len(difference)))
    report = {
        "tracks": args.tracks,
        "scores": {
            name: {
                "mean": round(evaluation.mean, 1),
                "std": round(evaluation.std, 1),
                "seconds": round(evaluation.seconds, 1),
                "scores": [round(float(score), 1) for score in evaluation.scores],
            }
            for name, evaluation in found.items()
        },
        "mean_difference": round(float(difference.mean()), 2),
        "standard_error": round(error, 2),
        "equal_scores": int((difference == 0).sum()),
        "machine": platform.processor() or platform.machine(),
        "versions": collect_versions()["packages"],
    }
    for name, row in report["scores"].items():
        print(f"{name + ' drawing':16}{row['mean']:8.1f} +/- {row['std']:.1f}, {row['seconds']} s")
    print(
        f"ours - stock     {difference.mean():7.1f} +/- {error:.1f} (standard error; median "
        f"{np.median(difference):.1f}, equal on {report['equal_scores']} of {args.tracks} tracks)"
    )
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written to {args.json}")


if __name__ == "__main__":
    main()
