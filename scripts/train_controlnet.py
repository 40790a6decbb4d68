"""Train a ControlNet: a text-to-image model that stays is told edges, or a palette, too."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

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
    Size,
    Widths,
    Workers,
)
from generative.training.reports import add_to_report
from generative.training.run import Run
from generative.training.words import made_by
from scripts.common.captions import CaptionData

if TYPE_CHECKING:
    from torch import Generator

    from generative.known.captioned_scenes import CaptionedScenes
    from generative.text_to_image import ControlNet


@dataclass(frozen=True)
class Args(Checked):
    """Train a ControlNet: a text-to-image model that stays is told edges, or a palette, too.

    A palette is a coarse image: the colours of square blocks. Of scenes the result has the shares
    of pictures whose shapes and places are those of the edges and whose colours are those of the
    caption; of a palette, whose colours and places are its own and whose shapes are those of the
    caption. Both are told with the further image and without. The presets scenes and
    scenes-palette take 7 to 20 minutes on one core each.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/controlnet")
    """Run folder; the trained model is in its `model` folder, pictures are in `images`."""
    base: Path = Path("runs/text_to_image")
    """Run of train_text_to_image: a GLIDE or a latent diffusion model, which stays."""
    hint: Literal["edges", "palette"] = "edges"
    """Image that is told besides: where an image has edges, or the colours of its blocks."""
    block: Size = 8
    """Pixels on a side of a block of a palette; a cell of a scene has 8."""
    data: CaptionData = "scenes"
    """Images and captions; edges and palettes are those of the images."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name; scenes need none."""
    max_images: Count | None = None
    """Use at most so many of the images."""
    mix: CaptionMix = field(default_factory=CaptionMix)
    """Weights of the kinds of captions of scenes."""
    widths: Widths = (16, 32, 96, 256)
    """Feature maps of the reader of edges or palettes: the first before any halving, then one for
    each."""
    loss: TextToImageLossConfig = field(default_factory=TextToImageLossConfig)
    steps: Count = 500
    """Optimiser steps."""
    batch_size: Count = 64
    strength: Probability = 1.0
    """Factor of what the further image adds, in pictures and measures."""
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
        """Older runs drew with the guidance of their base, and are read without; they had edges."""
        return {"scale": 1.0, "hint": "edges", "block": 8, **settings}


OF_SCENES = Args(
    widths=(8, 16, 32, 64),
    loss=TextToImageLossConfig(weighting="data", level_mean=-3.0, level_std=2.5, lr=2e-3),
    steps=4000,
)
DEFAULT_PRESET = "scenes"
PRESETS = {
    # After `train_text_to_image scenes`.
    "scenes": OF_SCENES,
    "scenes-palette": replace(OF_SCENES, hint="palette", out=Path("runs/controlnet_palette")),
    # The publication's rate and batch, around `train_text_to_image stable-diffusion`: 361 million
    # weights that learn.
    "paper": Args(
        base=Path("runs/stable_diffusion"),
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
    from scripts.common.captions import ScenePairs, check_lengths, load_pairs

    with Run.open(args, kind="train_controlnet") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        advice = made_by("--base", "train_text_to_image scenes", "train_latent_diffusion")
        base = load_model(args.base, advice=advice)
        if not isinstance(base, TextToImage):
            raise ValueError(
                f"{args.base} holds a {type(base).__name__}; pass --base with a run of "
                "train_text_to_image"
            )
        torch.manual_seed(run.seed_for("weights"))
        model = ControlNet.around(base, None, args.widths, args.hint, args.block).to(run.device)
        shape = (base.config.image_shape[0], model.hint_shape[1], model.hint_shape[2])
        of = args.data, args.data_dir, shape, args.mix
        pairs = load_pairs(*of, max_images=args.max_images, small=False)
        longer = "pass a --base that was trained with --model.text.max-len"
        check_lengths(pairs, base.tokeniser, longer)
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
                hint = seen["hint"].expand_as(images)
                rows = strips(hint, images, scale=max(1, 48 // shape[1]))
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
    """Shares of n drawn scenes that follow what a model is told.

    Of edges: `edges_followed`, every cell has the shape that its edges have, or is empty where
    there are none; `colours_followed`, the picture also fits its caption. Of a palette:
    `palette_followed`, every cell has its colour or is empty; `shapes_followed`, the picture also
    fits its caption.
    """
    import torch

    from generative.known.scene_scores import satisfied
    from generative.known.scenes import EMPTY, draw, read
    from generative.known.sprites import COLOURS

    texts, cells = world.draw(n, generator)
    drawn = torch.Generator(model.device).manual_seed(0)
    seen = model.seen(draw(cells, world.border).to(model.device))
    images = model.sample(texts, drawn, scale=scale, strength=strength, **seen).cpu()
    found = read(images, world.border).cells
    kinds = len(COLOURS)
    if model.hint == "palette":
        hint, rest, kept = "palette", "shapes", (found % kinds, cells % kinds)
    else:
        hint, rest, kept = "edges", "colours", (found // kinds, cells // kinds)
    places = (found == EMPTY) == (cells == EMPTY)
    follows = (places & (kept[0] == kept[1])).all(1)
    fits = satisfied(images, texts, world.border)
    return {
        f"{hint}_followed": float(follows.float().mean()),
        f"{rest}_followed": float((follows & fits).float().mean()),
    }


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
