"""Norms of GANs: over the batch with scales that follow a condition, and of weights (spectral)."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["ConditionalBatchNorm2d", "spectral_norm_", "standing_statistics"]

Network = TypeVar("Network", bound=nn.Module)


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalisation whose scales and shifts are linear in a condition.

    y = norm(x) * (1 + gain(given)) + shift(given), the linear maps without bias (de Vries et al.
    2017, in the form of Brock et al. 2019). A one-hot condition makes them tables of a class.

    Args:
        channels: of the feature maps.
        given_dim: width of the condition; 0 for none, which makes it `nn.BatchNorm2d`.
    """

    def __init__(self, channels: int, given_dim: int = 0):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=not given_dim)
        self.gain = nn.Linear(given_dim, channels, bias=False) if given_dim else None
        self.shift = nn.Linear(given_dim, channels, bias=False) if given_dim else None

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), and the condition (B, given_dim) if there is one -> (B, C, H, W)."""
        x = self.norm(x)
        if self.gain is None or self.shift is None or given is None:
            return x
        gain, shift = self.gain(given)[..., None, None], self.shift(given)[..., None, None]
        return x * (1 + gain) + shift


def spectral_norm_(network: Network) -> Network:
    """Divide the weight of every linear, convolutional and embedding layer by its spectral norm.

    The largest singular value is estimated by one power iteration at each forward pass in training
    mode (Miyato et al. 2018); its vectors are buffers, and evaluation leaves them as they are.

    Returns:
        The network itself.
    """
    for layer in list(network.modules()):
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.Embedding)):
            spectral_norm(layer)
    return network


@torch.no_grad()
def standing_statistics(network: Network, inputs: list[tuple[Tensor, ...]]) -> Network:
    """Batch statistics of a network, taken anew as the averages over these inputs.

    A generator that is given other noise than in training needs its own (Brock et al. 2019).

    Args:
        network: changed in place; its weights and its spectral norms are not.
        inputs: arguments of each forward pass.
    Returns:
        The network itself, in evaluation mode.
    """
    norms = [m for m in network.eval().modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all passes
        norm.train()
    for each in inputs:
        network(*each)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()
