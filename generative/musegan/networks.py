"""Generator and critic of MuseGAN; their rolls have values from -1 to 1."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.musegan.config import MuseGANConfig
from generative.nets.conv import same_pad

__all__ = ["RollCritic", "RollGenerator", "RollNoise", "onsets"]


class RollNoise(NamedTuple):
    """Input noise of the generator, D numbers each, for B pieces with P tracks."""

    chords: Tensor
    """(B, D): shared by all tracks; a network turns it into one noise per bar."""
    style: Tensor
    """(B, D): shared by all tracks and bars."""
    melody: Tensor
    """(B, P, D): one per track; a network turns it into one noise per bar."""
    groove: Tensor
    """(B, P, D): one per track, shared by all bars."""


class TemporalNetwork(nn.Module):
    """Noise (B, D) -> one noise per bar (B, bars, D), which models the sequence of bars.

    101,472 parameters at the book's sizes.
    """

    def __init__(self, config: MuseGANConfig):
        super().__init__()
        d, hidden = config.latent_dim, config.temporal_dim
        self.layers = nn.Sequential(
            nn.Unflatten(1, (d, 1, 1)),
            nn.ConvTranspose2d(d, hidden, (2, 1)),
            _batch_norm(hidden),
            nn.ReLU(),
            nn.ConvTranspose2d(hidden, d, (config.num_bars - 1, 1)),
            _batch_norm(d),
            nn.ReLU(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)[:, :, :, 0].transpose(1, 2)


class BarGenerator(nn.Module):
    """Noise of one bar (N, in_dim) -> logits of its pitches (N, steps, pitches).

    With output "held" it also gives logits of a note's beginning, (N, steps).

    1,517,313 parameters at the book's sizes.
    """

    def __init__(self, in_dim: int, config: MuseGANConfig):
        super().__init__()
        self.layers = nn.Sequential(*_bar_layers(in_dim, config))
        octaves = config.num_pitches // 12
        held = config.output == "held"
        self.begins = nn.Conv2d(config.channels[-1], 1, (1, octaves)) if held else None

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.layers[:-1](z)
        begins = None if self.begins is None else self.begins(features)[:, 0, :, 0]
        return self.layers[-1](features)[:, 0], begins


def _bar_layers(in_dim: int, config: MuseGANConfig) -> Iterator[nn.Module]:
    yield nn.Linear(in_dim, config.dense_dim)
    yield nn.BatchNorm1d(config.dense_dim, eps=1e-3, momentum=0.1)
    yield nn.ReLU()
    yield nn.Unflatten(1, (config.dense_dim // 2, 2, 1))
    sizes = (config.dense_dim // 2, *config.channels)
    octaves = config.num_pitches // 12
    kernels = [(2, 1)] * (len(sizes) - 2) + [(1, octaves)]
    for (before, after), kernel in zip(itertools.pairwise(sizes), kernels, strict=True):
        yield nn.ConvTranspose2d(before, after, kernel, stride=kernel)
        yield _batch_norm(after)
        yield nn.ReLU()
    yield nn.ConvTranspose2d(sizes[-1], 1, (1, 12), stride=(1, 12))


class BarEncoder(nn.Module):
    """A bar of some tracks (N, tracks, steps, pitches) -> D numbers; a reversed bar generator."""

    def __init__(self, num_tracks: int, config: MuseGANConfig):
        super().__init__()
        octaves = config.num_pitches // 12
        sizes = (num_tracks, *config.channels[::-1], config.dense_dim // 2)
        kernels = [(1, 12), (1, octaves)] + [(2, 1)] * (len(sizes) - 3)
        layers: list[nn.Module] = []
        for (before, after), kernel in zip(itertools.pairwise(sizes), kernels, strict=True):
            layers += [nn.Conv2d(before, after, kernel, stride=kernel), _batch_norm(after)]
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(config.dense_dim, config.latent_dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class RollGenerator(nn.Module):
    """Noise and a given track or bar -> rolls (B, tracks, bars, steps, pitches) in [-1, 1].

    6,576,612 parameters at the book's sizes.
    """

    def __init__(self, config: MuseGANConfig):
        super().__init__()
        self.config = config
        self.chords = TemporalNetwork(config)
        self.melodies = nn.ModuleDict(
            {str(track): TemporalNetwork(config) for track in _made_tracks(config)}
        )
        in_dim = 4 * config.latent_dim
        if config.given != "nothing":
            known = 1 if config.given == "track" else config.num_tracks
            self.encoder = BarEncoder(known, config)
            in_dim += config.latent_dim
        self.bars = nn.ModuleDict(
            {str(track): BarGenerator(in_dim, config) for track in _made_tracks(config)}
        )
        _initialise(self, config)

    def forward(self, noise: RollNoise, given: Tensor | None = None) -> Tensor:
        """
        Args:
            given: the known track (B, bars, steps, pitches), which becomes part of the result, or
                the previous bar (B, tracks, steps, pitches).
        """
        config = self.config
        chords = self.chords(noise.chords)
        everywhere = noise.style[:, None].expand_as(chords)
        shared = [chords, everywhere]
        if config.given == "track":
            assert given is not None
            shared.append(self.encoder(given.flatten(0, 1)[:, None]).unflatten(0, chords.shape[:2]))
        elif config.given == "bar":
            assert given is not None
            shared.append(self.encoder(given)[:, None].expand_as(chords))
        tracks = []
        for track in range(config.num_tracks):
            if str(track) not in self.bars:
                assert given is not None
                tracks.append(given)
                continue
            melody = self.melodies[str(track)](noise.melody[:, track])
            groove = noise.groove[:, track, None].expand_as(melody)
            z = torch.cat([*shared, melody, groove], 2)
            # All bars go through at once: batch normalisation takes its moments over all bars.
            pitches, begins = self.bars[str(track)](z.flatten(0, 1))
            tracks.append(_to_rolls(pitches, begins, z.shape[:2], config))
        return torch.stack(tracks, 1)


def _made_tracks(config: MuseGANConfig) -> list[int]:
    known = config.given_track if config.given == "track" else None
    return [track for track in range(config.num_tracks) if track != known]


def _to_rolls(
    pitches: Tensor, begins: Tensor | None, shape: Sequence[int], config: MuseGANConfig
) -> Tensor:
    """Output of a bar generator for all bars -> (B, bars, steps, pitches) between -1 and 1."""
    pitches = pitches.unflatten(0, shape)
    if config.output == "tanh":
        return pitches.tanh()
    p = pitches.softmax(-1)
    highest = F.one_hot(pitches.argmax(-1), config.num_pitches).to(p)
    rolls = highest + (p - p.detach())
    if begins is not None:
        p = begins.unflatten(0, shape).sigmoid()
        rolls = hold((p > 0.5).to(p) + (p - p.detach()), rolls)
    return 2 * rolls - 1


def hold(begins: Tensor, rolls: Tensor) -> Tensor:
    """Hold each note: a step takes its own pitch if a note begins, else that of the step before.

    A note may be held into the next bar of its track. The first step always begins a note.

    Args:
        begins: 1 or 0, (B, bars, steps).
        rolls: (B, bars, steps, pitches).
    """
    new, sounds = begins.flatten(1, 2).unsqueeze(-1), rolls.flatten(1, 2)
    held = [sounds[:, 0]]
    for t in range(1, sounds.shape[1]):
        held.append(torch.lerp(held[-1], sounds[:, t], new[:, t]))
    return torch.stack(held, 1).view_as(rolls)


class RollCritic(nn.Module):
    """Rolls (B, tracks, bars, steps, pitches) in [-1, 1] -> outputs (B,), higher for real ones.

    1,446,401 parameters at the book's sizes. With `given="bar"` the previous bar is put in front.
    """

    def __init__(self, config: MuseGANConfig):
        super().__init__()
        self.config = config
        bars = config.num_bars + (config.given == "bar")
        octaves = config.num_pitches // 12
        first, second, *widths = config.critic_channels
        # Convolutions over bars alone see time and pitch as one side.
        self.over_bars = nn.Sequential(
            nn.Conv2d(config.num_tracks * (1 + config.onsets + config.chroma), first, (2, 1)),
            nn.LeakyReLU(0.3),  # the default of the book's framework
            nn.Conv2d(first, second, (bars - 1, 1)),
            nn.LeakyReLU(0.3),
        )
        kernels = [(1, 12), (1, octaves), (2, 1), (2, 1), (4, 1), (3, 1)]
        strides = [(1, 12), (1, octaves), *[(2, 1)] * 4]
        sides = (config.steps_per_bar, config.num_pitches)
        layers: list[nn.Module] = []
        sizes = itertools.pairwise((second, *widths))
        for (before, after), kernel, stride in zip(sizes, kernels, strides, strict=True):
            pad = same_pad(sides, kernel, stride)
            if any(pad.padding):
                layers.append(pad)
            layers += [nn.Conv2d(before, after, kernel, stride), nn.LeakyReLU(0.3)]
            sides = tuple(-(-n // s) for n, s in zip(sides, stride, strict=True))
        self.layers = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(widths[-1] * sides[0] * sides[1], config.critic_dim),
            nn.LeakyReLU(0.3),
            nn.Linear(config.critic_dim, 1),
        )
        _initialise(self, config)
        if config.init == "normal":
            for layer in self.layers:
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, 0, 0.02)

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        if self.config.given == "bar":
            assert given is not None
            x = torch.cat([given[:, :, None], x], 2)
        shown = [x]
        if self.config.onsets:
            shown.append(onsets(x))
        if self.config.chroma:
            shown.append(chroma(x))
        x = torch.cat(shown, 1)
        h = self.over_bars(x.flatten(3))[:, :, 0]
        return self.layers(h.unflatten(2, x.shape[3:]))[:, 0]


def onsets(x: Tensor) -> Tensor:
    """Beginnings of notes in rolls (B, tracks, bars, steps, pitches), of that shape, in [-1, 1].

    1 where a pitch sounds that did not sound a step before; silence precedes the first step.
    """
    sounds = ((x + 1) / 2).flatten(2, 3)
    before = F.pad(sounds[:, :, :-1], (0, 0, 1, 0))
    return (2 * sounds * (1 - before) - 1).view_as(x)


def chroma(x: Tensor) -> Tensor:
    """Pitch classes that sound in rolls as for `onsets`, alike in all octaves; silence is none.

    A note sounds in its track at 1 in all octaves, so that tracks an octave apart meet.
    """
    sounds = ((x + 1) / 2).unflatten(-1, (-1, 12))
    last = torch.ones(sounds.shape[-2:], device=x.device, dtype=x.dtype)
    last[-1, -1] = 0  # the last pitch stands for silence
    classes = (sounds * last).sum(-2, keepdim=True).expand_as(sounds)
    return 2 * classes.flatten(-2) - 1


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)


def _initialise(network: nn.Module, config: MuseGANConfig) -> None:
    """Draw the initial weights; those of dense layers as in the book's framework."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            if config.init == "normal" and not isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, 0.02)
            else:
                nn.init.xavier_uniform_(layer.weight)
            doubles = isinstance(layer, nn.ConvTranspose2d) and layer.stride == (2, 1)
            if config.init == "held" and doubles:
                with torch.no_grad():
                    layer.weight[:, :, 1] = layer.weight[:, :, 0]
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
