"""Flamingo against what its pictures and its examples tell."""

from __future__ import annotations

from dataclasses import replace

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]

K = 4
"""Names that a text may ask for."""
ABOUT = {
    "counts": "counts, how many of a shape or a colour there are",
    "colours": "colours, that of a shape",
    "places": "places, where an object is",
    "objects": "objects, which is at a place",
}
"""Questions of the lines, by their names in `scripts.train_flamingo.QUESTIONS`."""


def flamingo_scenes(settings: Settings) -> list[Line]:
    """Names from one example each, and questions, of scenes that can be read without error."""
    import random

    from generative.flamingo.model import Flamingo
    from generative.known.picture_talk import PictureTalk, Talk
    from scripts import train_flamingo
    from scripts.train_flamingo import QUESTIONS, answers, share

    args = train_flamingo.PRESETS["smoke" if settings.smoke else "scenes"]
    folder = train_flamingo.main(replace(args, out=settings.work, seed=settings.seed))
    model, talk = Flamingo.from_pretrained(folder), PictureTalk()
    rng, num = random.Random(10**6), 4 if settings.smoke else 1000
    naming = [talk.naming(K, rng) for _ in range(num)]
    alone = share(
        answers(model, talk, [talk.naming(K, rng, shots=0) for _ in range(num)], among_names=True)
    )
    shown = share(answers(model, talk, naming))
    exchanged = share(answers(model, talk, [talk.exchanged(text, rng) for text in naming]))
    asked = [Talk("questions", (talk.questions(rng, 1),)) for _ in range(4 * num)]
    answered = answers(model, talk, asked)
    kinds = {
        name: [
            right for right, text in zip(answered, asked, strict=True)
            if text.chunks[0].words.startswith(begins)
        ]
        for begins, name in QUESTIONS.items()
    }  # fmt: skip
    told = {name: share(right) for name, right in kinds.items()}
    films = share(answers(model, talk, [talk.talk("film", rng) for _ in range(num)]))
    return [
        Line(
            "invented names after one example of each of 4, and what is missing",
            shown, 1.0, "Bayes", 1 - shown, 0.05,
        ),
        Line(
            "without examples, the likeliest of the 4 names: distance from a guess",
            alone, 1 / K, "Bayes", abs(alone - 1 / K), 0.05,
        ),
        Line(
            "the pictures of the examples exchanged: distance from a guess",
            exchanged, 1 / K, "Bayes", abs(exchanged - 1 / K), 0.05,
        ),
        *(
            Line(
                f"questions about {about}, and what is missing", told[name], 1.0, "the scene",
                1 - told[name], 0.05,
            )
            for name, about in ABOUT.items()
        ),
        Line(
            "where an object of a film moves, and what is missing", films, 1.0, "the film",
            1 - films, 0.05,
        ),
    ]  # fmt: skip


CERTIFICATES = {"flamingo-scenes": Certificate("Flamingo", flamingo_scenes, 13)}
