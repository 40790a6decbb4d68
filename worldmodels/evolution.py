"""CMA-ES around any evaluate(candidates) -> scores, with a journal, so that it can be killed.

The strategy is pycma's. Its random numbers come from its own generator, so that no other code that
draws from NumPy can change a run. Every generation is written to a journal before the next
begins. Resuming replays the journal: the same asks, the recorded scores, the same state. At 867
parameters and 64 candidates that takes some 20 milliseconds per generation.

`worldmodels.scoring.Scoring` is an evaluate for many cores or machines.

    config = EvolutionConfig(generations=50)
    result = evolve(lambda x, generation: -(x**2).sum(1), np.ones(10), config, seed=1)
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from generative.training.files import DamagedFileError, read_file, write_file
from worldmodels.configs import EvolutionConfig
from worldmodels.journal import Generation, Journal

__all__ = ["CMAES", "EvolutionConfig", "EvolutionResult", "Generation", "Restarts", "evolve"]

Evaluate = Callable[[np.ndarray, int], np.ndarray]
"""(candidates (P, n), generation) -> scores (P,)"""
Test = Callable[[np.ndarray, int], float]
"""(mean (n,), generation) -> its score over more episodes than a candidate gets"""


class CMAES:
    """Ask for candidates, tell their scores (higher is better).

    Args:
        mean: initial mean of the search, (n,).
        config: population size, step size, diagonal or full covariance, weight decay.
        seed: seed of the strategy's own random numbers. 0 is an ordinary seed here (pycma would
            take the clock).
    """

    def __init__(self, mean: np.ndarray, config: EvolutionConfig, seed: int):
        import cma  # loads SciPy and pyplot where installed: only when used

        mean = np.asarray(mean, float)
        if mean.ndim != 1 or not len(mean) or not np.isfinite(mean).all():
            raise ValueError(
                f"the search is to begin at {mean.ravel()[:4]} of shape {mean.shape}; give the "
                "parameters as one array (n,) of finite numbers, with n of at least 1"
            )
        rng = np.random.default_rng(seed)
        options = {
            "popsize": config.popsize,
            "CMA_diagonal": config.diagonal,
            "verbose": -9,
            # pycma draws from NumPy's global generator unless given another source.
            "seed": np.nan,
            "randn": lambda rows, columns: rng.standard_normal((rows, columns)),
        }
        self.dimension = len(mean)
        self._weight_decay = config.weight_decay
        self._strategy = cma.CMAEvolutionStrategy(mean, config.sigma, options)
        if not config.diagonal:
            sampler: Any = self._strategy.sm
            rates = sampler.parameters()
            # In generations; from 1 down it means every generation.
            sampler.lazy_update_gap = config.lazy_update / (
                (rates["c1"] + rates["cmu"]) * self.dimension
            )

    def ask(self) -> np.ndarray:
        """Draw the next candidates, (popsize, n) float64."""
        return np.asarray(self._strategy.ask())

    def tell(self, candidates: np.ndarray, scores: np.ndarray) -> None:
        """Update the distribution by the scores (popsize,) of the candidates just asked for.

        Raises:
            FloatingPointError: a score is not finite (pycma would accept it silently).
        """
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            raise FloatingPointError(
                f"candidate {bad[0]} scored {scores[bad[0]]}; CMA-ES needs finite scores"
            )
        decayed = scores - self._weight_decay * np.square(candidates).mean(1)
        self._strategy.tell(list(candidates), (-decayed).tolist())  # pycma minimises

    @property
    def stopped(self) -> bool:
        """True if by pycma's criteria this search has converged or cannot improve."""
        return bool(self._strategy.stop())

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of the candidates, (n, n)."""
        return self.sigma**2 * np.asarray(self._strategy.sm.covariance_matrix)

    @property
    def mean(self) -> np.ndarray:
        """Mean of the distribution, (n,): the result of the search, not the luckiest candidate."""
        return np.array(self._strategy.mean)

    @property
    def sigma(self) -> float:
        """Overall step size."""
        return float(self._strategy.sigma)


class Restarts:
    """CMA-ES that restarts after it has converged, with the methods of `CMAES`.

    IPOP doubles the population every time (Auger & Hansen 2005). BIPOP does that in turn with
    small populations and steps, as long as these have used fewer evaluations than the large ones
    (Hansen 2009).

    Args:
        mean: initial mean of every search, (n,).
        config: `restarts` and `restart_by` are the number and the kind of restarts.
        seed: seed of all random numbers.
    """

    def __init__(self, mean: np.ndarray, config: EvolutionConfig, seed: int):
        self._begin, self._config, self._seed = np.asarray(mean, float), config, seed
        self._rng = np.random.default_rng([seed, 0x5EED])
        self.restarts, self._doublings = 0, 0
        # The first search counts as small, as in pycma's fmin2.
        self._kind, self._used = "small", {"small": 0, "large": 0}
        self._left = math.inf  # generations that the search may still take
        self._best_average, self._best_mean = -np.inf, self._begin
        self.current = CMAES(self._begin, config, seed)

    def ask(self) -> np.ndarray:
        """Draw the next candidates, (P, n); P changes from search to search."""
        return self.current.ask()

    def tell(self, candidates: np.ndarray, scores: np.ndarray) -> None:
        """Update the search by their scores; after its last generation begin the next search."""
        self.current.tell(candidates, scores)
        self._used[self._kind] += len(candidates)
        self._left -= 1
        if scores.mean() > self._best_average:
            self._best_average, self._best_mean = float(scores.mean()), self.current.mean
        if self._over and self.restarts < self._config.restarts:
            self._restart()

    @property
    def finished(self) -> bool:
        """True if the search has converged and no restart is left."""
        return bool(self._config.restarts) and self._over

    @property
    def mean(self) -> np.ndarray:
        """Mean after the best generation of all searches; with a single search, the last mean."""
        return self._best_mean if self._config.restarts else self.current.mean

    @property
    def sigma(self) -> float:
        """Overall step size of the present search."""
        return self.current.sigma

    @property
    def _over(self) -> bool:
        """True if the present search is at its end."""
        return self.current.stopped or self._left <= 0

    def _restart(self) -> None:
        config, sigma = self._config, self._config.sigma
        self.restarts += 1
        small = config.restart_by == "bipop" and self._used["small"] < self._used["large"]
        self._doublings += not small
        popsize, self._left = config.popsize * 2**self._doublings, math.inf
        if small:
            u = self._rng.random(2)
            popsize = int(config.popsize * 2 ** (self._doublings * u[0] ** 2))
            sigma *= 0.01 ** u[1]
            self._left = 0.5 * self._used["large"] // popsize
        self._kind = "small" if small else "large"
        seed = int(self._rng.integers(2**63))
        self.current = CMAES(self._begin, replace(config, popsize=popsize, sigma=sigma), seed)


@dataclass(frozen=True)
class EvolutionResult:
    """Result of an evolution."""

    mean: np.ndarray
    """Mean of the distribution; with tests, the one of the best test."""
    sigma: float
    generations: list[Generation]
    reason: str
    """Reason for the end."""


def evolve(
    evaluate: Evaluate,
    mean: np.ndarray,
    config: EvolutionConfig,
    seed: int,
    journal: Path | str | None = None,
    on_generation: Callable[[Generation, Restarts], None] | None = None,
    test: Test | None = None,
    of: str = "",
) -> EvolutionResult:
    """Run CMA-ES until an end set in `config`, continuing the journal if there is one.

    Args:
        evaluate: (candidates (P, n) float64, generation) -> scores (P,); a pure function of its
            arguments, or resuming will not give the same result.
        mean: start, (n,).
        journal: a JSON-lines file to continue or begin; None keeps no record.
        on_generation: called after each generation that is not read from the journal.
        test: scores the mean every `config.test_every` generations; a pure function too.
        of: describes the inputs of scores beside candidates and seed; see `Journal`.
    Raises:
        ValueError: the mean is no array (n,) of finite numbers.
        DamagedFileError: the journal belongs to another run (other start, seed or settings).
        FloatingPointError: a score is not finite; says the generation and candidate.
        OSError: the journal cannot be written.
    """
    if (test is None) != (config.test_every == 0):
        raise ValueError(
            f"test_every is {config.test_every} and test is {'not ' * (test is None)}given; either "
            "both or none"
        )
    strategy = Restarts(mean, config, seed)
    journal = None if journal is None else Path(journal)
    record = Journal(journal, of) if journal else None
    done = list(record.generations) if record else []
    watch = _Watch(config, journal, len(done))
    generations: list[Generation] = []
    best: tuple[float, np.ndarray] = (-np.inf, strategy.mean)
    while (reason := watch.reason(generations, strategy)) is None:
        index, candidates = len(generations), strategy.ask()
        digest = hashlib.sha256(np.ascontiguousarray(candidates).tobytes()).hexdigest()
        known = done[index] if index < len(done) else None
        if known is not None:
            _check_known(known, index, seed, digest, candidates, journal)
            scores, sigma = np.asarray(known.scores), known.sigma
        else:
            scores, sigma = _score(evaluate, candidates, index, seed), strategy.sigma
        strategy.tell(candidates, scores)
        mean_score = known.mean_score if known else None
        if known is None and test is not None and (index + 1) % config.test_every == 0:
            mean_score = float(test(strategy.mean, index))
            if not np.isfinite(mean_score):
                raise FloatingPointError(f"generation {index}: the mean scored {mean_score}")
        if mean_score is not None and mean_score > best[0]:
            best = (mean_score, strategy.mean)
        generation = Generation(index, seed, digest, scores.tolist(), sigma, mean_score)
        generations.append(generation)
        if known is None:
            if record:
                record.append(generation)
                watch.write()
            if on_generation:
                on_generation(generation, strategy)
    if record:
        watch.write()  # otherwise a continued search may find a little time left
    answer = best[1] if np.isfinite(best[0]) else strategy.mean
    return EvolutionResult(answer, strategy.sigma, generations, reason)


def _score(evaluate: Evaluate, candidates: np.ndarray, index: int, seed: int) -> np.ndarray:
    scores = np.asarray(evaluate(candidates, index), float)
    if scores.shape != (len(candidates),):
        raise ValueError(f"evaluate returned shape {scores.shape}, needed ({len(candidates)},)")
    if not np.isfinite(scores).all():
        worst = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise FloatingPointError(
            f"generation {index}, candidate {worst}: score {scores[worst]} (seed {seed})"
        )
    return scores


def _check_known(
    known: Generation,
    index: int,
    seed: int,
    digest: str,
    candidates: np.ndarray,
    journal: Path | None,
) -> None:
    """Raise if a line of the journal does not belong to the present generation of this search."""
    same = (known.index, known.seed, known.candidates_sha256, len(known.scores))
    if same != (index, seed, digest, len(candidates)):
        raise DamagedFileError(
            f"{journal}: generation {index} was asked for other candidates; the journal "
            "belongs to another start, seed, setting or number of BLAS threads "
            "(OMP_NUM_THREADS). Use a new run folder"
        )


class _Watch:
    """Decides when a search ends; counts its time, also over interruptions."""

    def __init__(self, config: EvolutionConfig, journal: Path | None, known: int):
        self.config, self._known = config, known
        self._file = journal.with_suffix(".seconds") if journal else None
        self._before, self._began = 0.0, time.monotonic()
        if self._file and self._file.exists():
            with contextlib.suppress(ValueError):  # a damaged time record must not end the run
                self._before = max(0.0, float(read_file(self._file, 100)))

    def reason(self, generations: list[Generation], strategy: Restarts) -> str | None:
        """Reason to end, or None."""
        config = self.config
        if len(generations) >= config.generations:
            return f"{config.generations} generations"
        tests = [g.mean_score for g in generations if g.mean_score is not None]
        if config.target is not None and tests and tests[-1] >= config.target:
            return f"the mean reached {tests[-1]:g} of {config.target:g}"
        if config.patience and len(tests) - 1 - int(np.argmax(tests or [0])) >= config.patience:
            return f"no better mean in {config.patience} tests"
        evaluations = sum(len(g.scores) for g in generations)
        if config.max_evaluations and evaluations >= config.max_evaluations:
            return f"{evaluations:,} evaluations"
        # Generations in the journal were in time, whatever the time is now.
        new = len(generations) >= self._known
        if config.max_seconds and new and self.seconds >= config.max_seconds:
            return f"{self.seconds:.0f} seconds"
        if strategy.finished:
            return "converged"
        return None

    @property
    def seconds(self) -> float:
        """Seconds since the search began, without interruptions."""
        return self._before + time.monotonic() - self._began

    def write(self) -> None:
        """Write the time for a continued search."""
        if self._file and self.config.max_seconds:
            write_file(self._file, f"{self.seconds:.6f}\n".encode())
