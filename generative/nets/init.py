"""First weights, drawn layer by layer in the order of `modules()`."""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torch.nn.modules.conv import _ConvNd

__all__ = ["glorot_", "normal_", "orthogonal_", "zero_"]

LinearLayer = TypeVar("LinearLayer", nn.Linear, nn.Conv2d)


def glorot_(network: nn.Module) -> None:
    """Glorot-uniform weights and zero biases for every linear and convolutional layer.

    The book's framework begins so (Glorot & Bengio 2010; Foster 2023).
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, _ConvNd)):
            nn.init.xavier_uniform_(layer.weight)
            _zero_bias(layer)


def normal_(network: nn.Module, std: float = 0.02) -> None:
    """Normal weights and zero biases for every linear and convolutional layer.

    The default is that of DCGAN (Radford et al. 2016).
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, _ConvNd)):
            nn.init.normal_(layer.weight, 0.0, std)
            _zero_bias(layer)


def orthogonal_(network: nn.Module) -> None:
    """Orthogonal filters and zero biases for every linear, convolutional and embedding layer.

    BigGAN begins so (Saxe et al. 2014; Brock et al. 2019, appendix C).
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, _ConvNd, nn.Embedding)):
            nn.init.orthogonal_(layer.weight)
        if isinstance(layer, (nn.Linear, _ConvNd)):
            _zero_bias(layer)


def zero_(layer: LinearLayer) -> LinearLayer:
    """Zero weight and bias, so that the layer begins by adding nothing; returns the layer."""
    nn.init.zeros_(layer.weight)
    _zero_bias(layer)
    return layer


def _zero_bias(layer: nn.Linear | _ConvNd) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
