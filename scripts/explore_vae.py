"""Look into a trained image VAE: its codes, samples, attribute vectors, morphs.

python scripts/explore_vae.py sprites --model runs/image-vae/model
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from generative.training.cli import Input, start
from generative.training.devices import find_device
from generative.training.ranges import Checked, Count, Device, Folder, Positive, Range, Seed
from scripts.common.images import ImageData, load_images

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from generative.data.image_set import ImageSet
    from generative.vae import ImageVAE


@dataclass(frozen=True)
class Args(Checked):
    """Look into a trained image VAE: its codes, samples, attribute vectors, morphs.

    Writes pictures and explore.json, which tells how the codes lie and what attribute vectors do.
    """

    model: Annotated[Path, Input("train_image_vae.py")] = Path("runs/image-vae/model")
    """Folder of the VAE, as train_image_vae.py writes it."""
    pictures: Annotated[Folder, tyro.conf.arg(name="out")] = Path("runs/image-vae/explore")
    """Where the pictures go."""
    data: ImageData = "fashion-mnist"
    """Images to encode, in the shape of the model."""
    data_dir: Path = Path("data")
    """Where its files are, or in a folder of its name there (sprites and digits need none)."""
    threshold: Annotated[int, Range(0, 255)] = 0
    """Pixels of at least this become white, all others black; 0 leaves them grey."""
    max_images: Count = 10_000
    """Images to encode, at most."""
    attributes: tuple[str, ...] = ()
    """Attributes to add and take away, FACTOR=VALUE (colour=2, class=7) or FACTOR alone where it
    is 0 or 1 (Smiling); none names the largest value of every factor."""
    reach: Positive = 4.0
    """Attribute vectors are added up to so many times (the book: 4)."""
    morphs: Count = 4
    """Pairs of images to go between."""
    device: Device = "cpu"
    seed: Seed = 1


DEFAULT_PRESET = "book"
FACES = ("Smiling", "Black_Hair", "Eyeglasses", "Young", "Male", "Blond_Hair")
PRESETS = {
    "book": Args(reach=1.5),
    "celeba": Args(data="celeba", attributes=FACES),
    "digits": Args(data="digits", threshold=8, reach=1.5),
    "sprites": Args(
        data="sprites", attributes=("colour=0", "shape=1", "size=2", "x=7", "y=7"), reach=1.5
    ),
    "frames": Args(data="frames", data_dir=Path("runs/rollouts/episodes")),
    "smoke": Args(data="sprites", max_images=200, attributes=("colour=0", "size=2"), morphs=1),
}
STEPS = 9
"""Images in a row of additions, and of a morph."""


def main(args: Args) -> Path:
    """Returns the folder of the pictures."""
    import numpy as np
    import torch
    from PIL import Image

    from generative.training.files import write_json
    from generative.training.pictures import image_grid, strips
    from generative.vae import ImageVAE, gaussian_log_prob, sample_gaussian
    from scripts.train_image_vae import black_and_white

    args = replace(args, device=str(find_device(args.device)))
    model = ImageVAE.from_pretrained(args.model, args.device)
    shape = model.config.image_shape
    images = load_images(args.data, args.data_dir, shape, max_images=args.max_images)
    images = black_and_white(images, args.threshold) if args.threshold else images
    args.pictures.mkdir(parents=True, exist_ok=True)
    scale, generator = max(1, 64 // shape[1]), torch.Generator(args.device).manual_seed(args.seed)

    def save(name: str, picture: np.ndarray) -> None:
        Image.fromarray(picture).save(args.pictures / f"{name}.png")

    with torch.no_grad():
        mu, logvar = encode_all(model, images)
        z = sample_gaussian(mu, logvar, generator)
        test = images.part("test")
        x = test.thin(10).as_tensor(device=args.device)  # neighbours may be alike
        save("reconstructions", strips(x, model.reconstruct(x), scale=scale))
        save("samples", image_grid(model.sample(30, generator), columns=10, scale=scale))
        shuffled = test[np.random.default_rng(args.seed).permutation(len(test))]
        if morphs := morph_rows(model, shuffled, args.morphs):
            save("morphs", strips(*morphs, scale=scale))
        found: dict[str, object] = {
            "images": len(images),
            "active_dims": int((mu.var(0) > 0.01).sum()),
            "kl": float((gaussian_log_prob(z, mu, logvar).sum(1) - model.log_prior(z)).mean()),
            "mean": z.mean(0).tolist(),
            "std": z.std(0).tolist(),
        }
        prior = model.sample_codes(100_000, generator)
        histograms(z, prior).savefig(args.pictures / "histograms.png", dpi=80)
        if model.config.latent_dim == 2:
            plane(mu, images).savefig(args.pictures / "plane.png", dpi=80)
            save("decoded-plane", image_grid(decoded_plane(model), columns=20))
        names = args.attributes or default_attributes(images)
        directions = {name: attribute_vector(mu, images, name) for name in names}
        first = model.encode_mu_logvar(x[:1])[0]
        if directions:  # frames have no factors
            rows = [along(model, first, v, args.reach) for v in directions.values()]
            save("attributes", strips(*rows, scale=scale))
        if args.data == "sprites":
            found["edits"] = {
                name: edited_sprites(model, test, name, direction)
                for name, direction in directions.items()
            }
    write_json(args.pictures / "explore.json", found)
    print(f"wrote pictures and explore.json into {args.pictures}")
    return args.pictures


# ---------------------------------------------------------------------------------------------
# Codes
# ---------------------------------------------------------------------------------------------


def encode_all(model: ImageVAE, images: ImageSet) -> tuple[Tensor, Tensor]:
    """mu and logvar of every image, each (N, latent_dim)."""
    import torch

    device = next(model.parameters()).device
    parts = [
        model.encode_mu_logvar(images.as_tensor(slice(row, row + 500), device))
        for row in range(0, len(images), 500)
    ]
    mu, logvar = zip(*parts, strict=True)
    return torch.cat(mu), torch.cat(logvar)


def histograms(z: Tensor, prior: Tensor, most: int = 50):
    """Figure: draws of the first dimensions of z (grey), and of the prior they should follow (red).

    Where they differ, codes from the prior are unlike any that the decoder has seen.
    """
    from matplotlib.figure import Figure

    num = min(most, z.shape[1])
    columns = min(10, num)
    rows = -(-num // columns)
    figure = Figure(figsize=(1.6 * columns + 0.6, 1.3 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    bins = {"bins": 40, "range": (-4, 4), "density": True}
    for i, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if i < num:
            axis.hist(z[:, i].cpu().numpy(), color="0.75", **bins)
            axis.hist(prior[:, i].cpu().numpy(), histtype="step", color="tab:red", **bins)
            axis.set_title(f"z{i}", fontsize=7)
    return figure


def plane(mu: Tensor, images: ImageSet):
    """Figure: codes (N, 2) by the first factor, as they lie and as p-values in the unit square.

    The right side is the plane seen through the normal distribution function of each axis; drawn
    from N(0, I), codes would fill it evenly.
    """
    import torch
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.6), layout="constrained")
    kinds = images.factors[:, 0]
    for axis, codes in zip(figure.subplots(1, 2), (mu, torch.special.ndtr(mu)), strict=True):
        x, y = codes.cpu().numpy().T
        dots = axis.scatter(x, y, c=kinds, cmap="tab10", s=3, alpha=0.6)
        axis.set_aspect("equal", "datalim")
    figure.colorbar(dots, ax=figure.axes, label=images.factor_names[0])
    return figure


def decoded_plane(model: ImageVAE, num: int = 20) -> Tensor:
    """What codes at equal steps of probability stand for, (num * num, C, H, W); y points up."""
    import torch

    device = next(model.parameters()).device
    quantiles = torch.special.ndtri((torch.arange(num, device=device) + 0.5) / num)
    y, x = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
    return model.decode(torch.stack([x, y], 2).flatten(0, 1))


# ---------------------------------------------------------------------------------------------
# Attributes and morphs
# ---------------------------------------------------------------------------------------------


def default_attributes(images: ImageSet) -> tuple[str, ...]:
    """The largest value of every factor that has two or more."""
    largest = images.factors.max(0)
    named = zip(images.factor_names, largest, strict=True)
    return tuple(f"{name}={value}" for name, value in named if value > 0)


def has_attribute(images: ImageSet, attribute: str) -> np.ndarray:
    """Which images have an attribute, FACTOR=VALUE, or FACTOR for FACTOR=1; bool (N,).

    Raises:
        ValueError: no such factor, or all or none of the images have the value.
    """
    name, _, value = attribute.partition("=")
    if name not in images.factor_names:
        raise ValueError(f"there is no factor {name!r}; {', '.join(images.factor_names)}")
    column = images.factors[:, images.factor_names.index(name)]
    if value and not value.isdecimal():
        raise ValueError(f"{attribute!r} asks for the value {value!r}; values are whole numbers")
    has = column == int(value or 1)
    if has.all() or not has.any():
        raise ValueError(
            f"{int(has.sum())} of {len(has)} images have {attribute!r}; an attribute needs some "
            f"with and some without: {name} has values 0 to {column.max()}"
        )
    return has


def attribute_vector(mu: Tensor, images: ImageSet, attribute: str) -> Tensor:
    """Mean code of the images that have an attribute minus that of the others, (latent_dim,)."""
    import torch

    has = torch.from_numpy(has_attribute(images, attribute)).to(mu.device)
    return mu[has].mean(0) - mu[~has].mean(0)


def along(model: ImageVAE, z: Tensor, direction: Tensor, reach: float) -> Tensor:
    """Images decoded from z (1, D) + alpha * direction, alpha from -reach to reach."""
    import torch

    alphas = torch.linspace(-reach, reach, STEPS, device=z.device)[:, None]
    return model.decode(z + alphas * direction)


def morph_rows(model: ImageVAE, images: ImageSet, num: int) -> list[Tensor]:
    """For each of num pairs of images: the first, what lies on the straight way, the second.

    Fewer rows where there are not as many pairs.
    """
    import torch

    device = next(model.parameters()).device
    rows = []
    for pair in range(min(num, len(images) // 2)):
        x = images.as_tensor(slice(2 * pair, 2 * pair + 2), device)
        a, b = model.encode_mu_logvar(x)[0].split(1)
        alphas = torch.linspace(0, 1, STEPS, device=device)[:, None]
        rows.append(torch.cat([x[:1], model.decode(torch.lerp(a, b, alphas)), x[1:]]))
    return rows


def edited_sprites(
    model: ImageVAE, images: ImageSet, attribute: str, direction: Tensor
) -> dict[str, float]:
    """What adding an attribute vector once does to sprites that lack the attribute, shares.

    `reached` have the attribute afterwards, `others_kept` is the share of the other factors that
    are what they were, both by the nearest of all sprites. `start` is the share of all factors
    that survive encoding and decoding alone.
    """
    from generative.known.sprites import nearest, sprites
    from generative.vae import to_uint8_bhwc

    lacking = images[~has_attribute(images, attribute)].thin(200)
    column = images.factor_names.index(attribute.partition("=")[0])
    value = int(attribute.partition("=")[2] or 1)
    known = sprites()
    mu = encode_all(model, lacking)[0]

    def factors_of(z: Tensor) -> np.ndarray:
        decoded = to_uint8_bhwc(model.decode(z)).cpu().numpy()
        return known.factors[nearest(known, decoded)[0]]

    before, after = factors_of(mu), factors_of(mu + direction)
    kept = (after == lacking.factors).mean(0)
    return {
        "reached": float((after[:, column] == value).mean()),
        "others_kept": float((kept.sum() - kept[column]) / (len(kept) - 1)),
        "start": float((before == lacking.factors).mean()),
    }


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
