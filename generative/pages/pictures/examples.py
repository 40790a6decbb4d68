"""Prompts that a page offers: those whose words the model knows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from generative.data.text import split_words

__all__ = ["example_prompts"]

SCENES = (
    "a red square", "a blue disc in the middle", "a red square left of a blue disc",
    "three red discs", "a green cross and a white disc", "a violet triangle at the top right",
    "a yellow disc below a red cross", "two blue squares",
)  # fmt: skip
# Those that `pretrained/emoji` draws so that they can be named.
EMOJI = (
    "red heart", "cat face", "rocket", "panda", "red apple", "rainbow", "soccer ball",
    "grinning face", "green heart", "umbrella",
)  # fmt: skip
CLOTHES = ("an ankle boot", "a dress", "a bag", "a shirt", "trousers", "a sandal")
NUM = 8
"""Most prompts that are offered."""


def example_prompts(words: Sequence[str]) -> list[str]:
    """Prompts of these words: of scenes, of emoji or of clothes, or single words if of none.

    Args:
        words: of a model, the most frequent first.
    """
    known = frozenset(words)
    fitting = max((_known(prompts, known) for prompts in (SCENES, EMOJI, CLOTHES)), key=len)
    return (fitting or list(words))[:NUM]


def _known(prompts: Sequence[str], words: Collection[str]) -> list[str]:
    return [prompt for prompt in prompts if all(word in words for word in split_words(prompt))]
