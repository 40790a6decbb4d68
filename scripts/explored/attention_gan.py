"""A trained SAGAN or BigGAN: samples of each class, truncation, what attention looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generative.training.ranges import Checked, Count, Positive
from scripts.explored.common import Subject, scale_to
from scripts.explored.gan import labels_of

if TYPE_CHECKING:
    from torch import Tensor

    from generative.attention_gan import AttentionGAN

CLASSES = ("AttentionGAN",)
NUM_PLACES = 3
"""Places of an image whose attention is drawn."""


@dataclass(frozen=True)
class Settings(Checked):
    """GANs with self-attention."""

    truncations: tuple[Positive, ...] = (2.0, 1.0, 0.5, 0.04)
    """Bounds of the noise; the book's (figure 10-18)."""
    num_samples: Count = 1200
    """Samples to measure at each of them."""
    looks: Count = 6
    """Images whose attention is drawn."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures; returns how samples change with truncation.

    For each bound of the noise, and for whole noise: `diversity`, the mean difference of the pixels
    of two samples of one class, and of sprites precision and recall.
    """
    import torch

    from generative.gan.model import draw_z
    from generative.nets.attention import PooledAttention
    from generative.training.pictures import image_grid

    gan, generator = subject.model, subject.generator()
    scale = scale_to(64, gan.shape)
    columns = gan.num_classes if 8 <= gan.num_classes <= 24 else 12
    z = draw_z(gan, 8 * columns, generator)
    with torch.no_grad():
        samples = gan.generate(z, *labels_of(gan, len(z)))
        subject.save("samples", image_grid(samples, columns, scale))
        if gan.num_classes:
            subject.save("classes", image_grid(class_ways(gan, z[:6]), 10, scale))
        if isinstance(gan.generator.attention, PooledAttention):
            n = settings.looks
            spread = (spread_classes(gan, n),) if gan.num_classes else ()
            panels = looks(gan, draw_z(gan, n, generator), spread)
            subject.save("attention", image_grid(panels, 1 + NUM_PLACES, max(1, scale // 2)))

        result: dict[str, Any] = {}
        rows = []
        for bound in (None, *settings.truncations):
            model = gan if bound is None else gan.standing(bound, generator)
            rows.append(model.sample(columns, generator, None, bound))
            samples = model.sample(settings.num_samples, generator, None, bound)
            name = "whole" if bound is None else f"{bound:g}"
            result[f"diversity_{name}"] = diversity(samples, max(gan.num_classes, 1))
            if subject.data == "sprites":
                from generative.gan import coverage

                found = coverage(samples, subject.images(gan.shape))
                result |= {f"precision_{name}": found.precision, f"recall_{name}": found.recall}
        subject.save("truncation", image_grid(torch.cat(rows), columns, scale))
    return result


def looks(gan: AttentionGAN, z: Tensor, labels: tuple[Tensor, ...]) -> Tensor:
    """Images with three places marked, and behind each image where the places look.

    The first place is the brightest, the second the brightest of those far from it, the third the
    darkest. Where a place looks is bright, the rest of the image dark (figure 10-16 of the book).

    Returns:
        (len(z) * 4, 3, 4H, 4W) in [0, 1].
    """
    import torch
    from torch.nn import functional as F

    images, maps = gan.look(z, *labels)
    h, w = maps.shape[1:3]
    panels = []
    for image, weights in zip(images.expand(-1, 3, -1, -1), maps, strict=True):
        bright = F.adaptive_avg_pool2d(image.mean(0)[None], (h, w))[0]
        large = F.interpolate(image[None], scale_factor=4)[0]
        first = divmod(int(bright.argmax()), w)
        down, right = torch.arange(h)[:, None] - first[0], torch.arange(w) - first[1]
        distance = (down**2 + right**2).to(bright).sqrt()
        second = divmod(int((bright * distance).argmax()), w)
        places = (first, second, divmod(int(bright.argmin()), w))
        panels.append(marked(large, places, (h, w)))
        for place in places:
            seen = F.interpolate(weights[place][None, None], size=large.shape[1:], mode="bilinear")
            shade = 0.15 + 0.85 * seen[0] / seen.amax().clamp_min(1e-12)
            panels.append(marked((0.15 + 0.85 * large) * shade, (place,), (h, w)))
    return torch.stack(panels)


def marked(image: Tensor, places: tuple[tuple[int, int], ...], sides: tuple[int, int]) -> Tensor:
    """The image with a frame around each of these places of a grid of so many rows and columns."""
    image = image.clone()
    height, width = (length // side for length, side in zip(image.shape[1:], sides, strict=True))
    colour = image.new_tensor([1.0, 0.2, 0.8])[:, None]
    for row, column in places:
        top, left = row * height, column * width
        square = image[:, top : top + height, left : left + width]
        square[:, [0, -1], :] = colour[..., None]
        square[:, :, [0, -1]] = colour[..., None]
    return image


def class_ways(gan: AttentionGAN, z: Tensor, num: int = 10) -> Tensor:
    """Images on the way from the embedding of one class to that of another, with the same noise.

    The classes are spread evenly over all of them; the last way leads back to the first class.

    Returns:
        (len(z) * num, C, H, W) in [0, 1], a row for each z.
    """
    import torch

    from generative.gan.networks import from_network

    first = gan.generator.embed(spread_classes(gan, len(z)))
    second = first.roll(-1, 0)
    u = torch.linspace(0, 1, num).to(z)[:, None]
    way = torch.cat([a + u * (b - a) for a, b in zip(first, second, strict=True)])
    return from_network(gan.generator.decode(z.repeat_interleave(num, 0), way))


def spread_classes(gan: AttentionGAN, n: int) -> Tensor:
    """n classes at even distances, (n,)."""
    import torch

    device = next(gan.parameters()).device
    return torch.arange(n, device=device) * gan.num_classes // n


def diversity(samples: Tensor, num_classes: int) -> float:
    """Mean absolute difference of the pixels of two samples of one class, classes in turn."""
    pairs = samples[: len(samples) // (2 * num_classes) * 2 * num_classes]
    a, b = pairs.unflatten(0, (-1, 2, num_classes)).unbind(1)
    return float((a - b).abs().mean())
