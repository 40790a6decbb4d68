"""Train latent diffusion with its autoencoder and its CLIP, of images with captions, at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

from generative.clip.config import CLIPConfig, CLIPLossConfig, ViTConfig, clip_block, clip_vit
from generative.data.emoji import Augmentation
from generative.diffusion.config import ScheduleConfig
from generative.nets.config import ConditionalUNetConfig, TextEncoderConfig
from generative.text_to_image.config import (
    KLAutoencoderConfig,
    KLAutoencoderLossConfig,
    LatentDiffusionConfig,
    TextToImageLossConfig,
)
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Ending, Folder, Seed, Size, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run, read_result
from generative.training.streams import tell
from scripts import train_clip, train_kl_autoencoder, train_text_to_image
from scripts.common.captions import CaptionData

if TYPE_CHECKING:
    from scripts.common.images import ImageData


@dataclass(frozen=True)
class Args(Checked):
    """Train latent diffusion with its autoencoder and its CLIP, of images with captions, at once.

    Three stages in folders of the run: an autoencoder, whose latents are what noise is taken from;
    a CLIP, whose text encoder reads the captions; and the diffusion. A run that was stopped goes on
    in the stage where it was. The result has the errors of every stage. Of emoji it also has how
    often CLIP finds the caption of a picture among all, of real pictures and of drawn ones, and the
    distance of drawn pictures from real ones in CLIP's embeddings.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/latent_diffusion")
    """Run folder; the trained model is in its `model` folder, weights in 16 bits. Those of the
    stages have 32."""
    data: CaptionData = "emoji"
    """Images and captions: scenes of the micro-world, emoji and clothes with their names, or a
    folder with captions.jsonl."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name; scenes and emoji need none."""
    max_images: Count | None = None
    """Use at most so many of the images; all of the emoji."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Changes of emoji in the training of the diffusion; autoencoder and CLIP see the usual ones.
    The more, the more steps are needed until shapes are sharp."""
    model: LatentDiffusionConfig = field(default_factory=LatentDiffusionConfig)
    """Diffusion, autoencoder and text encoder; the words are those of the captions."""
    image: ViTConfig = field(default_factory=ViTConfig)
    """CLIP's image encoder."""
    embed_dim: Size = 96
    """Width of CLIP's embeddings."""
    autoencoder_loss: KLAutoencoderLossConfig = field(default_factory=KLAutoencoderLossConfig)
    autoencoder_steps: Count = 3000
    autoencoder_batch_size: Count = 32
    clip_loss: CLIPLossConfig = field(default_factory=CLIPLossConfig)
    clip_steps: Count = 4000
    clip_batch_size: Count = 128
    loss: TextToImageLossConfig = field(default_factory=TextToImageLossConfig)
    steps: Count = 20_000
    """Optimiser steps of the diffusion."""
    batch_size: Count = 64
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1


def _model(autoencoder: KLAutoencoderConfig, text: TextEncoderConfig, **network):
    """Latent diffusion of these parts, with a U-Net that is told such a text."""
    dim = text.block.dim
    return LatentDiffusionConfig(
        autoencoder,
        text=text,
        network=ConditionalUNetConfig(context_dim=dim, vector_dim=dim, **network),
        schedule=ScheduleConfig("cosine"),
        prediction="velocity",
        scale=3.0,
    )


DEFAULT_PRESET = "emoji"
PRESETS = {
    # 1,360 emoji of 32x32 pixels as 8x8 latents, of which the U-Net joins 2x2 to one place.
    "emoji": Args(
        model=_model(
            KLAutoencoderConfig((3, 32, 32), 16, (1, 2, 4)),
            TextEncoderConfig(4096, 24, 2, clip_block(96, 3)),
            width=128, multipliers=(1,), num_blocks=(2,), attention=(0,), patch=2,
        ),
        image=clip_vit((3, 32, 32), 8, 4, 96, 3),
        augmentation=Augmentation(shift=0, scale=0.0),
        autoencoder_loss=KLAutoencoderLossConfig(lr=2e-3),
        autoencoder_steps=2500,
        autoencoder_batch_size=16,
        clip_loss=CLIPLossConfig(lr=1e-3, final_lr=1e-5, warmup=100, clip=1.0, weight_decay=0.2),
        clip_steps=1500,
        loss=TextToImageLossConfig(level_mean=-1.0, level_std=2.0, lr=1e-3, ema=0.999),
        steps=5000,
        batch_size=32,
    ),
    # A folder of one's own, 64x64; hours.
    "folder": Args(
        data="folder",
        model=_model(
            KLAutoencoderConfig((3, 64, 64), 64, (1, 2, 4)),
            TextEncoderConfig(16_384, 48, 6, clip_block(256, 4)),
            width=192, multipliers=(1, 2), num_blocks=(2,), attention=(0, 1),
        ),
        image=clip_vit((3, 64, 64), 8, 6, 256, 4),
        embed_dim=256,
        autoencoder_loss=KLAutoencoderLossConfig(lr=5e-4),
        autoencoder_steps=30_000,
        clip_loss=CLIPLossConfig(lr=5e-4, final_lr=1e-5, warmup=500, clip=1.0, weight_decay=0.2),
        clip_steps=20_000,
        loss=TextToImageLossConfig(level_mean=-1.0, level_std=2.0, lr=3e-4, ema=0.9995),
        steps=200_000,
    ),
    "smoke": Args(
        model=_model(
            KLAutoencoderConfig((3, 32, 32), 4, (1, 1, 1)),
            TextEncoderConfig(4096, 24, 1, clip_block(16, 2)),
            width=8, multipliers=(1,), head_dim=8, attention=(0,),
        ),
        image=clip_vit((3, 32, 32), 8, 1, 16, 2),
        embed_dim=16,
        autoencoder_steps=5,
        autoencoder_batch_size=4,
        clip_steps=5,
        clip_batch_size=8,
        steps=5,
        batch_size=4,
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.text_to_image import TextToImage

    with Run.open(args, kind="train_latent_diffusion") as run:
        if run.done:
            return run.path / "model"
        autoencoder, clip, diffusion = stages(args, run)
        found = {}
        for name, train, stage in (
            ("autoencoder", train_kl_autoencoder.main, autoencoder),
            ("clip", train_clip.main, clip),
            ("diffusion", train_text_to_image.main, diffusion),
        ):
            tell(f"stage {name}, in {stage.out}")
            folder = train(stage)  # type: ignore[operator]  # each takes the settings of its own
            found |= {
                f"{name}_{key}": value
                for key, value in read_result(stage.out).items()
                if key.startswith(("test", "mse", "satisfied", "rejected", "floor"))
            }
        final = run.path / "model"
        TextToImage.from_pretrained(folder).save_pretrained(final, dtype=torch.float16)
        if args.data == "emoji":
            model = TextToImage.from_pretrained(final, device=run.device)
            found |= of_emoji(model, clip.out, run)
        run.finish(found)
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def stages(
    args: Args, run: Run
) -> tuple[train_kl_autoencoder.Args, train_clip.Args, train_text_to_image.Args]:
    """Settings of the three stages, in folders of the run."""
    if not isinstance(args.model.autoencoder, KLAutoencoderConfig):
        raise ValueError(
            "model.autoencoder makes codes, and this command trains one of Gaussian latents; train "
            "codes by train_vqgan, and pass its run to train_text_to_image --autoencoder"
        )
    where = {
        "data_dir": args.data_dir, "max_images": args.max_images, "threads": args.threads,
        "device": args.device, "seed": args.seed,
    }  # fmt: skip
    autoencoder = train_kl_autoencoder.Args(
        out=run.path / "autoencoder",
        data=cast("ImageData", args.data),
        model=args.model.autoencoder,
        loss=args.autoencoder_loss,
        steps=args.autoencoder_steps,
        batch_size=args.autoencoder_batch_size,
        **where,
    )
    clip = train_clip.Args(
        out=run.path / "clip",
        data=args.data,
        model=CLIPConfig(args.image, args.model.text, args.embed_dim),
        loss=args.clip_loss,
        steps=args.clip_steps,
        batch_size=args.clip_batch_size,
        **where,
    )
    diffusion = train_text_to_image.Args(
        out=run.path / "diffusion",
        data=args.data,
        model=args.model,
        autoencoder=autoencoder.out,
        reader=clip.out,
        augmentation=args.augmentation,
        loss=args.loss,
        steps=args.steps,
        batch_size=args.batch_size,
        **where,
    )
    return autoencoder, clip, replace(diffusion, picture_every=1000)


def of_emoji(model, clip_run: Path, run: Run, most: int = 400) -> dict[str, float]:
    """Measures of a model of emoji by a CLIP of the same emoji, at the model's own guidance.

    `found_*` is the share of pictures whose own name is the closest of all 1,360: of real pictures
    and of drawn ones, of names that were trained on, of the tenth that was not (test), and of the
    held-out combinations of words (val). `distance_drawn` is the energy distance of embeddings of
    pictures drawn for the names of the tenth from those of the pictures themselves;
    `distance_train` that of as many pictures that were trained on, which knows nothing of the
    names, and `distance_halves` that of two halves of the tenth.
    """
    import torch

    from generative.clip import CLIP
    from generative.data.emoji import load_emoji
    from generative.data.image_set import evenly
    from generative.known.two_samples import energy_test
    from scripts.common.clip import embed_captions, embed_images, load_vocabulary

    clip = CLIP.from_pretrained(clip_run / "model", device=run.device).eval()
    tokeniser = load_vocabulary(clip_run, clip_run / "model")
    emoji = load_emoji(augmentation=None)
    names = [entry.name for entry in emoji.emoji]
    captions = embed_captions(clip, tokeniser, names)
    found, embedded = {}, {}
    for part in ("train", "test", "val"):
        some = emoji.part(part)
        rows = evenly(len(some), most)
        own = [some.emoji[row].name for row in rows.tolist()]
        x = some.images.as_tensor(rows, run.device)
        generator = torch.Generator(run.device).manual_seed(run.seed_for("drawn"))
        drawn = torch.cat([
            model.sample(own[i : i + 100], generator) for i in range(0, len(own), 100)
        ])  # fmt: skip
        for kind, images in (("real", x), ("drawn", drawn)):
            z = embed_images(clip, images)
            closest = (z @ captions.T).argmax(1).tolist()
            right = sum(names[i] == name for i, name in zip(closest, own, strict=True))
            found[f"found_{kind}_{part}"] = right / len(own)
            embedded[kind, part] = z.cpu()
    real, trained = embedded["real", "test"], embedded["real", "train"]
    # Neighbours in Unicode are alike, so that samples are taken evenly.
    trained = trained[evenly(len(trained), len(real))]
    found["distance_drawn"] = energy_test(embedded["drawn", "test"], real).distance
    found["distance_train"] = energy_test(trained, real).distance
    found["distance_halves"] = energy_test(real[::2], real[1::2]).distance
    return found


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
