"""A trained text-to-image model: prompts, how a picture comes about, guidance, filling in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from generative.training.ranges import Checked, Count, Probability
from generative.training.streams import tell
from scripts.common.captions import CaptionData
from scripts.explored.common import Subject, scale_to

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from scripts.common.text_to_image import Seen

CLASSES = (
    "GLIDE", "Imagen", "ImageDecoder", "LatentDiffusion", "Upsampler", "ControlNet",
    "KLAutoencoder",
)  # fmt: skip
WALK = 7
"""Pictures of a walk, its ends included."""


@dataclass(frozen=True)
class Settings(Checked):
    """Text-to-image models."""

    prompts: tuple[str, ...] = ()
    """Captions to draw; those of test images if none is given."""
    images: Count = 6
    """Images of a prompt, and stages of a strip."""
    scales: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 8.0)
    """Scales of guidance that are compared."""
    steps: tuple[Count, ...] = (2, 5, 10, 30, 100)
    """Numbers of steps that are compared."""
    strengths: tuple[Probability, ...] = (0.3, 0.6, 0.9)
    """Strengths with which pictures are drawn over."""
    eta: Probability = 0.0
    """Noise of a step: 0 for DDIM, 1 for DDPM."""
    clip: Path | None = None
    """Decoder: run of train_clip whose embeddings it is told; if not given, as in the run's
    settings."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures of a text-to-image model.

    A grid of samples for each prompt, and the first of each in a row; the way from noise, above the
    estimate of the picture at each step; the same noise with more and more guidance, and in few and
    many steps; pictures whose middle is filled in by another text, and pictures that are drawn
    over; a walk from one text to the next. Of a model that sees an image besides (an upsampler, a
    ControlNet), that image above what was drawn, and no walk. A decoder is told the embeddings of
    the images of the captions, of which there are variations without a caption; prompts that are
    given have no image, and are drawn by the caption alone. Of an autoencoder, reconstructions.
    """
    import torch
    from torch.nn import functional as F

    from generative.training.pictures import image_grid, sheet, strips

    model, n = subject.model, settings.images
    shape = model.config.base.image_shape if hasattr(model.config, "base") else (
        model.config.image_shape
    )  # fmt: skip
    scale, generator = scale_to(64, shape), subject.generator()
    if model.saved_name == "KLAutoencoder":
        test = subject.images(shape, max_images=subject.setting("max_images", None)).part("test")
        x = test.thin(n).as_tensor(device=subject.device)
        subject.save("reconstructions", strips(x, model.reconstruct(x), scale=scale))
        return {}
    x, texts = known_pairs(subject, n, shape)
    see, embedded = model.seen, embeddings(subject, settings, shape)
    if embedded is not None:
        drawn = variations(model, x, embedded, settings.images, subject.generator(), scale)
        subject.save("variations", drawn)
        see = model.seen if settings.prompts else embedded
    texts = list(settings.prompts) or texts
    n = min(n, len(texts))
    texts, x = texts[:n], x[:1].expand(n, -1, -1, -1) if len(texts) > len(x) else x[:n]
    seen = see(x)

    def draw(**how: Any) -> Tensor:
        same = torch.Generator(subject.device).manual_seed(subject.seed)
        return model.sample(texts, same, eta=settings.eta, **how, **seen)

    grids, firsts, each = [], [], []
    for i, text in enumerate(texts):
        of_one = see(x[i : i + 1].expand(settings.images, -1, -1, -1))
        drawn = model.sample([text] * settings.images, generator, **of_one)
        grids.append(image_grid(drawn, settings.images, scale))
        firsts.append(image_grid(drawn[:1], 1, scale_to(96, shape)))
        each.append(drawn[:1])
    subject.save("prompts", sheet(grids, texts, columns=1))
    subject.save("row", sheet(firsts, texts))
    if seen:
        (looked_at,) = seen.values()
        looked_at = x if looked_at.dim() == 2 else looked_at  # an embedding is shown by its image
        above = F.interpolate(looked_at.clamp(0, 1), shape[1:]).expand(-1, shape[0], -1, -1)
        subject.save("seen", strips(above, torch.cat(each), scale=scale))

    stages = list(model.path(texts[:1], generator, **see(x[:1])))
    last = len(stages) - 1
    shown = sorted({round(i * last / max(1, settings.images - 1)) for i in range(settings.images)})
    rows = [torch.cat([model.images(stages[i][k]) for i in shown]) for k in (0, 1)]
    subject.save("film", strips(*rows, scale=scale))

    rows = [draw(scale=float(s)) for s in settings.scales]
    titles = [f"scale {s:g}" for s in settings.scales]
    subject.save("guidance", sheet([image_grid(row, n, scale) for row in rows], titles, 1))
    rows = [draw(steps=steps) for steps in settings.steps]
    titles = [f"{steps} steps" for steps in settings.steps]
    subject.save("steps", sheet([image_grid(row, n, scale) for row in rows], titles, 1))

    before, others = draw(), texts[1:] + texts[:1]
    hole = middle(shape, subject.device)
    if "embedding" in seen:  # that of the other caption's image
        seen = {"embedding": seen["embedding"].roll(-1, 0)}
    filled = model.inpaint(before, hole, others, generator, **seen)
    subject.save("inpainting", strips(before, before.masked_fill(hole, 0.5), filled, scale=scale))
    redrawn = [
        model.redraw(before, others, strength, generator, **seen) for strength in settings.strengths
    ]
    subject.save("redrawn", strips(before, *redrawn, scale=scale))
    if model.saved_name in ("GLIDE", "Imagen", "LatentDiffusion"):
        walked = model.walk(texts[0], others[0], WALK, model.noise(2, generator))
        title = f"from {texts[0]!r} to {others[0]!r}"
        subject.save("walk", sheet([image_grid(walked, WALK, scale)], [title]))
    return {"prompts": texts}


def embeddings(subject: Subject, settings: Settings, shape: tuple[int, int, int]) -> Seen | None:
    """Embeddings of images (B, C, H, W), told to a decoder, by the CLIP that its run names.

    None of other models, and of a decoder whose CLIP nothing tells, which is said.
    """
    from scripts.common.text_to_image import embeddings_of, load_clip

    if subject.model.saved_name != "ImageDecoder":
        return None
    named = subject.setting("clip", None)
    clip = settings.clip or (Path(str(named)) if named else None)
    if clip is None:
        tell(
            f"{subject.folder}: no run tells which CLIP this decoder was trained with, so it is "
            "told no embedding; pass --text-to-image.clip with that run"
        )
        return None
    return embeddings_of(load_clip(clip, shape, subject.device))


def variations(
    model: Any, x: Tensor, see: Seen, num: int, generator: Any, scale: int
) -> np.ndarray:
    """A row for each image (n, C, H, W): the image, and what a decoder draws of its embedding."""
    import torch

    from generative.training.pictures import image_grid

    rows = []
    for image in x:
        told = see(image.expand(num, -1, -1, -1))
        rows += [image[None], model.sample(num, generator, **told)]
    return image_grid(torch.cat(rows), num + 1, scale)


def known_pairs(subject: Subject, n: int, shape: tuple[int, int, int]) -> tuple[Tensor, list[str]]:
    """Test images (n, C, H, W) of the data that the model was trained on, and their captions.

    Raises:
        ValueError: nothing tells which data that was.
    """
    import torch

    from generative.known.config import CaptionMix
    from scripts.common.captions import load_pairs

    known = get_args(CaptionData)
    if subject.data not in known:
        got = f"data is {subject.data!r}" if subject.data else "no run tells its data"
        raise ValueError(
            f"{subject.folder} holds a text-to-image model and {got}; pass what it was trained on: "
            f"--data {', '.join(known)}"
        )
    data = cast("CaptionData", subject.data)
    pairs = load_pairs(data, subject.data_dir, shape, CaptionMix(), "test")
    x, texts, _ = pairs.draw(n, torch.Generator().manual_seed(subject.seed))
    return x.to(subject.device), texts


def middle(shape: tuple[int, int, int], device: str) -> Tensor:
    """Hole of a third of the height and width, bool (1, H, W)."""
    import torch

    _, h, w = shape
    hole = torch.zeros(1, h, w, dtype=torch.bool, device=device)
    hole[:, h // 3 : h - h // 3, w // 3 : w - w // 3] = True
    return hole
