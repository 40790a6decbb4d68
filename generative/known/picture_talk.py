"""Talk about pictures of the micro-world: captions, questions, films, and names from examples.

A text has a tag for each picture ("image"), and a chunk about it that ends in "eoc":

    caption    image a red disc at the top left and a blue cross in the middle eoc
    questions  image how many discs ? two what colour is the cross ? blue eoc
    film       image the disc moves right eoc                           four frames
    names      image this is dax eoc image this is blick eoc image this is dax eoc

Every answer follows from the pictures; a name follows from the examples before it alone, as names
are given to objects anew in every text. The same texts can be written with the pictures in words,
from which a model of texts learns the language: "image ( a red disc at the top left ) where is the
disc ? ...", and with the object beside its name, "image this is red disc dax eoc".

    talk = PictureTalk()
    texts = talk.draw(32, rng)                       # a list of `Talk`, all of a kind
    talk.tokens(texts, 60), talk.images(texts)       # (32, 60), (32, N, F, 3, 24, 24)
    talk.naming(4, rng)                              # an example of each of 4 names, and a question
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from generative.data.text import Tokeniser
from generative.known.captions import PLACES
from generative.known.questions import NONE, NOTHING, QUESTION_WORDS, Question, questions
from generative.known.scenes import CELLS, EMPTY, OBJECTS, SIDE, draw

__all__ = ["CHUNK", "FRAMES", "IMAGE", "NAMES", "QUESTIONS", "Chunk", "PictureTalk", "Talk"]

IMAGE, CHUNK = "image", "eoc"
"""Words that stand for a picture, and that end the chunk about it."""
NAMES = ("dax", "blick", "wug", "fep", "toma", "zup", "kiv", "lorp", "neem", "gazz", "hild", "pog")
QUESTIONS = ("how-many", "which-is", "where", "colour")
"""Kinds of questions, of those of `generative.known.questions`."""
DIRECTIONS = ("right", "left", "down", "up")
FRAMES = 4
"""Frames of a film."""
Scene = tuple[int, ...]
"""Nine cells, as in `generative.known.scenes`."""


@dataclass(frozen=True)
class Chunk:
    """A picture or a film, and what is said about it."""

    frames: tuple[Scene, ...]
    words: str
    """In front of the end of the chunk."""
    answer: str
    """Last words of it: what was asked for."""


@dataclass(frozen=True)
class Talk:
    """A text of chunks."""

    kind: str
    chunks: tuple[Chunk, ...]
    names: tuple[str, ...] = field(default=())
    """Names that may be the answer, of a text of names."""

    @property
    def text(self) -> str:
        """All chunks, with the tags of the pictures."""
        return " ".join(f"{IMAGE} {chunk.words} {CHUNK}" for chunk in self.chunks)

    @property
    def prompt(self) -> str:
        """The text in front of its last answer."""
        return self.text.removesuffix(f" {self.answer} {CHUNK}")

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.chunks[-1].answer


class PictureTalk:
    """The language.

    Args:
        shares: how often each kind of text is drawn, by its name.
        num_names: most names of a text of names.
        num_chunks: chunks of such a text.
    """

    def __init__(
        self,
        shares: dict[str, float] | None = None,
        num_names: int = 4,
        num_chunks: int = 10,
    ):
        self.shares = shares or {"names": 0.45, "questions": 0.4, "caption": 0.05, "film": 0.1}
        self.num_names, self.num_chunks = num_names, num_chunks
        if not 1 <= num_names <= len(NAMES) or num_chunks < 1:
            raise ValueError(
                f"got {num_names} names and {num_chunks} chunks; give 1 to {len(NAMES)} names, and "
                "at least a chunk"
            )
        words = (
            IMAGE, CHUNK, "(", ")", "this", "moves", "up", "down", *QUESTION_WORDS, *NAMES
        )  # fmt: skip
        self.tokeniser = Tokeniser("words", ("", "[UNK]", *dict.fromkeys(words)))

    @property
    def image_token(self) -> int:
        """Token of a picture."""
        return self.tokeniser.vocabulary.index(IMAGE)

    @property
    def chunk_token(self) -> int:
        """Token of the end of a chunk."""
        return self.tokeniser.vocabulary.index(CHUNK)

    # -----------------------------------------------------------------------------------------
    # Texts
    # -----------------------------------------------------------------------------------------

    def draw(self, n: int, rng: random.Random) -> list[Talk]:
        """n texts of one random kind, so that they have about as many pictures."""
        kind = rng.choices(list(self.shares), list(self.shares.values()))[0]
        return [self.talk(kind, rng) for _ in range(n)]

    def talk(self, kind: str, rng: random.Random) -> Talk:
        """A text of a kind: names, questions, caption or film.

        Raises:
            ValueError: another kind.
        """
        if kind == "names":
            return self.names(rng)
        if kind == "questions":
            return Talk(kind, (self.questions(rng),))
        if kind == "caption":
            return Talk(kind, tuple(self.caption(rng) for _ in range(rng.randint(1, 2))))
        if kind == "film":
            return Talk(kind, (self.film(rng),))
        raise ValueError(f"there is no kind {kind!r}; names, questions, caption, film")

    def caption(self, rng: random.Random) -> Chunk:
        """Two objects with their places, in the order of the places."""
        scene = _scene(_two(rng), rng)
        return Chunk((scene,), caption_of(scene), caption_of(scene))

    def questions(self, rng: random.Random, num: int | None = None) -> Chunk:
        """One to three questions about one picture, with their answers."""
        alike = rng.random() < 0.4
        things = [rng.randrange(EMPTY)] * rng.randint(1, 4) if alike else _two(rng)
        scene = _scene(things, rng)
        asked = [self.question(scene, rng) for _ in range(num or rng.randint(1, 3))]
        words = " ".join(f"{each.question} {each.answer}" for each in asked)
        return Chunk((scene,), words, asked[-1].answer)

    def question(self, scene: Scene, rng: random.Random) -> Question:
        """A question about a scene, of the kinds `QUESTIONS`; few have the answer "zero".

        Four in five are about what is there, as most questions that could be asked are about
        nothing.
        """
        known = questions(torch.tensor(scene))
        kinds = sorted({each.kind for each in known} & set(QUESTIONS))
        kind = rng.choice(kinds)
        those = [each for each in known if each.kind == kind]
        there = [each for each in those if each.answer not in (NONE, NOTHING)]
        return rng.choice(there if there and rng.random() < 0.8 else those)

    def film(self, rng: random.Random) -> Chunk:
        """An object that moves from one side to the other in four frames, resting once."""
        thing, direction, line = rng.randrange(EMPTY), rng.choice(DIRECTIONS), rng.randrange(SIDE)
        steps = sorted([*range(SIDE), rng.randrange(SIDE)])[:FRAMES]
        steps = steps if direction in ("right", "down") else steps[::-1]
        cells = [
            step + SIDE * line if direction in ("right", "left") else line + SIDE * step
            for step in steps
        ]
        frames = tuple(tuple(thing if k == cell else EMPTY for k in range(CELLS)) for cell in cells)
        return Chunk(frames, f"the {_shape(thing)} moves {direction}", direction)

    def names(self, rng: random.Random, num_names: int | None = None) -> Talk:
        """Objects with names that are drawn for this text, each shown now and then.

        The first chunks show every name once, in any order; the others show any of them. Half of
        the texts are about objects of one shape or of one colour, as far as there are enough: among
        any objects, one word of the two mostly tells which it is, and a model leaves it at that.
        """
        k = num_names or rng.randint(1, self.num_names)
        of_each = OF_EACH_SHAPE if rng.random() < 0.5 else OF_EACH_COLOUR
        enough = [things for things in of_each if len(things) >= k]
        among = rng.choice(enough) if enough and rng.random() < 0.5 else range(EMPTY)
        things, names = rng.sample(among, k), rng.sample(NAMES, k)
        order = rng.sample(range(k), k)
        order += [rng.randrange(k) for _ in range(self.num_chunks - k)]
        chunks = [self._named(things[i], names[i], rng) for i in order[: self.num_chunks]]
        return Talk("names", tuple(chunks), tuple(names))

    def naming(self, num_names: int, rng: random.Random, shots: int = 1) -> Talk:
        """`shots` examples of each of some names in any order, then a picture of one of them."""
        things, names = rng.sample(range(EMPTY), num_names), rng.sample(NAMES, num_names)
        order = [i for _ in range(shots) for i in rng.sample(range(num_names), num_names)]
        order.append(rng.randrange(num_names))
        chunks = [self._named(things[i], names[i], rng) for i in order]
        return Talk("names", tuple(chunks), tuple(names))

    def exchanged(self, talk: Talk, rng: random.Random) -> Talk:
        """A text of names whose examples have each other's pictures, all orders equally likely.

        The best guess is then right once in as many times as there are examples.
        """
        *shots, question = talk.chunks
        pictures = rng.sample([chunk.frames for chunk in shots], len(shots))
        chunks = [replace(c, frames=f) for c, f in zip(shots, pictures, strict=True)]
        return replace(talk, chunks=(*chunks, question))

    def _named(self, thing: int, name: str, rng: random.Random) -> Chunk:
        return Chunk((_scene([thing], rng),), f"this is {name}", name)

    # -----------------------------------------------------------------------------------------
    # Tensors
    # -----------------------------------------------------------------------------------------

    def in_words(self, talk: Talk) -> str:
        """The text with every picture told in words; of names only the object, not its place.

        An object stands right in front of its name: a model learns within minutes to look for what
        followed the same words before, and not in an hour if words lie between (docs/families/
        flamingo.md).
        """
        chunks = []
        for chunk in talk.chunks:
            if talk.kind == "names":
                words = f"this is {_object(chunk.frames[0])} {chunk.answer}"
            else:
                told = " and ".join(caption_of(scene) for scene in _changes(chunk.frames))
                words = f"( {told} ) {chunk.words}"
            chunks.append(f"{IMAGE} {words} {CHUNK}")
        return " ".join(chunks)

    def tokens(self, texts: Sequence[Talk | str], length: int) -> Tensor:
        """Texts as rows int64 (N, length), filled with 0.

        Raises:
            ValueError: a text is longer.
        """
        words = [text if isinstance(text, str) else text.text for text in texts]
        longest = max((len(self.tokeniser.encode(text)) for text in words), default=0)
        if longest > length:
            raise ValueError(f"a text has {longest} words, more than {length}; give it more room")
        return torch.from_numpy(self.tokeniser.rows(words, length))

    def images(self, texts: Sequence[Talk]) -> Tensor:
        """Pictures of texts, float32 (B, N, F, 3, 24, 24) in [0, 1].

        N is the largest number of pictures of a text, F that of the frames of a picture. Where a
        text has fewer there are black ones, and a picture among films stands still.
        """
        num = max((len(text.chunks) for text in texts), default=0)
        frames = max((len(c.frames) for text in texts for c in text.chunks), default=1)
        black = ((EMPTY,) * CELLS,)
        films = [
            (shown * frames)[:frames]
            for text in texts
            for shown in (
                *(chunk.frames for chunk in text.chunks), *[black] * (num - len(text.chunks))
            )
        ]  # fmt: skip
        cells = torch.tensor(films, dtype=torch.int64).view(-1, CELLS)
        pictures = draw(cells)
        return pictures.view(len(texts), num, frames, *pictures.shape[1:])


def caption_of(scene: Scene) -> str:
    """A scene in words, object by object."""
    there = [cell for cell in range(CELLS) if scene[cell] != EMPTY]
    return " and ".join(f"a {OBJECTS[scene[cell]]} {PLACES[cell]}" for cell in there)


def _of_each(word: int) -> list[list[int]]:
    """Objects by their colour, word 0, or their shape, word 1."""
    words = [thing.split()[word] for thing in OBJECTS]
    return [
        [thing for thing in range(EMPTY) if words[thing] == each] for each in dict.fromkeys(words)
    ]


OF_EACH_COLOUR, OF_EACH_SHAPE = _of_each(0), _of_each(1)


def _scene(things: Sequence[int], rng: random.Random) -> Scene:
    cells = [EMPTY] * CELLS
    for cell, thing in zip(rng.sample(range(CELLS), len(things)), things, strict=True):
        cells[cell] = thing
    return tuple(cells)


def _two(rng: random.Random) -> list[int]:
    """Two objects that differ."""
    return rng.sample(range(EMPTY), 2)


def _shape(thing: int) -> str:
    return OBJECTS[thing].split()[1]


def _changes(frames: tuple[Scene, ...]) -> list[Scene]:
    """Frames without repetitions: their first and their last tell where a film leads."""
    return [frames[0]] if len(set(frames)) == 1 else [frames[0], frames[-1]]


def _object(scene: Scene) -> str:
    """The only object of a scene."""
    return next(OBJECTS[thing] for thing in scene if thing != EMPTY)
