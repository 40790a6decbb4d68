"""Train every family of images for the same CPU minutes, and tell how far samples are off."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from generative.training.cli import start
from generative.training.ranges import Checked, Count, Folder, Positive, Seed, Workers
from generative.training.run import Run
from scripts import (
    train_attention_gan,
    train_autoencoder,
    train_classifier,
    train_code_prior,
    train_conditional_gan,
    train_diffusion,
    train_energy,
    train_flow_matching,
    train_gan,
    train_glow,
    train_image_vae,
    train_pixelcnn,
    train_progan,
    train_rbm,
    train_score,
    train_stylegan,
    train_stylegan2,
    train_vae_gan,
    train_vqgan,
    train_vqvae,
    train_wgan,
)
from scripts.common.images import ImageData, load_images
from scripts.compare_families import fill_in

if TYPE_CHECKING:
    from torch import Tensor

    from generative.classifier import Classifier
    from generative.data.image_set import ImageSet

MARKS = "<!-- images: begin -->", "<!-- images: end -->"
"""Lines of docs/families.md between which the table stands."""
SHAPE = (1, 32, 32)
"""Shape (C, H, W) of the images for every family."""


@dataclass(frozen=True)
class Entry:
    """A family: its training script, and the preset there for these images."""

    script: ModuleType
    preset: str = "fashion"
    codes: str = ""
    """Family whose codes it draws, which is trained before it, for its own minutes."""
    fitted: Callable[[Any, int], dict[str, Any]] = lambda settings, steps: {}
    """Changes that a number of steps asks for."""

    @property
    def settings(self) -> Any:
        """Settings of the preset."""
        return self.script.PRESETS[self.preset]


def grown(settings: Any, steps: int) -> dict[str, Any]:
    """Seven eighths of the steps for the seven phases up to 32x32, whatever their number."""
    images = steps * settings.batch_size // 8
    return {"loss": replace(settings.loss, phase_images=images)}


FAMILIES = {
    "autoencoder": Entry(train_autoencoder),
    "VAE": Entry(train_image_vae),
    "GAN": Entry(train_gan),
    "WGAN-GP": Entry(train_wgan),
    "conditional GAN": Entry(train_conditional_gan),
    "ProGAN": Entry(train_progan, fitted=grown),
    "StyleGAN": Entry(train_stylegan, fitted=grown),
    "StyleGAN2": Entry(train_stylegan2),
    "SAGAN": Entry(train_attention_gan, "fashion-sagan"),
    "BigGAN": Entry(train_attention_gan),
    "VAE-GAN": Entry(train_vae_gan),
    "VQ-VAE": Entry(train_vqvae),
    "VQ-VAE with PixelCNN": Entry(train_code_prior, codes="VQ-VAE"),
    "VQ-GAN": Entry(train_vqgan),
    "VQ-GAN with GPT": Entry(train_code_prior, "fashion-gpt", codes="VQ-GAN"),
    "ViT VQ-GAN": Entry(train_vqgan, "fashion-vit"),
    "ViT VQ-GAN with GPT": Entry(train_code_prior, "fashion-gpt", codes="ViT VQ-GAN"),
    "PixelCNN": Entry(train_pixelcnn),
    "PixelRNN": Entry(train_pixelcnn, "fashion-rnn"),
    "Glow": Entry(train_glow),
    "energy": Entry(train_energy),
    "RBM": Entry(train_rbm),
    "score": Entry(train_score),
    "diffusion": Entry(train_diffusion),
    "flow matching": Entry(train_flow_matching),
}


@dataclass(frozen=True)
class Args(Checked):
    """Train every family of images for the same CPU minutes, and tell how far samples are off.

    The measures are distances between features of a classifier that is trained here, of samples and
    of the training images: that of Frechet, beside it that of as many test images, as the least
    that can be expected; and the kernel distance, which does not depend on how many there are.
    Steps are chosen by a short trial so that training takes the minutes. docs/families.md gets a
    table, docs/images/families a strip of pictures.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"docs"})

    out: Folder = Path("runs/compare-images")
    """Run folder, with a run for each family and one for the classifier."""
    data: ImageData = "fashion-mnist"
    """Images to train on; they need a test part and the factor `class`."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name."""
    only: tuple[str, ...] = ()
    """Families to train; all by default."""
    minutes: Positive = 5.0
    """CPU minutes of each training; samples are drawn for as long at most, 100 at a time."""
    trial_steps: Count = 20
    """Steps by which a longer trial exceeds one of a single step, at first: what they cost tells
    how many steps fill the minutes. Quick steps get longer trials."""
    samples: Count = 10_000
    """Samples of each family, at most; of those that draw slowly there are fewer, and as many test
    images are set beside them. Those that are not finite are counted and left out."""
    classifier: train_classifier.Args = field(
        default_factory=lambda: train_classifier.PRESETS["fashion"]
    )
    """Training of the classifier; out, data, threads and seed are those of this command."""
    docs: Folder = Path("docs")
    """Folder of families.md, results/families and images/families."""
    threads: Workers = 1
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = set(self.only) - set(FAMILIES)
        if unknown:
            raise ValueError(f"only is {self.only}; families are {', '.join(FAMILIES)}")
        needed = {FAMILIES[name].codes for name in self.only} - {""}
        if self.only and not needed <= set(self.only):
            missing = ", ".join(sorted(needed - set(self.only)))
            raise ValueError(f"only is {self.only}; a prior needs the codes of {missing}: add it")
        shape = self.classifier.cnn.image_shape
        if self.classifier.network != "cnn" or shape != SHAPE:
            raise ValueError(
                f"the classifier is {self.classifier.network} of {shape}; its features need a cnn "
                f"of {SHAPE}"
            )


DEFAULT_PRESET = "digits"
PRESETS = {
    "digits": Args(
        data="digits",
        minutes=1.0,
        samples=2000,
        docs=Path("runs/compare-images/docs"),
    ),
    "fashion": Args(),
    "smoke": Args(
        data="digits",
        only=("VAE", "GAN"),
        minutes=0.005,
        trial_steps=1,
        samples=20,
        classifier=replace(train_classifier.PRESETS["fashion"], steps=5, batch_size=16),
        docs=Path("runs/compare-images/docs"),
    ),
}


def main(args: Args) -> Path:
    """Returns the file of results."""
    from generative.training.files import read_json, write_json

    with Run.open(args, kind="compare_images") as run:
        report = run.path / "images.json"
        if not run.done:
            images = load_images(args.data, args.data_dir, SHAPE)
            classifier, accuracy = train_judge(args, run)
            judge = Judge(classifier, images)
            names = [name for name in FAMILIES if not args.only or name in args.only]
            rows = {name: measure(name, args, run, judge) for name in names}
            write_json(report, {
                "families": rows, "data": args.data, "minutes": args.minutes, "seed": args.seed,
                "classifier_accuracy": accuracy, "test_images": min(args.samples, len(judge.test)),
                "floors": judge.floor(args.samples)._asdict(), "versions": run.versions,
            })  # fmt: skip
            picture(rows, run, images.part("test"))
            run.finish({"families": len(rows), "classifier_accuracy": accuracy})
        publish(read_json(report), run.path, args.docs)
        return report


def train_judge(args: Args, run: Run) -> tuple[Classifier, float]:
    """Train the classifier in a run of its own; returns it with its accuracy on test images."""
    from generative.classifier import Classifier
    from generative.training.run import read_result

    folder = run.path / "classifier"
    settings = replace(
        args.classifier, out=folder, data=args.data, data_dir=args.data_dir, threads=args.threads,
        seed=args.seed,
    )  # fmt: skip
    train_classifier.main(settings)
    accuracy = read_result(folder)["test_accuracy"]
    return Classifier.from_pretrained(folder / "model"), accuracy


class Distances(NamedTuple):
    """Distances of images from the training images, by features of a classifier."""

    frechet: float
    kernel: float


class Judge:
    """Distances of images from the training images, by features of a classifier.

    Args:
        classifier: whose features are compared.
        images: all images; those of the training part are compared with, for the kernel distance
            at most `most` of them.
    """

    def __init__(self, classifier: Classifier, images: ImageSet, most: int = 10_000):
        from generative.classifier import moments

        self.classifier, self.test = classifier, images.part("test")
        known = self._features(images.part("train"))
        self.moments = moments(known)
        self.known = known[:: math.ceil(len(known) / most)]

    def distances(self, x: Tensor) -> Distances:
        """Distances of images (N, C, H, W)."""
        from generative.classifier import image_features

        return self._compare(image_features(self.classifier, x))

    def floor(self, n: int) -> Distances:
        """Distances of n test images, or of all where there are fewer."""
        return self._compare(self._features(self.test.thin(n)))

    def _compare(self, features: Tensor) -> Distances:
        from generative.classifier import frechet_distance, kernel_distance, moments

        return Distances(
            frechet_distance(self.moments, moments(features)),
            kernel_distance(self.known, features),
        )

    def _features(self, images: ImageSet) -> Tensor:
        """A thousand images at a time, as there may be many."""
        import torch

        from generative.classifier import image_features

        slices = [slice(first, first + 1000) for first in range(0, len(images), 1000)]
        parts = [image_features(self.classifier, images.as_tensor(rows)) for rows in slices]
        return torch.cat(parts)


def measure(name: str, args: Args, run: Run, judge: Judge) -> dict[str, Any]:
    """Train a family in its own run and measure its samples; returns its row."""
    from generative.loading import load_model
    from generative.training.files import read_json, write_json
    from generative.training.run import read_result

    entry, folder, file = FAMILIES[name], run.path / name, run.path / f"{name}.json"
    if file.exists():
        return read_json(file)
    plan = run.path / f"{name}-steps.json"
    if not plan.exists():  # so that a run that was killed goes on with the same steps
        seconds = step_seconds(entry, args, run.path)
        write_json(plan, {"steps": max(2, round(60 * args.minutes / seconds))})
    planned = read_json(plan)
    steps = planned["steps"]
    print(f"{name}: {steps:,} steps")
    if "cpu_seconds" not in planned:  # known where a run was killed after this training
        began = time.process_time()
        entry.script.main(settings_of(entry, args, run.path, name, steps))
        planned["cpu_seconds"] = round(time.process_time() - began, 1)
        write_json(plan, planned)
    model = load_model(folder)
    seed = run.seed_for("samples", 0)
    x = draw(folder, args.samples, judge.test, seed, 60 * args.minutes)
    finite = x.isfinite().flatten(1).all(1)
    row: dict[str, Any] = {
        "steps": steps,
        "cpu_seconds": planned["cpu_seconds"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "samples": len(x),
        "not_finite": int((~finite).sum()),
        "distances": judge.distances(x[finite])._asdict() if finite.sum() > 1 else None,
        "floors": judge.floor(len(x))._asdict(),
        "reconstructed": not hasattr(model, "sample"),
    }
    bits = read_result(folder).get("test_bits_per_dim")
    write_json(file, row if bits is None else {**row, "bits_per_dim": bits})
    return read_json(file)


def settings_of(entry: Entry, args: Args, work: Path, name: str, steps: int) -> Any:
    """Settings of a family's script for so many steps, with one picture at the end.

    Args:
        work: folder of all runs.
        name: folder of this one there.
    """
    log_every = min(50, steps)
    changes = entry.fitted(entry.settings, steps)
    if entry.codes:
        changes["codes"] = work / entry.codes
    return replace(
        entry.settings, out=work / name, data=args.data, data_dir=args.data_dir, steps=steps,
        log_every=log_every, picture_every=steps - steps % log_every, threads=args.threads,
        seed=args.seed, **changes,
    )  # fmt: skip


def step_seconds(entry: Entry, args: Args, work: Path) -> float:
    """CPU seconds of a training step: the difference of two short trainings.

    What comes before and after the steps is the same in both, and so left out. A first training is
    not counted, since it loads code; the longer one grows until its steps take a twentieth of
    the minutes, which stands out of what one training differs from the next by chance.
    """
    folder = work / "trial"

    def train(steps: int) -> float:
        shutil.rmtree(folder, ignore_errors=True)
        began = time.process_time()
        entry.script.main(settings_of(entry, args, work, folder.name, steps))
        return time.process_time() - began

    train(1)
    short, more = train(1), args.trial_steps
    while (seconds := train(1 + more) - short) < 60 * args.minutes / 20:
        more *= 4
    shutil.rmtree(folder)
    return seconds / more


def draw(folder: Path, n: int, test: ImageSet, seed: int, seconds: float = math.inf) -> Tensor:
    """n samples in [0, 1] of the model of a run; without a sampler n test images there and back.

    A prior of codes draws by the model that its run kept beside it.

    Args:
        seconds: CPU time after which no further 100 samples are begun.
    """
    import torch

    from generative.loading import load_model

    model: Any = load_model(folder)
    if not hasattr(model, "sample"):
        known = test.thin(n).as_tensor()
        with torch.no_grad():
            parts = [model.reconstruct(part) for part in known.split(100)]
        return torch.cat(parts).clamp(0, 1)
    generator = torch.Generator().manual_seed(seed % 2**63)
    parts, end = [], time.process_time() + seconds
    while (left := n - 100 * len(parts)) > 0 and (not parts or time.process_time() < end):
        parts.append(model.sample(min(100, left), generator=generator))
    if (folder / "autoencoder").is_dir():
        autoencoder: Any = load_model(folder / "autoencoder")
        with torch.no_grad():
            parts = [autoencoder.decode(codes) for codes in parts]
    return torch.cat(parts).clamp(0, 1)


def picture(rows: dict[str, Any], run: Run, test: ImageSet) -> None:
    """Draw a row of ten test images, then one of each family's samples."""
    from PIL import Image

    from generative.training.pictures import strips

    shown = [test.thin(10).as_tensor()]
    for name in rows:
        x = draw(run.path / name, 10, test, run.seed_for("samples", 0))
        shown.append(x.nan_to_num(0.0))
    sheet = strips(*shown, scale=2, labels=["test images", *rows])
    Image.fromarray(sheet).save(run.path / "images.png", optimize=True)


def publish(found: dict[str, Any], run: Path, docs: Path) -> None:
    """Copy results and picture into docs, and put the table between the marks of families.md."""
    for name, folder in (("images.json", "results"), ("images.png", "images")):
        target = docs / folder / "families" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, target)
    text = table(found)
    print(text)
    fill_in(docs / "families.md", MARKS, text)


def table(found: dict[str, Any]) -> str:
    """Table of the results as Markdown, and the picture."""
    least = found["floors"]
    lines = [
        "| row | family | parameters | steps | CPU seconds | bits/dim | samples | Frechet "
        "distance | of as many test images | kernel distance |",
        "|---|---|---|---|---|---|---|---|---|---|",
        f"| 1 | test images | | | | | {found['test_images']:,} | | {least['frechet']:.2f} | "
        f"{least['kernel']:z.3f} |",
    ]
    for place, (name, row) in enumerate(found["families"].items(), 2):
        bits = f"{row['bits_per_dim']:.3f}" if "bits_per_dim" in row else ""
        what = "reconstructed" if row["reconstructed"] else f"{row['samples']:,}"
        if row.get("not_finite"):
            what += f", {row['not_finite']:,} of them not finite"
        frechet, kernel = "", ""
        if (off := row["distances"]) is not None:
            frechet, kernel = f"{off['frechet']:.2f}", f"{off['kernel']:z.3f}"
        cells = [
            str(place), name, f"{row['parameters']:,}", f"{row['steps']:,}",
            f"{row['cpu_seconds']:.0f}", bits, what, frechet, f"{row['floors']['frechet']:.2f}",
            kernel,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    accuracy = found["classifier_accuracy"]
    minutes = f"{found['minutes']:g} CPU minute{'s' if found['minutes'] != 1 else ''}"
    return "\n".join([
        *lines, "", f"Seed {found['seed']}, {minutes} of training each; the "
        f"classifier is right about {accuracy:.2%} of the test images.", "",
        "![A row of test images, then a row of each family](images/families/images.png)",
    ])  # fmt: skip


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
