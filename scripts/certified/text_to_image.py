"""Text-to-image diffusion against the best denoiser, and its pictures read by a detector; what
edges and palettes add to it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scripts.certified.common import Certificate, Line, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from generative.text_to_image import TextToImage
    from scripts.train_text_to_image import Args

__all__ = ["CERTIFICATES"]


def glide_scenes(settings: Settings) -> list[Line]:
    """Scenes of the micro-world: how much of what a caption tells is recovered, and whether the
    pictures are what it says, beside those of the exact guided denoiser with the same sampler. A
    ControlNet around the same model is told edges, and takes the colours from the caption; one that
    is told a palette takes the shapes from it. Latent diffusion, whose captions the same text
    encoder reads, has less to compute."""
    from generative.training.run import read_result
    from scripts import train_vqvae

    # A share of 2 % has a deviation of 1 % in 200 pictures, and of 0.4 % in 1,000.
    pixels = _args("scenes", settings, out=settings.work / "glide", samples=1000)
    model, right, lines = _drawn(pixels, settings)
    lines += _by_edges(pixels.out, settings)
    lines += _by_palette(pixels.out, settings)

    encoded = replace(
        train_vqvae.PRESETS["scenes"], out=settings.work / "autoencoder", seed=settings.seed
    )
    if settings.smoke:
        small = replace(encoded.model, channels=(4, 8, 8), residual_dim=4, num_blocks=1)
        encoded = replace(encoded, steps=3, batch_size=4, model=small)
    train_vqvae.main(encoded)
    latents = _args(
        "latent", settings, out=settings.work / "latent", autoencoder=encoded.out,
        reader=pixels.out,
    )  # fmt: skip
    latent, right_of_latents, more = _drawn(latents, settings, "latent diffusion: ")
    lines += more
    scale = pixels.scales[min(1, len(pixels.scales) - 1)]
    fall = right[scale] - right_of_latents[scale]
    lost = 1 - read_result(encoded.out)["test_objects_read"]
    share = multiply_adds(latent) / multiply_adds(model)
    return [
        *lines,
        Line(
            f"latent diffusion: pictures that are what the caption says, scale {scale:g}, and how "
            "much less that is than of pixels",
            right_of_latents[scale], right[scale], "GLIDE above", fall, 0.03,
        ),
        Line(
            "latent diffusion: objects that its autoencoder loses, which no latents bring back",
            lost, 0.0, "none", lost, 0.05,
        ),
        Line(
            "latent diffusion: multiply-adds of its U-Net, as a share of those of pixels",
            share, None, "", share, 0.25,
        ),
    ]  # fmt: skip


def imagen_scenes(settings: Settings) -> list[Line]:
    """The same of a U-Net that is told what the encoder of a T5 reads, which saw captions alone."""
    from scripts import train_caption_reader

    read = replace(
        train_caption_reader.PRESETS["scenes"], out=settings.work / "reader", seed=settings.seed
    )
    if settings.smoke:
        read = replace(read, steps=2, batch_size=4)
    train_caption_reader.main(read)
    args = _args("imagen", settings, out=settings.work / "imagen", reader=read.out)
    return _drawn(args, settings)[2]


def multiply_adds(model: TextToImage) -> int:
    """Multiply-adds of one estimate of one picture by the U-Net of a model, text included."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    x, level = torch.zeros(1, *model.diffusion.shape), torch.zeros(1)
    told = model.told(model.tokens(["a red square left of a blue disc"]))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.diffusion.guided(told)(x, level)
    return counter.get_total_flops() // 2


def _args(preset: str, settings: Settings, **changes: Any) -> Args:
    """A preset of train_text_to_image with its runs in the folder of the certificate."""
    from scripts import train_text_to_image

    args = replace(train_text_to_image.PRESETS[preset], seed=settings.seed, **changes)
    if settings.smoke:
        small = replace(args.model, steps=2)
        args = replace(args, steps=2, batch_size=4, samples=4, scales=(2.0,), model=small)
    return args


def _drawn(
    args: Args, settings: Settings, what: str = ""
) -> tuple[TextToImage, dict[float, float], list[Line]]:
    """Train a model of scenes.

    Returns:
        it, the share of its pictures that fit their captions for each scale of guidance, and the
        lines that tell how far it is from the exact denoiser.
    """
    import torch

    from generative.known.captioned_scenes import CaptionedScenes
    from generative.text_to_image import TextToImage
    from generative.training.run import read_result
    from scripts import train_text_to_image
    from scripts.common.text_to_image import detected, exact_sampler_of, told_levels

    model = TextToImage.from_pretrained(train_text_to_image.main(args))
    result, world = read_result(args.out), CaptionedScenes(args.mix)
    lines = []
    for level in told_levels(model):
        distance, told = result[f"excess_told_at_{level:g}"], result[f"told_at_{level:g}"]
        lines.append(
            Line(
                f"{what}squared distance from the best estimate at log SNR {level:g}, as a share "
                "of what the caption takes off the error there",
                distance, told, "what the caption takes off", distance / told, 0.2,
            )
        )  # fmt: skip
    exact, right = exact_sampler_of(model, world), {}
    for scale in args.scales:
        generator = torch.Generator().manual_seed(settings.seed)
        found = detected(
            lambda texts, scale=scale, generator=generator: exact(texts, scale, generator),
            world, generator, args.samples,
        )  # fmt: skip
        right[scale] = result[f"satisfied_at_scale_{scale:g}"]
        wrong, best = 1 - right[scale], 1 - found.satisfied.share
        lines.append(
            Line(
                f"{what}pictures that are not what the caption says, scale {scale:g}",
                wrong, best, "exact guided denoiser, same sampler", wrong - best, 0.05,
            )
        )  # fmt: skip
        rejected = result[f"rejected_at_scale_{scale:g}"]
        lines.append(
            Line(f"{what}rejected as no picture of the world, scale {scale:g}", rejected,
                 found.rejected.share, "exact guided denoiser, same sampler", rejected, 0.02)
        )  # fmt: skip
    return model, right, lines


def upsampler_scenes(settings: Settings) -> list[Line]:
    """Objects of scenes that are enlarged from cells of 2x2 noisy pixels, beside the share that a
    sampler of the exact posterior reads right.

    The shares of all answers are compared with the posterior too, by
    `scripts.common.text_to_image.answers_by_rank`: of 2,000 cells, where chance moves them by a
    quarter of the bar.
    """
    import torch

    from generative.known.captioned_scenes import CaptionedScenes
    from generative.loading import load_model
    from generative.training.run import read_result
    from scripts import train_text_to_image
    from scripts.common.text_to_image import answers_by_rank

    args = replace(train_text_to_image.PRESETS["upsampler"], out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=2, batch_size=4, samples=4, noises=(0.1,))
    model: Any = load_model(train_text_to_image.main(args))
    world, generator = CaptionedScenes(args.mix, args.scenes), torch.Generator()
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
        generator.manual_seed(settings.seed)
        found = answers_by_rank(model, world, noise, generator, 4 if settings.smoke else 1000)
        lines.append(
            Line(
                f"total variation between answers and the exact posterior by rank, noise {noise:g}",
                found.distance, found.of_exact, "as many draws of it", found.distance, 0.05,
            )
        )  # fmt: skip
    return lines


def _by_edges(base: Path, settings: Settings) -> list[Line]:
    """Scenes that are drawn by their edges, with colours by their captions."""
    result = _controlled("scenes", base, settings.work / "controlnet", settings)
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


def _by_palette(base: Path, settings: Settings) -> list[Line]:
    """Scenes that are drawn by the colours of their cells, with shapes by their captions."""
    result = _controlled("scenes-palette", base, settings.work / "controlnet-palette", settings)
    palette, shapes = 1 - result["palette_followed"], 1 - result["shapes_followed"]
    without = result["palette_followed_without"]
    return [
        Line("scenes whose colours and places are not those of the palette", palette, 0.0, "none",
             palette, 0.01),
        Line("those whose shapes are not what the caption says either", shapes, palette,
             "wrong palette", shapes, 0.05),
        Line("scenes that are those of the palette where it is not told", without, None, "",
             without, 0.5),
    ]  # fmt: skip


def _controlled(preset: str, base: Path, out: Path, settings: Settings) -> dict[str, float]:
    """Train a ControlNet around the model of a run; returns the result."""
    from generative.training.run import read_result
    from scripts import train_controlnet

    args = replace(train_controlnet.PRESETS[preset], base=base, out=out, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=2, batch_size=4, samples=4)
    train_controlnet.main(args)
    return read_result(args.out)


CERTIFICATES = {
    "glide-scenes": Certificate("GLIDE, ControlNet, latent diffusion", glide_scenes, 13),
    "imagen-scenes": Certificate("Imagen", imagen_scenes, 13),
    "upsampler-scenes": Certificate("Upsampler", upsampler_scenes, 13),
}
