"""Train a prior of the codes of a VQ-VAE or VQ-GAN, which draws new images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from generative.codes.config import (
    CodeTransformerConfig,
    PriorConfig,
    PriorLossConfig,
)
from generative.nets.config import gpt2_block
from generative.pixelcnn.config import GatedConfig, PlainConfig
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Ending, Folder, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run
from generative.training.words import made_by
from scripts.common.codes import all_codes, entropy_of, sample_scores
from scripts.common.images import ImageData, classes_of, load_images

if TYPE_CHECKING:
    from torch import Tensor

    from generative.codes import VQVAE, GPTPrior, PixelCNNPrior


@dataclass(frozen=True)
class Args(Checked):
    """Train a prior of the codes of a VQ-VAE or VQ-GAN, which draws new images.

    The result has the nats of the codes of images that were kept for testing, and where all images
    are known their floor and the share of samples that are such images, beside that of codes that
    are chosen evenly.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/code_prior")
    """Run folder; the trained prior is in its `model` folder, the model whose codes it draws in
    `autoencoder`, samples are in `images`."""
    codes: Path = Path("runs/vqvae")
    """Run of train_vqvae or train_vqgan whose codes to learn, on its data."""
    data: ImageData | Literal[""] = ""
    """Images to encode; those of that run, if not given."""
    data_dir: Path | None = None
    """Folder of their files; if not given, as in that run's settings."""
    network: GatedConfig | PlainConfig | CodeTransformerConfig = field(
        default_factory=lambda: GatedConfig(hidden_dim=64, num_layers=5, embed_dim=32)
    )
    """Network of the prior: of a PixelCNN, gated or plain, or a Transformer."""
    label: tuple[str, ...] = ()
    """Names of the factors that give the classes of a network with num_classes."""
    loss: PriorLossConfig = field(default_factory=PriorLossConfig)
    steps: Count = 2000
    """Optimiser steps."""
    batch_size: Count = 64
    log_every: Count = 100
    picture_every: Count = 1000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    num_samples: Count = 64
    """Images in a picture."""
    score_samples: Count = 2000
    """Samples that are compared with the images, where all of these are known."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.label) != bool(self.num_classes):
            raise ValueError(
                f"label is {self.label} and num_classes {self.num_classes}; classes need the names "
                "of what gives them, and these a network with num_classes"
            )

    @property
    def num_classes(self) -> int:
        """Classes that the network is told; 0 for none."""
        return 0 if isinstance(self.network, PlainConfig) else self.network.num_classes


DEFAULT_PRESET = "scenes"
PAPER = Args(
    network=CodeTransformerConfig(24, gpt2_block(1664, 16)),
    codes=Path("runs/vqgan"),
    loss=PriorLossConfig(lr=5.4e-5, final_lr=5.4e-5, weight_decay=0.01),
    steps=500_000,
    batch_size=12,
    picture_every=10_000,
)
# Of 8x8 codes, after `train_vqgan`.
GPT = Args(
    network=CodeTransformerConfig(block=gpt2_block(64, 2, dropout=0.1)),
    codes=Path("runs/vqgan"),
    loss=PriorLossConfig(optimizer="muon", lr=4e-3),
    steps=6000,
    batch_size=32,
    picture_every=500,
)
PRESETS = {
    # Esser et al.'s of faces, 801 million parameters, after `train_vqgan paper`.
    "paper": PAPER,
    # Yu et al.'s, after `train_vqgan paper-vit`; they state 650 million and 1.7 billion parameters,
    # and here are 707 million and 1.85 billion.
    "paper-vit": replace(
        PAPER,
        network=CodeTransformerConfig(24, gpt2_block(1536, 16)),
        steps=450_000,
        batch_size=1024,
    ),
    "paper-vit-large": replace(
        PAPER,
        network=CodeTransformerConfig(36, gpt2_block(2048, 32)),
        steps=450_000,
        batch_size=1024,
    ),
    # Nine codes, after `train_vqvae scenes`.
    "scenes": Args(
        network=GatedConfig(hidden_dim=32, num_layers=3, first_kernel=5, embed_dim=16),
        loss=PriorLossConfig(lr=3e-3),
        steps=800,
        picture_every=400,
    ),
    "sprites": GPT,
    # After `train_vqgan celeba`: 6,908,672 parameters on a grid of 16x16 with 1,024 codes.
    "celeba": Args(
        network=CodeTransformerConfig(8, gpt2_block(256, 4)),
        codes=Path("runs/vqgan"),
        loss=PriorLossConfig(lr=3e-4, final_lr=3e-4, weight_decay=0.01),
        steps=100_000,
        batch_size=32,
        picture_every=5000,
    ),
    # 64 codes each, after `train_vqvae fashion` and after `train_vqgan fashion`.
    "fashion": Args(),
    "fashion-gpt": GPT,
    "smoke": Args(
        network=CodeTransformerConfig(1, gpt2_block(8, 2)),
        steps=20,
        batch_size=8,
        log_every=5,
        picture_every=10,
        num_samples=4,
        score_samples=8,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained prior."""
    import torch

    from generative.codes import PriorLearner
    from generative.training.loop import fit
    from generative.training.pictures import image_grid

    autoencoder, args = open_codes(args)
    with Run.open(args, kind="train_code_prior") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        data = run.config.data
        images = load_images(data, run.config.data_dir, autoencoder.image_shape)
        autoencoder.save_pretrained(run.path / "autoencoder")
        autoencoder = autoencoder.to(run.device)
        codes, split = all_codes(autoencoder, images), torch.from_numpy(images.split)
        train, test = codes[split == 0], codes[split == 2]
        labels = None
        if args.label:
            classes = classes_of(images, args.label, args.num_classes)
            labels = torch.from_numpy(classes)[split == 0]
        torch.manual_seed(run.seed_for("weights"))
        prior = PriorConfig(autoencoder.grid, autoencoder.num_codes, args.network).build()
        learner = PriorLearner(prior.to(run.device), args.loss, args.steps)

        def batch(step: int):
            rows = run.rng("batch", step).integers(len(train), size=args.batch_size)
            drawn = train[rows].to(run.device)
            return drawn if labels is None else (drawn, labels[rows].to(run.device))

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                generator = torch.Generator(run.device).manual_seed(0)
                drawn = autoencoder.decode(learner.kept.sample(args.num_samples, generator))
                scale = max(1, 64 // drawn.shape[-1])
                run.metrics.log_image(step, "samples", image_grid(drawn, scale=scale))

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training the prior", on_log=show,
        )  # fmt: skip
        kept = learner.kept
        kept.save_pretrained(run.path / "model")
        found = {"test_nll": nats(kept, test)}
        if sample_scores(autoencoder.decode(codes[:1]), data):  # all images are known
            found["floor"] = entropy_of(codes)
            found |= compare_samples(kept, autoencoder, data, args.score_samples)
        run.finish({**run.metrics.last(), **found})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def open_codes(args: Args) -> tuple[VQVAE, Args]:
    """The model whose codes are learned, and settings that name its data.

    Raises:
        FileNotFoundError: there is no such run; says what makes one.
        ValueError: it holds another model, or nothing tells its data.
    """
    from generative.codes import VQVAE
    from generative.loading import model_folder
    from generative.training.run import CONFIG_NAME, read_config

    copy = args.out / "autoencoder"  # a run that was begun needs nothing else
    if not copy.is_dir() and not args.codes.is_dir():
        advice = made_by("--codes", "train_vqvae scenes", "train_vqgan")
        raise FileNotFoundError(f"{args.codes}: no such folder; {advice}")
    folder = copy if copy.is_dir() else model_folder(args.codes)
    settings: dict[str, Any] = {}
    if (folder.parent / CONFIG_NAME).is_file():
        settings = read_config(folder.parent)[1]
    data, data_dir = args.data or settings.get("data", ""), args.data_dir
    if not data:
        raise ValueError(f"no run tells the data of {folder}; pass --data")
    data_dir = data_dir or Path(str(settings.get("data_dir", "data")))
    return VQVAE.from_pretrained(folder), replace(args, data=data, data_dir=data_dir)


def nats(prior: PixelCNNPrior | GPTPrior, codes: Tensor) -> float:
    """Mean negative log-likelihood of grids of codes (N, h, w), classes summed out evenly."""
    import torch

    total, device = 0.0, next(prior.parameters()).device
    for part in codes.split(200):
        with torch.no_grad():
            total -= float(prior.log_prob(part.to(device)).double().sum())
    return total / len(codes)


def compare_samples(
    prior: PixelCNNPrior | GPTPrior, autoencoder: VQVAE, data: ImageData, n: int
) -> dict[str, float]:
    """Scores of n samples of a prior, and of as many grids whose codes are chosen evenly."""
    import torch

    from generative.codes import uniform_codes

    device = next(prior.parameters()).device
    generator = torch.Generator(device).manual_seed(1)
    drawn = [prior.sample(min(500, n - i), generator) for i in range(0, n, 500)]
    even = uniform_codes(n, prior.grid, prior.num_codes, torch.Generator().manual_seed(1))
    found = {}
    for name, codes in (("sample", torch.cat(drawn)), ("uniform", even.to(device))):
        images = torch.cat([autoencoder.decode(part).cpu() for part in codes.split(200)])
        found |= {f"{name}_{what}": x for what, x in sample_scores(images, data).items()}
    return found


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
