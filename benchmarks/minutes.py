"""CPU time of the default preset of every training command that needs nothing trained before.

    OMP_NUM_THREADS=1 python benchmarks/minutes.py [--json FILE] [--only VERB ...] [--limit SECONDS]

Each command runs in a process and with one thread, in a folder that is deleted afterwards. A
command that would take longer than the limit is stopped after 20 CPU-seconds. Its time is then that
of the steps it took, scaled to all of them, without the scores at its end. About an hour of CPU
time with the default limit.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import signal
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

VERBS = (
    "train_autoencoder", "train_image_vae", "train_gan", "train_wgan", "train_conditional_gan",
    "train_realnvp", "train_glow", "train_ffjord", "train_pixelcnn", "train_energy", "train_rbm",
    "train_score", "train_diffusion", "train_classifier", "train_recurrent_text", "train_gpt",
    "train_bert", "train_t5", "train_rlhf", "train_music_rnn", "train_music_transformer",
    "train_musegan",
)  # fmt: skip
TRIAL = 20.0
"""CPU seconds after which a command is stopped if it would exceed the limit."""


def run_verb(verb: str, folder: str, limit: float, answers: Any) -> None:
    """Run a command in this process; put its record on the queue `answers`."""
    import importlib

    from generative.training.cli import parse

    os.chdir(folder)
    script = importlib.import_module(f"scripts.{verb}")
    args = parse(script.PRESETS, getattr(script, "DEFAULT_PRESET", None), argv=[])
    watch = Watch(Path(args.out) / "metrics.jsonl", args.steps, limit)
    watch.start()
    try:
        script.main(args)
    except SystemExit:
        if watch.estimate is None:
            raise
    spent = time.process_time()
    scaled = watch.estimate is not None
    answers.put(
        {
            "preset": script.DEFAULT_PRESET,
            "steps": args.steps,
            "cpu_seconds": round(watch.estimate if scaled else spent, 1),
            "scaled_from_steps": watch.step if scaled else None,
        }
    )


class Watch(threading.Thread):
    """Stops this process by SIGTERM if its run would take more CPU time than the limit."""

    def __init__(self, metrics: Path, steps: int, limit: float):
        super().__init__(daemon=True)
        self.metrics, self.steps, self.limit = metrics, steps, limit
        self.estimate: float | None = None
        self.step = 0

    def run(self) -> None:
        first: tuple[int, float] | None = None
        while True:
            time.sleep(0.5)
            step, spent = self._last_step(), time.process_time()
            if step == self.step:
                continue
            self.step = step
            if first is None:
                first = step, spent
                continue
            rate = (spent - first[1]) / (step - first[0])
            estimate = spent + rate * (self.steps - step)
            if spent >= TRIAL:
                if estimate > self.limit:
                    self.estimate = estimate
                    os.kill(os.getpid(), signal.SIGTERM)
                return

    def _last_step(self) -> int:
        try:
            return json.loads(self.metrics.read_text().splitlines()[-1])["step"]
        except (FileNotFoundError, IndexError, json.JSONDecodeError):
            return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--only", nargs="+", default=VERBS, choices=VERBS, metavar="VERB")
    parser.add_argument("--limit", type=float, default=600.0, help="CPU seconds of one command")
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("set OMP_NUM_THREADS=1: the times are those of one thread")
    found = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    records = found.get("commands", {})
    spawn = multiprocessing.get_context("spawn")
    for verb in args.only:
        with tempfile.TemporaryDirectory() as folder:
            answers = spawn.Queue()
            process = spawn.Process(target=run_verb, args=(verb, folder, args.limit, answers))
            process.start()
            process.join()
            if process.exitcode or answers.empty():
                raise SystemExit(f"{verb} failed, see above")
            records[verb] = record = answers.get()
        print(f"{verb:<24} {record['cpu_seconds']:7.1f} s", flush=True)
        if args.json:
            from generative.training.run import collect_versions

            report = {
                "what": "CPU seconds of each command's default preset with one thread",
                "command": "OMP_NUM_THREADS=1 python benchmarks/minutes.py",
                "commands": {name: records[name] for name in VERBS if name in records},
                "cpu": collect_versions()["cpu"],
                "versions": {"python": platform.python_version(), "torch": version("torch")},
            }
            args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
