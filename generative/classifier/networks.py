"""The book's classifying networks, and a Vision Transformer.

They make of images (B, C, H, W) scores before the softmax, (B, num_classes).
"""

from __future__ import annotations

import itertools
import math
from typing import TypeVar

from torch import Tensor, nn

from generative.classifier.config import (
    CNNClassifierConfig,
    MLPClassifierConfig,
    ViTClassifierConfig,
)
from generative.nets.conv import same_pad
from generative.nets.init import glorot_
from generative.nets.vit import ViT

__all__ = ["conv_layers", "dense_layers", "vit_layers"]


L = TypeVar("L", bound=nn.Module)


def _inner(layer: L) -> L:
    """A layer between others, whose weights Muon may move; its class, and so its name, stays."""
    vars(layer)["takes_muon"] = True
    return layer


def dense_layers(config: MLPClassifierConfig) -> nn.Sequential:
    """Dense layers on all pixels at once."""
    net = nn.Sequential(nn.Flatten())
    widths = (math.prod(config.image_shape), *config.hidden_dims)
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        layer = nn.Linear(before, after)
        net.extend([_inner(layer) if i else layer, nn.ReLU()])
    net.append(nn.Linear(widths[-1], config.num_classes))
    glorot_(net)
    return net


def conv_layers(config: CNNClassifierConfig) -> nn.Sequential:
    """Convolutions, then a dense layer if there is one; each may be normalised."""
    net = nn.Sequential()
    norm = (config.norm_eps, config.norm_momentum)
    c, *sides = config.image_shape
    layers = zip(config.channels, config.kernels, config.strides, strict=True)
    for i, (after, kernel, stride) in enumerate(layers):
        net.append(same_pad(sides, kernel, stride))
        layer = nn.Conv2d(c, after, kernel, stride)
        net.append(_inner(layer) if i else layer)
        if config.batch_norm:
            net.append(nn.BatchNorm2d(after, *norm))
        net.append(nn.LeakyReLU(config.slope))
        c, sides = after, [math.ceil(side / stride) for side in sides]
    net.append(nn.Flatten())
    dim = c * math.prod(sides)
    if config.hidden_dim:
        net.append(_inner(nn.Linear(dim, config.hidden_dim)))
        dim = config.hidden_dim
        if config.batch_norm:
            net.append(nn.BatchNorm1d(dim, *norm))
        net.append(nn.LeakyReLU(config.slope))
    net.append(nn.Dropout(config.dropout))
    net.append(nn.Linear(dim, config.num_classes))
    glorot_(net)
    return net


class _FirstToken(nn.Module):
    """Tokens (B, T, D) -> the first of each image, (B, D)."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


def vit_layers(config: ViTClassifierConfig) -> nn.Sequential:
    """Vision Transformer, its class token, and a linear map of that."""
    last = nn.Linear(config.block.dim, config.num_classes)
    return nn.Sequential(ViT(config.vit()), _FirstToken(), last)
