"""Encoders and decoders of autoencoders: the book's convolutions, and linear maps."""

from __future__ import annotations

import math

from torch import nn

from generative.autoencoder.config import ConvAutoencoderConfig, LinearAutoencoderConfig
from generative.nets.conv import doubling_layers, halving_layers
from generative.nets.init import glorot_

__all__ = ["conv_networks", "linear_networks"]


def conv_networks(config: ConvAutoencoderConfig) -> tuple[nn.Sequential, nn.Sequential]:
    """Images (B, C, H, W) -> codes (B, latent_dim) -> images before the sigmoid."""
    channels, (c, h, w) = config.channels, config.image_shape
    small = (channels[-1], h >> len(channels), w >> len(channels))
    encoder = nn.Sequential(
        *halving_layers((c, *channels), lambda _: [nn.ReLU()]),
        nn.Flatten(),
        nn.Linear(math.prod(small), config.latent_dim),
    )
    decoder = nn.Sequential(
        nn.Linear(config.latent_dim, math.prod(small)),
        nn.Unflatten(1, small),
        *doubling_layers((channels[-1], *channels[::-1]), lambda _: [nn.ReLU()]),
        nn.Conv2d(channels[0], c, 3, padding=1),
    )
    for network in (encoder, decoder):
        glorot_(network)
    return encoder, decoder


def linear_networks(config: LinearAutoencoderConfig) -> tuple[nn.Sequential, nn.Sequential]:
    """Images (B, C, H, W) -> codes (B, latent_dim) -> images."""
    dim = math.prod(config.image_shape)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(dim, config.latent_dim))
    unflatten = nn.Unflatten(1, config.image_shape)
    return encoder, nn.Sequential(nn.Linear(config.latent_dim, dim), unflatten)
