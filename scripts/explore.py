"""Draw what a trained model has learned; takes the folder of a run or a model of any kind.

worldmodels explore runs/realnvp
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import tyro

from generative.training.cli import start
from generative.training.ranges import Checked, Device, Folder, Seed
from generative.training.words import with_article
from scripts.explored import (
    attention_gan,
    autoencoder,
    caption_reader,
    captions,
    classifier,
    clip,
    codes,
    densities,
    diffusion,
    edm,
    energy,
    flamingo,
    flow,
    flow_matching,
    gan,
    music,
    pixelcnn,
    priors,
    rlhf,
    stylegan,
    text,
    text_to_codes,
    text_to_image,
    toolformer,
    translation,
    vae,
)
from scripts.explored.common import Subject


@dataclass(frozen=True)
class Args(Checked):
    """Draw what a trained model has learned.

    Finds out what the folder of a run or of a model holds, and what it was trained on. Writes
    pictures, explore.json with their figures where there are any, and the run's learning curves.
    """

    folder: tyro.conf.Positional[Path] = Path("pretrained/carracing-dream/vision")
    """Folder of a run, or of a model."""
    pictures: Annotated[Folder | None, tyro.conf.arg(name="out")] = None
    """Folder for the pictures; if not given, `explore` in the run's folder, or runs/explore for a
    model without a run."""
    data: str = ""
    """Training data of the model, such as sprites or two-moons; if not given, as in the run's
    settings."""
    data_dir: Path | None = None
    """Folder of the data's files; if not given, as in the run's settings."""
    vae: vae.Settings = field(default_factory=vae.Settings)
    autoencoder: autoencoder.Settings = field(default_factory=autoencoder.Settings)
    gan: gan.Settings = field(default_factory=gan.Settings)
    stylegan: stylegan.Settings = field(default_factory=stylegan.Settings)
    attention_gan: attention_gan.Settings = field(default_factory=attention_gan.Settings)
    flow: flow.Settings = field(default_factory=flow.Settings)
    flow_matching: flow_matching.Settings = field(default_factory=flow_matching.Settings)
    pixelcnn: pixelcnn.Settings = field(default_factory=pixelcnn.Settings)
    energy: energy.Settings = field(default_factory=energy.Settings)
    diffusion: diffusion.Settings = field(default_factory=diffusion.Settings)
    edm: edm.Settings = field(default_factory=edm.Settings)
    classifier: classifier.Settings = field(default_factory=classifier.Settings)
    clip: clip.Settings = field(default_factory=clip.Settings)
    codes: codes.Settings = field(default_factory=codes.Settings)
    priors: priors.Settings = field(default_factory=priors.Settings)
    text: text.Settings = field(default_factory=text.Settings)
    caption_reader: caption_reader.Settings = field(default_factory=caption_reader.Settings)
    text_to_codes: text_to_codes.Settings = field(default_factory=text_to_codes.Settings)
    rlhf: rlhf.Settings = field(default_factory=rlhf.Settings)
    toolformer: toolformer.Settings = field(default_factory=toolformer.Settings)
    flamingo: flamingo.Settings = field(default_factory=flamingo.Settings)
    music: music.Settings = field(default_factory=music.Settings)
    translation: translation.Settings = field(default_factory=translation.Settings)
    text_to_image: text_to_image.Settings = field(default_factory=text_to_image.Settings)
    densities: densities.Settings = field(default_factory=densities.Settings)
    captions: captions.Settings = field(default_factory=captions.Settings)
    device: Device = "cpu"
    seed: Seed = 1


DENSITIES, CAPTIONS = Path("densities"), Path("captions")
WITHOUT_MODEL: dict[Path, ModuleType] = {DENSITIES: densities, CAPTIONS: captions}
"""In place of a folder: the densities, and the worlds with captions, which need no model."""
DEFAULT_PRESET = "all"
PRESETS = {
    "all": Args(),
    "densities": Args(DENSITIES),
    "captions": Args(CAPTIONS),
    "smoke": Args(
        vae=vae.Settings(max_images=200, attributes=("colour=0", "size=2"), morphs=1),
        autoencoder=autoencoder.Settings(max_images=200, num_codes=4),
        gan=gan.Settings(max_images=200, num_samples=16),
        stylegan=stylegan.Settings(max_images=200, num_samples=16),
        attention_gan=attention_gan.Settings(num_samples=24, looks=2),
        flow=flow.Settings(points=200, side=20, images=3),
        flow_matching=flow_matching.Settings(steps=(1, 2), points=200, pairs=50, side=10, images=3),
        pixelcnn=pixelcnn.Settings(max_images=200, num_samples=2, temperatures=(0.5, 1.0)),
        energy=energy.Settings(steps=5, side=20),
        diffusion=diffusion.Settings(steps=(1, 2), images=3, pairs=1, points=100),
        edm=edm.Settings(steps=(1, 2), points=100, side=10, images=3),
        classifier=classifier.Settings(num_images=4),
        clip=clip.Settings(num_images=3, pool=8, batch_size=8, classifier_steps=2),
        codes=codes.Settings(max_images=200, num_images=2),
        priors=priors.Settings(samples=20),
        text=text.Settings(num_tokens=8),
        caption_reader=caption_reader.Settings(num_texts=2, pool=20),
        text_to_codes=text_to_codes.Settings(num_images=2, captions=10, steps=(1, 2)),
        rlhf=rlhf.Settings(betas=(0.5, 1.0), steps=2),
        flamingo=flamingo.Settings(num_scenes=2, num_questions=2, num_texts=4),
        music=music.Settings(length=10, max_pieces=20),
        translation=translation.Settings(num_images=3, max_images=400),
        text_to_image=text_to_image.Settings(
            images=2, scales=(1.0, 2.0), steps=(1, 2), strengths=(0.5,)
        ),
        densities=densities.Settings(points=30, fit_points=500, worlds=3),
        captions=captions.Settings(floor_pictures=2, small_cells=20, emoji=6),
    ),
}
_BY_CLASS = (
    vae,
    autoencoder,
    gan,
    stylegan,
    attention_gan,
    flow,
    flow_matching,
    pixelcnn,
    energy,
    flamingo,
    diffusion,
    edm,
    classifier,
    clip,
    codes,
    priors,
    text,
    text_to_codes,
    music,
    translation,
    text_to_image,
)
KINDS: dict[str, ModuleType] = {kind.__name__.rpartition(".")[2]: kind for kind in _BY_CLASS}
"""Modules that draw a model, found by its class; keys are the names of their settings."""
ELSEWHERE = {
    "BERTClassifier": "`worldmodels fine_tune_bert` tells how often it is right",
    "LinearController": "`worldmodels play` and `worldmodels evaluate` show what an agent does",
    "MDNRNN": "`worldmodels render_dream` shows what an agent dreams",
    "NFNet": "pass the run of the Flamingo that sees with it",
    "TransformerMemory": "`worldmodels render_dream` shows what an agent dreams",
}
"""Commands for models that are not drawn here."""


def main(args: Args) -> Path:
    """Returns the folder of the pictures."""
    from generative.training.curves import CURVES_NAME, draw_curves
    from generative.training.files import write_json
    from generative.training.metrics import METRICS_NAME, read_metrics
    from generative.training.settings import flatten

    if args.folder in WITHOUT_MODEL and not args.folder.exists():
        pictures = args.pictures or Path("runs") / args.folder / "explore"
        subject = Subject(None, args.folder, None, {}, "", Path("data"), pictures, "cpu", args.seed)
        kind = WITHOUT_MODEL[args.folder], getattr(args, args.folder.name)
    else:
        subject = open_subject(args)
        kind = kind_of(subject, args)
    module, settings = kind
    found = module.explore(subject, settings)
    if subject.run is not None and (subject.run / METRICS_NAME).is_file():
        curves = draw_curves(read_metrics(subject.run))
        if curves is not None:
            curves.save(subject.pictures / CURVES_NAME)
    if found:
        write_json(subject.pictures / "explore.json", found)
    print(f"wrote {len(list(subject.pictures.glob('*.png')))} pictures into {subject.pictures}")
    for name, value in flatten(found).items():
        if isinstance(value, (int, float)):
            print(f"  {name} {value:.5g}")
    return subject.pictures


def open_subject(args: Args) -> Subject:
    """The model of a folder, with the settings of its run.

    Raises:
        FileNotFoundError, ValueError, DamagedFileError: there is none; says what to do.
    """
    from generative.loading import model_folder
    from generative.training.run import CONFIG_NAME, read_config

    folder = model_folder(args.folder)
    run = folder.parent if (folder.parent / CONFIG_NAME).is_file() else None
    settings = read_config(run)[1] if run is not None else {}
    known, data_dir = settings.get("data", ""), settings.get("data_dir", "data")
    if rollouts := settings.get("rollouts"):  # a V of a world model
        known, data_dir = "frames", rollouts[0]
    elif args.data == "frames" and known != "frames":
        data_dir = "runs/rollouts/episodes"
    from generative.training.devices import find_device
    from worldmodels.loading import load_model

    device = str(find_device(args.device))
    return Subject(
        model=load_model(folder, device),
        folder=folder,
        run=run,
        settings=settings,
        data=args.data or str(known),
        data_dir=args.data_dir or Path(str(data_dir)),
        pictures=args.pictures or (Path("runs") if run is None else run) / "explore",
        device=device,
        seed=args.seed,
    )


def kind_of(subject: Subject, args: Args) -> tuple[ModuleType, Any]:
    """The module that draws a model, and its settings.

    Raises:
        ValueError: none does; names the command that shows it.
    """
    from generative.training.run import read_config

    kind = "" if subject.run is None else read_config(subject.run)[0]
    for module in (rlhf, toolformer, caption_reader):
        if kind == module.KIND:
            return module, getattr(args, module.__name__.rpartition(".")[2])
    name = subject.model.saved_name
    for field_name, module in KINDS.items():
        if name in module.CLASSES:
            return module, getattr(args, field_name)
    drawn = ", ".join(name for module in KINDS.values() for name in module.CLASSES)
    raise ValueError(
        f"{subject.folder} holds {with_article(name)}, which has no drawings here; "
        + ELSEWHERE.get(name, f"pass {drawn}")
    )


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
