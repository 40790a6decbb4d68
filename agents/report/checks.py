"""Accuracy of V and M on tracks that were not used in training: numbers and pictures."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.video import GAME_FPS, Decision, dream_on, drive
from agents.world_model_agent import WorldModelAgent

__all__ = ["CHECK_SEEDS", "Curves", "Filmstrip", "ModelCheck", "check_world_model"]

CHECK_SEEDS = range(3_000_000, 3_000_100)
"""Seeds of the tracks for these checks, distinct from those for selection and reporting."""


@dataclass(frozen=True)
class Filmstrip:
    """One dream, frame by frame, below the real frames under the same actions."""

    name: str
    real: np.ndarray
    """Real frames, uint8 (F, 64, 64, 3)."""
    dreamed: np.ndarray
    """Dreamed frames, uint8 (F, 64, 64, 3); the first is V's reconstruction."""


@dataclass(frozen=True)
class Curves:
    """Error by horizon: one list per predictor, with an entry per horizon."""

    horizons: list[int]
    """Decisions ahead."""
    errors: dict[str, list[float]]


@dataclass(frozen=True)
class ModelCheck:
    """Result of `check_world_model`."""

    seen: np.ndarray
    """Real frames, uint8 (N, 64, 64, 3)."""
    kept: np.ndarray
    """Their reconstructions by V."""
    strip_seconds: list[float]
    strips: list[Filmstrip]
    latent: Curves
    """Root mean square difference per latent dimension."""
    pixel: Curves
    """Mean absolute difference per pixel and colour, 0 .. 255."""
    num_latents: int
    num_dreams: int
    num_drives: int

    def to_json(self) -> dict[str, Any]:
        """The curves, for report.json."""
        return {
            "latent_rms": {"horizons": self.latent.horizons, **self.latent.errors},
            "pixel_mean_absolute": {"horizons": self.pixel.horizons, **self.pixel.errors},
            "dreams": self.num_dreams,
            "drives": self.num_drives,
        }


def check_world_model(
    agent: WorldModelAgent,
    *,
    num_drives: int = 4,
    max_steps: int = 1000,
    horizon: int = 50,
    num_dreams: int = 64,
    seed: int = 0,
) -> ModelCheck | None:
    """Drive fresh tracks, and dream from moments of these drives under the actions really taken.

    Dreams begin where the agent earns rewards afterwards, as a car that stands in the grass would
    make prediction look easy. If it earns none, they begin anywhere.

    Args:
        agent: drives and dreams.
        num_drives: real episodes, on the first of `CHECK_SEEDS`.
        max_steps: environment steps per episode.
        horizon: decisions to look ahead, fewer if the drives are shorter.
        num_dreams: largest number of dreams, spread over the drives.
        seed: seed of M's draws.
    Returns:
        None if the drives are too short for any dream.
    """
    repeat = agent.config.action_repeat
    drives = [_record(agent, track, max_steps) for track in CHECK_SEEDS[:num_drives]]
    zoom = GAME_FPS // repeat + 1  # the camera flies in during the first second
    longest = max(len(decisions) for decisions, _ in drives)
    zoom = zoom if longest > 2 * zoom else 0
    horizon = min(horizon, longest - zoom - 1)
    if horizon < 2:
        return None
    starts = _choose_starts(drives, zoom, horizon, num_dreams)
    real = np.stack([_frames(drives[d][0], t, horizon) for d, t in starts])
    here = [drives[d][0][t] for d, t in starts]
    actions = np.stack([_actions(drives[d][0], t, horizon) for d, t in starts])

    world = agent.world
    z_real = world.encode(real.reshape(-1, 64, 64, 3)).unflatten(0, real.shape[:2])
    dreams = {
        "M, likeliest": dream_on(agent, here, actions, 0.0, seed),
        "M, drawn": dream_on(agent, here, actions, 1.0, seed),
    }
    standing = z_real[:, :1].expand_as(z_real)
    latent = {
        name: (z - z_real)[:, 1:].square().mean(dim=(0, 2)).sqrt().tolist()
        for name, z in {**dreams, "no change": standing}.items()
    }

    shown = np.unique(np.geomspace(1, horizon, 12).round().astype(int))
    pixel = {name: _pixel_error(world.decode(z[:, shown]), real[:, shown])
             for name, z in dreams.items()}  # fmt: skip
    pixel["no change"] = _pixel_error(real[:, :1], real[:, shown])
    pixel["V's own blur"] = _pixel_error(world.decode(z_real[:, shown]), real[:, shown])

    at = np.unique(np.linspace(0, horizon, 7).round().astype(int))
    drawn = world.decode(dreams["M, drawn"][:, at])
    order = np.abs(drawn.astype(np.float32) - real[:, at]).mean(axis=(1, 2, 3, 4)).argsort()
    picks = {
        f"Of {len(starts)} dreams, the nearest to what followed": order[0],
        "The middle one": order[len(order) // 2],
        "The farthest": order[-1],
    }
    shots = np.linspace(0, len(starts) - 1, min(10, len(starts))).round().astype(int)
    return ModelCheck(
        seen=real[shots, 0],
        kept=world.decode(z_real[shots, 0]),
        strip_seconds=[float(n * repeat / GAME_FPS) for n in at],
        strips=[Filmstrip(name, real[i, at], drawn[i]) for name, i in picks.items()],
        latent=Curves(list(range(1, horizon + 1)), latent),
        pixel=Curves(shown.tolist(), pixel),
        num_latents=z_real.shape[-1],
        num_dreams=len(starts),
        num_drives=num_drives,
    )


_Drive = tuple[list[Decision], list[float]]
"""Decisions of a drive, and the score before each."""


def _record(agent: WorldModelAgent, track: int, max_steps: int) -> _Drive:
    import gymnasium

    decisions, scores = [], []
    env = gymnasium.make("WorldModels/CarRacing64-v0", disable_env_checker=True)
    with contextlib.closing(env):
        for step in drive(agent, env, track, max_steps):
            if step.is_new:
                decisions.append(step.decision)
                scores.append(step.score)
    return decisions, scores


def _choose_starts(
    drives: list[_Drive], first: int, horizon: int, count: int
) -> list[tuple[int, int]]:
    """Choose at most `count` (drive, decision), evenly spread over the suitable ones."""
    everywhere = [
        (d, t)
        for d, (decisions, _) in enumerate(drives)
        for t in range(first, len(decisions) - horizon)
    ]
    earning = [(d, t) for d, t in everywhere if drives[d][1][t + horizon] > drives[d][1][t]]
    suitable = earning or everywhere
    index = np.linspace(0, len(suitable) - 1, min(count, len(suitable))).round().astype(int)
    return [suitable[i] for i in index]


def _frames(decisions: list[Decision], t: int, horizon: int) -> np.ndarray:
    return np.stack([decision.seen for decision in decisions[t : t + horizon + 1]])


def _actions(decisions: list[Decision], t: int, horizon: int) -> np.ndarray:
    return np.stack([decision.action for decision in decisions[t : t + horizon]])


def _pixel_error(predicted: np.ndarray, real: np.ndarray) -> list[float]:
    """Mean error over dreams and pixels, per horizon (axis 1)."""
    difference = predicted.astype(np.float32) - real.astype(np.float32)
    return np.abs(difference).mean(axis=(0, 2, 3, 4)).tolist()
