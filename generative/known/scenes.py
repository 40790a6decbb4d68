"""Micro-world: scenes of nine cells whose whole set can be listed and read back without error.

A scene is a square of 3x3 cells of 8x8 pixels on a black ground. A cell is empty or holds one of 24
objects, a shape in a colour. A scene is written as its nine cells, row by row; the picture of it is
drawn from 25 templates and read back by the nearest template of every cell.

    cells = pairs()                                  # all 20,736 scenes of two objects
    pictures = draw(cells)                           # (20736, 3, 24, 24), values in [0, 1]
    read(pictures).cells                             # equals cells
    valid(samples)                                   # is it a picture of this world at all?

Two templates differ by at least 1.7076 (square and disc in green, four pixels), so a cell is read
without error while its 192 values are wrong by less than 0.0616 (root of the mean square).

A sign is a scene whose cells hold white letters. It is drawn in the same way, and read by asking
for letters too: `read(pictures, letters=True)`. `generative.known.captions` tells in words what a
scene or a sign shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from generative.known.letters import GLYPHS, LETTERS
from generative.known.sprites import COLOURS, SHAPES

__all__ = [
    "CELLS",
    "CONTENTS",
    "EMPTY",
    "LETTER",
    "OBJECTS",
    "Agreement",
    "Reading",
    "agreement",
    "draw",
    "equal_objects",
    "one_object",
    "pairs",
    "read",
    "templates",
    "valid",
]

SIDE = 3
"""Cells on a side of the scene."""
CELLS = SIDE * SIDE
CELL = 8
"""Pixels on a side of a cell."""
OBJECTS = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)
"""Names of the 24 objects: object `shape * 6 + colour`, as `sprites` counts both."""
EMPTY = len(OBJECTS)
"""Value of a cell that holds no object."""
LETTER = EMPTY + 1
"""Value of a cell that holds the letter a; the others follow, up to z."""
CONTENTS = LETTER + len(LETTERS)
"""Number of things that a cell can hold: objects, nothing, letters."""

_GLYPHS = {
    "square": ("######", "######", "######", "######", "######", "######"),
    "disc": (".####.", "######", "######", "######", "######", ".####."),
    "triangle": ("..##..", "..##..", ".####.", ".####.", "######", "######"),
    "cross": ("..##..", "..##..", "######", "######", "..##..", "..##.."),
}


class Reading(NamedTuple):
    """Result of `read` on pictures: the nearest template of every cell, and the distance to it."""

    cells: Tensor
    """int64 (n, 9), values 0 to 24, up to 50 with letters."""
    residual: Tensor
    """(n, 9), root mean square over the 192 values of a cell."""


class Agreement(NamedTuple):
    """Result of `agreement` on pictures that should hold equal objects."""

    colours: float
    """Share of the pictures with two objects or more, all of one colour."""
    shapes: float
    """The same of one shape."""
    count: float
    """Share of the pictures with as many objects as were asked for."""
    valid: float
    """Share of the pictures that are of this world, see `valid`."""


@lru_cache(maxsize=1)
def _templates() -> Tensor:
    glyphs = torch.tensor(
        [[[pixel == "#" for pixel in row] for row in _GLYPHS[shape]] for shape in SHAPES]
    )
    glyphs = F.pad(glyphs.float(), (1, 1, 1, 1))
    colours = torch.tensor(list(COLOURS.values()), dtype=torch.float32) / 255
    objects = (glyphs[:, None, None] * colours[None, :, :, None, None]).flatten(0, 1)
    letters = torch.tensor([[[pixel == "#" for pixel in row] for row in rows] for rows in GLYPHS])
    letters = F.pad(letters.float(), (1, 2, 0, 1))[:, None] * colours[-1, :, None, None]
    return torch.cat([objects, torch.zeros(1, 3, CELL, CELL), letters])


def templates(letters: bool = False) -> Tensor:
    """Pictures of a cell: the 24 objects, the empty cell, and the 26 letters if asked for.

    float32 (25, 3, 8, 8) or (51, 3, 8, 8) in [0, 1].
    """
    return _known(letters).clone()


def _known(letters: bool) -> Tensor:
    return _templates() if letters else _templates()[:LETTER]


def one_object() -> Tensor:
    """List the 216 scenes of one object, int64 (216, 9)."""
    return equal_objects((1,))


def pairs() -> Tensor:
    """List the 20,736 scenes of two objects, equal ones included, int64 (20736, 9)."""
    places = torch.combinations(torch.arange(CELLS), 2)
    things = torch.cartesian_prod(torch.arange(EMPTY), torch.arange(EMPTY))
    scenes = torch.full((len(places), len(things), CELLS), EMPTY)
    for scene, (first, second) in zip(scenes, places.tolist(), strict=True):
        scene[:, first], scene[:, second] = things[:, 0], things[:, 1]
    return scenes.flatten(0, 1)


def equal_objects(counts: Sequence[int] = (1, 2, 3, 4)) -> Tensor:
    """List the scenes that hold one object several times.

    Args:
        counts: numbers of objects; of 1, 2, 3, 4 there are 24 * (9 + 36 + 84 + 126) = 6,120 scenes.
    Returns:
        int64 (n, 9), by count, then places, then objects.
    Raises:
        ValueError: a count is not from 1 to 9.
    """
    scenes = []
    for count in counts:
        if not 1 <= count <= CELLS:
            raise ValueError(
                f"a scene of {CELLS} cells cannot hold {count} objects; ask for 1 to 9"
            )
        for places in itertools.combinations(range(CELLS), count):
            scene = torch.full((EMPTY, CELLS), EMPTY)
            scene[:, list(places)] = torch.arange(EMPTY)[:, None]
            scenes.append(scene)
    return torch.cat(scenes) if scenes else torch.empty(0, CELLS, dtype=torch.int64)


def draw(cells: Tensor, border: int = 0) -> Tensor:
    """Draw scenes.

    Args:
        cells: int64 (n, 9), values 0 to 24, or to 50 with letters.
        border: black pixels around the scene; 4 makes 32x32 pixels.
    Returns:
        float32 (n, 3, 24 + 2 border, 24 + 2 border) in [0, 1], on the device of `cells`.
    Raises:
        ValueError: `cells` is not (n, 9), or holds a value that stands for nothing.
    """
    if cells.ndim != 2 or cells.shape[1] != CELLS:
        raise ValueError(f"cells are {tuple(cells.shape)}; a scene is a row of {CELLS} of them")
    last = EMPTY + len(LETTERS)
    if len(cells) and not 0 <= int(cells.min()) <= int(cells.max()) <= last:
        raise ValueError(
            f"cells hold values from {int(cells.min())} to {int(cells.max())}; objects are 0 to "
            f"{EMPTY - 1}, an empty cell is {EMPTY}, and letters are {LETTER} to {last}"
        )
    tiles = _templates().to(cells.device)[cells].unflatten(1, (SIDE, SIDE))
    pictures = tiles.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, SIDE * CELL, SIDE * CELL)
    return F.pad(pictures, (border,) * 4)


def read(pictures: Tensor, border: int = 0, letters: bool = False) -> Reading:
    """Read scenes: the nearest template of every cell.

    Args:
        pictures: (n, 3, 24 + 2 border, 24 + 2 border), values in [0, 1] where they are scenes.
        border: pixels around the scene, which are left out.
        letters: a cell may also hold a letter, as on a sign.
    Raises:
        ValueError: pictures are of another shape.
    """
    side = SIDE * CELL + 2 * border
    if pictures.ndim != 4 or tuple(pictures.shape[1:]) != (3, side, side):
        raise ValueError(
            f"pictures are {tuple(pictures.shape)}; with a border of {border} they are "
            f"(n, 3, {side}, {side})"
        )
    inner = pictures[..., border : side - border, border : side - border].to(torch.float32)
    tiles = inner.unflatten(3, (SIDE, CELL)).unflatten(2, (SIDE, CELL))
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3 * CELL * CELL)
    known = _known(letters).flatten(1).to(tiles.device)
    # Differences in place of |a|^2 - 2ab + |b|^2, whose rounding would be a residual of 0.0003.
    distance = torch.cdist(tiles, known, compute_mode="donot_use_mm_for_euclid_dist")
    nearest, cells = distance.min(1)
    shape = (len(pictures), CELLS)
    return Reading(cells.reshape(shape), (nearest / known.shape[1] ** 0.5).reshape(shape))


def valid(pictures: Tensor, border: int = 0, limit: float = 0.03, letters: bool = False) -> Tensor:
    """Tell pictures of this world from others, bool (n,).

    Every cell must be within `limit` (root mean square) of a template, half of what would let it be
    read wrongly, and so must the border be of black. Report the share of rejected pictures beside
    any accuracy: a model that draws nothing recognisable must not win by it.

    Args:
        letters: a cell may also hold a letter.
    Raises:
        ValueError: pictures are of another shape.
    """
    fits = (read(pictures, border, letters).residual < limit).all(1)
    if border:
        frame = F.pad(torch.zeros(SIDE * CELL, SIDE * CELL), (border,) * 4, value=1.0).bool()
        outside = pictures[..., frame.to(pictures.device)].to(torch.float32)
        fits &= outside.square().mean((1, 2)).sqrt() < limit
    return fits


def agreement(pictures: Tensor, counts: Tensor, border: int = 0) -> Agreement:
    """Tell how often pictures have equal objects, and as many as were asked for.

    Every cell is read as its nearest template, however far that is: no picture is left out.

    Args:
        pictures: as `read` takes them.
        counts: number of objects asked for, (n,).
    Raises:
        ValueError: pictures are of another shape.
    """
    cells = read(pictures, border).cells
    filled = cells != EMPTY
    several = filled.sum(1) > 1

    def alike(values: Tensor) -> Tensor:
        low, high = (values.where(filled, end) for end in (EMPTY, -1))
        return several & (low.amin(1) == high.amax(1))

    counted = filled.sum(1) == counts.to(cells.device)
    shares = alike(cells % len(COLOURS)), alike(cells // len(COLOURS)), counted
    shares = (*shares, valid(pictures, border))
    return Agreement(*(float(share.float().mean()) for share in shares))
