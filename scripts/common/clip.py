"""Embeddings of a trained CLIP, and how well it searches, binds and classifies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.common.captions import VOCABULARY, Pairs, ScenePairs

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from generative.clip import CLIP
    from generative.data.caption_tokens import CaptionTokeniser
    from generative.known.captioned_scenes import CaptionedScenes
    from generative.known.captions import Part

__all__ = [
    "embed_captions",
    "embed_images",
    "load_vocabulary",
    "own_scores",
    "pair_scores",
    "scene_scores",
    "zero_shot",
]


def embed_captions(model: CLIP, tokeniser: CaptionTokeniser, texts: Sequence[str]) -> Tensor:
    """Embeddings of captions, (n, D), on the model's device."""
    import torch

    device = model.log_scale.device
    with torch.no_grad():
        parts = [model.encode_text(part.to(device)) for part in tokeniser.encode(texts).split(256)]
    return torch.cat(parts)


def embed_images(model: CLIP, x: Tensor) -> Tensor:
    """Embeddings of images (n, C, H, W), (n, D), on the model's device."""
    import torch

    device = model.log_scale.device
    with torch.no_grad():
        return torch.cat([model.encode_image(part.to(device)) for part in x.split(256)])


def pair_scores(
    model: CLIP,
    tokeniser: CaptionTokeniser,
    pairs: Pairs,
    generator: Generator,
    batch_size: int = 128,
    batches: int = 8,
) -> dict[str, float]:
    """Means over batches: the loss, its floor on the same pairs, and both ways of search.

    `recall_of_captions` is the share of images whose closest caption fits, `recall_of_images` that
    of captions whose closest image does.
    """
    from generative.clip import contrastive_loss, recall, target_entropy

    names = ("loss", "floor", "recall_of_captions", "recall_of_images")
    sums: dict[str, float] = dict.fromkeys(names, 0.0)
    for _ in range(batches):
        x, texts, fits = pairs.draw(batch_size, generator)
        images, captions = embed_images(model, x), embed_captions(model, tokeniser, texts)
        logits = model.logits(images, captions).detach().cpu()
        loss = float(contrastive_loss(logits, fits).loss)
        values = loss, float(target_entropy(fits)), *recall(logits, fits)
        for name, value in zip(names, values, strict=True):
            sums[name] += value / batches
    return sums


def scene_scores(
    model: CLIP, tokeniser: CaptionTokeniser, generator: Generator, border: int = 0, n: int = 100
) -> dict[str, float]:
    """Answers about scenes: search among captions that name both places, and what is bound.

    `recall_of_placed` is the share of images whose closest caption of 128 is their own,
    `recall_of_new_objects` the same where each scene has an object that no training caption names.
    `object_at_place`, `colour_at_place` and `shape_at_place` are those of
    `generative.known.bindings`, beside those of a bag of words; `zero_shot` is the share of scenes
    of one object that are classified right among 24 captions. `new_object_at_place` and its like
    are the same of scenes of two objects that no training caption names.
    """
    import torch.nn.functional as F

    from generative.known.bindings import bag_of_words, object_at_place
    from generative.known.captioned_scenes import CaptionedScenes
    from generative.known.config import CaptionMix
    from generative.known.scenes import OBJECTS, draw, one_object

    placed = CaptionMix(0, 0, 0, 1, 0, 0)
    parts: tuple[tuple[str, Part], ...] = (
        ("recall_of_placed", "train"),
        ("recall_of_new_objects", "new-objects"),
    )
    found = {}
    for name, part in parts:
        pairs = ScenePairs(CaptionedScenes(placed, part, border))
        scores = pair_scores(model, tokeniser, pairs, generator)
        found[name] = (scores["recall_of_captions"] + scores["recall_of_images"]) / 2

    def similarity(x: Tensor, texts: Sequence[str]) -> Tensor:
        images = embed_images(model, F.pad(x, (border,) * 4))
        return images @ embed_captions(model, tokeniser, texts).T

    def bound(part: Part, which: str) -> dict[str, float]:
        answers, blind = object_at_place(similarity, n, generator, part), bag_of_words(part)
        told = {}
        for name, right, guessed in zip(("object", "colour", "shape"), answers, blind, strict=True):
            told[f"{which}{name}_at_place"] = right
            told[f"{which}{name}_at_place_of_words"] = guessed
        return told

    found |= bound("train", "")
    cells = one_object()
    x, labels = draw(cells, border), cells.amin(1)
    found["zero_shot"] = zero_shot(model, tokeniser, x, labels, OBJECTS, "a {}")
    return found | bound("new-objects", "new_")


def own_scores(
    model: CLIP,
    tokeniser: CaptionTokeniser,
    world: CaptionedScenes,
    generator: Generator,
    batch_size: int = 128,
    batches: int = 4,
) -> dict[str, float]:
    """The published loss, whose only target is an image's own caption, beside the exact critic's.

    `own_loss` is the model's and `own_floor` that of ln p(caption | picture) / p(caption) on the
    same pairs, which no other critic beats in the mean. It knows that a caption which fits few
    scenes is likelier to be the picture's own.
    """
    from generative.clip import contrastive_loss
    from generative.known.scenes import draw

    found = {"own_loss": 0.0, "own_floor": 0.0}
    for _ in range(batches):
        texts, cells = world.draw(batch_size, generator)
        images = embed_images(model, draw(cells, world.border))
        logits = model.logits(images, embed_captions(model, tokeniser, texts)).detach().cpu()
        found["own_loss"] += float(contrastive_loss(logits).loss) / batches
        exact = world.pointwise(texts, cells).T
        found["own_floor"] += float(contrastive_loss(exact).loss) / batches
    return found


def zero_shot(
    model: CLIP,
    tokeniser: CaptionTokeniser,
    x: Tensor,
    labels: Tensor,
    names: Sequence[str],
    template: str,
) -> float:
    """Share of images (n, C, H, W) whose closest caption is that of their label.

    Args:
        labels: int64 (n,), index of a name.
        names: of the labels.
        template: caption with {} in the place of a name.
    """
    captions = [template.replace("{}", name) for name in names]
    best = (embed_images(model, x) @ embed_captions(model, tokeniser, captions).T).argmax(1)
    return float((best.cpu() == labels).float().mean())


def load_vocabulary(
    run: Path | None, folder: Path, command: str = "train_clip"
) -> CaptionTokeniser:
    """The words of a run's model.

    Args:
        folder, command: of the model and what trains it, named in errors.
    Raises:
        ValueError: the model stands alone.
        FileNotFoundError: the run has none.
    """
    from generative.data.caption_tokens import CaptionTokeniser

    if run is None:
        raise ValueError(
            f"{folder} holds a model, and not the words that it knows; pass the folder of the run "
            f"of {command}"
        )
    return CaptionTokeniser.load(run / VOCABULARY)
