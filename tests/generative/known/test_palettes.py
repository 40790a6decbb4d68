"""Two palettes: what is recoloured, what is drawn, and that one pairing of colours fits."""

import itertools

import numpy as np

from generative.known.palettes import FREQUENCIES, PARTNERS, SECOND, by_frequency, recoloured
from generative.known.sprites import COLOURS, nearest, sprites


def numbered(colours: np.ndarray) -> np.ndarray:
    """Colours (..., 3) as one number each, which is quick to sort."""
    return colours @ np.array([1 << 16, 1 << 8, 1])


def test_recoloured_sprites_differ_in_nothing_but_colour():
    first = sprites()
    second = recoloured(first, SECOND)
    assert np.array_equal(first.images.any(-1), second.images.any(-1))
    assert np.array_equal(first.factors, second.factors)
    for n, colour in enumerate(SECOND.values()):
        own = second.images[second.factors[:, 1] == n]
        assert np.unique(numbered(own)).tolist() == sorted([0, int(numbered(np.array(colour)))])
    back = recoloured(second, COLOURS)
    assert np.array_equal(back.images, first.images)


def test_no_two_sprites_of_the_second_set_are_taken_for_each_other():
    """The nearest other one is farther than twice what is taken for the same sprite."""
    second = recoloured(sprites(), SECOND)
    rows = np.arange(0, len(second), 97)
    table = second.images.reshape(len(second), -1).astype(np.float64)  # sums of it are exact
    square = (table**2).sum(1)
    distance = (square[rows, None] + square - 2 * table[rows] @ table.T) / table.shape[1]
    distance[np.arange(len(rows)), rows] = np.inf
    assert distance.min() > 2 * 39
    assert np.array_equal(nearest(second, second.images[rows])[0], rows)


def test_sprites_are_drawn_by_the_frequency_of_their_colour():
    images = sprites().part("train")
    rows = by_frequency(np.random.default_rng(0), images, 20_000, FREQUENCIES)
    shares = np.bincount(images.factors[rows, 1], minlength=6) / len(rows)
    assert np.abs(shares - FREQUENCIES).max() < 4 * np.sqrt(0.25 / len(rows))
    shapes = np.bincount(images.factors[rows, 0], minlength=4) / len(rows)
    assert np.abs(shapes - 0.25).max() < 0.02
    assert len(np.unique(rows)) > 0.8 * len(images)


def test_one_pairing_of_720_keeps_the_frequencies():
    assert sorted(PARTNERS) == list(range(6))
    assert len(set(FREQUENCIES)) == 6
    assert np.isclose(sum(FREQUENCIES), 1)
    second = np.zeros(6)
    second[list(PARTNERS)] = FREQUENCIES
    fitting = [
        pairing
        for pairing in itertools.permutations(range(6))
        if np.array_equal(second[list(pairing)], FREQUENCIES)
    ]
    assert fitting == [PARTNERS]
