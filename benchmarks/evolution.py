"""Share of CMA-ES itself in the time of a generation.

    OMP_NUM_THREADS=1 python benchmarks/evolution.py [--json FILE] [--generations N]

Ask and tell at the 867 parameters of CarRacing's controller: ours, pycma with its defaults, and the
package `cmaes` if it is installed, in turns in one process, so that all run under equal conditions.
Then the time to score a generation in the dream, and the time to resume a killed search. Times are
CPU time of this process, all threads together, so other work on the machine matters little. Under
two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from worldmodels.configs import DreamConfig, EvolutionConfig
from worldmodels.controller import LinearController
from worldmodels.dreaming.rollout import Dream
from worldmodels.dreaming.starts import DreamStarts
from worldmodels.evolution import CMAES, evolve
from worldmodels.memory import MDNRNN

PRETRAINED = Path(__file__).parents[1] / "pretrained/carracing-dream"
PARAMETERS = 867
OPTIMUM = np.random.default_rng(0).standard_normal(PARAMETERS)


def scores_of(candidates: np.ndarray, generation: int = 0) -> np.ndarray:
    """Scores that are higher near the optimum and cost almost nothing."""
    return -np.square(candidates - OPTIMUM).sum(1)


def ours(popsize: int, **settings) -> Callable[[], None]:
    """One generation of `worldmodels.evolution`."""
    strategy = CMAES(np.zeros(PARAMETERS), EvolutionConfig(popsize, **settings), seed=1)

    def generation() -> None:
        candidates = strategy.ask()
        strategy.tell(candidates, scores_of(candidates))

    return generation


def plain_pycma(popsize: int) -> Callable[[], None]:
    """One generation of pycma with its own settings."""
    import cma

    options = {"popsize": popsize, "verbose": -9, "seed": 1}
    strategy = cma.CMAEvolutionStrategy(np.zeros(PARAMETERS), 0.1, options)

    def generation() -> None:
        candidates = strategy.ask()
        strategy.tell(candidates, -scores_of(np.asarray(candidates)))

    return generation


def plain_cmaes(popsize: int) -> Callable[[], None] | None:
    """One generation of the package `cmaes`; None if it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its optional parts
            from cmaes import CMA
    except ImportError:
        return None
    strategy = CMA(np.zeros(PARAMETERS), 0.1, population_size=popsize, seed=1)

    def generation() -> None:
        candidates = [strategy.ask() for _ in range(popsize)]
        values = -scores_of(np.asarray(candidates))
        strategy.tell(list(zip(candidates, values.tolist(), strict=True)))

    return generation


def time_generations(popsize: int, generations: int) -> dict[str, float]:
    """CPU milliseconds per generation of each, including decompositions of the covariance."""
    contestants = {
        "ours": ours(popsize),
        "ours, diagonal": ours(popsize, diagonal=True),
        "pycma's defaults": plain_pycma(popsize),
        "cmaes": plain_cmaes(popsize),
    }
    seconds = dict.fromkeys((name for name, run in contestants.items() if run), 0.0)
    counts, turn = dict.fromkeys(seconds, 0), 10
    for first in range(0, generations, turn):
        for name in seconds:
            # A generation of cmaes takes seconds, and all take the same time.
            count = int(first == 0) if name == "cmaes" else turn
            begin = time.process_time()
            for _ in range(count):
                contestants[name]()
            seconds[name] += time.process_time() - begin
            counts[name] += count
    return {name: 1000 * spent / counts[name] for name, spent in seconds.items()}


def time_dream(popsize: int, rollouts: int, horizon: int) -> float:
    """CPU milliseconds in which the dream scores a generation."""
    memory = MDNRNN.from_pretrained(PRETRAINED / "memory").requires_grad_(False)
    controller = LinearController.from_pretrained(PRETRAINED / "controller")
    starts = DreamStarts.load(PRETRAINED / "starts.safetensors")
    dream = Dream(memory, controller.config, DreamConfig(horizon=horizon, bf16="auto"))
    rng = np.random.default_rng(1)
    vector = controller.to_vector()
    candidates = vector + 0.1 * torch.from_numpy(rng.standard_normal((popsize, PARAMETERS))).float()
    chosen, spent = starts.draw(rollouts, rng), []
    for seed in range(4):
        begin = time.process_time()
        dream.evaluate(candidates, chosen, seed)
        spent.append(1000 * (time.process_time() - begin))
    return statistics.median(spent[1:])


def time_resume(popsize: int, generations: int) -> float:
    """CPU milliseconds per generation to resume a killed search."""
    config = EvolutionConfig(popsize, generations=generations)
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.jsonl"
        evolve(scores_of, np.zeros(PARAMETERS), config, seed=1, journal=journal)
        begin = time.process_time()
        evolve(scores_of, np.zeros(PARAMETERS), config, seed=1, journal=journal)
        return 1000 * (time.process_time() - begin) / generations


def versions_of(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--generations", type=int, default=60, help="to time, in steps of 10")
    args = parser.parse_args()
    torch.set_num_threads(1)

    print(f"ask and tell, {PARAMETERS} parameters{'population':>14}{'CPU ms':>10}{'ours':>8}")
    tables = {}
    for popsize in (16, 64, 256):
        times = time_generations(popsize, args.generations)
        for name, spent in times.items():
            print(f"  {name:29}{popsize:12}{spent:10.1f}{spent / times['ours']:7.1f}x")
        if "cmaes" not in times:
            print(f"  {'cmaes':29}{popsize:12}  not installed: pip install -e '.[bench]'")
        tables[popsize] = {name: round(spent, 2) for name, spent in times.items()}

    popsize, rollouts, horizon = 64, 16, 50
    dream, own = time_dream(popsize, rollouts, horizon), tables[popsize]
    shares = {name: spent / (spent + dream) for name, spent in own.items()}
    print(f"\nthe dream scores {popsize} x {rollouts} x {horizon} steps in {dream:.0f} CPU ms")
    for name, share in shares.items():
        print(f"  {'share of the generation, ' + name:54}{share:7.1%}")
    resume = time_resume(popsize, args.generations)
    print(f"\nback after {1.8 * resume:.0f} s of CPU time in a search of 1,800 generations")
    if args.json:
        report = {
            "ask_and_tell_ms": tables,
            "dream_ms": round(dream, 1),
            "share_of_generation": {name: round(share, 4) for name, share in shares.items()},
            "resume_ms_per_generation": round(resume, 2),
            "generations": args.generations,
            "blas_threads": os.environ.get("OMP_NUM_THREADS", "as the machine has cores"),
            "machine": platform.processor() or platform.machine(),
            "versions": versions_of("cma", "cmaes", "numpy", "torch"),
        }
        args.json.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written to {args.json}")


if __name__ == "__main__":
    main()
