"""Runs a training script in a process that can be killed in the midst of its steps.

Processes are forked from one that has torch loaded already, so a run takes a second.
"""

from __future__ import annotations

import functools
import importlib.util
import multiprocessing
import signal
from pathlib import Path

WATCH = Path(__file__).parents[1] / "reliability" / "crash" / "sitecustomize.py"


@functools.cache
def processes():
    """Where such processes come from; one per test process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.generative.families", "torch.utils.tensorboard", __name__]
    )
    return context


def killable_run(
    script: str, words: list[str], out: Path, log: Path, number: signal.Signals | None = None
) -> int:
    """Exit status of scripts/SCRIPT.py WORDS --out OUT; negative: the signal that ended it.

    Args:
        log: any file that is not in out.
        number: the process gets this signal when it is about to log its first metrics: steps were
            done by then, and others are still to come.
    """
    process = processes().Process(target=_run, args=(script, words, out, log, number))
    process.start()
    process.join()
    return process.exitcode


def _run(script, words, out, log, number) -> None:
    import torch

    from generative.training.cli import parse

    torch.set_num_threads(1)
    if number is not None:
        spec = importlib.util.spec_from_file_location("crash_watch", WATCH)
        assert spec
        assert spec.loader
        crash = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(crash)
        crash.watch(str(out / "metrics.jsonl"), 1, number, log)
    module = importlib.import_module(f"scripts.{script}")
    module.main(parse(module.PRESETS, argv=[*words, "--out", str(out)]))
