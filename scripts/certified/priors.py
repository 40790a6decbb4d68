"""Priors of DALL.E 2: errors at noise levels, nats of buckets, and samples, of a Gaussian pair and
of the embeddings of a CLIP, where the posterior is known by listing what fits a caption."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scripts.certified.common import Certificate, Line, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from generative.known.listed_posterior import ListedCaptions

__all__ = ["CERTIFICATES"]

LEVELS = (-6.0, -4.0, -2.0, -1.0, 0.0)
"""log SNR at which errors of embeddings of scenes are told. Above, the noise hides hardly anything:
the least error falls to 0 where it tells one picture from all others."""
ASKED = (27, 72, 84)
"""Numbers of scenes that fit the captions whose samples are compared."""


def diffusion_pair(settings: Settings) -> list[Line]:
    """Errors beside the least ones with the text and without, and samples beside the posterior."""
    found = _trained(settings, "pair")
    lines = []
    for level in ("-6", "-3", "0", "2"):
        for name, words in (("", "given the text"), ("alone_", "without it")):
            mse, floor = found[f"{name}mse_{level}"], found[f"{name}floor_{level}"]
            what = f"squared error at log SNR {level} {words}, gap as a share"
            lines.append(Line(what, mse, floor, "exact posterior", mse / floor - 1, 0.05))
    return [*lines, _samples(found)]


def bucket_pair(settings: Settings) -> list[Line]:
    """Nats of the buckets of new pairs beside their entropy, and samples."""
    found = _trained(settings, "pair-buckets")
    nll, floor = found["test_nll"], found["floor"]
    what = "nats of eight components in 32 buckets, gap as a share"
    return [Line(what, nll, floor, "exact masses", nll / floor - 1, 0.02), _samples(found)]


def clip_prior_scenes(settings: Settings) -> list[Line]:
    """Embeddings of scenes by the CLIP of scenes, given those of captions that 9 to 126 scenes fit.

    The posterior is even over the embeddings of the scenes that fit a caption, so the least error
    at a noise level is known, and what the error exceeds it by is the squared distance of the two
    estimates. (Where one scene fits, the least error is 0.) The CLIP is that of clip-scenes. All
    captions and scenes are embedded once: a step draws from these tables.
    """
    import torch

    from generative.known.captioned_scenes import CaptionedScenes
    from generative.known.config import CaptionMix
    from generative.known.listed_posterior import ListedCaptions
    from generative.known.two_samples import energy_test
    from scripts import train_clip

    mix = CaptionMix(one=1, one_placed=0, two=2, two_placed=0, relation=2, count=2)
    clip = replace(train_clip.PRESETS["scenes"], out=settings.work / "clip", seed=settings.seed)
    n, draws = 2000, 500
    if settings.smoke:
        clip = replace(clip, steps=2, batch_size=8)
        mix, n, draws = CaptionMix(1, 0, 0, 0, 0, 0), 20, 20
    train_clip.main(clip)
    world = ListedCaptions(CaptionedScenes(mix))
    images, texts = _embedded(world, clip.out)
    model = _listed_prior(world, images, texts, clip.out, settings)

    generator = torch.Generator().manual_seed(settings.seed)
    which, picture = world.draw(n, generator)
    exact, z = world.posterior(which, model.scale * images), model.scale * images[picture]
    lines, numbers = [], model.scale**2 * images.shape[1]
    for level in LEVELS:
        log_snr = torch.full((n,), level)
        signal, rate = log_snr.sigmoid().sqrt()[:, None], (-log_snr).sigmoid().sqrt()[:, None]
        x = signal * z + rate * torch.randn(z.shape, generator=generator)
        with torch.no_grad():
            away = model.denoise(x, log_snr, texts[which]) - exact.denoise(x, log_snr)
        floor = float(exact.variance(x, log_snr).mean()) / numbers
        excess = float(away.square().sum(1).mean()) / numbers
        what = f"squared error at log SNR {level:g} given the caption, gap as a share"
        lines.append(Line(what, floor + excess, floor, "listed posterior", excess / floor, 0.05))
    counts = (world.rows >= 0).sum(1)
    for number in ASKED:
        found = (counts == number).nonzero()[:1, 0]
        if not len(found):
            continue
        asked = found.expand(draws)
        drawn = model.sample(texts[asked], generator=generator)
        p = energy_test(drawn, world.posterior(asked, images).draw(generator)).p_value
        lines.append(
            Line(
                f'samples for "{world.captions[int(found)]}", and as many of the {number} '
                "embeddings: share of random relabellings with a smaller energy distance",
                1 - p, None, "any share is as likely, were they alike", 1 - p, 0.99,
            )
        )  # fmt: skip
    return lines


def _embedded(world: ListedCaptions, run: Path) -> tuple[Tensor, Tensor]:
    """Embeddings of all pictures (N, D) and captions (C, D) by the CLIP of a run."""
    import torch

    from generative.clip import CLIP
    from scripts.common.clip import embed_captions, embed_images, load_vocabulary

    model = CLIP.from_pretrained(run / "model")
    parts = torch.arange(len(world.cells)).split(1000)
    images = torch.cat([embed_images(model, world.pictures(part)) for part in parts])
    return images, embed_captions(model, load_vocabulary(run, run), world.captions)


def _listed_prior(
    world: ListedCaptions, images: Tensor, texts: Tensor, clip: Path, settings: Settings
) -> Any:
    """Train a diffusion prior on pairs of a world, given by the embeddings of a CLIP."""
    import torch

    from generative.nets.config import gpt2_block
    from generative.priors import DiffusionPrior, PriorBatch, PriorLearner
    from generative.priors.config import DiffusionPriorConfig, PriorLossConfig
    from generative.training.loop import fit
    from generative.training.run import Run
    from scripts import train_prior

    dim = images.shape[1]
    args = train_prior.Args(
        out=settings.work / "prior",
        data="clip",
        clip=clip,
        model=DiffusionPriorConfig(dim, dim, num_layers=6, block=gpt2_block(128, 4, dropout=0.0)),
        loss=PriorLossConfig(optimizer="muon", lr=5e-3, warmup=50, ema=0.995, weighting="velocity"),
        steps=3 if settings.smoke else 6000,
        batch_size=8 if settings.smoke else 256,
        seed=settings.seed,
    )
    with Run.open(args, kind="train_prior of listed captions") as run:
        if not run.done:
            torch.manual_seed(run.seed_for("weights"))
            learner = PriorLearner(args.model.build(), args.loss, args.steps)

            def batch(step: int) -> PriorBatch:
                generator = torch.Generator().manual_seed(run.seed_for("batch", step))
                which, picture = world.draw(args.batch_size, generator)
                return PriorBatch(images[picture], texts[which])

            fit(
                learner, batch, run, args.steps,
                log_every=args.log_every, what="training the prior",
            )  # fmt: skip
            learner.kept.eval().save_pretrained(run.path / "model")
            run.finish(run.metrics.last())
    return DiffusionPrior.from_pretrained(args.out / "model")


def _trained(settings: Settings, preset: str) -> dict[str, float]:
    """Result of a preset of train_prior."""
    from generative.training.run import read_result
    from scripts import train_prior

    args = replace(train_prior.PRESETS[preset], out=settings.work / preset, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3, batch_size=8, fit_on=100, samples=20)
    train_prior.main(args)
    return read_result(args.out)


def _samples(found: dict[str, float]) -> Line:
    closer = 1 - found["energy_p"]
    return Line(
        "samples less their exact mean, and as many true ones: share of random relabellings with a "
        "smaller energy distance",
        closer, None, "any share is as likely, were they alike", closer, 0.95,
    )  # fmt: skip


CERTIFICATES = {
    "diffusion-prior-pair": Certificate("Diffusion prior", diffusion_pair, 13),
    "clip-prior-scenes": Certificate("Diffusion prior of CLIP", clip_prior_scenes, 13),
    "autoregressive-prior-pair": Certificate("Autoregressive prior", bucket_pair, 13),
}
