"""Look into a trained PixelCNN: samples, completed images, what it expects and what surprises it.

python scripts/explore_pixelcnn.py digits --model runs/pixelcnn/model
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from generative.training.cli import Input, start
from generative.training.devices import find_device
from generative.training.ranges import Checked, Count, Device, Folder, NonNegative, Seed
from scripts.common.images import ImageData, load_images

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from generative.data.image_set import ImageSet
    from generative.pixelcnn import PixelCNN


@dataclass(frozen=True)
class Args(Checked):
    """Look into a trained PixelCNN: samples, completed images, what it expects, what surprises it.

    Writes pictures and explore.json: bits per number of test images by the model, and by pixels
    that do not depend on each other.
    """

    model: Annotated[Path, Input("train_pixelcnn.py")] = Path("runs/pixelcnn/model")
    """Folder of the model, as train_pixelcnn.py writes it."""
    pictures: Annotated[Folder, tyro.conf.arg(name="out")] = Path("runs/pixelcnn/explore")
    """Where the pictures go."""
    data: ImageData = "fashion-mnist"
    """What it was trained on, in the shape and the levels of the model."""
    data_dir: Path = Path("data")
    """Where its files are, or in a folder of its name there (sprites and digits need none)."""
    max_images: Count = 10_000
    """Images to read, at most."""
    num_samples: Count = 10
    """Images in a row of a picture."""
    temperatures: tuple[NonNegative, ...] = (0.5, 0.8, 1.0, 1.2)
    """Of the samples, a row for each."""
    device: Device = "cpu"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperatures:
            raise ValueError("temperatures is empty; give at least one")


DEFAULT_PRESET = "book"
PRESETS = {
    "book": Args(),
    "digits": Args(data="digits"),
    "sprites": Args(data="sprites"),
    "frames": Args(data="frames", data_dir=Path("runs/rollouts/episodes"), num_samples=5),
    "smoke": Args(data="sprites", max_images=200, num_samples=2, temperatures=(0.5, 1.0)),
}


def main(args: Args) -> Path:
    """Returns the folder of the pictures."""
    import torch
    from PIL import Image

    from generative.pixelcnn import PixelCNN
    from generative.training.files import write_json
    from generative.training.pictures import image_grid, strips

    args = replace(args, device=str(find_device(args.device)))
    model = PixelCNN.from_pretrained(args.model, args.device)
    config = model.config
    images = load_images(
        args.data, args.data_dir, config.image_shape, config.levels, args.max_images
    )
    test, n = images.part("test"), args.num_samples
    args.pictures.mkdir(parents=True, exist_ok=True)
    scale = max(1, 48 // config.image_shape[1])
    real = test.as_tensor(slice(n), args.device)
    generator = torch.Generator(args.device).manual_seed(args.seed)

    def save(name: str, picture: np.ndarray) -> None:
        Image.fromarray(picture).save(args.pictures / f"{name}.png")

    rows = [model.sample(len(real), generator, t) for t in args.temperatures]
    save("temperatures", strips(real, *rows, scale=scale))
    half = config.image_shape[1] // 2
    known = real.clone()
    known[:, :, half:] = 0.5
    drawn = [model.complete(real, half, generator) for _ in range(3)]
    save("completions", strips(known, *drawn, real, scale=scale))
    save("surprise", strips(real, surprise(model, real), scale=scale))
    save("reach", strips(reach(model, real[:1]), scale=scale))
    if model.num_classes:
        labels = torch.arange(model.num_classes, device=args.device).repeat_interleave(n)
        drawn_of = model.sample(len(labels), generator, labels=labels)
        save("classes", image_grid(drawn_of, columns=n, scale=scale))
    expectations(model, real[:1], args.pictures / "next_pixel.png")
    mixture_of_normals(args.pictures / "mixture.png", args.seed)
    result = {
        "test_bits_per_dim": bits_per_dim(model, test),
        "independent_pixels_bits_per_dim": independent_pixels(images.part("train"), test),
    }
    write_json(args.pictures / "explore.json", result)
    print(
        f"wrote {len(list(args.pictures.glob('*.png')))} pictures into {args.pictures}; "
        f"{result['test_bits_per_dim']:.3f} bits per number of test images, "
        f"{result['independent_pixels_bits_per_dim']:.3f} if pixels were independent"
    )
    return args.pictures


def surprise(model: PixelCNN, x: Tensor) -> Tensor:
    """How many bits each pixel of (B, C, H, W) took, all colours together, as grey images.

    White is the largest number in any of them.
    """
    import torch

    with torch.no_grad():
        bits = -model.pixel_log_probs(x).sum(1, keepdim=True)
    return (bits / bits.max()).expand_as(x)


def reach(model: PixelCNN, x: Tensor) -> Tensor:
    """Which pixels of x (1, C, H, W) the model looks at for one in the middle; (2, C, H, W).

    First by the strength of the gradient, then whether there is any. The pixel itself is grey; what
    comes before it and is black in the second picture is the blind spot, or out of reach.
    """
    import torch

    _, _, h, w = x.shape
    i, j = 3 * h // 4, w // 2
    x = x.clone().requires_grad_()
    labels = torch.zeros(1, dtype=torch.int64, device=x.device) if model.num_classes else None
    params = model.pixel_params(x, labels)[0, :, i, j]
    strength = torch.zeros(h, w, device=x.device)
    for value in params:  # one by one, so that none cancels another
        (gradient,) = torch.autograd.grad(value, x, retain_graph=True)
        strength += gradient[0].abs().sum(0)
    pictures = torch.stack([(strength / strength.max().clamp_min(1e-30)).sqrt(), strength > 0])
    pictures[:, i, j] = 0.5
    return pictures[:, None].expand(-1, x.shape[1], -1, -1)


def expectations(model: PixelCNN, x: Tensor, path: Path) -> None:
    """Probability of every level of four pixels of x (1, C, H, W), and the level they have."""
    import matplotlib
    import torch
    from matplotlib.figure import Figure

    _, _, h, w = x.shape
    places = [(h // 4, w // 2), (h // 2, w // 4), (h // 2, w // 2), (3 * h // 4, w // 2)]
    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure(figsize=(11, 2.4), layout="constrained")
        axes = figure.subplots(1, 5)
        axes[0].imshow(x[0].movedim(0, -1).cpu().squeeze(-1), cmap="gray", vmin=0, vmax=1)
        for number, ((i, j), axis) in enumerate(zip(places, axes[1:], strict=True)):
            with torch.no_grad():
                p = model.next_pixel(x, i, j)[0].cpu()
            axis.bar(range(len(p)), p, width=1.0)
            level = round(float(x[0, 0, i, j]) * (len(p) - 1))
            axis.axvline(level, color="tab:red", linewidth=1)
            axis.set_title(f"{'abcd'[number]}: row {i}, column {j}")
            axis.set_xlabel("level")
            axes[0].text(j, i, "abcd"[number], color="tab:red", ha="center", va="center")
        axes[1].set_ylabel("probability")
        axes[0].axis("off")
        figure.savefig(path, dpi=100)


def mixture_of_normals(path: Path, seed: int) -> None:
    """Three normal distributions, one of them chosen with chances 0.5, 0.3 and 0.2 at each draw."""
    import matplotlib
    import numpy as np
    from matplotlib.figure import Figure

    pi, mean, std = np.array([0.5, 0.3, 0.2]), np.array([-1.0, 1.5, 4.0]), np.array([0.8, 0.5, 1.2])
    rng = np.random.default_rng(seed)
    chosen = rng.choice(3, size=10_000, p=pi)
    draws = rng.normal(mean[chosen], std[chosen])
    x = np.linspace(-5, 9, 400)
    parts = pi * np.exp(-0.5 * ((x[:, None] - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure(figsize=(5, 2.6), layout="constrained")
        axis = figure.subplots()
        axis.hist(draws, bins=100, range=(-5, 9), density=True, color="0.85", label="10,000 draws")
        axis.plot(x, parts, linewidth=1)
        axis.plot(x, parts.sum(1), color="black", label="mixture: 8 free numbers")
        axis.legend(frameon=False)
        figure.savefig(path, dpi=100)


def bits_per_dim(model: PixelCNN, images: ImageSet) -> float:
    """Bits per number of at most 1,000 images."""
    import torch

    images, device = images.thin(1000), next(model.parameters()).device
    with torch.no_grad():
        parts = [
            -model.log_prob(images.as_tensor(slice(first, first + 100), device)).sum()
            for first in range(0, len(images), 100)
        ]
    return float(sum(parts)) / (math.log(2) * images.images.size)


def independent_pixels(train: ImageSet, test: ImageSet) -> float:
    """Bits per number of test images if every number had a distribution of its own.

    Frequencies of the levels in the training images, with one added to each count.
    """
    import numpy as np

    bits = 0.0
    for level in range(train.levels):
        share = ((train.images == level).sum(0) + 1) / (len(train) + train.levels)
        bits -= float((np.log2(share) * (test.images == level)).sum())
    return bits / test.images.size


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
