"""Train T5 to write back pieces cut out of texts, or to answer questions about texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from generative.text.config import BlockConfig, T5Config, TextLossConfig, t5_block
from generative.training.cli import start
from generative.training.ranges import Count, Device, Ending, Folder, Range, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.common.text import Texts, TextSource, load_texts

if TYPE_CHECKING:
    from torch import Tensor

    from generative.text.t5 import T5


@dataclass(frozen=True)
class Args(TextSource):
    """Train T5 to write back pieces cut out of texts, or to answer questions about texts.

    On texts made by a formula the result says how far the loss stays above the least there can be.

    The preset reviews takes 5 to 10 minutes on one core.
    """

    out: Folder = Path("runs/t5")
    """Run folder; the trained model is in its `model` folder, what it writes is in `texts`."""
    task: Literal["spans", "words"] = "spans"
    """Pieces that were cut out; or, of data `reviews`, to sum up, to judge the order of words, and
    to answer questions, each asked for by its first words."""
    rate: Annotated[float, Range(0, 1, above=True, below=True)] = 0.15
    """Share of a text that is cut out."""
    mean_span: Annotated[float, Range(1, below=True)] = 3.0
    """Tokens of a piece, on average."""
    model: T5Config = field(default_factory=T5Config)
    loss: TextLossConfig = field(default_factory=TextLossConfig)
    steps: Count = 20_000
    """Optimiser steps."""
    batch_size: Count = 64
    log_every: Count = 100
    sample_every: Count = 1000
    """Steps from one sample to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task == "words" and self.data != "reviews":
            raise ValueError(f"task 'words' is of data reviews, not of {self.data}")


MUON = TextLossConfig(
    optimizer="muon", lr=3e-3, final_lr=2e-5, warmup=100, beta2=0.99, clip=1.0, ema=0.99
)
DEFAULT_PRESET = "reviews"
PRESETS = {
    # The book describes T5 without training one.
    "wine-reviews": Args(
        data="wine-reviews",
        length=128,
        loss=TextLossConfig(lr=3e-4, final_lr=0.0, warmup=1000, clip=1.0),
    ),
    "hidden-markov": Args(
        data="hidden-markov",
        length=32,
        model=T5Config(10, 4, 2, t5_block(64, 4, dropout=0.0), num_buckets=16, max_distance=40),
        loss=MUON,
        steps=2500,
    ),
    "reviews": Args(
        data="reviews",
        length=40,
        task="words",
        model=T5Config(200, 8, 2, t5_block(64, 4, dropout=0.0)),
        loss=MUON,
        steps=1000,
    ),
    "smoke": Args(
        data="markov",
        length=16,
        model=T5Config(10, 4, 1, BlockConfig(16, 2, 8, 32), num_buckets=4, max_distance=8),
        steps=20,
        batch_size=8,
        log_every=5,
        sample_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    from dataclasses import replace

    import torch

    from generative.text.t5 import T5
    from generative.text.tokens import TextLearner
    from generative.training.loop import fit
    from scripts.common.text import VOCABULARY_NAME

    with Run.open(args, kind="train_t5") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        texts = load_texts(args, args.model.vocab_size)
        pairs = make_pairs(args, texts)
        texts.tokeniser.save(run.path / VOCABULARY_NAME)
        torch.manual_seed(run.seed_for("weights"))
        model = T5(replace(args.model, vocab_size=len(texts.tokeniser))).to(run.device)
        learner = TextLearner(model, args.loss, args.steps, lambda batch: model.loss(*batch))

        def batch(step: int) -> tuple[Tensor, Tensor]:
            source, target = pairs.batch(run.seed_for("batch", step), args.batch_size)
            return source.to(run.device), target.to(run.device)

        def show(step: int) -> None:
            if step % args.sample_every == 0 or step == args.steps:
                run.metrics.log_text(step, "written", written(learner.kept, pairs))

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training T5", on_log=show,
        )  # fmt: skip
        kept = learner.kept
        kept.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **pairs.score(kept)})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


class Spans:
    """Texts with pieces cut out, and the pieces."""

    def __init__(self, args: Args, texts: Texts):
        self.args, self.texts = args, texts
        self.test = self._cut(texts.test[:1000], 0)

    def batch(self, seed: int, size: int) -> tuple[Tensor, Tensor]:
        """Sources and targets, (size, S) and (size, R)."""
        return self._cut(self.texts.batch(seed, size), seed)

    def score(self, model: T5) -> dict[str, float]:
        """Loss of test targets, nats a token, and where it is known the least there can be.

        `excess` is the gap as a share of the floor.
        """
        import torch

        from generative.known.texts import HiddenMarkov, span_log_prob
        from generative.text.tokens import up_to_end

        device = next(model.parameters()).device
        (source, target), text = self.test, self.texts.source
        tokens = int(up_to_end(target).sum())
        with torch.no_grad():
            parts = zip(source.split(100), target.split(100), strict=True)
            found = sum(
                float(model.target_log_prob(s.to(device), t.to(device)).sum()) for s, t in parts
            )
        result = {"test_loss": -found / tokens}
        if isinstance(text, HiddenMarkov):
            x = self.texts.test[: len(source)]
            best = span_log_prob(text, x, source, self.args.rate, self.args.mean_span)
            floor = -float(best.sum()) / tokens
            result |= {"floor": floor, "excess": result["test_loss"] / floor - 1}
        return result

    def _cut(self, x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        import torch

        from generative.text.corruption import corrupt_spans

        generator = torch.Generator().manual_seed(seed)
        return corrupt_spans(
            x, len(self.texts.tokeniser), self.args.rate, self.args.mean_span, generator
        )


class Tasks:
    """Questions about reviews in words, and the answers."""

    def __init__(self, args: Args, texts: Texts):
        import numpy as np
        import torch

        from generative.data.text import Tokeniser
        from generative.known.reviews import TASKS

        self.args, self.reviews = args, texts.source
        words = [*texts.source.texts, *TASKS, "from", "yes", "no"]
        texts.tokeniser = self.tokeniser = Tokeniser.fit(words, "words")
        numbers = texts.source.sample(1000, torch.Generator().manual_seed(0))
        rng = np.random.default_rng(0)
        self.asked = [TASKS[k % len(TASKS)] for k in range(len(numbers))]
        self.test = self._ask(numbers.tolist(), self.asked, rng)

    def batch(self, seed: int, size: int) -> tuple[Tensor, Tensor]:
        """Sources and targets, (size, S) and (size, R)."""
        import numpy as np
        import torch

        from generative.known.reviews import TASKS

        rng = np.random.default_rng(seed)
        numbers = self.reviews.sample(size, torch.Generator().manual_seed(seed)).tolist()
        return self._ask(numbers, [TASKS[k] for k in rng.integers(len(TASKS), size=size)], rng)

    def score(self, model: T5) -> dict[str, float]:
        """Share of test questions of each kind that are answered in exactly the right words."""
        import torch

        device = next(model.parameters()).device
        right: dict[str, list[bool]] = {}
        with torch.no_grad():
            parts = zip(self.test[0].split(100), self.test[1].split(100), strict=True)
            same = [(model.generate(s.to(device), t.shape[1]).cpu() == t).all(1) for s, t in parts]
        for task, exact in zip(self.asked, torch.cat(same).tolist(), strict=True):
            right.setdefault(task.replace(" ", "_"), []).append(exact)
        return {f"right_{task}": sum(each) / len(each) for task, each in right.items()}

    def _ask(self, numbers: list[int], tasks: list[str], rng) -> tuple[Tensor, Tensor]:
        import torch

        from generative.known.reviews import ask

        pairs = [
            ask(self.reviews.reviews[i], task, rng) for i, task in zip(numbers, tasks, strict=True)
        ]
        sources, targets = zip(*pairs, strict=True)
        rows = self.tokeniser.rows
        return (
            torch.from_numpy(rows(sources, self.args.length)),
            torch.from_numpy(rows(targets, ANSWER_LENGTH)),
        )


ANSWER_LENGTH = 6
"""Words of the longest answer, "GRAPE from PROVINCE , COUNTRY", and its end."""


def make_pairs(args: Args, texts: Texts) -> Spans | Tasks:
    """Pairs of source and target that the settings' task makes of texts."""
    return Spans(args, texts) if args.task == "spans" else Tasks(args, texts)


def written(model: T5, pairs: Spans | Tasks, num: int = 6) -> str:
    """Test sources, the model's answers and the targets."""
    device = next(model.parameters()).device
    tokeniser = pairs.texts.tokeniser if isinstance(pairs, Spans) else pairs.tokeniser
    source, target = (rows[:num] for rows in pairs.test)
    found = model.generate(source.to(device), target.shape[1]).cpu()
    lines = []
    for rows in zip(source, found, target, strict=True):
        names = ("source", "written", "wanted")
        lines += [f"{n}: {' '.join(tokeniser.pieces(r))}" for n, r in zip(names, rows, strict=True)]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
