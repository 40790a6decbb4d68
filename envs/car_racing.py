"""CarRacing with a fast renderer: Gymnasium's physics, our own drawing.

Stock CarRacing-v3 spends 97 % of a step painting a 1000x800 window, polygon by polygon, to shrink
it to 96x96. Here `envs.car_renderer` draws the small picture directly, and `envs.car_physics`
does the car's arithmetic with less Python; the simulation stays equal bit for bit.
"""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from gymnasium.envs.box2d import car_racing as stock

from envs.car_physics import FastCar
from envs.car_renderer import BAR_TOP, ROW_WEIGHTS, Camera, TrackMap, draw_bar
from worldmodels.actions import check_finite_actions

# An output row overlaps two or three input rows: the first of them, and the three weights.
_FIRST_ROW = np.minimum((ROW_WEIGHTS > 0).argmax(axis=1), BAR_TOP - 3)
_THREE_WEIGHTS = np.stack([ROW_WEIGHTS[np.arange(64), _FIRST_ROW + k] for k in range(3)])
_THREE_WEIGHTS = _THREE_WEIGHTS.astype(np.uint16)[:, :, None]


def resize_frames(frames96: np.ndarray) -> np.ndarray:
    """Crop the status bar of CarRacing frames and shrink the rest to 64x64 by area averaging.

    Each output pixel is the mean of the 1.3125 x 1.5 pixels it covers, in whole numbers, rounded
    to nearest (the divisor is 63, odd, so there are no ties).

    Args:
        frames96: (..., 96, 96, 3) uint8, as CarRacing-v3 returns them.
    Returns:
        (..., 64, 64, 3) uint8.
    Raises:
        ValueError: frames96 has another shape or dtype.
    """
    frames96 = np.asarray(frames96)
    if frames96.shape[-3:] != (96, 96, 3) or frames96.dtype != np.uint8:
        raise ValueError(
            f"frames are {frames96.dtype} of shape {frames96.shape}; resize_frames needs uint8 "
            "(..., 96, 96, 3), the frames that CarRacing-v3 returns"
        )
    lead = frames96.shape[:-3]
    flat = frames96.reshape(*lead, 96, 96 * 3)
    first, second, third = (flat[..., _FIRST_ROW + k, :] * _THREE_WEIGHTS[k] for k in range(3))
    rows = first + second + third
    groups = rows.reshape(*lead, 64, 32, 3, 3)  # three columns become two
    left, middle, right = groups[..., 0, :], groups[..., 1, :], groups[..., 2, :]
    total = np.empty((*lead, 64, 32, 2, 3), np.uint16)  # at most 255 * 63
    total[..., 0, :] = 2 * left + middle
    total[..., 1, :] = middle + 2 * right
    return ((total + 31) // 63).astype(np.uint8).reshape(*lead, 64, 64, 3)


class FastCarRacing(stock.CarRacing):
    """Gymnasium's CarRacing-v3 with observations drawn by our own renderer.

    The same seed and actions give exactly the rewards, ends, infos and car states of
    CarRacing-v3. Constructor and spaces are the same too; render() draws as stock does.
    """

    _picture_size = 96
    # From the first reset on; the map takes 14 MB.
    car: FastCar
    _map: TrackMap

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._camera = Camera(self._picture_size)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Start an episode on a new track.

        Args:
            seed: fixes this episode and those that follow it, as in CarRacing-v3.
            options: besides CarRacing-v3's "randomize",
                start_tile: the tile on which the car starts, facing along the track: its number,
                    which wraps around the loop, or "random" (drawn from the environment's
                    generator after the track, which stays unchanged).
                zoom: False skips the opening second, in which the camera flies in.
        Raises:
            ValueError: start_tile has another value.
        """
        options = options or {}
        start_tile = options.get("start_tile", 0)
        if start_tile != "random" and not isinstance(start_tile, (int, np.integer)):
            raise ValueError(f'start_tile is {start_tile!r}; pass a tile\'s number or "random"')
        # The steps of stock's reset, in its order; only the car's place and class are ours.
        super(stock.CarRacing, self).reset(seed=seed)
        self._destroy()
        detector = stock.FrictionDetector(self, self.lap_complete_percent)
        self.world.contactListener_bug_workaround = detector  # type: ignore[attr-defined]  # SWIG's
        self.world.contactListener = detector
        self.reward = 0.0
        self.prev_reward = 0.0
        self.tile_visited_count = 0
        self.t = 0.0 if options.get("zoom", True) else 1.0
        self.new_lap = False
        self.road_poly = []
        if self.domain_randomize:
            self._reinit_colors(options.get("randomize", True))
        while not self._create_track():
            if self.verbose:
                print("retry to generate track (normal if there are not many of these messages)")
        self._paint_map()
        if start_tile == "random":
            start_tile = self.np_random.integers(len(self.track))
        beta, x, y = self.track[start_tile % len(self.track)][1:4]
        self.car = FastCar(self.world, beta, x, y)
        if "start_tile" in options:
            self.car.align_wheels()
        if self.render_mode == "human":
            self.render()
        return self.step(None)[0], {}  # type: ignore[arg-type]  # stock's reset passes None too

    def step(self, action):
        """One step, as in CarRacing-v3.

        Raises:
            NotFiniteActionError: the action holds NaN or an infinity.
        """
        if action is not None:  # as `reset` passes it
            check_finite_actions(action)
        return super().step(action)

    def _paint_map(self) -> None:
        if not hasattr(self, "_map"):
            self._map = TrackMap()
        self.road_poly = self._map.paint(self.road_poly, self.bg_color, self.grass_color)
        assert self.road is not None  # a list, once there is a track
        tile_colors = [color for _, color in self.road_poly if not isinstance(color, tuple)]
        for tile, color in zip(self.road, tile_colors, strict=True):
            tile.color = color

    def _render(self, mode: str):
        if mode == "state_pixels":
            return self._observe()
        return super()._render(mode)

    def _observe(self) -> np.ndarray:
        picture = np.empty((96, 96, 3), np.uint8)
        self._camera.draw(picture, self._map, self.car, self.t)
        draw_bar(picture[BAR_TOP:], self.car, self.reward)
        return picture


class CarRacing64(FastCarRacing):
    """FastCarRacing as world models see it: 64x64x3 uint8, without the status bar.

    The observation is drawn at this size; it equals `resize_frames` of the 96x96 one except for
    rounding.
    """

    _picture_size = 64

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)

    def _observe(self) -> np.ndarray:
        picture = np.empty((64, 64, 3), np.uint8)
        self._camera.draw(picture, self._map, self.car, self.t)
        return picture
