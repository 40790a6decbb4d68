"""Scores of many candidates, by one call in this process, in local processes, or on Ray.

    def episode(candidate, seed):        # pure: the same arguments, the same score
        ...
        return score

    with Scoring(episode, EvaluationConfig(4), ParallelConfig("processes"), seed=1) as evaluate:
        best = evolve(evaluate, np.zeros(5), EvolutionConfig(popsize=16), seed=1).mean

Every episode's seed comes from (run seed, generation, candidate, episode), and the settings fix
which candidates are scored together. Scores are therefore equal bit for bit for any number of
workers, even if some are lost.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

from generative.training.parallel import ParallelConfig
from generative.training.parallel.processes import ProcessPool, one_thread
from generative.training.parallel.scheduler import Pool, Report, Scheduler
from generative.training.platforms import count_cores
from worldmodels.configs import EvaluationConfig

__all__ = ["BatchProblem", "EpisodeProblem", "Scores", "Scoring", "ScoringError"]

WORTHWHILE = 0.05
"""Seconds of work for which the time to send it to a worker is negligible."""
EpisodeProblem = Callable[[np.ndarray, int], "float | Scores"]
"""(candidate (n,), seed) -> its score, or `Scores` with the number of steps."""
SeedOf = Callable[[int, int, int], int]
"""(generation, candidate, episode) -> seed of the episode."""


class ScoringError(RuntimeError):
    """A candidate could not be scored: the problem returned no score."""


class Scores(NamedTuple):
    """Result of scoring."""

    scores: Any
    """Scores: one number, or (candidates, episodes)."""
    steps: int
    """Number of environment steps, for the display of speed."""


@runtime_checkable
class BatchProblem(Protocol):
    """Candidates that are scored several at once; `candidates_per_task` of them go together."""

    def score_batch(self, candidates: np.ndarray, seeds: np.ndarray) -> Scores:
        """Candidates (b, n) and the seeds (b, E) of their episodes -> scores (b, E)."""
        ...


class _Task(NamedTuple):
    """Message to a worker."""

    candidates: np.ndarray
    """(b, n)"""
    seeds: np.ndarray
    """(b, E) int64"""


class _Answer(NamedTuple):
    """Answer of a worker."""

    scores: np.ndarray
    """(b, E)"""
    steps: int
    seconds: float


class Scoring:
    """`evaluation(candidates, generation)` -> mean scores (P,), for `evolve`.

    Args:
        problem: scores one episode, or is a `BatchProblem`. Pure, and importable in a new process;
            an object may load what it needs when it is first called.
        config: number of episodes and their use.
        parallel: number and place of the workers.
        seed: seed of the run.
        seed_of: function for the seeds of episodes, in place of `episode_seed`.
    """

    def __init__(
        self,
        problem: EpisodeProblem | BatchProblem,
        config: EvaluationConfig | None = None,
        parallel: ParallelConfig | None = None,
        *,
        seed: int = 0,
        seed_of: SeedOf | None = None,
    ):
        self.config, self.parallel = config or EvaluationConfig(), parallel or ParallelConfig()
        self._batched = isinstance(problem, BatchProblem)
        self._scorer = _Scorer(problem, self.config.on_nan)
        if self.config.racing and self._batched:
            raise ValueError(
                f"racing is {self.config.racing}, but all episodes of this problem are scored in "
                "one batch; set racing to 0"
            )
        self._seed_of = seed_of or (lambda *numbers: episode_seed(seed, *numbers))
        self.steps, self.episodes, self._began = 0, 0, time.monotonic()
        self._seconds_per_episode = math.inf
        self._scheduler = self._make_scheduler()

    def __call__(self, candidates: np.ndarray, generation: int) -> np.ndarray:
        """Mean scores (P,) of candidates (P, n) over the episodes of a generation.

        Raises:
            FloatingPointError: a score is not finite; says generation, candidate and seed.
            ScoringError: a score is no number.
            WorkerDiedError, NoWorkersError: see `Scheduler.run`.
            Exception: what the problem raised.
        """
        config = self.config
        seeds = np.array(
            [
                [
                    self._seed_of(generation, 0 if config.same_episodes else i, j)
                    for j in range(config.episodes)
                ]
                for i in range(len(candidates))
            ],
            np.int64,
        )
        # NaN for episodes that were not played.
        scores, everyone = np.full(seeds.shape, np.nan), np.arange(len(candidates))

        def play(who: np.ndarray, which: slice) -> np.ndarray:
            part = seeds[who, which]
            found = self.scores(candidates[who], part)
            self._check(found, part, who, generation)
            scores[who, which] = np.where(np.isfinite(found), found, np.nan)
            return np.asarray(np.isfinite(found).all(1))

        good = play(everyone, slice(config.racing or None))
        kept = everyone
        if config.racing and good.any():
            whole = np.flatnonzero(good)
            kept = whole[still_racing(scores[whole, : config.racing])]
            good[kept] = play(kept, slice(config.racing, None))
        means = mean_scores(scores, config.racing, good, kept)
        # A bad candidate counts as the lowest as a whole, whatever its other episodes gave.
        if not good.all():
            lowest = np.nanmin(np.append(scores, means[good]))
            means[~good] = lowest - 1 - abs(lowest)
        return means

    def scores(self, candidates: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Scores (P, E) of candidates (P, n) in the episodes of these seeds (P, E).

        They may be not finite; other errors are those of a call.
        """
        candidates, seeds = np.asarray(candidates, float), np.asarray(seeds, np.int64)
        if candidates.ndim != 2 or seeds.ndim != 2 or len(seeds) != len(candidates):
            raise ValueError(
                f"got candidates {candidates.shape} and seeds {seeds.shape}; (P, n) and (P, E) are "
                "needed"
            )
        if self._batched:
            return self._run(candidates, seeds, self.config.candidates_per_task)
        # Episode by episode, with enough of them in a task to outweigh the sending.
        flat = self._run(
            candidates.repeat(seeds.shape[1], 0), seeds.reshape(-1, 1), self._group(seeds)
        )
        return flat.reshape(seeds.shape)

    def _group(self, seeds: np.ndarray) -> int:
        """Episodes per task, by the duration of earlier ones; scores do not depend on it."""
        if self._scheduler is None:
            return 1
        share = seeds.size // (4 * max(1, self._scheduler.num_workers))
        return max(1, min(share, int(WORTHWHILE / max(self._seconds_per_episode, 1e-6))))

    @property
    def num_workers(self) -> int:
        """Present number of workers; 1 for this process."""
        return self._scheduler.num_workers if self._scheduler else 1

    def speed(self) -> dict[str, float]:
        """Episodes and steps per second since the last call, and the number of live workers."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        found = {
            "episodes_per_second": self.episodes / seconds,
            "steps_per_second": self.steps / seconds,
            "workers": float(self.num_workers),
        }
        self.steps, self.episodes, self._began = 0, 0, time.monotonic()
        return found

    def close(self) -> None:
        """End the workers."""
        if self._scheduler is not None:
            self._scheduler.close()
            self._scheduler = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_scheduler(self) -> Scheduler[_Task, _Answer] | None:
        parallel, function = self.parallel, self._scorer
        if parallel.backend == "serial":
            return None
        pool: Pool
        if parallel.backend == "processes":
            pool = ProcessPool(function, parallel.workers or count_cores())
        else:
            from generative.training.parallel.ray_pool import RayPool

            pool = RayPool(function, parallel)
        return Scheduler(pool, parallel, lambda task: parallel.deadline * task.seeds.size)

    def _run(self, candidates: np.ndarray, seeds: np.ndarray, rows: int) -> np.ndarray:
        """Scores of the shape of seeds; `rows` rows go to a worker at once."""
        tasks = [
            _Task(candidates[i : i + rows], seeds[i : i + rows])
            for i in range(0, len(candidates), rows)
        ]
        if self._scheduler is None:
            with one_thread():
                answers = []
                for task in tasks:
                    answers.append(self._scorer(task, lambda n: None))
                    self._count(answers[-1])
        else:
            answers = self._scheduler.run(tasks, finished=self._count)
        self._seconds_per_episode = sum(answer.seconds for answer in answers) / max(1, seeds.size)
        return np.concatenate([answer.scores for answer in answers])

    def _count(self, answer: _Answer) -> None:
        self.steps += answer.steps
        self.episodes += answer.scores.size

    def _check(
        self, scores: np.ndarray, seeds: np.ndarray, who: np.ndarray, generation: int
    ) -> None:
        """Raise at a score that is not finite, or report that it counts as the lowest.

        Args:
            scores, seeds: (b, E).
            who: indices of the candidates, (b,).
        """
        bad = ~np.isfinite(scores)
        if not bad.any():
            return
        i, j = np.argwhere(bad)[0]
        what = (
            f"generation {generation}, candidate {who[i]}, seed {seeds[i, j]}: score {scores[i, j]}"
        )
        if self.config.on_nan == "stop":
            raise FloatingPointError(what)
        print(f"{what}; counted as the lowest of {bad.sum()} such episodes", file=sys.stderr)
        if bad.all():
            raise FloatingPointError(f"{what}, and no other score of the generation is finite")


def episode_seed(seed: int, generation: int, candidate: int, episode: int) -> int:
    """Seed of an episode in 0 .. 2**31 - 1, which all environments accept."""
    key = json.dumps([seed, generation, candidate, episode]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:4], "little") % 2**31


def still_racing(scores: np.ndarray) -> np.ndarray:
    """Mask of candidates (P,) that may be in the better half by their first scores (P, E).

    A candidate drops out if its mean lies more than two standard errors (of the difference) below
    that of the last one of the better half.
    """
    means = scores.mean(1)
    errors = scores.std(1, ddof=1) / math.sqrt(scores.shape[1])
    last = np.argsort(-means, kind="stable")[(len(means) - 1) // 2]
    return means[last] - means <= 2 * np.hypot(errors, errors[last])


def mean_scores(scores: np.ndarray, racing: int, good: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Mean score of every candidate, (P,), comparable even if some dropped out of the race.

    The first episodes may be easier or harder than the later ones. A candidate that dropped out
    gets its own mean plus the mean change by the later episodes of those that played on. It is
    capped below all of these; candidates that dropped out keep their order.

    Args:
        scores: (P, E), NaN in episodes that were not played.
        racing: number of episodes after which candidates dropped out; 0: none did.
        good: candidates whose scores are all finite, bool (P,).
        kept: indices of the candidates that played all episodes.
    """
    means = scores.mean(1)
    stayed = np.zeros(len(means), bool)
    stayed[kept] = True
    out, whole = good & ~stayed, good & stayed
    if out.any():
        first = scores[:, :racing].mean(1)
        means[out] = first[out]
        if whole.any():
            lowest = means[whole].min()
            means[out] += (means[whole] - first[whole]).mean()
            above = means[out].max() - lowest + 1e-9 * (1 + abs(lowest))
            means[out] -= max(0.0, above)
    return means


class _Scorer:
    """Function of a worker: a task -> its scores."""

    def __init__(self, problem: EpisodeProblem | BatchProblem, on_nan: str):
        self.problem, self.on_nan = problem, on_nan

    def __call__(self, task: _Task, _report: Report) -> _Answer:
        began = time.perf_counter()
        if isinstance(self.problem, BatchProblem):
            scores, steps = self._batch(self.problem, *task)
        else:
            parts = [
                [self._episode(candidate, int(seed)) for seed in seeds]
                for candidate, seeds in zip(*task, strict=True)
            ]
            scores = [[part.scores for part in row] for row in parts]
            steps = sum(part.steps for row in parts for part in row)
        try:
            scores = np.asarray(scores, float)
        except (TypeError, ValueError) as error:
            raise ScoringError(
                f"the problem scored seed {task.seeds.flat[0]} with {scores!r}; a number is needed"
            ) from error
        if scores.shape != task.seeds.shape:
            raise ScoringError(
                f"the problem returned scores of shape {scores.shape} for {len(task.seeds)} "
                f"candidates and {task.seeds.shape[1]} episodes each"
            )
        return _Answer(scores, int(steps), time.perf_counter() - began)

    def _batch(self, problem: BatchProblem, candidates: np.ndarray, seeds: np.ndarray) -> Scores:
        try:
            return problem.score_batch(candidates, seeds)
        except FloatingPointError as error:
            if self.on_nan == "stop":
                raise
            if len(candidates) > 1:  # one by one, to find the candidate at fault
                pairs = zip(candidates[:, None], seeds[:, None], strict=True)
                parts = [self._batch(problem, *pair) for pair in pairs]
                scores = np.concatenate([np.asarray(part.scores, float) for part in parts])
                return Scores(scores, sum(part.steps for part in parts))
            print(f"{error}; scored last", file=sys.stderr)
            return Scores(np.full(seeds.shape, math.nan), 0)

    def _episode(self, candidate: np.ndarray, seed: int) -> Scores:
        assert not isinstance(self.problem, BatchProblem)
        try:
            found = self.problem(candidate, seed)
        except FloatingPointError as error:
            if self.on_nan == "stop":
                raise
            print(f"seed {seed}: {error}; scored last", file=sys.stderr)
            return Scores(math.nan, 0)
        return found if isinstance(found, Scores) else Scores(found, 0)
