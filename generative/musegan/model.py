"""MuseGAN: from noise to rolls in [0, 1] and scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.musegan.config import MuseGANConfig
from generative.musegan.networks import RollNoise
from generative.music.score import Score, score_of_voices
from generative.training.checks import check_dtype, check_images, checked, placed
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count, CountOrZero

__all__ = ["MuseGAN", "rolls_of_voices", "voices_of_rolls"]


class MuseGAN(Pretrained, nn.Module):
    """Generator and critic; rolls have values in [0, 1].

    `MuseGANConfig().build()` is the book's. A pair that is put together by hand is saved by its
    weights: put it together again and call `load_weights(folder)`.

    Args:
        generator: noise, and what is given or None -> rolls (B, *shape) from -1 to 1.
        critic: such rolls, and the given bar or None -> heights (B,).
        shape: of a piece, (tracks, bars, steps, pitches).
        latent_dim: numbers of each noise.
        lowest, given, given_track: see `MuseGANConfig`.
        config: the recipe of the pair, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"MuseGAN": MuseGANConfig}
    renamed: ClassVar[Mapping[str, str]] = {"discriminator.": "critic."}

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        shape: tuple[int, int, int, int],
        latent_dim: int,
        lowest: int = 0,
        given: str = "nothing",
        given_track: int = 0,
        config: MuseGANConfig | None = None,
    ):
        super().__init__()
        self.config, self.shape, self.latent_dim = config, shape, latent_dim
        self.lowest, self.given, self.given_track = lowest, given, given_track
        self.generator, self.critic = generator, critic

    @checked
    def draw_noise(self, n: CountOrZero, generator: torch.Generator | None = None) -> RollNoise:
        """Standard normal noise for n pieces."""
        d, p = self.latent_dim, self.shape[0]
        shapes = ((n, d), (n, d), (n, p, d), (n, p, d))
        return RollNoise(*(torch.randn(s, generator=generator, **placed(self)) for s in shapes))

    def generate(self, noise: RollNoise, given: Tensor | None = None) -> Tensor:
        """Noise -> rolls (B, tracks, bars, steps, pitches) in [0, 1].

        Args:
            given: with `given="track"` that track (B, bars, steps, pitches), which is part of the
                result; with `given="bar"` the previous bar (B, tracks, steps, pitches), silence by
                default.
        Raises:
            ValueError: `given` does not fit, or is missing.
        """
        for name, part in noise._asdict().items():
            check_dtype(part, name, self)
        known = self._check_given(given, len(noise.style))
        return (self.generator(noise, known) + 1) / 2

    def heights(self, rolls: Tensor, given: Tensor | None = None) -> Tensor:
        """The critic's height of each piece, (B, tracks, bars, steps, pitches) -> (B,).

        Raises:
            ValueError: wrong shape or type, or a value outside [0, 1].
        """
        rolls = check_images(rolls, self.shape, self, "rolls")
        known = self._check_given(given, len(rolls)) if self.given == "bar" else None
        return self.critic(2 * rolls - 1, known)

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator | None = None, given: Tensor | None = None
    ) -> Tensor:
        """n pieces, rolls (n, tracks, bars, steps, pitches); see `generate`."""
        return self.generate(self.draw_noise(n, generator), given)

    @checked
    @torch.no_grad()
    def go_on(
        self, rolls: Tensor, num_bars: Count, generator: torch.Generator | None = None
    ) -> Tensor:
        """Pieces continued to num_bars bars, (B, tracks, num_bars, steps, pitches).

        Needs `given="bar"`. The style and the groove of a piece stay, chords and melody are new.
        """
        if self.given != "bar":
            raise ValueError(f"this MuseGAN is given {self.given!r}; train one with 'bar'")
        noise = self.draw_noise(len(rolls), generator)
        while rolls.shape[2] < num_bars:
            new = self.generate(noise, one_hot(rolls[:, :, -1]))
            rolls = torch.cat([rolls, new], 2)
            fresh = self.draw_noise(len(rolls), generator)
            noise = fresh._replace(style=noise.style, groove=noise.groove)
        return rolls[:, :, :num_bars]

    def scores(self, rolls: Tensor) -> list[Score]:
        """Rolls as scores of sixteenth notes: at each step the pitch with the largest value."""
        voices = voices_of_rolls(rolls, self.lowest)
        return [score_of_voices(v, self.shape[2] // 4) for v in voices]

    def split(self, rolls: Tensor) -> tuple[Tensor, Tensor | None]:
        """Split rolls of the data into (rolls to generate, given track or bar).

        With a given bar, rolls have one more bar, the first.
        """
        if self.given == "bar":
            return rolls[:, :, 1:], rolls[:, :, 0]
        return rolls, rolls[:, self.given_track] if self.given == "track" else None

    def _check_given(self, given: Tensor | None, n: int) -> Tensor | None:
        """Check the given track or bar, and map it from [0, 1] to [-1, 1]."""
        if self.given == "nothing":
            if given is not None:
                raise ValueError("this MuseGAN is given nothing; train one with given 'track'")
            return None
        tracks, bars, *sides = self.shape
        shape = (bars if self.given == "track" else tracks, *sides)
        if given is None:
            if self.given == "track":
                raise ValueError(f"this MuseGAN needs track {self.given_track}, (B, {shape})")
            silence = torch.zeros(n, *shape, **placed(self))
            silence[..., -1] = 1
            given = silence
        return 2 * check_images(given, shape, self, "what is given") - 1


def rolls_of_voices(voices: np.ndarray, config: MuseGANConfig, num_bars: int = 0) -> Tensor:
    """Pitches (N, T, tracks), negative for silence -> rolls (N, tracks, bars, steps, pitches).

    Args:
        num_bars: T / steps_per_bar; by default that of the config.
    Raises:
        ValueError: wrong length or number of tracks, or a pitch outside the config's.
    """
    bars = num_bars or config.num_bars
    if voices.ndim != 3 or voices.shape[1:] != (bars * config.steps_per_bar, config.num_tracks):
        raise ValueError(
            f"got voices of shape {voices.shape}; needed are (N, {bars * config.steps_per_bar}, "
            f"{config.num_tracks})"
        )
    index = np.where(voices >= 0, voices - config.lowest, config.num_pitches - 1)
    sounds = index[voices >= 0]
    if len(sounds) and (sounds.min() < 0 or sounds.max() >= config.num_pitches - 1):
        raise ValueError(
            f"got pitches from {voices[voices >= 0].min()} to {voices.max()}; this MuseGAN has "
            f"{config.lowest} to {config.lowest + config.num_pitches - 2}"
        )
    rolls = F.one_hot(torch.from_numpy(index), config.num_pitches).float()
    return rolls.unflatten(1, (bars, config.steps_per_bar)).permute(0, 3, 1, 2, 4).contiguous()


def voices_of_rolls(rolls: Tensor, lowest: int = 0) -> np.ndarray:
    """Pitch of each step by the largest value, int64 (N, T, tracks), -1 for silence."""
    index = rolls.argmax(-1).flatten(2).movedim(1, 2).cpu().numpy()
    return np.where(index == rolls.shape[-1] - 1, -1, index + lowest)


def one_hot(rolls: Tensor) -> Tensor:
    """Rolls with 1 at the largest value of each step and 0 elsewhere."""
    return F.one_hot(rolls.argmax(-1), rolls.shape[-1]).to(rolls)
