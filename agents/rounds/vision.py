"""The stage that makes V of recorded episodes: a VAE, an autoencoder, or a scale of vectors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from agents.rounds.places import Computing, Episodes
from generative.autoencoder.config import AutoencoderLossConfig, ConvAutoencoderConfig
from generative.training.cli import Input
from generative.training.ranges import Checked, Count, Folder, Seed
from generative.training.run import Run
from generative.vae.config import ConvVAEConfig, VAELossConfig

if TYPE_CHECKING:
    import torch

    from worldmodels.frames import FrameBatches
    from worldmodels.rollouts import RolloutStore

__all__ = [
    "AutoencoderSettings",
    "AutoencoderTraining",
    "VAESettings",
    "VAETraining",
    "VectorScaling",
    "VectorSettings",
    "scale_vectors",
    "train_autoencoder",
    "train_vae",
]

SCALE_FRAMES = 4096
"""Recorded frames, at most, that decide the scale of an autoencoder's code."""


@dataclass(frozen=True)
class VAESettings(Checked):
    """V as a variational autoencoder."""

    model: ConvVAEConfig = field(default_factory=ConvVAEConfig)
    loss: VAELossConfig = field(default_factory=VAELossConfig)
    steps: Count = 100_000
    """Optimiser steps, not epochs."""
    batch_size: Count = 100
    """Frames per step."""


@dataclass(frozen=True)
class VAETraining(VAESettings, Computing, Episodes):
    """Train V, the variational autoencoder, on recorded frames."""

    out: Folder = Path("runs/vae")
    """Run folder; the trained V is in its `model` folder."""
    start_from: Annotated[Path, Input("train_vae.py")] | None = None
    """Folder of a V to go on from; its sizes must be those of `model`."""


def train_vae(args: VAETraining) -> Path:
    """Returns the folder of the trained V."""
    import torch

    from generative.training.loop import fit
    from generative.training.precision import bf16_of_run
    from generative.vae import VAELearner

    with Run.open(args, kind="train_vae") as run:
        if run.done:
            return run.path / "model"
        model, frames, stores = _begin(args, run)
        loss = replace(args.loss, bf16=bf16_of_run(args.loss.bf16, run))
        learner = VAELearner(model.to(run.device).train(), loss, args.steps)

        def batch(step: int) -> torch.Tensor:
            return torch.from_numpy(frames(step)).to(run.device)

        fit(learner, batch, run, args.steps, what="training V")
        model.save_pretrained(run.path / "model")
        run.finish({"frames": len(frames), "env_ids": _env_ids(stores), **run.metrics.last()})
        return run.path / "model"


FRAMES = ConvAutoencoderConfig((3, 64, 64), latent_dim=32, channels=(8, 16, 32, 64, 128))
"""A step takes a CPU about twice as long as one of the VAE of train_vae.py quick."""

LOSS = AutoencoderLossConfig(final_lr=1e-4)


@dataclass(frozen=True)
class AutoencoderSettings(Checked):
    """V as an autoencoder: its code takes the place of a VAE's z."""

    model: ConvAutoencoderConfig = FRAMES
    loss: AutoencoderLossConfig = LOSS
    steps: Count = 1600
    """Optimiser steps, not epochs."""
    batch_size: Count = 64
    """Frames per step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model.image_shape != FRAMES.image_shape:
            raise ValueError(
                f"model.image_shape is {self.model.image_shape}; V sees frames of "
                f"{FRAMES.image_shape}"
            )


@dataclass(frozen=True)
class AutoencoderTraining(AutoencoderSettings, Computing, Episodes):
    """Train an autoencoder as V on recorded frames: its code takes the place of a VAE's z."""

    start_from: Annotated[Path, Input("train_vision.py")] | None = None
    """Folder of a V to go on from; its sizes must be those of `model`."""


def train_autoencoder(args: AutoencoderTraining) -> Path:
    """Returns the folder of the trained V."""
    import torch

    from generative.autoencoder import AutoencoderLearner
    from generative.training.loop import fit
    from worldmodels.vision import standardise, to_images

    with Run.open(args, kind="train_vision") as run:
        if run.done:
            return run.path / "model"
        model, frames, stores = _begin(args, run)
        # Channels last is quicker on a CPU.
        model.to(run.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        learner = AutoencoderLearner(model.train(), args.loss, args.steps)

        def batch(step: int) -> torch.Tensor:
            return to_images(torch.from_numpy(frames(step)).to(run.device))

        fit(learner, batch, run, args.steps, what="training V")
        model.eval()
        seen = frames.take(run.rng("scale").permutation(len(frames))[:SCALE_FRAMES])
        codes, squared_error = [], 0.0
        with torch.no_grad():
            for some in torch.from_numpy(seen).split(args.batch_size):
                x = to_images(some.to(run.device))
                codes.append(model.encode(x))
                squared_error += float((model.decode(codes[-1]) - x).square().sum())
        standardise(model, torch.cat(codes))
        model.save_pretrained(run.path / "model")
        recon = squared_error / len(seen)  # of a whole frame, as train_vae.py counts it
        run.finish(
            {
                "frames": len(frames),
                "env_ids": _env_ids(stores),
                **run.metrics.last(),
                "recon": recon,
            }
        )
        return run.path / "model"


@dataclass(frozen=True)
class VectorSettings(Checked):
    """V of an environment that shows vectors: mean and deviation of the recorded ones."""

    max_observations: Count = 1_000_000
    """As many, at most, decide the scale."""


@dataclass(frozen=True)
class VectorScaling(VectorSettings, Episodes):
    """Make V of an environment that shows vectors: mean and deviation of the recorded ones."""

    out: Folder = Path("runs/vector-vision")
    """Run folder; V is in its `model` folder."""
    seed: Seed = 1


def scale_vectors(args: VectorScaling) -> Path:
    """Returns the folder of V."""
    import torch

    from worldmodels.rollouts import RolloutStore, load_frames
    from worldmodels.vision import VectorVision

    with Run.open(args, kind="standardise_vectors") as run:
        if run.done:
            return run.path / "model"
        stores = [RolloutStore(folder) for folder in args.rollouts]
        for store in stores:
            if store.frame_shape is not None and len(store.frame_shape) != 1:
                raise ValueError(
                    f"{store.folder} holds frames of {store.frame_shape}, and this V is for "
                    "vectors; train one on them by train_vae.py or train_vision.py"
                )
        vectors = load_frames(
            stores, max_frames=args.max_observations, seed=run.seed_for("vectors") % 2**32
        )
        VectorVision.of(torch.from_numpy(vectors)).save_pretrained(run.path / "model")
        run.finish({"frames": len(vectors), "env_ids": _env_ids(stores)})
        return run.path / "model"


def _begin(
    args: VAETraining | AutoencoderTraining, run: Run
) -> tuple[Any, FrameBatches, list[RolloutStore]]:
    """A model with its first weights, batches of the recorded frames, and the recordings."""
    import torch

    from worldmodels.frames import FrameBatches
    from worldmodels.rollouts import RolloutStore

    if args.threads:
        torch.set_num_threads(args.threads)
    stores = [RolloutStore(folder) for folder in args.rollouts]
    frames = FrameBatches(stores, args.batch_size, run.rng, shape=(64, 64, 3))
    torch.manual_seed(run.seed_for("weights"))
    model = args.model.build()
    if args.start_from is not None:
        model.continue_from(args.start_from)
    return model, frames, stores


def _env_ids(stores: list[RolloutStore]) -> list[str]:
    return sorted({name for store in stores for name in store.env_ids})


QUICK_VAE = VAESettings(
    model=ConvVAEConfig(channels=(16, 32, 64, 128)),
    loss=VAELossConfig(beta=0.25, lr=1e-3, bf16="auto"),
    steps=1600,
    batch_size=64,
)
"""V of the quick rounds."""
