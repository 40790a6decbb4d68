"""Settings of the VAE."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConvVAEConfig:
    """The 64x64 convolutional VAE of Ha & Schmidhuber (2018), figure 22."""

    latent_dim: int = 32
    """Size of z."""
    channels: tuple[int, int, int, int] = (32, 64, 128, 256)
    """Feature maps of the four encoder convolutions; the decoder mirrors them."""

    def __post_init__(self) -> None:
        if self.latent_dim < 1:
            raise ValueError(f"latent_dim is {self.latent_dim}; it must be at least 1")
        if len(self.channels) != 4 or min(self.channels) < 1:
            raise ValueError(f"channels is {self.channels}; give four positive numbers")


@dataclass(frozen=True)
class VAELossConfig:
    """What the VAE minimises: squared error + beta * max(KL, free bits)."""

    beta: float = 1.0
    """Weight of the KL term."""
    free_bits: float = 0.5
    """Nats per latent dimension that cost nothing (the paper's tolerance)."""
    lr: float = 1e-4
    """Adam's learning rate."""
    final_lr: float = 1e-4
    """Learning rate at the last step; cosine from `lr` (equal: constant, as in the paper)."""
    bf16: bool = False
    """Convolutions in bfloat16 by autocast (weights and losses stay float32)."""
