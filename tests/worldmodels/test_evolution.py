"""CMA-ES: reaches known optima, owns its random numbers, survives being killed."""

import time
from dataclasses import replace

import cma
import numpy as np
import pytest

from worldmodels.configs import EvolutionConfig
from worldmodels.evolution import CMAES, Restarts, evolve

OPTIMUM = np.array([0.5, -1.0, 0.25, 2.0, -0.5])


def sphere(candidates, generation):
    return -((candidates - OPTIMUM) ** 2).sum(1)


def ellipsoid(candidates, generation):
    """Axes of length 1 to 1,000, turned by 45 degrees in the first two dimensions."""
    x = candidates - OPTIMUM
    turned = x.copy()
    turned[:, 0], turned[:, 1] = (x[:, 0] - x[:, 1]) / 2**0.5, (x[:, 0] + x[:, 1]) / 2**0.5
    return -(turned**2 * np.logspace(0, 3, 5)).sum(1)


@pytest.mark.parametrize(
    ("evaluate", "diagonal", "generations"),
    [(sphere, False, 120), (sphere, True, 120), (ellipsoid, False, 250)],
)
def test_finds_the_optimum(evaluate, diagonal, generations):
    config = EvolutionConfig(12, 0.5, generations, diagonal)
    result = evolve(evaluate, np.zeros(5), config, seed=1)
    np.testing.assert_allclose(result.mean, OPTIMUM, atol=1e-4)
    assert len(result.generations) == generations
    first, last = result.generations[0], result.generations[-1]
    assert last.average > first.best
    assert first.best == max(first.scores)
    assert result.sigma < 0.01


def assert_same(ours, theirs):
    assert np.array_equal(ours.mean, theirs.mean)
    assert ours.sigma == theirs.sigma
    assert ours.generations == theirs.generations


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("diagonal", [False, True])
def test_numpys_global_generator_is_neither_read_nor_moved(diagonal, seed):
    config, results = EvolutionConfig(8, 0.3, 15, diagonal), []
    for global_seed in (1, 2):
        np.random.seed(global_seed)  # noqa: NPY002 (the global generator is what this is about)
        before = np.random.get_state()  # noqa: NPY002
        results.append(evolve(sphere, np.zeros(5), config, seed))
        after = np.random.get_state()  # noqa: NPY002
        assert np.array_equal(before[1], after[1])
        assert before[2:] == after[2:]
    assert_same(*results)


def test_seed_zero_is_a_seed():
    config = EvolutionConfig(8, 0.3, 4)
    results = [evolve(sphere, np.zeros(5), config, seed=seed) for seed in (0, 0, 1)]
    assert_same(results[0], results[1])
    assert not np.array_equal(results[0].mean, results[2].mean)


def test_first_candidates_have_the_given_mean_and_deviation():
    strategy = CMAES(OPTIMUM, EvolutionConfig(4000, 0.3), seed=0)
    candidates = strategy.ask()
    assert candidates.shape == (4000, 5)
    np.testing.assert_allclose(candidates.mean(0), OPTIMUM, atol=0.02)
    np.testing.assert_allclose(candidates.std(0), 0.3, rtol=0.05)
    assert np.array_equal(strategy.mean, OPTIMUM)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_stop_the_run(bad, tmp_path):
    def evaluate(candidates, generation):
        scores = sphere(candidates, generation)
        scores[3] = bad if generation == 2 else scores[3]
        return scores

    journal = tmp_path / "journal.jsonl"
    with pytest.raises(FloatingPointError, match=r"generation 2, candidate 3: .*seed 5"):
        evolve(evaluate, np.zeros(5), EvolutionConfig(8, 0.3, 5), 5, journal)
    assert len(journal.read_text().splitlines()) == 2
    strategy = CMAES(np.zeros(5), EvolutionConfig(8, 0.3), seed=0)
    scores = np.zeros(8)
    scores[6] = bad
    with pytest.raises(FloatingPointError, match="candidate 6 scored"):
        strategy.tell(strategy.ask(), scores)


def test_scores_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"returned shape \(7,\), needed \(8,\)"):
        evolve(lambda x, g: np.zeros(7), np.zeros(5), EvolutionConfig(8, 0.3, 2), 0)


@pytest.mark.parametrize("diagonal", [False, True])
def test_weight_decay_pulls_towards_zero(diagonal):
    """-|x - a|^2 - w mean(x^2) has its maximum at a / (1 + w / n)."""
    config = EvolutionConfig(12, 0.5, 120, diagonal, weight_decay=2.5)
    result = evolve(sphere, np.zeros(5), config, seed=1)
    np.testing.assert_allclose(result.mean, OPTIMUM / 1.5, atol=1e-4)
    # The journal's scores are those of the evaluation, without the decay.
    assert result.generations[-1].best == pytest.approx(-((OPTIMUM / 3) ** 2).sum(), rel=1e-3)


def decompositions(config, dimension, generations):
    strategy, found = CMAES(np.zeros(dimension), config, seed=0), []
    for generation in range(generations):
        candidates = strategy.ask()
        strategy.tell(candidates, -(candidates**2).sum(1))
        found.append((generation, strategy._strategy.sm.count_eigen))
    return np.diff([count for _, count in found]).nonzero()[0]


def test_covariance_is_decomposed_as_seldom_as_its_learning_rates_allow():
    n, popsize = 40, 10
    # Hansen (2016), table 1: weights of the better half, and the rates they lead to.
    weights = np.log((popsize + 1) / 2) - np.log(np.arange(1, popsize // 2 + 1))
    mueff = weights.sum() ** 2 / (weights**2).sum()
    c1 = 2 / ((n + 1.3) ** 2 + mueff)
    cmu = 2 * (0.25 + mueff + 1 / mueff - 2) / ((n + 2) ** 2 + mueff)
    for lazy in (0.2, 0.5):
        config = EvolutionConfig(popsize, 0.3, lazy_update=lazy)
        gaps = np.diff(decompositions(config, n, 60))
        assert set(gaps) == {int(np.ceil(lazy / (c1 + cmu) / n))}
    every = decompositions(EvolutionConfig(popsize, 0.3, lazy_update=0.0), n, 20)
    assert set(np.diff(every)) == {1}


def test_pycmas_own_laziness_gives_pycmas_own_search():
    n, popsize, rng = 40, 10, np.random.default_rng(3)
    options = {"popsize": popsize, "verbose": -9, "seed": np.nan}
    theirs = cma.CMAEvolutionStrategy(
        np.ones(n), 0.3, {**options, "randn": lambda *shape: rng.standard_normal(shape)}
    )
    ours = CMAES(np.ones(n), EvolutionConfig(popsize, 0.3, lazy_update=0.1), seed=3)
    for _ in range(30):
        candidates = ours.ask()
        assert np.array_equal(candidates, theirs.ask())
        values = (candidates**2).sum(1)
        theirs.tell(list(candidates), values.tolist())
        ours.tell(candidates, -values)
    assert ours.sigma == theirs.sigma


def test_lazy_search_is_as_quick():
    """Generations to 1e-6 on an ellipsoid of 10 axes, decomposed in every or every other one."""
    scale, needed = np.logspace(0, 3, 10), {}
    for lazy in (0.0, 0.5):
        for seed in range(3):
            strategy = CMAES(np.ones(10), EvolutionConfig(8, 0.5, lazy_update=lazy), seed)
            generation, best = 0, -np.inf
            while best < -1e-6:
                candidates, generation = strategy.ask(), generation + 1
                scores = -(candidates**2 * scale).sum(1)
                strategy.tell(candidates, scores)
                best = scores.max()
            needed[lazy] = needed.get(lazy, 0) + generation
        assert (strategy._strategy.sm.lazy_update_gap > 1) == (lazy > 0)
    assert needed[0.5] < 1.2 * needed[0.0]


CONFIG = EvolutionConfig(8, 0.3, 7)


class Killed(BaseException):
    pass


def evolve_until(killed_at, journal, seed=3):
    def evaluate(candidates, generation):
        if generation == killed_at:
            raise Killed
        return sphere(candidates, generation)

    with pytest.raises(Killed):
        evolve(evaluate, np.zeros(5), CONFIG, seed, journal)


def some(quick: set[int], all_of: range) -> list:
    """These in every run, the others every night."""
    return [pytest.param(i, marks=() if i in quick else pytest.mark.nightly) for i in all_of]


@pytest.mark.parametrize("killed_at", some({0, 3, 6}, range(7)))
def test_killed_and_continued_equals_never_stopped(killed_at, tmp_path):
    undisturbed = evolve(sphere, np.zeros(5), CONFIG, 3, tmp_path / "whole.jsonl")
    journal, asked, told = tmp_path / "journal.jsonl", [], []
    evolve_until(killed_at, journal)

    def evaluate(candidates, generation):
        asked.append(generation)
        return sphere(candidates, generation)

    resumed = evolve(
        evaluate, np.zeros(5), CONFIG, 3, journal, lambda g, strategy: told.append(g.index)
    )
    assert_same(resumed, undisturbed)
    assert asked == told == list(range(killed_at, 7))
    assert journal.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("killed_at", some({3, 4, 8}, range(1, 9)))
def test_laziness_and_decay_survive_being_killed(killed_at, tmp_path):
    """In 40 dimensions the covariance is decomposed in every fourth generation."""
    config, begin = EvolutionConfig(10, 0.3, 9, weight_decay=0.5), np.ones(40)

    def evaluate(candidates, generation):
        return -(candidates**2).sum(1)

    undisturbed = evolve(evaluate, begin, config, 3)
    journal, part = tmp_path / "journal.jsonl", replace(config, generations=killed_at)
    evolve(evaluate, begin, part, 3, journal)
    assert_same(evolve(evaluate, begin, config, 3, journal), undisturbed)


def test_half_a_last_line_is_cut_off(tmp_path):
    whole, journal = tmp_path / "whole.jsonl", tmp_path / "journal.jsonl"
    undisturbed = evolve(sphere, np.zeros(5), CONFIG, 3, whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    for kept in (1, len(lines[4]) // 2, len(lines[4]) - 1):  # the last: all but its newline
        journal.write_bytes(b"".join(lines[:4]) + lines[4][:kept])
        assert_same(evolve(sphere, np.zeros(5), CONFIG, 3, journal), undisturbed)
        assert journal.read_bytes() == whole.read_bytes()


def test_more_generations_go_on_from_the_journal(tmp_path):
    journal, more = tmp_path / "journal.jsonl", EvolutionConfig(8, 0.3, 10)
    evolve(sphere, np.zeros(5), CONFIG, 3, journal)
    assert_same(evolve(sphere, np.zeros(5), more, 3, journal), evolve(sphere, np.zeros(5), more, 3))


@pytest.mark.parametrize(
    ("mean", "config", "seed"),
    [
        (np.zeros(5), CONFIG, 4),
        (np.ones(5), CONFIG, 3),
        (np.zeros(5), EvolutionConfig(8, 0.4, 7), 3),
        (np.zeros(5), EvolutionConfig(10, 0.3, 7), 3),
    ],
)
def test_a_foreign_journal_is_refused(mean, config, seed, tmp_path):
    journal = tmp_path / "journal.jsonl"
    evolve_until(3, journal)
    before = journal.read_bytes()
    with pytest.raises(ValueError, match=r"journal\.jsonl: generation 0 .* Use a new run folder"):
        evolve(sphere, mean, config, seed, journal)
    assert journal.read_bytes() == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"popsize": 1},
        {"sigma": 0.0},
        {"weight_decay": -0.1},
        {"lazy_update": 1.5},
        {"restarts": -1},
        {"max_seconds": -1.0},
        {"target": 1.0},
        {"patience": 2},
    ],
)
def test_settings_that_cannot_work(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EvolutionConfig(**wrong)


# ---------------------------------------------------------------------------------------------
# Tests of the mean, budgets, restarts
# ---------------------------------------------------------------------------------------------


def score_of_mean(mean, generation):
    return float(sphere(mean[None], generation)[0])


def test_the_mean_is_tested_and_the_best_test_is_the_answer(tmp_path):
    config, asked = EvolutionConfig(8, 0.3, 9, test_every=2), []

    def test(mean, generation):
        asked.append(generation)
        return score_of_mean(mean, generation) if generation < 6 else -1e9

    result = evolve(sphere, np.zeros(5), config, 3, tmp_path / "j.jsonl", test=test)
    assert asked == [1, 3, 5, 7]
    assert [g.index for g in result.generations if g.mean_score is not None] == asked
    assert score_of_mean(result.mean, 0) == result.generations[5].mean_score
    # The journal knows them: continued, none is asked for again.
    again = evolve(sphere, np.zeros(5), config, 3, tmp_path / "j.jsonl", test=test)
    assert asked == [1, 3, 5, 7]
    assert np.array_equal(again.mean, result.mean)
    with pytest.raises(ValueError, match="test_every is 2 and test is not given"):
        evolve(sphere, np.zeros(5), config, 3)


def test_ends_at_its_target_or_when_nothing_gets_better():
    config = EvolutionConfig(8, 0.3, 400, test_every=5, target=-0.5)
    result = evolve(sphere, np.zeros(5), config, 3, test=score_of_mean)
    assert result.generations[-1].mean_score >= -0.5
    assert "reached" in result.reason
    earlier = [g.mean_score for g in result.generations[:-1] if g.mean_score is not None]
    assert max(earlier) < -0.5
    config = EvolutionConfig(8, 0.3, 400, test_every=5, patience=3)
    result = evolve(sphere, np.zeros(5), config, 3, test=lambda mean, g: -float(g > 20))
    assert len(result.generations) == 20  # tests 0 0 0 0: the first, and three no better
    assert result.reason == "no better mean in 3 tests"


def test_ends_at_its_budgets(tmp_path):
    result = evolve(sphere, np.zeros(5), EvolutionConfig(8, 0.3, 400, max_evaluations=100), 3)
    assert len(result.generations) == 13  # 12 have 96 evaluations
    config = EvolutionConfig(8, 0.3, 400, max_seconds=0.2)
    slow = evolve(
        lambda x, g: time.sleep(0.03) or sphere(x, g), np.zeros(5), config, 3, tmp_path / "j"
    )
    assert 1 <= len(slow.generations) < 100
    assert "seconds" in slow.reason
    # The time is kept: continued, it is over at once.
    again = evolve(sphere, np.zeros(5), config, 3, tmp_path / "j")
    assert again.generations == slow.generations


def rastrigin(candidates, generation):
    """Many local optima around the best one, 0 at 0."""
    x = candidates
    return -(10 * x.shape[1] + (x**2 - 10 * np.cos(2 * np.pi * x)).sum(1))


def populations(config, seed, generations, function=rastrigin, mean=3.0):
    strategy, sizes = Restarts(np.full(4, mean), config, seed), []
    for generation in range(generations):
        candidates = strategy.ask()
        if strategy.restarts == len(sizes):
            sizes.append((len(candidates), strategy.sigma))
        strategy.tell(candidates, function(candidates, generation))
        if strategy.finished:
            break
    return sizes, strategy


def test_ipop_doubles_the_population_at_every_restart():
    config = EvolutionConfig(8, 1.0, restarts=3)
    sizes, _ = populations(config, 1, 3000, lambda x, g: np.zeros(len(x)))
    assert sizes == [(8 * 2**i, 1.0) for i in range(4)]


@pytest.mark.nightly
def test_ipop_doubles_the_population_until_it_finds_the_optimum():
    config = EvolutionConfig(8, 1.0, restarts=6)
    sizes, strategy = populations(config, 1, 4000)
    assert sizes == [(8 * 2**i, 1.0) for i in range(len(sizes))]
    assert len(sizes) > 2
    np.testing.assert_allclose(strategy.mean, 0, atol=1e-3)
    alone, strategy = populations(EvolutionConfig(8, 1.0), 1, 4000)
    assert len(alone) == 1
    assert np.abs(strategy.mean).max() > 0.5  # a local optimum, which restarts are for


def test_bipop_spends_as_much_on_small_populations_as_on_large_ones():
    config = EvolutionConfig(8, 1.0, restarts=20, restart_by="bipop")
    sizes, _ = populations(config, 1, 3000, lambda x, g: np.zeros(len(x)))
    assert sizes[0] == (8, 1.0)
    assert sizes[1] == (16, 1.0)  # the first of the large ones
    small = [(size, sigma) for size, sigma in sizes[1:] if sigma < 1]
    large = [size for size, sigma in sizes[1:] if sigma == 1]
    assert large == [16 * 2**i for i in range(len(large))]
    assert small
    assert all(8 <= size <= max(large) and sigma >= 0.01 for size, sigma in small)


def test_restarts_survive_being_killed(tmp_path):
    config = EvolutionConfig(6, 1.0, 160, restarts=3, restart_by="bipop")
    begin = np.full(3, 3.0)
    undisturbed = evolve(rastrigin, begin, config, 3, tmp_path / "whole")
    assert len({len(g.scores) for g in undisturbed.generations}) > 1
    for killed_at in (20, 90, 140):
        evolve(rastrigin, begin, replace(config, generations=killed_at), 3, tmp_path / "j")
    assert_same(evolve(rastrigin, begin, config, 3, tmp_path / "j"), undisturbed)
    assert (tmp_path / "j").read_bytes() == (tmp_path / "whole").read_bytes()


def test_covariance_is_that_of_the_candidates():
    strategy = CMAES(np.zeros(3), EvolutionConfig(3000, 0.5), seed=0)
    for _ in range(3):
        candidates = strategy.ask()
        strategy.tell(candidates, -(candidates**2 * [1, 10, 100]).sum(1))
    covariance = strategy.covariance
    np.testing.assert_allclose(np.cov(strategy.ask().T), covariance, rtol=0.15, atol=1e-3)


@pytest.mark.parametrize(
    ("mean", "shape"),
    [(np.zeros(0), r"\(0,\)"), (np.zeros((2, 3)), r"\(2, 3\)"), (np.float64(1.0), r"\(\)"),
     (np.array([0.0, np.nan]), r"\(2,\)")],
)  # fmt: skip
def test_a_start_that_is_none_is_told(mean, shape):
    for begin in (CMAES, Restarts):
        with pytest.raises(ValueError, match=f"of shape {shape}; give the parameters as one array"):
            begin(mean, EvolutionConfig(4), 1)
    with pytest.raises(ValueError, match="give the parameters"):
        evolve(lambda x, _: -(x**2).sum(1), mean, EvolutionConfig(4, generations=2), seed=1)


def test_the_journal_may_be_named_by_a_word(tmp_path):
    config, file = EvolutionConfig(4, 0.3, 3), tmp_path / "journal.jsonl"

    def score(x, _):
        return -(x**2).sum(1)

    first = evolve(score, np.ones(3), config, seed=1, journal=str(file))
    assert file.exists()
    again = evolve(score, np.ones(3), config, seed=1, journal=file)
    np.testing.assert_array_equal(first.mean, again.mean)
