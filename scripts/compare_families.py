"""Train every family on the same CarRacing frames, and show the samples of each."""

from __future__ import annotations

import importlib
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from generative.autoencoder.config import ConvAutoencoderConfig
from generative.energy.config import ConvEnergyConfig, LangevinConfig
from generative.flow.config import GlowConfig
from generative.gan.config import GANConfig, WGANConfig
from generative.training.cli import start
from generative.training.ranges import Checked, Folder, Positive, Seed, Workers
from generative.training.run import Run
from generative.vae.config import ImageVAEConfig
from scripts import (
    train_autoencoder,
    train_diffusion,
    train_energy,
    train_gan,
    train_glow,
    train_image_vae,
    train_pixelcnn,
    train_score,
    train_wgan,
)

MARKS = "<!-- frames: begin -->", "<!-- frames: end -->"
"""Lines of docs/families.md between which the table stands."""
SHAPE = (3, 32, 32)
"""Shape (C, H, W) of the frames for every family."""


@dataclass(frozen=True)
class Entry:
    """A family's training script, its model, and the changes to its preset `frames`."""

    script: ModuleType
    model: str
    """Module and class of the model."""
    changes: dict[str, Any]
    """Sizes for 32x32 pixels, and steps for two to four minutes of one core."""

    def settings(self) -> Any:
        """The script's settings."""
        return replace(self.script.PRESETS["frames"], **self.changes)


FAMILIES = {
    "autoencoder": Entry(
        train_autoencoder,
        "generative.autoencoder:Autoencoder",
        {
            "model": ConvAutoencoderConfig(SHAPE, latent_dim=32, channels=(32, 64, 128)),
            "batch_size": 32,
            "steps": 2000,
        },
    ),
    "VAE": Entry(
        train_image_vae,
        "generative.vae:VAE",
        {
            "model": ImageVAEConfig(
                SHAPE, latent_dim=32, channels=(32, 64, 128), likelihood="gaussian"
            ),
            "batch_size": 32,
            "steps": 2000,
        },
    ),
    "GAN": Entry(
        train_gan,
        "generative.gan:GAN",
        {
            "model": GANConfig(SHAPE, 32, (16, 32, 64), "none", bias=True, dropout=0.0),
            "steps": 2000,
        },
    ),
    "WGAN-GP": Entry(
        train_wgan,
        "generative.gan:GAN",
        {
            "model": WGANConfig(SHAPE, latent_dim=32, widths=(16, 32, 64), dropout=0.0),
            "steps": 1000,
        },
    ),
    "PixelCNN": Entry(
        train_pixelcnn, "generative.pixelcnn:PixelCNN", {"batch_size": 8, "steps": 800}
    ),
    "Glow": Entry(
        train_glow,
        "generative.flow:ImageFlow",
        {
            "model": GlowConfig(SHAPE, num_scales=3, num_steps=4, hidden_dim=48, levels=32),
            "batch_size": 32,
            "steps": 800,
        },
    ),
    "energy": Entry(
        train_energy,
        "generative.energy:ImageEnergy",
        {
            "model": ConvEnergyConfig(SHAPE, langevin=LangevinConfig(steps=100)),
            "batch_size": 32,
            "steps": 600,
        },
    ),
    "score": Entry(
        train_score,
        "generative.score_matching:ScoreNetwork",
        {"batch_size": 16, "steps": 1500},
    ),
    "diffusion": Entry(
        train_diffusion,
        "generative.diffusion:Diffusion",
        {
            "image": replace(train_diffusion.PRESETS["sprites"].image, levels=32),
            "batch_size": 16,
            "steps": 2500,
        },
    ),
}


@dataclass(frozen=True)
class Args(Checked):
    """Train every family on the same CarRacing frames, and show the samples of each.

    Every family trains by its `frames` preset, but on 32x32 pixels and for fewer steps.
    docs/families.md gets a table, docs/images/families a strip of pictures.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"docs"})

    out: Folder = Path("runs/compare-families")
    """Run folder, with a run for each family."""
    data_dir: Path | None = None
    """Folder of recorded episodes; by default random drivers record some."""
    only: tuple[str, ...] = ()
    """Families to train; all by default."""
    share: Positive = 1.0
    """Steps as a multiple of those in FAMILIES of this file."""
    docs: Folder = Path("docs")
    """Folder of families.md, results/families and images/families."""
    threads: Workers = 1
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = set(self.only) - set(FAMILIES)
        if unknown:
            raise ValueError(f"only is {self.only}; families are {', '.join(FAMILIES)}")


DEFAULT_PRESET = "all"
PRESETS = {"all": Args(), "smoke": Args(only=("autoencoder", "VAE"), share=0.002)}


def main(args: Args) -> Path:
    """Returns the file of results."""
    from generative.training.files import read_json, write_json

    with Run.open(args, kind="compare_families") as run:
        report = run.path / "families.json"
        if not run.done:
            data_dir = args.data_dir or record(run)
            rows = {name: train(name, args, run, data_dir) for name in args.only or FAMILIES}
            write_json(report, {"families": rows, "versions": run.versions, "seed": args.seed})
            picture(rows, run, data_dir, run.path / "families.png")
            run.finish({"families": len(rows)})
        publish(read_json(report)["families"], run.path, args.docs)
        return report


def record(run: Run) -> Path:
    """Record episodes of random drivers, the same for every family."""
    from scripts import collect_rollouts

    settings = replace(
        collect_rollouts.PRESETS["quick"],
        out=run.path / "rollouts",
        episodes=60,
        workers=1,
        seed=run.seed_for("frames") % 2**31,
    )
    return collect_rollouts.main(settings)


def train(name: str, args: Args, run: Run, data_dir: Path) -> dict[str, Any]:
    """Train a family in its own run; returns its results."""
    from generative.training.files import read_json, write_json
    from generative.training.run import read_result

    entry = FAMILIES[name]
    folder, file = run.path / name, run.path / f"{name}.json"
    if not file.exists():
        settings = entry.settings()
        steps = max(2, round(args.share * settings.steps))
        settings = replace(
            settings,
            out=folder,
            data_dir=data_dir,
            steps=steps,
            log_every=min(50, steps),
            picture_every=steps - steps % min(50, steps),
            threads=args.threads,
            seed=args.seed,
        )
        began = time.process_time()
        entry.script.main(settings)
        seconds = round(time.process_time() - began, 1)
        result, model = read_result(folder), load(name, run.path).eval()
        row: dict[str, Any] = {"steps": steps, "cpu_seconds": seconds}
        if "test_bits_per_dim" in result:
            row["bits_per_dim"] = result["test_bits_per_dim"]
        if hasattr(model, "reconstruct"):
            row["squared_error"] = squared_error(model, data_dir)
        write_json(file, row)
    return read_json(file)


def squared_error(model: Any, data_dir: Path, most: int = 1000) -> float:
    """Mean squared error of reconstructed test frames, for pixels in [0, 1]."""
    import torch

    from scripts.common.images import load_images

    x = load_images("frames", data_dir, model.config.image_shape).part("test")
    x = x.as_tensor(slice(most))
    with torch.no_grad():
        recon = torch.cat([model.reconstruct(part) for part in x.split(100)])
    return float((recon - x).square().mean())


def load(name: str, run: Path) -> Any:
    """Load the trained model of a family."""
    module, _, kind = FAMILIES[name].model.partition(":")
    return getattr(importlib.import_module(module), kind).from_pretrained(run / name / "model")


def picture(rows: dict[str, Any], run: Run, data_dir: Path, path: Path) -> None:
    """Draw a row of eight test frames, then one for each family: samples, or without a sampler the
    reconstructed frames."""
    import torch
    from PIL import Image
    from torch.nn import functional as F

    from generative.training.pictures import strips
    from scripts.common.images import Batches, load_images

    frames = load_images("frames", data_dir, SHAPE).part("test")
    shown = Batches(frames, run, 8)(0)
    shown_rows = [shown]
    for name in rows:
        model = load(name, run.path).eval()
        generator = torch.Generator().manual_seed(run.seed_for("samples", 0) % 2**63)
        if hasattr(model, "sample"):
            images = model.sample(8, generator=generator)
        else:
            with torch.no_grad():
                images = model.reconstruct(shown)
        shown_rows.append(images.clamp(0, 1))
    shown_rows = [F.interpolate(row, size=(64, 64), mode="nearest") for row in shown_rows]
    sheet = strips(*shown_rows, labels=["recorded frames", *rows])
    Image.fromarray(sheet).save(path, optimize=True)


def publish(rows: dict[str, Any], run: Path, docs: Path) -> None:
    """Copy results and picture into docs, and put the table between the marks of families.md."""
    for name, folder in (("families.json", "results"), ("families.png", "images")):
        target = docs / folder / "families" / name.replace("families", "frames")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, target)
    text = table(rows)
    print(text)
    fill_in(docs / "families.md", MARKS, text)


def fill_in(page: Path, marks: tuple[str, str], text: str) -> None:
    """Put text between two lines of a page; nothing if there is no page.

    Raises:
        ValueError: the page has no such lines.
    """
    from generative.training.files import write_file

    begin, end = marks
    if page.exists():
        before, _, rest = page.read_text().partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{page} needs the lines {begin} and {end} once each")
        write_file(page, f"{before}{begin}\n{text}\n{end}{after}".encode())


def table(rows: dict[str, Any]) -> str:
    """Table of the results as Markdown."""
    lines = [
        "| row | family | steps | CPU seconds | bits/dim | squared error |",
        "|---|---|---|---|---|---|",
        "| 1 | recorded frames | | | | |",
    ]
    for place, (name, row) in enumerate(rows.items(), 2):
        cells = [str(place), name, f"{row['steps']:,}", f"{row['cpu_seconds']:.0f}"]
        for key, digits in (("bits_per_dim", 3), ("squared_error", 5)):
            cells.append(f"{row[key]:.{digits}f}" if key in row else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
