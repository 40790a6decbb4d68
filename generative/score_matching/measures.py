"""Loss of a score network beside the least there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from generative.diffusion.exact import MixtureDenoiser

if TYPE_CHECKING:
    from generative.known.quadrature import Density
    from generative.score_matching.model import ScoreNetwork

__all__ = ["DenoisingLoss", "denoising_loss"]


class DenoisingLoss(NamedTuple):
    """Half the mean squared error of one number, times sigma, over all noise levels."""

    loss: float
    floor: float
    """Loss of the exact score."""
    excess: float
    """`loss` less `floor`."""


@torch.no_grad()
def denoising_loss(
    network: ScoreNetwork, density: Density, n: int = 2**16, seed: int = 1
) -> DenoisingLoss:
    """Denoising loss of a network of points on fresh ones, beside the least there is.

    The best prediction of the noise in x + sigma eps is its mean given the sum, which is -sigma
    times the exact score. Any other prediction costs half its squared distance from this one more.
    The excess is therefore that distance, which has little noise.

    Args:
        network: of points, on any device.
        density: of the data, one that `MixtureDenoiser.of` knows.
        n: points, each at one noise level.
        seed: of the points, the levels and the noise.
    """
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    exact = MixtureDenoiser.of(density)
    x = density.sample(n, generator, even=True)
    levels = network.levels.cpu()
    sigma = levels[torch.randint(len(levels), (n,), generator=generator)]
    noisy = x + sigma[:, None] * torch.randn(x.shape, generator=generator)
    # There, signal and noise have variances that add up to 1; here, the signal has all of its own.
    shrunk, log_snr = noisy / (1 + sigma.square()).sqrt()[:, None], -2 * sigma.log()
    best, _ = exact(shrunk, log_snr)
    score = network.score(noisy.to(device), sigma.to(device)).cpu()
    excess = float((-sigma[:, None] * score - best).square().mean()) / 2
    variance = exact.data_variance(shrunk, log_snr) / sigma.square()
    floor = float(variance.mean()) / x.shape[1] / 2
    return DenoisingLoss(floor + excess, floor, excess)
