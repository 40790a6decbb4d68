"""A trained autoencoder: its codes, images between them, and its error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generative.training.ranges import Checked, Count, Positive
from scripts.explored.common import Subject, scale_to

if TYPE_CHECKING:
    from torch import Tensor

    from generative.autoencoder import Autoencoder
    from generative.data.image_set import ImageSet

CLASSES = ("ConvAutoencoder", "LinearAutoencoder")


@dataclass(frozen=True)
class Settings(Checked):
    """Autoencoders."""

    max_images: Count = 10_000
    """Images to read, at most; those not for testing give the principal components."""
    num_codes: Count = 18
    """Codes to draw evenly from the box that holds all codes (the book: 18)."""
    noise: Positive = 0.3
    """Standard deviation of the noise in the denoising strip."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures; returns squared errors on test images.

    They are those of the autoencoder, of as many principal components, and of the mean image; of
    noisy images before and after.
    """
    import torch

    from generative.autoencoder import add_noise, uniform_codes
    from generative.training.pictures import image_grid, strips
    from scripts.train_autoencoder import decoded_plane

    model, device = subject.model, subject.device
    shape, k = model.image_shape, model.latent_dim
    images = subject.images(shape, max_images=settings.max_images)
    test = images.part("test")
    scale, generator = scale_to(64, shape), subject.generator()

    with torch.no_grad():
        x = test.as_tensor(slice(10), device)
        projected, pca_error = components(images, test, k)
        subject.save("reconstructions", strips(x, model.reconstruct(x), scale=scale))
        rows = x.cpu(), model.reconstruct(x).cpu(), projected[:10]
        subject.save("pca", strips(*rows, scale=scale))
        noisy = add_noise(x, settings.noise, generator)
        subject.save("denoising", strips(noisy, model.reconstruct(noisy), x, scale=scale))

        codes = torch.cat([model.encode(part) for part in chunks(test, device)])
        drawn = uniform_codes(codes, settings.num_codes, generator)
        subject.save("uniform", image_grid(model.decode(drawn), columns=9, scale=scale))
        if k == 2:
            decoded = decoded_plane(model, test)
            subject.save("decoded-plane", image_grid(decoded, 20))
            subject.save_figure("plane", plane(codes.cpu(), test, drawn.cpu()))
            figure = overlay(codes.cpu(), test, decoded.cpu())
            subject.save_figure("plane-over-images", figure)
        found = {"latent_dim": k, "mse": error(model, test, device), "pca_mse": pca_error}
        found["mean_image_mse"] = components(images, test, 0)[1]
        noise_before, noise_after = denoised(model, test, settings.noise, generator, device)
        found |= {"noisy_mse": noise_before, "denoised_mse": noise_after}
        found |= {"code_low": codes.amin(0).tolist(), "code_high": codes.amax(0).tolist()}
    return found


def chunks(images: ImageSet, device: str, size: int = 500):
    """All images, float (B, C, H, W), some at a time."""
    for first in range(0, len(images), size):
        yield images.as_tensor(slice(first, first + size), device)


def error(model: Autoencoder, test: ImageSet, device: str) -> float:
    """Mean squared error of reconstructions."""
    total = sum(float((model.reconstruct(x) - x).square().sum()) for x in chunks(test, device))
    return total / test.images.size


def components(images: ImageSet, test: ImageSet, k: int) -> tuple[Tensor, float]:
    """Test images from k principal components of the others, and their mean squared error."""
    import torch

    from generative.autoencoder import principal_components

    rows = (images.split != images.split.max()).nonzero()[0][:3000]
    seen = images.as_tensor(rows).flatten(1)
    x = test.as_tensor()
    if not k:
        projected = seen.mean(0).expand(len(x), -1)
    else:
        mean, directions, _ = principal_components(seen, k)
        centred = x.flatten(1).double() - mean
        projected = mean + centred @ directions.T @ directions
    projected = projected.float().view_as(x)
    return projected, float(torch.square(projected - x).mean())


def denoised(
    model: Autoencoder, test: ImageSet, noise: float, generator, device: str
) -> tuple[float, float]:
    """Mean squared errors of noisy test images, and of their reconstructions."""
    from generative.autoencoder import add_noise

    before = after = 0.0
    for x in chunks(test, device):
        noisy = add_noise(x, noise, generator)
        before += float((noisy - x).square().sum()) / test.images.size
        after += float((model.reconstruct(noisy) - x).square().sum()) / test.images.size
    return before, after


def plane(codes: Tensor, test: ImageSet, drawn: Tensor):
    """Figure: codes (N, 2) in black with those drawn evenly, and by the first factor."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.scatter(*codes.T.numpy(), c="black", alpha=0.5, s=3)
    left.scatter(*drawn.T.numpy(), c="tab:blue", s=30)
    dots = right.scatter(*codes.T.numpy(), c=test.factors[:, 0], cmap="tab10", alpha=0.8, s=3)
    figure.colorbar(dots, ax=right, label=test.factor_names[0])
    return figure


def overlay(codes: Tensor, test: ImageSet, decoded: Tensor):
    """Figure: codes by the first factor over a decoded grid of codes (num^2, C, H, W)."""
    import math

    from matplotlib.figure import Figure

    num = math.isqrt(len(decoded))
    # The grid runs along the second axis of the code first; rows of the picture go down from its
    # largest value.
    cells = decoded.unflatten(0, (num, num)).transpose(0, 1).flip(0)
    picture = cells.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    low, high = codes.amin(0).tolist(), codes.amax(0).tolist()
    half = [(b - a) / (num - 1) / 2 for a, b in zip(low, high, strict=True)]
    figure = Figure(figsize=(8, 8), layout="constrained")
    axis = figure.subplots()
    axis.imshow(
        picture.squeeze(-1).numpy(),
        cmap="gray_r",
        extent=(low[0] - half[0], high[0] + half[0], low[1] - half[1], high[1] + half[1]),
        aspect="auto",
        alpha=0.45,
    )
    axis.scatter(*codes.T.numpy(), c=test.factors[:, 0], cmap="tab10", s=14)
    return figure
