"""Scores of populations: where their seeds come from, and that no worker leaves a trace in them."""

import math
import os
from dataclasses import replace

import numpy as np
import pytest

from generative.training.parallel import ParallelConfig, WorkerDiedError
from tests.commands import children
from tests.worldmodels import problems
from worldmodels.configs import EvaluationConfig, EvolutionConfig
from worldmodels.evolution import evolve
from worldmodels.scoring import (
    Scoring,
    ScoringError,
    episode_seed,
    mean_scores,
    still_racing,
)

SERIAL, TWO = ParallelConfig(), ParallelConfig("processes", 2)
CANDIDATES = np.random.default_rng(0).standard_normal((6, 4))

pytestmark = pytest.mark.usefixtures("warm_workers")


def test_scores_are_those_of_a_loop():
    seeds = np.arange(12).reshape(6, 2)
    expected = [
        [problems.sphere(candidate, seed).scores for seed in row]
        for candidate, row in zip(CANDIDATES, seeds, strict=True)
    ]
    for parallel in (SERIAL, TWO):
        with Scoring(problems.sphere, parallel=parallel) as evaluation:
            found = evaluation.scores(CANDIDATES, seeds)
        np.testing.assert_array_equal(found, expected)


def test_mean_over_episodes_that_all_candidates_share():
    with Scoring(problems.sphere, EvaluationConfig(3), seed=5) as evaluation:
        found = evaluation(CANDIDATES, 2)
        speed = evaluation.speed()
    seeds = [episode_seed(5, 2, 0, j) for j in range(3)]
    expected = [np.mean([problems.sphere(c, s).scores for s in seeds]) for c in CANDIDATES]
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert speed["steps_per_second"] == pytest.approx(7 * speed["episodes_per_second"])
    assert speed["workers"] == 1


def test_or_episodes_of_their_own():
    config = EvaluationConfig(3, same_episodes=False)
    with Scoring(problems.sphere, config, seed=5) as evaluation:
        found = evaluation(CANDIDATES, 2)
    expected = [
        np.mean([problems.sphere(c, episode_seed(5, 2, i, j)).scores for j in range(3)])
        for i, c in enumerate(CANDIDATES)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_seeds_are_apart_and_any_environment_takes_them():
    numbers = [(s, g, c, e) for s in range(3) for g in range(5) for c in range(5) for e in range(5)]
    seeds = [episode_seed(*four) for four in numbers]
    assert len(set(seeds)) == len(seeds)
    assert 0 <= min(seeds) < max(seeds) < 2**31


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_what_goes_together_does_not_depend_on_the_workers(workers):
    """The scores of `Batch` would tell."""
    config = EvaluationConfig(2, candidates_per_task=4)
    found = []
    for parallel in (SERIAL, ParallelConfig("processes", workers)):
        with Scoring(problems.Batch(), config, parallel, seed=1) as evaluation:
            found.append([evaluation(CANDIDATES, generation) for generation in range(3)])
    np.testing.assert_array_equal(*found)
    sums = CANDIDATES.sum(1)
    seeds = [episode_seed(1, 0, 0, j) for j in range(2)]
    by_hand = sums + 1e-3 * np.array([4, 4, 4, 4, 2, 2]) + np.sin(seeds).mean()
    np.testing.assert_allclose(found[0][0], by_hand, rtol=1e-12)


def test_evolution_is_the_same_in_processes():
    config, results = EvolutionConfig(8, 0.5, 6), []
    for parallel in (SERIAL, TWO):
        with Scoring(problems.sphere, EvaluationConfig(2), parallel, seed=3) as evaluation:
            results.append(evolve(evaluation, np.zeros(4), config, seed=3))
    assert np.array_equal(results[0].mean, results[1].mean)
    assert results[0].generations == results[1].generations


# ---------------------------------------------------------------------------------------------
# What is no score
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [SERIAL, TWO])
def test_not_finite_stops_and_says_where(parallel):
    config = EvaluationConfig(2)
    with Scoring(problems.nan_for_some, config, parallel, seed=5) as evaluation:
        bad = int(np.flatnonzero(CANDIDATES[:, 0] > 0)[0])
        seed = episode_seed(5, 4, 0, 0)
        words = rf"generation 4, candidate {bad}, seed {seed}: score nan"
        with pytest.raises(FloatingPointError, match=words):
            evaluation(CANDIDATES, 4)


@pytest.mark.parametrize("problem", [problems.nan_for_some, problems.raises_not_finite])
@pytest.mark.parametrize("parallel", [SERIAL, TWO])
def test_or_comes_last_if_asked_for(problem, parallel, capfd):
    config = EvaluationConfig(2, on_nan="worst")
    with Scoring(problem, config, parallel, seed=5) as evaluation:
        found = evaluation(CANDIDATES, 4)
        good = CANDIDATES[:, 0] <= 0
        np.testing.assert_allclose(found[good], CANDIDATES[good].sum(1), rtol=1e-12)
        assert np.isfinite(found).all()
        assert found[~good].max() < found[good].min()
        assert "score nan; counted as the lowest" in capfd.readouterr().err
        with pytest.raises(FloatingPointError, match="no other score of the generation is finite"):
            evaluation(np.ones((2, 4)), 5)


@pytest.mark.parametrize("parallel", [SERIAL, TWO])
@pytest.mark.parametrize(
    ("problem", "error", "words"),
    [
        (problems.word, ScoringError, r"scored seed \d+ with .*'fast'.*; a number is needed"),
        (problems.BadShape(), ScoringError, r"shape \(6, 1\) for 6 candidates and 2 episodes"),
        (problems.broken, ZeroDivisionError, "axle"),
        (problems.raises_not_finite, FloatingPointError, r"Axle-v0, seed \d+: reward at step 3"),
    ],
)
def test_what_is_no_score_stops_with_its_reason(problem, error, words, parallel):
    before = children(os.getpid())
    config = EvaluationConfig(2)
    with pytest.raises(error, match=words) as caught, Scoring(problem, config, parallel) as e:
        e(CANDIDATES, 0)
    if error is ZeroDivisionError:
        assert "after 3 steps" in caught.value.__notes__[0]
    assert children(os.getpid()) == before


def test_settings_that_cannot_work():
    for wrong in ({"episodes": 0}, {"candidates_per_task": 0}, {"racing": 1}, {"racing": 16}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            EvaluationConfig(**wrong)
    for wrong in ({"workers": -1}, {"attempts": 0}, {"deadline": 0.0}, {"gpus": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ParallelConfig(**wrong)
    with pytest.raises(ValueError, match="one batch; set racing to 0"):
        Scoring(problems.Batch(), EvaluationConfig(8, racing=2))
    with pytest.raises(ValueError, match=r"seeds \(5, 2\)"):
        Scoring(problems.sphere).scores(CANDIDATES, np.zeros((5, 2), int))


# ---------------------------------------------------------------------------------------------
# Racing
# ---------------------------------------------------------------------------------------------


def test_who_goes_on_racing():
    rng = np.random.default_rng(0)
    scores = np.array([9.0, 8.0, 7.0, 0.0])[:, None] + 0.1 * rng.standard_normal((4, 5))
    # The better half ends with the second; the third lies 1 below, some 20 standard errors.
    assert still_racing(scores).tolist() == [True, True, False, False]
    assert still_racing(scores + 20 * rng.standard_normal((4, 5))).all()
    means = scores.mean(1)
    error = math.hypot(scores[1].std(ddof=1), scores[2].std(ddof=1)) / math.sqrt(5)
    for offset, kept in ((1.9, True), (2.1, False)):
        moved = scores.copy()
        moved[2] += means[1] - means[2] - offset * error
        assert still_racing(moved)[2] == kept


def test_racing_saves_episodes_and_leaves_the_others_scores_alone(tmp_path):
    full, racing = EvaluationConfig(8), EvaluationConfig(8, racing=3)
    candidates = np.concatenate([CANDIDATES[:3], CANDIDATES[3:] + 100])
    problem = problems.Logged(tmp_path)
    with Scoring(problem, racing, seed=1) as evaluation:
        found = evaluation(candidates, 0)
    with Scoring(problems.sphere, full, seed=1) as evaluation:
        expected = evaluation(candidates, 0)
    assert problem.calls() == 3 * 8 + 3 * 3
    np.testing.assert_allclose(found[:3], expected[:3], rtol=1e-12)
    assert found[3:].max() < found[:3].min()
    with Scoring(problems.sphere, replace(racing), TWO, seed=1) as evaluation:
        np.testing.assert_array_equal(evaluation(candidates, 0), found)


@pytest.mark.parametrize("easier", [True, False])
@pytest.mark.parametrize("same_episodes", [True, False])
@pytest.mark.parametrize("racing", [2, 4])
def test_racing_keeps_the_order_where_episodes_differ(easier, same_episodes, racing):
    """Candidate k is worth k; the first episodes pay 50 more, or less, than the later ones."""
    places = {}

    def seed_of(generation, candidate, episode):
        return places.setdefault((generation, candidate, episode), len(places) * 100 + episode)

    def problem(candidate, seed):
        bonus = 50.0 if (seed % 100 < racing) == easier else 0.0
        return float(candidate[0]) + bonus + 0.01 * math.sin(seed)

    candidates = np.random.default_rng(3).permutation(8)[:, None].astype(float)
    config = EvaluationConfig(8, racing=racing, same_episodes=same_episodes)
    with Scoring(problem, config, seed_of=seed_of) as evaluation:
        found = evaluation(candidates, 0)
    assert found.argsort().tolist() == candidates[:, 0].argsort().tolist()
    share = racing / 8 if easier else 1 - racing / 8
    np.testing.assert_allclose(found, candidates[:, 0] + 50 * share, atol=0.05)


def test_who_dropped_out_lies_below_who_stayed_however_the_later_episodes_went():
    """Two stay and then do badly: the others' first episodes promised more."""
    rng = np.random.default_rng(1)
    scores = np.array([10.0, 9.0, 8.0, 7.0, 6.0])[:, None] + 0.01 * rng.standard_normal((5, 6))
    scores[:2, 3:] = [[9.0, 9.0, 9.0], [-100.0, -100.0, -100.0]]
    scores[2:, 3:] = np.nan
    means = mean_scores(scores, 3, np.ones(5, bool), np.arange(2))
    assert means.argsort()[::-1].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(means[:2], scores[:2].mean(1))
    np.testing.assert_allclose(np.diff(means[2:]), np.diff(scores[2:, :3].mean(1)), atol=1e-9)


def test_a_late_score_that_is_not_finite_comes_last_of_all():
    late = episode_seed(1, 0, 0, 5)
    candidates = np.concatenate([CANDIDATES[:3] + 100, CANDIDATES[3:]])

    def problem(candidate, seed):
        lost = seed == late and candidate[0] == candidates[4, 0]
        return math.nan if lost else -float(np.square(candidate).sum())

    with Scoring(problem, EvaluationConfig(8, racing=3, on_nan="worst"), seed=1) as evaluation:
        found = evaluation(candidates, 0)
    assert found.argmin() == 4
    assert np.isfinite(found).all()


def test_racing_names_the_candidate_and_the_seed_of_a_late_score_that_is_not_finite():
    late = episode_seed(1, 0, 0, 5)
    candidates = np.concatenate([CANDIDATES[:3] + 100, CANDIDATES[3:]])  # the first three drop out
    with Scoring(problems.NanAt(late), EvaluationConfig(8, racing=3), seed=1) as evaluation:
        told = pytest.raises(FloatingPointError, match=rf"candidate 3, seed {late}: score nan")
        with told:
            evaluation(candidates, 0)


# ---------------------------------------------------------------------------------------------
# Workers that die, hang and dawdle
# ---------------------------------------------------------------------------------------------


def lossy(folder, first, **settings):
    """(scores, problem, scheduler's counts) of a population whose workers get into trouble."""
    problem = problems.Logged(folder, 0.02, first)
    parallel = replace(TWO, **settings)
    candidates = np.random.default_rng(1).standard_normal((12, 4))
    with Scoring(problem, EvaluationConfig(3), parallel, seed=1) as evaluation:
        found = evaluation(candidates, 0)
        scheduler = evaluation._scheduler
        counts = scheduler.lost, scheduler.repeated, scheduler.copied
    with Scoring(problems.sphere, EvaluationConfig(3), seed=1) as evaluation:
        np.testing.assert_array_equal(found, evaluation(candidates, 0))
    assert problem.episodes() == 36
    return problem, counts


def test_a_worker_that_dies_loses_its_episode_alone(tmp_path, capfd):
    problem, (lost, repeated, _) = lossy(tmp_path, "die")
    assert 0 < lost == repeated == problem.calls() - 36
    assert "a worker was lost (exit code 5) on job" in capfd.readouterr().err


def test_a_worker_that_hangs_is_ended_at_its_deadline(tmp_path, capfd):
    problem, (lost, repeated, _) = lossy(tmp_path, "hang", deadline=1.0, straggler=0.0)
    assert 0 < lost == repeated == problem.calls() - 36
    assert "no answer within the 1 s" in capfd.readouterr().err


def test_a_straggler_is_overtaken_and_its_late_answer_ignored(tmp_path, capfd):
    problem, (lost, repeated, copied) = lossy(tmp_path, "slow")
    assert lost == repeated == 0
    assert 0 < copied == problem.calls() - 36
    assert "a second worker tries it too" in capfd.readouterr().err


def test_an_episode_that_kills_every_worker_is_given_up():
    parallel = replace(TWO, attempts=3)
    told = pytest.raises(WorkerDiedError, match=r"exit code 9\) on job 1 of 1, for the 3\. time")
    with Scoring(dies, EvaluationConfig(1), parallel) as evaluation, told:
        evaluation(CANDIDATES[:1], 0)


def dies(candidate, seed):
    os._exit(9)
