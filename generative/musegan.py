"""MuseGAN: a few bars of several tracks, of noise for chords, style, melody and groove.

    gan = MuseGAN.from_pretrained("runs/musegan/model")
    noise = gan.draw_noise(8)
    rolls = gan.generate(noise)                             # (8, tracks, bars, steps, pitches)
    gan.generate(noise._replace(style=other.style))         # the same in another style
    gan.scores(rolls)[0].write_midi("new.mid")

A score is an image: time and pitch are its sides, tracks its channels. Each track has a generator
of bars, which sees four noises: chords (other in each bar, shared by the tracks), style (the same
everywhere), melody (other in each bar and track) and groove (of the track, the same in each bar)
(Dong et al. 2018; Foster 2023, chapter 11). A critic that convolves over bars, pitch and
time is trained with the gradient penalty of `generative.wgan`.

With `given="track"` the generator is told one track and makes the others to it; with `given="bar"`
it is told the bar before, and `gan.go_on(rolls, 8)` makes a piece as long as wanted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.checks import check_images
from generative.configs.musegan import MuseGANConfig, MuseGANLossConfig
from generative.gan import (
    average_of,
    cosine,
    energy_coefficient,
    learner_state,
    load_learner_state,
    with_generator,
)
from generative.music.score import Score, score_of_voices
from generative.pretrained import Pretrained
from generative.wgan import gradient_penalty

__all__ = [
    "Critic",
    "Generator",
    "MuseGAN",
    "MuseGANConfig",
    "MuseGANLearner",
    "MuseGANLossConfig",
    "Noise",
    "rolls_of_voices",
    "track_penalty",
    "voices_of_rolls",
]


class Noise(NamedTuple):
    """What a generator makes music of; D numbers each, of B pieces with P tracks."""

    chords: Tensor
    """(B, D): the same for all tracks, and a network makes another of it for each bar."""
    style: Tensor
    """(B, D): the same for all tracks and bars."""
    melody: Tensor
    """(B, P, D): of each track, and a network makes another of it for each bar."""
    groove: Tensor
    """(B, P, D): of each track, the same for all bars."""


# ---------------------------------------------------------------------------------------------
# Networks; for them rolls have values from -1 to 1
# ---------------------------------------------------------------------------------------------


class TemporalNetwork(nn.Module):
    """One noise (B, D) -> one for each bar (B, bars, D): how a bar follows another.

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

    1,517,313 parameters at the book's sizes.
    """

    def __init__(self, in_dim: int, config: MuseGANConfig):
        super().__init__()
        self.layers = nn.Sequential(*_bar_layers(in_dim, config))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)[:, 0]


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
    """A bar of some tracks (N, tracks, steps, pitches) -> D numbers: a bar generator reversed."""

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


class Generator(nn.Module):
    """Noise, and what is given -> rolls (B, tracks, bars, steps, pitches) in [-1, 1].

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

    def forward(self, noise: Noise, given: Tensor | None = None) -> Tensor:
        """
        Args:
            given: the known track (B, bars, steps, pitches), which becomes part of the result, or
                the bar before (B, tracks, steps, pitches).
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
            # All bars go through at once, and batch normalisation is over them together.
            tracks.append(self.bars[str(track)](z.flatten(0, 1)).unflatten(0, z.shape[:2]))
            tracks[-1] = _to_rolls(tracks[-1], config)
        return torch.stack(tracks, 1)


def _made_tracks(config: MuseGANConfig) -> list[int]:
    known = config.given_track if config.given == "track" else None
    return [track for track in range(config.num_tracks) if track != known]


def _to_rolls(logits: Tensor, config: MuseGANConfig) -> Tensor:
    """(..., pitches) -> values between -1 and 1."""
    if config.output == "tanh":
        return logits.tanh()
    p = logits.softmax(-1)
    highest = F.one_hot(logits.argmax(-1), config.num_pitches).to(p)
    return 2 * (highest + (p - p.detach())) - 1


class Critic(nn.Module):
    """Rolls (B, tracks, bars, steps, pitches) in [-1, 1] -> heights (B,), higher for real ones.

    1,446,401 parameters at the book's sizes. With `given="bar"` the bar before is put in front.
    """

    def __init__(self, config: MuseGANConfig):
        super().__init__()
        self.config = config
        bars = config.num_bars + (config.given == "bar")
        octaves = config.num_pitches // 12
        first, second, *widths = config.critic_channels
        # What is convolved over bars alone has time and pitch as one side.
        self.over_bars = nn.Sequential(
            nn.Conv2d(config.num_tracks * (2 if config.onsets else 1), first, (2, 1)),
            nn.LeakyReLU(0.3),  # what the book's framework has if nothing is said
            nn.Conv2d(first, second, (bars - 1, 1)),
            nn.LeakyReLU(0.3),
        )
        kernels = [(1, 12), (1, octaves), (2, 1), (2, 1), (4, 1), (3, 1)]
        strides = [(1, 12), (1, octaves), *[(2, 1)] * 4]
        sides = (config.steps_per_bar, config.num_pitches)
        layers: list[nn.Module] = []
        sizes = itertools.pairwise((second, *widths))
        for (before, after), kernel, stride in zip(sizes, kernels, strides, strict=True):
            (top, bottom), (left, right) = _same(sides, kernel, stride)
            if top or bottom:
                layers.append(nn.ZeroPad2d((left, right, top, bottom)))
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
        if self.config.onsets:
            x = torch.cat([x, onsets(x)], 1)
        h = self.over_bars(x.flatten(3))[:, :, 0]
        return self.layers(h.unflatten(2, x.shape[3:]))[:, 0]


def onsets(x: Tensor) -> Tensor:
    """Where notes begin, of rolls (B, tracks, bars, steps, pitches); all values in [-1, 1].

    1 where a pitch sounds that did not sound a step before; before the first step is silence.
    """
    sounds = ((x + 1) / 2).flatten(2, 3)
    before = F.pad(sounds[:, :, :-1], (0, 0, 1, 0))
    return (2 * sounds * (1 - before) - 1).view_as(x)


def _same(
    sides: Sequence[int], kernel: Sequence[int], stride: Sequence[int]
) -> list[tuple[int, int]]:
    """ "Same" padding: output sides are ceil(side / stride), the odd place is at the end."""
    pairs = []
    for n, k, s in zip(sides, kernel, stride, strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        pairs.append((total // 2, total - total // 2))
    return pairs


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)


def _initialise(network: nn.Module, config: MuseGANConfig) -> None:
    """First weights; dense layers begin as the book's framework has them."""
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


# ---------------------------------------------------------------------------------------------
# The model
# ---------------------------------------------------------------------------------------------


class MuseGAN(Pretrained, nn.Module):
    """Generator and critic; rolls have values in [0, 1]."""

    config_class = MuseGANConfig
    capabilities: ClassVar[frozenset[str]] = frozenset({"sample"})

    def __init__(self, config: MuseGANConfig | None = None):
        super().__init__()
        self.config = config = config or MuseGANConfig()
        self.generator = Generator(config)
        self.discriminator = Critic(config)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(tracks, bars, steps, pitches) of one piece."""
        c = self.config
        return (c.num_tracks, c.num_bars, c.steps_per_bar, c.num_pitches)

    def draw_noise(self, n: int, generator: torch.Generator | None = None) -> Noise:
        """Standard normal noise for n pieces."""
        device = next(self.parameters()).device
        d, p = self.config.latent_dim, self.config.num_tracks
        shapes = ((n, d), (n, d), (n, p, d), (n, p, d))
        return Noise(*(torch.randn(s, generator=generator, device=device) for s in shapes))

    def generate(self, noise: Noise, given: Tensor | None = None) -> Tensor:
        """Noise -> rolls (B, tracks, bars, steps, pitches) in [0, 1].

        Args:
            given: with `given="track"` that track (B, bars, steps, pitches), which is in the result
                too; with `given="bar"` the bar before (B, tracks, steps, pitches), silence if it is
                left out.
        Raises:
            ValueError: what is given does not fit, or is missing.
        """
        known = self._check_given(given, len(noise.style))
        return (self.generator(noise, known) + 1) / 2

    def score(self, rolls: Tensor, given: Tensor | None = None) -> Tensor:
        """The critic's height of each piece, (B, tracks, bars, steps, pitches) -> (B,).

        Raises:
            ValueError: another shape or type, or a value outside [0, 1].
        """
        rolls = check_images(rolls, self.shape, "this MuseGAN")
        known = self._check_given(given, len(rolls)) if self.config.given == "bar" else None
        return self.discriminator(2 * rolls - 1, known)

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator | None = None, given: Tensor | None = None
    ) -> Tensor:
        """n pieces, rolls (n, tracks, bars, steps, pitches); see `generate`."""
        return self.generate(self.draw_noise(n, generator), given)

    @torch.no_grad()
    def go_on(
        self, rolls: Tensor, num_bars: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Pieces continued to num_bars bars, (B, tracks, num_bars, steps, pitches).

        Needs `given="bar"`. The style and the groove of a piece stay, chords and melody are new.
        """
        if self.config.given != "bar":
            raise ValueError(f"this MuseGAN is given {self.config.given!r}; train one with 'bar'")
        noise = self.draw_noise(len(rolls), generator)
        while rolls.shape[2] < num_bars:
            new = self.generate(noise, one_hot(rolls[:, :, -1]))
            rolls = torch.cat([rolls, new], 2)
            fresh = self.draw_noise(len(rolls), generator)
            noise = fresh._replace(style=noise.style, groove=noise.groove)
        return rolls[:, :, :num_bars]

    def scores(self, rolls: Tensor) -> list[Score]:
        """Rolls as scores of sixteenth notes: at each step the pitch with the largest value."""
        voices = voices_of_rolls(rolls, self.config.lowest)
        return [score_of_voices(v, self.config.steps_per_bar // 4) for v in voices]

    def split(self, rolls: Tensor) -> tuple[Tensor, Tensor | None]:
        """Rolls of the data as (what is to be made, what is given).

        Where the bar before is given, rolls have one bar more, which is the first.
        """
        if self.config.given == "bar":
            return rolls[:, :, 1:], rolls[:, :, 0]
        return rolls, rolls[:, self.config.given_track] if self.config.given == "track" else None

    def _check_given(self, given: Tensor | None, n: int) -> Tensor | None:
        """From [0, 1] to [-1, 1]."""
        c = self.config
        if c.given == "nothing":
            if given is not None:
                raise ValueError("this MuseGAN is given nothing; train one with given 'track'")
            return None
        first = c.num_bars if c.given == "track" else c.num_tracks
        shape = (first, c.steps_per_bar, c.num_pitches)
        if given is None:
            if c.given == "track":
                raise ValueError(f"this MuseGAN needs track {c.given_track}, (B, {shape})")
            silence = torch.zeros(n, *shape, device=next(self.parameters()).device)
            silence[..., -1] = 1
            given = silence
        return 2 * check_images(given, shape, "what is given to this MuseGAN") - 1


def rolls_of_voices(voices: np.ndarray, config: MuseGANConfig, num_bars: int = 0) -> Tensor:
    """Pitches (N, T, tracks), negative for silence -> rolls (N, tracks, bars, steps, pitches).

    Args:
        num_bars: T / steps_per_bar; those of the config if not given.
    Raises:
        ValueError: another length or number of tracks, or a pitch that the config does not have.
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
    """The inverse, by the largest value at each step: int64 (N, T, tracks), -1 for silence."""
    index = rolls.argmax(-1).flatten(2).movedim(1, 2).cpu().numpy()
    return np.where(index == rolls.shape[-1] - 1, -1, index + lowest)


def one_hot(rolls: Tensor) -> Tensor:
    """Rolls with 1 at the largest value of each step and 0 elsewhere."""
    return F.one_hot(rolls.argmax(-1), rolls.shape[-1]).to(rolls)


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


def track_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    alpha: str = "normal",
    norm_eps: float = 0.0,
) -> Tensor:
    """The gradient penalty as the book's program has it: every track has a norm of its own.

    Rolls (B, tracks, ...); see `generative.wgan.gradient_penalty` for the paper's.
    """
    draw = torch.rand if alpha == "uniform" else torch.randn
    share = draw(len(real), *[1] * (real.dim() - 1), device=real.device, dtype=real.dtype)
    x = (real + share * (fake - real)).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    norm = (slope.flatten(2).square().sum(2) + norm_eps).sqrt()
    return (norm - 1).square().mean()


class MuseGANLearner:
    """Several steps of the critic, each on noise of its own, then one of the generator."""

    def __init__(self, model: MuseGAN, config: MuseGANLossConfig, steps: int):
        self.model, self.config = model, config
        self.optimizers, self.schedules = {}, {}
        for name, lr in (("generator", config.lr), ("discriminator", config.critic_lr)):
            optimizer = torch.optim.Adam(
                getattr(model, name).parameters(),
                lr=lr,
                betas=(config.beta1, config.beta2),
                eps=config.adam_eps,
            )
            self.optimizers[name] = optimizer
            self.schedules[name] = cosine(optimizer, steps, lr * config.lr_end)
        self.average = average_of(model.generator, config.ema)

    @property
    def kept(self) -> MuseGAN:
        """A copy of the model with the generator that should be sampled."""
        return with_generator(self.model, self.average)

    def update(self, rolls: Tensor) -> dict[str, Tensor | float]:
        """One update on rolls (B, tracks, bars, steps, pitches) in [0, 1]; see `MuseGAN.split`.

        Returns:
            c_loss = c_wass + penalty * c_gp of the critic's last step, where -c_wass estimates the
            Wasserstein distance; g_loss; energy and spread, see `energy_coefficient`.
        """
        model, logged = self.model, {}
        real, given = model.split(rolls)
        real = 2 * check_images(real, model.shape, "this MuseGAN") - 1
        known = None if given is None else 2 * given - 1
        for _ in range(self.config.critic_steps):
            logged = self._critic_step(real, known)
        fake = model.generator(model.draw_noise(len(real)), known)
        g_loss = -self._height(fake, known).mean()
        self._move("generator", g_loss)
        for schedule in self.schedules.values():
            schedule.step()
        if self.average is not None:
            self.average.update_parameters(model.generator)
        energy = energy_coefficient(real, fake.detach())._asdict()
        return {**logged, "g_loss": g_loss.detach(), **energy}

    def _critic_step(self, real: Tensor, known: Tensor | None) -> dict[str, Tensor]:
        config, model = self.config, self.model
        with torch.no_grad():
            fake = model.generator(model.draw_noise(len(real)), known)
        c_wass = self._height(fake, known).mean() - self._height(real, known).mean()

        def critic(x: Tensor) -> Tensor:
            return self._height(x, known)

        penalty: Any = track_penalty if config.penalty_norm == "track" else gradient_penalty
        c_gp = penalty(critic, real, fake, alpha=config.alpha, norm_eps=config.norm_eps)
        c_loss = c_wass + config.penalty * c_gp
        self._move("discriminator", c_loss)
        return {"c_loss": c_loss.detach(), "c_wass": c_wass.detach(), "c_gp": c_gp.detach()}

    def _height(self, x: Tensor, known: Tensor | None) -> Tensor:
        return self.model.discriminator(x, known if self.model.config.given == "bar" else None)

    def _move(self, name: str, loss: Tensor) -> None:
        """One step of one network; the other keeps its gradients and weights."""
        network = getattr(self.model, name)
        parameters = list(network.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizers[name].step()

    def state_dict(self) -> dict:
        return learner_state(self)  # pyright: ignore[reportArgumentType]

    def load_state_dict(self, state: dict) -> None:
        load_learner_state(self, state)  # pyright: ignore[reportArgumentType]
