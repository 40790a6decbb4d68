"""Encoders and decoders of VAEs: the book's convolutions, plain layers for tiny images, and the
networks of World Models for 64x64 frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.conv import doubling_layers, halving_layers
from generative.vae.config import ConvVAEConfig, ImageVAEConfig

__all__ = ["FrameDecoder", "conv_decoder", "conv_encoder", "frame_encoder", "mlp"]

SLOPE = 0.3
"""Slope of LeakyReLU below 0, the default of the book's framework."""


def conv_encoder(config: ImageVAEConfig) -> nn.Sequential:
    """Convolutions of stride 2, (B, C, H, W) -> (B, features)."""
    widths = (config.image_shape[0], *config.channels)
    return nn.Sequential(*halving_layers(widths, _behind(config)), nn.Flatten())


def conv_decoder(config: ImageVAEConfig) -> nn.Sequential:
    """Transposed convolutions of stride 2, z (B, D) -> pixels before the sigmoid (B, C, H, W)."""
    widths = config.channels[::-1]
    small = (widths[0], *(side >> len(widths) for side in config.image_shape[1:]))
    features = math.prod(small)
    layers: list[nn.Module] = [nn.Linear(config.latent_dim, features)]
    if config.batch_norm:
        layers += _activation(nn.BatchNorm1d, features, config)
    layers.append(nn.Unflatten(1, small))
    layers += doubling_layers((widths[0], *widths), _behind(config))
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], config.image_shape[0], 3, padding=1))


def _behind(config: ImageVAEConfig) -> Callable[[int], list[nn.Module]]:
    return lambda width: _activation(nn.BatchNorm2d, width, config)


def _activation(norm: type[nn.Module], width: int, config: ImageVAEConfig) -> list[nn.Module]:
    if not config.batch_norm:
        return [nn.ReLU()]
    return [norm(width, eps=1e-3, momentum=0.01), nn.LeakyReLU(SLOPE)]


def mlp(in_dim: int, config: ImageVAEConfig) -> list[nn.Module]:
    """Layers of hidden_dim units, (B, in_dim) -> (B, hidden_dim)."""
    layers: list[nn.Module] = []
    for before in (in_dim, *[config.hidden_dim] * (config.num_hidden - 1)):
        layers += [nn.Linear(before, config.hidden_dim), nn.SiLU(), nn.Dropout(config.dropout)]
    return layers


def frame_encoder(config: ConvVAEConfig) -> nn.Sequential:
    """Images (B, 3, 64, 64) -> features (B, 4 * channels[3]); no padding anywhere."""
    c1, c2, c3, c4 = config.channels
    return nn.Sequential(
        nn.Conv2d(3, c1, 4, stride=2),  # 64 -> 31
        nn.ReLU(),
        nn.Conv2d(c1, c2, 4, stride=2),  # 31 -> 14
        nn.ReLU(),
        nn.Conv2d(c2, c3, 4, stride=2),  # 14 -> 6
        nn.ReLU(),
        nn.Conv2d(c3, c4, 4, stride=2),  # 6 -> 2
        nn.ReLU(),
        nn.Flatten(),
    )


class FrameDecoder(nn.Module):
    """z (B, latent_dim) -> images before the sigmoid, (B, 3, 64, 64)."""

    def __init__(self, config: ConvVAEConfig):
        super().__init__()
        c1, c2, c3, c4 = config.channels
        self.from_z = nn.Linear(config.latent_dim, 4 * c4)
        self.relu_from_z = config.relu_from_z
        self.layers = nn.Sequential(
            nn.Unflatten(1, (4 * c4, 1, 1)),
            nn.ConvTranspose2d(4 * c4, c3, 5, stride=2),  # 1 -> 5
            nn.ReLU(),
            nn.ConvTranspose2d(c3, c2, 5, stride=2),  # 5 -> 13
            nn.ReLU(),
            nn.ConvTranspose2d(c2, c1, 6, stride=2),  # 13 -> 30
            nn.ReLU(),
            nn.ConvTranspose2d(c1, 3, 6, stride=2),  # 30 -> 64
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(self._spread(z))

    def _spread(self, z: Tensor) -> Tensor:
        x = self.from_z(z)
        return x.relu() if self.relu_from_z else x

    def as_blocks(self, z: Tensor) -> Tensor:
        """`pixel_unshuffle(decoder(z), 2)`, (B, 12, 32, 32), for training.

        The same sums by faster routes. The first transposed convolution reads a single pixel: a
        matrix product. The last writes 3 channels, too few for PyTorch's kernels. Each 2x2 block of
        its output depends on 3x3 inputs, so it is also an ordinary convolution with 4 * 3 outputs
        (Shi et al. 2016).
        """
        _unflatten, first, *between, last = cast("Iterable[Any]", self.layers)
        height, width = first.kernel_size
        # Height, width, channels: so the product lies in memory as channels_last wants it.
        weight = first.weight.permute(2, 3, 1, 0).flatten(0, 2)
        x = F.linear(self._spread(z), weight, first.bias.repeat(height * width))
        x = x.unflatten(1, (height, width, -1)).permute(0, 3, 1, 2)
        for layer in between:
            x = layer(x)
        # Output pixel 2 a + p sums input a - m times weight 2 m + p over m = 0, 1, 2.
        taps = last.weight.unflatten(3, (3, 2)).unflatten(2, (3, 2)).flip(2, 4)
        weight = taps.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
        weight = weight.contiguous(memory_format=torch.channels_last)
        x = F.pad(x, (2, 2, 2, 2))  # inside the convolution it is many times slower in bfloat16
        return F.conv2d(x, weight, last.bias.repeat_interleave(4))
