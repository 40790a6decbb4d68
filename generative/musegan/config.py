"""Settings of MuseGAN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from generative.gan.config import WGANLossConfig
from generative.training.ranges import (
    Checked,
    Positive,
    Range,
    Size,
    SizeOrZero,
    Widths,
)

if TYPE_CHECKING:
    from generative.musegan.model import MuseGAN


@dataclass(frozen=True)
class MuseGANConfig(Checked):
    """Bars of several tracks from four kinds of noise; the defaults are the book's (chapter 11).

    A piece is a piano roll (tracks, bars, steps, pitches) with one pitch at each step and track.
    """

    num_tracks: Annotated[int, Range(1, 64)] = 4
    """Voices: soprano, alto, tenor, bass."""
    num_bars: Annotated[int, Range(2, 1024)] = 2
    """Bars of a piece, at least 2."""
    steps_per_bar: Annotated[int, Range(16, 1024)] = 16
    """Time steps of a bar; a power of two, at least 16."""
    num_pitches: Annotated[int, Range(12, 128)] = 84
    """Pitches, a multiple of 12; the last one stands for silence."""
    lowest: SizeOrZero = 0
    """MIDI number of the first pitch."""
    latent_dim: Size = 32
    """Numbers of each of the noises: chords, style, and for each track melody and groove."""
    temporal_dim: Size = 1024
    """Channels inside the networks that make a noise for each bar of one."""
    dense_dim: Size = 1024
    """Units of the first layer of the bar generators."""
    channels: Widths = (512, 256, 256, 256)
    """Channels of the bar generators' convolutions, all but the last: one for each doubling of time
    from 2 steps to a bar, and one in pitch."""
    critic_channels: Widths = (128, 128, 128, 128, 128, 128, 256, 512)
    """Channels of the critic's convolutions: two over bars, two over pitch, four over time."""
    critic_dim: Size = 1024
    """Units of the critic's dense layer."""
    onsets: bool = False
    """Show the critic where notes begin, as one more channel per track (Dong & Yang 2018)."""
    chroma: bool = False
    """Show the critic which pitch classes sound, alike in all octaves: harmony depends on classes,
    and tracks are octaves apart."""
    output: Literal["tanh", "one-hot", "held"] = "tanh"
    """Output shown to the critic. tanh: numbers between -1 and 1. one-hot: the most probable pitch
    at each step, with the gradient of the probabilities (straight-through; Dong & Yang 2018).
    held: as one-hot where a note begins, and held until the next begins."""
    init: Literal["normal", "glorot", "held"] = "normal"
    """Initial weights of convolutions and of the critic. normal: deviation 0.02, with which a
    narrow critic begins flat. glorot: uniform by their size. held: as glorot, with equal halves in
    layers that double time, so that every bar begins as one held note."""
    given: Literal["nothing", "track", "bar"] = "nothing"
    """Input of the generator beside the noise: nothing; one of the tracks, which it accompanies; or
    the previous bar, so that pieces can have any length (Dong et al. 2018, 3.2)."""
    given_track: SizeOrZero = 0
    """Index of the given track."""

    def __post_init__(self) -> None:
        super().__post_init__()
        doublings = (self.steps_per_bar // 2).bit_length() - 1
        if self.steps_per_bar != 2 ** (doublings + 1):
            raise ValueError(
                f"steps_per_bar is {self.steps_per_bar}; give a power of two from 16 on"
            )
        if self.num_pitches % 12:
            raise ValueError(f"num_pitches is {self.num_pitches}; needed is a multiple of 12")
        if self.lowest > 128 - self.num_pitches:
            raise ValueError(
                f"lowest is {self.lowest}; with {self.num_pitches} pitches give 0 to "
                f"{128 - self.num_pitches}"
            )
        if len(self.channels) != doublings + 1 or len(self.critic_channels) != 8:
            raise ValueError(
                f"channels are {self.channels} and critic_channels {self.critic_channels}; needed "
                f"are {doublings + 1} and 8"
            )
        if self.dense_dim % 2:
            raise ValueError(f"dense_dim is {self.dense_dim}; give an even one, for two steps")
        if self.given_track >= self.num_tracks:
            raise ValueError(
                f"given_track is {self.given_track}; tracks are 0 to {self.num_tracks - 1}"
            )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(tracks, bars, steps, pitches) of one piece."""
        return self.num_tracks, self.num_bars, self.steps_per_bar, self.num_pitches

    def build(self) -> MuseGAN:
        """The book's generator and critic of bars."""
        from generative.musegan.model import MuseGAN
        from generative.musegan.networks import RollCritic, RollGenerator

        return MuseGAN(
            RollGenerator(self), RollCritic(self), self.shape, self.latent_dim,
            self.lowest, self.given, self.given_track, config=self,
        )  # fmt: skip


@dataclass(frozen=True)
class MuseGANLossConfig(WGANLossConfig):
    """Training settings of a MuseGAN: a Wasserstein GAN with a gradient penalty. The defaults are
    the book's, with the penalty as published; see `MUSEGAN_BOOK`."""

    critic_steps: Size = 5
    lr: Positive = 1e-3
    critic_lr: Positive = 1e-3
    penalty_norm: Literal["track", "piece"] = "piece"
    """Norm of the gradient that the penalty pulls to 1: over the whole piece, as in the theory; or
    over each track, as in the book's program, which sums the squared gradient over bars, steps and
    pitches only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lipschitz != "penalty" or self.optimizer != "adam":
            raise ValueError("MuseGAN is trained with lipschitz 'penalty' and optimizer 'adam'")


MUSEGAN_BOOK = MuseGANLossConfig(alpha="normal", norm_eps=0.0, penalty_norm="track")
"""Settings of the book's program: as its Wasserstein GAN, with one gradient norm per track."""
