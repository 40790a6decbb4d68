"""Talk to a GPT of dialogues: its history is what was said before, as far as its window reaches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from generative.training.cli import Input, start
from generative.training.ranges import Checked, Count, Device, NonNegative, Seed

if TYPE_CHECKING:
    from generative.text.chat import Conversation


@dataclass(frozen=True)
class Args(Checked):
    """Talk to a GPT of dialogues: its history is what was said before.

    Reads a line, answers, and reads the next; a line "/forget" begins anew, "/undo" takes the last
    turn back, and the end of the input ends the conversation.
    """

    folder: Annotated[tyro.conf.Positional[Path], Input("train_gpt.py dialogues")] = Path(
        "runs/gpt-dialogues"
    )
    """Folder of the run."""
    say: tuple[str, ...] = ()
    """Sentences to say, instead of lines that are read."""
    max_answer: Count = 2
    """Most words of an answer; so much of the window is kept free."""
    temperature: NonNegative = 0.0
    """0 takes the most probable words."""
    device: Device = "cpu"
    seed: Seed = 1


DEFAULT_PRESET = "terminal"
PRESETS = {"terminal": Args()}


def main(args: Args) -> list[str]:
    """Returns the answers."""
    import torch

    from generative.loading import load_model, model_folder
    from generative.text.chat import Conversation
    from generative.text.gpt import GPT
    from generative.training.devices import find_device
    from scripts.common.text import vocabulary_of

    folder, device = model_folder(args.folder), find_device(args.device)
    model = load_model(folder, device)
    if not isinstance(model, GPT):
        raise ValueError(
            f"{args.folder} holds a {type(model).__name__}; pass a run of train_gpt.py dialogues"
        )
    talk = Conversation(model, vocabulary_of(folder), args.max_answer)
    generator = torch.Generator(device).manual_seed(args.seed)
    answers = []
    for line in args.say or _lines(sys.stdin):
        if line.startswith("/"):
            print(command(talk, line), flush=True)
            continue
        try:
            reply = talk.say(line, args.temperature, generator)
        except ValueError as error:
            print(f"({error})", flush=True)
            continue
        notes = [f"without the first {reply.cut} turns"] if reply.cut else []
        notes += [f"unknown: {', '.join(reply.unknown)}"] if reply.unknown else []
        notes += [] if reply.whole else ["cut at the longest answer"]
        print(reply.text + (f"   ({'; '.join(notes)})" if notes else ""), flush=True)
        answers.append(reply.text)
    return answers


def command(talk: Conversation, line: str) -> str:
    """Do what a line that begins with "/" asks for; returns what to print."""
    if line == "/forget":
        talk.forget()
        return "(a new conversation)"
    if line == "/undo":
        talk.forget(1)
        return f"({len(talk.turns)} turns)"
    return f"(there is no {line}; /forget begins anew, /undo takes a turn back)"


def _lines(stream: Iterable[str]) -> Iterator[str]:
    for line in stream:
        if line.strip():
            yield line.strip()


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
