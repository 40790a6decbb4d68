"""The excess of a score network over the exact score."""

import math

import pytest
import torch

from generative.known.densities import GaussianMixture, eight_gaussians
from generative.known.points import load_density
from generative.score_matching import ScoreConfig, denoising_loss

torch.set_num_threads(1)


def test_excess_of_a_score_is_over_the_exact_one():
    """The loss itself, with the noise of its draws, is the floor and the excess."""
    torch.manual_seed(0)
    density = load_density("eight-gaussians")
    network = ScoreConfig(hidden_dim=8, num_hidden=1, num_levels=3).build()
    found = denoising_loss(network, density)
    x = density.sample(200_000, torch.Generator().manual_seed(5))
    with torch.no_grad():
        loss = float(network.loss(x, generator=torch.Generator().manual_seed(6)).loss)
    assert found.loss == pytest.approx(loss, rel=0.01)
    assert found.excess > 0.1 * found.floor


def test_the_exact_score_has_no_excess():
    """Of eight Gaussians with noise, which are eight wider Gaussians, by autograd."""
    plain, network = eight_gaussians(), ScoreConfig(num_levels=3).build()

    def exact_score(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        scores = torch.empty_like(x)
        for level in network.levels:
            noisy = GaussianMixture(plain.centres, math.hypot(plain.scale, float(level)))
            with torch.enable_grad():
                at = x[sigma == level].double().requires_grad_()
                (score,) = torch.autograd.grad(noisy.log_prob(at).sum(), at)
            scores[sigma == level] = score.float()
        return scores

    network.score = exact_score
    found = denoising_loss(network, plain, n=2000)
    assert found.excess < 1e-8
    assert 0.1 < found.floor < 0.5
