"""A trained VQ-VAE, VQ-GAN or prior of codes: code maps, their use, what is drawn of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

from generative.training.ranges import Checked, Count
from scripts.common.codes import all_codes, reconstruction_scores, sample_scores
from scripts.common.images import ImageData
from scripts.explored.common import Subject, scale_to

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from generative.codes import VQVAE, GPTPrior, PixelCNNPrior

CLASSES = ("VQVAE", "VQGAN", "ViTVQGAN", "PixelCNNPrior", "GPTPrior")


@dataclass(frozen=True)
class Settings(Checked):
    """VQ-VAE, VQ-GAN, ViT VQ-GAN, and priors of their codes."""

    max_images: Count = 10_000
    """Images to read, at most."""
    num_images: Count = 10
    """Images in a row of a picture."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures of codes, or of what a prior draws of them; returns their measures."""
    if subject.model.saved_name in ("PixelCNNPrior", "GPTPrior"):
        return explore_prior(subject, settings)
    return explore_codes(subject, settings)


# ---------------------------------------------------------------------------------------------
# Codes
# ---------------------------------------------------------------------------------------------


def explore_codes(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures of reconstructions, code maps, use of codes; returns measures of test images."""
    import torch

    from generative.codes import uniform_codes
    from generative.nets.quantiser import count_codes
    from generative.training.pictures import image_grid, strips

    model: VQVAE = subject.model
    images = subject.images(model.image_shape, max_images=settings.max_images)
    test, n = images.part("test"), settings.num_images
    scale = scale_to(64, model.image_shape)
    x = test.thin(n).as_tensor(device=subject.device)
    with torch.no_grad():
        codes = model.encode(x)
        again = model.decode(codes)
        both = ("test images", "reconstructions")
        subject.save("reconstructions", strips(x, again, scale=scale, labels=both))
        maps = code_maps(codes, model.num_codes, model.image_shape)
        rows = as_colour(x), maps, as_colour(again)
        labels = ("test images", "their codes", "reconstructions")
        subject.save("code_maps", strips(*rows, scale=scale, labels=labels))
        even = uniform_codes(n, model.grid, model.num_codes, torch.Generator().manual_seed(1))
        drawn = model.decode(even.to(subject.device))
        labels = ("test images", "evenly chosen codes")
        subject.save("uniform", strips(x, drawn, scale=scale, labels=labels))
        everything = all_codes(model, test.thin(2000))
        counts = count_codes(everything, model.num_codes)
        subject.save_figure("usage", usage(counts), dpi=100)
        subject.save("edits", image_grid(edits(model, codes[:1], counts), n, scale))
        if model.critic is not None:
            subject.save("patch_scores", patch_scores(model, x, again, scale))
        if model.saved_name == "ViTVQGAN":
            subject.save("attention", image_grid(attention(model, x[0:1]), 0, scale))
    data = cast("ImageData", subject.data)
    return {f"test_{name}": v for name, v in reconstruction_scores(model, test, data).items()}


def as_colour(x: Tensor) -> Tensor:
    """Images (B, 1 or 3, H, W) with three channels."""
    return x.expand(-1, 3, -1, -1)


def code_maps(codes: Tensor, num_codes: int, image_shape: tuple[int, int, int]) -> Tensor:
    """Grids of codes (B, h, w) as images (B, 3, H, W), each code in a colour of its own."""
    import colorsys

    import torch

    # Hues by the golden ratio lie far from each other, however many there are.
    hues = [(0.618034 * i) % 1 for i in range(num_codes)]
    colours = [
        colorsys.hls_to_rgb(hue, 0.35 + 0.3 * (i % 3) / 2, 0.75) for i, hue in enumerate(hues)
    ]
    table = torch.tensor(colours, dtype=torch.float32, device=codes.device)
    maps = table[codes].movedim(-1, 1)
    return torch.nn.functional.interpolate(maps, size=image_shape[1:], mode="nearest")


def usage(counts: Tensor) -> Figure:
    """Figure: share of each code among those of test images, from the most frequent on."""
    from matplotlib.figure import Figure

    from generative.nets.quantiser import perplexity

    share = (counts / counts.sum()).sort(descending=True).values
    figure = Figure(figsize=(6, 2.6), layout="constrained")
    axis = figure.subplots()
    axis.bar(range(len(share)), share.numpy(), width=1.0)
    axis.set_yscale("log")
    axis.set_xlabel("code, the most frequent first")
    axis.set_ylabel("share")
    used, in_effect = int((counts > 0).sum()), float(perplexity(counts))
    axis.set_title(f"{used} of {len(counts)} codes are in use, {in_effect:.1f} in effect")
    return figure


def edits(model: VQVAE, codes: Tensor, counts: Tensor, most: int = 20) -> Tensor:
    """An image, and the same with the code in the middle replaced by the most frequent in turn."""
    _, h, w = codes.shape
    frequent = counts.argsort(descending=True)[: most - 1].to(codes.device)
    changed = codes.repeat(1 + len(frequent), 1, 1)
    changed[1:, h // 2, w // 2] = frequent
    return model.decode(changed)


def patch_scores(model: VQVAE, x: Tensor, again: Tensor, scale: int):
    """Images and reconstructions, each above the critic's heights of its patches.

    Red patches look made, blue ones real; white is the middle of all of them.
    """
    import torch

    from generative.training.pictures import strips

    heights = [model.patch_heights(part) for part in (x, again)]
    middle = torch.cat(heights).median()
    most = (torch.cat(heights) - middle).abs().max().clamp_min(1e-6)
    rows = []
    for part, found in zip((x, again), heights, strict=True):
        red = ((middle - found) / most).clamp(0, 1)
        blue = ((found - middle) / most).clamp(0, 1)
        colour = torch.stack([1 - blue, 1 - (red + blue), 1 - red], 1)
        raised = torch.nn.functional.interpolate(colour, size=x.shape[2:], mode="bilinear")
        rows += [as_colour(part), raised]
    labels = ("test images", "what the critic says", "reconstructions", "what the critic says")
    return strips(*rows, scale=scale, labels=labels)


def attention(model: VQVAE, x: Tensor) -> Tensor:
    """An image, and where each patch looks in the last block, mean over heads, as grey images.

    They are in reading order of the patches; white is the strongest of a patch.
    """
    import torch

    maps: list[Tensor] = []
    cast("Any", model.encoder)(x, maps)
    weights = maps[-1][0].mean(0)  # (T, T)
    weights = (weights / weights.amax(1, keepdim=True)).unflatten(1, model.grid)[:, None]
    grey = torch.nn.functional.interpolate(weights, size=x.shape[2:], mode="nearest")
    return torch.cat([as_colour(x), as_colour(grey)])


# ---------------------------------------------------------------------------------------------
# Priors
# ---------------------------------------------------------------------------------------------


def explore_prior(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures of what a prior draws; returns its nats, and scores of samples and of even codes."""
    import torch

    from generative.codes import VQVAE, uniform_codes
    from generative.training.pictures import strips
    from scripts.train_code_prior import nats

    if subject.run is None:
        raise ValueError(
            f"{subject.folder} holds a prior, and not the model whose codes it draws; pass the "
            "folder of the run of train_code_prior"
        )
    prior, n, generator = subject.model, settings.num_images, subject.generator()
    autoencoder = VQVAE.from_pretrained(subject.run / "autoencoder", subject.device)
    images = subject.images(autoencoder.image_shape, max_images=settings.max_images)
    test, scale = images.part("test"), scale_to(64, autoencoder.image_shape)
    x = test.thin(n).as_tensor(device=subject.device)
    drawn = autoencoder.decode(prior.sample(len(x), generator))
    even = uniform_codes(len(x), prior.grid, prior.num_codes, torch.Generator().manual_seed(1))
    uniform = autoencoder.decode(even.to(subject.device))
    labels = ("test images", "samples of the prior", "evenly chosen codes")
    subject.save("priors", strips(x, drawn, uniform, scale=scale, labels=labels))
    with torch.no_grad():
        codes = autoencoder.encode(x)
    subject.save("completion", completions(prior, autoencoder, x, codes, generator, scale))
    if prior.num_classes:
        asked = torch.arange(prior.num_classes, device=subject.device).repeat_interleave(n)
        of_class = autoencoder.decode(prior.sample(len(asked), generator, labels=asked))
        names = [f"class {i}" for i in range(prior.num_classes)]
        subject.save("classes", strips(*of_class.split(n), scale=scale, labels=names))
    if prior.saved_name == "GPTPrior" and autoencoder.any_size:
        subject.save("larger", larger(prior, autoencoder, generator, scale))
    found = {"test_nll": nats(prior, all_codes(autoencoder, test.thin(1000)))}
    if subject.data in get_args(ImageData):
        data = cast("ImageData", subject.data)
        for name, part in (("sample", drawn), ("uniform", uniform)):
            found |= {f"{name}_{what}": v for what, v in sample_scores(part.cpu(), data).items()}
    return found


def completions(
    prior: PixelCNNPrior | GPTPrior,
    autoencoder: VQVAE,
    x: Tensor,
    codes: Tensor,
    generator: Any,
    scale: int,
):
    """Images, what is kept of them (the lower half is grey), and two ways to go on."""
    from generative.training.pictures import strips

    rows = (prior.grid[0] + 1) // 2
    kept = x.clone()
    kept[:, :, x.shape[2] * rows // prior.grid[0] :] = 0.5
    done = [autoencoder.decode(prior.complete(codes, rows, generator)) for _ in range(2)]
    labels = ("test images", "what is kept", "one way to go on", "another")
    return strips(x, kept, *done, scale=scale, labels=labels)


def larger(prior: GPTPrior, autoencoder: VQVAE, generator: Any, scale: int):
    """Four images of twice the height and width, drawn by the window that slides over the grid."""
    from generative.training.pictures import image_grid

    rows, columns = prior.grid
    codes = prior.sample(4, generator, grid=(2 * rows, 2 * columns))
    return image_grid(autoencoder.decode(codes), columns=4, scale=max(1, scale // 2))
