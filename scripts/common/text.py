"""Any texts as tokens that a model takes, and the batches of a run.

texts = load_texts(TextSource("reviews", length=40), most=10_000)
texts.batch(run.seed_for("batch", step), 32)     # int64 (32, 40)
texts.test                                       # int64 (N, 40), never trained on
texts.floor()                                    # nats a token of the test texts, or None
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np

from generative.data.text import Tokeniser, TokenKind, load_text
from generative.training.ranges import Checked, Range
from scripts.common.missing import folder_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "VOCABULARY_NAME",
    "TextData",
    "TextSource",
    "Texts",
    "load_texts",
    "samples",
    "score",
    "train_writer",
    "vocabulary_of",
]

TextData = Literal[
    "recipes",
    "wine-reviews",
    "text",
    "reviews",
    "markov",
    "hidden-markov",
    "rules",
    "one-rule",
    "dialogues",
]
"""Names of the data sets. `text` is any file; of those after it the optimum is known."""
VOCABULARY_NAME = "vocabulary.json"


@dataclass(frozen=True)
class TextSource(Checked):
    """Source of the texts of a run."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    data: TextData = "recipes"
    """Recipes or wine reviews (Kaggle), any text file, or texts made by a formula whose optimum is
    known: reviews of a small grammar, a Markov chain of order two, a hidden Markov model, pairs of
    words by a rule of each text, the same by one rule for all, dialogues about what was told."""
    data_dir: Path = Path("data")
    """Folder of the files; recipes and wine reviews may be in a folder of that name in it."""
    text: Path = Path("text.txt")
    """The file of `text` in data_dir; its last tenth is for testing."""
    tokens: TokenKind = "words"
    """Units that a text is cut into. Texts made by a formula have their own."""
    length: Annotated[int, Range(2, 2**20)] = 201
    """Tokens of an example: longer texts are cut, shorter ones filled with 0."""


@dataclass
class Texts:
    """Examples to train on and to test with.

    Args:
        tokeniser: what the tokens stand for.
        batch: seed, size -> int64 (size, length).
        test: int64 (N, length), at most 2,000.
        log_prob: exact log p of texts (B, length) in nats, (B,), where it is known.
        source: the object behind a formula.
        measure: further figures of a model on the test texts, by name.
    """

    tokeniser: Tokeniser
    batch: Callable[[int, int], Tensor]
    test: Tensor
    log_prob: Callable[[Tensor], Tensor] | None = None
    source: Any = field(default=None, repr=False)
    measure: Callable[[Any], dict[str, float]] | None = None

    @cached_property
    def num_test_tokens(self) -> int:
        """Tokens of the test texts up to their ends, as `up_to_end` counts them."""
        from generative.text.tokens import up_to_end

        return int(up_to_end(self.test).sum())

    def floor(self) -> float | None:
        """-log p of the test texts, nats a token: no model can have less but by luck."""
        if self.log_prob is None:
            return None
        return -float(self.log_prob(self.test).sum()) / self.num_test_tokens


@folder_of("--data-dir")
def load_texts(source: TextSource, most: int) -> Texts:
    """Texts of a source.

    Args:
        source: which.
        most: tokens in all that the model can tell apart; a word vocabulary is cut to them.
    Raises:
        FileNotFoundError: a file is missing; says where to get it and where to put it.
        ValueError: a formula has more tokens than that.
    """
    texts = _LOADERS[source.data](source, most)
    if len(texts.tokeniser) > most:
        raise ValueError(
            f"{source.data} has {len(texts.tokeniser)} tokens, the model only {most}; give it more "
            "by --model.vocab-size"
        )
    return texts


def vocabulary_of(model: Path) -> Tokeniser:
    """The vocabulary that a script wrote beside the folder of its model."""
    return Tokeniser.load(Path(model).parent / VOCABULARY_NAME)


def samples(model: Any, texts: Texts, prompt: str, num_tokens: int = 100) -> str:
    """Texts that begin with the prompt, at three temperatures."""
    import torch

    device = next(model.parameters()).device
    tokens = torch.tensor([texts.tokeniser.encode(prompt)], dtype=torch.int64, device=device)
    lines = []
    for temperature in (1.0, 0.5, 0.2):
        generator = torch.Generator(device).manual_seed(0)
        row = model.generate(tokens, num_tokens, temperature=temperature, generator=generator)[0]
        lines += [f"temperature {temperature}:", texts.tokeniser.decode(row), ""]
    return "\n".join(lines)


def train_writer(args: Any, kind: str, network: Callable[[Any], Any], what: str) -> Path:
    """Train a model of the next token in a run of its own; the folder of the trained model.

    Args:
        args: a `TextSource` with out, prompt, model, loss, steps, batch_size, log_every,
            sample_every, report, threads, device and seed.
        kind: name of the command.
        network: settings of a model -> the model, with `loss`, `generate` and `token_log_probs`.
        what: shown beside the progress.
    """
    import torch

    from generative.text.tokens import TextLearner
    from generative.training.loop import fit
    from generative.training.reports import add_to_report
    from generative.training.run import Run

    with Run.open(args, kind=kind) as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        texts = load_texts(args, args.model.vocab_size)
        texts.tokeniser.save(run.path / VOCABULARY_NAME)
        torch.manual_seed(run.seed_for("weights"))
        config = replace(args.model, vocab_size=len(texts.tokeniser))
        learner = TextLearner(network(config).to(run.device), args.loss, args.steps)

        def show(step: int) -> None:
            if step % args.sample_every == 0 or step == args.steps:
                run.metrics.log_text(step, "samples", samples(learner.kept, texts, args.prompt))

        fit(
            learner,
            lambda step: texts.batch(run.seed_for("batch", step), args.batch_size).to(run.device),
            run, args.steps,
            log_every=args.log_every, what=what, on_log=show,
        )  # fmt: skip
        model = learner.kept
        model.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **score(model, texts, args.loss.padding)})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def score(model: Any, texts: Texts, padding: bool = False) -> dict[str, float]:
    """Loss of the next token of the test texts, nats; where it is known, the least there can be.

    The floor is that of the same texts, so that chance takes little part in the gap. With `padding`
    there is also the mean over all places, which is what such a model was trained for.
    """
    from generative.text.measures import next_token_loss

    found = next_token_loss(model, texts.test)
    result = {"test_loss": found.loss}
    if padding:
        result["test_loss_with_padding"] = found.with_padding
    floor = texts.floor() if model.config.from_start else None
    if floor is not None:
        result |= {"floor": floor, "gap": found.loss - floor}
    if texts.measure is not None:
        result |= texts.measure(model)
    return result


def _separate(texts: list[str], source: TextSource, most: int) -> Texts:
    """Texts of their own; the last tenth is for testing."""
    import torch

    kept = max(1, len(texts) // 10)
    tokeniser = Tokeniser.fit(texts[:-kept], source.tokens, most)
    rows = torch.from_numpy(tokeniser.rows(texts, source.length))
    train, test = rows[:-kept], rows[-kept:]

    def batch(seed: int, size: int) -> Tensor:
        return train[torch.from_numpy(np.random.default_rng(seed).integers(len(train), size=size))]

    return Texts(tokeniser, batch, test[:2000])


def _recipes(source: TextSource, most: int) -> Texts:
    from generative.data.recipes import load_recipes

    return _separate(load_recipes(_own_folder(source)), source, most)


def _wine_reviews(source: TextSource, most: int) -> Texts:
    from generative.data.wine_reviews import load_wine_reviews

    return _separate(load_wine_reviews(_own_folder(source)), source, most)


def _text(source: TextSource, most: int) -> Texts:
    """Windows of one long text; those for testing follow each other, one token shared."""
    import torch

    text = load_text(source.data_dir / source.text)
    cut = len(text) * 9 // 10
    tokeniser = Tokeniser.fit([text[:cut]], source.tokens, most)
    train, test = (torch.tensor(tokeniser.encode(part)) for part in (text[:cut], text[cut:]))
    if min(len(train), len(test)) <= source.length:
        raise ValueError(
            f"{source.text} has {len(train)} tokens to train on and {len(test)} for testing; both "
            f"need more than length, {source.length}"
        )
    windows, step = train.unfold(0, source.length, 1), source.length - 1

    def batch(seed: int, size: int) -> Tensor:
        starts = np.random.default_rng(seed).integers(len(windows), size=size)
        return windows[torch.from_numpy(starts)]

    return Texts(tokeniser, batch, test.unfold(0, source.length, step).contiguous()[:2000])


def _reviews(source: TextSource, most: int) -> Texts:
    import torch

    from generative.known.reviews import Reviews

    reviews = Reviews()
    tokeniser = Tokeniser.fit(reviews.texts, "words")
    rows = torch.from_numpy(tokeniser.rows(reviews.texts, source.length))
    log_p = {row.tobytes(): float(p) for row, p in zip(rows.numpy(), reviews.p.log(), strict=True)}

    def draw(seed: int, size: int) -> Tensor:
        return rows[reviews.sample(size, torch.Generator().manual_seed(seed))]

    def log_prob(x: Tensor) -> Tensor:
        return torch.tensor([log_p[row.tobytes()] for row in x.numpy()], dtype=torch.float64)

    return Texts(tokeniser, draw, draw(0, 2000), log_prob, reviews)


def _formula(source: TextSource, most: int) -> Texts:
    import string

    import torch

    from generative.known.texts import hidden_markov_text, markov_text

    text = markov_text() if source.data == "markov" else hidden_markov_text()
    letters = tuple(string.ascii_lowercase[: text.vocab_size - 2])

    def draw(seed: int, size: int) -> Tensor:
        return text.sample(size, source.length, torch.Generator().manual_seed(seed))

    tokeniser = Tokeniser("characters", ("", "[UNK]", *letters))
    return Texts(tokeniser, draw, draw(0, 2000), text.log_prob, text)


def _rules(source: TextSource, most: int) -> Texts:
    """Pairs of words; with one rule for all texts its answers need no examples."""
    import math

    import torch

    from generative.known.rules import Rules

    if source.length % 2:
        raise ValueError(f"length is {source.length}; a text of pairs needs an even one")
    one = source.data == "one-rule"
    # A model of texts with bursts is asked about texts without: the best answers are the same.
    rules, plain = (
        Rules(num_pairs=source.length // 2, bursts=bursts) for bursts in (not one, False)
    )
    rule = rules.draw_rules(1, torch.Generator().manual_seed(0))[0] if one else None

    def draw(seed: int, size: int) -> Tensor:
        return rules.sample(size, torch.Generator().manual_seed(seed), rule)

    def log_prob(x: Tensor) -> Tensor:
        words = -rules.num_pairs * math.log(rules.num_words)
        return torch.full((len(x),), words, dtype=torch.float64) if one else rules.log_prob(x)

    test = draw(0, 2000)
    asked = plain.sample(2000, torch.Generator().manual_seed(0), rule)

    def measure(model: Any) -> dict[str, float]:
        device = next(model.parameters()).device
        found = plain.measure(lambda x: model.logits(x.to(device)).cpu(), asked).accuracy
        best = torch.ones_like(found) if one else plain.best().accuracy
        shown = [n for n in (0, 1, 2, 4, 8) if n < rules.num_pairs]
        return {
            "accuracy": float(found.mean()), "best_mean_accuracy": float(best.mean()),
            **{f"accuracy_after_{n}": float(found[n]) for n in shown},
            **{f"best_accuracy_after_{n}": float(best[n]) for n in shown},
        }  # fmt: skip

    return Texts(Tokeniser("words", rules.vocabulary), draw, test, log_prob, rules, measure)


def _dialogues(source: TextSource, most: int) -> Texts:
    import torch

    from generative.known.dialogues import TURN, Dialogues
    from generative.text.tokens import after_end

    if source.length % TURN:
        raise ValueError(f"length is {source.length}; a dialogue needs {TURN} words for every turn")
    # Learned from dialogues about few things; the right answers of others follow alike.
    dialogues = Dialogues(source.length // TURN, bursts=True)

    def draw(seed: int, size: int) -> Tensor:
        return dialogues.sample(size, torch.Generator().manual_seed(seed))

    test = draw(0, 2000)

    def measure(model: Any) -> dict[str, float]:
        """Share of answers that the model finds most probable."""
        device, right = next(model.parameters()).device, 0
        answers = torch.arange(source.length) % TURN == TURN - 2
        for x in test.split(200):
            with torch.no_grad():
                found = model.logits(after_end(x).to(device)).argmax(-1).cpu()
            right += int((found == x)[:, answers].sum())
        return {"right_answers": right / (len(test) * dialogues.num_turns)}

    return Texts(dialogues.tokeniser, draw, test, dialogues.log_prob, dialogues, measure)


_LOADERS: dict[str, Callable[[TextSource, int], Texts]] = {
    "recipes": _recipes,
    "wine-reviews": _wine_reviews,
    "text": _text,
    "reviews": _reviews,
    "markov": _formula,
    "hidden-markov": _formula,
    "rules": _rules,
    "one-rule": _rules,
    "dialogues": _dialogues,
}


def _own_folder(source: TextSource) -> Path:
    own = source.data_dir / source.data
    return own if own.is_dir() else source.data_dir
