"""Train a Toolformer: a GPT that finds out itself which calls of tools help it, and makes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from generative.text.config import GPTConfig, TextLossConfig, ToolformerConfig, gpt2_block
from generative.training.cli import start
from generative.training.ranges import (
    Checked,
    Count,
    Device,
    Ending,
    Folder,
    Probability,
    Seed,
    Workers,
)
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.common.text import VOCABULARY_NAME

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from generative.known.tool_questions import Question, Questions
    from generative.text.gpt import GPT
    from generative.text.tools import Candidate

CALLS_NAME = "calls.json"


@dataclass(frozen=True)
class Args(Checked):
    """Train a Toolformer: a GPT that finds out itself which calls of tools help it.

    First a GPT learns texts with notes of people, calls of a calculator and of a table, of which
    many do not help. It then writes calls into texts, and keeps those whose results make the rest
    of the text more probable. With the kept ones it is trained further.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/toolformer")
    """Run folder; the trained model is in its `model` folder, the model of texts with notes in
    `language`, the calls that were tried in `calls`."""
    model: GPTConfig = field(
        default_factory=lambda: GPTConfig(
            num_layers=2, block=gpt2_block(64, 4, dropout=0.0), tied=True, init="normal"
        )
    )
    """vocab_size and max_len follow from the texts."""
    num_texts: Count = 20_000
    """Questions with answers to learn from."""
    notes: Probability = 0.6
    """Share of texts in which people have written a note."""
    language: TextLossConfig = field(
        default_factory=lambda: TextLossConfig(
            optimizer="muon", lr=3e-3, final_lr=3e-5, warmup=100, beta2=0.99, clip=1.0
        )
    )
    language_steps: Count = 3000
    calls: ToolformerConfig = field(default_factory=lambda: ToolformerConfig(min_gain=0.9))
    calls_by: Literal["model", "people"] = "model"
    """Who writes the calls that are tried: the model, as published, or people, as in the notes."""
    num_labelled: Count = 3000
    """Texts into which calls are written."""
    loss: TextLossConfig = field(
        default_factory=lambda: TextLossConfig(lr=1e-3, final_lr=1e-5, beta2=0.99, clip=1.0)
    )
    steps: Count = 800
    """Steps of training on texts with the kept calls."""
    batch_size: Count = 64
    log_every: Count = 100
    num_test: Count = 500
    """Products, and as many facts, that are asked for at the end; none was trained on."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "products-and-facts"
PRESETS = {
    "products-and-facts": Args(),
    "smoke": Args(
        model=GPTConfig(num_layers=1, block=gpt2_block(16, 2, dropout=0.0), tied=True),
        num_texts=100,
        language_steps=5,
        calls=ToolformerConfig(min_gain=-100.0),
        calls_by="people",
        num_labelled=20,
        steps=4,
        batch_size=8,
        log_every=2,
        num_test=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import random
    from functools import partial

    import torch

    from generative.known.tool_questions import Questions
    from generative.text.gpt import GPT
    from generative.text.tokens import TextLearner
    from generative.text.tools import own_token_loss
    from generative.training.loop import fit

    with Run.open(args, kind="train_toolformer") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        questions = Questions()
        questions.tokeniser.save(run.path / VOCABULARY_NAME)
        rng = random.Random(run.seed_for("texts"))
        corpus = [questions.draw(rng) for _ in range(args.num_texts)]
        train_language(args, questions, corpus)
        model = GPT.from_pretrained(run.path / "language" / "model").train().to(run.device)
        kept = label(args, questions, corpus, model)
        learner = TextLearner(model, args.loss, args.steps, partial(own_token_loss, model))

        def texts(rng: random.Random) -> list[str]:
            return rng.choices(kept, k=args.batch_size)

        fit(
            learner, batches(texts, run, questions), run, args.steps,
            log_every=args.log_every, what="learning from calls that help",
        )  # fmt: skip
        model = learner.kept
        model.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **score(model, questions, args.num_test)})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def train_language(args: Args, questions: Questions, corpus: Sequence[Question]) -> None:
    """A GPT of texts with notes of people, in the run's folder `language`."""
    from dataclasses import replace
    from functools import partial

    import torch

    from generative.known.tool_questions import LENGTH
    from generative.text.gpt import GPT
    from generative.text.tokens import TextLearner
    from generative.text.tools import own_token_loss
    from generative.training.loop import fit

    with Run.open(args, args.out / "language", kind="train_toolformer language") as run:
        if run.done:
            return
        torch.manual_seed(run.seed_for("weights"))
        config = replace(args.model, vocab_size=len(questions.tokeniser), max_len=LENGTH)
        model = GPT(config).to(run.device)
        learner = TextLearner(
            model, args.language, args.language_steps, partial(own_token_loss, model)
        )

        def texts(rng: random.Random) -> list[str]:
            return [
                questions.with_note(question, rng) if rng.random() < args.notes else question.whole
                for question in rng.choices(corpus, k=args.batch_size)
            ]

        fit(
            learner, batches(texts, run, questions), run, args.language_steps,
            log_every=args.log_every, what="learning texts with notes",
        )  # fmt: skip
        learner.kept.save_pretrained(run.path / "model")
        found = score(learner.kept, questions, args.num_test)
        run.finish({**run.metrics.last(), **found})


def label(args: Args, questions: Questions, corpus: Sequence[Question], model: GPT) -> list[str]:
    """Texts with the calls that help, found by the model; in the run's folder `calls`.

    Raises:
        ValueError: no call was kept.
    """
    from generative.text.tools import call_losses
    from generative.training.files import MAX_LIST_BYTES, read_json, write_json

    with Run.open(args, args.out / "calls", kind="train_toolformer calls") as run:
        file = run.path / CALLS_NAME
        if not run.done:
            model.eval()
            tried = (model_calls if args.calls_by == "model" else people_calls)(
                args, run, questions, corpus[: args.num_labelled], model
            )
            tokeniser = questions.tokeniser
            gains = call_losses(model, tokeniser, tried, args.calls.falloff).gain.tolist()
            model.train()
            records = [
                {"text": c.full, "gain": round(gain, 4), "right": questions.is_right(c)}
                for c, gain in zip(tried, gains, strict=True)
            ]
            write_json(file, records)
            run.finish(sum_up(records, args.calls.min_gain))
        records = read_json(file, MAX_LIST_BYTES)
    kept = [record["text"] for record in records if record["gain"] >= args.calls.min_gain]
    if not kept:
        raise ValueError(
            f"none of {len(records)} calls saved {args.calls.min_gain} nats a token; train the "
            "language longer by --language-steps, or lower --calls.min-gain"
        )
    return kept


def model_calls(
    args: Args, run: Run, questions: Questions, some: Sequence[Question], model: GPT
) -> list[Candidate]:
    """Calls that the model writes into texts."""
    import torch

    from generative.text.tools import sample_calls
    from generative.training.progress import progress

    generator = torch.Generator(run.device).manual_seed(run.seed_for("calls"))
    texts = [question.whole for question in some]
    found = []
    parts = [texts[k : k + 100] for k in range(0, len(texts), 100)]
    for part in progress(parts, "writing calls into texts, 100 at a time"):
        found += sample_calls(
            model, questions.tokeniser, part, questions.tools, args.calls, generator
        )
    return found


def people_calls(
    args: Args, run: Run, questions: Questions, some: Sequence[Question], _model: GPT
) -> list[Candidate]:
    """Calls as people write them in notes, as many for a text as the model draws for a place."""
    import random

    from generative.known.tool_questions import NOTES

    rng = random.Random(run.seed_for("calls"))
    kinds, shares = list(NOTES), list(NOTES.values())
    return [
        questions.candidate(question, kind, rng)
        for question in some
        for kind in rng.choices(kinds, shares, k=args.calls.num_calls)
    ]


def sum_up(records: Sequence[dict[str, Any]], min_gain: float) -> dict[str, float]:
    """Numbers of calls that were tried, were right, were kept, and were both."""
    right = [record["right"] for record in records]
    kept = [record["gain"] >= min_gain for record in records]
    both = sum(r and k for r, k in zip(right, kept, strict=True))
    return {
        "calls_tried": len(records),
        "calls_right": sum(right),
        "calls_kept": sum(kept),
        "calls_kept_and_right": both,
    }


def batches(
    texts: Callable[[random.Random], list[str]], run: Run, questions: Questions
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Batches of a step: tokens, and which of them the model has to write."""
    import random

    import torch

    from generative.known.tool_questions import LENGTH
    from generative.text.tools import own_tokens

    tokeniser = questions.tokeniser

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rows = texts(random.Random(run.seed_for("batch", step)))
        x = torch.from_numpy(tokeniser.rows(rows, LENGTH)).to(run.device)
        return x, own_tokens(rows, LENGTH).to(run.device)

    return batch


def score(model: GPT, questions: Questions, num: int) -> dict[str, float]:
    """Share of right answers to unseen questions, with tools and without, and of right calls."""
    import random

    from generative.text.tools import answer, without_calls

    tokeniser, found = questions.tokeniser, {}
    for kind in ("product", "fact"):
        rng = random.Random(0)
        asked = [questions.draw(rng, seen=False, kind=kind) for _ in range(num)]
        prompts = [question.text for question in asked]
        for way, tools in (("with", questions.tools), ("without", None)):
            answers = answer(model, tokeniser, prompts, tools)
            right = [without_calls(a) == q.whole for a, q in zip(answers, asked, strict=True)]
            found[f"{kind}s_right_{way}_tools"] = sum(right) / num
            if tools is not None:
                good = [q.call.written(q.answer) in a for a, q in zip(answers, asked, strict=True)]
                found[f"{kind}s_with_right_call"] = sum(good) / num
    return found


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
