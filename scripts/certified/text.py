"""Models of texts against entropies and exact posteriors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def lstm_markov(settings: Settings) -> list[Line]:
    """Letters that depend on the two before: nats per letter above the entropy."""
    from generative.training.run import read_result
    from scripts import train_recurrent_text

    preset = "smoke" if settings.smoke else "markov"
    args = train_recurrent_text.PRESETS[preset]
    train_recurrent_text.main(replace(args, out=settings.work, seed=settings.seed))
    found = read_result(settings.work)
    what = "2,000 unseen texts of a Markov chain, nats a letter above the entropy"
    return [Line(what, found["test_loss"], found["floor"], "exact model", found["gap"], 0.01)]


def gpt_reviews(settings: Settings) -> list[Line]:
    """Expected loss over all reviews of the grammar, and their entropy, nats per text."""
    import torch

    from generative.known.reviews import Reviews
    from generative.text.gpt import GPT
    from scripts import train_gpt
    from scripts.common.text import vocabulary_of

    args = train_gpt.PRESETS["reviews"]
    steps = 3 if settings.smoke else args.steps
    folder = train_gpt.main(replace(args, out=settings.work, seed=settings.seed, steps=steps))
    model, reviews = GPT.from_pretrained(folder), Reviews()
    rows = vocabulary_of(folder).rows(reviews.texts, args.length)
    chosen = torch.arange(0, len(rows), 1000 if settings.smoke else 1)
    with torch.no_grad():
        parts = torch.from_numpy(rows)[chosen].split(500)
        log_prob = torch.cat([model.log_prob(x) for x in parts]).double()
    p = reviews.p[chosen] / reviews.p[chosen].sum()
    loss, entropy = -float((p * log_prob).sum()), reviews.entropy()
    what = "all 25,920 texts of a grammar, nats a text above the entropy"
    return [Line(what, loss, entropy, "entropy", loss - entropy, 0.1)]


def gpt_shakespeare(settings: Settings) -> list[Line]:
    """Nats per character of tiny Shakespeare's last tenth, with as many weights, steps and
    characters as nanoGPT's recipe for a CPU.
    """
    nats = shakespeare("characters", settings)
    return [Line("nats a character", nats, 1.88, "nanoGPT, as large", nats, 1.80)]


def gpt_nanogpt(settings: Settings) -> list[Line]:
    """The same by nanoGPT's recipe itself, which must reach the loss in its README."""
    nats = shakespeare("nanogpt", settings)
    what = "nats a character by nanoGPT's own recipe, and the difference"
    return [Line(what, nats, 1.88, "nanoGPT's README", abs(nats - 1.88), 0.03)]


def gpt_rules(settings: Settings) -> list[Line]:
    """Pairs by a rule of each text: what the pairs before tell, against the exact posterior."""
    import torch

    from generative.known.rules import Rules
    from generative.text.gpt import GPT
    from scripts import train_gpt

    args = train_gpt.PRESETS["rules"]
    steps = 3 if settings.smoke else args.steps
    folder = train_gpt.main(replace(args, out=settings.work, seed=settings.seed, steps=steps))
    model, rules = GPT.from_pretrained(folder), Rules(num_pairs=args.length // 2)
    x = rules.sample(200 if settings.smoke else 10_000, torch.Generator().manual_seed(10**6))
    found, best = rules.measure(model.logits, x), rules.best()
    short = best.accuracy - found.accuracy
    worst = int(short.argmax())
    exact = -float(rules.answer_probs(x).gather(2, rules.split(x)[1][:, :, None]).log().mean())
    loss = float(found.loss.mean())
    return [
        Line(
            "words by a rule of the text, accuracy of the best guess less the model's, after the "
            f"number of examples where it is largest ({worst})",
            float(found.accuracy[worst]), float(best.accuracy[worst]), "Bayes", float(short[worst]),
            0.02,
        ),
        Line(
            "the same, nats an answer above the exact posterior", loss, exact, "Bayes",
            loss - exact, 0.02,
        ),
    ]  # fmt: skip


def gpt_dialogues(settings: Settings) -> list[Line]:
    """Answers in conversations that are longer than the window, against what is in sight."""
    import random

    from generative.known.dialogues import COLOURS, THINGS, Dialogues
    from generative.text.chat import Conversation
    from generative.text.gpt import GPT
    from scripts import train_gpt
    from scripts.common.text import vocabulary_of

    args = train_gpt.PRESETS["dialogues"]
    steps = 3 if settings.smoke else args.steps
    folder = train_gpt.main(replace(args, out=settings.work, seed=settings.seed, steps=steps))
    model, tokeniser = GPT.from_pretrained(folder), vocabulary_of(folder)
    dialogues, rng = Dialogues(), random.Random(10**6)
    in_sight = in_all = total = cuts = 0
    for _ in range(2 if settings.smoke else 100):
        talk, said = Conversation(model, tokeniser, max_answer=2), []
        for _ in range(20):
            told = dialogues.tell(rng.choice(THINGS), rng.choice(COLOURS))
            said.append(rng.choice((told, dialogues.ask(rng.choice(THINGS)))))
            reply = talk.say(said[-1])
            in_sight += reply.text == dialogues.answer(said[reply.cut :])
            in_all += reply.text == dialogues.answer(said)
            total += 1
            cuts += reply.cut > 0
    share = in_sight / total
    return [
        Line(
            f"conversations of 20 turns, of which 8 are in sight ({cuts / total:.0%} of the "
            "replies say that turns were cut): answers right by what is in sight, and what is "
            "missing", share, 1.0, "the dialogue's rules", 1 - share, 0.005,
        ),
        Line(
            "the same answers, right by all that was told", in_all / total, 1.0,
            "no limit of the window", in_all / total, 1.0,
        ),
    ]  # fmt: skip


def shakespeare(preset: str, settings: Settings) -> float:
    """Train a preset of train_gpt.py on tiny Shakespeare; returns the loss of its last tenth."""
    from generative.training.run import read_result
    from scripts import train_gpt

    args = train_gpt.PRESETS["smoke" if settings.smoke else preset]
    args = replace(args, out=settings.work, seed=settings.seed)
    if not settings.smoke:
        args = replace(args, data_dir=settings.data, text=Path("tinyshakespeare.txt"))
    train_gpt.main(args)
    return read_result(settings.work)["test_loss"]


def bidirectional_hidden_markov(settings: Settings) -> list[Line]:
    """Two recurrent networks on hidden letters, against forward and backward messages."""
    import torch

    from generative.known.texts import hidden_markov_text
    from generative.text.config import BidirectionalConfig, TextLossConfig
    from generative.text.corruption import hide_tokens
    from generative.text.recurrent import Bidirectional
    from generative.text.tokens import TextLearner

    text = hidden_markov_text()
    steps = 3 if settings.smoke else 1500
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    # The second layer can multiply the two messages of the first.
    model = Bidirectional(BidirectionalConfig(text.vocab_size, 32, 64, num_layers=2))
    config = TextLossConfig(lr=5e-3, final_lr=5e-5, clip=1.0, ema=0.99)
    learner = TextLearner(model, config, steps, model.loss)
    for _ in range(steps):
        learner.update(text.sample(64, 32, generator))
    x = text.sample(2000, 32, generator)
    hidden = hide_tokens(x, model.config.mask_rate, generator)
    with torch.no_grad():
        log_p = learner.kept.logits(x.masked_fill(hidden, model.mask_token)).log_softmax(-1)
    loss, floor = (
        -float(p.gather(2, x[:, :, None])[:, :, 0][hidden].double().mean())
        for p in (log_p, text.posterior(x, ~hidden).log())
    )
    what = "hidden letters of a hidden Markov model, loss above the exact posterior's, as a share"
    return [Line(what, loss, floor, "exact posterior", loss / floor - 1, 0.01)]


def bert_hidden_markov(settings: Settings) -> list[Line]:
    """The same of BERT."""
    from scripts import train_bert

    what = "hidden letters of a hidden Markov model, loss above the exact posterior's, as a share"
    return [excess_line(train_bert, what, settings)]


def t5_hidden_markov(settings: Settings) -> list[Line]:
    """Spans of one to several letters, whose lengths are unknown too."""
    from scripts import train_t5

    what = "cut-out pieces of a hidden Markov model, loss above the exact posterior's, as a share"
    return [excess_line(train_t5, what, settings)]


def excess_line(script, what: str, settings: Settings) -> Line:
    """Train the preset hidden-markov of a script and read its result."""
    from generative.training.run import read_result

    args = script.PRESETS["smoke" if settings.smoke else "hidden-markov"]
    script.main(replace(args, out=settings.work, seed=settings.seed))
    found = read_result(settings.work)
    return Line(what, found["test_loss"], found["floor"], "exact posterior", found["excess"], 0.01)


CERTIFICATES = {
    "lstm-markov": Certificate("LSTM, letters", lstm_markov, 5),
    "bidirectional-hidden-markov": Certificate(
        "Bidirectional GRU, hidden letters", bidirectional_hidden_markov, 5
    ),
    "gpt-reviews": Certificate("GPT, reviews of a grammar", gpt_reviews, 9),
    "gpt-rules": Certificate("GPT, tasks posed in the text", gpt_rules, 9),
    "gpt-dialogues": Certificate("GPT, conversation with a history", gpt_dialogues, 9),
    "gpt-shakespeare": Certificate("GPT, characters", gpt_shakespeare, 9, given=True),
    "gpt-nanogpt": Certificate("GPT, characters", gpt_nanogpt, 9, given=True),
    "bert-hidden-markov": Certificate("BERT, hidden letters", bert_hidden_markov, 9),
    "t5-hidden-markov": Certificate("T5, cut-out pieces", t5_hidden_markov, 9),
}
