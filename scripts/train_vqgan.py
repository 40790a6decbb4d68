"""Train a VQ-GAN or ViT VQ-GAN: a VQ-VAE that a critic of patches keeps sharp."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from generative.classifier.config import CNNClassifierConfig
from generative.codes.config import (
    FSQConfig,
    PatchCriticConfig,
    QuantiserConfig,
    ViTVQGANConfig,
    VQGANConfig,
    VQGANLossConfig,
    VQVAEConfig,
)
from generative.nets.config import vit_block
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Ending, Folder, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run
from generative.training.streams import tell
from scripts import train_classifier
from scripts.common.codes import collapse, reconstruction_scores
from scripts.common.images import Batches, ImageData, load_images
from scripts.train_classifier import FeatureArgs, train_features

if TYPE_CHECKING:
    from generative.nets.perceptual import PerceptualDistance


@dataclass(frozen=True)
class Args(Checked):
    """Train a VQ-GAN or ViT VQ-GAN: a VQ-VAE that a critic of patches keeps sharp.

    First it trains a classifier on the same images, whose features tell how different two images
    look. What draws grids of codes is trained next, by train_code_prior. The result has errors of
    images that were kept for testing, and how many codes they take.

    The preset sprites takes 3 to 10 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/vqgan")
    """Run folder; the trained model is in its `model` folder, reconstructions are in `images`."""
    data: ImageData = "celeba"
    """Images to train on, in the shape of the model."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of their name; scenes, sprites, digits need none."""
    max_images: Count | None = None
    """Use at most so many of the images."""
    model: VQGANConfig | ViTVQGANConfig | VQVAEConfig = field(default_factory=VQGANConfig)
    """Residual convolutions with attention, Transformers on patches, or plain convolutions."""
    loss: VQGANLossConfig = field(default_factory=VQGANLossConfig)
    factor: str = "class"
    """Factor that the classifier names: class, of sprites shape, of CelebA an attribute."""
    classifier: CNNClassifierConfig = field(default_factory=CNNClassifierConfig)
    classifier_steps: Count = 400
    """Optimiser steps of the classifier."""
    steps: Count = 100_000
    """Optimiser steps."""
    batch_size: Count = 32
    log_every: Count = 50
    picture_every: Count = 1000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model.critic is None:
            raise ValueError(
                "the model has no critic; give it a PatchCriticConfig, or train it by train_vqvae"
            )


# Hinge loss without penalties, batch norm, all terms as published; only the ratio of gradients is
# held, and the critic trained from the first step.
PUBLISHED = VQGANLossConfig(
    objective="hinge", r1=0.0, r2=0.0, lr=2e-4, critic_lr=2e-4, lr_end=1.0, beta2=0.9
)
# The same of a ViT VQ-GAN, whose weights of the terms are fixed.
PUBLISHED_VIT = replace(
    PUBLISHED, recon="l2", perceptual=0.1, adversarial=0.1, adaptive=False, lr=1e-4, critic_lr=1e-4,
    beta1=0.9, beta2=0.99, weight_decay=1e-4,
)  # fmt: skip
FACES = CNNClassifierConfig(
    (3, 64, 64), 2, (16, 32, 64, 64), strides=(2, 2, 2, 2), hidden_dim=64, norm_momentum=0.1
)
FLOWERS = CNNClassifierConfig(
    (3, 256, 256), 102, (32, 64, 128, 256, 256), (3,) * 5, (2,) * 5, 256, norm_momentum=0.1
)
SHAPES = train_classifier.SPRITES
# A code for each patch of 4x4 pixels: all sprites together have 859 different ones.
CODED = VQVAEConfig(
    (3, 32, 32), (64, 128), 32, 2, QuantiserConfig(1024, 32), overlap=False,
    critic=PatchCriticConfig(8),
)  # fmt: skip
SPRITES = Args(
    data="sprites",
    model=CODED,
    # An absolute error stays for long at the median, which is black where images mostly are; and
    # the critic's term at its usual weight undoes what a few hundred steps have learned.
    loss=VQGANLossConfig("l2", perceptual=0.1, adversarial=0.05, lr=2e-3, critic_lr=2e-3),
    factor="shape",
    classifier=SHAPES,
    classifier_steps=200,
    steps=3000,
    batch_size=16,
    picture_every=300,
)
PLAIN = replace(SPRITES.loss, perceptual=0.0, adversarial=0.0)
SPRITES_VIT = replace(
    SPRITES, model=ViTVQGANConfig(patch=4, quantiser=QuantiserConfig(1024, 32, "cosine"))
)
SMOKE = Args(
    data="sprites",
    model=ViTVQGANConfig(
        num_layers=1, block=vit_block(8, 2), quantiser=QuantiserConfig(8, 4, "cosine"),
        critic=PatchCriticConfig(4),
    ),
    factor="shape",
    classifier=CNNClassifierConfig(
        num_classes=4, channels=(4, 8), kernels=(3, 3), strides=(2, 2), hidden_dim=16,
        norm_momentum=0.1,
    ),
    classifier_steps=5,
    steps=10,
    batch_size=8,
    log_every=5,
    picture_every=10,
)  # fmt: skip
DEFAULT_PRESET = "sprites"
PRESETS = {
    # Esser et al.'s networks of 256x256 with 16x16 codes of 1,024, 72 million parameters; here of
    # flowers, by whose classes the features are learned.
    "paper": Args(
        data="flowers",
        model=VQGANConfig(
            (3, 256, 256), 128, (1, 1, 2, 2, 4), 2, (4,),
            QuantiserConfig(1024, 256, learning="loss"), PatchCriticConfig(64, 3, "batch"),
        ),
        loss=replace(PUBLISHED, lr=5.4e-5, critic_lr=5.4e-5),
        classifier=FLOWERS,
        classifier_steps=10_000,
        steps=1_000_000,
        batch_size=12,
    ),
    # Yu et al.'s base size: 32x32 codes of 8,192. Their critic is StyleGAN2's.
    "paper-vit": Args(
        data="flowers",
        model=ViTVQGANConfig(
            (3, 256, 256), 8, 12, vit_block(768, 12),
            QuantiserConfig(8192, 32, "cosine", learning="loss"),
            PatchCriticConfig(64, 3, "batch"),
        ),
        loss=PUBLISHED_VIT,
        classifier=FLOWERS,
        classifier_steps=10_000,
        steps=500_000,
        batch_size=256,
    ),
    # Smaller than published, for images of 64x64: 6,770,368 and 9,691,267 parameters with the two
    # 1x1 convolutions beside the quantiser.
    "celeba": Args(
        model=VQGANConfig(
            (3, 64, 64), 64, (1, 2, 4), 2, (2,), QuantiserConfig(1024, 256, learning="loss"),
            PatchCriticConfig(64, 2, "batch"),
        ),
        loss=PUBLISHED,
        factor="Smiling",
        classifier=FACES,
        classifier_steps=4000,
    ),
    # The same of a ViT VQ-GAN: 4,813,088 and 4,813,248 parameters.
    "celeba-vit": Args(
        model=ViTVQGANConfig(
            (3, 64, 64), 8, 6, vit_block(256, 4),
            QuantiserConfig(1024, 32, "cosine", learning="loss"),
            PatchCriticConfig(64, 2, "batch"),
        ),
        loss=PUBLISHED_VIT,
        factor="Smiling",
        classifier=FACES,
        classifier_steps=4000,
        steps=50_000,
        batch_size=64,
    ),
    "sprites": SPRITES,
    # The same autoencoder with the loss of a VQ-VAE, to see what the critic adds.
    "sprites-plain": replace(SPRITES, loss=PLAIN),
    # 1,000 codes, which are numbers that are rounded and not a list (Mentzer et al. 2024).
    "sprites-fsq": replace(SPRITES, model=replace(CODED, quantiser=FSQConfig((8, 5, 5, 5)))),
    "sprites-resnet": replace(SPRITES, model=VQGANConfig()),
    "sprites-vit": SPRITES_VIT,
    "sprites-vit-plain": replace(SPRITES_VIT, loss=PLAIN),
    "fashion": Args(
        data="fashion-mnist",
        model=VQVAEConfig(critic=PatchCriticConfig(8)),
        loss=replace(SPRITES.loss, adversarial=0.1),
        classifier=replace(SHAPES, image_shape=(1, 32, 32), num_classes=10),
        steps=2000,
        batch_size=16,
    ),
    # Emoji have no classes from which features could be learned.
    "emoji": replace(
        SPRITES,
        data="emoji",
        model=VQVAEConfig(
            (3, 32, 32), (64, 128), 32, 2, QuantiserConfig(512, 32), critic=PatchCriticConfig(8)
        ),
        loss=replace(SPRITES.loss, perceptual=0.0),
    ),
    # A code of 256 for each patch of 4x4.
    "fashion-vit": Args(
        data="fashion-mnist",
        model=ViTVQGANConfig(
            (1, 32, 32), 4, quantiser=QuantiserConfig(256, 32, "cosine"),
            critic=PatchCriticConfig(8),
        ),
        loss=replace(SPRITES.loss, adversarial=0.1),
        classifier=replace(SHAPES, image_shape=(1, 32, 32), num_classes=10),
        steps=2000,
        batch_size=16,
    ),
    "smoke": SMOKE,
    # The other networks: plain convolutions, and residual blocks with attention.
    "smoke-conv": replace(
        SMOKE,
        model=VQVAEConfig(
            (3, 32, 32), (4, 8), 4, 1, QuantiserConfig(8, 4), critic=PatchCriticConfig(4)
        ),
    ),
    "smoke-resnet": replace(
        SMOKE,
        model=VQGANConfig((3, 32, 32), 4, (1, 2), 1, (1,), QuantiserConfig(8, 4),
                          PatchCriticConfig(4)),
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.codes import VQGANLearner
    from generative.training.loop import fit
    from generative.training.pictures import strips

    with Run.open(args, kind="train_vqgan") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        images = load_images(
            args.data, args.data_dir, args.model.image_shape, max_images=args.max_images
        )
        test = images.part("test")
        distance = perceptual_distance(run) if args.loss.perceptual else None
        torch.manual_seed(run.seed_for("weights"))
        model = args.model.build().to(run.device)
        learner = VQGANLearner(model, args.loss, args.steps, distance)

        @torch.no_grad()
        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                x = test.thin(10).as_tensor(device=run.device)
                scale = max(1, 64 // args.model.image_shape[1])
                rows = strips(x, model.eval().reconstruct(x), scale=scale)
                run.metrics.log_image(step, "reconstructions", rows)
                model.train()

        batch = Batches(images.part("train"), run, args.batch_size)
        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training the VQ-GAN", on_log=show,
        )  # fmt: skip
        model.save_pretrained(run.path / "model")
        found = reconstruction_scores(model.eval(), test, args.data)
        run.finish({**run.metrics.last(), **{f"test_{name}": x for name, x in found.items()}})
        if args.report is not None:
            add_to_report(args.report, run)
        if said := collapse(model, int(found["codes_used"])):
            tell(said)
        return run.path / "model"


def perceptual_distance(run: Run) -> PerceptualDistance:
    """By a classifier of the same images, trained once; it is kept in `classifier` of the run."""
    from generative.nets.perceptual import PerceptualDistance

    args = run.config
    features = FeatureArgs((args.factor,), steps=args.classifier_steps)
    return PerceptualDistance(train_features(run, args.classifier, features, "classifier"))


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
