"""Print versions, processor, GPU and extras, for the report of a problem."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from generative.training.cli import start
from generative.training.extras import requirements
from generative.training.ranges import Checked


@dataclass(frozen=True)
class Args(Checked):
    """Print versions, processor, GPU and extras, for the report of a problem."""

    json: bool = False
    """As JSON."""


DEFAULT_PRESET = "default"
PRESETS = {"default": Args(), "smoke": Args(json=True)}


def main(args: Args) -> dict[str, Any]:
    """Returns the printed values."""
    found = collect()
    print(json.dumps(found, indent=1) if args.json else describe(found))
    return found


def collect() -> dict[str, Any]:
    """Versions, machine and extras by name."""
    import torch

    from generative.training.precision import default_bf16
    from generative.training.run import collect_versions
    from scripts.__main__ import version

    versions = collect_versions()
    gpu = versions["gpu"]
    return {
        "worldmodels": version(),
        **{name: versions[name] for name in ("python", "system", "cpu", "cores", "torch_threads")},
        "gpu": gpu,
        "cuda": torch.version.cuda,
        "bf16_cpu": default_bf16("cpu"),
        "bf16_gpu": default_bf16("cuda") if gpu else False,
        "packages": versions["packages"],
        "extras": extras(),
    }


def extras() -> dict[str, list[str]]:
    """Packages that are not installed, by the extra that brings them."""
    absent: dict[str, list[str]] = {}
    for name, _, extra in requirements():
        if not extra:
            continue
        missing = absent.setdefault(extra, [])
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    return absent


def describe(found: dict[str, Any]) -> str:
    """The same, in lines."""
    answers = {True: "yes", False: "no instructions for it"}
    brought = {
        name: f"without {', '.join(absent)}" if absent else "complete"
        for name, absent in found["extras"].items()
    }
    lines = {
        "worldmodels": found["worldmodels"],
        "python": f"{found['python']} on {found['system']}",
        "cpu": f"{found['cpu']}, {count('core', found['cores'])}",
        "torch": count("thread", found["torch_threads"]),
        "bfloat16, cpu": answers[found["bf16_cpu"]],
        "gpu": found["gpu"] or "none that torch sees",
        **({"bfloat16, gpu": answers[found["bf16_gpu"]]} if found["gpu"] else {}),
        "packages": ", ".join(f"{name} {number}" for name, number in found["packages"].items()),
        **{f"extra {name}": text for name, text in brought.items()},
    }
    width = max(map(len, lines))
    indent = " " * (width + 2)
    return "\n".join(
        textwrap.fill(f"{name:<{width}}  {text}", 80, subsequent_indent=indent)
        for name, text in lines.items()
    )


def count(what: str, number: int) -> str:
    """Number and noun: "1 core", "2 cores"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
