"""Look into a trained GAN: samples, what lies between them, what they were copied from, scores.

python scripts/explore_gan.py sprites --model runs/gan/model
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from generative.training.cli import Input, start
from generative.training.devices import find_device
from generative.training.ranges import Checked, Count, Device, Folder, Range, Seed
from scripts.common.images import ImageData, load_images

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from generative.data.image_set import ImageSet
    from generative.gan import GAN, WGAN, ConditionalGAN

    AnyGAN = GAN | WGAN | ConditionalGAN


@dataclass(frozen=True)
class Args(Checked):
    """Look into a trained GAN of images, Wasserstein GAN or conditional GAN.

    Writes pictures and explore.json: the energy coefficient of samples and test images, how far
    samples are from the nearest training image, the mean score of training images, test images and
    samples, and of sprites precision and recall.
    """

    model: Annotated[Path, Input("train_gan.py")] = Path("runs/gan/model")
    """Folder of the GAN, as train_gan.py, train_wgan.py or train_conditional_gan.py writes it."""
    pictures: Annotated[Folder, tyro.conf.arg(name="out")] = Path("runs/gan/explore")
    """Where the pictures go."""
    data: ImageData = "bricks"
    """What it was trained on, in the shape of the model."""
    data_dir: Path = Path("data")
    """Where its files are, or in a folder of its name there (sprites and digits need none)."""
    label: tuple[str, ...] = ("class",)
    """Conditional GAN: what the images are told apart by, as it was trained."""
    max_images: Count = 50_000
    """Images to read, at most."""
    num_samples: Annotated[int, Range(2, 2**30)] = 1000
    """Samples to measure; of sprites a recall of 0.95 needs 14,000 even if all are right."""
    device: Device = "cpu"
    seed: Seed = 1


FACES = Args(Path("runs/wgan/model"), Path("runs/wgan/explore"), data="celeba")
DEFAULT_PRESET = "book"
PRESETS = {
    "book": Args(),
    "wgan": FACES,
    "conditional": Args(
        Path("runs/conditional_gan/model"),
        Path("runs/conditional_gan/explore"),
        data="celeba",
        label=("Blond_Hair",),
    ),
    "sprites": Args(data="sprites", label=("colour",), num_samples=23_040),
    "frames": Args(data="frames", data_dir=Path("runs/rollouts/episodes")),
    "smoke": Args(data="sprites", label=("colour",), max_images=200, num_samples=16),
}


def main(args: Args) -> Path:
    """Returns the folder of the pictures."""
    import torch
    from PIL import Image

    from generative.gan import ConditionalGAN
    from generative.gan.model import coverage, draw_z, energy_coefficient, nearest_images
    from generative.training.files import write_json
    from generative.training.pictures import image_grid, strips

    args = replace(args, device=str(find_device(args.device)))
    gan = load_gan(args.model, args.device)
    shape = gan.config.shape
    if len(shape) != 3:
        raise ValueError(f"{args.model} makes points of shape {shape}; pass a GAN of images")
    images = load_images(args.data, args.data_dir, shape, max_images=args.max_images)
    train, test = images.part("train"), images.part("test")
    args.pictures.mkdir(parents=True, exist_ok=True)
    scale, generator = max(1, 64 // shape[1]), torch.Generator(args.device).manual_seed(args.seed)

    def save(name: str, picture: np.ndarray) -> None:
        Image.fromarray(picture).save(args.pictures / f"{name}.png")

    z = draw_z(gan, 100, generator)
    labels = labels_of(gan, len(z))
    with torch.no_grad():
        made = gan.generate(z, *labels)
        save("samples", image_grid(made, columns=10, scale=scale))
        save("interpolation", image_grid(between(gan, z[:20]), columns=10, scale=scale))
        index, _ = nearest_images(made[:10], train)
        copied_from = train.as_tensor(index.cpu().numpy(), args.device)
        save("nearest", strips(made[:10], copied_from, scale=scale))
        if isinstance(gan, ConditionalGAN):
            save("classes", image_grid(class_switch(gan, z[:10]), columns=10, scale=scale))

        samples = gan.sample(args.num_samples, generator)
        found = energy_coefficient(test.as_tensor(slice(1000), args.device), samples, most=1000)
        _, distance = nearest_images(samples[:1000], train)
        scores = {
            "training": scores_of(gan, images, "train", args),
            "test": scores_of(gan, images, "test", args),
        }
        scores["generated"] = gan.score(samples[:1000], *labels_of(gan, min(1000, len(samples))))
        histogram(scores, args.pictures / "scores.png")
        result = {
            "samples": len(samples),
            "energy": float(found.energy),
            "spread": float(found.spread),
            "nearest_training_image": float(distance.mean()),
            **{f"score_{name}": float(values.mean()) for name, values in scores.items()},
        }
        if args.data == "sprites":
            known = load_images("sprites", args.data_dir, shape)
            covered = coverage(samples, known)
            result |= {"precision": covered.precision, "recall": covered.recall}
    write_json(args.pictures / "explore.json", result)
    print(
        f"wrote {len(list(args.pictures.glob('*.png')))} pictures into {args.pictures}; energy "
        f"coefficient of samples and test images: {result['energy']:.4f}"
    )
    return args.pictures


def load_gan(folder: Path, device: str = "cpu") -> AnyGAN:
    """The GAN in a folder, of whichever kind it is.

    Raises:
        FileNotFoundError, ValueError, DamagedFileError: there is none.
    """
    from generative.gan import GAN, WGAN, ConditionalGAN
    from generative.training.pretrained import class_name

    name = class_name(folder)
    kind = next((k for k in (WGAN, ConditionalGAN) if k.__name__ == name), GAN)
    return kind.from_pretrained(folder, device)


def labels_of(gan: AnyGAN, n: int) -> tuple[Tensor, ...]:
    """Classes 0, 1, 2, ... in turn for a conditional GAN, nothing for the others."""
    import torch

    num_classes = getattr(gan.config, "num_classes", 0)
    device = next(gan.parameters()).device
    return (torch.arange(n, device=device) % num_classes,) if num_classes else ()


def between(gan: AnyGAN, z: Tensor, num: int = 10) -> Tensor:
    """Images on the way from one z to the next, for each pair of them, (len(z) / 2 * num, ...).

    The way is along a great circle, so that all z on it are as long as normal noise is. A
    conditional GAN is asked for class 0.
    """
    import torch

    a, b = z[0::2, None], z[1::2, None]
    u = torch.linspace(0, 1, num, device=z.device)[:, None]
    cosine = (a * b).sum(-1, keepdim=True) / (a.norm(dim=-1) * b.norm(dim=-1))[..., None]
    angle = cosine.clamp(-0.999, 0.999).acos()
    way = (((1 - u) * angle).sin() * a + (u * angle).sin() * b) / angle.sin()
    way = way.flatten(0, 1)
    labels = (torch.zeros_like(label.expand(len(way))) for label in labels_of(gan, 1))
    return gan.generate(way, *labels)


def class_switch(gan: ConditionalGAN, z: Tensor) -> Tensor:
    """The same noise with each label in turn, one row of len(z) images for each class."""
    import torch

    classes = torch.arange(gan.config.num_classes, device=z.device)
    return gan.generate(z.repeat(len(classes), 1), classes.repeat_interleave(len(z)))


def scores_of(gan: AnyGAN, images: ImageSet, part: str, args: Args, most: int = 1000) -> Tensor:
    """Scores of the first images of a part of the set."""
    import torch

    from generative.data.image_set import PARTS
    from scripts.train_gan import classes_of

    rows, labels = (images.split == PARTS.index(part)).nonzero()[0][:most], ()
    if labels_of(gan, 1):
        classes = classes_of(images, args.label, gan.config.num_classes)[rows]
        labels = (torch.from_numpy(classes).to(args.device),)
    return gan.score(images.as_tensor(rows, args.device), *labels)


def histogram(scores: dict[str, Tensor], path: Path) -> None:
    """How the scores of each kind of image are distributed."""
    import numpy as np
    from matplotlib.figure import Figure

    values = {name: s.cpu().numpy() for name, s in scores.items()}
    everything = np.concatenate(list(values.values()))
    edges = np.linspace(everything.min(), everything.max() + 1e-6, 50)
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for name, s in values.items():
        axes.hist(s, edges, density=True, histtype="step", label=name)
    axes.set_xlabel("score")
    axes.set_yticks([])
    axes.legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
