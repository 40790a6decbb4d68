"""A trained ProGAN, StyleGAN or StyleGAN2: samples, growth, styles fused, noise, truncation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from generative.training.ranges import Checked, Count, NonNegative
from scripts.explored.common import Subject, scale_to

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from torch import Tensor

    from generative.data.image_set import ImageSet
    from generative.stylegan import ProGAN, StyleGAN

CLASSES = ("ProGAN", "StyleGAN", "StyleGAN2")
COARSE = 8
"""Layers up to this side set coarse traits,"""
MIDDLE = 32
"""those up to this one middle traits, and the others fine ones."""
AT_ONCE = 256
"""Samples that are drawn and compared at once."""
MEASURED = 100
"""Samples of the picture, which are also compared with every training image."""


@dataclass(frozen=True)
class Settings(Checked):
    """GANs that grow or have styles."""

    max_images: Count = 50_000
    """Images to read, at most."""
    num_samples: Count | None = None
    """Samples to measure; 1,000 if not given, of sprites as many as there are, 4,608. Even draws
    reach 63 % of the sprites with these, and 99 % with 23,040."""
    psis: tuple[NonNegative, ...] = (0.0, 0.25, 0.5, 0.7, 1.0)
    """Truncations, a row for each."""
    beside: Path | None = None
    """Folder of the run, or of the model, of another GAN with styles: its feature maps are drawn
    and measured beside those of the first."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures; returns how samples compare with images, and of styles how droplets stand out.

    They are the energy coefficient of samples and test images, how far the samples of the picture
    are from the nearest training image, of sprites precision and recall, with the recall of as many
    even draws, and see `peaks`.

    Raises:
        ValueError: settings.beside is given, and one of the two models has no styles.
    """
    import torch

    from generative.gan import energy_coefficient, nearest_images
    from generative.interpolation import slerp
    from generative.stylegan import StyleGAN
    from generative.training.pictures import image_grid, strips

    gan, draws, shape = subject.model, subject.generator(), subject.model.shape
    other = other_model(subject, settings)
    scale = scale_to(64, shape)
    made = gan.sample(MEASURED, draws)
    subject.save("samples", image_grid(made, columns=10, scale=scale))
    result: dict[str, Any] = {}
    with torch.no_grad():
        if isinstance(gan, StyleGAN):
            result |= explore_styles(subject, gan, settings, draws, other)
        else:
            u = torch.linspace(0, 1, 10)
            pairs = gan.draw_z(4, draws).unflatten(0, (2, 2))
            way = torch.cat([slerp(a, b, u.to(a)) for a, b in pairs])
            subject.save("interpolation", image_grid(gan.generate(way), 10, scale))
    images = subject.images(shape, max_images=settings.max_images)
    train, test = images.part("train"), images.part("test")
    subject.save("reduced", reduced(train.as_tensor(slice(8), subject.device)))
    film = growth(subject)
    if film is not None:
        subject.save("growth", film)
    index, distance = nearest_images(made, train)
    copied_from = train.as_tensor(index[:10].cpu().numpy(), subject.device)
    labels = ("samples", "nearest training image")
    subject.save("nearest", strips(made[:10], copied_from, scale=scale, labels=labels))

    known = subject.images(shape) if subject.data == "sprites" else None
    samples = drawn(gan, settings.num_samples or (1000 if known is None else len(known)), draws)
    found = energy_coefficient(test.as_tensor(slice(1000), subject.device), samples, most=1000)
    result |= {
        "samples": len(samples),
        "energy": float(found.energy),
        "spread": float(found.spread),
        "nearest_training_image": float(distance.mean()),
    }
    return result if known is None else result | reached(samples, known)


def other_model(subject: Subject, settings: Settings) -> StyleGAN | None:
    """The GAN of `settings.beside`.

    Raises:
        ValueError: it has no styles, or that which is explored has none.
    """
    from generative.loading import model_folder
    from generative.stylegan import StyleGAN
    from worldmodels.loading import load_model

    if settings.beside is None:
        return None
    other = load_model(model_folder(settings.beside), subject.device)
    for folder, model in ((subject.folder, subject.model), (settings.beside, other)):
        if not isinstance(model, StyleGAN):
            raise ValueError(
                f"{folder} holds a {model.saved_name}, whose layers have no styles, and "
                "stylegan.beside compares two with styles: pass runs of train_stylegan or "
                "train_stylegan2"
            )
    return cast("StyleGAN", other)


def drawn(gan: ProGAN, n: int, draws: Any) -> Tensor:
    """n samples, some at a time."""
    import torch

    from generative.training.progress import progress

    parts = [min(AT_ONCE, n - first) for first in range(0, n, AT_ONCE)]
    what = f"drawing samples, {AT_ONCE} at a time"
    return torch.cat([gan.sample(part, draws) for part in progress(parts, what)])


def reached(samples: Tensor, known: ImageSet) -> dict[str, float]:
    """Precision and recall of samples (`generative.gan.coverage`), and the recall that is expected
    of as many even draws."""
    import torch

    from generative.gan import coverage
    from generative.training.progress import progress

    what = f"comparing samples with {len(known):,} images, {AT_ONCE} at a time"
    parts = progress(samples.split(AT_ONCE), what)
    index = torch.cat([coverage(part, known).index for part in parts])
    right = index[index >= 0]
    return {
        "precision": len(right) / len(index),
        "recall": len(right.unique()) / len(known),
        "recall_of_even_draws": 1 - (1 - 1 / len(known)) ** len(samples),
    }


def explore_styles(
    subject: Subject,
    gan: StyleGAN,
    settings: Settings,
    draws: Any,
    other: StyleGAN | None,
) -> dict[str, float]:
    """Pictures of what a style does in which layers, of noise, and of the largest peaks of feature
    maps; returns `peaks`, those of the other GAN as beside_peak_4 and so on."""
    import torch

    from generative.stylegan.stylegan2 import SkipGenerator
    from generative.training.pictures import image_grid, labelled, strips

    scale = scale_to(64, gan.shape)
    z = gan.draw_z(16, draws)
    w, noise = gan.styles(z), gan.draw_noise(16, draws)
    u = torch.linspace(0, 1, 10, device=z.device, dtype=z.dtype)[:, None, None]
    way = torch.cat([a + u * (b - a) for a, b in ((w[0], w[1]), (w[2], w[3]))])
    subject.save("interpolation", image_grid(gan.synthesise(way), columns=10, scale=scale))
    for name, layers in layer_groups(gan).items():
        rows = fused(gan, w[:6], w[6:14], layers).split(9)
        labels = [f"{name} styles of these", *["the rest from the left"] * 6]
        subject.save(
            f"styles-{name}", labelled([image_grid(row, 9, scale) for row in rows], labels)
        )
    of_layers = noise_on_and_off(gan, noise, 8)
    rows = [gan.synthesise(w[:8], maps) for maps in of_layers.values()]
    # Beside the name of each row, how far its pixels are from the first row's on average.
    labels = [
        name + (f": {float((row - rows[0]).abs().mean()):.2%}" if row is not rows[0] else "")
        for name, row in zip(of_layers, rows, strict=True)
    ]
    subject.save("noise", strips(*rows, scale=scale, labels=labels))
    rows = [gan.synthesise(gan.styles(z[:8], psi)) for psi in settings.psis]
    labels = [f"psi {psi:g}" for psi in settings.psis]
    subject.save("truncation", strips(*rows, scale=scale, labels=labels))
    if subject.run is not None and isinstance(gan.generator, SkipGenerator):
        figure = contributions_over_training(subject)
        if figure is not None:
            subject.save_figure("contributions", figure, dpi=100)
    found = peaks(gan, w)
    named, result = {gan.saved_name: found}, of_sides(found)
    if other is not None:
        found = peaks(other, other.styles(other.draw_z(16, subject.generator())))
        alike = other.saved_name == gan.saved_name
        named[f"{other.saved_name} beside" if alike else other.saved_name] = found
        result |= {f"beside_{name}": value for name, value in of_sides(found).items()}
    subject.save_figure("droplets", droplets(named), dpi=100)
    return result


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


def noise_on_and_off(gan: StyleGAN, noise: list[Tensor], n: int) -> dict[str, list[Tensor | None]]:
    """Noise of n images: in all layers, in none, and in all but each layer in turn, by names."""
    maps: list[Tensor | None] = [part[:n] for part in noise]
    found = {"all noise": maps, "no noise": [None] * len(maps)}
    sides, before = gan.styled.noise_sides, Counter[int]()
    for layer, side in enumerate(sides):
        before[side] += 1
        which = f", {('first', 'second')[before[side] - 1]}" if sides.count(side) > 1 else ""
        without = [None if i == layer else part for i, part in enumerate(maps)]
        found[f"without {side}x{side}{which}"] = without
    return found


class Peaks(NamedTuple):
    """Peaks of the feature maps of one side; see `peaks`."""

    mean: float
    """Mean share of all maps."""
    largest: float
    """Share of the map that has the largest,"""
    map: Tensor
    """and this map, (S, S)."""


def peaks(gan: StyleGAN, w: Tensor) -> dict[int, Peaks]:
    """Share of the energy of a feature map that is in its largest pixel, for each side.

    An even map of S x S has 1 / S^2. StyleGAN makes droplets, single places with most of the
    energy, by which it passes sizes through AdaIN; StyleGAN2 has no reason to (Karras et al. 2020,
    section 2).

    Args:
        w: styles (B, num_layers, style_dim) of the images whose maps are looked at, without noise.
    """
    import torch

    shares: dict[int, list[Tensor]] = {}
    largest: dict[int, tuple[float, Tensor]] = {}

    def look(_layer: Any, _given: Any, out: Tensor) -> None:
        side, energy = out.shape[-1], out.square().flatten(2)
        share = energy.amax(2) / energy.sum(2).clamp_min(1e-12)
        shares.setdefault(side, []).append(share.mean())
        most = float(share.max())
        if side not in largest or most > largest[side][0]:
            largest[side] = most, out.flatten(0, 1)[int(share.argmax())].clone()

    hooks = [layer.register_forward_hook(look) for layer in gan.generator.layers]  # type: ignore[union-attr]
    with torch.no_grad():
        gan.synthesise(w)
    for hook in hooks:
        hook.remove()
    return {
        side: Peaks(float(torch.stack(found).mean()), *largest[side])
        for side, found in shares.items()
    }


def of_sides(found: dict[int, Peaks]) -> dict[str, float]:
    """The numbers of `peaks`, as peak_4, largest_peak_4 and so on."""
    mean = {f"peak_{side}": peak.mean for side, peak in found.items()}
    return mean | {f"largest_peak_{side}": peak.largest for side, peak in found.items()}


def droplets(found: dict[str, dict[int, Peaks]]) -> Figure:
    """Figure: the map with the largest peak of each GAN and side, as the size of each pixel beside
    its largest one's. A droplet is a bright place on an even ground."""
    from matplotlib.figure import Figure

    columns = max(len(of_gan) for of_gan in found.values())
    figure = Figure(figsize=(1 + 2.1 * columns, 0.4 + 2.2 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), columns, squeeze=False)
    for row, (name, of_gan) in zip(axes, found.items(), strict=True):
        row[0].set_ylabel(name)
        for axis in row[len(of_gan) :]:
            axis.set_axis_off()
        for axis, (side, peak) in zip(row, of_gan.items(), strict=False):
            size = peak.map.abs().cpu()
            shown = axis.imshow((size / size.max()).numpy(), cmap="magma", vmin=0, vmax=1)
            axis.set_title(f"{side}x{side}: {peak.largest:.1%} of the energy", fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    figure.colorbar(shown, ax=axes, label="size, by the largest")
    return figure


def reduced(images: Tensor) -> np.ndarray:
    """Images at each side that a network grows through, from 4 up, a row for each side."""
    from generative.stylegan import Stage, reduce
    from generative.training.pictures import strips

    side, rows, now = images.shape[-1], {}, 4
    while now <= side:
        small = reduce(images, Stage(now, 1.0))
        times = side // now
        rows[f"{now}x{now}"] = small.repeat_interleave(times, 2).repeat_interleave(times, 3)
        now *= 2
    return strips(*rows.values(), scale=scale_to(64, images.shape[1:]), labels=tuple(rows))


def growth(subject: Subject) -> np.ndarray | None:
    """The first eight samples of each picture that the run has saved, all enlarged to the size of
    the largest, a row for each with its step and stage; None if there are not two."""
    import numpy as np
    from PIL import Image

    from generative.training.pictures import labelled

    if subject.run is None:
        return None
    paths = sorted((subject.run / "images").glob("samples-*.png"))
    if len(paths) < 2:
        return None
    kept = np.linspace(0, len(paths) - 1, min(10, len(paths))).round().astype(int)
    steps = [int(paths[i].stem.rpartition("-")[2]) for i in kept]
    rows = [first_row(np.asarray(Image.open(paths[i]).convert("RGB"))) for i in kept]
    side = max(row.shape[1] for row in rows)
    return labelled([enlarged(row, side) for row in rows], [stage_label(subject, n) for n in steps])


def first_row(picture: np.ndarray, columns: int = 8) -> np.ndarray:
    """Images in the first row of an `image_grid` of square images, uint8 (columns, S, S, 3)."""
    import numpy as np

    from generative.training.pictures import GAP

    step = (picture.shape[1] + GAP) // columns
    side = step - GAP
    return np.stack([picture[:side, i * step : i * step + side] for i in range(columns)])


def enlarged(images: np.ndarray, side: int) -> np.ndarray:
    """A row of images, uint8 (N, S, S, 3), each pixel repeated until the side is this one."""
    import torch

    from generative.training.pictures import image_grid

    x = torch.from_numpy(images).movedim(-1, 1) / 255
    return image_grid(x, len(images), scale=max(1, side // images.shape[1]))


def stage_label(subject: Subject, step: int) -> str:
    """Step of a picture of a run, and the stage of growth that it shows if the run grows."""
    from generative.stylegan.growing import stage_of

    words = f"step {step:,}"
    phase_images = subject.setting("loss", {}).get("phase_images", 0)
    if not phase_images:
        return words
    seen = step * subject.setting("batch_size", 1)
    side, alpha = stage_of(seen, subject.model.shape[-1], phase_images)
    return f"{words}: {side}x{side}" + ("" if alpha == 1 else f", alpha {alpha:.2g}")


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
