"""A trained model of texts: next words, samples, attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from generative.training.ranges import Checked, Count, CountOrZero, NonNegative, Range
from generative.training.words import with_article
from scripts.explored.common import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from generative.data.text import Tokeniser
    from generative.known.rules import ByExamples

CLASSES = ("GPT", "RecurrentText", "BERT", "T5")


@dataclass(frozen=True)
class Settings(Checked):
    """Models of texts."""

    prompts: tuple[str, ...] = ()
    """Texts to go on from; those of the data if not given. BERT fills in [MASK];
    for T5 they are the sources."""
    text: str = ""
    """A text to look at word by word; none for the first that is sampled."""
    temperatures: tuple[NonNegative, ...] = (1.0, 0.5)
    """Temperatures of the tables and of the texts."""
    top: Count = 5
    """Next words in a table."""
    top_k: CountOrZero = 0
    """Texts: draw from the k most probable words only; 0 for all."""
    top_p: Annotated[float, Range(0, 1, above=True)] = 1.0
    """Texts: draw from the fewest words of this probability only; 1 for all."""
    num_tokens: Count = 60
    """Words or characters to write."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperatures:
            raise ValueError("temperatures is empty; give at least one")


PROMPTS = {
    "recipes": (
        "recipe for roasted vegetables |",
        "recipe for roasted vegetables | chop 1 /",
        "recipe for ice cream |",
    ),
    "wine-reviews": (
        "wine review : us",
        "wine review : italy",
        "wine review : germany : mosel : riesling : a wine that is slightly",
    ),
    "reviews": (
        "wine review : germany :",
        "wine review : italy : piedmont : nebbiolo : a firm red wine with notes of",
        "wine review : germany : mosel : riesling : a fresh white wine with notes of lime and "
        "slate , slightly",
    ),
    "markov": ("ab", "c"),
    "hidden-markov": ("ab", "c"),
    "text": ("The ", "I "),
    "rules": ("dax", "dax red blick green wug", "dax green blick yellow wug", "dax red blick red"),
    "one-rule": ("dax", "blick"),
    "dialogues": (
        "user my hat is red . assistant noted . user what is my hat ? assistant",
        "user what is my hat ? assistant",
    ),
}
"""Prompts for models of the next word, by their training data."""
REVIEW = (
    "wine review : italy : piedmont : [MASK] : a firm red wine with notes of tar and rose , "
    "slightly [MASK] . serve it with [MASK] .",
)
GAPS = dict.fromkeys(("reviews", "wine-reviews"), REVIEW)
GAPS |= dict.fromkeys(("markov", "hidden-markov"), ("a[MASK]b[MASK]",))
"""Texts with gaps for BERT, by its training data."""
SOURCES = {
    **PROMPTS,
    "reviews": (
        "sum up : wine review : spain : rioja : tempranillo : a firm red wine with notes of fig "
        "and plum , slightly dry . serve it with lamb .",
    ),
}
"""Sources for T5, by its training data."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures and samples.txt; returns the probabilities of the tables.

    Of a recurrent network or GPT: the most probable next words at each temperature, texts, and the
    probability of each word of a text. Of GPT, BERT and T5 also attention; of a GPT of pairs by a
    rule how often it is right after 0, 1, .. pairs, of one of dialogues a conversation, and what it
    still knows of it.
    """
    import torch

    from scripts.common.text import vocabulary_of

    name = type(subject.model).__name__
    tokeniser = vocabulary_of(subject.folder)
    ways = {"BERT": (explore_gaps, GAPS), "T5": (explore_pairs, SOURCES)}
    look, known = ways.get(name, (explore_next, PROMPTS))
    prompts = settings.prompts or known.get(subject.data, ())
    if not prompts:
        raise ValueError(
            f"{subject.folder} holds {with_article(name)} and nothing tells what to ask it; pass "
            "texts with --text.prompts"
        )
    with torch.no_grad():
        return look(subject, tokeniser, prompts, settings)


# ---------------------------------------------------------------------------------------------
# What comes next
# ---------------------------------------------------------------------------------------------


def explore_next(
    subject: Subject, tokeniser: Tokeniser, prompts: tuple[str, ...], settings: Settings
) -> dict[str, Any]:
    """Tables, texts and the words of one of them; of GPT also where it looks."""
    import torch

    from generative.text.gpt import GPT
    from generative.text.tokens import with_start

    model, device = subject.model, subject.device
    tables, texts = {}, []
    start = model.config.from_start
    longest = model.config.max_len - start if isinstance(model, GPT) else None
    for prompt in prompts:
        tokens = encode(prompt, tokeniser, device)
        tables[prompt] = next_words(model.next_logits(tokens)[0], tokeniser, settings)
        for temperature in settings.temperatures:
            row = model.generate(
                tokens,
                settings.num_tokens,
                temperature=temperature,
                top_k=settings.top_k,
                top_p=settings.top_p,
                generator=torch.Generator(device).manual_seed(subject.seed),
            )[0]
            texts.append((temperature, tokeniser.decode(row)))
    subject.save_figure("next-words", next_words_figure(tables), dpi=90)
    (subject.pictures / "samples.txt").write_text(
        "\n\n".join(f"temperature {temperature}:\n{text}" for temperature, text in texts) + "\n"
    )

    row = encode(settings.text or texts[0][1], tokeniser, device)[:, :longest]
    words, p = tokeniser.pieces(row[0]), model.token_log_probs(row)[0].exp().tolist()
    words_with_p = words[-len(p) :]  # where the first word is given it has no probability
    figure = word_figure([(words_with_p, p)], "probability of each word", "YlGn")
    subject.save_figure("word-probabilities", figure, dpi=90)
    found = {
        "next_words": tables,
        "words": [[word, round(value, 4)] for word, value in zip(words_with_p, p, strict=True)],
    }
    if isinstance(model, GPT):
        maps = model.attention_maps(with_start(row, start))
        names = ["(start)", *words] if start else words
        subject.save_figure("attention", maps_figure(maps, names, names), dpi=90)
        rows = []
        for prompt in prompts:
            tokens = encode(prompt, tokeniser, device)
            maps = model.attention_maps(with_start(tokens, start))
            looks = torch.stack(maps)[:, 0, :, -1].mean((0, 1))  # of all blocks and heads
            rows.append((tokeniser.pieces(tokens[0]), looks[int(start) :].tolist()))
        title = "where GPT looks to find the next word, mean of all heads"
        subject.save_figure("looking-back", word_figure(rows, title, "Purples", True), dpi=90)
        if subject.data in ("rules", "one-rule"):
            found |= explore_examples(subject)
        if subject.data == "dialogues":
            found |= explore_history(subject, tokeniser)
    return found


def explore_examples(subject: Subject) -> dict[str, Any]:
    """Share of right answers of a GPT after 0, 1, .. pairs, beside the best possible.

    The texts have rules of their own, whatever the model was trained on.
    """
    import torch

    from generative.known.rules import Rules

    model = subject.model
    rules = Rules(num_pairs=model.config.max_len // 2)
    x = rules.sample(2000, torch.Generator().manual_seed(subject.seed)).to(subject.device)
    found, best = rules.measure(model.logits, x), rules.best()
    subject.save_figure("examples", examples_figure(found, best), dpi=90)
    return {
        "accuracy_by_examples": [round(value, 4) for value in found.accuracy.tolist()],
        "best_accuracy_by_examples": [round(value, 4) for value in best.accuracy.tolist()],
    }


def explore_history(subject: Subject, tokeniser: Tokeniser) -> dict[str, Any]:
    """Share of facts that a conversation knows, by the turns since; and one as it went.

    A fact is told, other things are talked about, then it is asked for.
    """
    import random

    from generative.known.dialogues import COLOURS, THINGS, TURN, Dialogues
    from generative.text.chat import Conversation

    dialogues, rng = Dialogues(), random.Random(subject.seed)
    window = subject.model.config.max_len // TURN
    shares, lines = [], []
    for between in range(window + 2):
        right = 0
        for trial in range(20):
            talk = Conversation(subject.model, tokeniser, max_answer=2)
            thing, colour = rng.choice(THINGS), rng.choice(COLOURS)
            others = [other for other in THINGS if other != thing]
            said = [dialogues.tell(thing, colour)]
            said += [
                dialogues.tell(rng.choice(others), rng.choice(COLOURS)) for _ in range(between)
            ]
            said.append(dialogues.ask(thing))
            replies = [talk.say(sentence) for sentence in said]
            right += replies[-1].text == colour
            if between == window and trial == 0:
                for sentence, reply in zip(said, replies, strict=True):
                    cut = f"   (without the first {reply.cut} turns)" if reply.cut else ""
                    lines.append(f"user: {sentence}\nassistant: {reply.text}{cut}")
        shares.append(right / 20)
    (subject.pictures / "conversation.txt").write_text("\n".join(lines) + "\n")
    subject.save_figure("history", history_figure(shares, window), dpi=90)
    return {"right_by_turns_between": shares}


def encode(prompt: str, tokeniser: Tokeniser, device: str) -> Tensor:
    """A prompt as tokens (1, T)."""
    import torch

    return torch.tensor([tokeniser.encode(prompt)], dtype=torch.int64, device=device)


def next_words(
    logits: Tensor, tokeniser: Tokeniser, settings: Settings
) -> dict[str, list[list[Any]]]:
    """The most probable next words with their probabilities, for each temperature."""
    from generative.sampling import shape_logits

    table = {}
    for temperature in settings.temperatures:
        best = shape_logits(logits, temperature).exp().topk(min(settings.top, len(logits)))
        names = [tokeniser.vocabulary[token] or "(end)" for token in best.indices.tolist()]
        pairs = zip(names, best.values.tolist(), strict=True)
        table[str(temperature)] = [[name, round(p, 4)] for name, p in pairs]
    return table


# ---------------------------------------------------------------------------------------------
# What stands in a gap, what is the answer
# ---------------------------------------------------------------------------------------------


def explore_gaps(
    subject: Subject, tokeniser: Tokeniser, prompts: tuple[str, ...], settings: Settings
) -> dict[str, Any]:
    """Words for each [MASK], where BERT looks from it, and attention in the first prompt."""
    import torch

    model, device = subject.model, subject.device
    mask = model.encoder.mask_token
    tables: dict[str, Any] = {}
    rows = []
    for k, prompt in enumerate(prompts):
        first, *others = map(tokeniser.encode, prompt.split("[MASK]"))
        tokens = sum(([mask, *piece] for piece in others), first)
        row = torch.tensor([tokens or [mask]], device=device)
        words = ["____" if t == mask else tokeniser.vocabulary[t] for t in row[0].tolist()]
        log_p, maps = model.fill(row)[0], model.attention_maps(row)
        for place in (row[0] == mask).nonzero()[:, 0].tolist():
            shown = " ".join(words[max(0, place - 5) : place + 4])
            tables[shown] = next_words(log_p[place], tokeniser, settings)
            looks = torch.stack(maps)[:, 0, :, place + 1].mean((0, 1))
            rows.append((words, looks[1:].tolist()))  # first is the token for the whole text
        if k == 0:
            inner = [weights[:, :, 1:, 1:] for weights in maps]
            subject.save_figure("attention", maps_figure(inner, words, words), dpi=90)
    if tables:
        subject.save_figure("gaps", next_words_figure(tables), dpi=90)
        title = "where BERT looks from each gap, mean of all heads"
        subject.save_figure("looking-around", word_figure(rows, title, "Purples", True), dpi=90)
    return {"gaps": tables}


def explore_pairs(
    subject: Subject, tokeniser: Tokeniser, prompts: tuple[str, ...], settings: Settings
) -> dict[str, Any]:
    """T5's answer to each prompt, and the attention of its decoder to the first."""
    from generative.text.tokens import after_end

    model, answers = subject.model, {}
    for k, prompt in enumerate(prompts):
        source = encode(prompt, tokeniser, subject.device)
        written = model.generate(source, settings.num_tokens)
        words = tokeniser.pieces(written[0])
        answers[prompt] = " ".join(words)
        if k == 0:
            names = [*words, "(end)"][: settings.num_tokens]
            cross = model.attention_maps(source, after_end(written[:, : len(names)])).cross
            figure = maps_figure(cross, names, tokeniser.pieces(source[0]))
            subject.save_figure("cross-attention", figure, dpi=90)
    return {"answers": answers}


# ---------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------


def next_words_figure(tables: dict[str, dict[str, list[list[Any]]]]) -> Figure:
    """A row of bars for each prompt, a column for each temperature."""
    from matplotlib.figure import Figure

    num = len(next(iter(tables.values())))
    figure = Figure(figsize=(3.7 * num, 0.3 + 1.75 * len(tables)), layout="constrained")
    parts = figure.subfigures(len(tables), 1, squeeze=False)[:, 0]
    for part, (prompt, table) in zip(parts, tables.items(), strict=True):
        shown = f"... {prompt[-75:].partition(' ')[2]}" if len(prompt) > 80 else prompt
        part.suptitle(f"{shown} ...", fontsize=9, x=0.01, ha="left", family="monospace")
        axes = part.subplots(1, num, squeeze=False)[0]
        for k, (axis, (temperature, words)) in enumerate(zip(axes, table.items(), strict=True)):
            names, values = zip(*words[::-1], strict=True)
            axis.barh(range(len(names)), values, color=f"C{k}")
            axis.set(xlim=(0, 1.2), xticks=[])
            axis.set_yticks(range(len(names)), names, fontsize=8)
            for place, value in enumerate(values):
                axis.text(value + 0.02, place, f"{100 * value:.1f} %", va="center", fontsize=8)
            axis.text(1.2, 0, f"temperature {temperature}", ha="right", va="center", fontsize=8)
            axis.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def examples_figure(found: ByExamples, best: ByExamples) -> Figure:
    """Accuracy and loss of the answer by the number of pairs before it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 2)
    names = ("share of right answers", "loss of the answer, nats")
    for axis, name, ours, exact in zip(axes, names, found, best, strict=True):
        axis.plot(exact.tolist(), color="black", label="exact posterior")
        axis.plot(ours.tolist(), "o", color="C0", label="model")
        axis.set(xlabel="pairs before the question", ylabel=name, ylim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    return figure


def history_figure(shares: list[float], window: int) -> Figure:
    """Share of right answers by the turns between telling and asking."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2.8), layout="constrained")
    axis = figure.subplots()
    axis.plot(shares, "o-", color="C0")
    axis.axvline(window - 1.5, color="black", lw=1)
    axis.text(window - 1.45, 0.5, "cut from the history", va="center", fontsize=9, rotation=90)
    axis.set_xticks(range(len(shares)))
    axis.set(xlabel="turns between telling and asking", ylabel="share right", ylim=(-0.03, 1.05))
    axis.spines[["top", "right"]].set_visible(False)
    return figure


CHARACTER = 5.6
"""Width of a character of `word_figure` in points."""


def word_figure(
    rows: list[tuple[list[str], list[float]]], title: str, colours: str, relative: bool = False
) -> Figure:
    """Texts word by word, darker where the value in [0, 1] is higher.

    Args:
        relative: the highest value of each text is the darkest.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    per_line = 100
    lines: list[list[tuple[int, str, float]]] = []
    for words, values in rows:
        lines.append([])
        width, most = 0, max(values) if relative else 1.0
        for word, value in zip(words, values, strict=True):
            if width + len(word) + 1 > per_line:
                lines.append([])
                width = 0
            lines[-1].append((width, word.replace("\n", "\u21b5"), value / most))
            width += len(word) + 1
        lines.append([])  # a gap between texts
    lines.pop()
    figure = Figure(figsize=((per_line + 2) * CHARACTER / 72, 0.45 + 0.26 * len(lines)))
    axis = figure.add_axes((0.01, 0.0, 0.98, 1 - 0.35 / figure.get_figheight()))
    axis.set(xlim=(0, per_line), ylim=(len(lines), 0))
    axis.axis("off")
    for y, line in enumerate(lines):
        for x, word, share in line:
            box = {
                "facecolor": mpl.colormaps[colours](0.8 * share),
                "edgecolor": "none",
                "pad": 1.5,
            }
            axis.text(
                x + 0.3, y + 0.5, word, family="monospace", fontsize=9, va="center", bbox=box,
                color="white" if share > 0.75 else "black",
            )  # fmt: skip
    figure.suptitle(title, fontsize=9, x=0.012, ha="left", y=1 - 0.08 / figure.get_figheight())
    return figure


def maps_figure(maps: list[Tensor], queries: list[str], keys: list[str]) -> Figure:
    """Attention of the first example: a row for each block, a column for each head."""
    from matplotlib.figure import Figure

    num_heads = maps[0].shape[1]
    side = min(7.5, 1.2 + 0.14 * max(len(queries), len(keys)))
    figure = Figure(figsize=(side * num_heads, side * len(maps)), layout="constrained")
    grid = figure.subplots(len(maps), num_heads, squeeze=False)
    for k, (axes, weights) in enumerate(zip(grid, maps, strict=True)):
        for h, (axis, head) in enumerate(zip(axes, weights[0], strict=True)):
            axis.imshow(head.cpu().numpy(), cmap="magma_r", vmin=0, vmax=1)
            axis.set_title(f"block {k + 1}, head {h + 1}", fontsize=8)
            axis.set_xticks(range(len(keys)), keys, rotation=90, fontsize=6)
            axis.set_yticks(range(len(queries)), queries if h == 0 else [], fontsize=6)
    return figure
