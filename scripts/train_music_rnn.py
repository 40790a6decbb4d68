"""Train an LSTM or GRU on piano rolls of chorales."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

from generative.music.config import MusicLossConfig, MusicRNNConfig
from generative.training.cli import start
from generative.training.ranges import (
    Checked,
    Count,
    CountOrZero,
    Device,
    Ending,
    Folder,
    Seed,
    Workers,
)
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.common.music import RollData


@dataclass(frozen=True)
class Args(Checked):
    """Train an LSTM or GRU on piano rolls of chorales.

    The result has the nats a frame of the test pieces, and of the others.

    The preset chorales takes 5 to 10 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/music_rnn")
    """Run folder; the trained model is in its `model` folder, samples in `images` and `midi`."""
    data: RollData = "jsb"
    """jsb: the file jsb-chorales-quarter.json with the split of published results."""
    data_dir: Path = Path("data")
    """Folder of the file, or of a subfolder of the data's name."""
    max_pieces: Count | None = None
    """Use at most this many pieces."""
    model: MusicRNNConfig = field(default_factory=MusicRNNConfig)
    loss: MusicLossConfig = field(default_factory=MusicLossConfig)
    transpose: CountOrZero = 0
    """Move each training piece by at most this many keys, at random."""
    steps: Count = 1000
    """Optimiser steps."""
    batch_size: Count = 32
    """Pieces of a step."""
    log_every: Count = 50
    picture_every: Count = 500
    """Steps from one sample to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "chorales"
LSTM = Args(
    model=MusicRNNConfig(hidden_dim=256, dropout=0.4),
    loss=MusicLossConfig(lr=5e-3, final_lr=1e-5, clip=1.0, ema=0.99, validate_every=50),
    transpose=2,
    # Validation is best about half way, while the rate is high; the weights of then are kept.
    steps=4000,
    batch_size=16,
)
PRESETS = {
    "lstm": LSTM,
    "gru": replace(
        LSTM,
        model=MusicRNNConfig(cell="gru", hidden_dim=400, input_dropout=0.1, dropout=0.5),
        loss=replace(LSTM.loss, lr=1e-2),
        transpose=4,
        steps=6000,
    ),
    # What padding costs that is not masked, and a training that nothing keeps from over-fitting.
    "padded": Args(loss=MusicLossConfig(count_padding=True)),
    "plain": Args(loss=MusicLossConfig(validate_every=50)),
    "chorales": replace(LSTM, data="chorales"),
    "smoke": Args(
        data="tunes",
        max_pieces=30,
        model=MusicRNNConfig(hidden_dim=16, length=16),
        loss=MusicLossConfig(lr=1e-2, final_lr=1e-3, ema=0.9, validate_every=10),
        transpose=2,
        steps=20,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.music.measures import frame_nats
    from generative.music.rnn import MusicLearner, MusicRNN, pad_rolls, shift_keys
    from generative.training.loop import fit
    from scripts.common.music import load_rolls, show_scores

    with Run.open(args, kind="train_music_rnn") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        rolls = load_rolls(args.data, args.data_dir, args.max_pieces)
        torch.manual_seed(run.seed_for("weights"))
        model = MusicRNN(args.model).to(run.device)
        validation = pad_rolls(rolls["val"]).to(run.device)
        learner = MusicLearner(
            model, args.loss, args.steps, lambda model: float(model.loss(validation).loss)
        )

        by_length = sorted(range(len(rolls["train"])), key=lambda i: len(rolls["train"][i]))

        def batch(step: int):
            rng = run.rng("batch", step)
            # Neighbours by length, so that little is padded; all pieces come equally often.
            first = rng.integers(len(by_length))
            rows = [by_length[(first + i) % len(by_length)] for i in range(args.batch_size)]
            by = rng.integers(-args.transpose, args.transpose + 1, size=args.batch_size)
            chosen = [shift_keys(rolls["train"][i], k) for i, k in zip(rows, by, strict=True)]
            return pad_rolls(chosen).to(run.device)

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                generator = torch.Generator(run.device).manual_seed(0)
                show_scores(run, step, score_rolls(learner.kept.sample(4, generator)))

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training the recurrent network", on_log=show,
        )  # fmt: skip
        kept = learner.kept
        kept.save_pretrained(run.path / "model")
        result = {}
        for part, pieces in rolls.items():
            nats = frame_nats(kept, [pad_rolls([p]).to(run.device) for p in pieces])
            result |= {
                f"{part}_nats_per_frame": nats.all,
                f"{part}_nats_after_first_frame": nats.after_first,
            }
        run.finish({**run.metrics.last(), **result})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def score_rolls(rolls):
    """Samples (N, T, 88) of quarter notes as scores; a key held on is one note."""
    from fractions import Fraction

    from generative.music import Note, Score
    from scripts.common.music import LOWEST_KEY

    scores = []
    for roll in rolls.cpu().numpy().astype(bool):
        notes = []
        for key in range(roll.shape[1]):
            start = None
            for t in range(len(roll) + 1):
                sounds = t < len(roll) and roll[t, key]
                if sounds and start is None:
                    start = t
                elif not sounds and start is not None:
                    notes.append(Note(Fraction(start), Fraction(t - start), key + LOWEST_KEY))
                    start = None
        scores.append(Score(notes))
    return scores


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
