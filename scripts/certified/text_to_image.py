"""Text-to-image diffusion against the best denoiser, and its pictures read by a detector; what
edges add to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def glide_scenes(settings: Settings) -> list[Line]:
    """Scenes of the micro-world: how much of what a caption tells is recovered, and whether the
    pictures are what it says, beside those of the exact guided denoiser with the same sampler. A
    ControlNet around the same model is told edges, and takes the colours from the caption."""
    import torch

    from generative.known.captioned_scenes import CaptionedScenes
    from generative.text_to_image import TextToImage
    from generative.training.run import read_result
    from scripts import train_text_to_image
    from scripts.common.text_to_image import TOLD_LEVELS, detected, exact_sampler

    args = replace(
        train_text_to_image.PRESETS["scenes"], out=settings.work / "glide", seed=settings.seed
    )
    if settings.smoke:
        small = replace(args.model, steps=2)
        args = replace(args, steps=2, batch_size=4, samples=4, scales=(2.0,), model=small)
    model = TextToImage.from_pretrained(train_text_to_image.main(args))
    result, world = read_result(args.out), CaptionedScenes(args.mix)
    stations = model.diffusion.schedule.steps(model.diffusion.steps)
    exact = exact_sampler(world, stations)
    lines = []
    for level in TOLD_LEVELS:
        distance, told = result[f"excess_told_at_{level:g}"], result[f"told_at_{level:g}"]
        lines.append(
            Line(
                f"squared distance from the best estimate at log SNR {level:g}, as a share of what "
                "the caption takes off the error there",
                distance, told, "what the caption takes off", distance / told, 0.2,
            )
        )  # fmt: skip
    for scale in args.scales:
        generator = torch.Generator().manual_seed(settings.seed)
        found = detected(
            lambda texts, scale=scale, generator=generator: exact(texts, scale, generator),
            world, generator, args.samples,
        )  # fmt: skip
        wrong, best = (1 - result[f"satisfied_at_scale_{scale:g}"], 1 - found.satisfied.share)
        lines.append(
            Line(
                f"pictures that are not what the caption says, scale {scale:g}",
                wrong, best, "exact guided denoiser, same sampler", wrong - best, 0.05,
            )
        )  # fmt: skip
        rejected = result[f"rejected_at_scale_{scale:g}"]
        lines.append(
            Line(f"rejected as no picture of the world, scale {scale:g}", rejected,
                 found.rejected.share, "exact guided denoiser, same sampler", rejected, 0.02)
        )  # fmt: skip
    return [*lines, *_by_edges(args.out, settings)]


def upsampler_scenes(settings: Settings) -> list[Line]:
    """Objects of scenes that are enlarged from cells of 2x2 noisy pixels, beside the share that a
    sampler of the exact posterior reads right."""
    from generative.training.run import read_result
    from scripts import train_text_to_image

    args = replace(train_text_to_image.PRESETS["upsampler"], out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=2, batch_size=4, samples=4, noises=(0.1,))
    train_text_to_image.main(args)
    result, lines = read_result(args.out), []
    for noise in args.noises:
        right, possible = (result[f"{what}_at_noise_{noise:g}"] for what in ("right", "possible"))
        lines.append(
            Line(
                f"objects read right after they were enlarged by 4, noise {noise:g}, distance from "
                "the best",
                right, possible, "samples of the exact posterior", abs(right - possible), 0.05,
            )
        )  # fmt: skip
    return lines


def _by_edges(base: Path, settings: Settings) -> list[Line]:
    """Scenes that are drawn by their edges, with colours by their captions."""
    from generative.training.run import read_result
    from scripts import train_controlnet

    args = replace(
        train_controlnet.PRESETS["scenes"], base=base, out=settings.work / "controlnet",
        seed=settings.seed,
    )  # fmt: skip
    if settings.smoke:
        args = replace(args, steps=2, batch_size=4, samples=4)
    train_controlnet.main(args)
    result = read_result(args.out)
    edges, colours = 1 - result["edges_followed"], 1 - result["colours_followed"]
    without = 1 - result["edges_followed_without"]
    return [
        Line("scenes whose shapes and places are not those of the edges", edges, 0.0, "none",
             edges, 0.01),
        Line("those whose colours are not what the caption says either", colours, edges,
             "wrong edges", colours - edges, 0.05),
        Line("scenes that are those of the edges where these are not told", 1 - without, None, "",
             1 - without, 0.5),
    ]  # fmt: skip


CERTIFICATES = {
    "glide-scenes": Certificate("GLIDE, ControlNet", glide_scenes),
    "upsampler-scenes": Certificate("Upsampler", upsampler_scenes),
}
