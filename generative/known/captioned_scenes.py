"""Micro-world with captions as a data set: pictures, captions and every probability of either.

A caption is drawn first: its kind by the weights of a mix, then evenly among the captions of this
kind. Its picture is drawn evenly among those that fit it. So p(picture | caption) is even, and

    p(picture) = sum over captions that fit of p(caption) / number of pictures that fit it

    world = CaptionedScenes(CaptionMix(), "train")
    texts, cells = world.draw(128, generator)         # 128 captions, int64 (128, 9)
    images, texts = world.batch(128, generator)       # float32 (128, 3, 24, 24) in [0, 1]
    world.log_prob(cells)                             # ln p(picture), (128,)
    world.pointwise(texts, cells)                     # ln p(caption | picture) / p(caption)

The last one is what a contrastive model of pairs can learn at best, up to a number for each row:
the loss of this matrix is the floor of CLIP's on the same batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property

import torch
from torch import Tensor

from generative.known.captions import (
    KINDS,
    MOST,
    PARTS,
    RELATIONS,
    Kind,
    Part,
    captions,
    captions_of,
    count,
    fits,
    fitting,
    parse,
)
from generative.known.config import CaptionMix
from generative.known.scenes import (
    CELL,
    CELLS,
    CONTENTS,
    EMPTY,
    OBJECTS,
    SIDE,
    draw,
    equal_objects,
    pairs,
)
from generative.training.checks import checked
from generative.training.ranges import CountOrZero

__all__ = ["HIDDEN", "CaptionMix", "CaptionedScenes", "hidden_cells"]

HIDDEN = EMPTY + 1
"""Content of a cell that is not seen, see `hidden_cells`."""


class CaptionedScenes:
    """Pairs of a picture and a caption of the micro-world.

    Args:
        mix: weights of the kinds of captions.
        part: captions to draw from, see `generative.known.captions.PARTS`; kinds that have none in
            it are left out.
        border: black pixels around a picture; 4 makes 32x32 of them.
    Raises:
        ValueError: there is no such part, or the mix leaves it without captions.
    """

    def __init__(self, mix: CaptionMix | None = None, part: Part = "train", border: int = 0):
        self.mix = mix or CaptionMix()
        self.part: Part = part
        self.border = border
        if part not in PARTS:
            raise ValueError(f"there is no part {part!r}; parts are {', '.join(PARTS)}")
        if border < 0:
            raise ValueError(f"border is {border}; give 0 or more pixels")
        weights = {kind.replace("_", "-"): weight for kind, weight in asdict(self.mix).items()}
        kept: dict[Kind, float] = {
            kind: weights[kind] for kind in KINDS if weights[kind] and captions(kind, part)
        }
        if not kept:
            asked = ", ".join(kind for kind in KINDS if weights[kind])
            raise ValueError(
                f"part {part!r} has no captions of the kinds with a weight ({asked}); give one to "
                f"{', '.join(kind for kind in KINDS if captions(kind, part))}"
            )
        self.weights: dict[Kind, float] = {
            kind: weight / sum(kept.values()) for kind, weight in kept.items()
        }
        """Probability of each kind that occurs."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        side = SIDE * CELL + 2 * self.border
        return (3, side, side)

    def __repr__(self) -> str:
        return f"CaptionedScenes(part {self.part!r}, {len(self.captions):,} captions)"

    # -----------------------------------------------------------------------------------------
    # Drawing
    # -----------------------------------------------------------------------------------------

    @checked
    def draw(
        self, n: CountOrZero, generator: torch.Generator | None = None
    ) -> tuple[list[str], Tensor]:
        """Draw n captions, and a scene that fits each, int64 (n, 9)."""
        kinds = list(self.weights)
        bounds = torch.tensor(list(self.weights.values()), dtype=torch.float64).cumsum(0)[:-1]
        u = torch.rand(n, 3, generator=generator, dtype=torch.float64)
        drawn = torch.bucketize(u[:, 0].contiguous(), bounds, right=True).tolist()
        texts = [
            _choose(captions(kinds[i], self.part), v)
            for i, v in zip(drawn, u[:, 1].tolist(), strict=True)
        ]
        return texts, self._scenes(texts, u[:, 2].tolist())

    def scenes(self, texts: Sequence[str], generator: torch.Generator | None = None) -> Tensor:
        """Draw a scene that fits each caption, int64 (n, 9).

        Raises:
            ValueError: a text is no caption, see `generative.known.captions.parse`.
        """
        u = torch.rand(len(texts), generator=generator, dtype=torch.float64)
        return self._scenes(texts, u.tolist())

    @checked
    def batch(
        self, n: CountOrZero, generator: torch.Generator | None = None
    ) -> tuple[Tensor, list[str]]:
        """Draw n pictures, float32 (n, 3, H, W) in [0, 1], and a caption of each."""
        texts, cells = self.draw(n, generator)
        return draw(cells, self.border), texts

    def describe(self, cells: Tensor, generator: torch.Generator | None = None) -> list[str]:
        """Draw a caption of each scene (n, 9), by p(caption | picture).

        Raises:
            ValueError: a scene has no caption in this part.
        """
        texts = []
        for row, v in zip(cells, torch.rand(len(cells), generator=generator).tolist(), strict=True):
            known = self._of(row)
            if not known:
                raise ValueError(
                    f"no caption of part {self.part!r} describes the scene {row.tolist()}; see "
                    "generative.known.captions.captions_of"
                )
            p = torch.tensor([self.log_prior(text) - math.log(count(text)) for text in known])
            bounds = p.double().softmax(0).cumsum(0)[:-1]
            texts.append(known[int(torch.bucketize(v, bounds, right=True))])
        return texts

    def _scenes(self, texts: Sequence[str], u: Sequence[float]) -> Tensor:
        rows = []
        for text, v in zip(texts, u, strict=True):
            wanted, row = parse(text), [EMPTY] * CELLS
            for place, thing in zip(_choose(wanted.places, v), wanted.objects, strict=True):
                row[place] = thing
            rows.append(row)
        return torch.tensor(rows, dtype=torch.int64).view(-1, CELLS)

    def _of(self, row: Tensor) -> list[str]:
        texts = captions_of(row, self.part)
        return [text for text in texts if parse(text).kind in self.weights]

    # -----------------------------------------------------------------------------------------
    # Exact answers
    # -----------------------------------------------------------------------------------------

    @cached_property
    def captions(self) -> tuple[str, ...]:
        """All captions that are drawn, kind by kind."""
        return tuple(text for kind in self.weights for text in captions(kind, self.part))

    def log_prior(self, caption: str) -> float:
        """ln p(caption); -inf if it is never drawn.

        Raises:
            ValueError: it is no caption, see `generative.known.captions.parse`.
        """
        kind = parse(caption).kind
        if caption not in self._known:
            return -math.inf
        return math.log(self.weights[kind] / len(captions(kind, self.part)))

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.captions)

    def log_prob(self, cells: Tensor) -> Tensor:
        """ln p(picture) of scenes (n, 9), float64 (n,); -inf of those that are never drawn."""
        p = torch.zeros(len(cells), dtype=torch.float64, device=cells.device)
        number = (cells != EMPTY).sum(1)
        objects = cells.where(cells != EMPTY, -1).amax(1)
        alike = (cells == objects[:, None]).sum(1) == number
        scene = objects < EMPTY
        for kind, weight in self.weights.items():
            rows = captions(kind, self.part)
            each = weight / len(rows)
            if kind == "sign":
                p += self._of_signs(cells, each)
                continue
            one = alike & scene & self.objects.to(cells.device)[objects.clamp(0, EMPTY - 1)]
            if kind == "one":
                p[one & (number == 1)] += 3 * each / CELLS
            elif kind == "one-placed":
                p[one & (number == 1)] += each
            elif kind == "count":
                for n in range(2, MOST + 1):
                    p[one & (number == n)] += 2 * each / math.comb(CELLS, n)
            else:
                two = (number == 2) & ~alike & scene
                p[two] += each * self._of_pairs(kind, cells[two])
        return p.log()

    def _of_signs(self, cells: Tensor, each: float) -> Tensor:
        p = torch.zeros(len(cells), dtype=torch.float64, device=cells.device)
        for text in captions("sign", self.part):
            p[fits(text, cells)] += each / count(text)
        return p

    def _of_pairs(self, kind: Kind, cells: Tensor) -> Tensor:
        """Sum over captions that fit scenes of two objects of 1 / number of scenes that fit."""
        places = (cells != EMPTY).nonzero()[:, 1].view(-1, 2)
        first, second = cells.gather(1, places).unbind(1)
        ways = {"two": {"": 72}, "two-placed": {"": 1}}.get(kind, dict.fromkeys(RELATIONS[:2], 27))
        total = torch.zeros(len(cells), dtype=torch.float64, device=cells.device)
        for relation, number in ways.items():
            told = self._told(kind, relation).to(cells.device)
            here, there = places.unbind(1)
            stands = _stands(relation).to(cells.device)
            # Each order of the objects has two wordings where the order of words is free.
            total += (told[first, second] & stands[here, there]).double() * (2 / number)
            if relation:
                total += (told[second, first] & stands[there, here]).double() * (2 / number)
        return total

    @cached_property
    def objects(self) -> Tensor:
        """Objects of this part's scenes: those that it names alone, bool (24,)."""
        named = {parse(text).objects[0] for text in captions("one", self.part)}
        return torch.tensor([thing in named for thing in range(len(OBJECTS))])

    def _told(self, kind: Kind, relation: str) -> Tensor:
        """Pairs of objects that this part tells about, bool (24, 24)."""
        told = torch.zeros(len(OBJECTS), len(OBJECTS), dtype=torch.bool)
        source: Kind = "relation" if kind == "relation" else "two"
        for text in captions(source, self.part):
            caption = parse(text)
            if caption.relation == relation:
                told[caption.objects] = True
        return told

    def pictures(self) -> tuple[Tensor, Tensor]:
        """List all scenes that are drawn, int64 (n, 9), and ln of their probabilities (n,)."""
        every = [equal_objects(range(1, MOST + 1)), pairs()]
        if "sign" in self.weights:
            every += [fitting(text) for text in captions("sign", self.part)]
        cells = torch.cat(every).unique(dim=0)
        log_prob = self.log_prob(cells)
        drawn = log_prob > -math.inf
        return cells[drawn], log_prob[drawn]

    def pointwise(self, texts: Sequence[str], cells: Tensor) -> Tensor:
        """ln p(caption | picture) / p(caption) of n captions and m scenes, float64 (n, m).

        It is - ln p(picture) - ln (number of scenes that fit the caption) for a scene that fits,
        and -inf for one that does not.

        Raises:
            ValueError: a text is no caption, see `generative.known.captions.parse`.
        """
        log_prob = self.log_prob(cells)
        rows = torch.full((len(texts), len(cells)), -math.inf, dtype=torch.float64)
        rows = rows.to(cells.device)
        for row, text in zip(rows, texts, strict=True):
            known = fits(text, cells)
            row[known] = -log_prob[known] - math.log(count(text))
        return rows

    def log_likelihood(self, texts: Sequence[str], cells: Tensor) -> Tensor:
        """ln p(caption | picture) of n captions and m scenes, float64 (n, m).

        Raises:
            ValueError: a text is no caption, see `generative.known.captions.parse`.
        """
        prior = torch.tensor([self.log_prior(text) for text in texts], dtype=torch.float64)
        return self.pointwise(texts, cells) + prior.to(cells.device)[:, None]


def _choose(choices: Sequence, u: float):
    """Choose one evenly by a number u in [0, 1)."""
    return choices[min(int(u * len(choices)), len(choices) - 1)]


def _stands(relation: str) -> Tensor:
    """Cells in which a first and a second object may stand, bool (9, 9)."""
    first, second = torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing="ij")
    if not relation:
        return first != second
    return first % SIDE < second % SIDE if relation == "left of" else first // SIDE < second // SIDE


def hidden_cells(texts: Sequence[str], cells: Tensor, contents: int = HIDDEN) -> Tensor:
    """Probability of what each cell holds, given a caption and the cells that are seen.

    All scenes that fit a caption are equally likely. Where none fits what is seen, the seen
    cells are left out of account.

    Args:
        texts: n captions.
        cells: int64 (n, 9), `contents` in cells that are not seen.
        contents: what a cell can hold: 25, `HIDDEN`, or 51 with the letters of signs.
    Returns:
        float64 (n, 9, contents); 24 is the empty cell.
    Raises:
        ValueError: a text is no caption, see `generative.known.captions.parse`, or a sign, and
            contents have no letters.
    """
    if contents < CONTENTS and any(parse(text).kind == "sign" for text in texts):
        raise ValueError(
            f"a caption is a sign, and contents is {contents}, without letters; give {CONTENTS}"
        )
    found = []
    for text, seen in zip(texts, cells, strict=True):
        scenes = fitting(text).to(cells.device)
        left = scenes[((scenes == seen) | (seen == contents)).all(1)]
        left = left if len(left) else scenes
        found.append(torch.nn.functional.one_hot(left, contents).double().mean(0))
    return torch.stack(found) if found else torch.empty(0, CELLS, contents, dtype=torch.float64)
