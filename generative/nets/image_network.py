"""The network of a model of noisy images that a config names: a U-Net or a DiT."""

from __future__ import annotations

from torch import nn

from generative.nets.config import DiTConfig, UNetConfig
from generative.nets.dit import DiT
from generative.nets.unet import UNet

__all__ = ["image_network"]


def image_network(
    image_shape: tuple[int, int, int], config: UNetConfig | DiTConfig, context_dim: int = 0
) -> nn.Module:
    """A network (x_t (B, C, H, W), log_snr (B,), context) -> (B, C, H, W), at first all zeros.

    Args:
        image_shape: (C, H, W).
        config: of either kind.
        context_dim: width of a context; 0 for none.
    """
    if isinstance(config, UNetConfig):
        return UNet(image_shape[0], config, context_dim=context_dim)
    return DiT(image_shape, config, context_dim=context_dim)
