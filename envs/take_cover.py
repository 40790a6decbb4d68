"""DoomTakeCover as world models see it: dodge fireballs as long as possible.

    env = gymnasium.make("envs:WorldModels/TakeCover64-v0")      # needs the extra `doom`

The scenario "take cover" of ViZDoom (Kempka et al. 2016): a bare room, the player at one wall,
monsters at the other who throw fireballs, and more of them over time. The player can only step
sideways. It is the second task of Ha & Schmidhuber (2018), solved at a mean of 750 tics.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import EzPickle

from generative.training.extras import how_to_install
from worldmodels.actions import check_finite_actions

__all__ = ["MAX_TICS", "STRIP", "TakeCover64", "cut_strip"]

MAX_TICS = 2100
"""Tics (of 1/35 s) after which an episode is truncated: one minute."""

STRIP = slice(88, 152)
"""Rows kept of the engine's 320x240 picture. The horizon is row 120. Wall, monsters and fireballs
lie around it; the rest is grey ceiling and floor."""

PICTURE = (240, 320, 3)


def cut_strip(picture: np.ndarray) -> np.ndarray:
    """Crop a picture of the engine, (240, 320, 3) uint8 -> (64, 64, 3) uint8.

    The 64 rows of `STRIP`, and in each the means of five pixels side by side (rounded to nearest).
    A fireball is 2 or 3 columns wide when it is thrown, and higher than wide: only its column
    matters, as the player can move in one direction only.
    """
    columns = picture[STRIP].reshape(64, 64, 5, 3).sum(axis=2, dtype=np.uint16)
    return ((columns + 2) // 5).astype(np.uint8)


class TakeCover64(gymnasium.Env, EzPickle):
    """One player, 64x64 frames, a reward of 1 for every tic.

    Observations are uint8 (64, 64, 3), see `cut_strip`; bar and weapon are hidden, as in the
    scenario. The action is one number in [-1, 1]: left below -1/3, right above 1/3, else stay (as
    in the paper). An episode terminates with the player's death, whose observation is the last
    frame again, and is truncated after `MAX_TICS`. The seed fixes the whole episode.

    The engine is a process of its own. It leaves no files behind and makes no sound. As it takes a
    second to start, `close` keeps it for the next environment of this process.

    Args:
        render_mode: "rgb_array" lets `render` return the engine's whole picture, (240, 320, 3).
        skill: Doom's difficulty from 1 to 5. The scenario has 4; at 5 fireballs are twice as fast.
    Raises:
        gymnasium.error.DependencyNotInstalled: vizdoom is not installed.
        ValueError: unknown render_mode or skill.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 35}

    def __init__(self, render_mode: str | None = None, skill: int = 4):
        EzPickle.__init__(self, render_mode, skill)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f'render_mode is {render_mode!r}; pass None or "rgb_array"')
        if skill not in range(1, 6):
            raise ValueError(f"skill is {skill!r}; Doom has 1 (easiest) to 5")
        self.render_mode, self._skill = render_mode, skill
        self.observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._game: Any = _take_engine(skill)
        self._picture = np.zeros(PICTURE, np.uint8)
        self._tics, self._begun = 0, False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; options are ignored."""
        super().reset(seed=seed)
        # Drawn at every reset, so that episodes differ from each other.
        self._game.set_seed(int(self.np_random.integers(2**32)))
        self._game.new_episode()
        self._tics, self._begun = 0, True
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step one tic; action (1,).

        Raises:
            ValueError: the action has another shape, or is not finite.
            gymnasium.error.ResetNeeded: the episode has ended, or none has begun.
        """
        wanted = np.asarray(action, np.float32)
        needed = "one finite number as an array (1,)"
        check_finite_actions(wanted, needed)
        if wanted.shape != (1,):
            raise ValueError(f"action is {action!r}; pass {needed}")
        if not self._begun or self._game.is_episode_finished():
            raise gymnasium.error.ResetNeeded("no episode is under way; call reset() first")
        left, right = wanted[0] < -1 / 3, wanted[0] > 1 / 3
        reward = self._game.make_action([float(left), float(right)])
        self._tics += 1
        dead = self._game.is_episode_finished()
        truncated = not dead and self._tics >= MAX_TICS
        return self._observe(), float(reward), dead, truncated, {}

    def render(self) -> np.ndarray | None:
        """The engine's picture, (240, 320, 3) uint8, if render_mode is "rgb_array"."""
        return self._picture.copy() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Give the engine back for the next environment."""
        if self._game is not None:
            _idle_engines[os.getpid(), self._skill].append(self._game)
        self._game, self._begun = None, False

    def _observe(self) -> np.ndarray:
        state = self._game.get_state()
        if state is not None:  # there is none after death
            self._picture = state.screen_buffer
        return cut_strip(self._picture)


_idle_engines: defaultdict[tuple[int, int], list[Any]] = defaultdict(list)
"""Engines by process (a forked child must not use those of its parent) and skill."""


@atexit.register
def _end_engines() -> None:
    for (process, _), games in _idle_engines.items():
        while games and process == os.getpid():
            games.pop().close()


def _take_engine(skill: int) -> Any:
    """Return an engine that an environment has given back, or a new one."""
    idle = _idle_engines[os.getpid(), skill]
    return idle.pop() if idle else _start_engine(skill)


def _start_engine(skill: int) -> Any:
    try:
        import vizdoom
    except ModuleNotFoundError as error:
        raise gymnasium.error.DependencyNotInstalled(
            f"TakeCover64 needs vizdoom; {how_to_install('vizdoom')}"
        ) from error
    game = vizdoom.DoomGame()
    game.load_config(str(Path(vizdoom.scenarios_path) / "take_cover.cfg"))
    # The free resources of the package: with a bought doom2.wad, monsters look different.
    game.set_doom_game_path(str(Path(vizdoom.__file__).with_name("freedoom2.wad")))
    game.set_doom_skill(skill)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_doom_config_path(os.devnull)  # it would write its settings when it ends
    # The engine makes a folder for screenshots where it starts: this is a temporary one.
    with tempfile.TemporaryDirectory(prefix="take-cover-") as folder, contextlib.chdir(folder):
        game.init()
    return game
