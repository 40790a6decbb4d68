"""A trained Toolformer: what its calls saved, and its answers with the calls to be seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generative.training.ranges import Checked, Count
from scripts.explored.common import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "train_toolformer"
"""Runs of this command are explored here; what they hold is a GPT like any other."""


@dataclass(frozen=True)
class Settings(Checked):
    """Runs of train_toolformer.py."""

    prompts: tuple[str, ...] = ()
    """Questions to answer, such as "347*185=" or "code of bodik="; unseen ones without any."""
    num_answers: Count = 6
    """Unseen questions of each kind that are answered."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """gains.png, the loss that results saved; answers.txt, answers with and without tools."""
    import random

    from generative.known.tool_questions import Questions
    from generative.text.tools import answer
    from generative.training.files import MAX_LIST_BYTES, read_json
    from scripts.train_toolformer import CALLS_NAME

    assert subject.run is not None
    questions = Questions()
    rng = random.Random(subject.seed)
    prompts = settings.prompts or tuple(
        questions.draw(rng, seen=False, kind=kind).text
        for kind in ("product", "fact")
        for _ in range(settings.num_answers)
    )
    known = set(questions.tokeniser.vocabulary)
    for prompt in prompts:
        if unknown := set(prompt) - known:
            raise ValueError(
                f"{prompt!r} has {sorted(unknown)}, which the model does not know; ask for "
                "products and codes, as in --toolformer.prompts 347*185="
            )
    model, tokeniser = subject.model, questions.tokeniser
    texts = {
        name: answer(model, tokeniser, prompts, tools)
        for name, tools in (("with tools", questions.tools), ("without", None))
    }
    lines = [f"{name}:\n" + "\n".join(rows) + "\n" for name, rows in texts.items()]
    subject.pictures.mkdir(parents=True, exist_ok=True)
    (subject.pictures / "answers.txt").write_text("\n".join(lines))
    records = read_json(subject.run / "calls" / CALLS_NAME, MAX_LIST_BYTES)
    min_gain = subject.settings["calls"]["min_gain"]
    subject.save_figure("gains", draw(records, min_gain), dpi=100)
    return {"answers": texts}


def draw(records: list[dict[str, Any]], min_gain: float) -> Figure:
    """Histogram of the nats a token that results saved, of right calls and of others."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    gains = [[r["gain"] for r in records if r["right"] is right] for right in (True, False)]
    edges = np.histogram_bin_edges([g for some in gains for g in some] or [0.0], 40)
    names = [f"right calls ({len(gains[0])})", f"other calls ({len(gains[1])})"]
    axis.hist(gains, edges.tolist(), label=names, color=["C0", "C3"], stacked=True)
    axis.axvline(min_gain, color="black", lw=1)
    axis.text(min_gain, axis.get_ylim()[1], " kept from here on", va="top", fontsize=9)
    axis.set(xlabel="loss that the result saves behind the call, nats a token", ylabel="calls")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return figure
