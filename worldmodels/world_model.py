"""V and M as one: see a frame, remember, predict, imagine, look at the dream.

world = WorldModel.from_pretrained("pretrained/carracing-dream")
z = world.encode(frames)                                   # (B, 64, 64, 3) uint8
dreamed = world.imagine(z, actions, temperature=1.0)       # actions (B, T, 3)
pictures = world.decode(dreamed.z)                         # (B, T, 64, 64, 3) uint8
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from generative.training.hub import Shared, find_folder
from generative.vae import sample_gaussian, to_uint8_bhwc
from worldmodels.actions import check_finite_actions
from worldmodels.configs import DreamConfig
from worldmodels.dreaming.step import DreamState, Outcome, draw_noise, dream_step, lost, not_finite
from worldmodels.memory import Memory, State, load_memory
from worldmodels.vision import (
    VectorVision,
    Vision,
    check_vision,
    load_vision,
    see,
)

__all__ = ["Imagined", "WorldModel"]


class Imagined(NamedTuple):
    """An imagined sequence; every field is (B, T, ...), the step after each action."""

    z: Tensor
    reward: Tensor | None
    """Expected reward in the environment's units."""
    end_probability: Tensor | None


class WorldModel(Shared, nn.Module):
    """V (`vision`) and M (`memory`), which must share one latent size."""

    def __init__(self, vision: Vision, memory: Memory):
        super().__init__()
        check_vision(vision)
        if vision.latent_dim != memory.config.latent_dim:
            raise ValueError(
                f"V has z of {vision.latent_dim} dimensions, M was trained with "
                f"{memory.config.latent_dim}; pass the V that M was trained on"
            )
        self.vision, self.memory = vision, memory

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: str = "cpu") -> WorldModel:
        """Load `folder`/vision and `folder`/memory, here or of owner/name[@revision] on the hub."""
        folder = find_folder(folder)
        return cls(
            load_vision(folder / "vision", device=device),
            load_memory(folder / "memory", device=device),
        ).eval()

    def save_pretrained(self, folder: Path | str, dtype: torch.dtype | None = None) -> None:
        """Write `folder`/vision and `folder`/memory; `dtype` torch.float16 halves the size."""
        folder = Path(folder)
        self.vision.save_pretrained(folder / "vision", dtype=dtype)
        self.memory.save_pretrained(folder / "memory", dtype=dtype)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.memory.device

    @property
    def sees_vectors(self) -> bool:
        """True if observations are vectors, not frames."""
        return isinstance(self.vision, VectorVision)

    @torch.no_grad()
    def encode(
        self,
        frames: np.ndarray | Tensor,
        sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """uint8 frames (B, 64, 64, 3), or float32 vectors (B, D) where V is of these -> z (B,
        latent_dim): the mean, or one draw.

        Where V has no posterior to draw from, the draw is the code itself.
        """
        mu, logvar = self.encode_mu_logvar(frames)
        return sample_gaussian(mu, logvar, generator) if sample else mu

    @torch.no_grad()
    def encode_mu_logvar(self, frames: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
        """uint8 frames (B, 64, 64, 3) or float32 vectors (B, D) -> mu, logvar, (B, latent_dim)."""
        return see(self.vision, frames)

    @torch.no_grad()
    def decode(self, z: Tensor) -> np.ndarray:
        """z (..., latent_dim) -> uint8 frames (..., 64, 64, 3), or float32 vectors (..., D)."""
        if self.sees_vectors:
            return self.vision.decode(z).float().cpu().numpy()
        images = self.vision.decode(z.reshape(-1, z.shape[-1]))
        return to_uint8_bhwc(images).reshape(*z.shape[:-1], 64, 64, 3).cpu().numpy()

    @torch.no_grad()
    def step(
        self,
        z: Tensor,
        action: Tensor,
        state: State,
        prev_reward: Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Outcome, State]:
        """Dream one decision: (B, latent_dim) and (B, action_dim) -> next z, outcome, (h, c).

        The outcome has the reward and the probability of the end as M gives them; ends are not
        drawn.

        Raises:
            NotFiniteActionError: an action is not finite.
            FloatingPointError: M gave something that is not finite.
        """
        check_finite_actions(action)
        config = DreamConfig(horizon=1, temperature=temperature, dropout=False)
        noise = draw_noise(self.memory, len(z), generator, ends=False)
        begun = DreamState.at(z, *state, prev_reward)
        after, outcome = dream_step(self.memory, begun, action, noise, config)
        if (row := lost(after.alive)) is not None:
            raise not_finite(f"row {row[0]}", "this decision")
        return after.z, outcome, (after.h, after.c)

    @torch.no_grad()
    def imagine(
        self,
        z: Tensor,
        actions: Tensor,
        state: State | None = None,
        prev_reward: Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Imagined:
        """Dream from z (B, latent_dim) under given actions (B, T, action_dim)."""
        state = state or self.memory.initial_state(len(z))
        if self.memory.config.reward_input and prev_reward is None:
            prev_reward = z.new_zeros(len(z))
        zs, rewards, ends = [], [], []
        for action in actions.unbind(1):
            z, outcome, state = self.step(z, action, state, prev_reward, temperature, generator)
            zs.append(z)
            if outcome.reward is not None:
                rewards.append(outcome.reward)
                prev_reward = outcome.reward
            if outcome.p_end is not None:
                ends.append(outcome.p_end)
        return Imagined(
            torch.stack(zs, dim=1),
            torch.stack(rewards, dim=1) if rewards else None,
            torch.stack(ends, dim=1) if ends else None,
        )
