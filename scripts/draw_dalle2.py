"""Draw by DALL.E 2, of the runs of a CLIP, a prior and a decoder: columns, variations, a way.

python scripts/draw_dalle2.py --prior runs/prior --decoder runs/decoder
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from generative.known.config import CaptionMix
from generative.training.cli import start
from generative.training.ranges import (
    Checked,
    Count,
    Device,
    Ending,
    Finite,
    Folder,
    Length,
    Probability,
    Range,
    Seed,
)
from generative.training.reports import add_to_report
from generative.training.run import Run, read_config
from scripts.common.captions import CaptionData

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor

    from generative.known.captioned_scenes import CaptionedScenes
    from generative.text_to_image import DallE2
    from scripts.common.captions import Pairs

TITLES = {
    "caption": "the caption alone",
    "text": "its embedding as an image's",
    "prior": "the prior's embedding",
}
"""Names of the columns of figure 13-15 on pictures."""
SYSTEM = "dalle2"
"""Folder of all three models in that of a run."""
WAY = 7
"""Images of a way from one embedding to another."""
BATCH = 100
"""Captions that are drawn at once."""


@dataclass(frozen=True)
class Args(Checked):
    """Draw by DALL.E 2, of the runs of a CLIP, a prior and a decoder: columns, variations, a way.

    Writes pictures into the run's `images` folder. columns: captions by a decoder that is told the
    caption alone, the caption's embedding in the place of an image's, and the prior's. variations:
    what is drawn of the embedding of one image. interpolation: between the embeddings of two
    images. edit: an image moved by the difference of two captions, if they are given. Of scenes the
    result has the shares of each column that a detector reads as the captions say, and of
    variations those that keep the objects of their image, with Wilson's intervals of 95 %.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"report"})

    out: Folder = Path("runs/dalle2")
    """Run folder; `dalle2` in it is a folder of `DallE2`, which holds the three models."""
    system: Path | None = None
    """Folder that `DallE2.save_pretrained` wrote, or run of this command, in the place of the three
    runs below."""
    clip: Path | None = None
    """Run of train_clip; if not given, the one that the run of the decoder names."""
    prior: Path = Path("runs/prior")
    """Run of `train_prior clip` or `clip-buckets`."""
    decoder: Path = Path("runs/decoder")
    """Run of `train_text_to_image decoder`."""
    data: CaptionData | None = None
    """Captions and images; if not given, those of the run of the decoder, or else scenes."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name; scenes and emoji need none."""
    prompts: Annotated[tuple[str, ...], Length(0, 64)] = ()
    """Captions of the picture of columns; those of test images if none is given."""
    edit: Annotated[tuple[str, ...], Length(0, 2)] = ()
    """Two captions: of an image before and after."""
    most: Probability = 0.5
    """Share of the arc that an edited image goes at most."""
    samples: Annotated[int, Range(0, 10_000)] = 200
    """Captions and images that the detector's shares are of; 0 for none."""
    shown: Annotated[int, Range(2, 64)] = 4
    """Captions and images that are drawn on pictures."""
    each: Count = 4
    """Pictures of a caption in each column, and variations of an image."""
    steps: Count | None = None
    """Steps of the decoder; its own if not given."""
    scale: Finite | None = None
    """Guidance of the decoder; its own if not given."""
    draws: Count = 2
    """Embeddings that the prior draws for a caption, of which the closest to it is kept."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    device: Device = "cpu"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.edit) == 1:
            raise ValueError(
                f"edit is {self.edit[0]!r} alone; give the caption before and the one after"
            )


DEFAULT_PRESET = "runs"
PRESETS = {"runs": Args(), "smoke": Args(samples=4, shown=2, each=1, steps=2)}


def main(args: Args) -> Path:
    """Returns the folder of the run."""
    import torch

    from generative.text_to_image import DallE2
    from scripts.common.captions import ScenePairs
    from scripts.common.text_to_image import load_dalle2

    with Run.open(args, kind="draw_dalle2") as run:
        if not run.done:
            if args.system is not None:
                within = args.system / SYSTEM
                folder = within if within.is_dir() else args.system
                model = DallE2.from_pretrained(folder, run.device)
            else:
                model = load_dalle2(args.clip, args.prior, args.decoder, run.device)
            model.eval()
            pairs = load_test(args, model)
            for name, picture in pictures(args, model, pairs).items():
                run.metrics.log_image(0, name, picture)
            found: dict[str, Any] = {"prior": model.prior.saved_name}
            if args.samples and isinstance(pairs, ScenePairs):
                generator = torch.Generator().manual_seed(run.seed_for("test"))
                found |= scene_shares(args, model, pairs.world, generator)
            model.save_pretrained(run.path / SYSTEM)
            run.finish(found)
        print(describe(run.result))
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path


def load_test(args: Args, model: DallE2) -> Pairs:
    """Test images and captions, of the kinds that the decoder was trained on where its run tells.

    Raises:
        FileNotFoundError, ValueError: see `load_pairs`.
    """
    from scripts.common.captions import load_pairs

    known: dict[str, Any] = {}
    if args.system is None and (args.decoder / "model").is_dir():
        known = read_config(args.decoder)[1]
    data = args.data or cast("CaptionData", known.get("data", "scenes"))
    shape = cast("tuple[int, int, int]", model.image_shape)
    mix = CaptionMix(**known["mix"]) if "mix" in known else CaptionMix()
    return load_pairs(data, args.data_dir, shape, mix, "test")


# ---------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------


def pictures(args: Args, model: DallE2, pairs: Pairs) -> dict[str, np.ndarray]:
    """Columns, variations, a way between two images, and an edited one if asked for."""
    import torch

    from generative.training.pictures import image_grid, labelled, sheet
    from scripts.explored.common import scale_to

    scale = scale_to(48, model.image_shape)
    device = model.decoder.device
    x, texts, _ = pairs.draw(args.shown, torch.Generator().manual_seed(args.seed))
    x, how = x.to(device), {"steps": args.steps, "scale": args.scale}

    def generator() -> Generator:
        return torch.Generator(device).manual_seed(args.seed)

    prompts = list(args.prompts) or texts
    drawn = model.columns(
        [text for text in prompts for _ in range(args.each)], generator(), draws=args.draws, **how
    )
    columns = [
        labelled([image_grid(row, args.each, scale) for row in part.split(args.each)], prompts)
        if name == "caption"
        else image_grid(part, args.each, scale)
        for name, part in drawn._asdict().items()
    ]
    found = {"columns": side_by_side(columns, list(TITLES.values()))}
    varied = model.variations(x, args.each, generator(), **how)
    rows = [torch.cat([image, more]) for image, more in zip(x.split(1), varied, strict=True)]
    found["variations"] = labelled([image_grid(r, args.each + 1, scale) for r in rows], texts)
    way = model.interpolate(x[0], x[1], WAY, generator(), **how)
    found["interpolation"] = sheet(
        [image_grid(torch.cat([x[:1], way, x[1:2]]), WAY + 2, scale)],
        [f"from {texts[0]!r} to {texts[1]!r}; the images themselves at the ends"],
    )
    if args.edit:
        before, after = args.edit
        start = model.sample([before], generator(), draws=args.draws, **how)
        way = model.edit(start[0], before, after, WAY, args.most, generator(), **how)
        found["edit"] = sheet(
            [image_grid(torch.cat([start, way]), WAY + 1, scale)],
            [f"an image of {before!r}, moved by {after!r} less {before!r}"],
        )
    return found


def side_by_side(columns: list[np.ndarray], titles: list[str]) -> np.ndarray:
    """Pictures of one height beside each other, below their titles, on white."""
    import numpy as np

    from generative.training.pictures import GAP, sheet

    # A title stands over the images of its column alone, not over the labels of the first.
    margin = columns[0].shape[1] - columns[1].shape[1]
    images = [columns[0][:, margin:], *columns[1:]]
    titled = [sheet([picture], [title]) for picture, title in zip(images, titles, strict=True)]
    height = titled[0].shape[0]
    labels = np.full((height, margin, 3), 255, dtype=np.uint8)
    labels[height - len(columns[0]) :] = columns[0][:, :margin]
    gap = np.full((height, 4 * GAP, 3), 255, dtype=np.uint8)
    parts = [labels, titled[0]]
    for part in titled[1:]:
        parts += [gap, part]
    return np.concatenate(parts, 1)


# ---------------------------------------------------------------------------------------------
# Scenes
# ---------------------------------------------------------------------------------------------


def scene_shares(
    args: Args, model: DallE2, world: CaptionedScenes, generator: Generator
) -> dict[str, Any]:
    """Shares of drawn scenes with their intervals, each [share, low, high].

    `columns`: for each column, and for "image", whose decoder is told the embedding of a picture of
    the caption, `satisfied` and `rejected` (`generative.known.scene_scores`). `variations`: see
    `kept`, without a caption. The noise of the columns is the same.
    """
    import torch

    from generative.known.scene_scores import accuracy, wilson
    from generative.known.scenes import draw
    from scripts.common.text_to_image import kept

    texts, cells = world.draw(args.samples, generator)
    device = model.decoder.device
    random = torch.Generator(device).manual_seed(args.seed)
    how: dict[str, Any] = {"steps": args.steps, "scale": args.scale}
    parts: dict[str, list[Tensor]] = {}
    for first in range(0, len(texts), BATCH):
        some = texts[first : first + BATCH]
        x = draw(cells[first : first + BATCH], world.border).to(device)
        drawn = model.columns(some, random, draws=args.draws, **how)._asdict()
        drawn["image"] = model.variations(x, 1, random, some, **how)[:, 0]
        drawn["variations"] = model.variations(x, 1, random, **how)[:, 0]
        for name, images in drawn.items():
            parts.setdefault(name, []).append(images.cpu())
    found = {name: torch.cat(images) for name, images in parts.items()}
    varied = kept(found.pop("variations"), cells, world.border)
    columns = {name: accuracy(images, texts, world.border) for name, images in found.items()}
    return {
        "pictures": len(texts),
        "columns": {
            name: {"satisfied": list(score.satisfied), "rejected": list(score.rejected)}
            for name, score in columns.items()
        },
        "variations": {
            name: list(wilson(int(rows.sum()), len(rows))) for name, rows in varied.items()
        },
    }


def describe(found: dict[str, Any]) -> str:
    """The shares of a result as a Markdown table; of other data only which prior there was."""
    if "columns" not in found:
        return f"drawn with the {found['prior']}"
    named = {**TITLES, "image": "the embedding of an image of the caption"}

    def told(share: list[float]) -> str:
        return f"{share[0]:.1%} ({share[1]:.1%} to {share[2]:.1%})"

    lines = [
        "| the decoder is told | as the caption says | no picture of the world |",
        "|---|---|---|",
    ]
    for name, score in found["columns"].items():
        lines.append(f"| {named[name]} | {told(score['satisfied'])} | {told(score['rejected'])} |")
    varied = found["variations"]
    lines += [
        "",
        f"variations: {told(varied['objects_kept'])} have the objects of the image, "
        f"{told(varied['scene_kept'])} are the same scene, {told(varied['rejected'])} no picture "
        "of the world",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
