"""Cost of sharing a population among workers, and prediction of the gain on a cluster.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py [--json FILE] [--page FILE] [--workers 1 2 4]

A population on real tracks and one in dreams, scored by as many bare loops as there are workers
(processes that were given their shares beforehand, and no framework at all), by processes, and on a
Ray of this machine, in turns. Then the same with a problem that costs nothing, which leaves the
price of the framework alone. From these figures follows what the paper's search, 64 candidates of
16 episodes of 1,000 steps for 1,800 generations, would take on more cores; docs/cluster.md gets
that table. Three minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from generative.training.parallel import ParallelConfig
from generative.training.platforms import count_cores
from worldmodels.configs import DreamConfig, EvaluationConfig
from worldmodels.scoring import Scoring

PRETRAINED = Path(__file__).parents[1] / "pretrained/carracing-dream"
MARKS = "<!-- prediction: begin -->", "<!-- prediction: end -->"
PAPER = {"candidates": 64, "episodes": 16, "steps": 1000, "generations": 1800}
STEPS = 400
"""Steps of a timed episode."""


def nothing(candidate: np.ndarray, seed: int) -> float:
    """A problem that costs nothing."""
    return 0.0


def real_tracks() -> Any:
    """V and M of the committed agent, which read every frame, as in the paper."""
    from agents.real_scores import RealTracks

    limits = {"max_episode_steps": STEPS}
    return RealTracks(PRETRAINED / "vision", PRETRAINED / "memory", 1, env_kwargs=limits)


def dreams() -> Any:
    """Dreams of 50 decisions."""
    from worldmodels.controller import LinearController
    from worldmodels.dream_returns import DreamReturns

    controller = LinearController.from_pretrained(PRETRAINED / "controller").config
    starts, config = PRETRAINED / "starts.safetensors", DreamConfig(horizon=50, bf16="auto")
    return DreamReturns(PRETRAINED / "memory", starts, controller, config, seed=1)


def population(count: int) -> np.ndarray:
    """Candidates around the committed controller, which drive to the end of an episode."""
    from worldmodels.controller import LinearController

    vector = LinearController.from_pretrained(PRETRAINED / "controller").to_vector().numpy()
    rng = np.random.default_rng(1)
    return vector + 0.02 * rng.standard_normal((count, len(vector)))


def _loop(problem: Any, shares: list, ready: Any, gate: Any, answers: Any) -> None:
    """Bare loop in its own process: one warm-up, then its whole share."""
    import torch

    torch.set_num_threads(1)
    score = getattr(problem, "score_batch", problem)
    score(*shares[0])
    ready.release()
    gate.wait()
    answers.put(sum(score(*share).steps for share in shares))


def bare(problem: Any, jobs: list, workers: int) -> float:
    """Steps per second of wall clock of bare loops."""
    context = multiprocessing.get_context("spawn")
    ready, gate, answers = context.Semaphore(0), context.Event(), context.Queue()
    loops = [
        context.Process(
            target=_loop, args=(problem, jobs[i::workers], ready, gate, answers), daemon=True
        )
        for i in range(workers)
    ]
    for loop in loops:
        loop.start()
    for _ in loops:
        ready.acquire()
    began = time.perf_counter()
    gate.set()
    steps = sum(answers.get() for _ in loops)
    seconds = time.perf_counter() - began
    for loop in loops:
        loop.join()
    return steps / seconds


def shared(evaluation: Scoring, candidates: np.ndarray, seeds: np.ndarray) -> float:
    """Steps per second of wall clock of an evaluation with warm workers."""
    evaluation.scores(candidates, seeds)
    evaluation.speed()
    evaluation.scores(candidates, seeds)
    return evaluation.speed()["steps_per_second"]


def contest(
    problem: Any,
    candidates: np.ndarray,
    seeds: np.ndarray,
    rows: int,
    counts: list[int],
    turns: int,
) -> dict[str, dict[str, float]]:
    """Steps per second of each by the number of workers, median over turns."""
    batched = hasattr(problem, "score_batch")
    if batched:
        jobs = [
            (candidates[i : i + rows], seeds[i : i + rows]) for i in range(0, len(candidates), rows)
        ]
    else:
        jobs = [(c, int(s)) for c, row in zip(candidates, seeds, strict=True) for s in row]
    config = EvaluationConfig(seeds.shape[1], candidates_per_task=rows)
    found: dict[str, dict[str, list[float]]] = {}
    for count in counts:
        for _ in range(turns):
            rates = {"bare loops": bare(problem, jobs, count)}
            for backend in ("processes", "ray"):
                with Scoring(problem, config, ParallelConfig(backend, count)) as evaluation:
                    rates[backend] = shared(evaluation, candidates, seeds)
            for name, rate in rates.items():
                found.setdefault(name, {}).setdefault(str(count), []).append(rate)
    return {
        name: {count: round(statistics.median(rates), 1) for count, rates in by_count.items()}
        for name, by_count in found.items()
    }


def overhead(backend: str, workers: int, popsize: int, episodes: int) -> dict[str, float]:
    """Milliseconds of a generation of free episodes: wall clock, and CPU time of this process."""
    config, spent = EvaluationConfig(episodes), []
    with Scoring(nothing, config, ParallelConfig(backend, workers)) as evaluation:
        candidates = np.zeros((popsize, 867))
        for generation in range(8):
            clock, cpu = time.perf_counter(), time.process_time()
            evaluation(candidates, generation)
            spent.append((time.perf_counter() - clock, time.process_time() - cpu))
    wall, cpu = np.median(spent[3:], axis=0)
    return {"clock": round(1000 * wall, 1), "cpu": round(1000 * cpu, 1)}


def one_by_one(popsize: int) -> float:
    """CPU milliseconds of this process per task on Ray, which bounds very many workers."""
    with Scoring(nothing, EvaluationConfig(1), ParallelConfig("ray", 2)) as evaluation:
        evaluation._group = lambda seeds: 1
        candidates = np.zeros((popsize, 867))
        evaluation(candidates, 0)
        began = time.process_time()
        for generation in range(3):
            evaluation(candidates, generation)
        return 1000 * (time.process_time() - began) / (3 * popsize)


def prediction(report: dict[str, Any]) -> str:
    """Prediction, as Markdown, of the paper's search on more cores than were measured.

    A generation takes the larger of two times, that of one core for its episodes and that of the
    driver to send all tasks, plus the time of CMA-ES itself.
    """
    rate = report["tracks"]["ray"]["1"]
    task, strategy = report["ray_cpu_ms_per_task"] / 1000, report["cma_ms"] / 1000
    episodes = PAPER["candidates"] * PAPER["episodes"]
    seconds = PAPER["steps"] / rate
    lines = [
        "| cores | seconds a generation | 1,800 generations | bound by |",
        "|---|---|---|---|",
    ]
    for cores in (1, 2, 64, 256, 1024):
        driving, sending = math.ceil(episodes / cores) * seconds, episodes * task
        whole = max(driving, sending) + strategy
        bound = "sending" if sending > driving else "driving"
        lines.append(
            f"| {cores:,} | {whole:,.2f} | {_time(whole * PAPER['generations'])} | {bound} |"
        )
    steps = math.prod(PAPER.values())
    core = report["dreams"]["ray"]["1"]
    lines += [
        "",
        "| dreams on | steps per second | 1,800 generations | |",
        "|---|---|---|---|",
        f"| 1 core | {core:,.0f} | {_time(steps / core)} | measured rate |",
        f"| 64 cores | {64 * core:,.0f} | {_time(steps / (64 * core))} | computed: 64 x that |",
    ]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def time_cma() -> float:
    """CPU milliseconds of ask and tell at 867 parameters and a population of 64."""
    from worldmodels.configs import EvolutionConfig
    from worldmodels.evolution import CMAES

    strategy, spent = CMAES(np.zeros(867), EvolutionConfig(64), 1), []
    for _ in range(40):
        began = time.process_time()
        candidates = strategy.ask()
        strategy.tell(candidates, -np.square(candidates).sum(1))
        spent.append(1000 * (time.process_time() - began))
    return statistics.mean(spent)


def write_page(page: Path, text: str) -> None:
    before, found, rest = page.read_text().partition(MARKS[0])
    _, closed, after = rest.partition(MARKS[1])
    if not found or not closed:
        raise SystemExit(f"{page} needs the lines {MARKS[0]} and {MARKS[1]} once each")
    page.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--page", type=Path, help="put the prediction between this page's marks")
    parser.add_argument("--workers", type=int, nargs="+", default=None)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    cores = count_cores()
    counts = args.workers or [count for count in (1, 2, 4, 8, 16) if count <= cores]

    contests: dict[str, tuple[Callable[[], Any], int, int, int]] = {
        "tracks": (real_tracks, 8, 1, 1),
        "dreams": (dreams, 256, 16, 16),
    }
    report: dict[str, Any] = {}
    for name, (make, popsize, episodes, rows) in contests.items():
        seeds = np.zeros((popsize, episodes), int) + (np.arange(episodes) if rows == 1 else 0)
        rates = contest(make(), population(popsize), seeds, rows, counts, args.turns)
        report[name] = rates
        print(f"{name}, steps per second{'':9}" + "".join(f"{n:>4} workers" for n in counts))
        for backend, by_count in rates.items():
            shares = "".join(
                f"{rate:12,.0f} ({rate / rates['bare loops'][n]:4.0%})"
                for n, rate in by_count.items()
            )
            print(f"  {backend:12}{shares}")
    report["overhead_ms"] = {
        f"{backend}, {episodes} episodes": overhead(backend, counts[-1], 64, episodes)
        for backend in ("processes", "ray")
        for episodes in (1, 16)
    }
    for name, spent in report["overhead_ms"].items():
        print(f"a generation of 64 for nothing, {name}: {spent['clock']:.1f} ms")
    report["ray_cpu_ms_per_task"] = round(one_by_one(512), 3)
    report["cma_ms"] = round(time_cma(), 1)
    report |= {"cores": cores, "machine": platform.processor() or platform.machine()}
    text = prediction(report)
    print(f"\n{text}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    if args.page:
        write_page(args.page, text)


if __name__ == "__main__":
    main()
