"""The book's classifying networks: images (B, C, H, W) -> scores before the softmax."""

from __future__ import annotations

import itertools
import math
from typing import ClassVar

from torch import nn

from generative.classifier.config import CNNClassifierConfig, MLPClassifierConfig
from generative.nets.conv import same_pad
from generative.nets.init import glorot_

__all__ = ["conv_layers", "dense_layers"]


class InnerConv2d(nn.Conv2d):
    """A convolution between others, whose weights Muon may move."""

    takes_muon: ClassVar[bool] = True


class InnerLinear(nn.Linear):
    """A dense layer between others, whose weights Muon may move."""

    takes_muon: ClassVar[bool] = True


def dense_layers(config: MLPClassifierConfig) -> nn.Sequential:
    """Dense layers on all pixels at once."""
    net = nn.Sequential(nn.Flatten())
    widths = (math.prod(config.image_shape), *config.hidden_dims)
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        kind = InnerLinear if i else nn.Linear
        net.extend([kind(before, after), nn.ReLU()])
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
        net.append((InnerConv2d if i else nn.Conv2d)(c, after, kernel, stride))
        if config.batch_norm:
            net.append(nn.BatchNorm2d(after, *norm))
        net.append(nn.LeakyReLU(config.slope))
        c, sides = after, [math.ceil(side / stride) for side in sides]
    net.append(nn.Flatten())
    dim = c * math.prod(sides)
    if config.hidden_dim:
        net.append(InnerLinear(dim, config.hidden_dim))
        dim = config.hidden_dim
        if config.batch_norm:
            net.append(nn.BatchNorm1d(dim, *norm))
        net.append(nn.LeakyReLU(config.slope))
    net.append(nn.Dropout(config.dropout))
    net.append(nn.Linear(dim, config.num_classes))
    glorot_(net)
    return net
