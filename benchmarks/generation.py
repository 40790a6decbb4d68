"""Speed-up of text generation by caches of keys, values and states.

    python benchmarks/generation.py [--json FILE] [--threads N]

GPT, T5 and an LSTM write 256 tokens of one text and of four at once: with cached keys, values or
state, and by reading the whole text again for every token, as the book's programs do. Both write
the same tokens. Times are CPU time of this process, all threads together, the best of several
turns.
About two minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from generative.text.config import GPTConfig, RecurrentTextConfig, T5Config, gpt2_block, t5_block
from generative.text.gpt import GPT
from generative.text.recurrent import RecurrentText
from generative.text.t5 import T5
from generative.text.tokens import END, generate

TOKENS = 256
Way = Callable[[torch.Generator], Tensor]


def gpt(rows: int) -> tuple[Way, Way]:
    """Four blocks of width 256."""
    model = GPT(GPTConfig(10_000, TOKENS, 4, gpt2_block(256, 4), tied=True, init="normal")).eval()
    prompt = torch.full((rows, 1), END)

    def write(generator: torch.Generator) -> Tensor:
        return model.generate(prompt[:, :0], TOKENS, generator=generator, ends=False)

    def anew(generator: torch.Generator) -> Tensor:
        def step(new: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
            tokens = new if tokens is None else torch.cat([tokens, new], 1)
            return model.logits(tokens)[:, -1], tokens

        return generate(step, prompt, TOKENS, generator=generator, ends=False)[:, 1:]

    return write, anew


def t5(rows: int) -> tuple[Way, Way]:
    """Four and four blocks of width 256, a source of 64 tokens."""
    model = T5(T5Config(block=t5_block(256, 4))).eval()
    source = torch.arange(2, 66).expand(rows, -1)

    def write(generator: torch.Generator) -> Tensor:
        return model.generate(source, TOKENS, temperature=1.0, generator=generator, ends=False)

    def anew(generator: torch.Generator) -> Tensor:
        memory = model.encode(source)

        def step(new: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
            tokens = new if tokens is None else torch.cat([tokens, new], 1)
            return model.logits(tokens, memory, source)[:, -1], tokens

        start = torch.full((rows, 1), END)
        return generate(step, start, TOKENS, generator=generator, ends=False)[:, 1:]

    return write, anew


def lstm(rows: int) -> tuple[Way, Way]:
    """The book's LSTM: from its state, or from its whole text."""
    model = RecurrentText(RecurrentTextConfig()).eval()
    prompt = torch.full((rows, 1), END)

    def write(generator: torch.Generator) -> Tensor:
        return model.generate(prompt[:, :0], TOKENS, generator=generator, ends=False)

    def anew(generator: torch.Generator) -> Tensor:
        def step(new: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
            tokens = new if tokens is None else torch.cat([tokens, new], 1)
            return model.logits(tokens)[0][:, -1], tokens

        return generate(step, prompt, TOKENS, generator=generator, ends=False)[:, 1:]

    return write, anew


def contest(ways: tuple[Way, Way], turns: int) -> dict[str, float | bool]:
    """CPU seconds of the best turn of both ways, their ratio, and True if both wrote the same."""
    times: list[list[float]] = [[], []]
    texts: list[Tensor] = []
    with torch.no_grad():
        for _ in range(turns):
            texts = []
            for way, spent in zip(ways, times, strict=True):
                began = time.process_time()
                texts.append(way(torch.Generator().manual_seed(0)))
                spent.append(time.process_time() - began)
    kept, anew = map(min, times)
    return {
        "remembering_s": round(kept, 3),
        "reading_anew_s": round(anew, 3),
        "times_as_fast": round(anew / kept, 1),
        "same_tokens": bool(torch.equal(*texts)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--turns", type=int, default=2, help="number of turns; the best counts")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    found = {}
    for make, rows in itertools.product((gpt, t5, lstm), (1, 4)):
        name = f"{make.__name__}, {rows} text{'s' if rows > 1 else ''}"
        found[name] = result = contest(make(rows), args.turns)
        print(
            f"{name:<13} {result['remembering_s']:6.2f} s remembering, "
            f"{result['reading_anew_s']:6.2f} s anew: {result['times_as_fast']} times as fast"
        )
    if args.json:
        report = {
            "cpu_seconds_of_256_tokens": found,
            "threads": args.threads,
            "machine": platform.processor() or platform.machine(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "versions": {name: version(name) for name in ("torch", "numpy")},
        }
        args.json.write_text(json.dumps(report, indent=2) + "\n")
        print(f"\nwritten to {args.json}")


if __name__ == "__main__":
    main()
