"""Train flow matching or MeanFlow, of points whose density is known or of images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args

from generative.flow_matching.config import (
    FlowMatchingLossConfig,
    ImageFlowMatchingConfig,
    ImageMeanFlowConfig,
    MeanFlowLossConfig,
    PointFlowMatchingConfig,
    PointMeanFlowConfig,
)
from generative.known.points import PointData, Points
from generative.nets.config import ConditionedMLPConfig, UNetConfig
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Ending, Folder, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run
from generative.training.words import made_by
from scripts.common.images import Batches, ImageData, load_images

if TYPE_CHECKING:
    from generative.flow_matching import FlowMatching

FLOWS = (PointFlowMatchingConfig, ImageFlowMatchingConfig)


@dataclass(frozen=True)
class Args(Checked):
    """Train flow matching or MeanFlow, of points whose density is known or of images.

    The result says how far the velocity is above the least loss there is, and how far samples in
    one and in 50 steps are from the data.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/flow_matching")
    """Run folder; the trained model is in its `model` folder, samples are in `images`."""
    data: ImageData | PointData = "two-moons"
    """Points, standardised by their exact moments; or images, in the shape of the model."""
    data_dir: Path = Path("data")
    """Folder of the image files, or of a subfolder of the data's name."""
    max_images: Count | None = None
    """At most this many images, at even distances; all of them if not given."""
    model: (
        PointFlowMatchingConfig
        | PointMeanFlowConfig
        | ImageFlowMatchingConfig
        | ImageMeanFlowConfig
    ) = field(default_factory=PointFlowMatchingConfig)
    """The model: flow matching or MeanFlow, of points or of images."""
    loss: FlowMatchingLossConfig | MeanFlowLossConfig = field(
        default_factory=FlowMatchingLossConfig
    )
    """Loss of the model's kind."""
    teacher: Path | None = None
    """Folder of a trained flow, or of its run, whose pairs of noise and data are learned in the
    place of independent ones (reflow; Liu et al. 2023). Training goes on from its weights."""
    steps: Count = 6000
    """Optimiser steps."""
    batch_size: Count = 512
    samples: Count = 1000
    """Points: samples whose distance from fresh points is measured."""
    log_every: Count = 50
    picture_every: Count = 2000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        flows, points = isinstance(self.model, FLOWS), hasattr(self.model, "dim")
        if flows != isinstance(self.loss, FlowMatchingLossConfig):
            raise ValueError(
                f"model is a {type(self.model).__name__} and loss a {type(self.loss).__name__}; "
                "give both of flow matching or both of MeanFlow"
            )
        if points != (self.data in get_args(PointData)):
            raise ValueError(
                f"data is {self.data!r} and model a {type(self.model).__name__}; points need a "
                "model of points, images one of images"
            )
        if self.teacher is not None and not flows:
            raise ValueError("a teacher's pairs are for flow matching; leave teacher out")

    @property
    def is_flow(self) -> bool:
        """True for flow matching, False for MeanFlow."""
        return isinstance(self.model, FLOWS)


DEFAULT_PRESET = "two-moons"
MOONS = Args()
# Gaussians that are narrow beside their distances: waves to see them by.
RING = replace(
    MOONS,
    data="ring",
    model=PointFlowMatchingConfig(network=ConditionedMLPConfig(num_waves=6)),
    loss=FlowMatchingLossConfig(lr=5e-3),
)
MEAN = replace(MOONS, model=PointMeanFlowConfig(), loss=MeanFlowLossConfig(), steps=12_000)
SPRITES = UNetConfig((16, 32, 64), attention=(2,))
DIGITS = UNetConfig((32, 64), attention=(1,))
PRESETS = {
    "two-moons": MOONS,
    "eight-gaussians": replace(MOONS, data="eight-gaussians"),
    "ring": RING,
    "two-moons-optimal": replace(
        MOONS, loss=FlowMatchingLossConfig(pairing="optimal"), batch_size=256
    ),
    "reflow": replace(
        MOONS, out=Path("runs/reflow"), teacher=Path("runs/flow_matching"), steps=2000,
        batch_size=256,
    ),
    "mean-flow": replace(MEAN, out=Path("runs/mean_flow")),
    "mean-flow-eight-gaussians": replace(
        MEAN, out=Path("runs/mean_flow"), data="eight-gaussians"
    ),
    "sprites": Args(
        data="sprites",
        model=ImageFlowMatchingConfig(network=SPRITES),
        steps=3000, batch_size=32, picture_every=600,
    ),
    "fashion": Args(
        data="fashion-mnist",
        model=ImageFlowMatchingConfig((1, 32, 32), SPRITES),
        steps=3000, batch_size=32, picture_every=600,
    ),
    "digits": Args(
        data="digits",
        model=ImageFlowMatchingConfig((1, 8, 8), DIGITS),
        steps=1500, batch_size=64, picture_every=500,
    ),
    "mean-flow-digits": Args(
        out=Path("runs/mean_flow"),
        data="digits",
        model=ImageMeanFlowConfig((1, 8, 8), replace(DIGITS, max_frequency=8.0)),
        loss=MeanFlowLossConfig(
            times="logit-normal", tangent="line", power=1.0, instant=0.75
        ),
        steps=3000, batch_size=64, picture_every=500,
    ),
    "smoke": Args(
        data="eight-gaussians",
        model=PointFlowMatchingConfig(
            network=ConditionedMLPConfig(hidden_dim=8, num_hidden=1, embedding_dim=4),
            steps=2, ode_steps=4,
        ),
        steps=20, batch_size=16, samples=50, log_every=5, picture_every=10,
    ),
    "mean-flow-smoke": Args(
        data="eight-gaussians",
        model=PointMeanFlowConfig(
            network=ConditionedMLPConfig(hidden_dim=8, num_hidden=1, embedding_dim=4)
        ),
        loss=MeanFlowLossConfig(),
        steps=20, batch_size=16, samples=50, log_every=5, picture_every=10,
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.flow_matching import FlowMatchingLearner, MeanFlowLearner
    from generative.training.loop import fit

    teacher = load_teacher(args) if args.teacher is not None else None
    with Run.open(args, kind="train_flow_matching") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        task = Plane(run) if args.data in get_args(PointData) else Images(run)
        torch.manual_seed(run.seed_for("weights"))
        model, batch = args.model.build().to(run.device), task.batch
        if teacher is not None:
            teacher.to(run.device)
            model.load_state_dict(teacher.state_dict())
            batch = Reflow(teacher, run)
        kind: Any = FlowMatchingLearner if args.is_flow else MeanFlowLearner
        learner = kind(model, args.loss, args.steps)

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                run.metrics.log_image(step, "samples", task.picture(learner.kept))

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training the velocity", on_log=show,
        )  # fmt: skip
        kept = learner.kept
        kept.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **task.score(kept)})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def load_teacher(args: Args) -> FlowMatching:
    """The flow whose pairs are learned, on the CPU.

    Raises:
        FileNotFoundError, DamagedFileError: there is none; says what makes one.
        ValueError: it is of another kind or of other sizes than the model.
    """
    from generative.flow_matching import FlowMatching
    from generative.loading import load_model

    assert args.teacher is not None
    teacher = load_model(args.teacher, advice=made_by("--teacher", "train_flow_matching"))
    if not isinstance(teacher, FlowMatching) or teacher.config.network != args.model.network:
        raise ValueError(
            f"{args.teacher} holds a {teacher.saved_name} of other sizes or of another kind; pass "
            "the run of a flow with the network of --model"
        )
    return teacher


class Reflow:
    """Pairs of a teacher for each step, from the run's seed and the step alone."""

    def __init__(self, teacher: FlowMatching, run: Run):
        self.teacher, self.run = teacher, run

    def __call__(self, step: int):
        """Noise and the data that it flows to, (batch_size, *shape) each."""
        import torch

        seed = self.run.seed_for("pairs", step)
        generator = torch.Generator(self.run.device).manual_seed(seed)
        return self.teacher.pairs(self.run.config.batch_size, generator)


class Plane:
    """Points in the plane: batches, pictures, and how far the model is from the best."""

    def __init__(self, run: Run):
        self.run, self.args = run, run.config
        self.batch = Points(self.args.data, run, even=True)

    def picture(self, model):
        """Data beside samples."""
        import torch

        from generative.training.pictures import point_clouds

        data = self.batch.draw(3000, "points", even=True)
        generator = torch.Generator(self.run.device).manual_seed(0)
        return point_clouds([data, model.sample(3000, generator)])

    def score(self, model) -> dict[str, float]:
        """Distances of samples from fresh points; for mixtures the loss beside its floor, and for
        flow matching the expected negative log-likelihood beside the entropy, in nats."""
        import torch

        from generative.flow_matching import matching_loss, mean_flow_error
        from generative.known.densities import Boxes
        from generative.known.two_samples import wasserstein

        density, n = self.batch.density, self.args.samples
        fresh, other = (self.batch.draw(n, "fresh", i) for i in range(2))
        found = {"wasserstein_of_data": wasserstein(fresh, other)}
        for steps in (1, 50):
            generator = torch.Generator(self.run.device).manual_seed(self.run.seed_for("samples"))
            made = model.sample(n, generator, steps).cpu()
            found[f"wasserstein_{steps}_steps"] = wasserstein(made, fresh)
        flow = model if self.args.is_flow else model.flow()
        if self.args.is_flow:
            found |= self.batch.excess(model.log_prob, points_per_std=1.0)
        if isinstance(density.density, Boxes):
            return found
        # Pairs of a teacher have another floor than independent ones.
        if self.args.teacher is None:
            loss = matching_loss(flow, density)
            found |= {
                "matching_loss": loss.loss, "matching_floor": loss.floor,
                "matching_excess": loss.excess,
            }  # fmt: skip
        if not self.args.is_flow:
            mean = mean_flow_error(model, density)
            found |= {"mean_flow_error": mean.error, "mean_flow_size": mean.size}
        return found


class Images:
    """Images: batches, pictures, and the loss on images kept for testing."""

    def __init__(self, run: Run):
        self.run, self.args = run, run.config
        shape = self.args.model.image_shape
        images = load_images(
            self.args.data, self.args.data_dir, shape, max_images=self.args.max_images
        )
        self.train, self.test = images.part("train"), images.part("test")
        self.batch = Batches(self.train, run, self.args.batch_size)

    def picture(self, model):
        """Samples; always of the same noise."""
        import torch

        from generative.training.pictures import image_grid

        generator = torch.Generator(self.run.device).manual_seed(0)
        side = self.args.model.image_shape[1]
        return image_grid(model.sample(36, generator), scale=max(1, 64 // side))

    def score(self, model) -> dict[str, float]:
        """Squared error of the velocity in test images, times uniform."""
        import torch

        from generative.flow_matching import FlowMatchingLossConfig

        flow = model if self.args.is_flow else model.flow()
        device, total = self.run.device, 0.0
        generator = torch.Generator(device).manual_seed(0)
        count = min(len(self.test), 2000)
        for begin in range(0, count, 100):
            x = self.test.as_tensor(slice(begin, min(begin + 100, count)), device)
            with torch.no_grad():
                loss = flow.loss(x, FlowMatchingLossConfig(), generator).loss
            total += float(loss) * len(x) / count
        return {"test_velocity_mse": total}


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
