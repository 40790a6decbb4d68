"""The gradient loop: steps, logging, checkpoints, resuming and stopping. It knows no model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from generative.training.checkpoint import NonFiniteError, check_finite
from generative.training.learner import Learner
from generative.training.moves import Move, recorded
from generative.training.progress import progress
from generative.training.run import Run
from generative.training.signals import stop_signals
from generative.training.threads import chosen_threads

__all__ = ["NonFiniteError", "fit"]


def fit(
    learner: Learner,
    batches: Callable[[int], Any],
    run: Run,
    steps: int,
    *,
    log_every: int = 100,
    checkpoint_every_seconds: float = 60.0,
    what: str = "training",
    on_log: Callable[[int], None] | None = None,
) -> None:
    """Train learner up to `steps` updates, from the run's last whole checkpoint.

    Step s draws its batch and its noise from (run.seed, s) alone. A run that was killed at any
    moment and continued therefore ends with the same weights, bit for bit, as one that was not.

    Args:
        learner: see `Learner`; its modules are already on their device.
        batches: step -> batch, a function of the step's number alone.
        run: run that takes metrics and checkpoints.
        steps: total number of optimiser steps, the one that the learner was made with. A finished
            run continues if it is larger now; the learning rate at step s is then that of a run
            with the new total.
        log_every: metrics are means over this many steps; only then is the GPU waited for.
        checkpoint_every_seconds: seconds between checkpoints; 0 saves after every step.
        what: text beside the progress bar and in errors.
        on_log: called with the step after metrics were logged, e.g. to save samples. Its draws from
            torch's generators change nothing, as every step is seeded anew. It must not change the
            learner.
    Raises:
        NonFiniteError: a logged value, a gradient, a weight or a buffer is not finite; names what
            was so first, the step and the seed. No such state is saved, and the checkpoint before
            it stays.
        SystemExit: SIGTERM (143) or Ctrl-C (130); the step was finished and saved.
    """
    window = _Window(what, run.seed)
    step = _resume(learner, window, run, steps, what)
    saved_at = time.monotonic()
    with (
        stop_signals() as stop,
        chosen_threads(learner, batches, run, step, steps, what),
        progress(steps, what, done=step) as bar,
    ):
        while step < steps:
            torch.manual_seed(run.seed_for("step", step))
            batch = batches(step)
            with recorded() as moves:
                values = learner.update(batch)
            window.add(step, values, moves)
            step += 1
            if step % log_every == 0 or step == steps:
                run.metrics.log(step, window.means())
                if on_log is not None:
                    on_log(step)
            bar.advance(note=window.note)
            due = time.monotonic() - saved_at >= checkpoint_every_seconds
            if due or stop.requested or step == steps:
                # The window comes first: it stops the run before a non-finite state is saved.
                state = {"window": window.state_dict(), "learner": learner.state_dict()}
                check_finite(state["learner"], what, step, run.seed)
                run.checkpoints.save(step, state)
                saved_at = time.monotonic()
            if stop.requested:
                stop.exit(f"{what}: saved at step {step} of {steps}")


def _resume(learner: Learner, window: _Window, run: Run, steps: int, what: str) -> int:
    """Load the newest whole checkpoint, if there is one; returns its step."""
    latest = run.checkpoints.load_latest()
    if latest is None:
        return 0
    step, state = latest
    if step > steps:
        raise ValueError(f"{run.path} has had {step} steps, more than the {steps} asked for")
    learner.load_state_dict(state["learner"])
    window.load_state_dict(state["window"])
    if step < steps:
        print(f"{what}: going on at step {step} of {steps}", flush=True)
    return step


_Bad: TypeAlias = tuple[tuple[int, int, int], str, str]
"""Step, kind and place, what was not finite, and what to do."""


class _Window:
    """Values that `update` returned since the last logged line, and the gradients that it used."""

    def __init__(self, what: str, seed: int):
        self.note = ""
        self._what, self._seed = what, seed
        self._steps: dict[str, list[int]] = {}
        self._values: dict[str, list[Tensor]] = {}
        self._moves: dict[str, list[tuple[int, Move]]] = {}

    def add(self, step: int, values: Mapping[str, Tensor | float], moves: Sequence[Move]) -> None:
        """Keep a step's values and moves, on their device."""
        for name, value in values.items():
            if not isinstance(value, Tensor):
                value = torch.tensor(float(value), dtype=torch.float64)
            self._steps.setdefault(name, []).append(step)
            self._values.setdefault(name, []).append(value.detach().clone())
        for move in moves:
            self._moves.setdefault(move.name, []).append((step, move))

    def state_dict(self) -> dict[str, Any]:
        """State except the note; checked to be finite, so that no bad state is saved."""
        return {"steps": self._steps, "values": self._checked()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._steps = state["steps"]
        self._values = {name: list(values) for name, values in state["values"].items()}

    def means(self) -> dict[str, float]:
        """Mean of each value over the window; a new window begins."""
        means = {name: values.mean().item() for name, values in self._checked().items()}
        self._steps, self._values = {}, {}
        self.note = next((f"{name} {value:.4g}" for name, value in means.items()), "")
        return means

    def _checked(self) -> dict[str, Tensor]:
        """All values, on the CPU; the moves so far are forgotten.

        Raises:
            NonFiniteError: names what was not finite first.
        """
        stacked = {n: torch.stack(v).double().cpu() for n, v in self._values.items()}
        found = [*self._bad_values(stacked), *self._bad_moves()]
        if found:
            (step, _, _), said, advice = min(found)
            raise NonFiniteError(
                f"{self._what}: {said} at step {step}, seed {self._seed}; {advice}"
            )
        self._moves = {}
        return stacked

    def _bad_values(self, stacked: Mapping[str, Tensor]) -> list[_Bad]:
        """First value of each name that is not finite; by its order a sum comes after its parts."""
        advice = "lower the learning rate, or look at that step's batch"
        found: list[_Bad] = []
        for place, (name, values) in enumerate(stacked.items()):
            bad = (~values.isfinite()).nonzero()
            if len(bad):
                i = int(bad[0])
                order = self._steps[name][i], 1, len(stacked) if name == "loss" else place
                found.append((order, f"{name} is {values[i].item()}", advice))
        return found

    def _bad_moves(self) -> list[_Bad]:
        """First move of each network by a gradient that is not finite.

        That of a finite loss is where it began. Of another loss a logged part may say more.
        """
        found: list[_Bad] = []
        for place, (name, moves) in enumerate(self._moves.items()):
            sizes = torch.stack([move.size for _, move in moves]).double().cpu()
            bad = (~sizes.isfinite()).nonzero()
            if not len(bad):
                continue
            i = int(bad[0])
            step, move = moves[i]
            loss = 0.0 if move.loss is None else move.loss.item()
            if math.isfinite(loss):
                said = f"gradient of the {name} is {sizes[i].item()}"
                advice = (
                    "its loss was finite: lower the learning rate or the weight of a penalty, or "
                    "look at that step's batch"
                )
                found.append(((step, 0, place), said, advice))
            else:
                said = f"loss of the {name} is {loss}"
                advice = "lower the weights of its terms, or look at that step's batch"
                found.append(((step, 2, place), said, advice))
        return found
