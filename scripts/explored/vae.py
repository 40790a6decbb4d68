"""A trained VAE: its codes, samples, attribute vectors, morphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from generative.training.ranges import Checked, Count, Positive, Range
from scripts.explored.common import Subject, scale_to

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from generative.data.image_set import ImageSet
    from generative.vae import VAE, ConvVAE, LinearVAE

    AnyVAE = ConvVAE | VAE | LinearVAE

CLASSES = ("ConvVAE", "ImageVAE", "LinearVAE", "VAEGAN")


@dataclass(frozen=True)
class Settings(Checked):
    """VAEs."""

    threshold: Annotated[int, Range(0, 255)] | None = None
    """Pixels of at least this become white, all others black; 0 leaves them grey. As the run had
    it, if not given."""
    max_images: Count = 10_000
    """Images to encode, at most."""
    attributes: tuple[str, ...] = ()
    """Attributes to add and take away, FACTOR=VALUE (colour=2, class=7) or FACTOR alone where it
    is 0 or 1 (Smiling); none names some of faces and of sprites, and else the largest value of
    every factor."""
    reach: Positive | None = None
    """Attribute vectors are added at most this many times; if not given 1.5, for faces 4 as in the
    book."""
    morphs: Count = 4
    """Pairs of images to go between."""


ATTRIBUTES = {
    "celeba": ("Smiling", "Black_Hair", "Eyeglasses", "Young", "Male", "Blond_Hair"),
    "sprites": ("colour=0", "shape=1", "size=2", "x=7", "y=7"),
}
"""Those that are shown if none are named, by the data."""
STEPS = 9
"""Images in a row of additions, and of a morph."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures; returns how the codes lie, and what attribute vectors do to sprites.

    Where its images are not at hand there are samples only.
    """
    import numpy as np
    import torch

    from generative.training.pictures import image_grid, strips
    from generative.vae import gaussian_log_prob, sample_gaussian
    from scripts.train_image_vae import black_and_white

    model, generator = subject.model, subject.generator()
    shape = model.image_shape
    scale = scale_to(64, shape)
    images = subject.images_if_there(shape, max_images=settings.max_images)
    if images is None:
        subject.save("samples", image_grid(model.sample(30, generator), columns=10, scale=scale))
        print("samples only; codes need images of the kind the VAE was trained on (--data frames)")
        return {}
    threshold = settings.threshold
    if threshold is None:
        threshold = subject.setting("threshold", 0)
    images = black_and_white(images, threshold) if threshold else images

    with torch.no_grad():
        mu, logvar = encode_all(model, images)
        z = sample_gaussian(mu, logvar, generator)
        test = images.part("test")
        x = test.thin(10).as_tensor(device=subject.device)  # neighbours may be alike
        subject.save("reconstructions", strips(x, model.reconstruct(x), scale=scale))
        subject.save("samples", image_grid(model.sample(30, generator), columns=10, scale=scale))
        shuffled = test[np.random.default_rng(subject.seed).permutation(len(test))]
        if morphs := morph_rows(model, shuffled, settings.morphs):
            subject.save("morphs", strips(*morphs, scale=scale))
        found: dict[str, Any] = {
            "images": len(images),
            "active_dims": int((mu.var(0) > 0.01).sum()),
            "kl": float((gaussian_log_prob(z, mu, logvar).sum(1) - log_prior(model, z)).mean()),
            "mean": z.mean(0).tolist(),
            "std": z.std(0).tolist(),
        }
        prior = draw_codes(model, 100_000, generator)
        subject.save_figure("histograms", histograms(z, prior))
        if model.latent_dim == 2:
            subject.save_figure("plane", plane(mu, images))
            subject.save("decoded-plane", image_grid(decoded_plane(model), columns=20))
        names = settings.attributes or ATTRIBUTES.get(subject.data) or default_attributes(images)
        reach = settings.reach or (4.0 if subject.data == "celeba" else 1.5)
        directions = {name: attribute_vector(mu, images, name) for name in names}
        first = model.encode_mu_logvar(x[:1])[0]
        if directions:  # frames have no factors
            rows = [along(model, first, v, reach) for v in directions.values()]
            subject.save("attributes", strips(*rows, scale=scale))
        if subject.data == "sprites":
            found["edits"] = {
                name: edited_sprites(model, test, name, direction)
                for name, direction in directions.items()
            }
    return found


# ---------------------------------------------------------------------------------------------
# Codes
# ---------------------------------------------------------------------------------------------


def draw_codes(model: AnyVAE, n: int, generator: Any) -> Tensor:
    """n draws of the prior, (n, latent_dim): N(0, I) where the model has no other."""
    import torch

    own = getattr(model, "sample_codes", None)
    if own is not None:
        return own(n, generator)
    device = next(model.parameters()).device
    return torch.randn(n, model.latent_dim, generator=generator, device=device)


def log_prior(model: AnyVAE, z: Tensor) -> Tensor:
    """log p(z) of codes (N, latent_dim), (N,), nats."""
    from generative.vae import gaussian_log_prob

    prior = getattr(model, "prior", None)
    return prior.log_prob(z) if prior is not None else gaussian_log_prob(z, 0.0, 0.0).sum(-1)


def encode_all(model: AnyVAE, images: ImageSet) -> tuple[Tensor, Tensor]:
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


def decoded_plane(model: AnyVAE, num: int = 20) -> Tensor:
    """Decoded grid of codes at equal steps of probability, (num * num, C, H, W); y points up."""
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
    """True for images with an attribute, FACTOR=VALUE, or FACTOR for FACTOR=1; bool (N,).

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


def along(model: AnyVAE, z: Tensor, direction: Tensor, reach: float) -> Tensor:
    """Images decoded from z (1, D) + alpha * direction, alpha from -reach to reach."""
    import torch

    alphas = torch.linspace(-reach, reach, STEPS, device=z.device)[:, None]
    return model.decode(z + alphas * direction)


def morph_rows(model: AnyVAE, images: ImageSet, num: int) -> list[Tensor]:
    """For each of num pairs of images: the first, the decoded straight line between, the second.

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
    model: AnyVAE, images: ImageSet, attribute: str, direction: Tensor
) -> dict[str, float]:
    """Effect of an attribute vector, added once to sprites that lack the attribute.

    `reached` is the share of sprites that have the attribute afterwards, `others_kept` the share
    of the other factors that stay the same; both are read off the nearest of all sprites. `start`
    is the share of all factors that survive encoding and decoding alone.
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
