"""On how many threads a training computes: as a setting says, or what a trial finds quicker.

On a busy machine two threads are slower than one, and results depend on their number in the last
bits: what a trial found is kept in the run.
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
    from generative.training.loop import Learner
    from generative.training.run import Run

__all__ = ["THREADS_NAME", "chosen_threads"]

THREADS_NAME = "threads.json"
WORTHWHILE = 50
"""Steps; fewer are not worth a trial."""
TRIALS = 4
"""Steps of a trial on each number of threads, the first of which does not count."""
SECONDS = 10.0
"""A trial that has taken so long is cut short."""


@contextlib.contextmanager
def chosen_threads(
    learner: Learner, batches: Callable[[int], Any], run: Run, step: int, steps: int, what: str
) -> Iterator[None]:
    """Where the setting `threads` is 0, torch computes in the block on one thread or on all.

    The trial's steps are those of a copy: the learner and torch's generators stay what they are.

    Args:
        step: the next step; a run that has begun keeps the threads it had.
        steps: of the whole run.
        what: is being done.
    Raises:
        DamagedFileError: the file with the number is.
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
    """Seconds of a step on one thread and on the most there are, in turns."""
    spent: dict[int, list[float]] = {1: [], most: []}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a schedule misses what it did to its optimiser's `step`
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
