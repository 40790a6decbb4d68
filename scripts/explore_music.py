"""Look into a trained model of music: what it attends to, what it expects, what each noise changes.

python scripts/explore_music.py --model runs/music_transformer/model
python scripts/explore_music.py musegan
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from generative.training.cli import Input, start
from generative.training.ranges import Checked, Count, Folder, NonNegative, Range, Seed
from scripts.common.music import VoiceData

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from generative.musegan import MuseGAN
    from generative.music.score import Score
    from generative.music.transformer import MusicTransformer


@dataclass(frozen=True)
class Args(Checked):
    """Look into a Transformer of music or a MuseGAN: pictures and MIDI files.

    Of a Transformer: samples at several temperatures, where each element of one looked (the largest
    weight of all heads), and what note and duration it expected next. Of a MuseGAN: samples, the
    same with other chords, style, melody or groove, and the training pieces that are nearest.
    """

    model: Annotated[Path, Input("train_music_transformer.py")] = Path(
        "runs/music_transformer/model"
    )
    """Folder of the model, as train_music_transformer.py or train_musegan.py writes it."""
    folder: Annotated[Folder, tyro.conf.arg(name="out")] = Path("runs/music_transformer/explore")
    """Where the pictures and MIDI files go."""
    length: Count = 50
    """Elements of a Transformer's piece."""
    temperatures: tuple[NonNegative, ...] = (0.5, 1.0)
    track: Annotated[int, Range(0, 2**31 - 1)] = 0
    """MuseGAN: whose melody and groove are changed."""
    data: VoiceData | None = None
    """MuseGAN: where to look for what a sample is like; nothing if not given."""
    data_dir: Path = Path("data")
    """Where the files of the data are."""
    max_pieces: Count | None = None
    """Look at so many of its pieces at most."""
    seed: Seed = 1


MUSEGAN = (Path("runs/musegan/model"), Path("runs/musegan/explore"))
DEFAULT_PRESET = "transformer"
PRESETS = {
    "transformer": Args(),
    "musegan": Args(*MUSEGAN, track=3, data="jsb"),
    "musegan-chorales": Args(*MUSEGAN, track=3, data="chorales"),
    "smoke": Args(length=10, data="tunes", max_pieces=20),
}


def main(args: Args) -> Path:
    """Returns the folder of the pictures."""
    import torch

    from generative.musegan import MuseGAN
    from generative.music.transformer import MusicTransformer
    from generative.training.pretrained import class_name

    name = class_name(args.model)
    kind = MuseGAN if name == "MuseGAN" else MusicTransformer
    model = kind.from_pretrained(args.model)
    args.folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(args.seed)
    if isinstance(model, MuseGAN):
        explore_musegan(model, args, generator)
    else:
        explore_transformer(model, args, generator)
    pictures, midi = (len(list(args.folder.glob(f"*.{end}"))) for end in ("png", "mid"))
    print(f"wrote {pictures} pictures and {midi} MIDI files into {args.folder}")
    return args.folder


def explore_transformer(model: MusicTransformer, args: Args, generator: torch.Generator) -> None:
    for temperature in args.temperatures:
        tokens = model.sample(4, generator, args.length, temperature)
        save(args.folder, f"samples-{temperature:g}", model.scores(tokens), programs=(42,))
    tokens = model.sample(1, generator, args.length, args.temperatures[0])
    tokens = tokens[:, : int((tokens[0, :, 0] >= 2).sum())]
    save(args.folder, "piece", model.scores(tokens), programs=(42,))
    maps: list[Tensor] = []
    expected = model.next_log_probs(tokens, maps)
    names = [v.decode(tokens[0, :, s].tolist()) for s, v in enumerate(model.vocabularies)]
    for i, weights in enumerate(maps):
        plot_attention(weights[0].amax(0), names[0], args.folder / f"attention-{i + 1}.png")
    for s, stream in enumerate(("notes", "durations")[: len(names)]):
        path = args.folder / f"expected-{stream}.png"
        plot_expected(expected[s][0].exp(), model.vocabularies[s].words, names[s], path)


def plot_attention(weights: Tensor, names: list[str], path: Path) -> None:
    """Columns are elements as they come, rows what they look back on, dark is much."""
    from matplotlib.figure import Figure

    size = max(3.0, 0.16 * len(names))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(weights.T.numpy(), cmap="Reds", vmin=0)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.set_xlabel("the element after this one is drawn")
    axes.set_ylabel("attends to")
    figure.savefig(path, dpi=110)


def plot_expected(p: Tensor, words: tuple[str, ...], names: list[str], path: Path) -> None:
    """What is expected next (rows, pitches from low to high) after each element (columns)."""
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
    figure.savefig(path, dpi=110)


def explore_musegan(gan: MuseGAN, args: Args, generator: torch.Generator) -> None:
    import torch

    if gan.config.given == "track":
        raise ValueError("this MuseGAN needs a track that is given; explore one that is given none")
    rows, track = 3, args.track
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
        save(args.folder, "samples", gan.scores(gan.sample(8, generator)), programs=(52,))
        for name, its_noise in changed.items():
            pairs = torch.stack([first, gan.generate(its_noise)], 1).flatten(0, 1)
            save(args.folder, f"change-{name}", gan.scores(pairs), programs=(52,))
    if gan.config.given == "bar":
        long = gan.go_on(first[:2], 8, generator)
        save(args.folder, "eight-bars", gan.scores(long), columns=1, programs=(52,))
    if args.data is not None:
        save(args.folder, "nearest", nearest_pieces(gan, first, args), programs=(52,))


def nearest_pieces(gan: MuseGAN, rolls: Tensor, args: Args) -> list[Score]:
    """Each sample, and after it the training piece at the least Euclidean distance."""
    import torch

    from scripts.common.music import load_voices
    from scripts.train_musegan import excerpts

    assert args.data is not None
    pieces = load_voices(args.data, args.data_dir, args.max_pieces)["train"]
    known, _ = gan.split(excerpts(pieces, gan.config, "all").float())
    index = torch.cdist(rolls.flatten(1), known.flatten(1)).argmin(1)
    return gan.scores(torch.stack([rolls, known[index]], 1).flatten(0, 1))


def save(folder: Path, name: str, scores: list[Score], columns: int = 2, programs=(0,)) -> None:
    """A picture of piano rolls and a MIDI file for each."""
    from PIL import Image

    from generative.music import piano_rolls

    Image.fromarray(piano_rolls(scores, columns)).save(folder / f"{name}.png")
    for i, score in enumerate(scores):
        score.write_midi(folder / f"{name}-{i}.mid", programs)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
