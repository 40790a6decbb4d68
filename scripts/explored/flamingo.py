"""A trained Flamingo: a dialogue about a scene, where words look, gates, examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generative.training.ranges import Checked, Count
from scripts.explored.common import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from generative.flamingo.model import Flamingo
    from generative.known.picture_talk import Chunk, PictureTalk

CLASSES = ("Flamingo",)


@dataclass(frozen=True)
class Settings(Checked):
    """Models that read pictures."""

    num_scenes: Count = 4
    """Scenes of the dialogues."""
    num_questions: Count = 3
    """Questions about each, one after the other."""
    num_texts: Count = 100
    """Texts of names for each share of right answers."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """dialogues.png, with where each answer looks; examples.png; of a run also gates.png.

    An answer is also asked for without the picture, which is then a black one.
    """
    import random

    from generative.known.picture_talk import PictureTalk
    from generative.training.metrics import METRICS_NAME, read_metrics
    from scripts.train_flamingo import answers, share

    model, talk, rng = subject.model, PictureTalk(), random.Random(subject.seed)
    dialogues = [
        dialogue(model, talk, talk.questions(rng, settings.num_questions))
        for _ in range(settings.num_scenes)
    ]
    subject.save_figure("dialogues", dialogues_figure(dialogues), dpi=90)
    naming = [talk.naming(4, rng) for _ in range(settings.num_texts)]
    alone = [talk.naming(4, rng, shots=0) for _ in range(settings.num_texts)]
    examples = {
        "no example": share(answers(model, talk, alone, among_names=True)),
        "one of each": share(answers(model, talk, naming)),
        "their pictures exchanged": share(
            answers(model, talk, [talk.exchanged(text, rng) for text in naming])
        ),
    }
    subject.save_figure("examples", examples_figure(examples), dpi=90)
    if subject.run is not None and (subject.run / METRICS_NAME).is_file():
        subject.save_figure("gates", gates_figure(read_metrics(subject.run)), dpi=90)
    gates = [[round(x, 4) for x in row] for row in model.gates().tolist()]
    return {
        "examples": examples,
        "gates": gates,
        "dialogues": [
            [{k: x for k, x in turn.items() if k != "map"} for turn in turns]
            for _, turns in dialogues
        ],
    }


def dialogue(
    model: Flamingo, talk: PictureTalk, chunk: Chunk
) -> tuple[Tensor, list[dict[str, Any]]]:
    """The picture of a chunk, and for each of its questions what the model answers.

    A turn has question, right answer, answer, answer to a black picture, and "map", where the first
    word of the answer looks in the picture, (rows, columns).
    """
    import torch

    from generative.known.picture_talk import IMAGE, Talk
    from generative.text.tokens import with_start

    device = next(model.parameters()).device
    images = talk.images([Talk("questions", (chunk,))]).to(device)
    turns, said = [], IMAGE
    for question, right in split_turns(chunk.words):
        tokens = torch.tensor([talk.tokeniser.encode(f"{said} {question} ?")], device=device)
        found = {}
        for name, shown in (("answer", images), ("without", torch.zeros_like(images))):
            written = model.generate(tokens, shown, 4, temperature=0.0)[0, tokens.shape[1] :]
            words = talk.tokeniser.pieces(written)
            found[name] = " ".join(words[: len(right.split())])
        looks = picture_map(model, with_start(tokens), images)
        turns.append({"question": f"{question} ?", "right": right, **found, "map": looks})
        said = f"{said} {question} ? {right}"
    return images[0, 0, 0].cpu(), turns


def split_turns(words: str) -> list[tuple[str, str]]:
    """Questions and answers of a chunk: "how many discs ? two where is .. ? top left"."""
    begins, turns = {"how", "what", "where"}, []
    pieces = words.split()
    at = 0
    while at < len(pieces):
        mark = pieces.index("?", at)
        end = mark + 1
        while end < len(pieces) and pieces[end] not in begins:
            end += 1
        turns.append((" ".join(pieces[at:mark]), " ".join(pieces[mark + 1 : end])))
        at = end
    return turns


def picture_map(model: Flamingo, tokens: Tensor, images: Tensor) -> list[list[float]]:
    """Share of the last token's attention that each place of the last picture gets.

    Attention to the latents, mean over gated layers and heads, times the attention of the latents
    to the places in the resampler's last layer.
    """
    import torch

    of_text: list[Tensor] = []
    of_latents: list[Tensor] = []
    with torch.no_grad():
        model.logits(tokens, images, maps=of_text)
        model.look(images, of_latents)
    each = model.config.resampler.num_latents
    weights = torch.stack([m[0, :, -1, -each:].mean(0) for m in of_text]).mean(0)
    rows, columns = model.vision.config.grid
    places = of_latents[-1][-1].mean(0)[:, : rows * columns]  # of the first frame
    return (weights @ places).view(rows, columns).tolist()


def dialogues_figure(dialogues: list[tuple[Tensor, list[dict[str, Any]]]]) -> Figure:
    """A row for each scene: the picture, then each question with where its answer looks."""
    from matplotlib.figure import Figure

    columns = 1 + max(len(turns) for _, turns in dialogues)
    figure = Figure(figsize=(2.6 * columns, 2.6 * len(dialogues)), layout="constrained")
    grid = figure.subplots(len(dialogues), columns, squeeze=False)
    for axes, (picture, turns) in zip(grid, dialogues, strict=True):
        for axis in axes:
            axis.axis("off")
        axes[0].imshow(picture.movedim(0, -1).numpy())
        for axis, turn in zip(axes[1:], turns, strict=False):
            axis.imshow(turn["map"], cmap="magma")
            verdict = "" if turn["answer"] == turn["right"] else f"\n(right: {turn['right']})"
            axis.set_title(
                f"{turn['question']}\n{turn['answer']}{verdict}\nblack picture: {turn['without']}",
                fontsize=8,
            )
    return figure


def examples_figure(shares: dict[str, float]) -> Figure:
    """Bars of the shares of right names among four."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.4), layout="constrained")
    axis = figure.subplots()
    axis.barh(list(shares)[::-1], list(shares.values())[::-1], color="C0")
    axis.axvline(0.25, color="black", lw=1)
    axis.set(xlim=(0, 1), xlabel="right names; the line is a guess among four")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def gates_figure(metrics: list[dict[str, Any]]) -> Figure:
    """Opening of the gates over the steps, mean over the layers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.8), layout="constrained")
    axis = figure.subplots()
    for name, text in (("attention_gates", "attention"), ("feed_forward_gates", "feed-forward")):
        lines = [line for line in metrics if name in line]
        axis.plot([line["step"] for line in lines], [line[name] for line in lines], label=text)
    axis.set(xlabel="step", ylabel="|tanh| of the gate", ylim=(0, None))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return figure
