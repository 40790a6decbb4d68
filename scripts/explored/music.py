"""A trained model of music: what it attends to, what it expects, what each noise changes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

from generative.training.ranges import Checked, Count, NonNegative, Range
from scripts.common.music import VoiceData
from scripts.explored.common import Subject

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch import Tensor

    from generative.musegan import MuseGAN
    from generative.music.score import Score

CLASSES = ("MusicTransformer", "MuseGAN", "MusicRNN")


@dataclass(frozen=True)
class Settings(Checked):
    """Models of music."""

    length: Count = 50
    """Elements of a Transformer's piece."""
    temperatures: tuple[NonNegative, ...] = (0.5, 1.0)
    track: Annotated[int, Range(0, 2**31 - 1)] = 3
    """MuseGAN: whose melody and groove are changed."""
    max_pieces: Count | None = None
    """MuseGAN: search at most this many pieces of its data for the nearest to a sample."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperatures:
            raise ValueError("temperatures is empty; give at least one")


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures and MIDI files.

    Of a Transformer: samples at several temperatures, where each element of one looked (the largest
    weight of all heads), and what note and duration it expected next. Of a MuseGAN: samples, the
    same with other chords, style, melody or groove, and the training pieces that are nearest. Of a
    recurrent network: samples.
    """
    import torch

    from scripts.train_music_rnn import score_rolls

    generator = torch.Generator().manual_seed(subject.seed)
    name = type(subject.model).__name__
    if name == "MusicRNN":
        save(subject, "samples", score_rolls(subject.model.sample(8, generator)))
    else:
        look = explore_musegan if name == "MuseGAN" else explore_transformer
        look(subject, settings, generator)
    return {}


def explore_transformer(subject: Subject, settings: Settings, generator: torch.Generator) -> None:
    model = subject.model
    for temperature in settings.temperatures:
        tokens = model.sample(4, generator, settings.length, temperature)
        save(subject, f"samples-{temperature:g}", model.scores(tokens), programs=(42,))
    tokens = model.sample(1, generator, settings.length, settings.temperatures[0])
    tokens = tokens[:, : int((tokens[0, :, 0] >= 2).sum())]
    save(subject, "piece", model.scores(tokens), programs=(42,))
    maps: list[Tensor] = []
    expected = model.next_log_probs(tokens, maps)
    names = [v.decode(tokens[0, :, s].tolist()) for s, v in enumerate(model.vocabularies)]
    for i, weights in enumerate(maps):
        figure = plot_attention(weights[0].amax(0), names[0])
        subject.save_figure(f"attention-{i + 1}", figure, dpi=110)
    for s, stream in enumerate(("notes", "durations")[: len(names)]):
        figure = plot_expected(expected[s][0].exp(), model.vocabularies[s].words, names[s])
        subject.save_figure(f"expected-{stream}", figure, dpi=110)


def plot_attention(weights: Tensor, names: list[str]) -> Figure:
    """Figure: attention of each element (columns) to the earlier ones (rows), dark is much."""
    from matplotlib.figure import Figure

    size = max(3.0, 0.16 * len(names))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(weights.T.numpy(), cmap="Reds", vmin=0)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.set_xlabel("the element after this one is drawn")
    axes.set_ylabel("attends to")
    return figure


def plot_expected(p: Tensor, words: tuple[str, ...], names: list[str]) -> Figure:
    """Figure: probabilities of the next pitch (rows, low first) after each element (columns)."""
    from fractions import Fraction

    import numpy as np
    from matplotlib.figure import Figure

    from generative.music.tokens import pitch_number

    def place(word: str) -> float:
        """Numbers by size and pitches by height; signs come first."""
        if word[:1].isdigit() and not word.endswith("TS"):
            return float(Fraction(word))
        sounds = word[-1:].isdigit() and word != "rest"
        return float(pitch_number(word)) if sounds else -1.0

    columns = p.numpy()[:, 2:]
    shown = [i for i in np.argsort([place(w) for w in words]) if columns[:, i].max() > 0.05]
    shown = shown or [0]
    size = (max(4.0, 0.16 * len(names)), max(2.5, 0.15 * len(shown)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    picture = columns[:, shown].T
    axes.imshow(picture, cmap="Greys", aspect="auto", origin="lower", vmin=0, vmax=1)
    axes.set_yticks(range(len(shown)), [words[i] for i in shown], fontsize=6)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    axes.set_xlabel("after")
    return figure


def explore_musegan(subject: Subject, settings: Settings, generator: torch.Generator) -> None:
    import torch

    gan = subject.model
    if gan.given == "track":
        raise ValueError("this MuseGAN needs a track that is given; explore one that is given none")
    rows, track = 3, min(settings.track, gan.shape[0] - 1)
    noise, other = gan.draw_noise(rows, generator), gan.draw_noise(rows, generator)
    melody, groove = noise.melody.clone(), noise.groove.clone()
    melody[:, track], groove[:, track] = other.melody[:, track], other.groove[:, track]
    changed = {
        "chords": noise._replace(chords=other.chords),
        "style": noise._replace(style=other.style),
        "melody": noise._replace(melody=melody),
        "groove": noise._replace(groove=groove),
    }
    with torch.no_grad():
        first = gan.generate(noise)
        save(subject, "samples", gan.scores(gan.sample(8, generator)), programs=(52,))
        for name, its_noise in changed.items():
            pairs = torch.stack([first, gan.generate(its_noise)], 1).flatten(0, 1)
            save(subject, f"change-{name}", gan.scores(pairs), programs=(52,))
    if gan.given == "bar":
        long = gan.go_on(first[:2], 8, generator)
        save(subject, "eight-bars", gan.scores(long), columns=1, programs=(52,))
    if subject.data in get_args(VoiceData):
        with contextlib.suppress(FileNotFoundError):  # its files are gone
            near = nearest_pieces(gan, first, subject, settings)
            save(subject, "nearest", near, programs=(52,))


def nearest_pieces(
    gan: MuseGAN, rolls: Tensor, subject: Subject, settings: Settings
) -> list[Score]:
    """Each sample, and after it the training piece at the least Euclidean distance."""
    import torch

    from scripts.common.music import load_voices
    from scripts.train_musegan import excerpts

    data = cast("VoiceData", subject.data)
    pieces = load_voices(data, subject.data_dir, settings.max_pieces)["train"]
    known, _ = gan.split(excerpts(pieces, gan.config, "all").float())
    index = torch.cdist(rolls.flatten(1), known.flatten(1)).argmin(1)
    return gan.scores(torch.stack([rolls, known[index]], 1).flatten(0, 1))


def save(subject: Subject, name: str, scores: list[Score], columns: int = 2, programs=(0,)) -> None:
    """A picture of piano rolls and a MIDI file for each."""
    from generative.music import piano_rolls

    subject.save(name, piano_rolls(scores, columns))
    for i, score in enumerate(scores):
        score.write_midi(subject.pictures / f"{name}-{i}.mid", programs)
