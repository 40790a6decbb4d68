"""Train MuseGAN on bars of chorales in four voices."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from generative.musegan.config import MUSEGAN_BOOK, MuseGANConfig, MuseGANLossConfig
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Folder, Seed, Workers
from generative.training.run import Run
from scripts.common.music import VoiceData


@dataclass(frozen=True)
class Args(Checked):
    """Train MuseGAN on bars of chorales in four voices.

    The result compares samples with pieces that were not trained on: of each measure of style the
    distance between them, and that between two halves of these pieces.

    The preset chorales takes 20 to 40 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/musegan")
    """Run folder; the trained networks are in its `model` folder, samples in `images`, `midi`."""
    data: VoiceData = "jsb"
    """jsb: Jsb16thSeparated.npz, Jsb16thSeparated.json or jsb-chorales-16th.json."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name, which also keeps the pieces read
    from music21's corpus."""
    max_pieces: Count | None = None
    """Use at most this many pieces of each part."""
    bars: Literal["first", "all"] = "first"
    """The first bars of each piece, as in the book, or all bars that follow each other."""
    model: MuseGANConfig = field(default_factory=MuseGANConfig)
    loss: MuseGANLossConfig = field(default_factory=MuseGANLossConfig)
    steps: Count = 24_000
    """Updates, each of several steps of the critic (the book: 6,000 epochs of 4)."""
    batch_size: Count = 64
    log_every: Count = 50
    picture_every: Count = 500
    """Steps from one sample to the next, a multiple of log_every; the last step has one too."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "chorales"
CORRECTED_LOSS = MuseGANLossConfig(lr=5e-4, critic_lr=5e-4, beta1=0.0, lr_end=0.05, ema=0.995)
CHORALES = Args(
    data="chorales",
    bars="all",
    model=MuseGANConfig(
        num_pitches=48,
        lowest=36,
        temporal_dim=128,
        dense_dim=256,
        channels=(64, 64, 32, 32),
        critic_channels=(32, 32, 32, 64, 64, 64, 64, 128),
        critic_dim=128,
        onsets=True,
        chroma=True,
        output="held",
        init="glorot",
    ),
    loss=replace(CORRECTED_LOSS, critic_steps=1, lr=2e-3, critic_lr=2e-3),
    steps=2000,
    batch_size=32,
    picture_every=200,
)
PRESETS = {
    # The book's penalty is taken beyond the two sets and for each track alone, and its critic is
    # shown shades between notes and silence, by which alone it tells what was generated.
    "book": Args(loss=MUSEGAN_BOOK),
    "corrected": Args(bars="all", model=MuseGANConfig(output="one-hot"), loss=CORRECTED_LOSS),
    "chorales": CHORALES,
    "chorales-book": replace(
        CHORALES,
        model=replace(CHORALES.model, output="tanh", onsets=False, chroma=False),
        loss=replace(MUSEGAN_BOOK, critic_steps=1),
    ),
    "chorales-track": replace(CHORALES, model=replace(CHORALES.model, given="track")),
    "chorales-bar": replace(CHORALES, model=replace(CHORALES.model, given="bar")),
    "smoke": Args(
        data="tunes",
        max_pieces=40,
        bars="all",
        model=MuseGANConfig(
            num_pitches=84,
            lowest=24,
            latent_dim=4,
            temporal_dim=8,
            dense_dim=16,
            channels=(8, 8, 8, 8),
            critic_channels=(8,) * 8,
            critic_dim=8,
            onsets=True,
            output="one-hot",
            init="held",
        ),
        loss=replace(CORRECTED_LOSS, critic_steps=1),
        steps=10,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained networks."""
    import torch

    from generative.musegan import MuseGANLearner
    from generative.training.loop import fit
    from scripts.common.music import load_voices, show_scores

    with Run.open(args, kind="train_musegan") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        voices = load_voices(args.data, args.data_dir, args.max_pieces)
        rolls = excerpts(voices["train"], args.model, args.bars)
        torch.manual_seed(run.seed_for("weights"))
        learner = MuseGANLearner(args.model.build().to(run.device), args.loss, args.steps)
        held_out = excerpts([*voices["val"], *voices["test"]], args.model, args.bars)
        _, known = learner.model.split(held_out[:6].float().to(run.device))

        def batch(step: int):
            rows = run.rng("batch", step).integers(len(rolls), size=args.batch_size)
            return rolls[rows].float().to(run.device)

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                generator = torch.Generator(run.device).manual_seed(0)
                kept = learner.kept
                samples = kept.sample(6 if known is None else len(known), generator, known)
                show_scores(run, step, kept.scores(samples), programs=(52,))

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training MuseGAN", on_log=show,
        )  # fmt: skip
        kept = learner.kept
        kept.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **compare_style(kept, held_out, args.seed)})
        return run.path / "model"


def excerpts(pieces, config: MuseGANConfig, bars: str):
    """Rolls of whole bars of pieces (T, tracks), bool (N, tracks, bars, steps, pitches).

    Where the bar before is given it is the first of them. Of the pieces those are left out that are
    too short or have a pitch that the model does not.
    """
    import numpy as np

    from generative.musegan import rolls_of_voices

    num_bars = config.num_bars + (config.given == "bar")
    length, step = num_bars * config.steps_per_bar, config.steps_per_bar
    found = []
    for piece in pieces:
        last = len(piece) - length if bars == "all" else 0
        found += [piece[i : i + length] for i in range(0, last + 1, step) if len(piece) >= length]
    chosen = np.stack(found)
    high = config.lowest + config.num_pitches - 1
    good = ((chosen < 0) | ((chosen >= config.lowest) & (chosen < high))).all((1, 2))
    return rolls_of_voices(chosen[good], config, num_bars).bool()


def compare_style(gan, held_out, seed: int = 1) -> dict[str, float]:
    """Distances in each measure of style: of samples from held-out pieces, and of their halves."""
    import numpy as np
    import torch

    from generative.musegan import voices_of_rolls
    from generative.music import real_distance, style

    device = next(gan.parameters()).device
    real, known = gan.split(held_out.float().to(device))
    generator = torch.Generator(device).manual_seed(seed)
    parts = [slice(i, i + 100) for i in range(0, len(real), 100)]
    samples = torch.cat(
        [gan.sample(len(real[p]), generator, None if known is None else known[p]) for p in parts]
    )
    steps = gan.shape[2]
    ours, theirs = (style(voices_of_rolls(x, 1), steps, steps // 4) for x in (samples, real))
    distance, chance = real_distance(ours, theirs, np.random.default_rng(seed))
    result = {f"{name}_distance": value for name, value in distance._asdict().items()}
    return result | {f"{name}_of_halves": value for name, value in chance._asdict().items()}


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
