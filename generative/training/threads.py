"""Number of threads of a training: that of a setting, or the faster one in a trial.

On a busy machine two threads are slower than one. Results depend on their number in the last bits,
so the run records the result of the trial.
"""

from __future__ import annotations

import contextlib
import copy
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from generative.training.files import DamagedFileError, read_json, write_json

if TYPE_CHECKING:
    from generative.training.learner import Learner
    from generative.training.run import Run

__all__ = ["THREADS_NAME", "chosen_threads"]

THREADS_NAME = "threads.json"
WORTHWHILE = 50
"""Least number of steps for which threads are tried."""
TRIALS = 4
"""Steps of a trial on each number of threads; the first does not count."""
SECONDS = 10.0
"""Longest duration of a trial in seconds."""


@contextlib.contextmanager
def chosen_threads(
    learner: Learner, batches: Callable[[int], Any], run: Run, step: int, steps: int, what: str
) -> Iterator[None]:
    """Run the block on the faster of one thread and all, if the setting `threads` is 0.

    The trial trains a copy: the learner and torch's generators stay unchanged.

    Args:
        step: the next step; a run that has begun keeps its number of threads.
        steps: steps of the whole run.
        what: name of the work, for messages.
    Raises:
        DamagedFileError: the file with the number is damaged.
    """
    before = torch.get_num_threads()
    if getattr(run.config, "threads", None) == 0 and run.device.type == "cpu":
        file = run.path / THREADS_NAME
        if file.exists():
            found = read_json(file)
            threads = found.get("threads") if isinstance(found, dict) else None
            if type(threads) is not int or not 1 <= threads <= 4096:
                raise DamagedFileError(f"{file}: does not say on how many threads the run computes")
            torch.set_num_threads(threads)
        elif step == 0 and steps >= WORTHWHILE and before > 1:
            seconds = _try(learner, batches, run, before)
            best = min(seconds, key=lambda threads: seconds[threads])
            write_json(file, {"threads": best})
            times = ", ".join(f"{1000 * s:.0f} ms a step on {n}" for n, s in seconds.items())
            print(f"{what}: CPU threads: {best} ({times})", flush=True)
            torch.set_num_threads(best)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _try(learner: Learner, batches: Callable[[int], Any], run: Run, most: int) -> dict[int, float]:
    """Seconds per step on one thread and on `most`, measured in turns."""
    spent: dict[int, list[float]] = {1: [], most: []}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a copied schedule misses its hook on `step`
        trial, began = copy.deepcopy(learner), time.perf_counter()
        for step in range(TRIALS):
            torch.manual_seed(run.seed_for("step", step))
            batch = batches(step)
            for threads, seconds in spent.items():
                torch.set_num_threads(threads)
                step_began = time.perf_counter()
                trial.update(batch)
                seconds.append(time.perf_counter() - step_began)
            if step and time.perf_counter() - began > SECONDS:
                break
    return {threads: sum(s[1:]) / len(s[1:]) for threads, s in spent.items()}
