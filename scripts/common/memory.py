"""Training of M, whichever network it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from generative.training.run import Run

if TYPE_CHECKING:
    from scripts import train_mdnrnn, train_transformer_memory
    from worldmodels.memory import Memory


def train_memory(
    args: train_mdnrnn.Args | train_transformer_memory.Args, kind: str, make: Callable[[], Memory]
) -> Path:
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
        learner = MemoryLearner(model.to(run.device).train(), args.loss, args.steps)

        def batch(step: int) -> dict[str, torch.Tensor]:
            return {name: value.to(run.device) for name, value in windows(step).items()}

        fit(learner, batch, run, args.steps, what="training M")
        model.save_pretrained(run.path / "model")
        run.finish({"frames": encoded.num_frames, **run.metrics.last()})
        return run.path / "model"
