"""VQ-VAE: images as grids of codes. With a critic of patches it is a VQ-GAN.

An encoder makes a grid of vectors of an image, a quantiser replaces each by one of a list, and a
decoder makes the image of these (van den Oord et al. 2017; Foster 2023, chapter 10):

    model = VQVAE.from_pretrained("runs/vqvae/model")
    codes = model.encode(x)              # (B, 3, 24, 24) in [0, 1] -> int64 (B, 3, 3)
    model.decode(codes)                  # (B, 3, 24, 24)

Codes are words of an image, and a prior tells which grids of them are images: without one there is
no `sample` (`generative.codes.prior`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.codes.config import ViTVQGANConfig, VQGANConfig, VQVAEConfig
from generative.nets.quantiser import FSQ, Quantised, VectorQuantiser
from generative.training.checks import at_least_float32, check_images, check_some, check_tensor
from generative.training.pretrained import Pretrained

__all__ = ["Passed", "VQVAE", "VQVAELosses", "check_codes", "gradient_energy", "psnr"]


class Passed(NamedTuple):
    """Result of a pass of a batch of images."""

    images: Tensor
    """Decoded, (B, C, H, W); not confined to [0, 1]."""
    z: Tensor
    """Vectors before quantisation, (B, h, w, D)."""
    quantised: Quantised


class VQVAELosses(NamedTuple):
    """Means over the batch."""

    loss: Tensor
    recon: Tensor
    """Squared error of pixels."""
    codes: Tensor
    """Loss of the quantiser."""


class VQVAE(Pretrained, nn.Module):
    """Encoder, quantiser and decoder of images in [0, 1], and with a critic a VQ-GAN.

    `VQVAEConfig().build()` has 28,512 parameters in the encoder, 1,024 numbers in the list and
    23,345 parameters in the decoder; `VQGANConfig().build()` and `ViTVQGANConfig().build()` are the
    two with a critic. A model that is put together by hand is saved by its weights: put it together
    again and call `load_weights(folder)`.

    Args:
        encoder: images (B, C, H, W) -> vectors (B, D, h, w).
        quantiser: `VectorQuantiser` or `FSQ`, of vectors (..., D).
        decoder: vectors (B, D, h, w) -> images (B, C, H, W); has `last`, the layer that gives them.
        image_shape: (C, H, W).
        grid: (h, w), rows and columns of codes.
        critic: images from -1 to 1 -> heights of patches (B, rows, columns); None for a VQ-VAE.
        any_size: the decoder takes grids of other sides too, as convolutions do.
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {
        "VQVAE": VQVAEConfig,
        "VQGAN": VQGANConfig,
        "ViTVQGAN": ViTVQGANConfig,
    }

    def __init__(
        self,
        encoder: nn.Module,
        quantiser: VectorQuantiser | FSQ,
        decoder: nn.Module,
        image_shape: tuple[int, int, int],
        grid: tuple[int, int],
        critic: nn.Module | None = None,
        any_size: bool = True,
        config: VQVAEConfig | VQGANConfig | ViTVQGANConfig | None = None,
    ):
        super().__init__()
        self.config, self.image_shape, self.grid, self.any_size = (
            config, image_shape, grid, any_size,
        )  # fmt: skip
        self.encoder, self.quantiser, self.decoder = encoder, quantiser, decoder
        self.critic = critic

    @property
    def num_codes(self) -> int:
        """Codes there are."""
        return self.quantiser.num_codes

    @property
    def autoencoder(self) -> nn.ModuleDict:
        """Encoder, quantiser and decoder: all but the critic."""
        parts = {"encoder": self.encoder, "quantiser": self.quantiser, "decoder": self.decoder}
        return nn.ModuleDict(parts)

    def vectors(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> what is quantised, (B, h, w, D).

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        return self.encoder(check_images(x, self.image_shape, self)).movedim(1, -1)

    def encode(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> codes, int64 (B, h, w)."""
        return self.quantiser.encode(self.vectors(x))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes, int64 (B, h, w) -> images (B, C, H, W) in [0, 1].

        A grid of other sides gives an image in proportion, where the decoder is convolutional.

        Raises:
            ValueError: another shape or type, or a code that there is not.
        """
        check_codes(codes, None if self.any_size else self.grid, self.num_codes, self)
        return self.decode_vectors(self.quantiser.lookup(codes)).clamp(0, 1)

    def decode_vectors(self, q: Tensor) -> Tensor:
        """Vectors of codes (B, h, w, D) -> images (B, C, H, W), not confined to [0, 1]."""
        return self.decoder(q.movedim(-1, 1))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images -> images, by way of their codes."""
        return self.decode(self.encode(x))

    def through(self, x: Tensor) -> Passed:
        """Images (B, C, H, W) all the way, with what training needs of it."""
        z = self.vectors(check_some(x, self))
        quantised = self.quantiser(z)
        return Passed(self.decode_vectors(quantised.q), z, quantised)

    def loss(self, x: Tensor) -> VQVAELosses:
        """Squared error of images (B, C, H, W) plus the quantiser's loss.

        |x - x'|^2 + |sg(z) - e|^2 + beta |z - sg(e)|^2, each a mean over all numbers (van den Oord
        et al. 2017, equation 3). Where the list is averaged, the middle term is left to averages.
        """
        return vqvae_loss(self.through(x), x)

    def patch_heights(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> the critic's heights of patches, (B, rows, columns).

        Raises:
            ValueError: there is no critic, or it does not take these images.
        """
        if self.critic is None:
            raise ValueError("this model has no critic; pass a VQGAN or a ViTVQGAN")
        return self.critic(2 * check_images(x, self.image_shape, self) - 1)


def vqvae_loss(passed: Passed, x: Tensor) -> VQVAELosses:
    """Loss of a VQ-VAE, from what became of images x; see `VQVAE.loss`."""
    recon = F.mse_loss(passed.images, x)
    return VQVAELosses(recon + passed.quantised.loss, recon, passed.quantised.loss)


def check_codes(
    codes: Tensor, grid: tuple[int, int] | None, num_codes: int, model: nn.Module
) -> Tensor:
    """Return codes if they are int64 (B, h, w) from 0 to num_codes - 1.

    Args:
        grid: rows and columns that they have to have; None for any.
        model: what they are for, named in errors.
    Raises:
        ValueError: another shape or type, or a code that there is not.
    """
    sides = ", ".join(map(str, grid or ("h", "w")))
    wanted = f"{type(model).__name__} needs int64 (B, {sides}) in 0 to {num_codes - 1}"
    check_tensor(codes, "codes", wanted)
    fits = codes.dim() == 3 and (grid is None or tuple(codes.shape[1:]) == tuple(grid))
    if not fits or codes.dtype != torch.int64:
        raise ValueError(f"got codes of shape {tuple(codes.shape)} and {codes.dtype}; {wanted}")
    if codes.numel() and not bool((codes.amin() >= 0) & (codes.amax() < num_codes)):
        raise ValueError(f"got codes from {int(codes.amin())} to {int(codes.amax())}; {wanted}")
    return codes


def psnr(images: Tensor, x: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of images in [0, 1] against x, both (B, C, H, W), in dB, a scalar.

    -10 log10 of the squared error of all of them together.
    """
    error = (images - x).to(at_least_float32(x)).square().mean()
    return -10 / math.log(10) * error.clamp_min(1e-12).log()


def gradient_energy(x: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels of images (B, C, H, W), a scalar.

    A blur lowers it: that of reconstructions as a share of that of the images tells how sharp they
    are, whatever they show.
    """
    down, right = x.diff(dim=-2).square().mean(), x.diff(dim=-1).square().mean()
    return (down + right) / 2
