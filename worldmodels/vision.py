"""V, the vision: any model of `generative` that encodes frames to vectors and decodes them.

    vision = load_vision("pretrained/carracing-dream/vision")   # a ConvVAE, an Autoencoder, ...
    mu, logvar = see(vision, frames)                # uint8 (B, 64, 64, 3) -> (B, D) twice
    images = vision.decode(mu)

The rest of a world model needs two properties of z. First, each of its numbers should be about as
large as a standard normal: C reads it beside M's h, which lies in [-1, 1], and M predicts it by
mixtures that begin at a standard deviation of one. In a VAE the prior ensures this; the code of an
autoencoder has any scale, and `standardise` rescales it. Second, M must not memorise single values:
a VAE gives it fresh draws from q(z|x). An autoencoder has one code for a frame and no draws, which
the same files hold as a variance of zero (`NO_NOISE`).

For observations that are vectors, V has nothing to learn: `VectorVision` rescales each number to
mean 0 and standard deviation 1 over the recorded data, and `decode` inverts this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, get_args

import numpy as np
import torch
from torch import Tensor, nn

from generative.autoencoder import Autoencoder
from generative.training.checks import check_dtype, check_vectors, placed
from generative.training.hub import find_folder
from generative.training.pretrained import Pretrained, saved_class
from generative.vae import VAE, ConvVAE, LinearVAE, to_float_bchw
from worldmodels.configs import VectorVisionConfig

__all__ = [
    "FAMILIES",
    "FRAME_SHAPE",
    "NO_NOISE",
    "VectorVision",
    "VectorVisionConfig",
    "Vision",
    "VisionModel",
    "check_observations",
    "check_vision",
    "encode_mu_logvar",
    "load_vision",
    "see",
    "standardise",
    "to_images",
]

FRAME_SHAPE = (3, 64, 64)
"""Shape (C, H, W) of the frames of V."""

NO_NOISE = -1000.0
"""Log variance of a code without noise. It is finite in half precision, and exp(NO_NOISE / 2) is
exactly zero in single precision, so that a draw equals the mean bit for bit."""


class VectorVision(Pretrained, nn.Module):
    """V for vectors: z = (x - mean) / std, number by number."""

    config_class = VectorVisionConfig

    def __init__(self, config: VectorVisionConfig | None = None):
        super().__init__()
        self.config = config = config or VectorVisionConfig()
        self.latent_dim = config.latent_dim
        self.mean = nn.Buffer(torch.zeros(config.latent_dim))
        self.std = nn.Buffer(torch.ones(config.latent_dim))

    @classmethod
    def of(cls, vectors: Tensor) -> VectorVision:
        """Fit a V that gives these vectors (N, D) mean 0 and standard deviation 1.

        A constant number only loses its mean.
        """
        vision = cls(VectorVisionConfig(vectors.shape[1])).float()
        std, mean = torch.std_mean(vectors.double(), dim=0, correction=0)
        constant = std <= 1e-6 * (1 + mean.abs())
        vision.mean.copy_(mean)
        vision.std.copy_(torch.where(constant, 1.0, std))
        return vision

    def encode(self, x: Tensor) -> Tensor:
        """Vectors (B, D) -> z (B, D)."""
        return (check_vectors(x, self.config.latent_dim, "vectors", self) - self.mean) / self.std

    def decode(self, z: Tensor) -> Tensor:
        """z (B, D) -> vectors (B, D)."""
        return check_dtype(z, "z", self) * self.std + self.mean


VisionModel = ConvVAE | VAE | LinearVAE | Autoencoder | VectorVision

FAMILIES: dict[str, type[VisionModel]] = {
    name: family for family in get_args(VisionModel) for name in family.builds or (family.__name__,)
}
"""Classes that can be V, by their name in a saved model."""


class Vision(Protocol):
    """Methods that a model needs to be V. `encode_mu_logvar`, as in a VAE, is used if it exists."""

    @property
    def latent_dim(self) -> int:
        """Size of z, D."""
        ...

    def encode(self, x: Tensor, /) -> Tensor:
        """Images (B, 3, 64, 64) in [0, 1] -> z (B, D)."""
        ...

    def decode(self, z: Tensor, /) -> Tensor:
        """z (B, D) -> images (B, 3, 64, 64)."""
        ...

    def save_pretrained(self, folder: Path | str, dtype: torch.dtype | None = None) -> None:
        """Write the model into folder; see `generative.training.pretrained`."""
        ...


def load_vision(folder: Path | str, device: torch.device | str = "cpu") -> VisionModel:
    """Load the V of a folder, of any family, in evaluation mode.

    Its class is found by name among `FAMILIES`; nothing in the folder can run code.

    Raises:
        FileNotFoundError: there is no such folder.
        DamagedFileError: a file is missing, cut, changed, or does not fit the others.
        ValueError: the folder holds another class, a V for other images, or a run instead of its V.
    """
    folder = find_folder(folder)
    name = saved_class(folder, FAMILIES, "V", "scripts/train_vae.py")
    vision = FAMILIES[name].from_pretrained(folder, device=device)
    check_vision(vision, f"the {name} of {folder}")
    return vision


def check_vision(vision: Vision, who: str = "") -> None:
    """Raise ValueError if a model is made for images of another shape than V's frames."""
    shape = getattr(vision, "image_shape", None)
    if shape is not None and tuple(shape) != FRAME_SHAPE:
        raise ValueError(
            f"{who or f'this {type(vision).__name__}'} is made for images of {tuple(shape)}, V "
            f"sees frames of {FRAME_SHAPE}; train one on these (scripts/train_vision.py)"
        )


def check_observations(vision: Vision, shape: tuple[int, ...], whose: str, who: str = "") -> None:
    """Raise ValueError if a V cannot see observations of this shape, (H, W, C) or (D,).

    Args:
        whose: name of the observations in the message.
        who: name of the V in the message.
    """
    channels, height, width = FRAME_SHAPE
    is_vector = isinstance(vision, VectorVision)
    needed = (vision.latent_dim,) if is_vector else (height, width, channels)
    if tuple(shape) != needed:
        raise ValueError(
            f"{who or f'this {type(vision).__name__}'} sees {_kind(needed)} of {needed}, {whose} "
            f"{_kind(shape)} of {tuple(shape)}; pass the V that was trained on them"
        )


def _kind(shape: tuple[int, ...]) -> str:
    return "vectors" if len(shape) == 1 else "frames"


def encode_mu_logvar(vision: Vision, x: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, 3, 64, 64) in [0, 1], or vectors -> mean and log variance of z, each (B, D).

    For a family without a variance, the code is the mean and the log variance is `NO_NOISE`.
    """
    posterior = getattr(vision, "encode_mu_logvar", None)
    if posterior is not None:
        return posterior(x)
    z = vision.encode(x)
    return z, torch.full_like(z, NO_NOISE)


@torch.no_grad()
def see(vision: Vision, seen: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
    """Frames (N, 64, 64, 3) uint8 or vectors (N, D) -> mean and log variance of z, each (N, D).

    They are computed on V's device and in its type; no gradient is kept.
    """
    assert isinstance(vision, nn.Module)
    kind = placed(vision)
    x = torch.as_tensor(seen).to(kind["device"])
    x = x if isinstance(vision, VectorVision) else to_images(x)
    return encode_mu_logvar(vision, x.to(kind["dtype"]))


def to_images(frames: Tensor) -> Tensor:
    """uint8 frames (N, H, W, C) -> float32 images (N, C, H, W) in [0, 1].

    Channels are last in memory, which convolutions are quicker on.
    """
    return to_float_bchw(frames).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def standardise(model: Autoencoder, codes: Tensor) -> None:
    """Rescale a model's code so that these codes (N, D) get mean 0 and standard deviation 1.

    The linear maps on both sides of the code absorb mean and standard deviation, so images are
    decoded as before, and the model stays one of its family. A number that is constant over the
    codes only loses its mean. The code is not also rotated to uncorrelated numbers: that would
    amplify directions in which frames hardly differ, and dreams get worse.
    """
    into, out_of = model.maps_beside_code()
    std, mean = torch.std_mean(codes.double(), dim=0, correction=0)
    std = torch.where(std > 1e-4 * std.max(), std, 1.0)
    weight, bias = into.weight.double(), into.bias.double()
    into.weight.copy_(weight / std[:, None])
    into.bias.copy_((bias - mean) / std)
    weight, bias = out_of.weight.double(), out_of.bias.double()
    out_of.weight.copy_(weight * std)
    out_of.bias.copy_(bias + weight @ mean)
