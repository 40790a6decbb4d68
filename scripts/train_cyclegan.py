"""Train CycleGAN: images of one set as those of another, and back, without pairs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Folder, Seed, Workers
from generative.training.run import Run
from generative.translation.config import CycleGANConfig, CycleGANLossConfig
from scripts.common.missing import folder_of
from scripts.train_gan import PAIRS

if TYPE_CHECKING:
    from torch import Tensor

    from generative.data.image_set import ImageSet
    from generative.translation import CycleGAN


@dataclass(frozen=True)
class Args(Checked):
    """Train CycleGAN: images of one set as those of another, and back, without pairs.

    The result has the mean absolute difference of test images there and back, `cycle`, and of
    sprites the share whose shape, place and size are kept, the share that have the colour most
    often given to theirs, and the number of colours, of both ways, that are paired rightly.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/cyclegan")
    """Run folder; the trained networks are in its `model` folder, in `images` are rows of images,
    of what they become, and of what this becomes; of the first set, then of the second."""
    data: Literal["folders", "palettes"] = "folders"
    """Images of two folders, or sprites in two palettes of which one mapping leads into the other.
    """
    first_dir: Path = Path("data/first")
    """Folder of images of the first set."""
    second_dir: Path = Path("data/second")
    """Folder of images of the second set."""
    model: CycleGANConfig = field(default_factory=CycleGANConfig)
    loss: CycleGANLossConfig = field(default_factory=CycleGANLossConfig)
    steps: Count = 200_000
    """Updates."""
    batch_size: Count = 1
    """Images of each set in an update."""
    log_every: Count = 100
    picture_every: Count = 1000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "palettes"
# Three levels of the critics see the whole of a small image.
SMALL = CycleGANConfig((3, 32, 32), 8, 1, 8, 3, critic_norm="none")
# Images that are to come back need Adam's usual averages.
STEADY = replace(PAIRS, penalty_every=4, penalty_end=0.1, beta1=0.5, beta2=0.99, ema=0.99)
PRESETS = {
    "paper": Args(),
    "palettes": Args(
        data="palettes",
        model=SMALL,
        loss=CycleGANLossConfig(STEADY, identity=0.0, buffer_size=0),
        steps=1500,
        batch_size=16,
        picture_every=500,
    ),
    "palettes-paper": Args(
        data="palettes",
        model=CycleGANConfig((3, 32, 32), 16, 3, 16, 2),
        steps=1500,
        batch_size=16,
        picture_every=500,
    ),
    "smoke": Args(
        data="palettes",
        model=CycleGANConfig((3, 32, 32), 2, 1, 4, 2),
        loss=CycleGANLossConfig(buffer_size=10),
        steps=10,
        batch_size=4,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.training.loop import fit
    from generative.training.pictures import strips
    from generative.translation import CycleGANLearner

    with Run.open(args, kind="train_cyclegan") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        sets = load_sets(args.data, args.first_dir, args.second_dir, args.model.shape)
        train, test = ([images.part(part) for images in sets] for part in ("train", "test"))
        torch.manual_seed(run.seed_for("weights"))
        learner = CycleGANLearner(args.model.build().to(run.device), args.loss, args.steps)

        def batch(step: int):
            return tuple(
                images.as_tensor(rows, run.device)
                for images, rows in zip(train, draw_rows(args, run, train, step), strict=True)
            )

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                model = learner.kept
                run.metrics.log_image(step, "translations", strips(*there_and_back(model, test)))
                if args.data == "palettes":
                    found = score(model, test, sets)
                    # The logged cycle is that of training.
                    run.metrics.log(step, {key: x for key, x in found.items() if key != "cycle"})

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training CycleGAN", on_log=show,
        )  # fmt: skip
        model = learner.kept
        model.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **score(model, test, sets)})
        return run.path / "model"


def load_sets(
    data: str, first_dir: Path, second_dir: Path, shape: tuple[int, int, int]
) -> list[ImageSet]:
    """Both sets of images, in the shape of the model.

    Raises:
        FileNotFoundError: a folder holds no images; says which option names it.
    """
    from generative.data.image_set import fit_images
    from generative.data.images import load_images
    from generative.known.palettes import SECOND, recoloured
    from generative.known.sprites import sprites

    if data == "palettes":
        sets = [sprites(), recoloured(sprites(), SECOND)]
        return [fit_images(images, shape) for images in sets]
    found = []
    for option, folder in (("--first-dir", first_dir), ("--second-dir", second_dir)):
        with folder_of(option):
            found.append(load_images(folder, shape[1], shape[0] == 3))
    return found


def draw_rows(args: Args, run: Run, train: list[ImageSet], step: int):
    """Rows of a batch of each set, drawn apart from each other."""
    import numpy as np

    from generative.known.palettes import FREQUENCIES, PARTNERS, by_frequency

    frequencies = np.empty((2, len(PARTNERS)))
    frequencies[0] = frequencies[1, list(PARTNERS)] = FREQUENCIES
    for number, images in enumerate(train):
        rng = run.rng("batch", step, number)
        if args.data == "palettes":
            yield by_frequency(rng, images, args.batch_size, frequencies[number].tolist())
        else:
            yield rng.integers(len(images), size=args.batch_size)


def there_and_back(model: CycleGAN, test: list[ImageSet], n: int = 10) -> list[Tensor]:
    """n images of the first set, these there, and back again; then the same of the second."""
    import numpy as np

    from generative.data.image_set import evenly

    device, rows = next(model.parameters()).device, []
    for images, back in zip(test, (False, True), strict=True):
        x = images.as_tensor(np.asarray(evenly(len(images), n)), device)
        there = model.translate(x, back=back)
        rows += [x, there, model.translate(there, back=not back)]
    return rows


def pairings(model: CycleGAN, test: list[ImageSet], known: list[ImageSet]) -> list[dict]:
    """Translations of test sprites, of the first set there and of the second set back.

    Returns:
        For each way: `counts` (6, 6), sprites of a colour (row) whose nearest sprite of the other
        set has another one (column); `kept` and `shape`, the shares whose shape, place and size, or
        whose shape, are kept; `valid`, the share that are a sprite of the other set at all.
    """
    import numpy as np

    from generative.gan import coverage

    device, result = next(model.parameters()).device, []
    names = known[0].factor_names
    colour, others = names.index("colour"), [i for i, name in enumerate(names) if name != "colour"]
    for number, images in enumerate(test):
        made = model.translate(images.as_tensor(device=device), back=number == 1).cpu()
        target = known[1 - number]
        near = coverage(made, target)
        found = target.factors[near.nearest.numpy()]
        counts = np.zeros((6, 6), dtype=np.int64)
        np.add.at(counts, (images.factors[:, colour], found[:, colour]), 1)
        same = found == images.factors
        result.append({
            "counts": counts,
            "kept": float(same[:, others].all(1).mean()),
            "shape": float(same[:, names.index("shape")].mean()),
            "valid": near.precision,
        })  # fmt: skip
    return result


def score(model: CycleGAN, test: list[ImageSet], known: list[ImageSet]) -> dict[str, float]:
    """Difference of test images there and back; of sprites what becomes of shapes and colours."""
    import numpy as np

    from generative.known.palettes import PARTNERS

    rows = there_and_back(model, test, n=200)
    result = {"cycle": float(sum((rows[i] - rows[i + 2]).abs().mean() for i in (0, 3)) / 2)}
    if "colour" not in known[0].factor_names:
        return result
    ways = pairings(model, test, known)
    given = [way["counts"].argmax(1) for way in ways]
    right = (given[0] == PARTNERS).sum() + (given[1] == np.argsort(PARTNERS)).sum()
    counts = np.concatenate([way["counts"] for way in ways])
    return result | {
        "shape": sum(way["shape"] for way in ways) / 2,
        "kept": sum(way["kept"] for way in ways) / 2,
        "valid": sum(way["valid"] for way in ways) / 2,
        "single_valued": float(counts.max(1).sum() / counts.sum()),
        "colours_right": int(right),
    }


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
