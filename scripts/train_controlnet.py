"""Train a ControlNet: a text-to-image model that stays as it is is told edges too."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from generative.known.config import CaptionMix
from generative.text_to_image.config import TextToImageLossConfig
from generative.training.cli import start
from generative.training.ranges import (
    Checked,
    Count,
    Device,
    Ending,
    Finite,
    Folder,
    Probability,
    Seed,
    Widths,
    Workers,
)
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.common.captions import CaptionData

if TYPE_CHECKING:
    from torch import Generator

    from generative.known.captioned_scenes import CaptionedScenes
    from generative.text_to_image import ControlNet


@dataclass(frozen=True)
class Args(Checked):
    """Train a ControlNet: a text-to-image model that stays as it is is told edges too.

    Of scenes the result has the shares of objects whose shape and place are those of the edges and
    whose colour is that of the caption, with the edges and without. The preset scenes takes 7 to 20
    minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/controlnet")
    """Run folder; the trained model is in its `model` folder, pictures are in `images`."""
    base: Path = Path("runs/text_to_image")
    """Run of train_text_to_image: a GLIDE or a latent diffusion model, which stays."""
    data: CaptionData = "scenes"
    """Images and captions; the edges are those of the images."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name; scenes need none."""
    max_images: Count | None = None
    """Use at most so many of the images."""
    mix: CaptionMix = field(default_factory=CaptionMix)
    """Weights of the kinds of captions of scenes."""
    widths: Widths = (16, 32, 96, 256)
    """Feature maps of the reader of edges: the first before any halving, then one for each."""
    loss: TextToImageLossConfig = field(default_factory=TextToImageLossConfig)
    steps: Count = 500
    """Optimiser steps."""
    batch_size: Count = 64
    strength: Probability = 1.0
    """Factor of what the edges add, in pictures and measures."""
    scale: Finite = 1.0
    """Scale of guidance, in pictures and measures."""
    samples: Count = 200
    """Scenes that are drawn and read."""
    log_every: Count = 50
    picture_every: Count = 250
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older runs drew with the guidance of their base; they are read without."""
        return {"scale": 1.0, **settings}


DEFAULT_PRESET = "scenes"
PRESETS = {
    # After `train_text_to_image scenes`.
    "scenes": Args(
        widths=(8, 16, 32, 64),
        loss=TextToImageLossConfig(weighting="data", level_mean=-3.0, level_std=2.5, lr=2e-3),
        steps=4000,
    ),
    # The publication's rate and batch, around a latent diffusion model of 512x512 pixels.
    "paper": Args(
        base=Path("runs/latent_diffusion"),
        data="folder",
        loss=TextToImageLossConfig(
            weighting="noise", levels="time", lr=1e-5, final_lr=1e-5, ema=0.0, drop=0.5
        ),
        steps=5000,
        batch_size=32,
    ),
    # After `train_text_to_image smoke`.
    "smoke": Args(
        widths=(4, 4, 4), steps=10, batch_size=4, samples=4, log_every=5, picture_every=10
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.loading import load_model
    from generative.text_to_image import ControlNet, TextToImage, TextToImageLearner
    from generative.training.loop import fit
    from generative.training.pictures import strips
    from scripts.common.captions import ScenePairs, load_pairs

    with Run.open(args, kind="train_controlnet") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        base = load_model(args.base)
        if not isinstance(base, TextToImage):
            raise ValueError(
                f"{args.base} holds a {type(base).__name__}; pass --base with a run of "
                "train_text_to_image"
            )
        torch.manual_seed(run.seed_for("weights"))
        model = ControlNet.around(base, 1, args.widths).to(run.device)
        shape = (base.config.image_shape[0], model.hint_shape[1], model.hint_shape[2])
        of = args.data, args.data_dir, shape, args.mix
        pairs = load_pairs(*of, max_images=args.max_images)
        learner = TextToImageLearner(model, args.loss, args.steps)
        generator = torch.Generator().manual_seed(run.seed_for("prompts"))
        x, prompts, _ = pairs.draw(8, generator)
        seen = model.seen(x.to(run.device))

        def batch(step: int):
            drawn = torch.Generator().manual_seed(run.seed_for("batch", step))
            x, texts, _ = pairs.draw(args.batch_size, drawn)
            x = x.to(run.device)
            return x, model.tokens(texts), model.seen(x)

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                drawn = torch.Generator(run.device).manual_seed(0)
                images = learner.kept.sample(
                    prompts, drawn, scale=args.scale, strength=args.strength, **seen
                )
                rows = strips(
                    seen["hint"].expand_as(images[:, :1]).repeat(1, images.shape[1], 1, 1), images,
                    scale=max(1, 48 // shape[1]),
                )  # fmt: skip
                run.metrics.log_image(step, "samples", rows)

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training the ControlNet", on_log=show,
        )  # fmt: skip
        kept = learner.kept.eval()
        assert isinstance(kept, ControlNet)
        kept.save_pretrained(run.path / "model")
        found: dict[str, float] = {}
        if isinstance(pairs, ScenePairs):
            generator.manual_seed(run.seed_for("test"))
            for name, strength in (("", args.strength), ("_without", 0.0)):
                for what, share in followed(
                    kept, pairs.world, generator, args.samples, strength, args.scale
                ).items():
                    found[what + name] = share
        run.finish({**run.metrics.last(), **found})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def followed(
    model: ControlNet,
    world: CaptionedScenes,
    generator: Generator,
    n: int,
    strength: float,
    scale: float = 1.0,
) -> dict[str, float]:
    """Shares of n drawn scenes: `edges_followed`, every cell has the shape that its edges have, or
    is empty where there are none; `colours_followed`, the picture also fits its caption."""
    import torch

    from generative.known.scene_scores import satisfied
    from generative.known.scenes import EMPTY, draw, read
    from generative.known.sprites import COLOURS

    texts, cells = world.draw(n, generator)
    drawn = torch.Generator(model.device).manual_seed(0)
    seen = model.seen(draw(cells, world.border).to(model.device))
    images = model.sample(texts, drawn, scale=scale, strength=strength, **seen).cpu()
    found = read(images, world.border).cells
    shapes = [values.where(values == EMPTY, values // len(COLOURS)) for values in (found, cells)]
    edges = (shapes[0] == shapes[1]).all(1)
    fits = satisfied(images, texts, world.border)
    return {
        "edges_followed": float(edges.float().mean()),
        "colours_followed": float((edges & fits).float().mean()),
    }


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
