"""Networks whose output is an energy, or minus one: the book's convolutions, a perceptron."""

from __future__ import annotations

import math

from torch import Tensor, nn

from generative.energy.config import ConvEnergyConfig, PointEnergyConfig
from generative.nets.conv import same_pad
from generative.nets.embeddings import Waves
from generative.nets.init import glorot_

__all__ = ["WavyPerceptron", "conv_network"]


def conv_network(config: ConvEnergyConfig) -> nn.Sequential:
    """The book's network on images, (B, C, H, W) -> (B, 1)."""
    network, (c, h, w) = nn.Sequential(), config.image_shape
    for i, after in enumerate(config.channels):
        kernel = 3 if i else 5
        network.append(same_pad((h, w), kernel, 2)).append(nn.Conv2d(c, after, kernel, stride=2))
        network.append(nn.SiLU())
        c, h, w = after, (h + 1) // 2, (w + 1) // 2
    network.append(nn.Flatten())
    network.append(nn.Linear(c * h * w, config.hidden_dim)).append(nn.SiLU())
    network.append(nn.Linear(config.hidden_dim, 1))
    glorot_(network)
    return network


class WavyPerceptron(nn.Module):
    """Points (B, D) -> (B, 1), by way of their sines and cosines."""

    def __init__(self, config: PointEnergyConfig):
        super().__init__()
        self.waves = Waves(math.pi / (2 * config.base_std), config.num_waves)
        width, layers = config.dim * (1 + 2 * config.num_waves), []
        for _ in range(config.num_hidden):
            layers += [nn.Linear(width, config.hidden_dim), nn.SiLU()]
            width = config.hidden_dim
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))
        glorot_(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.waves(x))
