"""Train FFJORD, a flow by a differential equation, on points in the plane."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from generative.flow.config import FFJORDConfig, FlowLossConfig
from generative.known.points import PointData
from generative.training.cli import start
from generative.training.ranges import Checked, Count, CountOrZero, Device, Folder, Seed, Workers
from generative.training.run import Run
from scripts.train_realnvp import Plane

MATCHING = FlowLossConfig(lr=4e-3, final_lr=4e-5, clip=1.0, ema=0.998)


@dataclass(frozen=True)
class Args(Checked):
    """Train FFJORD, a flow by a differential equation, on points in the plane.

    The result says how far the flow stays above the best that is possible.

    The preset two-moons takes 2 to 5 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/ffjord")
    """Run folder; the trained flow is in its `model` folder, samples are in `images`."""
    data: PointData = "two-moons"
    """Points, standardised by their exact moments."""
    points: CountOrZero = 0
    """Points drawn once to train on; 0 draws fresh ones for every step."""
    even: bool = True
    """Spread fresh points evenly, which takes most of the noise from the gradient."""
    model: FFJORDConfig = field(
        default_factory=lambda: FFJORDConfig(
            activation="silu", num_waves=4, log_det="steps", jacobian_norm=3e-4
        )
    )
    loss: FlowLossConfig = field(
        default_factory=lambda: FlowLossConfig(lr=2e-4, final_lr=2e-6, clip=1.0, ema=0.98)
    )
    """Training by the likelihood."""
    matching: FlowLossConfig = MATCHING
    """Training by flow matching, before it."""
    steps: Count = 12_300
    """Optimiser steps, those of flow matching included."""
    matching_steps: CountOrZero = 12_000
    """The first steps, at a tenth of the cost: flow matching in place of the likelihood."""
    batch_size: Count = 512
    log_every: Count = 100
    picture_every: Count = 2000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "two-moons"
PRESETS = {
    "two-moons": Args(),
    "eight-gaussians": Args(data="eight-gaussians", steps=4300, matching_steps=4000),
    # Of the paper's toy data: the likelihood alone, by an adaptive solver (torchdiffeq's).
    "paper": Args(
        even=False,
        model=FFJORDConfig(solver="dopri5", tolerance=1e-5),
        loss=FlowLossConfig(lr=1e-3, final_lr=1e-3),
        steps=10_000,
        matching_steps=0,
    ),
    "smoke": Args(
        model=FFJORDConfig(hidden_dim=8, num_hidden=1, num_steps=2, fine_steps=8),
        steps=20,
        matching_steps=10,
        batch_size=16,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained flow."""
    import torch

    from generative.flow import FFJORDLearner
    from generative.training.loop import fit

    with Run.open(args, kind="train_ffjord") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        task = Plane(run, args.even, args.points)
        torch.manual_seed(run.seed_for("weights"))
        model = args.model.build().to(run.device)
        learner = FFJORDLearner(model, args.loss, args.steps, args.matching, args.matching_steps)

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                run.metrics.log_image(step, "samples", task.picture(learner.kept))

        fit(
            learner, task.batch, run, args.steps,
            log_every=args.log_every, what="training FFJORD", on_log=show,
        )  # fmt: skip
        flow = learner.kept
        flow.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **task.score(flow, points_per_std=2.0)})
        return run.path / "model"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
