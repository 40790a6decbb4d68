"""Text-to-image diffusion against the best denoiser, and its pictures read by a detector."""

from __future__ import annotations

from dataclasses import replace

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def glide_scenes(settings: Settings) -> list[Line]:
    """Scenes of the micro-world: how much of what a caption tells is recovered, and whether the
    pictures are what it says, beside those of the exact guided denoiser with the same sampler."""
    import torch

    from generative.known.captioned_scenes import CaptionedScenes
    from generative.text_to_image import TextToImage
    from generative.training.run import read_result
    from scripts import train_text_to_image
    from scripts.common.text_to_image import detected, exact_sampler

    args = replace(train_text_to_image.PRESETS["scenes"], out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=2, batch_size=4, samples=4, scales=(2.0,))
    model = TextToImage.from_pretrained(train_text_to_image.main(args))
    result, world = read_result(args.out), CaptionedScenes(args.mix)
    stations = model.diffusion.schedule.steps(model.diffusion.steps)
    exact = exact_sampler(world, stations)
    excess = result["excess"]
    lines = [
        Line(
            "squared distance from the best estimate at log SNR -6 to -2, share of what the "
            "caption takes off the error",
            excess, 0.0, "exact posterior mean", excess, 0.2,
        )
    ]  # fmt: skip
    for scale in args.scales:
        generator = torch.Generator().manual_seed(settings.seed)
        found = detected(
            lambda texts, scale=scale, generator=generator: exact(texts, scale, generator),
            world, generator, args.samples,
        )  # fmt: skip
        wrong, best = (1 - result[f"satisfied_at_scale_{scale:g}"], 1 - found.satisfied.share)
        lines.append(
            Line(
                f"pictures that are not what the caption says, scale {scale:g} (rejected as no "
                f"picture of the world: {result[f'rejected_at_scale_{scale:g}']:.3f})",
                wrong, best, "exact guided denoiser, same sampler", wrong - best, 0.1,
            )
        )  # fmt: skip
    return lines


CERTIFICATES = {"glide-scenes": Certificate("Text to image", glide_scenes)}
