"""Train a Transformer on melodies, as notes and durations in two streams of words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from generative.music.config import MusicLossConfig, MusicTransformerConfig
from generative.nets.config import BlockConfig
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Folder, NonNegative, Seed, Workers
from generative.training.run import Run
from scripts.common.music import StreamData


@dataclass(frozen=True)
class Args(Checked):
    """Train a Transformer on melodies, as notes and durations in two streams of words.

    The result has the nats of a note and of a duration in pieces that were not trained on.

    The preset chorales takes 5 to 10 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/music_transformer")
    """Run folder; the trained model is in its `model` folder, samples in `images` and `midi`."""
    data: StreamData = "cello-suites"
    """Pieces to train on; the vocabulary is made of the training pieces."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name, which also keeps the pieces read
    from music21's corpus."""
    max_pieces: Count | None = None
    """Use at most this many pieces."""
    train_on: tuple[str, ...] = ("train",)
    """Parts of the data; the book holds nothing back: train val test."""
    model: MusicTransformerConfig = field(default_factory=MusicTransformerConfig)
    loss: MusicLossConfig = field(default_factory=MusicLossConfig)
    windows: Literal["inside", "around"] = "inside"
    """Windows of pieces: all there are, each as likely, as in the book; or around a random element
    of a random piece, so that first and last elements are learnt as well as others."""
    transpose: bool = False
    """Train in all twelve keys."""
    steps: Count = 10_000
    """Optimiser steps."""
    batch_size: Count = 64
    """Windows of a step, each of model.length elements."""
    log_every: Count = 100
    picture_every: Count = 1000
    """Steps from one sample to the next, a multiple of log_every; the last step has one too."""
    temperature: NonNegative = 0.5
    """Temperature of these samples, as in the book."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "chorales"
CORRECTED = Args(
    model=MusicTransformerConfig(relative=48, chained=True, clock=True),
    loss=MusicLossConfig(final_lr=1e-5, clip=1.0, ema=0.99, validate_every=100),
    windows="around",
    transpose=True,
    temperature=1.0,
)
CHORALES = replace(
    CORRECTED,
    data="chorales",
    model=MusicTransformerConfig(
        embed_dim=32,
        block=BlockConfig(
            dim=64, num_heads=4, key_dim=0, ff_dim=256, norm="pre", activation="gelu", dropout=0.1
        ),
        num_layers=2,
        relative=32,
        chained=True,
        clock=True,
        length=64,
    ),
    loss=replace(CORRECTED.loss, lr=5e-3, adam_eps=1e-8),
    steps=1200,
    batch_size=32,
    picture_every=400,
)
PRESETS = {
    "book": Args(train_on=("train", "val", "test")),
    # The book sees only windows from inside of pieces, in the keys that they are in, and holds
    # none back; its model draws a duration without knowing the note, and does not know distances.
    "corrected": CORRECTED,
    "chorales": CHORALES,
    "chorales-lstm": replace(
        CHORALES, model=replace(CHORALES.model, network="lstm", relative=0, lstm_dim=76)
    ),
    "smoke": Args(
        data="tunes",
        max_pieces=30,
        model=MusicTransformerConfig(
            embed_dim=8,
            block=BlockConfig(dim=16, num_heads=2, key_dim=8, ff_dim=16),
            relative=8,
            chained=True,
            clock=True,
            length=16,
        ),
        loss=MusicLossConfig(lr=1e-2, final_lr=1e-3, ema=0.9, validate_every=10),
        windows="around",
        transpose=True,
        steps=20,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.music import transpose_streams
    from generative.music.measures import word_nats
    from generative.music.transformer import (
        MusicLearner,
        MusicTransformer,
        encode_pieces,
        pad_tokens,
        vocabularies,
        windows,
    )
    from generative.training.loop import fit
    from scripts.common.music import load_streams, show_scores

    with Run.open(args, kind="train_music_transformer") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        found = load_streams(args.data, args.data_dir, args.max_pieces)
        pieces = {part: [transpose_streams(p, 0) for p in of] for part, of in found.items()}
        keys = range(-5, 7) if args.transpose else (0,)
        train = [
            transpose_streams(p, k) for k in keys for part in args.train_on for p in pieces[part]
        ]
        words = vocabularies(train)  # held-out pieces can then have unknown words
        encoded = {part: encode_pieces(of, words) for part, of in pieces.items() if of}
        train = encode_pieces(train, words)
        torch.manual_seed(run.seed_for("weights"))
        config = replace(args.model, streams=words)
        model = MusicTransformer(config).to(run.device)
        held_out = "val" if "val" in encoded else args.train_on[0]
        learner = MusicLearner(
            model, args.loss, args.steps,
            lambda model: sum(word_nats(model, encoded[held_out])[:2]),
        )  # fmt: skip
        length = config.length + 1
        if args.windows == "inside":
            train = [window for piece in train for window in windows(piece, config.length)]

        def batch(step: int):
            rng = run.rng("batch", step)
            rows = rng.integers(len(train), size=args.batch_size)
            chosen = []
            for i in rows:
                # Around any element: beginnings and ends are seen whole, and more often.
                middle = rng.integers(len(train[i]))
                first = min(max(0, middle - length // 2), max(0, len(train[i]) - length))
                chosen.append(train[i][first : first + length])
            return pad_tokens(chosen).to(run.device)

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                generator = torch.Generator(run.device).manual_seed(0)
                kept = learner.kept
                tokens = kept.sample(4, generator, temperature=args.temperature)
                show_scores(run, step, kept.scores(tokens), programs=(42,))

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training the music model", on_log=show,
        )  # fmt: skip
        kept = learner.kept
        kept.save_pretrained(run.path / "model")
        result: dict[str, float] = {"parameters": sum(p.numel() for p in kept.parameters())}
        for part in encoded:
            note, duration, unknown = word_nats(kept, encoded[part])
            result |= {f"{part}_note_nats": note, f"{part}_duration_nats": duration}
            result[f"{part}_unknown_words"] = unknown
        run.finish({**run.metrics.last(), **result})
        return run.path / "model"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
