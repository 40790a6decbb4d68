"""Speed of dreams, cost of their parts, and effect of bfloat16 on a ranking.

    python benchmarks/dream.py [--json FILE] [--rounds N]

A step is one dreamed decision: C acts, M's LSTM and heads read the action, the next z is drawn. 64
candidates drive 16 dreams each, as in the paper. Four ways take turns in this process,
on one thread: one lane after the other, as published programs do it; all lanes as one batch in
plain torch; and ours in both precisions. Then cases of other sizes, each in a process of its own,
whose memory is measured too. Rates are per CPU-second; those of several processes are per second
of wall clock, and valid on idle cores only. About two minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from generative.training.parallel import Report, Workers
from generative.training.precision import default_bf16
from worldmodels.configs import ControllerConfig, DreamConfig, MDNRNNConfig
from worldmodels.controller import LinearController, car_racing_action, split_candidates
from worldmodels.dreaming.backends.fused import FusedDream
from worldmodels.dreaming.rollout import Dream
from worldmodels.dreaming.starts import DreamStarts
from worldmodels.memory import MDNRNN

PRETRAINED = Path(__file__).parents[1] / "pretrained" / "carracing-dream"
TEMPERATURE = 1.15


@dataclass(frozen=True)
class Case:
    """Sizes and settings of a dream."""

    candidates: int = 64
    rollouts: int = 16
    horizon: int = 50
    hidden_dim: int = 256
    bf16: bool = False

    @property
    def steps(self) -> int:
        """Number of decisions in all lanes together."""
        return self.candidates * self.rollouts * self.horizon


def set_up(case: Case) -> tuple[Dream, Tensor, DreamStarts]:
    """A dream with the heads of the quick preset, candidates, and starts."""
    torch.manual_seed(0)
    mem = MDNRNNConfig(
        hidden_dim=case.hidden_dim,
        predict_reward=True,
        predict_end=True,
        residual=True,
        dropout=0.1,
        reward_scale=3.0,
    )
    controller = ControllerConfig(hidden_dim=case.hidden_dim)
    config = DreamConfig(case.horizon, TEMPERATURE, bf16=case.bf16)
    dream = Dream(MDNRNN(mem).eval(), controller, config)
    candidates = 0.1 * torch.randn(case.candidates, controller.num_parameters)
    z, h, c = (torch.randn(case.rollouts, n) for n in (32, case.hidden_dim, case.hidden_dim))
    return dream, candidates, DreamStarts(z, h.tanh(), c, torch.zeros(case.rollouts))


@torch.no_grad()
def plain_torch(dream: Dream, candidates: Tensor, starts: DreamStarts, horizon: int) -> Tensor:
    """Dreamed returns (P * R,), by M's `step` and the mixture's `sample`, all lanes as one batch.

    With one candidate and one start, a loop over this is how published programs dream.
    """
    memory, lanes = dream.memory, (len(candidates), len(starts))
    weight, bias = split_candidates(candidates, dream.controller)
    z, h, c = (x.repeat(len(candidates), 1) for x in (starts.z, starts.h, starts.c))
    alive, returns = torch.ones(2, len(z)).unbind()
    returns = returns - 1
    for _ in range(horizon):
        seen = torch.cat([z, h], 1).view(*lanes, -1)
        raw = torch.baddbmm(bias.unsqueeze(1), seen, weight.transpose(1, 2))
        out, (h, c) = memory.step(z, car_racing_action(raw).flatten(0, 1), (h, c))
        z = out.mixture.sample(TEMPERATURE)
        returns = returns + alive * out.reward
        alive = alive * (torch.rand(len(z)) >= torch.sigmoid(out.end_logit))
    return returns


def steps_per_second(evaluate: Callable[[], object], steps: int) -> float:
    start = time.process_time()
    evaluate()
    return steps / (time.process_time() - start)


def time_ways(rounds: int) -> dict[str, list[float]]:
    """Steps per CPU-second of every way to dream the default case, one value per round."""
    case = Case()
    dream, candidates, starts = set_up(case)
    halved, _, _ = set_up(Case(bf16=True))
    few = 400  # steps of the loop, which needs no more to be timed
    ways = {
        "one lane after the other": (
            partial(plain_torch, dream, candidates[:1], starts.take([0]), few),
            few,
        ),
        "one batch, plain torch": (
            partial(plain_torch, dream, candidates, starts, 10),
            case.steps * 10 // case.horizon,
        ),
        "ours, float32": (partial(dream.evaluate, candidates, starts, 0), case.steps),
        "ours, bfloat16": (partial(halved.evaluate, candidates, starts, 0), case.steps),
    }
    for evaluate, _ in ways.values():
        evaluate()  # compiles, and fills caches
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (evaluate, steps) in ways.items():
            rates[name].append(steps_per_second(evaluate, steps))
    return rates


def profile(case: Case) -> dict[str, float]:
    """CPU microseconds per step, by part."""
    dream, candidates, starts = set_up(case)
    fused, spent = FusedDream(dream), Counter[str]()

    def timed(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            result = function(*args, **kwargs)
            spent[what] += time.process_time() - start
            return result

        return call

    kernels = fused.kernels
    fused.kernels = SimpleNamespace(
        steer=timed("controllers", kernels.steer),
        lstm_cell=timed("activations of the LSTM", kernels.lstm_cell),
        sample_z=timed("sampling z", kernels.sample_z),
        settle=timed("rewards and ends", kernels.settle),
    )
    dream.squash = timed("controllers", dream.squash)
    dream.noise = timed("noise", dream.noise)
    dream.world.gumbel = timed("noise", dream.world.gumbel)
    with mock.patch.object(torch, "mm", timed("matrix products", torch.mm)):
        for _ in range(2):  # the first fills caches
            spent.clear()
            start = time.process_time()
            fused.rollout(candidates, starts, torch.Generator().manual_seed(0))
            total = time.process_time() - start
    spent["the rest"] = total - sum(spent.values())
    return {what: 1e6 * seconds / case.steps for what, seconds in spent.most_common()}


@dataclass(frozen=True)
class Measured:
    """Measurements of one process."""

    rate: float
    """Steps per CPU-second, median of three."""
    seconds: float
    """Wall-clock seconds of all three."""
    megabytes: float
    """Largest growth of the process while dreaming, in MB; -1 on a system without /proc."""


def resident(which: str) -> float:
    """Megabytes of this process, 0 if unknown: VmRSS now, VmHWM the peak since the last reset."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{which}:"):
                return int(line.split()[1]) / 1024
    return 0.0


def reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def measure(case: Case, report: Report) -> Measured:
    dream, candidates, starts = set_up(case)
    small = set_up(Case(1, 1, 1, case.hidden_dim, case.bf16))
    small[0].evaluate(*small[1:], 0)  # compiles
    reset_peak()
    before = resident("VmRSS")
    start = time.perf_counter()
    evaluate = partial(dream.evaluate, candidates, starts, 0)
    rates = [steps_per_second(evaluate, case.steps) for _ in range(3)]
    seconds = time.perf_counter() - start
    grown = resident("VmHWM") - before if before else -1.0
    return Measured(statistics.median(rates), seconds, grown)


def measure_cases(bf16: bool) -> dict[str, Measured]:
    """Growth of the cost, with one size at a time changed from the default."""
    cases = {"64 candidates x 16 dreams x 50 decisions, LSTM 256": Case(bf16=bf16)}
    cases |= {f"{n} candidates": Case(candidates=n, bf16=bf16) for n in (4, 16, 256)}
    cases |= {f"{n} dreams": Case(rollouts=n, bf16=bf16) for n in (1, 4, 64)}
    cases |= {f"{n} decisions": Case(horizon=n, bf16=bf16) for n in (10, 250)}
    cases |= {f"LSTM {n}": Case(hidden_dim=n, bf16=bf16) for n in (128, 512)}
    found = {}
    for name, case in cases.items():
        with Workers(measure, 1) as worker:
            (found[name],) = worker.run([case])
    return found


def measure_processes(bf16: bool, counts: tuple[int, ...] = (1, 2)) -> dict[int, float]:
    """Steps per second of wall clock, by the number of processes that dream in parallel."""
    case = Case(horizon=100, bf16=bf16)
    rates = {}
    for count in counts:
        with Workers(measure, count) as workers:
            workers.run([Case(horizon=1, bf16=bf16)] * count)  # imports, compiles
            found = workers.run([case] * count)
            rates[count] = sum(3 * case.steps / one.seconds for one in found)
    return rates


def rank_correlations(populations: int = 2) -> dict[str, float]:
    """Spearman's rank correlations on the committed M and C, mean over populations of sigma 0.1."""
    memory = MDNRNN.from_pretrained(PRETRAINED / "memory")
    controller = LinearController.from_pretrained(PRETRAINED / "controller")
    moments = DreamStarts.load(PRETRAINED / "starts.safetensors")
    config = DreamConfig(30, TEMPERATURE, reward_clip=(-1.0, 6.0))
    exact = Dream(memory, controller.config, config)
    halved = Dream(memory, controller.config, DreamConfig(**{**asdict(config), "bf16": True}))
    found: dict[str, list[float]] = {}
    for rollouts in (16, 64):
        for seed in range(populations):
            rng = np.random.default_rng(seed)
            starts = moments.draw(rollouts, rng)
            noise = torch.from_numpy(rng.normal(0, 0.1, (64, 867))).float()
            candidates = controller.to_vector() + noise
            ranks = [
                dream.evaluate(candidates, starts, luck).returns.mean(1).argsort().argsort()
                for dream, luck in ((exact, 0), (halved, 0), (exact, 1))
            ]
            correlation = torch.corrcoef(torch.stack(ranks).float())
            for name, column in (("bfloat16", 1), ("other noise", 2)):
                key = f"{name}, {rollouts} dreams"
                found.setdefault(key, []).append(correlation[0, column].item())
    return {name: statistics.mean(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way to dream")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bf16 = default_bf16()

    rates = {name: statistics.median(values) for name, values in time_ways(args.rounds).items()}
    slowest = rates["one lane after the other"]
    print(f"{'64 candidates x 16 dreams':34}{'steps per CPU-second':>22}{'times the loop':>18}")
    for name, rate in rates.items():
        print(f"{name:34}{rate:22,.0f}{rate / slowest:18.1f}")

    spent = {
        name: profile(Case(bf16=half))
        for name, half in (("float32", False), ("bfloat16", True))
        if bf16 or not half
    }
    print("\n" + " " * 34 + "".join(f"{name + ', us per step':>22}" for name in spent))
    for what in spent["float32"]:
        print(f"{what:34}" + "".join(f"{parts[what]:22.2f}" for parts in spent.values()))

    precision = "bfloat16" if bf16 else "float32"
    cases = measure_cases(bf16)
    print(f"\n{'ours, ' + precision:52}{'per CPU-second':>15}{'MB':>8}")
    for name, found in cases.items():
        print(f"{name:52}{found.rate:15,.0f}{found.megabytes:8.0f}")

    processes = measure_processes(bf16)
    for count, rate in processes.items():
        print(f"{f'{count} one-thread processes, per second of the clock':52}{rate:15,.0f}")

    correlations = rank_correlations()
    print("\ncorrelation of ranks with those of float32, 64 candidates:")
    for name, value in correlations.items():
        print(f"  {name:28}{value:.3f}")

    report = {
        "steps_per_cpu_second": {name: round(rate) for name, rate in rates.items()},
        "ratio_to_loop": {name: round(rate / slowest, 1) for name, rate in rates.items()},
        "microseconds_per_step": {
            name: {what: round(value, 3) for what, value in parts.items()}
            for name, parts in spent.items()
        },
        "cases": {
            name: {"steps_per_cpu_second": round(one.rate), "megabytes": round(one.megabytes, 1)}
            for name, one in cases.items()
        },
        "precision_of_cases": precision,
        "steps_per_second_of_processes": {n: round(rate) for n, rate in processes.items()},
        "rank_correlation_with_float32": {n: round(x, 4) for n, x in correlations.items()},
        "rounds": args.rounds,
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("torch", "numba", "numpy")},
    }
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written to {args.json}")


if __name__ == "__main__":
    main()
