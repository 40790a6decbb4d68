"""Fast renderer of CarRacing, which draws Gymnasium's 1000x800 window directly at a small size.

Once per reset the track is painted, seen from above, into a map of labels (one small integer per
texel: the road tile, kerb or lawn there). A frame then looks up the texels under every pixel of the
small picture, and draws the car on top.

Top to bottom: the pixels, the label map (`TrackMap`), the camera (`Camera`), the status bar
(`draw_bar`).

Numba compiles the kernels on first use: a few seconds, once per machine, as the result is
cached beside this file, or in the user's cache folder where this one cannot be written to.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np
import pygame
from gymnasium.envs.box2d import car_racing as stock
from gymnasium.envs.box2d.car_dynamics import (
    HULL_POLY1,
    HULL_POLY2,
    HULL_POLY3,
    HULL_POLY4,
    SIZE,
    WHEEL_COLOR,
    WHEEL_R,
    WHEEL_W,
    WHEEL_WHITE,
    WHEELPOS,
    Car,
)
from numba import njit

# ---------------------------------------------------------------------------------------------
# The pixels: 96x96 with a status bar in stock, 64x64 without for world models
# ---------------------------------------------------------------------------------------------

BAR_TOP = 84  # the status bar fills rows 84 to 95 of the 96x96 picture


def overlaps(num_out: int, num_in: int) -> np.ndarray:
    """Weight of each input pixel in each output pixel by overlap, as whole numbers.

    Returns:
        (num_out, num_in) int64; every row sums to num_in / gcd(num_in, num_out).
    """
    common = math.gcd(num_in, num_out)
    wide, narrow = num_in // common, num_out // common  # of an output and of an input pixel
    out, into = np.arange(num_out)[:, None], np.arange(num_in)
    overlap = np.minimum(wide * (out + 1), narrow * (into + 1))
    overlap -= np.maximum(wide * out, narrow * into)
    return np.maximum(overlap, 0)


ROW_WEIGHTS = overlaps(64, BAR_TOP)  # in 21sts
COLUMN_WEIGHTS = overlaps(64, 96)  # in thirds


# ---------------------------------------------------------------------------------------------
# The label map
# ---------------------------------------------------------------------------------------------

TEXEL = 0.25  # world units; the road is 13.3 wide and a pixel of the 96x96 picture 0.64 x 0.51
_HALF = stock.PLAYFIELD + 1.0  # the map ends just outside the playfield, where everything is black
_MAP_SIZE = math.ceil(2 * _HALF / TEXEL)
# gfxdraw's outlined polygons reach half a window pixel past their edges.
_GROW = 0.5 / (stock.ZOOM * stock.SCALE)
# Texels this close to an edge between two colours are marked: the camera averages there
# and reads one texel elsewhere: half a pixel's diagonal, and half a texel's.
_EDGE_REACH = 0.42 + 0.71 * TEXEL
_EDGE = 0x8000
_LABEL = 0x7FFF
_OUTSIDE, _LAWN, _GRASS, _WHITE, _RED, _FIRST_TILE = range(6)


def _lawn_bands() -> tuple[np.ndarray, np.ndarray]:
    """The chequered lawn along one axis, which is the same for x and y.

    Returns:
        bands: (_MAP_SIZE,) uint8: _OUTSIDE, _LAWN, or _GRASS, where a patch lies if the other axis
            has _GRASS too.
        edges: (_MAP_SIZE,) uint8: 1 near the edge of a patch, 2 near the edge of the playfield.
    """
    position = (np.arange(_MAP_SIZE) + 0.5) * TEXEL - _HALF
    bands = np.full(_MAP_SIZE, _LAWN, np.uint8)
    edges = np.zeros(_MAP_SIZE, np.uint8)
    for k in range(-20, 20, 2):  # as stock draws them
        low, high = stock.GRASS_DIM * k - _GROW, stock.GRASS_DIM * (k + 1) + _GROW
        bands[(position >= low) & (position <= high)] = _GRASS
        for edge in (low, high):
            edges[np.abs(position - edge) <= _EDGE_REACH] = 1
    limit = stock.PLAYFIELD + _GROW
    bands[np.abs(position) > limit] = _OUTSIDE
    edges[np.abs(np.abs(position) - limit) <= _EDGE_REACH] = 2
    return bands, edges


@njit(cache=True, nogil=True)
def _paint_lawn(labels, bands, edges, x0, x1, y0, y1):
    """Write the bare lawn into labels[y0:y1, x0:x1]."""
    for y in range(y0, y1):
        for x in range(x0, x1):
            label = min(bands[x], bands[y])
            marked = (
                edges[x] == 2
                or edges[y] == 2
                or (edges[x] == 1 and (bands[y] == _GRASS or edges[y] == 1))
                or (edges[y] == 1 and bands[x] == _GRASS)
            )
            labels[y, x] = label | (_EDGE if marked else 0)


@njit(cache=True, nogil=True)
def _fill_quad(labels, quad, grow, label, mark):
    """Fill a convex quadrilateral grown by `grow` world units to every side.

    With mark, texels keep their label and get the edge mark instead.
    """
    area = 0.0
    for k in range(4):
        n = (k + 1) % 4
        area += quad[k, 0] * quad[n, 1] - quad[n, 0] * quad[k, 1]
    turn = 1.0 if area > 0 else -1.0
    low, high = quad[0, 1], quad[0, 1]
    for k in range(1, 4):
        low = min(low, quad[k, 1])
        high = max(high, quad[k, 1])
    y0 = max(0, math.floor((low - grow + _HALF) / TEXEL - 0.5) + 1)
    y1 = min(labels.shape[0], math.floor((high + grow + _HALF) / TEXEL - 0.5) + 1)
    for row in range(y0, y1):
        y = (row + 0.5) * TEXEL - _HALF
        left, right = -1e9, 1e9
        for k in range(4):
            n = (k + 1) % 4
            # Inside is where a * x + b * y <= c, (a, b) the outward normal of unit length.
            a = turn * (quad[n, 1] - quad[k, 1])
            b = turn * (quad[k, 0] - quad[n, 0])
            length = math.sqrt(a * a + b * b)
            if length < 1e-9:
                continue
            c = a * quad[k, 0] + b * quad[k, 1] + grow * length
            if a > 1e-9:
                right = min(right, (c - b * y) / a)
            elif a < -1e-9:
                left = max(left, (c - b * y) / a)
            elif b * y > c:
                right = -1e9
        x0 = max(0, math.floor((left + _HALF) / TEXEL - 0.5) + 1)
        x1 = min(labels.shape[1], math.floor((right + _HALF) / TEXEL - 0.5) + 1)
        if mark:
            for x in range(x0, x1):
                labels[row, x] |= _EDGE
        else:
            for x in range(x0, x1):
                labels[row, x] = label


@njit(cache=True, nogil=True)
def _paint_track(labels, quads, codes):
    """Paint road tiles and kerbs in the order given, then mark the edges of the road."""
    for i in range(quads.shape[0]):
        _fill_quad(labels, quads[i], _GROW, codes[i], False)
    stroke = np.empty((4, 2))
    for i in range(quads.shape[0]):
        for k in range(4):
            # Consecutive tiles share their sides 0 and 2 (all but the first, which closes the
            # loop), and their colours hardly differ. A kerb's own ends separate red from white.
            if codes[i] > _FIRST_TILE and k % 2 == 0:
                continue
            n = (k + 1) % 4
            stroke[0] = quads[i, k]
            stroke[1] = quads[i, k]
            stroke[2] = quads[i, n]
            stroke[3] = quads[i, n]
            _fill_stroke(labels, quads[i, k], quads[i, n], stroke)


@njit(cache=True, nogil=True)
def _fill_stroke(labels, start, end, quad):
    """Mark the texels within _EDGE_REACH of a segment; quad is (4, 2) scratch space."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.sqrt(dx * dx + dy * dy)
    if length < 1e-9:
        return
    reach = _EDGE_REACH + _GROW
    dx, dy = dx / length * reach, dy / length * reach
    quad[0, 0], quad[0, 1] = start[0] - dx + dy, start[1] - dy - dx
    quad[1, 0], quad[1, 1] = end[0] + dx + dy, end[1] + dy - dx
    quad[2, 0], quad[2, 1] = end[0] + dx - dy, end[1] + dy + dx
    quad[3, 0], quad[3, 1] = start[0] - dx - dy, start[1] - dy + dx
    _fill_quad(labels, quad, 0.0, 0, True)


class TrackMap:
    """Map of the track: a label per texel of the playfield, and a colour per label.

    Attributes:
        labels: (_MAP_SIZE, _MAP_SIZE) uint16, [y, x]; the highest bit marks texels near an edge.
        colors: (num labels, 3) float64, as stock would pass them to pygame.
    """

    def __init__(self) -> None:
        self._bands, self._edges = _lawn_bands()
        self.labels = np.empty((_MAP_SIZE, _MAP_SIZE), np.uint16)
        _paint_lawn(self.labels, self._bands, self._edges, 0, _MAP_SIZE, 0, _MAP_SIZE)
        self._quads = np.empty((0, 4, 2))

    def paint(self, road_poly: list, lawn_color: np.ndarray, grass_color: np.ndarray) -> list:
        """Paint a new track in place of the old one.

        Args:
            road_poly: stock's list of (four corners, colour) of tiles and kerbs.
            lawn_color, grass_color: three numbers each.
        Returns:
            road_poly again, the tiles' colours replaced by views of `colors`: when physics
            recolours a tile that the car has touched, the picture follows.
        """
        self._wipe()
        codes = np.empty(len(road_poly), np.uint16)
        colors = [np.zeros(3), lawn_color, grass_color, np.full(3, 255), np.array([255, 0, 0])]
        for i, (_, color) in enumerate(road_poly):
            if isinstance(color, tuple):  # a kerb; a tile's colour is an array
                codes[i] = _WHITE if color[1] else _RED
            else:
                codes[i] = len(colors)
                colors.append(color)
        self.colors = np.array(colors, dtype=np.float64)
        self._quads = np.array([poly for poly, _ in road_poly], dtype=np.float64)
        _paint_track(self.labels, self._quads, codes)
        return [
            (poly, self.colors[code] if code >= _FIRST_TILE else color)
            for (poly, color), code in zip(road_poly, codes, strict=True)
        ]

    def _wipe(self) -> None:
        """Give the texels of the painted track back to the lawn."""
        reach = 1.5 * (_EDGE_REACH + _GROW)  # a marked edge's corners are 1.42 times as far
        low = (self._quads.min(axis=1, initial=np.inf) - reach + _HALF) / TEXEL
        high = (self._quads.max(axis=1, initial=-np.inf) + reach + _HALF) / TEXEL
        _wipe_boxes(self.labels, self._bands, self._edges, low, high)


@njit(cache=True, nogil=True)
def _wipe_boxes(labels, bands, edges, low, high):
    for i in range(low.shape[0]):
        _paint_lawn(
            labels,
            bands,
            edges,
            max(0, int(low[i, 0])),
            min(labels.shape[1], int(high[i, 0]) + 1),
            max(0, int(low[i, 1])),
            min(labels.shape[0], int(high[i, 1]) + 1),
        )


# ---------------------------------------------------------------------------------------------
# The camera
# ---------------------------------------------------------------------------------------------

# Pixels near an edge are averaged over 4 x 4 samples.
_SAMPLES = 4
_FULL_ZOOM = stock.ZOOM * stock.SCALE  # window pixels per world unit after the first second
_WINDOW_W = stock.WINDOW_W
_CAMERA_X, _CAMERA_Y = stock.WINDOW_W / 2, stock.WINDOW_H / 4  # where the car is, y pointing up

# pygame's polygons include their border pixels: half a window pixel to every side.
_CAR_GROW = _GROW / SIZE
_HULL_LOW, _HULL_HIGH = -120 - _CAR_GROW, 130 + _CAR_GROW  # in HULL_POLY's units
_HULL_STEP = 0.5
# The car, wheels turned, lies within this box around the hull's centre.
_CAR_BOX_X, _CAR_BOX_LOW, _CAR_BOX_HIGH = 82.0, -124.0, 134.0


def _hull_profile() -> np.ndarray:
    """Half the hull's width from its back to its front; the hull is symmetric."""
    heights = np.arange(_HULL_LOW, _HULL_HIGH + _HULL_STEP, _HULL_STEP)
    profile = np.zeros_like(heights)
    for poly in (HULL_POLY1, HULL_POLY2, HULL_POLY3, HULL_POLY4):
        ys, xs = np.array(sorted((y, x) for x, y in poly if x > 0), np.float64).T
        width = np.interp(heights, ys, xs) + _CAR_GROW
        covered = (heights >= ys[0] - _CAR_GROW) & (heights <= ys[-1] + _CAR_GROW)
        profile = np.where(covered, np.maximum(profile, width), profile)
    return profile


_HULL_PROFILE = _hull_profile()
_WHEEL_XY = np.array(WHEELPOS, np.float64).T.copy()  # front left, front right, rear ...

_NO_PART, _HULL, _TYRE, _MARK = range(4)  # the mark shows a wheel turning
_CAR_COLORS = np.array([(0, 0, 0), (204, 0, 0), WHEEL_COLOR, WHEEL_WHITE], np.float64)


@njit(cache=True, nogil=True)
def _draw_view(picture, labels, colors, car_colors, pose, wheels, shape, wheel_xy, u, v):
    """Draw the view of the camera over the car: the track and the car.

    Args:
        picture: uint8, at least (rows, columns, 3), written.
        labels, colors: see TrackMap.
        car_colors: (4, 3), by part of the car.
        pose: (4,): x, y, angle of the hull, zoom in window pixels per world unit.
        wheels: (2, 4): angles against the hull, and phases (how far each wheel has rolled).
        shape, wheel_xy: the hull's profile and the places of the wheels.
        u, v: see Camera.
    """
    zoom = pose[3]
    cos, sin = math.cos(pose[2]), math.sin(pose[2])
    # A point (u, v) of the window lies over texel (ox + xu * u + xv * v, oy + yu * u + yv * v).
    scale = 1.0 / (zoom * TEXEL)
    xu, xv, yu, yv = cos * scale, -sin * scale, sin * scale, cos * scale
    ox, oy = (pose[0] + _HALF) / TEXEL, (pose[1] + _HALF) / TEXEL
    size = labels.shape[0]
    flat = labels.reshape(size * size)
    last = size - 1

    palette = _darken(colors)
    car_palette = _darken(car_colors)
    turned = np.empty((4, 4))  # by wheel: cos, sin of its angle, low and high end of its mark
    for w in range(4):
        turned[w, 0], turned[w, 1] = math.cos(wheels[0, w]), math.sin(wheels[0, w])
        # As in Car.draw: the mark spans 1.2 radians of the wheel, seen from above.
        s1, s2 = math.sin(wheels[1, w]), math.sin(wheels[1, w] + 1.2)
        c1, c2 = math.cos(wheels[1, w]), math.cos(wheels[1, w] + 1.2)
        c1 = np.sign(c1) if s1 > 0 else c1
        c2 = np.sign(c2) if s2 > 0 else c2
        hidden = s1 > 0 and s2 > 0
        turned[w, 2] = 1e9 if hidden else WHEEL_R * min(c1, c2) - _CAR_GROW
        turned[w, 3] = -1e9 if hidden else WHEEL_R * max(c1, c2) + _CAR_GROW

    unit = 1.0 / (zoom * SIZE)  # HULL_POLY's units per window pixel
    everywhere = zoom < 0.9 * _FULL_ZOOM  # a pixel is then wider than the edge marks
    count = _SAMPLES * _SAMPLES
    for row in range(v.shape[0]):
        car_row = _CAR_BOX_LOW - 15 * unit < v[row, 0] * unit < _CAR_BOX_HIGH + 15 * unit
        x_row, y_row = ox + xv * v[row, 0], oy + yv * v[row, 0]
        for column in range(u.shape[0]):
            tx = min(max(int(x_row + xu * u[column, 0]), 0), last)
            ty = min(max(int(y_row + yu * u[column, 0]), 0), last)
            label = flat[np.uintp(ty * size + tx)]
            has_car = car_row and abs(u[column, 0]) * unit < _CAR_BOX_X + 15 * unit
            if not (label & _EDGE or has_car or everywhere):
                picture[row, column, 0] = palette[label, 0]
                picture[row, column, 1] = palette[label, 1]
                picture[row, column, 2] = palette[label, 2]
                continue
            red, green, blue = count // 2, count // 2, count // 2
            for i in range(1, _SAMPLES + 1):
                vi = v[row, i]
                for j in range(1, _SAMPLES + 1):
                    uj = u[column, j]
                    part = _NO_PART
                    if has_car:
                        part = _car_part(uj * unit, vi * unit, shape, wheel_xy, turned)
                    if part != _NO_PART:
                        red += car_palette[part, 0]
                        green += car_palette[part, 1]
                        blue += car_palette[part, 2]
                        continue
                    tx = min(max(int(ox + xu * uj + xv * vi), 0), last)
                    ty = min(max(int(oy + yu * uj + yv * vi), 0), last)
                    label = flat[np.uintp(ty * size + tx)] & _LABEL
                    red += palette[label, 0]
                    green += palette[label, 1]
                    blue += palette[label, 2]
            picture[row, column, 0] = red // count
            picture[row, column, 1] = green // count
            picture[row, column, 2] = blue // count


@njit(cache=True, nogil=True)
def _car_part(x, y, shape, wheel_xy, turned):
    """Part of the car that covers (x, y), in HULL_POLY's units from the hull's centre."""
    if _HULL_LOW <= y <= _HULL_HIGH and abs(x) <= shape[int((y - _HULL_LOW) / _HULL_STEP)]:
        return _HULL  # drawn last
    w = (0 if y > 0 else 2) + (0 if x < 0 else 1)  # each quarter has one wheel
    dx, dy = x - wheel_xy[0, w], y - wheel_xy[1, w]
    across = turned[w, 0] * dx + turned[w, 1] * dy
    along = turned[w, 0] * dy - turned[w, 1] * dx
    if abs(across) > WHEEL_W + _CAR_GROW:
        return _NO_PART
    if turned[w, 2] <= along <= turned[w, 3]:
        return _MARK
    if abs(along) <= WHEEL_R + _CAR_GROW:
        return _TYRE
    return _NO_PART


@njit(cache=True, nogil=True)
def _darken(colors):
    """Colours as they appear in the picture: pygame's smoothscale truncates along each axis, which
    lowers a flat colour by one level each time."""
    darker = np.empty(colors.shape, np.uint8)
    for i in range(colors.shape[0]):
        for channel in range(3):
            darker[i, channel] = max(int(colors[i, channel]) - 2, 0)
    return darker


class Camera:
    """Camera over the car, which draws 64x64 pixels or the upper 84 rows of 96x96.

    A pixel of the stock picture is the mean of a rectangle of the 1000x800 window, and one of the
    64x64 picture a weighted mean of those. Its samples stand at equal steps of that weight along
    both axes, so a plain mean over them is the pixel.

    Attributes:
        u: (columns, 1 + _SAMPLES), v: (rows, 1 + _SAMPLES): the middle of each pixel and its
            samples, in window pixels from the car, v pointing up.
    """

    def __init__(self, size: int) -> None:
        if size == 64:
            rows, columns = ROW_WEIGHTS, COLUMN_WEIGHTS
        else:
            rows, columns = np.eye(BAR_TOP), np.eye(96)
        self.u = _sample_points(columns, stock.WINDOW_W / stock.STATE_W) - _CAMERA_X
        rows = _sample_points(rows, stock.WINDOW_H / stock.STATE_H)
        self.v = stock.WINDOW_H - rows - _CAMERA_Y
        self._pose = np.empty(4)
        self._wheels = np.empty((2, 4))

    def draw(self, picture: np.ndarray, track: TrackMap, car: Car, t: float) -> None:
        """Draw the track and the car into picture.

        Args:
            picture: (64, 64, 3) or (96, 96, 3) uint8, written; the status bar is left alone.
            t: seconds since the start; during the first one the camera zooms in.
        """
        hull, pose, wheels = car.hull, self._pose, self._wheels
        position, angle = hull.position, hull.angle
        pose[0], pose[1], pose[2] = position.x, position.y, angle
        pose[3] = 0.1 * stock.SCALE * max(1 - t, 0) + _FULL_ZOOM * min(t, 1)
        for i, wheel in enumerate(car.wheels):
            wheels[0, i] = wheel.angle - angle
            wheels[1, i] = wheel.phase
        _draw_view(
            picture,
            track.labels,
            track.colors,
            _CAR_COLORS,
            pose,
            wheels,
            _HULL_PROFILE,
            _WHEEL_XY,
            self.u,
            self.v,
        )


def _sample_points(weights: np.ndarray, pitch: float) -> np.ndarray:
    """The middle of each output pixel and its samples along one axis, in window pixels.

    Args:
        weights: (num_out, num_in), weight of each stock pixel in each output pixel.
        pitch: window pixels per stock pixel.
    Returns:
        (num_out, 1 + _SAMPLES).
    """
    edges = np.arange(weights.shape[1] + 1) * pitch
    quantiles = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    points = np.empty((len(weights), 1 + _SAMPLES))
    for out, row in enumerate(weights):
        share = np.concatenate([[0.0], np.cumsum(row / row.sum())])
        points[out, 0] = row @ (edges[:-1] + pitch / 2) / row.sum()
        points[out, 1:] = np.interp(quantiles, share, edges)
    return points


# ---------------------------------------------------------------------------------------------
# The status bar
# ---------------------------------------------------------------------------------------------

_BAR_ROWS = stock.STATE_H - BAR_TOP
_BAR_HEIGHT = stock.WINDOW_H * _BAR_ROWS // stock.STATE_H  # 100 window pixels
_SCORE_COLUMNS = 12  # the score lies in the window's first 125 pixels


def draw_bar(bar: np.ndarray, car: Car, reward: float) -> None:
    """Draw score, speed, wheel speeds, steering and turning rate.

    Args:
        bar: (12, 96, 3) uint8, written.
    """
    velocity, wheels = car.hull.linearVelocity, car.wheels
    gauges = [math.hypot(velocity.x, velocity.y), *(wheel.omega for wheel in wheels)]
    gauges += [wheels[0].joint.angle, car.hull.angularVelocity]
    _draw_gauges(bar, np.array(gauges, np.float64))
    bar[:, :_SCORE_COLUMNS] = _score_picture(f"{reward:04.0f}")


@njit(cache=True, nogil=True)
def _draw_gauges(bar, values):
    """Draw the bar's gauges as stock's _render_indicators does.

    Args:
        bar: (12, 96, 3) uint8, written.
        values: (7,): speed, four wheel speeds, steering angle, turning rate.
    """
    height, width = bar.shape[0], bar.shape[1]
    pitch_x, pitch_y = _WINDOW_W / width, _BAR_HEIGHT / height
    s, h = _WINDOW_W / 40.0, _BAR_HEIGHT / 5.0
    scales = (0.02, 0.01, 0.01, 0.01, 0.01, -10.0, -0.8)
    places = (5, 7, 8, 9, 10, 20, 30)
    colors = (
        (255, 255, 255),
        (0, 0, 255),
        (0, 0, 255),
        (51, 0, 255),
        (51, 0, 255),
        (0, 255, 0),
        (255, 0, 0),
    )
    levels = np.zeros((height, width, 3))
    for k in range(7):
        if abs(values[k]) <= 1e-4:
            continue
        length = scales[k] * values[k]
        if k < 5:  # upright
            x0, x1 = places[k] * s, (places[k] + 1) * s
            y0, y1 = _BAR_HEIGHT - h - h * length, _BAR_HEIGHT - h
        else:
            x0, x1 = places[k] * s, (places[k] + length) * s
            y0, y1 = h, 3 * h
        # pygame truncates corners and includes the last row and column.
        left, right = float(int(min(x0, x1))), float(int(max(x0, x1))) + 1
        top, bottom = float(int(min(y0, y1))), float(int(max(y0, y1))) + 1
        for row in range(max(0, int(top / pitch_y)), min(height, int(bottom / pitch_y) + 1)):
            tall = min(bottom, (row + 1) * pitch_y) - max(top, row * pitch_y)
            for column in range(max(0, int(left / pitch_x)), min(width, int(right / pitch_x) + 1)):
                wide = min(right, (column + 1) * pitch_x) - max(left, column * pitch_x)
                share = max(tall, 0.0) * max(wide, 0.0) / (pitch_x * pitch_y)
                for channel in range(3):
                    level = levels[row, column, channel]
                    levels[row, column, channel] += share * (colors[k][channel] - level)
    for row in range(height):
        for column in range(width):
            for channel in range(3):
                bar[row, column, channel] = max(int(levels[row, column, channel] + 0.5) - 2, 0)


@lru_cache(maxsize=4096)
def _score_picture(text: str) -> np.ndarray:
    """The bar's left end with the score, drawn and shrunk by pygame as stock does it.

    Returns:
        (12, 12, 3) uint8.
    """
    try:
        score = _score_font().render(text, True, (255, 255, 255), (0, 0, 0))
    except pygame.error:  # somebody called pygame.quit(), which ends all fonts
        _score_font.cache_clear()
        score = _score_font().render(text, True, (255, 255, 255), (0, 0, 0))
    place = score.get_rect()
    place.center = (60, _BAR_HEIGHT // 2)
    window = pygame.Surface((_SCORE_COLUMNS * stock.WINDOW_W // stock.STATE_W, _BAR_HEIGHT))
    window.blit(score, place)
    shrunk = pygame.transform.smoothscale(window, (_SCORE_COLUMNS, _BAR_ROWS))
    return pygame.surfarray.array3d(shrunk).transpose(1, 0, 2)


@cache
def _score_font() -> pygame.font.Font:
    pygame.font.init()
    return pygame.font.Font(pygame.font.get_default_font(), 42)
