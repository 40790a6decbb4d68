"""Train a T5 on captions alone, whose encoder reads the texts of Imagen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from generative.known.config import CaptionMix
from generative.text.config import T5Config, TextLossConfig, t5_block
from generative.training.cli import start
from generative.training.ranges import (
    Checked,
    Count,
    Device,
    Ending,
    Folder,
    Positive,
    Probability,
    Seed,
    Share,
    Workers,
)
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.common.captions import VOCABULARY, CaptionData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator


@dataclass(frozen=True)
class Args(Checked):
    """Train a T5 on captions alone, whose encoder reads the texts of Imagen.

    Spans of captions are cut out, and the T5 writes them; it sees no image. Captions of scenes it
    also says in other words, "a blue disc right of a red square" for "a red square left of a blue
    disc". What is cut out follows from the words beside it; the other wording alone asks which
    colour and which place are whose. The result has both losses of test captions.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/caption_reader")
    """Run folder; the trained model is in its `model` folder, its words in vocabulary.json."""
    data: CaptionData = "scenes"
    """Captions, those of these images."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name; scenes need none."""
    max_images: Count | None = None
    """Use the captions of at most so many of the images."""
    image_shape: tuple[Count, Count, Count] = (3, 24, 24)
    """Shape in which the images are read, of which nothing is used."""
    mix: CaptionMix = field(default_factory=CaptionMix)
    """Weights of the kinds of captions of scenes."""
    model: T5Config = field(default_factory=lambda: PRESET_MODEL)
    """The T5; its vocabulary is cut to the words of the captions."""
    loss: TextLossConfig = field(
        default_factory=lambda: TextLossConfig(optimizer="muon", lr=3e-3, final_lr=1e-5)
    )
    cut: Share = 0.3
    """Share of a caption that is cut out."""
    span: Positive = 2.0
    """Mean length of what is cut out, in words."""
    reword: Probability = 0.5
    """Share of the batches in which captions of scenes are written in other words."""
    steps: Count = 3000
    """Optimiser steps."""
    batch_size: Count = 64
    log_every: Count = 100
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older T5s only wrote what was cut out."""
        return {"reword": 0.0, **settings}


PRESET_MODEL = T5Config(64, 12, 2, t5_block(64, 2, 0.0), max_len=24)
DEFAULT_PRESET = "scenes"
PRESETS = {
    "scenes": Args(),
    "smoke": Args(
        model=T5Config(64, 12, 1, t5_block(16, 2, 0.0), max_len=24),
        steps=10, batch_size=4, log_every=5,
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.known.captions import paraphrases
    from generative.text import T5, TextLearner
    from generative.text.corruption import corrupt_spans
    from generative.training.loop import fit
    from scripts.common.captions import Pairs, fit_tokeniser, load_pairs

    with Run.open(args, kind="train_caption_reader") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        of = args.data, args.data_dir, args.image_shape, args.mix
        pairs = load_pairs(*of, max_images=args.max_images)
        sizes = args.model.max_len, args.model.vocab_size
        tokeniser = fit_tokeniser(pairs, *sizes, option="--model.max-len")
        tokeniser.save(run.path / VOCABULARY)
        torch.manual_seed(run.seed_for("weights"))
        model = T5(replace(args.model, vocab_size=len(tokeniser))).to(run.device)
        learner = TextLearner(model, args.loss, args.steps, lambda batch: model.loss(*batch))

        def draw(pairs: Pairs, seed: int, n: int, reword: float):
            generator = torch.Generator().manual_seed(seed)
            texts = pairs.draw(n, generator)[1]
            rows = tokeniser.encode(texts)
            if float(torch.rand((), generator=generator)) < reword:
                others = [other(paraphrases(text), text, generator) for text in texts]
                parts = rows, tokeniser.encode(others)
            else:
                parts = corrupt_spans(rows, model.first_sentinel, args.cut, args.span, generator)
            return tuple(part.to(run.device) for part in parts)

        def batch(step: int):
            return draw(pairs, run.seed_for("batch", step), args.batch_size, reword)

        reword = args.reword if args.data == "scenes" else 0.0
        fit(
            learner, batch, run, args.steps, log_every=args.log_every,
            what="training the T5 on captions",
        )  # fmt: skip
        kept = learner.kept.eval()
        kept.save_pretrained(run.path / "model")
        test = load_pairs(*of, part="test", max_images=args.max_images)
        found = {}
        for name, share in {"test": 0.0, "rewording": 1.0}.items():
            if share and not reword:
                continue
            with torch.no_grad():
                losses = kept.loss(*draw(test, run.seed_for("test"), 256, share))
            found |= {
                f"{name}_loss": float(losses.loss),
                f"{name}_accuracy": float(losses.accuracy),
            }
        run.finish({**run.metrics.last(), **found})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def other(wordings: Sequence[str], text: str, generator: Generator) -> str:
    """One of some wordings that is not this one, where there is another."""
    import torch

    others = [each for each in wordings if each != text] or [text]
    return others[int(torch.randint(len(others), (), generator=generator))]


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
