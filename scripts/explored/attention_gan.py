"""A trained SAGAN or BigGAN: samples of each class, truncation, what attention looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generative.training.ranges import Checked, Count, CountOrZero, Positive
from scripts.explored.common import Subject, scale_to
from scripts.explored.gan import labels_of

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from generative.attention_gan import AttentionGAN

CLASSES = ("AttentionGAN",)
PANEL = 192
"""Height of a panel of the picture of attention, in pixels, about."""


@dataclass(frozen=True)
class Settings(Checked):
    """GANs with self-attention."""

    truncations: tuple[Positive, ...] = (2.0, 1.0, 0.5, 0.04)
    """Bounds of the noise; the book's (figure 10-18)."""
    num_samples: Count = 1200
    """Samples to measure at each of them."""
    looks: Count = 6
    """Images whose attention is drawn."""
    places: tuple[tuple[CountOrZero, CountOrZero], ...] = ()
    """Places whose attention is drawn, a row and a column of the feature maps for each, from 0 at
    the top left: 3 5 9 2 are two of them. If not given, three of each image: the brightest, the
    brightest of those far from it, the darkest."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures; returns how samples change with truncation.

    For each bound of the noise, and for whole noise: `diversity`, the mean difference of the pixels
    of two samples of one class, and of sprites precision and recall.

    Raises:
        ValueError: settings.places has one outside of the feature maps, or there is no attention.
    """
    import torch

    from generative.gan.model import draw_z
    from generative.nets.attention import PooledAttention
    from generative.training.pictures import image_grid, strips

    gan, generator = subject.model, subject.generator()
    check_places(gan, settings.places)
    scale = scale_to(64, gan.shape)
    columns = gan.num_classes if 8 <= gan.num_classes <= 24 else 12
    z = draw_z(gan, 8 * columns, generator)
    with torch.no_grad():
        samples = gan.generate(z, *labels_of(gan, len(z)))
        subject.save("samples", image_grid(samples, columns, scale))
        if gan.num_classes:
            ends = spread_classes(gan, 6).tolist()
            labels = [f"class {a} to {b}" for a, b in zip(ends, ends[1:] + ends[:1], strict=True)]
            ways = class_ways(gan, z[:6]).split(10)
            subject.save("classes", strips(*ways, scale=scale, labels=labels))
        if isinstance(gan.generator.attention, PooledAttention):
            n = settings.looks
            spread = (spread_classes(gan, n),) if gan.num_classes else ()
            noise = draw_z(gan, n, generator)
            subject.save("attention", looks(gan, noise, spread, settings.places))

        result: dict[str, Any] = {}
        rows: dict[str, Tensor] = {}
        for bound in (None, *settings.truncations):
            model = gan if bound is None else gan.standing(bound, generator)
            row = "whole noise" if bound is None else f"up to {bound:g}"
            rows[row] = model.sample(columns, generator, None, bound)
            samples = model.sample(settings.num_samples, generator, None, bound)
            name = "whole" if bound is None else f"{bound:g}"
            result[f"diversity_{name}"] = diversity(samples, max(gan.num_classes, 1))
            if subject.data == "sprites":
                from generative.gan import coverage

                found = coverage(samples, subject.images(gan.shape))
                result |= {f"precision_{name}": found.precision, f"recall_{name}": found.recall}
        subject.save("truncation", strips(*rows.values(), scale=scale, labels=tuple(rows)))
    return result


Places = tuple[tuple[int, int], ...]
"""Rows and columns of feature maps."""


def check_places(gan: AttentionGAN, places: Places) -> None:
    """Refuse places that the generator's attention does not have.

    Raises:
        ValueError: there is one; says which it has.
    """
    from generative.nets.attention import PooledAttention

    if not places:
        return
    if not isinstance(gan.generator.attention, PooledAttention):
        raise ValueError(
            "attention_gan.places are given, and this generator has no attention; leave them out"
        )
    h, w = (side >> gan.config.attention_level for side in gan.shape[1:])
    for row, column in places:
        if row >= h or column >= w:
            raise ValueError(
                f"attention_gan.places has row {row}, column {column}; this generator's attention "
                f"has rows 0 to {h - 1} and columns 0 to {w - 1}"
            )


def looks(
    gan: AttentionGAN, z: Tensor, labels: tuple[Tensor, ...], places: Places = ()
) -> np.ndarray:
    """Picture with a row for each z: its image with places marked, and where each of these looks.

    There the image is grey, and the weight of each of its quarters of places is a colour over it,
    from dark to bright yellow for the largest of that place (figure 10-16 of the book). Weights sum
    to 1, and the largest is above the panel.

    Args:
        z: noise (B, latent_dim).
        labels: classes (B,), if there are any.
        places: rows and columns; those of `chosen_places` for each image if there are none.
    """
    from generative.training.pictures import image_grid, sheet

    images, maps = gan.look(z, *labels)
    scale = max(1, PANEL // images.shape[-1])
    panels, titles = [], []
    for i, (image, weights) in enumerate(zip(images.expand(-1, 3, -1, -1), maps, strict=True)):
        grid = weights.shape[:2]
        of_image = places or chosen_places(image, (grid[0], grid[1]))
        large = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        panels.append(marked(large, of_image, (grid[0], grid[1])))
        titles.append(f"class {int(labels[0][i])}" if labels else f"image {i}")
        for place in of_image:
            panels.append(marked(heat(large, weights[place]), (place,), (grid[0], grid[1])))
            titles.append(f"row {place[0]}, column {place[1]}: {float(weights[place].max()):.2f}")
    return sheet([image_grid(panel[None]) for panel in panels], titles, len(panels) // len(images))


def chosen_places(image: Tensor, grid: tuple[int, int]) -> Places:
    """Three places of a grid over an image (3, H, W): the brightest, the brightest of those far
    from it, the darkest."""
    import torch
    from torch.nn import functional as F

    h, w = grid
    bright = F.adaptive_avg_pool2d(image.mean(0)[None], grid)[0]
    first = divmod(int(bright.argmax()), w)
    down, right = torch.arange(h)[:, None] - first[0], torch.arange(w) - first[1]
    distance = (down**2 + right**2).to(bright).sqrt()
    second = divmod(int((bright * distance).argmax()), w)
    return first, second, divmod(int(bright.argmin()), w)


def heat(image: Tensor, weights: Tensor) -> Tensor:
    """An image (3, H, W) in grey, and over it weights (h, w), the more covering the larger they
    are: in the colours of Matplotlib's magma, by the largest of them."""
    import torch
    from matplotlib import colormaps
    from torch.nn import functional as F

    size = image.shape[1:]
    share = weights / weights.amax().clamp_min(1e-12)
    share = F.interpolate(share[None, None], size=size, mode="nearest")[0, 0]
    colour = torch.from_numpy(colormaps["magma"](share.cpu().numpy())[..., :3])
    colour = colour.movedim(-1, 0).to(image)
    return torch.lerp(image.amax(0).expand_as(image), colour, 0.4 + 0.5 * share)


def marked(image: Tensor, places: Places, sides: tuple[int, int]) -> Tensor:
    """The image with a frame around each of these places of a grid of so many rows and columns."""
    image = image.clone()
    height, width = (length // side for length, side in zip(image.shape[1:], sides, strict=True))
    colour = image.new_tensor([0.2, 1.0, 0.9])[:, None]
    for row, column in places:
        top, left = row * height, column * width
        square = image[:, top : top + height, left : left + width]
        width_of_frame = max(1, height // 8)
        for edge in (*range(width_of_frame), *range(-width_of_frame, 0)):
            square[:, edge, :] = colour
            square[:, :, edge] = colour
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
