"""Let trained text-to-image models draw the same prompts, and have an exact judge read them.

python scripts/compare_text_to_image.py --runs runs/text_to_image runs/dalle runs/muse
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Folder, Length, NonNegative, Seed
from generative.training.run import Run, read_config
from generative.training.words import made_by

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from generative.known.prompts import CategoryScore, Prompt

RESULT_NAME = "text_to_image.json"
PICTURE_NAME = "text_to_image.png"
EXACT = "exact denoiser"
"""Name of the sampler that no model of this data can beat."""


@dataclass(frozen=True)
class Args(Checked):
    """Let trained text-to-image models draw the same prompts, and have an exact judge read them.

    The prompts are those of `generative.known.prompts`, after DrawBench: counting, colours, places,
    binding, long captions, and signs of those that were trained on signs (--mix.sign). A detector
    reads each picture without error, so every share is of the model alone; intervals are Wilson's,
    of 95 %. Beside the models stands
    the exact denoiser with a sampler of 30 steps, which is right as often as guidance and sampler
    allow.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"results"})

    out: Folder = Path("runs/compare_text_to_image")
    """Run folder."""
    runs: Annotated[tuple[Path, ...], Length(0, 16)] = ()
    """Runs of train_text_to_image (also latent and imagen), train_latent_diffusion and
    train_text_to_codes, on scenes."""
    exact: bool = True
    """Draw with the exact guided denoiser too."""
    samples: Count = 20
    """Pictures for each prompt."""
    scale: NonNegative = 1.0
    """Guidance of diffusion models; those that write codes draw without."""
    results: Folder | None = None
    """Folder that also gets text_to_image.json and text_to_image.png."""
    device: Device = "cpu"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.runs and not self.exact:
            raise ValueError(
                "there is nothing to compare: runs is empty and exact is off; pass --runs with "
                "trained models"
            )
        names = [path.name for path in self.runs]
        if len(set(names)) < len(names):
            raise ValueError(
                f"runs have the same name, {', '.join(sorted(names))}; a table names each by its "
                "folder: rename one"
            )


DEFAULT_PRESET = "exact"
PRESETS = {"exact": Args(), "smoke": Args(samples=1)}


class System(NamedTuple):
    """Source of pictures."""

    name: str
    kind: str
    sample: Callable[[list[str]], Tensor]
    """n captions -> pictures (n, 3, 24, 24)."""
    weights: int
    spells: bool = True
    """It was trained on signs, and is asked for them."""

    def asked(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts that it can know."""
        return [p for p in prompts if self.spells or p.category != "spelling"]


def main(args: Args) -> Path:
    """Returns the file of the comparison."""
    from generative.known.prompts import PROMPTS, judge
    from generative.training.files import (
        MAX_LIST_BYTES,
        read_file,
        read_json,
        write_file,
        write_json,
    )

    with Run.open(args, kind="compare_text_to_image") as run:
        report = run.path / RESULT_NAME
        if not run.done:
            systems = find_systems(args, run)
            records = {
                system.name: {
                    "kind": system.kind,
                    "weights": system.weights,
                    "categories": told(judge(system.sample, system.asked(PROMPTS), args.samples)),
                }
                for system in systems
            }
            versions = {name: run.versions[name] for name in ("python", "cpu", "packages")}
            settings = {"samples": args.samples, "scale": args.scale, "seed": args.seed}
            write_json(report, {"systems": records, "settings": settings, "versions": versions})
            save_picture(run.path / PICTURE_NAME, side_by_side(systems, PROMPTS))
            best = {
                f"satisfied_by_{name}": record["categories"]["all"]["satisfied"][0]
                for name, record in records.items()
            }
            run.finish(best)
        found = read_json(report, MAX_LIST_BYTES)
        print(describe(found))
        if args.results is not None:
            args.results.mkdir(parents=True, exist_ok=True)
            write_json(args.results / RESULT_NAME, found)
            picture = read_file(run.path / PICTURE_NAME, MAX_LIST_BYTES)
            write_file(args.results / PICTURE_NAME, picture)
        return report


def find_systems(args: Args, run: Run) -> list[System]:
    """All that is compared, the exact denoiser first.

    Raises:
        ValueError: a run holds another kind of model, or one of other pictures.
    """
    import torch

    systems = []
    if args.exact:
        from generative.diffusion.config import ScheduleConfig
        from generative.diffusion.schedules import Schedule
        from generative.known.captioned_scenes import CaptionedScenes
        from scripts.common.text_to_image import exact_sampler

        stations = Schedule(ScheduleConfig("cosine")).steps(30)
        draw = exact_sampler(CaptionedScenes(), stations, str(run.device))
        random = torch.Generator(run.device).manual_seed(args.seed)
        systems.append(System(EXACT, "listed", lambda texts: draw(texts, args.scale, random), 0))
    return [*systems, *(find_system(path, args, run) for path in args.runs)]


def find_system(path: Path, args: Args, run: Run) -> System:
    """The trained model of a run.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: it holds another kind of model, or one of other pictures.
    """
    import torch

    from generative.loading import load_model
    from generative.text_to_image import TextToImage

    advice = made_by("--runs", "train_text_to_image", "train_text_to_codes")
    model: Any = load_model(path, run.device, advice=advice)
    model.eval()
    weights = sum(p.numel() for p in model.parameters())
    random = torch.Generator(run.device).manual_seed(args.seed)
    if type(model) is TextToImage and model.words:
        shape, spells = tuple(model.config.image_shape), model.spelled

        def sample(texts: list[str]) -> Tensor:
            return model.sample(texts, random, scale=args.scale)

    elif model.saved_name in ("DALLE", "Parti", "MUSE"):
        from generative.known.scenes import LETTER
        from scripts.common.clip import load_vocabulary
        from scripts.common.scene_codes import load_codes

        letters = model.config.num_codes > LETTER
        codes_of = read_config(path)[1].get("codes")
        codes = load_codes(Path(codes_of) if codes_of else None, run.device, letters)
        tokeniser, shape = load_vocabulary(path, path), codes.image_shape
        spells = tokeniser.spelled

        def sample(texts: list[str]) -> Tensor:
            tokens = tokeniser.encode(texts).to(run.device)
            return codes.decode(model.sample(tokens, random))

    else:
        raise ValueError(
            f"{path} holds a {model.saved_name}, which draws no picture of a text alone; pass runs "
            "of train_text_to_image, train_latent_diffusion or train_text_to_codes"
        )
    if tuple(shape) != (3, 24, 24):
        raise ValueError(
            f"{path} draws pictures {tuple(shape)}, and the judge reads scenes (3, 24, 24); pass a "
            "run that was trained on scenes"
        )
    return System(path.name, model.saved_name, sample, weights, spells)


def told(scores: list[CategoryScore]) -> dict[str, Any]:
    """Scores as JSON: for each category both shares with their intervals, and hits by prompt."""
    return {
        score.category: {
            "satisfied": list(score.accuracy.satisfied),
            "rejected": list(score.accuracy.rejected),
            "pictures": score.accuracy.n,
            "right": score.right,
        }
        for score in scores
    }


def describe(found: dict[str, Any]) -> str:
    """The comparison as a Markdown table: a row for each system, a column for each category.

    "-" is what a system was not asked for, and "all" leaves it out.
    """
    systems = found["systems"]
    categories = list(max((record["categories"] for record in systems.values()), key=len))
    lines = [
        "| system | " + " | ".join(categories) + " | no picture of the world |",
        "|---" * (len(categories) + 2) + "|",
    ]
    for name, record in systems.items():
        cells = []
        for category in categories:
            score = record["categories"].get(category)
            if score is None:
                cells.append("-")
                continue
            share, low, high = score["satisfied"]
            cells.append(f"{share:.0%} ({low:.0%} to {high:.0%})")
        rejected = record["categories"]["all"]["rejected"][0]
        lines.append(f"| {name} | {' | '.join(cells)} | {rejected:.1%} |")
    return "\n".join(lines)


def side_by_side(systems: list[System], prompts: Sequence[Prompt]) -> np.ndarray:
    """Two pictures of each system for the first prompt of every category, below the prompt; a grey
    place for what it was not asked for."""
    import numpy as np
    import torch

    from generative.training.pictures import image_grid, sheet

    by_category = {prompt.category: prompt for prompt in reversed(prompts)}
    firsts = [by_category[name] for name in dict.fromkeys(p.category for p in prompts)]
    rows, titles = [], []
    for system in systems:
        captions = [prompt.caption for prompt in system.asked(firsts)]
        drawn = system.sample([caption for caption in captions for _ in range(2)]).cpu()
        grids = [image_grid(pair, 2, 6) for pair in torch.split(drawn, 2)]
        before = f"{system.name}: " if len(systems) > 1 else ""
        left_out = len(firsts) - len(captions)
        rows += grids + [np.full_like(grids[0], 127)] * left_out
        titles += [before + caption for caption in captions]
        titles += [before + "not trained on signs"] * left_out
    return sheet(rows, titles, columns=len(firsts))


def save_picture(file: Path, picture: np.ndarray) -> None:
    """Write uint8 (H, W, 3) as PNG."""
    import io

    from PIL import Image

    from generative.training.files import write_file

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png")
    write_file(file, buffer.getvalue())


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
