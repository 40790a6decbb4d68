"""A trained reader of captions: what it puts into gaps, what it says in other words, what is close.

The model is a T5 like any other, but its tokens are those of captions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from generative.training.ranges import Checked, Count
from scripts.explored.common import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Generator, Tensor

    from generative.data.caption_tokens import CaptionTokeniser
    from generative.text import T5
    from scripts.common.captions import CaptionData

KIND = "train_caption_reader"
"""Runs of this command are explored here; what they hold is a T5 like any other."""
GAP = "[MASK]"


@dataclass(frozen=True)
class Settings(Checked):
    """Runs of train_caption_reader.py."""

    prompts: tuple[str, ...] = ()
    """Captions to read, with [MASK] where words are to be filled in; those of the data, each with a
    word cut out, if not given."""
    num_texts: Count = 6
    """Captions of the data that are read."""
    top: Count = 5
    """Words for a gap."""
    pool: Count = 500
    """Captions of the data of which the closest are looked for."""
    closest: Count = 3
    """Closest captions of each."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """gaps.png, words for gaps and how probable they are; closest.png, cosines of captions by what
    their encodings have beside the mean one; rewordings, of a reader that has learned them."""
    import torch

    from generative.data.caption_tokens import CaptionTokeniser
    from scripts.common.captions import VOCABULARY

    tokeniser = CaptionTokeniser.load(subject.folder.parent / VOCABULARY)
    generator = torch.Generator().manual_seed(subject.seed)
    pool = texts_of(subject, settings.pool, generator)
    prompts = settings.prompts or gapped(pool[: settings.num_texts], generator)
    with torch.no_grad():
        gaps = {
            shown: words
            for prompt in prompts
            for shown, words in fill(subject.model, tokeniser, prompt, settings.top).items()
        }
        if gaps:
            subject.save_figure("gaps", gaps_figure(gaps), dpi=90)
        whole = [prompt for prompt in settings.prompts if GAP not in prompt]
        whole = whole or pool[: settings.num_texts]
        found: dict[str, Any] = {"gaps": gaps}
        pool = list(dict.fromkeys([*whole, *pool]))
        if len(pool) > 1:
            cosines = similarity(subject.model, tokeniser, pool)
            found["closest"] = nearest(cosines, pool, len(whole), settings.closest)
            subject.save_figure("closest", closest_figure(cosines, pool, found["closest"]), dpi=90)
        if subject.setting("reword", 0.0) and subject.data == "scenes":
            length = subject.model.config.max_len
            rows = subject.model.generate(tokeniser.encode(whole).to(subject.device), length)
            written = [tokeniser.decode(row) for row in rows]
            found["rewordings"] = dict(zip(whole, written, strict=True))
    return found


def texts_of(subject: Subject, n: int, generator: Generator) -> list[str]:
    """Captions of the data that the model was trained on, each once.

    Raises:
        FileNotFoundError: the files are gone; says which.
    """
    from generative.known.config import CaptionMix
    from generative.training.settings import from_json
    from scripts.common.captions import load_pairs

    mix = from_json(CaptionMix, subject.setting("mix", {}))
    shape = tuple(subject.setting("image_shape", (3, 24, 24)))
    most = subject.setting("max_images", None)
    data = cast("CaptionData", subject.data)
    pairs = load_pairs(data, subject.data_dir, shape, mix, max_images=most)
    return list(dict.fromkeys(pairs.draw(n, generator)[1]))


def gapped(texts: list[str], generator: Generator) -> tuple[str, ...]:
    """Captions, each with one word cut out, chosen evenly."""
    import torch

    found = []
    for text in texts:
        words = text.split()
        words[int(torch.randint(len(words), (), generator=generator))] = GAP
        found.append(" ".join(words))
    return tuple(found)


def fill(
    model: T5, tokeniser: CaptionTokeniser, prompt: str, top: int
) -> dict[str, list[list[Any]]]:
    """The most probable words for each gap of a caption, with their probabilities.

    The key is the caption with ____ for the gap; gaps before it hold their most probable word.

    Raises:
        ValueError: more gaps than the model tells apart, or more words than it reads.
    """
    import torch

    from generative.data.caption_tokens import BOS, EOS
    from generative.text.tokens import END

    pieces = prompt.split(GAP)
    if len(pieces) - 1 > model.config.num_sentinels:
        raise ValueError(
            f"{prompt!r} has {len(pieces) - 1} gaps, and the model knows "
            f"{model.config.num_sentinels}; give fewer"
        )
    tokens, device = [BOS], model.embedding.weight.device
    for k, row in enumerate(tokeniser.encode(pieces)):
        tokens += [model.first_sentinel + k - 1] * (k > 0)
        tokens += [int(token) for token in row if int(token) not in (BOS, EOS, END)]
    source = torch.tensor([[*tokens, EOS]], device=device)
    memory, written, found, filled = model.encode(source), [END], {}, []
    for k in range(len(pieces) - 1):
        written.append(model.first_sentinel + k)
        logits = model.logits(torch.tensor([written], device=device), memory, source)[0, -1]
        best = logits[: len(tokeniser)].softmax(0).topk(min(top, len(tokeniser)))
        names = [tokeniser.decode([token]) or "(nothing)" for token in best.indices.tolist()]
        rows = zip(names, best.values.tolist(), strict=True)
        around = [*filled, "____", *["..."] * (len(pieces) - 2 - k)]
        shown = "".join(f"{piece}{word}" for piece, word in zip(pieces, [*around, ""], strict=True))
        found[shown] = [[name, round(p, 4)] for name, p in rows]
        written.append(int(best.indices[0]))
        filled.append(names[0])
    return found


def similarity(model: T5, tokeniser: CaptionTokeniser, texts: list[str]) -> Tensor:
    """Cosines of the encodings of captions, (N, N); each is the mean of a caption's tokens, less
    the mean of all captions, which share most of it."""
    import torch
    from torch.nn.functional import normalize

    from generative.text_to_image import T5Text

    reader = T5Text.of(model).to(model.embedding.weight.device)
    rows = tokeniser.encode(texts).to(model.embedding.weight.device)
    vectors = torch.cat([reader(part).vector for part in rows.split(256)])
    vectors = normalize(vectors - vectors.mean(0), dim=1)
    return (vectors @ vectors.T).cpu()


def nearest(cosines: Tensor, texts: list[str], n: int, most: int) -> dict[str, list[list[Any]]]:
    """The other captions that are closest to each of the first n, with their cosines."""
    found = {}
    for i, text in enumerate(texts[:n]):
        order = [j for j in cosines[i].argsort(descending=True).tolist() if j != i][:most]
        found[text] = [[texts[j], round(float(cosines[i, j]), 3)] for j in order]
    return found


def gaps_figure(gaps: dict[str, list[list[Any]]]) -> Figure:
    """A row of bars for each gap."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 1.4 * len(gaps)), layout="constrained")
    axes = figure.subplots(len(gaps), 1, squeeze=False)[:, 0]
    for axis, (shown, words) in zip(axes, gaps.items(), strict=True):
        names, values = zip(*words[::-1], strict=True)
        axis.barh(range(len(names)), values, color="C0")
        axis.set(xlim=(0, 1.2), xticks=[])
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_title(shown, fontsize=9, loc="left", family="monospace")
        for place, value in enumerate(values):
            axis.text(value + 0.02, place, f"{100 * value:.1f} %", va="center", fontsize=8)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def closest_figure(cosines: Tensor, texts: list[str], closest: dict[str, Any]) -> Figure:
    """Cosines of the captions that are shown and the closest of each, as a map."""
    from matplotlib.figure import Figure

    shown = list(dict.fromkeys([*closest, *(row[0][0] for row in closest.values())]))
    places = [texts.index(text) for text in shown]
    side = 3.5 + 0.25 * len(shown)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(cosines[places][:, places].numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
    names = [text if len(text) <= 50 else f"{text[:46]} ..." for text in shown]
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    figure.colorbar(image, ax=axis, shrink=0.7, label="cosine")
    return figure
