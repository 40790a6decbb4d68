"""Questions about a picture, to a Flamingo.

asker = Asker(Flamingo.from_pretrained("runs/flamingo/model"), PictureTalk().tokeniser)
asker.ask(picture, "what colour is the disc ?")            # Answer(text="red", unknown={})
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from generative.data.text import Tokeniser, split_words
from generative.flamingo.model import Flamingo
from generative.training.checks import placed

__all__ = ["Answer", "Asker"]

BEGINNINGS = frozenset({"how", "what", "where", "is", "are"})
"""Words that begin the next question, and so end an answer."""
MAX_ANSWER = 6
"""Most words of an answer; "at the bottom right" has four."""


class Answer(NamedTuple):
    """Answer to a question."""

    text: str
    """The words; "" if the model says nothing."""
    unknown: dict[str, list[str]]
    """Words of the question that the model does not know, each with known ones like it."""


class Asker:
    """Asks a Flamingo about single pictures.

    Args:
        model: reads texts with images; put into evaluation mode.
        tokeniser: of its words.
    Raises:
        ValueError: the model is another one, or the words are not those of its GPT.
    """

    def __init__(self, model: torch.nn.Module, tokeniser: Tokeniser):
        if not isinstance(model, Flamingo):
            raise ValueError(
                f"the model is of the class {type(model).__name__}, which answers no questions "
                "about pictures; pass a run of train_flamingo.py"
            )
        size = model.language.config.vocab_size
        if len(tokeniser) != size:
            raise ValueError(
                f"got {len(tokeniser)} words, and the model's GPT has {size}; pass the vocabulary "
                "that was written beside the model"
            )
        self.model, self.tokeniser = model.eval(), tokeniser
        tags = model.config.image_token, model.config.chunk_token
        self._image, self._chunk = (tokeniser.vocabulary[tag] for tag in tags)
        self.image_shape = model.vision.config.image_shape
        """(C, H, W) of the pictures that the model was trained on; others are resized."""

    def ask(self, picture: np.ndarray, question: str) -> Answer:
        """Answer a question about a picture by the most probable words.

        Args:
            picture: uint8 (H, W, 3).
            question: in words; a question mark is added if it has none.
        Raises:
            ValueError: the question has too many words for the model's window.
        """
        words = [word for word in split_words(question) if word != "?"]
        tokens = self.tokeniser.encode(" ".join([self._image, *words, "?"]))
        most = self.model.language.config.max_len - MAX_ANSWER
        if len(tokens) > most:
            raise ValueError(
                f"the question has {len(words)} words, and the model reads at most {most - 2}; "
                "shorten it"
            )
        prompt = torch.tensor([tokens], device=placed(self.model)["device"])
        written = self.model.generate(prompt, self._tensor(picture), MAX_ANSWER, temperature=0.0)
        answer: list[str] = []
        for word in self.tokeniser.pieces(written[0, len(tokens) :]):
            if word in {self._chunk, self._image} or (answer and word in BEGINNINGS):
                break
            answer.append(word)
        return Answer(" ".join(answer), self._unknown(words))

    def _unknown(self, words: list[str]) -> dict[str, list[str]]:
        known = set(self.tokeniser.vocabulary)
        return {
            word: difflib.get_close_matches(word, self.tokeniser.vocabulary[2:], 3)
            for word in words
            if word not in known
        }

    def _tensor(self, picture: np.ndarray) -> Tensor:
        """A picture as the model sees it, (1, 1, C, H, W) in [0, 1]."""
        channels, *sides = self.image_shape
        x = torch.tensor(picture).to(**placed(self.model)).movedim(-1, 0)[None] / 255
        if list(x.shape[-2:]) != sides:
            size = sides[0], sides[1]
            x = F.interpolate(x, size, mode="bilinear", antialias=True).clamp(0, 1)
        x = x.mean(1, keepdim=True) if channels == 1 else x
        return x[:, None]
