"""The stage that trains M, whichever network it is, on encoded episodes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from agents.rounds.places import Computing
from generative.training.cli import Input
from generative.training.ranges import Checked, Count, Folder, Probability
from generative.training.run import Run
from worldmodels.configs import (
    PAPER_MDNRNN,
    MDNRNNConfig,
    MemoryConfig,
    MemoryLossConfig,
    TransformerMemoryConfig,
)

if TYPE_CHECKING:
    import torch

    from worldmodels.memory import Memory

__all__ = [
    "MDNRNNSettings",
    "MDNRNNTraining",
    "MemorySettings",
    "MemoryTraining",
    "TransformerSettings",
    "TransformerTraining",
    "train_memory",
]


@dataclass(frozen=True)
class MemorySettings(Checked):
    """M, whichever network it is."""

    model: MemoryConfig = PAPER_MDNRNN
    loss: MemoryLossConfig = field(default_factory=MemoryLossConfig)
    steps: Count = 100_000
    """Optimiser steps."""
    batch_size: Count = 100
    """Windows per step."""
    length: Count = 999
    """Decisions per window; shorter episodes are padded, and padding never counts."""
    start_fraction: Probability = 0.3
    """Share of windows that begin where an episode begins; the others begin anywhere."""


@dataclass(frozen=True)
class MDNRNNSettings(MemorySettings):
    """M as the MDN-RNN."""

    model: MDNRNNConfig = PAPER_MDNRNN


@dataclass(frozen=True)
class TransformerSettings(MemorySettings):
    """M as a causal Transformer."""

    model: TransformerMemoryConfig = field(default_factory=TransformerMemoryConfig)


@dataclass(frozen=True)
class MemoryTraining(MemorySettings, Computing):
    """Train M on encoded episodes."""

    out: Folder = Path("runs/memory")
    """Run folder; the trained M is in its `model` folder."""
    encoded: tuple[Annotated[Path, Input("encode_rollouts.py")], ...] = (Path("runs/encoded/data"),)
    """Folders written by encode_rollouts.py, all with the same V."""
    start_from: Annotated[Path, Input("train_mdnrnn.py")] | None = None
    """Folder of an M to go on from; its sizes must be those of `model`."""


@dataclass(frozen=True)
class MDNRNNTraining(MDNRNNSettings, MemoryTraining):
    """Train M, the MDN-RNN, on encoded episodes."""

    out: Folder = Path("runs/mdnrnn")
    """Run folder; the trained M is in its `model` folder."""


@dataclass(frozen=True)
class TransformerTraining(TransformerSettings, MemoryTraining):
    """Train M as a causal Transformer on encoded episodes."""

    out: Folder = Path("runs/transformer_memory")
    """Run folder; the trained M is in its `model` folder."""
    start_from: Annotated[Path, Input("train_transformer_memory.py")] | None = None
    """Folder of an M to go on from; its sizes must be those of `model`."""


def train_memory(args: MemoryTraining) -> Path:
    """Returns the folder of the trained M.

    Raises:
        ValueError: z or actions of the encoded episodes have other sizes than M's; says which
            option to pass.
    """
    import torch

    from generative.training.loop import fit
    from generative.training.precision import bf16_of_run
    from worldmodels.memory import MemoryLearner
    from worldmodels.sequences import EncodedRollouts, SequenceBatches

    kind = "train_mdnrnn"
    if isinstance(args.model, TransformerMemoryConfig):
        kind = "train_transformer_memory"
    with Run.open(args, kind=kind) as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        encoded = EncodedRollouts.concat([EncodedRollouts.load(folder) for folder in args.encoded])
        if encoded.z_dim != args.model.latent_dim:
            raise ValueError(
                f"{args.encoded[0]} holds z of {encoded.z_dim} dimensions, this M is to have "
                f"{args.model.latent_dim}; pass --model.latent-dim {encoded.z_dim}"
            )
        if encoded.action_dim != args.model.action_dim:
            raise ValueError(
                f"{args.encoded[0]} holds actions of {encoded.action_dim} numbers, this M is to "
                f"read {args.model.action_dim}; pass --model.action-dim {encoded.action_dim}"
            )
        windows = SequenceBatches(
            encoded,
            args.batch_size,
            args.length,
            seed=run.seed_for("windows"),
            start_fraction=args.start_fraction,
        )
        torch.manual_seed(run.seed_for("weights"))
        model = _make(args.model)
        if args.start_from is not None:
            model.continue_from(args.start_from)
        loss = replace(args.loss, bf16=bf16_of_run(args.loss.bf16, run))
        learner = MemoryLearner(model.to(run.device).train(), loss, args.steps)

        def batch(step: int) -> dict[str, torch.Tensor]:
            return {name: value.to(run.device) for name, value in windows(step).items()}

        fit(learner, batch, run, args.steps, what="training M")
        model.save_pretrained(run.path / "model")
        run.finish({"frames": encoded.num_frames, **run.metrics.last()})
        return run.path / "model"


def _make(config: MemoryConfig) -> Memory:
    """An M of these sizes, with its first weights."""
    if isinstance(config, TransformerMemoryConfig):
        from worldmodels.memory.transformer import TransformerMemory

        return TransformerMemory(config)
    from worldmodels.memory import MDNRNN

    assert isinstance(config, MDNRNNConfig)
    return MDNRNN(config)


QUICK_MDNRNN = MDNRNNSettings(
    model=MDNRNNConfig(
        predict_reward=True, predict_end=True, residual=True, dropout=0.1, reward_scale=3.0
    ),
    loss=MemoryLossConfig(lr=2e-3, final_lr=1e-4, bf16="auto"),
    steps=800,
    batch_size=32,
    length=64,
)
"""M of the quick rounds."""
QUICK_TRANSFORMER = TransformerSettings(
    model=TransformerMemoryConfig(
        predict_reward=True, predict_end=True, residual=True, dropout=0.1, reward_scale=3.0
    ),
    loss=MemoryLossConfig(lr=1e-3, final_lr=1e-4, bf16="auto"),
    steps=800,
    batch_size=32,
    length=64,
)
"""The same, with a Transformer."""
