"""Speed of our CarRacing, and difference of its pictures from stock's.

    python benchmarks/car.py [--json FILE] [--rounds N]

Stock CarRacing-v3, ours at 64x64 and at 96x96 with its status bar, and EnvPool's if it is
installed, take turns in one process, so that all run under equal conditions. Times are CPU time of
this process, all threads together, so other work on the machine matters little. Then 16
environments at once, by Gymnasium's vector environments and by our pool of processes, in turns:
these rates are per second of wall clock, and valid on idle cores only. About three minutes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.box2d.car_racing import CarRacing

from envs.car_racing import CarRacing64, FastCarRacing, resize_frames

OPENING = 50  # steps in which the camera zooms in


def drive(env: CarRacing, rng: np.random.Generator) -> np.ndarray:
    """Action that follows the road, so that pictures and contacts are those of real driving."""
    track = np.array(env.track)[:, 2:4]
    position = np.array(env.car.hull.position)
    nearest = np.linalg.norm(track - position, axis=1).argmin()
    ahead = track[(nearest + 4) % len(track)] - position
    error = np.arctan2(ahead[1], ahead[0]) - env.car.hull.angle - np.pi / 2
    error = (error + np.pi) % (2 * np.pi) - np.pi
    slow = np.hypot(*env.car.hull.linearVelocity) < 45
    action = [-2 * error, 0.6 * slow, 0.3 * (abs(error) > 0.5)] + rng.normal(size=3) * 0.1
    return np.clip(action, [-1, 0, 0], 1).astype(np.float32)


def recorded_actions(seed: int, steps: int) -> np.ndarray:
    """Actions (steps, 3) float32, chosen before the timing starts."""
    env, rng = CarRacing64(), np.random.default_rng(seed)
    env.reset(seed=seed)
    actions = []
    for _ in range(steps):
        actions.append(drive(env, rng))
        env.step(actions[-1])
    return np.array(actions)


def steps_per_second(step: Callable[[np.ndarray], object], actions: np.ndarray) -> float:
    start = time.process_time()
    for action in actions:
        step(action)
    return len(actions) / (time.process_time() - start)


def time_steps(rounds: int) -> dict[str, list[float]]:
    """Steps per CPU-second of each environment, one value per round; every round a new track."""
    envs = {"stock": CarRacing(), "ours_64": CarRacing64(), "ours_96": FastCarRacing()}
    envpool_step = make_envpool_step()
    rates: dict[str, list[float]] = {}
    for seed in range(rounds):
        actions = recorded_actions(seed, 650)
        for name, env in envs.items():
            env.reset(seed=seed)
            opening = steps_per_second(env.step, actions[:OPENING])
            # Stock gets fewer steps, as each takes some sixty times as long.
            count = 100 if name == "stock" else 600
            rates.setdefault(name, []).append(
                steps_per_second(env.step, actions[OPENING : OPENING + count])
            )
            rates.setdefault(f"{name}_opening_zoom", []).append(opening)
        if envpool_step:
            rates.setdefault("envpool", []).append(steps_per_second(envpool_step, actions))
    return rates


def make_envpool_step() -> Callable[[np.ndarray], object] | None:
    """EnvPool's CarRacing, one environment on one thread; None if it is not installed."""
    try:
        import envpool
    except ImportError:
        return None
    pool = envpool.make_gymnasium("CarRacing-v3", num_envs=1, num_threads=1)
    pool.reset()
    return lambda action: pool.step(action[None])


def profile(seed: int = 0) -> dict[str, float]:
    """CPU microseconds of a step of ours at 64x64, after the opening zoom, by part."""
    actions = recorded_actions(seed, 650)
    env, spent = CarRacing64(), Counter[str]()
    env.reset(seed=seed)
    for action in actions[:OPENING]:
        env.step(action)

    def timed(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            result = function(*args, **kwargs)
            spent[what] += time.process_time() - start
            return result

        return call

    env._render = timed("drawing", env._render)
    env.car.step = timed("the car's forces", env.car.step)
    env.world.Step = timed("Box2D", env.world.Step)
    start = time.process_time()
    for action in actions[OPENING:]:
        env.step(action)
    total = time.process_time() - start
    spent["the rest"] = total - sum(spent.values())
    return {what: 1e6 * seconds / 600 for what, seconds in spent.most_common()}


def time_vectors(turns: int, num_envs: int = 16, steps: int = 200) -> dict[str, list[float]]:
    """Steps per second of wall clock of 16 environments at once, one value per turn."""
    name = "WorldModels/CarRacing64-v0"
    ways: dict[str, Callable[[], Any]] = {
        "SyncVectorEnv": lambda: gymnasium.make_vec(name, num_envs, vectorization_mode="sync"),
        "AsyncVectorEnv": lambda: gymnasium.make_vec(name, num_envs, vectorization_mode="async"),
        "our pool, 1 process": lambda: gymnasium.make_vec(name, num_envs, workers=1),
        "our pool, 2 processes": lambda: gymnasium.make_vec(name, num_envs, workers=2),
        "stock, AsyncVectorEnv": lambda: gymnasium.make_vec(
            "CarRacing-v3", num_envs, vectorization_mode="async"
        ),
    }
    rates: dict[str, list[float]] = {}
    for turn in range(turns):
        seeds = [turn * num_envs + i for i in range(num_envs)]
        actions = np.stack([recorded_actions(seed, OPENING + 10 + steps) for seed in seeds], axis=1)
        for way, make in ways.items():
            envs = make()
            envs.reset(seed=seeds)
            count, warm_up = (5, 0) if way.startswith("stock") else (steps, OPENING + 10)
            # By then the opening zoom is over and all kernels are loaded; stock has no kernels.
            for t in range(warm_up):
                envs.step(actions[t])
            start = time.perf_counter()
            for t in range(warm_up, warm_up + count):
                envs.step(actions[t])
            seconds = time.perf_counter() - start
            rates.setdefault(way, []).append(num_envs * count / seconds)
            envs.close()
    return rates


def time_resets(seeds: int) -> dict[str, float]:
    """Mean CPU milliseconds of a reset over equal tracks, whose lengths and retries differ."""
    envs = {"stock": CarRacing(), "ours_64": CarRacing64()}
    seconds = dict.fromkeys(envs, 0.0)
    for env in envs.values():
        env.reset(seed=0)
    for seed in range(seeds):
        for name, env in envs.items():
            start = time.process_time()
            env.reset(seed=seed)
            seconds[name] += time.process_time() - start
    return {name: 1000 * total / seeds for name, total in seconds.items()}


def picture_differences(seeds: int) -> dict[str, float]:
    """Mean absolute difference from stock's pictures, of 255, on every twentieth frame."""
    found: dict[str, list[float]] = {"64": [], "64_opening_zoom": [], "96": [], "96_bar": []}
    for seed in range(seeds):
        actions = recorded_actions(seed, 400)
        stock, small, large = CarRacing(), CarRacing64(), FastCarRacing()
        render = stock._render
        for env in (stock, small, large):
            env.reset(seed=seed)
        for step, action in enumerate(actions):
            kept = step % 20 == 0
            stock._render = render if kept else lambda mode: None
            expected = stock.step(action)[0]
            ours_64, ours_96 = small.step(action)[0], large.step(action)[0]
            if kept:
                name = "64_opening_zoom" if step < OPENING else "64"
                found[name].append(np.abs(ours_64.astype(int) - resize_frames(expected)).mean())
                difference = np.abs(ours_96.astype(int) - expected)
                if step >= OPENING:
                    found["96"].append(difference[:84].mean())
                found["96_bar"].append(difference[84:].mean())
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--rounds", type=int, default=7, help="tracks to time steps on")
    args = parser.parse_args()

    rates = {name: statistics.median(values) for name, values in time_steps(args.rounds).items()}
    spent, resets = profile(), time_resets(20)
    differences = picture_differences(3)
    vectors = {name: statistics.median(values) for name, values in time_vectors(3).items()}
    report = {
        "steps_per_cpu_second": {name: round(rate, 1) for name, rate in rates.items()},
        "ratio_to_stock": {
            name: round(rate / rates["stock"], 2)
            for name, rate in rates.items()
            if name in ("ours_64", "ours_96", "envpool")
        },
        "microseconds_per_step": {what: round(value, 1) for what, value in spent.items()},
        "reset_ms": {name: round(value, 2) for name, value in resets.items()},
        "mean_pixel_difference_of_255": {
            name: round(value, 3) for name, value in differences.items()
        },
        "steps_per_second_of_16": {name: round(rate, 1) for name, rate in vectors.items()},
        "rounds": args.rounds,
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("gymnasium", "numba", "numpy")},
    }

    print(f"{'environment':26}{'steps per CPU-second':>22}{'times stock':>13}")
    for name, rate in rates.items():
        base = rates["stock_opening_zoom"] if name.endswith("zoom") else rates["stock"]
        print(f"{name.replace('_', ' '):26}{rate:22,.0f}{rate / base:13.1f}")
    if "envpool" not in rates:
        print("envpool                   not installed: pip install envpool")
    print(f"\n{'a step of ours at 64x64':26}{'CPU microseconds':>22}")
    for what, value in spent.items():
        print(f"{what:26}{value:22.1f}")
    print(f"\n{'16 environments of 64x64':26}{'steps per second':>22}")
    for name, rate in vectors.items():
        print(f"{name:26}{rate:22,.0f}")
    print(f"\nreset: ours {resets['ours_64']:.1f} ms, stock {resets['stock']:.1f} ms")
    print("mean absolute difference to stock's pictures, of 255:")
    for name, value in differences.items():
        print(f"  {name.replace('_', ' '):22}{value:.2f}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written to {args.json}")


if __name__ == "__main__":
    main()
