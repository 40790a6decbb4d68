"""Encoders and decoders of image VAEs: the book's convolutions, or plain layers for tiny images."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from generative.nets.conv import doubling_layers, halving_layers
from generative.vae.config import ImageVAEConfig

__all__ = ["conv_decoder", "conv_encoder", "mlp"]

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
