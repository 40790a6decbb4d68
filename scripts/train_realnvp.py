"""Train RealNVP, a flow with an exact density, on points in the plane or on handwritten digits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from generative.flow.config import FlowLossConfig, ImageRealNVPConfig, RealNVPConfig
from generative.known.points import PointData, Points
from generative.training.cli import start
from generative.training.ranges import (
    Checked,
    Count,
    CountOrZero,
    Device,
    Ending,
    Folder,
    NonNegative,
    Seed,
    Workers,
)
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.explored.flow import PANELS

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Args(Checked):
    """Train RealNVP, a flow with an exact density.

    On a density whose optimum is known, the result says how far the flow stays above it.

    The preset book takes 10 to 20 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/realnvp")
    """Run folder; the trained flow is in its `model` folder, samples are in `images`."""
    data: PointData | Literal["digits"] = "two-moons"
    """Points, standardised by their exact moments, or scikit-learn's digits."""
    points: CountOrZero = 3000
    """Points drawn once to train on; 0 draws fresh ones for every step. Digits: not used."""
    even: bool = False
    """Spread fresh points evenly, which takes most of the noise from the gradient."""
    model: RealNVPConfig = field(default_factory=RealNVPConfig)
    margin: NonNegative = 0.05
    """Digits: how far the logit keeps away from black and white; see ImageRealNVPConfig."""
    loss: FlowLossConfig = field(default_factory=FlowLossConfig)
    steps: Count = 3600
    """Optimiser steps (the book: 300 epochs of 12)."""
    batch_size: Count = 256
    log_every: Count = 100
    picture_every: Count = 600
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "book"
PRESETS = {
    "book": Args(),
    # What holds the book's flow back: it learns its 3,000 points by heart, its rate never falls,
    # and shifts and scales bend a round cloud into two thin arcs only with difficulty.
    "corrected": Args(
        points=0,
        even=True,
        model=RealNVPConfig(
            coupling="spline",
            num_couplings=4,
            hidden_dim=64,
            num_hidden=2,
            activation="silu",
            bound=5.0,
            num_waves=5,
        ),
        loss=FlowLossConfig(lr=4e-3, final_lr=4e-5, clip=1.0, ema=0.998),
        steps=6000,
        batch_size=1024,
    ),
    "digits": Args(
        data="digits",
        model=RealNVPConfig(
            shape=(1, 8, 8),
            masks=("checkerboard", "rows", "columns"),
            coupling="spline",
            num_couplings=6,
            hidden_dim=128,
            num_hidden=2,
            num_bins=8,
            actnorm=True,
            dropout=0.2,
        ),
        loss=FlowLossConfig(lr=2e-3, final_lr=2e-5, clip=1.0, ema=0.99, weight_decay=1e-2),
        steps=800,
        batch_size=128,
    ),
    "smoke": Args(
        model=RealNVPConfig(num_couplings=2, hidden_dim=16, num_hidden=1),
        points=100,
        steps=20,
        batch_size=16,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained flow."""
    import torch

    from generative.flow import FlowLearner
    from generative.training.loop import fit

    with Run.open(args, kind="train_realnvp") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        task = Digits(run) if args.data == "digits" else Plane(run, args.even, args.points)
        torch.manual_seed(run.seed_for("weights"))
        if isinstance(task, Digits):
            config = ImageRealNVPConfig(args.model, task.levels, args.margin)
            model = config.build().to(run.device)
        else:
            model = args.model.build().to(run.device)
        model.initialise(task.first.to(run.device))
        learner = FlowLearner(model, args.loss, args.steps)

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                run.metrics.log_image(step, "samples", task.picture(learner.kept))

        fit(
            learner, task.batch, run, args.steps,
            log_every=args.log_every, what="training RealNVP", on_log=show,
        )  # fmt: skip
        flow = learner.kept
        flow.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **task.score(flow)})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


class Plane:
    """Points in the plane: batches, pictures, and how far a flow stays above the floor.

    Args:
        run: whose seed, data and batch size are used.
        even: spread the points of a step evenly.
        num_fixed: points drawn once, from which every step takes some; 0 draws fresh ones.
    """

    def __init__(self, run: Run, even: bool, num_fixed: int = 0):
        self.run, self.num_fixed = run, num_fixed
        self.points = Points(run.config.data, run, even)
        self.first = self.points.draw(num_fixed or 3000, "points")

    def batch(self, step: int) -> Tensor:
        """Points of a step, (B, 2)."""
        if not self.num_fixed:
            return self.points(step)
        size = self.run.config.batch_size
        rows = self.run.rng("batch", step).integers(self.num_fixed, size=size)
        return self.first[rows].to(self.run.device)

    def picture(self, flow):
        """Data, their z, normal points, and their decoding."""
        import torch

        from generative.training.pictures import point_clouds

        with torch.no_grad():
            z = torch.randn(len(self.first), 2, generator=torch.Generator().manual_seed(0))
            x = self.first
            back, forth = flow.encode(x.to(self.run.device)), flow.decode(z.to(self.run.device))
        return point_clouds([x, back, z, forth], titles=PANELS)

    def score(self, flow, points_per_std: float = 3.0) -> dict[str, float]:
        """Expected negative log-likelihood, nats, and what of it was avoidable."""
        return self.points.excess(flow.log_prob, points_per_std)


class Digits:
    """scikit-learn's digits: batches, pictures, bits per dimension of those kept for testing."""

    def __init__(self, run: Run):
        from generative.data.digits import load_digits

        self.run, self.args = run, run.config
        digits = load_digits()
        self.levels = digits.levels
        self.images = digits.part("train", "val"), digits.part("test")
        self.train, self.test = (images.as_tensor() for images in self.images)
        self.first = self.train

    def batch(self, step: int):
        """Images of a step, (B, 1, 8, 8)."""
        rows = self.run.rng("batch", step).integers(len(self.train), size=self.args.batch_size)
        return self.train[rows].to(self.run.device)

    def picture(self, flow):
        """A grid of 64 samples."""
        import torch

        from generative.training.pictures import image_grid

        generator = torch.Generator(self.run.device).manual_seed(0)
        return image_grid(flow.sample(64, generator), scale=3)

    def score(self, flow) -> dict[str, float]:
        """Bits per dimension, an upper bound, over the digits seen and those kept for testing."""
        import torch

        from generative.flow import bits_per_dim
        from generative.known.baselines import independent_pixels

        generator = torch.Generator(self.run.device).manual_seed(0)
        parts = (("train", self.train), ("test", self.test))
        found = {
            f"{name}_bits_per_dim": bits_per_dim(flow, x, generator=generator, batch_size=len(x))
            for name, x in parts
        }
        train, test = (images.images for images in self.images)
        return {
            **found,
            "independent_pixels_bits_per_dim": independent_pixels(train, test, self.levels),
        }


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
