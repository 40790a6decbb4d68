"""The pictures of CMA-ES: functions, films, and that ellipses are those of the distribution."""

import numpy as np
import pytest
from PIL import Image

from scripts.cma_es_demo import FUNCTIONS, draw, search
from tests.commands import run_script
from worldmodels.configs import EvolutionConfig


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_their_minimum_where_they_say(name):
    function = FUNCTIONS[name]
    minimum = np.array(function.minimum)
    assert function.value(minimum) == pytest.approx(0, abs=1e-12)
    around = minimum + 0.1 * np.random.default_rng(0).standard_normal((200, 2))
    assert function.value(around).min() > 0
    assert np.abs(minimum).max() < function.half_width
    assert np.abs(function.begin).max() < function.half_width


def test_the_ellipse_is_that_of_two_deviations():
    import matplotlib.pyplot as plt

    moments = search(FUNCTIONS["rosenbrock"], EvolutionConfig(12, 0.3, generations=15), 1)
    figure, axes = plt.subplots()
    draw(axes, FUNCTIONS["rosenbrock"], moments, 14)
    ellipse, covariance = axes.patches[0], moments[14].covariance
    edge = ellipse.get_patch_transform().transform(ellipse.get_path().vertices) - moments[14].mean
    distance = np.sqrt(np.einsum("ni,ij,nj->n", edge, np.linalg.inv(covariance), edge))
    np.testing.assert_allclose(distance, 2, rtol=0.05)  # drawn by Bezier curves
    plt.close(figure)


def test_smoke(tmp_path):
    done = run_script("cma_es_demo", "smoke", "--out", tmp_path / "a demo")
    assert done.returncode == 0, done.stderr
    film = Image.open(tmp_path / "a demo" / "rastrigin.gif")
    assert film.n_frames == 6
    assert film.size == (336, 352)
    assert Image.open(tmp_path / "a demo" / "rastrigin.png").size == (810, 576)
