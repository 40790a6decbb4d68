"""Wine reviews from a small grammar: every text there can be, with its probability.

Country, province, grape, colour, notes, taste, food: each word depends on some that came before,
the last on words at the beginning, so a model has to look back as it has in real reviews. As all
25,920 texts are listed, entropies, probabilities and the best guess at anything are exact.

    reviews = Reviews()
    reviews.texts[0]              # "wine review : france : bordeaux : merlot : a rich red wine ..."
    reviews.entropy()             # 9.57 nats
    reviews.sample(5, generator)  # int64 (5,), indices of texts
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from generative.training.checks import checked
from generative.training.ranges import CountOrZero

__all__ = ["GRAPES", "TASKS", "Review", "Reviews", "ask"]

PROVINCES = {
    "france": {"bordeaux": 0.5, "burgundy": 0.3, "alsace": 0.2},
    "italy": {"tuscany": 0.5, "piedmont": 0.3, "veneto": 0.2},
    "germany": {"mosel": 0.5, "rheingau": 0.3, "baden": 0.2},
    "spain": {"rioja": 0.5, "galicia": 0.3, "catalonia": 0.2},
    "us": {"california": 0.5, "oregon": 0.3, "washington": 0.2},
}
COUNTRIES = {"france": 0.3, "italy": 0.25, "us": 0.2, "spain": 0.15, "germany": 0.1}
GRAPES_OF = {
    "bordeaux": ("merlot", "sauvignon"), "burgundy": ("pinot", "chardonnay"),
    "alsace": ("riesling", "pinot"), "tuscany": ("sangiovese", "merlot"),
    "piedmont": ("nebbiolo", "muscat"), "veneto": ("glera", "merlot"),
    "mosel": ("riesling", "pinot"), "rheingau": ("riesling", "pinot"),
    "baden": ("pinot", "chardonnay"), "rioja": ("tempranillo", "sauvignon"),
    "galicia": ("muscat", "tempranillo"), "catalonia": ("tempranillo", "chardonnay"),
    "california": ("chardonnay", "merlot"), "oregon": ("pinot", "riesling"),
    "washington": ("riesling", "merlot"),
}  # fmt: skip
"""Grapes of each province; 70 % of its reviews are of the first."""
GRAPES = {
    "merlot": ("red", "dry", ("plum", "cherry", "cocoa", "cedar")),
    "pinot": ("red", "dry", ("cherry", "raspberry", "earth", "violet")),
    "sangiovese": ("red", "dry", ("cherry", "leather", "tobacco", "thyme")),
    "nebbiolo": ("red", "dry", ("rose", "tar", "cherry", "truffle")),
    "tempranillo": ("red", "dry", ("plum", "leather", "vanilla", "fig")),
    "chardonnay": ("white", "dry", ("apple", "butter", "vanilla", "pear")),
    "sauvignon": ("white", "dry", ("grass", "lime", "nettle", "peach")),
    "riesling": ("white", "sweet", ("lime", "slate", "peach", "honey")),
    "muscat": ("white", "sweet", ("grape", "orange", "rose", "honey")),
    "glera": ("white", "sweet", ("pear", "apple", "almond", "peach")),
}
"""Colour, taste (in 85 % of its reviews) and notes of each grape."""
QUALITIES = {
    "red": ("rich", "firm", "ripe", "smooth"),
    "white": ("crisp", "fresh", "ripe", "light"),
}
FOODS = {"red": ("lamb", "beef", "cheese"), "white": ("fish", "chicken", "salad")}


@dataclass(frozen=True)
class Review:
    """A text, its probability, and what it is about."""

    text: str
    p: float
    country: str
    province: str
    grape: str


@dataclass
class Reviews:
    """All reviews of the grammar."""

    reviews: list[Review] = field(default_factory=lambda: list(_all_reviews()))

    def __post_init__(self) -> None:
        self.texts = [review.text for review in self.reviews]
        self.p = torch.tensor([review.p for review in self.reviews], dtype=torch.float64)

    def __len__(self) -> int:
        """Number of reviews."""
        return len(self.reviews)

    def entropy(self) -> float:
        """Entropy of a text in nats: the floor of any model's loss per text."""
        return float(torch.special.entr(self.p).sum())

    @checked
    def sample(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """Indices of n texts drawn by their probabilities, int64 (n,)."""
        return torch.multinomial(self.p, n, replacement=True, generator=generator)


TASKS = ("sum up", "in order", "which food")
"""First words of a source, which name the task."""


def ask(review: Review, task: str, rng: np.random.Generator) -> tuple[str, str]:
    """Source and target of a task about a review, both texts.

    Args:
        task: "sum up", to "GRAPE from PROVINCE , COUNTRY"; "in order", whether the words are, or
            two that differ were exchanged, each in half of the cases; "which food", what to serve.
        rng: draws the exchanged words.
    """
    words = review.text.split()
    if task == "sum up":
        target = f"{review.grape} from {review.province} , {review.country}"
    elif task == "in order":
        swap = rng.random() < 0.5
        a, b = rng.choice(len(words), 2, replace=False)
        while swap and words[a] == words[b]:
            a, b = rng.choice(len(words), 2, replace=False)
        if swap:
            words[a], words[b] = words[b], words[a]
        target = "no" if swap else "yes"
    elif task == "which food":
        target = words[words.index("serve") + 3]
    else:
        raise ValueError(f"task is {task!r}; give one of {', '.join(TASKS)}")
    return f"{task} : {' '.join(words)}", target


def _all_reviews():
    for country, p_country in COUNTRIES.items():
        for province, p_province in PROVINCES[country].items():
            for grape, p_grape in zip(GRAPES_OF[province], (0.7, 0.3), strict=True):
                for text, p in _descriptions(grape):
                    head = f"wine review : {country} : {province} : {grape} : "
                    yield Review(
                        head + text, p_country * p_province * p_grape * p, country, province, grape
                    )


def _descriptions(grape: str):
    """Descriptions of a grape, with their probabilities."""
    colour, usual, notes = GRAPES[grape]
    tastes = {usual: 0.85, "sweet" if usual == "dry" else "dry": 0.15}
    endings = {" .": 0.5, " . drink it young .": 0.3, " . it will keep for years .": 0.2}
    if colour == "white":
        endings = {" .": 0.5, " . drink it young .": 0.4, " . it will keep for years .": 0.1}
    for quality, (first, second), (taste, p_taste), food, (ending, p_ending) in itertools.product(
        QUALITIES[colour],
        itertools.permutations(notes, 2),
        tastes.items(),
        FOODS[colour],
        endings.items(),
    ):
        text = (
            f"a {quality} {colour} wine with notes of {first} and {second} , slightly {taste} . "
            f"serve it with {food}{ending}"
        )
        yield text, p_taste * p_ending / (4 * 12 * 3)
