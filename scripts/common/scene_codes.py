"""Pictures of the micro-world as codes with captions, and how well a model writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from generative.clip import CLIP
    from generative.data.caption_tokens import CaptionTokeniser
    from generative.known.captioned_scenes import CaptionedScenes
    from generative.known.config import CaptionMix
    from generative.text_to_codes import MUSE

__all__ = [
    "CellCodes",
    "accuracy_by_steps",
    "best_of",
    "exact_muse",
    "hidden_nats",
    "load_codes",
    "nats_by_fitting",
    "writer_scores",
]

EVEN = "a red square left of a blue disc"
"""Caption of 27 scenes, whose samples are counted."""


@dataclass(frozen=True)
class CellCodes:
    """Codes of scenes that are known: a cell's object, 24 where it is empty, or of 51 codes one of
    the letters of signs."""

    grid: tuple[int, int] = (3, 3)
    num_codes: int = 25
    image_shape: tuple[int, int, int] = (3, 24, 24)

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, 24, 24) -> int64 (B, 3, 3)."""
        from generative.known.scenes import LETTER, read

        return read(x, letters=self.num_codes > LETTER).cells.unflatten(1, self.grid)

    def decode(self, codes: Tensor) -> Tensor:
        """int64 (B, 3, 3) -> pictures (B, 3, 24, 24)."""
        from generative.known.scenes import draw

        return draw(codes.flatten(1))


def load_codes(folder: Path | None, device: Any, letters: bool = False) -> Any:
    """A model of images as codes: of a run of train_vqvae on scenes, or what is known of them.

    Args:
        letters: there are signs too.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: its pictures are of another shape.
    """
    if folder is None:
        from generative.known.scenes import CONTENTS, LETTER

        return CellCodes(num_codes=CONTENTS if letters else LETTER)
    from generative.loading import load_model

    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; pass --codes with a run of train_vqvae, which "
            "`worldmodels train_vqvae scenes` makes"
        )
    model: Any = load_model(folder, device)
    if tuple(getattr(model, "image_shape", ())) != CellCodes.image_shape:
        raise ValueError(
            f"{folder} is no model of scenes as codes, 3x24x24 pixels; pass a run of "
            "`worldmodels train_vqvae scenes`"
        )
    return model.eval()


def writer_scores(
    model: Any,
    codes: Any,
    tokeniser: CaptionTokeniser,
    world: CaptionedScenes,
    generator: Generator,
    n: int = 1000,
) -> dict[str, float]:
    """Nats of a picture given its caption beside the least, and what is written.

    `test_nll` is the mean over n new pairs and `floor` the mean of ln (number of pictures that fit
    the caption), of models that give a picture's probability; of MUSE both are those of a hidden
    code. `satisfied` is the share of n pictures that fit their captions, `rejected` of those that
    are none of the world, and `even_p` the p-value of a chi-squared test that the pictures of one
    caption are drawn evenly from the 27 that fit it.
    """
    import torch

    from generative.known.captions import count, entropy
    from generative.known.scene_scores import PER_PICTURE, accuracy, evenness, satisfied
    from generative.known.scenes import draw

    device = next(model.parameters()).device
    texts, cells = world.draw(n, generator)
    tokens = tokeniser.encode(texts).to(device)
    with torch.no_grad():
        true = codes.encode(draw(cells).to(device))
        if hasattr(model, "log_prob"):
            found = {
                "test_nll": float(-model.log_prob(tokens, true).mean()),
                "floor": sum(map(entropy, texts)) / n,
            }
        else:
            found = hidden_nats(model, codes, tokeniser, texts, cells, generator)
        random = torch.Generator(device).manual_seed(0)
        drawn = codes.decode(model.sample(tokens, random)).cpu()
        score = accuracy(drawn, texts)
        found |= {"satisfied": score.satisfied.share, "rejected": score.rejected.share}
        rows = tokeniser.encode([EVEN]).to(device).expand(n, -1)
        even = codes.decode(model.sample(rows, random)).cpu()
        # Where hardly anything fits there is nothing to count, and nothing is drawn evenly.
        enough = int(satisfied(even, [EVEN] * n).sum()) >= PER_PICTURE * count(EVEN)
    return found | {"even_p": evenness(even, EVEN).p_value if enough else 0.0}


def hidden_nats(
    model: Any,
    codes: Any,
    tokeniser: CaptionTokeniser,
    texts: list[str],
    cells: Tensor,
    generator: Generator,
) -> dict[str, float]:
    """Nats of hidden codes under MUSE, and where cells are codes the least by listing what fits."""

    from generative.known.captioned_scenes import hidden_cells
    from generative.known.scenes import draw

    device = next(model.parameters()).device
    true = codes.encode(draw(cells).to(device))
    hidden = model.hide(true.cpu(), generator)
    masked = true.masked_fill(hidden.to(device), model.hidden)
    log_p = model.fill(tokeniser.encode(texts).to(device), masked).cpu()
    nats = -log_p.gather(3, true.cpu()[..., None])[..., 0]
    found = {"test_nll": float(nats[hidden].mean())}
    if not isinstance(codes, CellCodes):
        return found
    seen = cells.masked_fill(hidden.flatten(1), codes.num_codes)
    least = -hidden_cells(texts, seen, codes.num_codes).gather(2, cells[..., None])[..., 0].log()
    return found | {"floor": float(least[hidden.flatten(1)].mean())}


def nats_by_fitting(
    model: Any,
    codes: Any,
    tokeniser: CaptionTokeniser,
    fitting: Sequence[int],
    mix: CaptionMix,
    seed: int = 0,
    n: int = 4000,
) -> dict[int, tuple[float, float]]:
    """Nats of pictures whose captions so many pictures fit, and the least: {number: (nats, least)}.

    The least is ln of the number; of MUSE both are those of a hidden code.

    Args:
        fitting: numbers of pictures that fit a caption.
        mix, seed, n: n captions are drawn, of which those that so many fit are kept; numbers that
            no caption has are left out.
    """
    import torch

    from generative.known.captioned_scenes import CaptionedScenes
    from generative.known.captions import count
    from generative.known.scenes import draw

    generator, device = torch.Generator().manual_seed(seed), next(model.parameters()).device
    texts, cells = CaptionedScenes(mix).draw(n, generator)
    counts, found = torch.tensor([count(text) for text in texts]), {}
    for number in fitting:
        rows = (counts == number).nonzero()[:, 0]
        if not len(rows):
            continue
        those, some = [texts[row] for row in rows], cells[rows]
        if hasattr(model, "log_prob"):
            with torch.no_grad():
                true = codes.encode(draw(some).to(device))
                nll = float(-model.log_prob(tokeniser.encode(those).to(device), true).mean())
            found[number] = nll, math.log(number)
        else:
            nats = hidden_nats(model, codes, tokeniser, those, some, generator)
            found[number] = nats["test_nll"], nats["floor"]
    return found


def accuracy_by_steps(
    model: Any, codes: Any, tokeniser: CaptionTokeniser, texts: list[str], steps: tuple[int, ...]
) -> dict[str, float]:
    """Share of MUSE's pictures that fit their captions, by the number of decoding steps."""
    import torch

    from generative.known.scene_scores import accuracy

    device = next(model.parameters()).device
    tokens, found = tokeniser.encode(texts).to(device), {}
    for number in steps:
        random = torch.Generator(device).manual_seed(0)
        drawn = codes.decode(model.sample(tokens, random, steps=number)).cpu()
        found[f"satisfied_in_{number}_steps"] = accuracy(drawn, texts).satisfied.share
    return found


def exact_muse(texts: list[str]) -> MUSE:
    """A MUSE that knows the probability of every hidden cell, for these captions in this order."""
    import torch

    from generative.known.captioned_scenes import hidden_cells
    from generative.text_to_codes import MUSE, MUSEConfig

    class Exact(torch.nn.Module):
        def forward(self, line: Tensor, memory: object) -> Tensor:
            return hidden_cells(texts, line).log()

    muse = MUSE(MUSEConfig())
    muse.decoder = Exact()  # type: ignore[assignment]
    return muse.eval()


def best_of(
    model: Any,
    codes: Any,
    tokeniser: CaptionTokeniser,
    clip: CLIP,
    words: CaptionTokeniser,
    texts: list[str],
    candidates: int = 16,
) -> dict[str, float]:
    """Share of pictures that fit their captions: the first, and the best of several for CLIP.

    Args:
        clip, words: what ranks the candidates, and its vocabulary.
    """
    import torch

    from generative.known.scene_scores import accuracy
    from scripts.common.clip import embed_captions, embed_images

    device = next(model.parameters()).device
    tokens = tokeniser.encode(texts).to(device).repeat_interleave(candidates, 0)
    drawn = codes.decode(model.sample(tokens, torch.Generator(device).manual_seed(0))).cpu()
    images = embed_images(clip, drawn).unflatten(0, (len(texts), candidates))
    captions = embed_captions(clip, words, texts)
    best = (images @ captions[:, :, None])[..., 0].argmax(1).cpu()
    every = drawn.unflatten(0, (len(texts), candidates))
    chosen = every[torch.arange(len(texts)), best]
    return {
        "satisfied_by_first": accuracy(every[:, 0], texts).satisfied.share,
        f"satisfied_by_best_of_{candidates}": accuracy(chosen, texts).satisfied.share,
    }
