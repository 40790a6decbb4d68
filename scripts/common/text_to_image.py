"""Batches and measures of models that draw what a text says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

    from generative.clip import CLIP
    from generative.diffusion.samplers import Denoiser
    from generative.known.captioned_scenes import CaptionedScenes
    from generative.known.scene_scores import Accuracy
    from generative.text_to_image import DallE2, TextToImage, Upsampler
    from generative.training.run import Run
    from scripts.common.captions import Pairs

__all__ = [
    "LEVELS",
    "Answers",
    "Seen",
    "TextBatches",
    "answers_by_rank",
    "detected",
    "embeddings_of",
    "exact_denoiser",
    "exact_of",
    "exact_sampler",
    "exact_sampler_of",
    "kept",
    "level_scores",
    "rank_distance",
    "load_clip",
    "load_dalle2",
    "scene_gaps",
    "told_levels",
    "upsampled",
    "varied",
]

Seen = Callable[["Tensor"], dict[str, Any]]
"""Images (B, C, H, W) -> what a model is told of them besides their texts."""

Sampler = Callable[[Sequence[str], float, "Generator"], "Tensor"]
"""(captions, scale of guidance, generator) -> images in [0, 1]."""

LEVELS = (-8.0, -6.0, -5.0, -4.0, -3.0, -2.0, 0.0, 4.0)
"""Log signal-to-noise ratios at which errors are told."""
TOLD_LEVELS = (-6.0, -5.0, -4.0, -3.0, -2.0)
"""Those at which a caption of the micro-world tells something that the picture does not."""
LATENT_TOLD_LEVELS = (-5.0, -4.0, -3.0, -2.0, -1.0)
"""The same of latents, where a cell has a few numbers and not 192: noise hides it later."""


class TextBatches:
    """Images, tokens and what else is told of a step, from the run's seed and the step alone, so a
    killed run goes on alike.

    Args:
        pairs: to draw from.
        model: whose tokens are needed.
        run: whose seed and device are used.
        batch_size: pairs of a step.
        seen: what the model is told of the images.
    """

    def __init__(self, pairs: Pairs, model: TextToImage, run: Run, batch_size: int, seen: Seen):
        self.pairs, self.model, self.run = pairs, model, run
        self.batch_size, self.seen = batch_size, seen

    def __call__(self, step: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Images (B, C, H, W), tokens (B, L) and the rest, on the run's device."""
        import torch

        generator = torch.Generator().manual_seed(self.run.seed_for("batch", step))
        x, texts, _ = self.pairs.draw(self.batch_size, generator)
        x = x.to(self.run.device)
        return x, self.model.tokens(texts), self.seen(x)


def load_clip(
    folder: Path, image_shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> CLIP:
    """The CLIP of a run, for a decoder of such images (C, H, W).

    Raises:
        FileNotFoundError: there is no such run; says what makes one.
        ValueError: it holds another model, or one of other images.
    """
    from generative.clip import CLIP
    from generative.loading import load_model
    from generative.training.words import made_by

    clip = load_model(folder, device, advice=made_by("--clip", "train_clip"))
    if not isinstance(clip, CLIP):
        raise ValueError(
            f"{folder} holds a {type(clip).__name__}; pass --clip with a run of train_clip"
        )
    if tuple(clip.image_shape) != tuple(image_shape):
        raise ValueError(
            f"{folder} has embeddings of images {tuple(clip.image_shape)}, the decoder draws "
            f"{tuple(image_shape)}; change --model.image-shape, or train another CLIP"
        )
    return clip


def embeddings_of(clip: CLIP) -> Seen:
    """Tell a decoder the embeddings of images."""
    import torch

    @torch.no_grad()
    def seen(images: Tensor) -> dict[str, Any]:
        return {"embedding": clip.encode_image(images)}

    return seen


def load_dalle2(
    clip: Path | None, prior: Path, decoder: Path, device: torch.device | str = "cpu"
) -> DallE2:
    """DALL.E 2 of three runs: of train_clip, train_prior and train_text_to_image.

    Args:
        clip: None for the one that the decoder's run names.
    Raises:
        FileNotFoundError: there is no such run, or no CLIP is told.
        ValueError: a run holds another model, or they are not of the same CLIP.
    """
    from generative.data.caption_tokens import CaptionTokeniser
    from generative.loading import load_model
    from generative.priors import AutoregressivePrior, DiffusionPrior
    from generative.text_to_image import DallE2, ImageDecoder
    from scripts.common.captions import VOCABULARY

    drawing, guessing = load_model(decoder, device), load_model(prior, device)
    if not isinstance(drawing, ImageDecoder):
        raise ValueError(
            f"{decoder} holds a {type(drawing).__name__}; pass --decoder with a run of "
            "`train_text_to_image decoder`"
        )
    if not isinstance(guessing, DiffusionPrior | AutoregressivePrior):
        raise ValueError(
            f"{prior} holds a {type(guessing).__name__}; pass --prior with a run of "
            "`train_prior clip` or `train_prior clip-buckets`"
        )
    told = clip_of(prior), clip_of(decoder)
    if None not in told and told[0] != told[1]:
        raise ValueError(
            f"{prior} is of the embeddings of {told[0]}, and {decoder} of those of {told[1]}; "
            "numbers of two CLIPs mean different things: train both with the same --clip"
        )
    folder = clip or told[1] or told[0]
    if folder is None:
        raise FileNotFoundError(
            f"no run tells which CLIP {decoder} was trained with; pass --clip with that run"
        )
    seeing = load_clip(folder, drawing.diffusion.shape, device)
    return DallE2(seeing, guessing, drawing, CaptionTokeniser.load(folder / VOCABULARY))


def clip_of(run: Path) -> Path | None:
    """The CLIP of whose embeddings a run is; None where nothing tells it."""
    from generative.training.run import CONFIG_NAME, read_config

    # The config.json of a model that stands alone is not that of a run.
    if not (run / CONFIG_NAME).is_file() or not (run / "model").is_dir():
        return None
    clip = read_config(run)[1].get("clip")
    return Path(str(clip)).resolve() if clip else None


def level_scores(
    model: TextToImage, pairs: Pairs, generator: Generator, seen: Seen, n: int = 256
) -> dict[str, float]:
    """Errors of the data at `LEVELS`, with the texts and without, by name of the level.

    What else is told of the images is told both times.
    """
    from generative.diffusion import level_losses

    x, texts, _ = pairs.draw(n, generator)
    x = x.to(model.device)
    examples, more, found = model.space(x), seen(x), {}
    for name, given in (("told", texts), ("untold", n)):
        for level in level_losses(model.denoiser(given, 1.0, **more), examples, LEVELS):
            found[f"mse_{name}_at_{level.log_snr:g}"] = level.data
    return found


# ---------------------------------------------------------------------------------------------
# Of the micro-world
# ---------------------------------------------------------------------------------------------


def exact_denoiser(world: CaptionedScenes, device: str = "cpu") -> Callable[..., Denoiser]:
    """The best denoiser of the pictures of a world: captions -> denoiser, "" for no caption.

    Pictures have values from -1 to 1, as a model has them that was not told their mean.
    """
    from generative.known.scene_denoiser import SceneDenoiser

    exact = SceneDenoiser(*world.pictures(), border=world.border).to(device)
    return exact.given


def exact_of(model: TextToImage, world: CaptionedScenes) -> Callable[..., Denoiser]:
    """The best denoiser of what a model noises: pictures, or the latents of its autoencoder.

    Of latents there is a list as well, of all pictures: their means, which do not vary.
    """
    if model.autoencoder is None:
        return exact_denoiser(world, str(model.device))
    from functools import cache

    import torch

    from generative.diffusion.exact import ListDenoiser
    from generative.known.captions import fits
    from generative.known.scene_denoiser import by_caption
    from generative.known.scenes import draw

    cells, log_weights = world.pictures()
    parts = [draw(part, world.border).to(model.device) for part in cells.split(500)]
    latents = torch.cat([model.space(part) for part in parts])

    @cache
    def told(caption: str) -> Denoiser:
        if not caption:
            return ListDenoiser(latents, log_weights.to(model.device))
        rows = fits(caption, cells).to(model.device)
        return ListDenoiser(latents[rows], torch.zeros(int(rows.sum())).log_softmax(0).to(latents))

    return lambda captions: by_caption(captions, told)


def exact_sampler(
    world: CaptionedScenes, stations: Sequence[float], device: str = "cpu"
) -> Sampler:
    """Draw by the exact guided denoiser of pictures with DDIM, clipped.

    Args:
        stations: of the steps, from noise to data.
    """
    from functools import partial

    from generative.diffusion import clip_data

    given, clip = exact_denoiser(world, device), partial(clip_data, low=-1.0, high=1.0)
    return _sampler(given, world.image_shape, stations, clip, lambda x: (x + 1) / 2, device)


def exact_sampler_of(model: TextToImage, world: CaptionedScenes) -> Sampler:
    """Draw by the exact guided denoiser of what a model noises, with the model's sampler.

    Latents become pictures by the model's autoencoder.
    """
    diffusion = model.diffusion
    stations, clip = diffusion.schedule.steps(diffusion.steps), model.clipping()
    given, device = exact_of(model, world), str(model.device)
    shape, interval = diffusion.shape, model.interval
    return _sampler(given, shape, stations, clip, model.images, device, interval)


def _sampler(given, shape, stations, clip, images, device: str, interval=None) -> Sampler:
    import torch

    from generative.diffusion import denoising_path, guided

    @torch.no_grad()
    def sample(captions: Sequence[str], scale: float, generator: Generator) -> Tensor:
        z = torch.randn(len(captions), *shape, generator=generator, device=device)
        told = given(captions)
        denoise = told
        if scale != 1:
            denoise = guided(told, given([""] * len(captions)), scale, interval)
        *_, last = denoising_path(denoise, z, stations, clip=clip)
        return images(last.x)

    return sample


def scene_gaps(
    model: TextToImage, world: CaptionedScenes, generator: Generator, n: int = 128
) -> dict[str, float]:
    """Distance of a model of scenes from the best estimate, beside the difference a caption makes.

    The error of any estimate is that of the best one plus its mean squared distance from it. At
    each of `told_levels`: `excess_told_at_L` and `excess_untold_at_L`, that distance with the
    caption and without; and `told_at_L`, how much the caption lowers the least error. `excess` is
    the sum of the first over the levels as a share of the sum of the last.
    """
    import torch

    from generative.diffusion import signal_and_noise
    from generative.known.scenes import draw

    device = model.device
    texts, cells = world.draw(n, generator)
    x = model.space(draw(cells, world.border).to(device))
    eps = torch.randn(x.shape, generator=generator).to(device)
    given, found, sums = exact_of(model, world), {}, {"excess": 0.0, "told": 0.0}
    best = {"told": given(texts), "untold": given([""] * n)}
    own = {"told": model.denoiser(texts, 1.0), "untold": model.denoiser(n, 1.0)}
    for level in told_levels(model):
        log_snr = torch.full((n,), level, device=device)
        signal, rate = (part.view(-1, 1, 1, 1) for part in signal_and_noise(log_snr))
        noisy = signal * x + rate * eps
        exact = {name: denoise(noisy, log_snr)[1] for name, denoise in best.items()}
        with torch.no_grad():
            for name, denoise in own.items():
                distance = (denoise(noisy, log_snr)[1] - exact[name]).square().mean()
                found[f"excess_{name}_at_{level:g}"] = float(distance)
        # Both are means over x_t, so that their distance is what the caption takes off the error.
        told = float((exact["told"] - exact["untold"]).square().mean())
        found[f"told_at_{level:g}"] = told
        sums["excess"] += found[f"excess_told_at_{level:g}"]
        sums["told"] += told
    return {**found, "excess": sums["excess"] / sums["told"]}


def told_levels(model: TextToImage) -> tuple[float, ...]:
    """Log signal-to-noise ratios at which a caption tells a model of scenes something."""
    return TOLD_LEVELS if model.autoencoder is None else LATENT_TOLD_LEVELS


def detected(
    sample: Callable[[Sequence[str]], Tensor], world: CaptionedScenes, generator: Generator, n: int
) -> Accuracy:
    """Draw for n captions of a world, 100 at a time, and read whether the pictures fit them."""
    import torch

    from generative.known.scene_scores import accuracy

    texts, _ = world.draw(n, generator)
    images = torch.cat([sample(texts[first : first + 100]) for first in range(0, n, 100)])
    return accuracy(images.cpu(), texts, world.border)


def upsampled(
    model: Upsampler,
    world: CaptionedScenes,
    noises: Sequence[float],
    generator: Generator,
    n: int,
) -> dict[str, float]:
    """Enlarge small scenes of two objects without a text, and read what became of their objects.

    Only objects of the world are drawn, as nobody could tell of one that was never shown.

    For each standard deviation of the noise: `right_at_noise_N`, the share of objects that are read
    as they were; `possible_at_noise_N`, the share that the best sampler would have, which draws
    objects by their probability given the small cell; and `rejected_at_noise_N`.
    """
    import torch

    from generative.known import scenes
    from generative.known.scene_denoiser import cell_posterior

    cells = _scenes_of_two(world, generator, n)
    things = cells != scenes.EMPTY
    drawn, found = torch.Generator(model.device).manual_seed(0), {}
    for noise in noises:
        images, tiles = _enlarged(model, world, cells, noise, generator, drawn)
        read = scenes.read(images, world.border).cells
        found[f"right_at_noise_{noise:g}"] = float((read == cells)[things].float().mean())
        found[f"rejected_at_noise_{noise:g}"] = 1 - float(
            scenes.valid(images, world.border).float().mean()
        )
        # A sampler that draws by p is right with probability sum p^2 in the mean.
        p = cell_posterior(tiles[things], max(noise, 1e-3), world.objects).probability
        found[f"possible_at_noise_{noise:g}"] = float(p.square().sum(1).mean())
    return found


class Answers(NamedTuple):
    """Distance of answers from the exact posterior."""

    distance: float
    """Total variation, from 0 to 1."""
    of_exact: float
    """The same of as many draws of the posterior itself, which chance alone keeps from 0."""


def answers_by_rank(
    model: Upsampler, world: CaptionedScenes, noise: float, generator: Generator, n: int
) -> Answers:
    """Total variation between what enlarged objects are read as and the exact posterior.

    Given a noisy small picture y, what a cell holds has a posterior p(. | y) over the 24 objects
    and the empty cell, by all scenes of the world with their probabilities. Each has a rank k by
    it, 1 for the likeliest, and the answer r(y) is read in the enlarged cell. With p_k(y) the
    probability of rank k, and means over all cells of objects,

        TV = 1/2 sum_k | mean 1[rank of r(y) is k] - mean p_k(y) |

    It is 0 where answers are draws of the posterior of their own pictures, and 1 - mean p_1 where
    they are always the likeliest object. Objects by name would need 24 x 24 shares, of which chance
    alone moves the sum by more than the distances that matter; ranks need a few, as few objects
    are likely for any one cell. As of any pooling, it is at most the mean over cells of the total
    variation in each.

    Args:
        noise: standard deviation of the noise of small pictures in [0, 1].
        generator: of the scenes and the noise.
        n: scenes of two objects, thus two cells each.
    """
    import torch

    from generative.known import scenes
    from generative.known.scene_denoiser import small_posterior

    cells, known = _scenes_of_two(world, generator, n), world.pictures()
    things, drawn = cells != scenes.EMPTY, torch.Generator(model.device).manual_seed(0)
    read, p = [], []
    for part in cells.split(200):
        images, tiles = _enlarged(model, world, part, noise, generator, drawn)
        read.append(scenes.read(images, world.border).cells)
        p.append(small_posterior(tiles, max(noise, 1e-3), *known))
    answers, posterior = torch.cat(read)[things], torch.cat(p)[things]
    exact = torch.multinomial(posterior, 1, generator=generator)[:, 0]
    return Answers(*(rank_distance(each, posterior) for each in (answers, exact)))


def rank_distance(answers: Tensor, p: Tensor) -> float:
    """Total variation of answers from their probabilities by rank, see `answers_by_rank`.

    Args:
        answers: int64 (n,), from 0 to K - 1.
        p: probability of each of K answers, (n, K).
    """
    import torch

    ordered, order = p.double().sort(dim=1, descending=True, stable=True)
    rank = (order == answers[:, None]).double().argmax(1)
    shares = torch.bincount(rank, minlength=p.shape[1]).double() / len(p)
    return float((shares - ordered.mean(0)).abs().sum() / 2)


def _scenes_of_two(world: CaptionedScenes, generator: Generator, n: int) -> Tensor:
    """Scenes of two objects of a world, int64 (n, 9)."""
    import torch

    from generative.known import scenes

    cells = scenes.pairs()
    known = torch.cat([world.objects, torch.tensor([True])])  # an empty cell is always known
    cells = cells[known[cells].all(1)]
    return cells[torch.randint(len(cells), (n,), generator=generator)]


def _enlarged(
    model: Upsampler,
    world: CaptionedScenes,
    cells: Tensor,
    noise: float,
    generator: Generator,
    drawn: Generator,
) -> tuple[Tensor, Tensor]:
    """Enlarge small noisy pictures of scenes (n, 9).

    Args:
        generator, drawn: of the noise, and of the samples.
    Returns:
        pictures (n, 3, H, W), and the cells of the small ones, (n, 9, 3, side, side).
    """
    import torch

    from generative.known import scenes
    from generative.text_to_image import shrink

    border, side = world.border, scenes.CELL // model.factor
    low = shrink(scenes.draw(cells, border), model.factor)
    low = low + noise * torch.randn(low.shape, generator=generator)
    images = model.sample(len(cells), drawn, low=low.to(model.device), noise=noise).cpu()
    edge = border // model.factor
    inner = low[..., edge : low.shape[2] - edge, edge : low.shape[3] - edge]
    tiles = inner.unflatten(3, (scenes.SIDE, side)).unflatten(2, (scenes.SIDE, side))
    return images, tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def varied(
    model: TextToImage,
    world: CaptionedScenes,
    seen: Seen,
    scales: Sequence[float],
    generator: Generator,
    n: int,
) -> dict[str, float]:
    """Draw variations of scenes from their image embeddings, without a text.

    For each scale of guidance: `objects_kept_at_scale_S`, the share that has the objects of the
    embedded scene, wherever they stand; `scene_kept_at_scale_S`, the share that is the same scene;
    `rejected_at_scale_S`.
    """
    import torch

    from generative.known.scenes import draw

    _, cells = world.draw(n, generator)
    embedded = seen(draw(cells, world.border).to(model.device))
    drawn, found = torch.Generator(model.device).manual_seed(0), {}
    for scale in scales:
        images = model.sample(n, drawn, scale=scale, **embedded).cpu()
        for name, rows in kept(images, cells, world.border).items():
            found[f"{name}_at_scale_{scale:g}"] = float(rows.float().mean())
    return found


def kept(images: Tensor, cells: Tensor, border: int = 0) -> dict[str, Tensor]:
    """Flags of what pictures (n, 3, H, W) have of scenes that they are variations of, bool (n,).

    `objects_kept`: the objects of the scene, wherever they stand; `scene_kept`: the same scene;
    `rejected`: no picture of the world, whatever its nearest objects are.

    Args:
        cells: of the scenes, int64 (n, 9).
    """
    from generative.known.scenes import read, valid

    again = read(images, border).cells
    return {
        "objects_kept": (again.sort(1).values == cells.sort(1).values).all(1),
        "scene_kept": (again == cells).all(1),
        "rejected": ~valid(images, border),
    }
