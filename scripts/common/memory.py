"""Training of M, whichever network it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from generative.training.cli import Input
from generative.training.ranges import Checked, Count, Device, Folder, Probability, Seed, Workers
from generative.training.run import Run
from worldmodels.configs import PAPER_MDNRNN, MemoryConfig, MemoryLossConfig

if TYPE_CHECKING:
    from worldmodels.memory import Memory


@dataclass(frozen=True)
class MemoryArgs(Checked):
    """How M is trained, whichever network it is."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/memory")
    """Run folder; the trained M is in its `model` folder."""
    encoded: tuple[Annotated[Path, Input("encode_rollouts.py")], ...] = (Path("runs/encoded/data"),)
    """Folders written by encode_rollouts.py, all with the same V."""
    start_from: Annotated[Path, Input("train_mdnrnn.py")] | None = None
    """Folder of an M to go on from; its sizes must be those of `model`."""
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
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1


def train_memory(args: MemoryArgs, kind: str, make: Callable[[], Memory]) -> Path:
    """Returns the folder of the trained M.

    Args:
        kind: of the run, as its folder records it.
        make: an M of the sizes in `args.model`; its weights are drawn from the run's seed.
    Raises:
        ValueError: z or actions of the encoded episodes have other sizes than M's; says which
            option to pass.
    """
    import torch

    from generative.training.loop import fit
    from generative.training.precision import bf16_of_run
    from worldmodels.memory import MemoryLearner
    from worldmodels.sequences import EncodedRollouts, SequenceBatches

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
        model = make()
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
