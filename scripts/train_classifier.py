"""Train a classifier of images: multilayer perceptron, convolutions or Vision Transformer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from generative.classifier.config import (
    ClassifierLossConfig,
    CNNClassifierConfig,
    MLPClassifierConfig,
    ViTClassifierConfig,
)
from generative.nets.config import vit_block
from generative.training.cli import start
from generative.training.ranges import Checked, Count, CountOrZero, Device, Folder, Seed, Workers
from generative.training.run import Run
from generative.training.settings import to_json
from scripts.common.images import Batches, ImageData, classes_of, load_images

if TYPE_CHECKING:
    from generative.classifier import Classifier
    from generative.data.image_set import ImageSet
    from generative.gan import GAN
    from generative.gan.config import ProjectedCriticConfig
    from generative.nets.projected import ProjectedCritic
    from generative.stylegan import ProGAN
    from generative.translation import Pix2Pix
    from generative.vae_gan import VAEGAN


@dataclass(frozen=True)
class Args(Checked):
    """Train a classifier of images: multilayer perceptron, convolutions or Vision Transformer.

    The result has loss and accuracy on test images; `images` has those of them that the model finds
    least probable as what they are.

    The preset digits takes less than a minute on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/classifier")
    """Run folder; the trained model is in its `model` folder."""
    data: ImageData = "cifar-10"
    """Images to train on, in the shape of the model."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name; sprites and digits need none."""
    factor: tuple[str, ...] = ("class",)
    """Factors to classify, of several each combination: class; for sprites shape, colour, x, y and
    size; for CelebA attributes such as Smiling."""
    network: Literal["mlp", "cnn", "vit"] = "cnn"
    """Network to train, one of the three below."""
    mlp: MLPClassifierConfig = field(default_factory=MLPClassifierConfig)
    cnn: CNNClassifierConfig = field(default_factory=CNNClassifierConfig)
    vit: ViTClassifierConfig = field(default_factory=ViTClassifierConfig)
    loss: ClassifierLossConfig = field(default_factory=ClassifierLossConfig)
    steps: Count = 15_630
    """Optimiser steps (the book: 10 epochs of 1,563)."""
    batch_size: Count = 32
    doublings: CountOrZero = 0
    """Number of times that the batch size doubles, at even distances (Smith et al. 2018, 'Don't
    decay the learning rate')."""
    log_every: Count = 100
    picture_every: Count = 5000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older runs named one factor, and had no Vision Transformer."""
        factor = settings.get("factor")
        settings = {"vit": to_json(ViTClassifierConfig()), **settings}
        return {**settings, "factor": [factor]} if isinstance(factor, str) else settings


DEFAULT_PRESET = "digits"
# Few steps do not bring averages of weight 0.99 to where they belong, so these have 0.9.
DIGITS = CNNClassifierConfig(
    (1, 8, 8), channels=(32, 32, 64), kernels=(3, 3, 3), strides=(1, 2, 1), norm_momentum=0.1
)
SPRITES = CNNClassifierConfig(
    num_classes=4,
    channels=(8, 16, 16),
    kernels=(3, 3, 3),
    strides=(2, 2, 2),
    hidden_dim=32,
    norm_momentum=0.1,
)
FASHION = CNNClassifierConfig(
    (1, 32, 32),
    channels=(32, 64, 128),
    kernels=(3, 3, 3),
    strides=(1, 2, 2),
    hidden_dim=64,
    norm_momentum=0.1,
    dropout=0.0,
)
PRESETS = {
    "book-cnn": Args(),
    "book-mlp": Args(network="mlp"),
    # Ten and twenty filters without any activation: all of it is linear but for the softmax.
    "book-linear-cnn": Args(
        cnn=CNNClassifierConfig(
            channels=(10, 20), kernels=(4, 3), strides=(2, 2), hidden_dim=0, batch_norm=False,
            slope=1.0, dropout=0.0,
        )
    ),
    "digits": Args(
        data="digits",
        cnn=DIGITS,
        loss=ClassifierLossConfig(lr=3e-3, final_lr=3e-5, weight_decay=0.05),
        steps=1500,
        batch_size=64,
        picture_every=500,
    ),
    "fashion": Args(
        data="fashion-mnist",
        cnn=FASHION,
        loss=ClassifierLossConfig(
            optimizer="muon", lr=3e-3, final_lr=1e-5, warmup=50, shift=1, mirror=True
        ),
        steps=8000,
        batch_size=64,
        picture_every=8000,
    ),
    "digits-vit": Args(
        data="digits",
        network="vit",
        vit=ViTClassifierConfig((1, 8, 8), patch=2, num_layers=3, block=vit_block(48, 4, 0.1)),
        loss=ClassifierLossConfig(
            optimizer="muon", lr=3e-3, final_lr=1e-5, weight_decay=0.05, warmup=50, shift=1
        ),
        steps=3000,
        batch_size=64,
        picture_every=1000,
    ),
    "fashion-vit": Args(
        data="fashion-mnist",
        network="vit",
        vit=ViTClassifierConfig((1, 32, 32), block=vit_block(64, 4, 0.1)),
        loss=ClassifierLossConfig(
            lr=1e-3, final_lr=1e-5, weight_decay=0.05, warmup=200, shift=1, mirror=True
        ),
        steps=8000,
        batch_size=64,
        picture_every=8000,
    ),
    "sprites": Args(
        data="sprites",
        factor=("shape",),
        cnn=SPRITES,
        loss=ClassifierLossConfig(lr=3e-3, final_lr=3e-5),
        steps=400,
        batch_size=64,
        picture_every=200,
    ),
    "smoke-vit": Args(
        data="sprites",
        factor=("shape",),
        network="vit",
        vit=ViTClassifierConfig(num_classes=4, patch=8, num_layers=1, block=vit_block(8, 2)),
        steps=20,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
    "smoke": Args(
        data="sprites",
        factor=("shape",),
        cnn=CNNClassifierConfig(num_classes=4, channels=(4, 8), kernels=(3, 3), strides=(2, 2),
                                hidden_dim=16, norm_momentum=0.1),
        steps=20,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained classifier."""
    import torch

    from generative.classifier import ClassifierLearner
    from generative.training.loop import fit

    with Run.open(args, kind="train_classifier") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        config = {"mlp": args.mlp, "cnn": args.cnn, "vit": args.vit}[args.network]
        images = load_images(args.data, args.data_dir, config.image_shape)
        classes = classes_of(images, args.factor, config.num_classes, args.network)
        images = replace(images, factors=classes[:, None], factor_names=("class",))
        # Only the test images are kept from training; no setting is chosen by these images.
        train, test = images.part("train", "val"), images.part("test")
        torch.manual_seed(run.seed_for("weights"))
        model = config.build().to(run.device)
        learner = ClassifierLearner(model, args.loss, args.steps)

        def batch(step: int):
            doubled = step * (args.doublings + 1) // args.steps
            draws = Batches(train, run, args.batch_size * 2**doubled)
            return draws(step), draws.labels(step)[:, 0]

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                run.metrics.log_image(step, "mistakes", mistakes(model, test))

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training the classifier", on_log=show,
        )  # fmt: skip
        model.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **score(model.eval(), test)})
        return run.path / "model"


def mistakes(model: Classifier, test: ImageSet, n: int = 36):
    """Images whose true class has the least probability, of at most 2,000 test images."""
    import torch

    from generative.training.pictures import image_grid

    device = next(model.parameters()).device
    model.eval()
    x = test.as_tensor(slice(2000), device)
    labels = torch.from_numpy(test.factors[:2000, 0]).to(device)
    with torch.no_grad():
        right = torch.cat([model.log_probs(part) for part in x.split(500)])[
            torch.arange(len(x), device=device), labels
        ]
    return image_grid(x[right.argsort()[:n]], scale=max(1, 32 // x.shape[-1]))


def score(model: Classifier, test: ImageSet) -> dict[str, float]:
    """Mean loss and accuracy over the test images, and the share of their largest class."""
    import torch

    device, total = next(model.parameters()).device, {"test_loss": 0.0, "test_accuracy": 0.0}
    for first in range(0, len(test), 500):
        rows = slice(first, first + 500)
        labels = torch.from_numpy(test.factors[rows, 0]).to(device)
        with torch.no_grad():
            losses = model.loss(test.as_tensor(rows, device), labels)
        for name, value in losses._asdict().items():
            total[f"test_{name}"] += float(value) * len(labels) / len(test)
    largest = torch.from_numpy(test.factors[:, 0]).bincount().max()
    return {**total, "largest_class": float(largest) / len(test)}


@dataclass(frozen=True)
class FeatureArgs(Checked):
    """Training of a classifier that is only used for its features."""

    factor: tuple[str, ...] = ("class",)
    """Factors that it names, of several each combination; see train_classifier."""
    loss: ClassifierLossConfig = field(
        default_factory=lambda: ClassifierLossConfig(lr=3e-3, final_lr=3e-5)
    )
    steps: Count = 400
    """Optimiser steps."""
    batch_size: Count = 64


def train_features(
    run: Run, network: CNNClassifierConfig, args: FeatureArgs, flags: str
) -> Classifier:
    """A classifier of the images of a run, trained once; it is kept in `classifier` of the run.

    Args:
        flags: what the flags of the network begin with in the command of the run.
    Raises:
        ValueError: the images have no such factor, or the network too few classes.
    """
    from generative.classifier import Classifier

    given = run.config
    try:
        folder = main(
            Args(
                out=run.path / "classifier",
                data=given.data,
                data_dir=given.data_dir,
                factor=args.factor,
                cnn=network,
                loss=args.loss,
                steps=args.steps,
                batch_size=args.batch_size,
                picture_every=args.steps,
                log_every=min(100, args.steps),
                threads=given.threads,
                device=given.device,
                seed=given.seed,
            )
        )
    except ValueError as error:
        raise ValueError(str(error).replace("--cnn.", f"--{flags}.")) from error
    return Classifier.from_pretrained(folder, run.device)


class Projecting(Checked):
    """Base of the settings of a GAN whose critic may see by the features of a classifier: they have
    a `model`, `features` and a `batch_size`."""

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older runs trained no classifier."""
        return {"features": to_json(FeatureArgs()), **settings}

    def __post_init__(self) -> None:
        super().__post_init__()
        if (projected := projected_of(self)) is not None:
            projected.check_batch(cast("Any", self).batch_size)


def projected_of(args: Any) -> ProjectedCriticConfig | None:
    """The projected critic of settings, if their model has one."""
    return getattr(args.model, "projected", None)


def give_features(model: GAN | Pix2Pix | ProGAN | VAEGAN, run: Run) -> None:
    """Train the classifier that a projected critic looks through, if the model has one."""
    if (projected := projected_of(run.config)) is not None:
        classifier = train_features(
            run, projected.features, run.config.features, "model.projected.features"
        )
        cast("ProjectedCritic", model.critic).network.load_state_dict(classifier.state_dict())


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
