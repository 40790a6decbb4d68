"""Train pix2pix: images from edges or grey values, or sprites from those of other colours."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from generative.training.cli import start
from generative.training.ranges import Count, Device, Folder, Seed, Workers
from generative.training.run import Run
from generative.translation.config import Pix2PixConfig, Pix2PixLossConfig
from scripts.common.images import Batches, ImageData, load_images
from scripts.train_classifier import FeatureArgs, Projecting, give_features
from scripts.train_conditional_gan import OF_SPRITES, PROJECTED, projected_by
from scripts.train_gan import PAIRS

if TYPE_CHECKING:
    from torch import Tensor

    from generative.data.image_set import ImageSet
    from generative.translation import Pix2Pix

Source = Literal["edges", "grey", "palette"]
CHANNELS = {"edges": 1, "grey": 1, "palette": 3}
"""Channels of each kind of source."""


@dataclass(frozen=True)
class Args(Projecting):
    """Train pix2pix: images from edges or grey values, or sprites from those of other colours.

    The result has the mean absolute difference from test images, `l1`, and of sprites the one
    inside the shape, the share of images that are a sprite at all, and the share that are one of
    the right shape, place and size.

    The preset sprites takes 10 to 30 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/pix2pix")
    """Run folder; the trained networks are in its `model` folder, in `images` are rows of sources,
    of images and of what is made of the sources."""
    data: ImageData = "folder"
    """Images to make, in the shape of the model."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of their name; sprites need none."""
    source: Source = "edges"
    """Source of an image: its edges, its grey values, or of sprites those of other colours."""
    model: Pix2PixConfig = field(default_factory=lambda: Pix2PixConfig(source_channels=1))
    features: FeatureArgs = field(default_factory=FeatureArgs)
    """Training of the classifier of a projected critic, which comes first and is kept in
    `classifier` of the run."""
    loss: Pix2PixLossConfig = field(default_factory=Pix2PixLossConfig)
    steps: Count = 200_000
    """Updates."""
    batch_size: Count = 4
    """Pairs of an update (the publication: 1, with statistics of the batch that is translated)."""
    log_every: Count = 100
    picture_every: Count = 1000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model.source_channels != CHANNELS[self.source]:
            raise ValueError(
                f"source is {self.source!r}, and model.source_channels is "
                f"{self.model.source_channels}; give {CHANNELS[self.source]}"
            )
        if self.source == "palette" and self.data != "sprites":
            raise ValueError(f"source is 'palette' of {self.data}; give --data sprites")


DEFAULT_PRESET = "sprites"
# Features are left out of the lowest block alone, where they tell of the whole image: what the
# edges leave open is one colour for all of it.
SMALL = Pix2PixConfig(
    (3, 32, 32), 1, 16, 5, num_dropout=1, critic_width=16, critic_levels=2, critic_norm="none"
)
# Drawn to the median of the colours by the difference, and away from it by the critic, a small part
# of the first is enough: it holds the shape, which the edges tell anyway.
QUICK = replace(PAIRS, penalty_every=4, penalty_end=0.5)
SPRITES = Args(
    data="sprites",
    model=SMALL,
    loss=Pix2PixLossConfig(QUICK, l1=0.1),
    steps=12_000,
    batch_size=16,
    picture_every=1000,
)
PRESETS = {
    "paper": Args(),
    "paper-grey": Args(source="grey"),
    "sprites": replace(
        SPRITES,
        # A critic of this gain and width tells fringes of shapes and fine patterns from a colour;
        # with a gain of 1 it is guessing.
        model=replace(
            SMALL, num_dropout=0, noise_dim=8,
            projected=projected_by((3, 32, 32), 16, 32, 64, 64),
        ),
        features=OF_SPRITES,
        loss=Pix2PixLossConfig(PROJECTED, l1=0.1),
        steps=5000,
        batch_size=32,
        picture_every=500,
    ),
    "sprites-pairs": SPRITES,
    # Without a critic: the median of all colours, which is none of them.
    "sprites-l1": replace(
        SPRITES,
        loss=Pix2PixLossConfig(replace(QUICK, r1=0.0, r2=0.0), gan_weight=0.0, l1=1.0),
        steps=1000,
    ),
    "sprites-palette": replace(
        SPRITES, source="palette", model=replace(SMALL, source_channels=3),
        loss=Pix2PixLossConfig(QUICK, l1=1.0), steps=600,
    ),
    # Emoji from their edges; more of the difference, as there is more to draw than one colour.
    "emoji": replace(
        SPRITES,
        data="emoji",
        model=replace(SMALL, width=32),
        loss=Pix2PixLossConfig(QUICK, l1=10.0),
        steps=3000,
    ),
    "smoke": Args(
        data="sprites",
        model=Pix2PixConfig(
            (3, 32, 32), 1, 4, 3, num_dropout=1, critic_width=4, critic_levels=2
        ),
        steps=10,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.training.loop import fit
    from generative.training.pictures import strips
    from generative.translation import Pix2PixLearner

    with Run.open(args, kind="train_pix2pix") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        images = load_images(args.data, args.data_dir, args.model.shape)
        train, test = images.part("train"), images.part("test")
        draw = Batches(train, run, args.batch_size)
        torch.manual_seed(run.seed_for("weights"))
        model = args.model.build().to(run.device)
        give_features(model, run)
        learner = Pix2PixLearner(model, args.loss, args.steps)

        def batch(step: int):
            source = source_of(train, draw.rows(step), args.source)
            return source.to(run.device), draw(step)

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                model = learner.kept
                run.metrics.log_image(
                    step, "translations", strips(*draw_rows(model, test, args.source))
                )
                if args.data == "sprites":
                    found = score(model, test, args.source, images)
                    # The logged l1 is that of training.
                    run.metrics.log(step, {name: x for name, x in found.items() if name != "l1"})

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training pix2pix", on_log=show,
        )  # fmt: skip
        model = learner.kept
        model.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **score(model, test, args.source, images)})
        return run.path / "model"


def source_of(images: ImageSet, rows, source: Source) -> Tensor:
    """Sources (B, C', H, W) in [0, 1] of these rows of images."""
    from generative.known.palettes import SECOND, recoloured
    from generative.translation import edges, grey

    if source == "palette":
        return recoloured(images[rows], SECOND).as_tensor()
    return {"edges": edges, "grey": grey}[source](images.as_tensor(rows))


def draw_rows(model: Pix2Pix, test: ImageSet, source: Source, n: int = 10, draws: int = 3):
    """Sources of n test images, the images, and what the model makes of the sources; as colours."""
    import numpy as np
    import torch

    from generative.data.image_set import evenly

    device, rows = next(model.parameters()).device, np.asarray(evenly(len(test), n))
    x = source_of(test, rows, source).to(device)
    generator = torch.Generator(device).manual_seed(0)
    made = [model.translate(x, generator) for _ in range(draws)]
    shown = [x, test.as_tensor(rows, device), *made]
    return [part.expand(-1, 3, -1, -1) for part in shown]


def score(model: Pix2Pix, test: ImageSet, source: Source, known: ImageSet) -> dict[str, float]:
    """Difference from test images; of sprites also how many images are one, and the right one."""
    import numpy as np
    import torch

    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    made = torch.cat([
        model.translate(source_of(test, rows, source).to(device), generator).cpu()
        for rows in np.split(np.arange(len(test)), range(100, len(test), 100))
    ])  # fmt: skip
    difference = (made - test.as_tensor()).abs()
    result = {"l1": float(difference.mean())}
    if known.factor_names[:2] != ("shape", "colour"):
        return result
    from generative.gan import coverage

    inside = torch.from_numpy(test.images.any(-1))
    found = coverage(made, known).index.numpy()
    others = [i for i, name in enumerate(known.factor_names) if name != "colour"]
    right = (known.factors[found][:, others] == test.factors[:, others]).all(1)
    return result | {
        "l1_inside": float(difference.mean(1)[inside].mean()),
        "valid": float((found >= 0).mean()),
        "right": float(((found >= 0) & right).mean()),
    }


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
