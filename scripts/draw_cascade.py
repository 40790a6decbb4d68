"""Put a base and upsamplers together as a cascade, draw with it, and judge its scenes.

python scripts/draw_cascade.py --base runs/scenes_small --upsamplers runs/upsampler
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

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
    NonNegative,
    Seed,
    Workers,
)
from generative.training.reports import add_to_report
from generative.training.run import Run, read_config

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from generative.known.captioned_scenes import CaptionedScenes
    from generative.text_to_image import Cascade

PICTURE_NAME = "cascade.png"
SCENE = (3, 24, 24)


@dataclass(frozen=True)
class Args(Checked):
    """Put a base and upsamplers together as a cascade, draw with it, and judge its scenes.

    The base draws a small image of a caption, and each upsampler enlarges what the one before
    drew, with noise on it whose strength it is told (noise conditioning augmentation). The cascade
    is saved in the `model` folder of the run; `Cascade.from_pretrained` loads it. The picture has a
    row for each caption: what the base drew, and what comes of it with each strength of noise.

    Of scenes the result has the shares of pictures that fit their captions and of those that are no
    picture of the world, for each strength, with Wilson's interval of 95 %: `satisfied_at_noise_N`
    and `rejected_at_noise_N`. Beside them stand those of real small scenes that are enlarged by the
    same upsamplers (`..._of_real`), so that the faults of the base can be told from theirs, and of
    the base's small scenes (`satisfied_by_base`).
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"picture", "report"})

    out: Folder = Path("runs/cascade")
    """Run folder; the cascade is in its `model` folder."""
    base: Path = Path("runs/scenes_small")
    """Run of train_text_to_image that draws the smallest images."""
    upsamplers: Annotated[tuple[Path, ...], Length(1, 8)] = (Path("runs/upsampler"),)
    """Runs of train_text_to_image upsampler, each of which takes the images of the one before."""
    prompts: tuple[str, ...] = ()
    """Captions of the picture; of scenes, drawn ones if none is given."""
    mix: CaptionMix = field(default_factory=CaptionMix)
    """Weights of the kinds of captions of scenes."""
    noises: Annotated[tuple[NonNegative, ...], Length(1, 16)] = (0.0, 0.02, 0.05, 0.1, 0.2)
    """Standard deviations of the noise on images before they are enlarged; pixels are 0 to 1."""
    scale: Finite = 1.0
    """Scale of guidance, of all stages."""
    samples: Count = 200
    """Scenes that are drawn and read for each strength of noise."""
    images: Count = 6
    """Rows of the picture, where captions are drawn."""
    picture: Annotated[Path, Ending((".png",))] | None = None
    """File that gets the picture, beside the run's own."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 leaves as many as torch takes."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "scenes"
PRESETS = {
    # After `train_text_to_image scenes-small` and
    # `train_text_to_image upsampler`.
    "scenes": Args(),
    "smoke": Args(samples=2, images=2, noises=(0.1,)),
}


def main(args: Args) -> Path:
    """Returns the folder of the cascade."""
    import torch

    from generative.known.captioned_scenes import CaptionedScenes
    from generative.training.files import MAX_LIST_BYTES, read_file, write_file
    from scripts.compare_text_to_image import save_picture

    with Run.open(args, kind="draw_cascade") as run:
        own = run.path / PICTURE_NAME
        if not run.done:
            if args.threads:
                torch.set_num_threads(args.threads)
            cascade = load_cascade(args.base, args.upsamplers, run.device)
            check_noises(cascade, args)
            generator = torch.Generator().manual_seed(run.seed_for("test"))
            world = CaptionedScenes(args.mix) if of_scenes(args.base, cascade) else None
            texts = list(args.prompts)
            if not texts and world is None:
                raise ValueError(
                    f"{args.base} was not trained on scenes, so that no captions are known; pass "
                    "--prompts with some"
                )
            if not texts and world is not None:
                texts, _ = world.draw(args.images, generator)
            cascade.save_pretrained(run.path / "model")
            save_picture(own, drawn(cascade, texts, args))
            run.finish({} if world is None else judged(cascade, world, args, generator))
        if args.picture is not None:
            args.picture.parent.mkdir(parents=True, exist_ok=True)
            write_file(args.picture, read_file(own, MAX_LIST_BYTES))
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def load_cascade(
    base: Path, upsamplers: Sequence[Path], device: torch.device | str = "cpu"
) -> Cascade:
    """A cascade of the models of runs.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: a run holds another kind of model, or images of the sizes do not fit.
    """
    from generative.loading import load_model
    from generative.text_to_image import Cascade, TextToImage, Upsampler
    from generative.training.words import made_by, with_article

    advice = made_by("--base", "train_text_to_image scenes-small")
    first: Any = load_model(base, device, advice=advice)
    if type(first) is not TextToImage:
        raise ValueError(
            f"{base} holds {with_article(first.saved_name)}, which draws no image of a text alone; "
            "pass --base with a run of train_text_to_image, such as scenes-small"
        )
    others = []
    advice = made_by("--upsamplers", "train_text_to_image upsampler")
    for path in upsamplers:
        model: Any = load_model(path, device, advice=advice)
        if not isinstance(model, Upsampler):
            raise ValueError(
                f"{path} holds {with_article(model.saved_name)}, which enlarges no image; pass "
                "--upsamplers with runs of train_text_to_image upsampler"
            )
        others.append(model)
    return Cascade(first, others).eval()


def check_noises(cascade: Cascade, args: Args) -> None:
    """Refuse noise that an upsampler has not seen, before anything is drawn.

    Raises:
        ValueError: an upsampler was trained with less.
    """
    for path, most in zip(args.upsamplers, cascade.most_noises, strict=True):
        if max(args.noises) > most:
            raise ValueError(
                f"noises go up to {max(args.noises):g}, and {path} was trained with at most "
                f"{most:g}; pass --noises with no more"
            )


def of_scenes(base: Path, cascade: Cascade) -> bool:
    """The base was trained on scenes, and the cascade draws them whole."""
    _, settings = read_config(base)
    return settings.get("data") == "scenes" and cascade.image_shape == SCENE


def drawn(cascade: Cascade, texts: list[str], args: Args) -> np.ndarray:
    """A row for each caption: the small image, and what comes of it with each noise."""
    import torch
    from torch.nn.functional import interpolate

    from generative.training.pictures import image_grid, labelled, sheet

    side = cascade.image_shape[1]
    columns: list[Tensor] = []
    heads: list[str] = []
    for noise in args.noises:
        # The small images are the same ones each time.
        same = torch.Generator(cascade.base.device).manual_seed(args.seed)
        small, *_, large = cascade.stages(texts, same, scale=args.scale, noise=noise)
        if not columns:
            columns, heads = [interpolate(small, (side, side))], [f"{small.shape[-1]} pixels wide"]
        columns.append(large)
        heads.append(f"noise {noise:g}")
    scale, rows = max(1, 96 // side), []
    for row in torch.stack(columns, 1):
        cells = [image_grid(image[None], 1, scale) for image in row]
        rows.append(image_grid(row, len(row), scale) if rows else sheet(cells, heads))
    return labelled(rows, texts)


def judged(
    cascade: Cascade, world: CaptionedScenes, args: Args, generator: torch.Generator
) -> dict[str, float]:
    """Shares of scenes that the detector finds, for each noise; see `Args`."""
    import torch

    from generative.known.scene_scores import Accuracy, accuracy
    from generative.known.scenes import draw
    from generative.text_to_image import shrink
    from scripts.common.small_scenes import small_accuracy

    device = cascade.base.device
    texts, cells = world.draw(args.samples, generator)
    whole = draw(cells)
    low = cascade.base.sample(
        texts, torch.Generator(device).manual_seed(args.seed), scale=args.scale
    )
    found: dict[str, float] = {}

    def tell(name: str, scores: Accuracy) -> None:
        for what, (share, least, most) in (
            (f"satisfied{name}", scores.satisfied), (f"rejected{name}", scores.rejected),
        ):  # fmt: skip
            found.update({what: share, f"{what}_low": least, f"{what}_high": most})

    tell("_by_base", small_accuracy(low.cpu(), texts))
    real = shrink(whole, whole.shape[-1] // low.shape[-1]).to(device)
    for noise in args.noises:
        for name, small in (("", low), ("_of_real", real)):
            same = torch.Generator(device).manual_seed(args.seed)
            images = cascade.enlarge(small, texts, same, scale=args.scale, noise=noise)[-1]
            tell(f"_at_noise_{noise:g}{name}", accuracy(images.cpu(), texts))
    return found


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
