"""Settings of MuseGAN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from generative.gan.config import WGANLossConfig
from generative.training.ranges import (
    Checked,
    Positive,
    Range,
    Size,
    SizeOrZero,
    Widths,
)


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
    """Of their convolutions, all but the last: in time as often as a bar is doubled from 2 steps,
    and one in pitch."""
    critic_channels: Widths = (128, 128, 128, 128, 128, 128, 256, 512)
    """Of the critic's convolutions: two over bars, two over pitch, four over time."""
    critic_dim: Size = 1024
    """Units of the critic's dense layer."""
    onsets: bool = False
    """The critic also sees where notes begin, as a track more for each (Dong & Yang 2018)."""
    chroma: bool = False
    """The critic also sees which pitch classes sound, in all octaves alike: what sounds together is
    harmony by class, and tracks are octaves apart."""
    output: Literal["tanh", "one-hot", "held"] = "tanh"
    """What the critic is shown: numbers between -1 and 1; one pitch at each step, the most
    probable, with the slope of the probabilities (straight-through; Dong & Yang 2018); or the
    latter where the generator lets a note begin, which is held until the next."""
    init: Literal["normal", "glorot", "held"] = "normal"
    """First weights of convolutions and of the critic: normal with deviation 0.02, with which a
    narrow critic begins flat; uniform by their size (Glorot); or the latter with both halves of
    what doubles time alike, so that every bar begins as one held note."""
    given: Literal["nothing", "track", "bar"] = "nothing"
    """What the generator is told: nothing; one of the tracks, to which it makes the others; or the
    bar before, so that pieces can go on for ever (Dong et al. 2018, 3.2)."""
    given_track: SizeOrZero = 0
    """Which track that is."""

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


@dataclass(frozen=True)
class MuseGANLossConfig(WGANLossConfig):
    """How it is trained: a Wasserstein GAN with a gradient penalty; the defaults are the book's,
    with the penalty as published; see `BOOK`."""

    critic_steps: Size = 5
    lr: Positive = 1e-3
    critic_lr: Positive = 1e-3
    penalty_norm: Literal["track", "piece"] = "piece"
    """What has the slope 1: the whole piece, as the theory has it; or each track by itself, as in
    the book's program, which sums the squared gradient over bars, steps and pitches only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lipschitz != "penalty" or self.optimizer != "adam":
            raise ValueError("MuseGAN is trained with lipschitz 'penalty' and optimizer 'adam'")


BOOK = MuseGANLossConfig(alpha="normal", norm_eps=0.0, penalty_norm="track")
"""The book's program: as its Wasserstein GAN, and with a norm of its own for each track."""
