"""A trained ProGAN, StyleGAN or StyleGAN2: samples, growth, styles fused, noise, truncation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generative.training.ranges import Checked, Count, NonNegative
from scripts.explored.common import Subject, scale_to

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from torch import Tensor

    from generative.stylegan import StyleGAN

CLASSES = ("ProGAN", "StyleGAN", "StyleGAN2")
COARSE = 8
"""Layers up to this side set coarse traits,"""
MIDDLE = 32
"""those up to this one middle traits, and the others fine ones."""


@dataclass(frozen=True)
class Settings(Checked):
    """GANs that grow or have styles."""

    max_images: Count = 50_000
    """Images to read, at most."""
    num_samples: Count | None = None
    """Samples to measure; 1,000 if not given, of sprites 23,040."""
    psis: tuple[NonNegative, ...] = (0.0, 0.25, 0.5, 0.7, 1.0)
    """Truncations, a row for each."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures; returns how samples compare with images, and of styles how droplets stand out.

    They are the energy coefficient of samples and test images, how far samples are from the nearest
    training image, of sprites precision and recall, and see `peaks`.
    """
    import torch

    from generative.gan import coverage, energy_coefficient, nearest_images
    from generative.interpolation import slerp
    from generative.stylegan import StyleGAN
    from generative.training.pictures import image_grid, strips

    gan, draws, shape = subject.model, subject.generator(), subject.model.shape
    scale = scale_to(64, shape)
    images = subject.images(shape, max_images=settings.max_images)
    train, test = images.part("train"), images.part("test")
    made = gan.sample(100, draws)
    subject.save("samples", image_grid(made, columns=10, scale=scale))
    index, _ = nearest_images(made[:10], train)
    copied_from = train.as_tensor(index.cpu().numpy(), subject.device)
    subject.save("nearest", strips(made[:10], copied_from, scale=scale))
    result: dict[str, Any] = {}
    with torch.no_grad():
        if isinstance(gan, StyleGAN):
            result |= explore_styles(subject, gan, settings, draws)
        else:
            u = torch.linspace(0, 1, 10)
            pairs = gan.draw_z(4, draws).unflatten(0, (2, 2))
            way = torch.cat([slerp(a, b, u.to(a)) for a, b in pairs])
            subject.save("interpolation", image_grid(gan.generate(way), 10, scale))
    subject.save("reduced", reduced(train.as_tensor(slice(8), subject.device)))
    film = growth(subject)
    if film is not None:
        subject.save("growth", film)

    num_samples = settings.num_samples or (23_040 if subject.data == "sprites" else 1000)
    samples = gan.sample(num_samples, draws)
    found = energy_coefficient(test.as_tensor(slice(1000), subject.device), samples, most=1000)
    _, distance = nearest_images(samples[:1000], train)
    result |= {
        "samples": len(samples),
        "energy": float(found.energy),
        "spread": float(found.spread),
        "nearest_training_image": float(distance.mean()),
    }
    if subject.data == "sprites":
        covered = coverage(samples, subject.images(shape))
        result |= {"precision": covered.precision, "recall": covered.recall}
    return result


def explore_styles(
    subject: Subject, gan: StyleGAN, settings: Settings, draws: Any
) -> dict[str, float]:
    """Pictures of what a style does in which layers, and of noise; returns `peaks`."""
    import torch

    from generative.stylegan.stylegan2 import SkipGenerator
    from generative.training.pictures import image_grid

    scale = scale_to(64, gan.shape)
    z = gan.draw_z(16, draws)
    w, noise = gan.styles(z), gan.draw_noise(16, draws)
    u = torch.linspace(0, 1, 10, device=z.device, dtype=z.dtype)[:, None, None]
    way = torch.cat([a + u * (b - a) for a, b in ((w[0], w[1]), (w[2], w[3]))])
    subject.save("interpolation", image_grid(gan.synthesise(way), columns=10, scale=scale))
    for name, layers in layer_groups(gan).items():
        matrix = fused(gan, w[:6], w[6:14], layers)
        subject.save(f"styles-{name}", image_grid(matrix, columns=9, scale=scale))
    rows = [gan.synthesise(w[:8], maps) for maps in noise_on_and_off(gan, noise, 8)]
    subject.save("noise", image_grid(torch.cat(rows), columns=8, scale=scale))
    rows = [gan.synthesise(gan.styles(z[:8], psi)) for psi in settings.psis]
    subject.save("truncation", image_grid(torch.cat(rows), columns=8, scale=scale))
    if subject.run is not None and isinstance(gan.generator, SkipGenerator):
        figure = contributions_over_training(subject)
        if figure is not None:
            subject.save_figure("contributions", figure, dpi=100)
    return peaks(gan, w)


def layer_groups(gan: StyleGAN) -> dict[str, list[int]]:
    """Layers of coarse, middle and fine traits, those that there are: up to 8x8, up to 32x32 and
    not the largest side, the rest."""
    last = gan.shape[-1]
    side = {i: 4 * 2 ** (i // 2) for i in range(gan.styled.num_layers)}
    middle = {i for i, s in side.items() if COARSE < s <= MIDDLE and s < last}
    groups = {
        "coarse": [i for i, s in side.items() if s <= COARSE],
        "middle": sorted(middle),
        "fine": [i for i, s in side.items() if s > COARSE and i not in middle],
    }
    return {name: layers for name, layers in groups.items() if layers}


def fused(gan: StyleGAN, rows: Tensor, columns: Tensor, layers: list[int]) -> Tensor:
    """Matrix of images: those of `rows`, with the styles of `columns` in these layers.

    Above and at the left are the images of both, and in the corner a white one. Noise is left out,
    so that only styles differ.

    Returns:
        ((R + 1) (C + 1), *shape), row by row.
    """
    import torch

    w = rows[:, None].repeat(1, len(columns), 1, 1)
    w[:, :, layers] = columns[None, :, layers]
    inside = gan.synthesise(w.flatten(0, 1)).unflatten(0, (len(rows), len(columns)))
    left, above = gan.synthesise(rows)[:, None], gan.synthesise(columns)[None]
    corner = torch.ones_like(above[:, :1])
    top = torch.cat([corner, above], 1)
    return torch.cat([top, torch.cat([left, inside], 1)]).flatten(0, 1)


def noise_on_and_off(gan: StyleGAN, noise: list[Tensor], n: int) -> list[list[Tensor | None]]:
    """Noise of n images: in all layers, in none, and in all but those of each side in turn."""
    maps: list[Tensor | None] = [part[:n] for part in noise]
    sides = gan.styled.noise_sides
    without = [
        [None if s == side else part for s, part in zip(sides, maps, strict=True)]
        for side in dict.fromkeys(sides)
    ]
    return [maps, [None] * len(maps), *without]


def peaks(gan: StyleGAN, w: Tensor) -> dict[str, float]:
    """Share of the energy of a feature map in its largest pixel, for each side: mean of all maps.

    An even map of S x S has 1 / S^2. StyleGAN makes droplets, single places with most of the
    energy, by which it passes sizes through AdaIN; StyleGAN2 has no reason to (Karras et al. 2020,
    section 2).
    """
    import torch

    found: dict[int, list[Tensor]] = {}

    def look(_layer: Any, _given: Any, out: Tensor) -> None:
        energy = out.square().flatten(2)
        share = energy.amax(2) / energy.sum(2).clamp_min(1e-12)
        found.setdefault(out.shape[-1], []).append(share.mean())

    hooks = [layer.register_forward_hook(look) for layer in gan.generator.layers]  # type: ignore[union-attr]
    with torch.no_grad():
        gan.synthesise(w)
    for hook in hooks:
        hook.remove()
    return {f"peak_{side}": float(torch.stack(shares).mean()) for side, shares in found.items()}


def reduced(images: Tensor) -> np.ndarray:
    """Images at each side that a network grows through, from 4 up, a row for each side."""
    import torch

    from generative.stylegan import Stage, reduce
    from generative.training.pictures import image_grid

    side, rows, now = images.shape[-1], [], 4
    while now <= side:
        small = reduce(images, Stage(now, 1.0))
        times = side // now
        rows.append(small.repeat_interleave(times, 2).repeat_interleave(times, 3))
        now *= 2
    return image_grid(torch.cat(rows), len(images), scale_to(64, images.shape[1:]))


def growth(subject: Subject) -> np.ndarray | None:
    """The first eight samples of each picture that the run has saved, a row for each; None if there
    are not two."""
    import numpy as np
    from PIL import Image

    from generative.training.pictures import labelled

    if subject.run is None:
        return None
    paths = sorted((subject.run / "images").glob("samples-*.png"))
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    same = [i for i, picture in enumerate(pictures) if picture.shape == pictures[-1].shape]
    paths, pictures = [paths[i] for i in same], [pictures[i] for i in same]
    if len(pictures) < 2:
        return None
    height = (len(pictures[0]) + 2) // 8
    kept = np.linspace(0, len(pictures) - 1, min(10, len(pictures))).round().astype(int)
    steps = [f"{int(paths[i].stem.rpartition('-')[2]):,} steps" for i in kept]
    return labelled([pictures[i][: height - 2] for i in kept], steps)


def contributions_over_training(subject: Subject) -> Figure | None:
    """Share of the image's deviation that each side has, over the steps of the run."""
    from matplotlib.figure import Figure

    from generative.training.metrics import METRICS_NAME, read_metrics

    assert subject.run is not None
    if not (subject.run / METRICS_NAME).is_file():
        return None
    sides = 4 * 2 ** (subject.model.styled.num_layers // 2 - 1)
    lines = [line for line in read_metrics(subject.run) if f"contribution_{sides}" in line]
    if len(lines) < 2:
        return None
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for name in (name for name in lines[0] if name.startswith("contribution_")):
        side = name.partition("_")[2]
        axes.plot([x["step"] for x in lines], [x[name] for x in lines], label=f"{side}x{side}")
    axes.set_xlabel("step")
    axes.set_ylabel("deviation by the image's")
    axes.set_ylim(0)
    axes.legend()
    return figure
