"""Films of an agent: the real track that it drives on, beside the dream of its world model.

    frames = drive_and_dream(WorldModelAgent.from_pretrained("pretrained/carracing-dream"), seed=3)
    write_video("drive.mp4", frames, fps=25)

The dream begins at a real moment, with V's z and M's recurrent state. From there M runs alone for a
few seconds, with the controller driving in it, while the real car goes on.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import envs  # noqa: F401  registers this project's environments
from agents.evaluation import EpisodeScore, episode_score
from agents.world_model_agent import WorldModelAgent
from envs.car_racing import resize_frames
from generative.training.checks import placed
from worldmodels.configs import DreamConfig
from worldmodels.dreaming.noise import dropout_mask
from worldmodels.dreaming.step import (
    DreamState,
    Outcome,
    draw_noise,
    dream_step,
    lost,
    not_finite,
)

__all__ = [
    "FPS",
    "Decision",
    "LoneDream",
    "VideoStep",
    "dream_on",
    "drive",
    "drive_and_dream",
    "dream_temperature",
    "poster",
    "write_gif",
    "write_video",
]

GAME_FPS = 50
STEPS_PER_FRAME = 2
FPS = GAME_FPS // STEPS_PER_FRAME
"""Frames per second of `drive_and_dream`, in real time."""


class Decision(NamedTuple):
    """A moment at which the agent observed the game; the tensors have one row.

    h, c and prev_reward are M's recurrent state and reward before it.
    """

    seen: np.ndarray
    """Observation of V, uint8 (64, 64, 3)."""
    z: Tensor
    h: Tensor
    c: Tensor
    prev_reward: Tensor
    action: np.ndarray
    """Action of the agent, (3,)."""


class VideoStep(NamedTuple):
    """One step of a real drive."""

    index: int
    """Number of environment steps before this one."""
    decision: Decision
    """Latest decision, whose action is held during this step."""
    is_new: bool
    """True if the decision was taken at this step."""
    score: float
    """Score before this step."""


def drive(
    agent: WorldModelAgent,
    env: Any,
    seed: int,
    max_steps: int,
    told: Callable[[EpisodeScore], None] | None = None,
) -> Iterator[VideoStep]:
    """Drive a real episode; while a step is handled, the environment shows its frame.

    `told` gets the score after the last step.
    """
    obs, _ = env.reset(seed=seed)
    state, score, decision = agent.initial_state(1), 0.0, None
    index, info = -1, {}
    for index in range(max_steps):
        is_new = bool(state.countdown[0] == 0)
        action, state = agent.predict(obs, state)
        if is_new:
            seen = resize_frames(obs) if obs.shape[0] == 96 else obs
            decision = Decision(seen, state.z, state.h, state.c, state.prev_reward, action)
        assert decision is not None  # the first step brings one
        yield VideoStep(index, decision, is_new, score)
        obs, reward, terminated, truncated, info = env.step(action)
        score += float(reward)
        if terminated or truncated:
            break
    if told is not None:
        told(episode_score(env, seed, score, index + 1, info))


def dream_temperature(agent: WorldModelAgent, given: float | None) -> float:
    """The temperature that is given, or that of the dream the agent was trained in, or 1."""
    if given is not None:
        return given
    return 1.0 if agent.dream is None else agent.dream.temperature


class LoneDream:
    """M running on from a real moment without seeing the game again.

    Args:
        temperature: of M's draws. It and all else are, if not given, those of the dream that the
            agent was trained in, where these are known.
    """

    def __init__(
        self, agent: WorldModelAgent, start: Decision, temperature: float | None, seed: int
    ):
        self.agent = agent
        memory, mem = agent.world.memory, agent.world.memory.config
        trained = agent.dream or DreamConfig(dropout=False)
        self.config = replace(trained, temperature=dream_temperature(agent, temperature))
        self.generator = torch.Generator(agent.world.device).manual_seed(seed)
        mask = None
        if self.config.dropout and mem.dropout:
            mask = dropout_mask(1, mem.hidden_dim, mem.dropout, self.generator, memory.kind)
        self.state = DreamState.at(start.z, start.h, start.c, start.prev_reward, mask)

    @property
    def z(self) -> Tensor:
        """Present z of the dream, (1, latent_dim)."""
        return self.state.z

    @property
    def age(self) -> int:
        """Number of decisions since the real moment."""
        return int(self.state.age[0])

    @torch.no_grad()
    def own_action(self) -> Tensor:
        """Action of the controller here, (1, A)."""
        return self.agent.controller.act(self.state.z, self.state.h, self.state.c)

    @torch.no_grad()
    def step(self, action: np.ndarray | None = None) -> Outcome:
        """Advance by one decision, with this action (3,) or by default the controller's own."""
        memory = self.agent.world.memory
        if action is None:
            chosen = self.own_action()
        else:
            chosen = torch.as_tensor(action, **memory.kind).unsqueeze(0)
        noise = draw_noise(memory, 1, self.generator, ends=False)
        self.state, outcome = dream_step(memory, self.state, chosen, noise, self.config)
        if lost(self.state.alive) is not None:
            raise not_finite("this dream", f"decision {self.age}")
        return outcome

    def picture(self) -> np.ndarray:
        """Present z decoded by V: uint8 (64, 64, 3)."""
        return self.agent.world.decode(self.state.z)[0]


def dream_on(
    agent: WorldModelAgent,
    starts: Sequence[Decision],
    actions: np.ndarray,
    temperature: float,
    seed: int,
) -> Tensor:
    """Dream from several real moments at once under given actions (N, T, 3).

    Returns:
        z (N, T + 1, latent_dim), the first from V.
    """
    world = agent.world
    z, h, c, prev_reward = (
        torch.cat(rows)
        for rows in zip(*((s.z, s.h, s.c, s.prev_reward) for s in starts), strict=True)
    )
    imagined = world.imagine(
        z,
        torch.as_tensor(actions, **placed(world.memory)),
        (h, c),
        prev_reward if world.memory.config.reward_input else None,
        temperature,
        torch.Generator(world.device).manual_seed(seed),
    )
    return torch.cat([z.unsqueeze(1), imagined.z], dim=1)


# ---------------------------------------------------------------------------------------------
# The film
# ---------------------------------------------------------------------------------------------

# The 64x64 view shows 1000x700 pixels of the game's window, so pictures are 10:7.
_MARGIN, _PANEL, _HEAD, _FOOT = 16, (608, 426), 56, 152
_SIZE = (3 * _MARGIN + 2 * _PANEL[0], _HEAD + _PANEL[1] + _FOOT + 6)
_BACK, _TEXT, _DIM = (18, 20, 26), (240, 242, 246), (150, 156, 168)
_REAL, _AWAKE, _DREAM = (86, 190, 110), (70, 170, 220), (176, 124, 255)


def drive_and_dream(
    agent: WorldModelAgent,
    seed: int,
    *,
    env_id: str = "CarRacing-v3",
    max_steps: int = 1000,
    awake_seconds: float = 1.0,
    dream_seconds: float = 2.5,
    actions: Literal["own", "real"] = "own",
    temperature: float | None = None,
    told: Callable[[EpisodeScore], None] | None = None,
) -> Iterator[np.ndarray]:
    """Frames of a real drive on the left and, on the right, of dreams that begin in it.

    Args:
        agent: drives and dreams.
        seed: fixes the track and the noise of the dreams.
        env_id: the stock game, or WorldModels/FastCarRacing-v0.
        max_steps: environment steps to show; 50 are a second.
        awake_seconds: seconds for which the right picture follows the game between dreams.
        dream_seconds: seconds for which M then runs alone.
        actions: actions in the dream: of the controller on the dreamed z ("own"), or those taken
            meanwhile in the real game ("real").
        temperature: of M's draws; see `dream_temperature`.
        told: gets the score of the real drive at its end.
    Yields:
        uint8 (640, 1264, 3), `FPS` a second.
    """
    repeat = agent.config.action_repeat
    dream_decisions = max(1, round(dream_seconds * GAME_FPS / repeat))
    awake_decisions = max(1, round(awake_seconds * GAME_FPS / repeat))
    note = "and drives there by itself" if actions == "own" else "under what it really does"
    # The camera flies in during the first second; dreams begin after that.
    dream, awake_for, previous, reconstruction = None, -round(0.5 * GAME_FPS / repeat), None, None
    with contextlib.closing(_make_env(env_id)) as env:
        for step in drive(agent, env, seed, max_steps, told):
            if step.is_new:
                if dream is not None:
                    assert previous is not None  # it began in one
                    dream.step(previous.action if actions == "real" else None)
                if dream is not None and dream.age > dream_decisions:
                    dream, awake_for = None, 0
                elif dream is None and awake_for == awake_decisions:
                    dream = LoneDream(agent, step.decision, temperature, seed + step.index)
                awake_for += dream is None
                previous = step.decision
                reconstruction = agent.world.decode(previous.z)[0]
            if step.index % STEPS_PER_FRAME == 0:
                assert reconstruction is not None  # the first step is new
                age = 0.0 if dream is None else dream.age * repeat / GAME_FPS
                yield _compose(
                    f"{env_id}, track {seed}",
                    f"it imagines the road {note}",
                    step,
                    _photograph(env, _PANEL),
                    reconstruction,
                    None if dream is None else dream.picture(),
                    age / dream_seconds,
                    age,
                )


def _make_env(env_id: str) -> Any:
    import gymnasium

    return gymnasium.make(env_id, render_mode="rgb_array", disable_env_checker=True)


def _photograph(env: Any, size: tuple[int, int]) -> Image.Image:
    """The game's own drawing, finer than the agent's observation and without the status bar."""
    import pygame

    env.render()
    view = env.unwrapped.surf.subsurface((0, 0, 1000, 700))
    small = pygame.transform.smoothscale(view, size)
    return Image.fromarray(pygame.surfarray.array3d(small).swapaxes(0, 1))


def _compose(
    title: str,
    dream_title: str,
    step: VideoStep,
    photograph: Image.Image,
    reconstruction: np.ndarray,
    dreamed: np.ndarray | None,
    share: float,
    age: float,
) -> np.ndarray:
    """Compose one frame of the film; `share` is the elapsed share of the dream."""
    kept = step.decision.z.shape[1]
    canvas = Image.new("RGB", _SIZE, _BACK)
    draw = ImageDraw.Draw(canvas)
    width, height = _PANEL
    left, right, below = _MARGIN, 2 * _MARGIN + width, _HEAD + height + 14
    dreaming = dreamed is not None
    color = _DREAM if dreaming else _AWAKE

    _headline(draw, left, "REAL", _REAL, title)
    _panel(canvas, photograph, (left, _HEAD), _REAL)
    if dreaming:
        _headline(draw, right, "DREAMING", color, dream_title)
    else:
        _headline(draw, right, "AWAKE", color, "it looks at the game: V's picture of what is there")
    _panel(canvas, _enlarge(dreamed if dreaming else reconstruction, _PANEL), (right, _HEAD), color)

    # Below the game: score, time and the agent's action.
    draw.text((left, below), "score", _DIM, _font(17))
    draw.text((left, below + 20), f"{step.score:.0f}", _TEXT, _font(44))
    draw.text((left + 150, below), "step", _DIM, _font(17))
    draw.text((left + 150, below + 20), f"{step.index}", _TEXT, _font(44))
    _controls(draw, (left + 310, below), step.decision.action)

    # Below the dream: its age, the observation of V and its reconstruction.
    thumb = (158, 111)
    for i, (picture, name) in enumerate(
        [(step.decision.seen, "seen: 64x64 pixels"), (reconstruction, f"kept: {kept} numbers")]
    ):
        x = right + width - (2 - i) * thumb[0] - (1 - i) * 12
        canvas.paste(_enlarge(picture, thumb, Image.Resampling.BOX), (x, below))
        draw.text((x, below + thumb[1] + 3), name, _DIM, _font(15))
    draw.text((right, below), "last look at the game", _DIM, _font(17))
    draw.text((right, below + 20), f"{age:.1f} s ago" if dreaming else "now", color, _font(44))
    bar = (right, below + 82, right + 240, below + 94)
    draw.rounded_rectangle(bar, 6, fill=(44, 48, 58))
    if share > 0:
        end = bar[0] + max(12, round(min(share, 1.0) * 240))
        draw.rounded_rectangle((*bar[:2], end, bar[3]), 6, fill=color)
    return np.asarray(canvas)


def _headline(draw: ImageDraw.ImageDraw, x: int, word: str, color: tuple, note: str) -> None:
    draw.text((x, 14), word, color, _font(28))
    draw.text((x + draw.textlength(word, _font(28)) + 14, 22), note, _DIM, _font(18))


def _panel(canvas: Image.Image, picture: Image.Image, at: tuple[int, int], color: tuple) -> None:
    canvas.paste(picture, at)
    box = (at[0] - 3, at[1] - 3, at[0] + _PANEL[0] + 2, at[1] + _PANEL[1] + 2)
    ImageDraw.Draw(canvas).rectangle(box, outline=color, width=3)


def _controls(draw: ImageDraw.ImageDraw, at: tuple[int, int], action: np.ndarray) -> None:
    """Draw bars: steering from the middle, gas and brake from the left."""
    x, y = at
    for i, (name, value) in enumerate(zip(("steer", "gas", "brake"), action, strict=True)):
        top = y + 2 + 30 * i
        draw.text((x, top), name, _DIM, _font(17))
        start, length = x + 60, 220
        draw.rectangle((start, top + 4, start + length, top + 16), fill=(44, 48, 58))
        middle = start + length // 2
        if name == "steer":
            ends = sorted((middle, middle + round(float(value) * length / 2)))
            draw.rectangle((ends[0], top + 4, ends[1], top + 16), fill=_TEXT)
        elif value > 0:
            end = start + round(float(value) * length)
            draw.rectangle((start, top + 4, end, top + 16), fill=_TEXT)


def _enlarge(
    picture: np.ndarray,
    size: tuple[int, int],
    how: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    return Image.fromarray(picture).resize(size, how)


@functools.cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


# ---------------------------------------------------------------------------------------------
# The poster
# ---------------------------------------------------------------------------------------------


def poster(
    agent: WorldModelAgent,
    seed: int,
    *,
    env_id: str = "CarRacing-v3",
    max_steps: int = 1000,
    temperature: float | None = None,
    seconds: tuple[float, float, float] = (0.5, 1.0, 2.0),
) -> Image.Image:
    """Draw a real moment and its future, above V's reconstruction and M's dream from there.

    The dream gets the actions that were really taken, so that both rows show the same drive. The
    moment is the one of the drive whose dream comes nearest to the future, relative to a still
    picture: this is the best of one drive, not the average.

    Raises:
        ValueError: the drive ends before a moment has its `seconds` of future.
    """
    repeat = agent.config.action_repeat
    ahead = [max(1, round(s * GAME_FPS / repeat)) for s in seconds]
    decisions, photographs, scores = [], [], []
    with contextlib.closing(_make_env(env_id)) as env:
        for step in drive(agent, env, seed, max_steps):
            if step.is_new:
                decisions.append(step.decision)
                scores.append(step.score)
                photographs.append(_photograph(env, _CELL))
    at, dreamed = _best_moment(
        agent, decisions, scores, ahead, dream_temperature(agent, temperature), seed
    )
    real = [photographs[at + n] for n in (0, *ahead)]
    kept = agent.world.decode(decisions[at].z)
    below = [_enlarge(picture, _CELL) for picture in (*kept, *dreamed)]
    titles = ["now", *(f"{s:g} s later" for s in seconds)]
    notes = [f"kept: {decisions[at].z.shape[1]} numbers", *(f"{s:g} s alone" for s in seconds)]
    return _contact_sheet([("the game", titles, real, _REAL), ("its dream", notes, below, _DREAM)])


def _best_moment(
    agent: WorldModelAgent,
    decisions: list[Decision],
    scores: list[float],
    ahead: list[int],
    temperature: float,
    seed: int,
) -> tuple[int, np.ndarray]:
    """Index of the decision to dream from, and its dream `ahead`: uint8 (len(ahead), 64, 64, 3)."""
    repeat = agent.config.action_repeat
    last = len(decisions) - ahead[-1]
    if last < 1:
        raise ValueError(
            f"the drive on track {seed} has {len(decisions)} decisions; a poster needs "
            f"{ahead[-1] + 1}: another track, or more steps"
        )
    zoom = GAME_FPS // repeat + 1  # the camera flies in during the first second
    moments = np.arange(zoom if zoom < last else 0, last, max(1, 10 // repeat))
    # Prefer moments where the car stays on the road and earns rewards in every stretch.
    earned = np.diff(np.array(scores)[moments[:, None] + np.array([0, *ahead])])
    on_road = (earned > 0).all(axis=1)
    moments = moments[on_road] if on_road.any() else moments
    taken = np.stack([decision.action for decision in decisions])
    rows = moments[:, None] + np.arange(ahead[-1])
    z = dream_on(agent, [decisions[t] for t in moments], taken[rows], temperature, seed)
    dreamed = agent.world.decode(z[:, ahead])
    seen = np.stack([decision.seen for decision in decisions]).astype(np.float32)
    future = seen[moments[:, None] + np.array(ahead)]
    standing = np.abs(future - seen[moments][:, None]).mean(axis=(1, 2, 3, 4))
    missed = np.abs(future - dreamed).mean(axis=(1, 2, 3, 4))
    best = int((standing - missed).argmax())
    return int(moments[best]), dreamed[best]


_CELL = (370, 259)


def _contact_sheet(rows: list[tuple[str, list[str], list[Image.Image], tuple]]) -> Image.Image:
    """Arrange rows of captioned pictures, each row with its name on the left."""
    gap, head, side = 10, 30, 116
    columns = len(rows[0][2])
    size = (
        side + columns * (_CELL[0] + gap),
        len(rows) * (_CELL[1] + head + gap) + gap,
    )
    sheet = Image.new("RGB", size, _BACK)
    draw = ImageDraw.Draw(sheet)
    for i, (name, titles, pictures, color) in enumerate(rows):
        top = gap + i * (_CELL[1] + head + gap)
        draw.multiline_text((16, top + head + 6), name.replace(" ", "\n"), color, _font(26))
        for j, (title, picture) in enumerate(zip(titles, pictures, strict=True)):
            x = side + j * (_CELL[0] + gap)
            draw.text((x, top + 3), title, _TEXT, _font(20))
            sheet.paste(picture, (x, top + head))
    return sheet


# ---------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------


def write_video(path: Path | str, frames: Iterable[np.ndarray], fps: float = FPS) -> None:
    """Write uint8 (H, W, 3) frames, H and W even, as H.264 mp4 that browsers play.

    The file is written beside its place and renamed, so that it is whole or absent.

    Raises:
        OSError: there were no frames, or they could not be written.
    """
    import imageio
    import imageio_ffmpeg

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.tmp.mp4")
    settings = ["-crf", "25", "-preset", "medium", "-movflags", "+faststart"]
    count = 0
    try:
        writer = imageio.get_writer(
            beside, format="FFMPEG", fps=fps, codec="libx264", quality=None,
            pixelformat="yuv420p", macro_block_size=2, output_params=settings,
            ffmpeg_log_level="error",
        )  # fmt: skip
        with contextlib.closing(writer):  # imageio's own `with` leaves ffmpeg running on errors
            for frame in frames:
                writer.append_data(np.asarray(frame))
                count += 1
        written = imageio_ffmpeg.count_frames_and_secs(beside)[0] if count else 0
        if written != count or not count:
            raise OSError(f"{path}: {written} of {count} frames were written; is the disk full?")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_gif(
    path: Path | str, frames: Iterable[np.ndarray], fps: float = FPS, width: int = 800
) -> None:
    """Write every second frame, shrunk to `width`, as an endless GIF of 64 colours or as WebP."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    webp = path.suffix.lower() == ".webp"
    settings: dict[str, Any] = {"quality": 60} if webp else {}
    pictures = []
    for i, frame in enumerate(frames):
        if i % 2 == 0:
            size = (width, round(width * frame.shape[0] / frame.shape[1]))
            small = Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)
            pictures.append(small if webp else small.quantize(64, dither=Image.Dither.NONE))
    beside = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        pictures[0].save(
            beside, save_all=True, append_images=pictures[1:], duration=round(2000 / fps), loop=0,
            **settings,
        )  # fmt: skip
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
