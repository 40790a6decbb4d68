"""Pictures of tensors, uint8 (H, W, 3) for `Metrics.log_image`: image grids, point clouds.

run.metrics.log_image(step, "samples", image_grid(model.sample(64)))
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 2
"""Pixels between the parts of a picture."""
GROUND = 190
"""Grey between the parts, distinct from black and white images."""
LABEL_SIZE = 14
"""Height of the letters beside rows, in pixels."""


def image_grid(images: Tensor, columns: int = 0, scale: int = 1) -> np.ndarray:
    """Arrange images (N, C, H, W) in [0, 1], C 1 or 3, in a grid, row by row.

    Args:
        columns: images in a row; 0 makes the grid as square as possible.
        scale: side of the square that shows one pixel, so that small images are visible.
    Raises:
        ValueError: the images have another shape, or there are none.
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(
            f"got images of shape {tuple(images.shape)}; a picture needs (N, 1 or 3, H, W)"
        )
    pixels = images.detach().float().cpu().clamp(0, 1).mul(255).round().byte().movedim(1, -1)
    pixels = pixels.expand(-1, -1, -1, 3).repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    n, height, width, _ = pixels.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    picture = np.full(
        (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), GROUND, dtype=np.uint8
    )
    for i, image in enumerate(pixels.numpy()):
        top, left = i // columns * (height + GAP), i % columns * (width + GAP)
        picture[top : top + height, left : left + width] = image
    return picture


def strips(*rows: Tensor, scale: int = 1, labels: Sequence[str] = ()) -> np.ndarray:
    """Stack rows of equally many images, such as originals above reconstructions.

    Args:
        labels: one beside each row, or none.
    """
    if labels:
        return labelled([image_grid(row, len(row), scale) for row in rows], labels)
    return image_grid(torch.cat(rows), columns=len(rows[0]), scale=scale)


def labelled(rows: Sequence[np.ndarray], labels: Sequence[str]) -> np.ndarray:
    """Stack pictures of one width, each on the right of its label.

    Args:
        rows: uint8 (H, W, 3).
        labels: one for each.
    """
    font, pen = _font(LABEL_SIZE), ImageDraw.Draw(Image.new("RGB", (1, 1)))
    margin = 12 + math.ceil(max(pen.textlength(label, font) for label in labels))
    height = sum(len(row) + GAP for row in rows) - GAP
    picture = Image.new("RGB", (margin + rows[0].shape[1], height), "white")
    top, draw = 0, ImageDraw.Draw(picture)
    for row, label in zip(rows, labels, strict=True):
        draw.rectangle((margin, top, picture.width, top + len(row) + GAP), (GROUND,) * 3)
        picture.paste(Image.fromarray(row), (margin, top))
        draw.text((margin - 6, top + len(row) / 2), label, "black", font, anchor="rm")
        top += len(row) + GAP
    return np.array(picture)


def sheet(pictures: Sequence[np.ndarray], titles: Sequence[str], columns: int = 0) -> np.ndarray:
    """Arrange pictures of one size row by row, each below its title.

    Args:
        pictures: uint8 (H, W, 3).
        titles: one for each; a title that is wider than its picture is written smaller, and in two
            lines where these can be larger than one.
        columns: pictures in a row; 0 puts all into one.
    """
    height, width, _ = pictures[0].shape
    columns, band = columns or len(pictures), max(14, width // 9)
    cells = []
    for picture, title in zip(pictures, titles, strict=True):
        cell = Image.new("RGB", (width, height + band), "white")
        draw, room = ImageDraw.Draw(cell), 0.96 * width
        size, lines = max(
            (_fitting(draw, lines, most * band, room), lines)
            for most, lines in ((0.72, (title,)), (0.42, _halves(title)))
        )
        text = "\n".join(lines)
        draw.text(
            (width / 2, band / 2), text, "black", _font(size), anchor="mm", align="center",
            spacing=0,
        )  # fmt: skip
        cell.paste(Image.fromarray(picture), (0, band))
        cells.append(torch.from_numpy(np.array(cell)).movedim(-1, 0) / 255)
    return image_grid(torch.stack(cells), columns=columns)


def _halves(title: str) -> tuple[str, ...]:
    """A title in two lines of about the same length; one word stays one."""
    spaces = [place for place, letter in enumerate(title) if letter == " "]
    if not spaces:
        return (title,)
    middle = min(spaces, key=lambda place: abs(2 * place - len(title)))
    return title[:middle], title[middle + 1 :]


def _fitting(draw: ImageDraw.ImageDraw, lines: Sequence[str], size: float, room: float) -> float:
    """Largest font size up to this at which no line is wider than the room, 4 at least."""
    while size > 4 and max(draw.textlength(line, _font(size)) for line in lines) > room:
        size -= 0.5
    return size


@functools.cache
def _font(size: float) -> Any:
    return ImageFont.load_default(size)


def point_clouds(
    clouds: Sequence[Tensor],
    limit: float = 3.0,
    side: int = 200,
    titles: Sequence[str] = (),
    columns: int = 0,
) -> np.ndarray:
    """Draw clouds of points (N, 2), each in the square from -limit to limit.

    Darker pixels hold more points; the second axis points up.

    Args:
        side: pixels along each side of a square.
        titles: one above each cloud, or none.
        columns: clouds in a row; 0 puts all into one.
    """
    panels = []
    for cloud in clouds:
        x, y = cloud.detach().double().cpu().clamp(-2 * limit, 2 * limit).numpy().T
        counts, _, _ = np.histogram2d(-y, x, bins=side, range=[[-limit, limit]] * 2)
        ink = np.minimum(1.0, counts / max(1.0, np.quantile(counts[counts > 0], 0.9)))
        panels.append(torch.from_numpy(1 - ink).float()[None])
    if titles:
        pictures = [image_grid(panel[None]) for panel in panels]
        return sheet(pictures, titles, columns)
    return image_grid(torch.stack(panels), columns=columns or len(panels))
