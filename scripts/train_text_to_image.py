"""Train a diffusion model that draws what a text says, by pixels, in latents, or of a CLIP."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from generative.codes.config import QuantiserConfig, VQVAEConfig
from generative.data.emoji import Augmentation
from generative.diffusion.config import ScheduleConfig
from generative.known.config import CaptionMix
from generative.nets.config import BlockConfig, clip_block
from generative.text.config import T5Config, t5_block
from generative.text_to_image.config import (
    ConditionalDiTConfig,
    ConditionalUNetConfig,
    GLIDEConfig,
    ImageDecoderConfig,
    ImagenConfig,
    KLAutoencoderConfig,
    LatentDiffusionConfig,
    TextEncoderConfig,
    TextToImageLossConfig,
    UpsamplerConfig,
)
from generative.training.cli import start
from generative.training.ranges import (
    Checked,
    Count,
    Device,
    Ending,
    Finite,
    Folder,
    NonNegative,
    Seed,
    Workers,
)
from generative.training.reports import add_to_report
from generative.training.run import Run
from generative.training.streams import tell
from generative.training.words import made_by
from scripts.common.captions import VOCABULARY, CaptionData, check_lengths, fit_tokeniser

if TYPE_CHECKING:
    from generative.text_to_image import TextToImage
    from scripts.common.captions import Pairs
    from scripts.common.text_to_image import Seen


@dataclass(frozen=True)
class Args(Checked):
    """Train a diffusion model that draws what a text says, by pixels, in latents, or of a CLIP.

    The model is GLIDE, Imagen, an upsampler, DALL.E 2's decoder, or latent diffusion. The result
    has the errors at several noise levels, with the texts and without. Of scenes it also has the
    distance from the best denoiser there is, and which share of drawn scenes is what the caption
    says, for some scales of guidance. Of upsampled scenes it has the share of objects that are read
    right, beside the share that could be; of decoded ones the share that has the objects of the
    embedded scene.

    The preset scenes takes 10 to 30 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/text_to_image")
    """Run folder; the trained model is in its `model` folder, pictures are in `images`."""
    data: CaptionData = "scenes"
    """Images and captions: scenes of the micro-world, emoji and clothes with their names, or a
    folder with captions.jsonl."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name; scenes need none."""
    max_images: Count | None = None
    """Use at most so many of the images."""
    mix: CaptionMix = field(default_factory=CaptionMix)
    """Weights of the kinds of captions of scenes."""
    scenes: Literal["train", "all"] = "train"
    """Captions of scenes, and with them the scenes: train never shows 4 of the 24 objects, all
    does."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Changes of emoji in training."""
    model: (
        GLIDEConfig | ImagenConfig | UpsamplerConfig | ImageDecoderConfig | LatentDiffusionConfig
    ) = field(default_factory=GLIDEConfig)
    """The model; its words are those of the data, up to its vocabulary. Parts that are not trained
    are those of the runs below."""
    autoencoder: Path | None = None
    """Latent diffusion: run of train_kl_autoencoder, train_vqvae or train_vqgan."""
    reader: Path | None = None
    """Latent diffusion: run of train_clip or train_text_to_image, whose text encoder reads the
    captions and is not trained further. Imagen: run of train_caption_reader."""
    clip: Path | None = None
    """Decoder: run of train_clip, whose embeddings of the images are told; their width is that of
    the decoder."""
    loss: TextToImageLossConfig = field(default_factory=TextToImageLossConfig)
    steps: Count = 2000
    """Optimiser steps."""
    batch_size: Count = 64
    scales: tuple[Finite, ...] = (1.0, 2.0, 4.0)
    """GLIDE: scales of guidance at which scenes are drawn and read."""
    noises: tuple[NonNegative, ...] = (0.0, 0.05, 0.1, 0.2)
    """Upsampler: standard deviations of the noise of small scenes that are enlarged and read."""
    samples: Count = 200
    """Scenes that are drawn at each scale, or each noise."""
    log_every: Count = 50
    picture_every: Count = 500
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older runs never saw the objects that are held out."""
        return {"scenes": "train", **settings}

    def __post_init__(self) -> None:
        super().__post_init__()
        latent = isinstance(self.model, LatentDiffusionConfig)
        reads = latent or isinstance(self.model, ImagenConfig)
        if latent != (self.autoencoder is not None) or reads != (self.reader is not None):
            raise ValueError(
                f"autoencoder is {self.autoencoder} and reader {self.reader}; latent diffusion "
                "needs both, the runs of an autoencoder and of what reads texts, Imagen the run of "
                "what reads texts, and other models need neither"
            )
        decoder = isinstance(self.model, ImageDecoderConfig)
        if decoder != (self.clip is not None):
            raise ValueError(
                f"clip is {self.clip}; a decoder needs the run of a CLIP, whose image embeddings "
                "it is told, and other models need none"
            )


DEFAULT_PRESET = "scenes"


def _text(dim: int, heads: int, layers: int, length: int, words: int) -> TextEncoderConfig:
    return TextEncoderConfig(words, length, layers, clip_block(dim, heads), causal=False)


def _network(dim: int, **settings) -> ConditionalUNetConfig:
    """A U-Net that is told a text of this width."""
    return ConditionalUNetConfig(context_dim=dim, vector_dim=dim, **settings)


AT_64 = {
    "multipliers": (1, 2, 3, 4), "num_blocks": (3,), "attention": (1, 2, 3), "head_dim": 64
}  # fmt: skip
"""Layout of U-Nets for 64x64 pixels (Dhariwal & Nichol 2021) in the publications below."""
# With Muon the error falls in a third of the steps. Where errors of clear pictures weigh more than
# those of noisy ones, as errors of the velocity do, captions are learned late.
OF_SCENES = TextToImageLossConfig(
    optimizer="muon", lr=5e-3, final_lr=1e-5, warmup=50, weighting="data", level_mean=-3.0,
    level_std=2.5,
)  # fmt: skip
CODES_OF_SCENES = VQVAEConfig(
    (3, 24, 24), (64, 128, 128), 32, 2, QuantiserConfig(32, 16), overlap=False
)
"""Those of `train_vqvae`; they are replaced by those of the run."""
T5_XXL = T5Config(
    32_096, 32, 24,
    BlockConfig(
        4096, 64, 64, 15_360, "pre", "rms", activation="gelu", dropout=0.0, bias=False, scale=False
    ),
    max_len=256,
)  # fmt: skip
"""T5-XXL in its version 1.1: 24 layers of 4,096. Its hidden layers have 10,240 units with a gate
for each; these have half as many again and no gate, which are as many weights."""
STABLE_DIFFUSION = LatentDiffusionConfig(
    KLAutoencoderConfig((3, 512, 512), 128, (1, 2, 4, 4), 2),
    text=TextEncoderConfig(49_408, 77, 12, clip_block(768, 12)),
    network=ConditionalUNetConfig(
        320, (1, 2, 4, 4), (2,), (0, 1, 2), num_heads=8, context_dim=768, scale_shift=False,
        transformer=True,
    ),
    scale=7.5,
)  # fmt: skip
OF_GLIDE = TextToImageLossConfig(
    weighting="noise", levels="time", lr=1e-4, final_lr=1e-4, ema=0.9999, drop=0.2
)
"""Loss of the publications, and GLIDE's rate. A fifth of its texts was left out only at the end.
Networks estimate the velocity where the schedule leaves no signal, as noise tells nothing there."""
UNTIL_TOLD = -20.0, -2.0
"""Log SNRs at which a caption tells what the picture does not: beyond them guidance would multiply
nothing but errors."""
DIT_OF_SCENES = GLIDEConfig(
    (3, 24, 24),
    text=_text(64, 2, 1, 24, 64),
    network=ConditionalDiTConfig(4, 96, 2, 3, context_dim=64, vector_dim=64),
    prediction="data",
    steps=60,
    scale=1.0,
    interval=UNTIL_TOLD,
)
"""That of the preset scenes with a DiT. The 48 noisy numbers of a patch fit into its tokens, so
that it can also estimate the noise, or what has it as a part."""
PRESETS = {
    # GLIDE of Nichol et al. 2022: a U-Net 512 wide (2.3 billion weights) and 24 layers of 2,048
    # that read the text (1.2 billion). Its learnt variances are left out, its blocks that change
    # the sides are convolutions here, and text has an attention of its own. The heads of the text
    # encoder are not stated; DALL.E 2's, of the same width and depth, has 32.
    "paper": Args(
        data="folder",
        model=GLIDEConfig(
            (3, 64, 64),
            text=_text(2048, 32, 24, 128, 50_257),
            network=_network(2048, width=512, dropout=0.1, **AT_64),
            steps=100,
        ),
        loss=OF_GLIDE,
        steps=2_500_000,
        batch_size=2048,
    ),
    # GLIDE's upsampler to 256x256 pixels, 1.5 billion weights: 384 wide, with a text encoder of
    # 1,024. How many layers that has is not stated; 24 are the base model's.
    "paper-upsampler": Args(
        out=Path("runs/paper_upsampler"),
        data="folder",
        model=UpsamplerConfig(
            (3, 256, 256),
            text=_text(1024, 16, 24, 128, 50_257),
            network=_network(
                1024, width=384, multipliers=(1, 1, 2, 2, 4, 4), num_blocks=(2,),
                attention=(3, 4, 5), head_dim=64, told_level=True,
            ),
            schedule=ScheduleConfig("linear"),
            prediction="noise",
            steps=27,
            factor=4,
        ),
        loss=OF_GLIDE,
        steps=1_600_000,
        batch_size=512,
    ),
    # The decoder of DALL.E 2 (Ramesh et al. 2022, appendix C), 3.5 billion weights, told embeddings
    # of 1,024 numbers. Its learnt variances are left out; the vocabulary is not stated.
    "paper-decoder": Args(
        out=Path("runs/paper_decoder"),
        data="folder",
        model=ImageDecoderConfig(
            (3, 64, 64),
            text=_text(2048, 32, 24, 256, 50_257),
            network=ConditionalUNetConfig(
                width=512, context_dim=2048, vector_dim=2048 + 1024, dropout=0.1, **AT_64
            ),
            steps=250,
            embedding_dim=1024,
        ),
        clip=Path("runs/clip"),
        loss=replace(OF_GLIDE, lr=1.2e-4, final_lr=1.2e-4, drop=0.5),
        steps=800_000,
        batch_size=2048,
    ),
    # The base model of Imagen (Saharia et al. 2022, appendix F.1), 2 billion weights: GLIDE's
    # layout, told T5-XXL's tokens and their mean (published: a mean by attention). The Efficient
    # U-Net is that of its upsamplers. Steps and rate are the publication's, for Adafactor.
    "paper-imagen": Args(
        out=Path("runs/paper_imagen"),
        data="folder",
        model=ImagenConfig(
            (3, 64, 64),
            text=T5_XXL,
            network=_network(4096, width=512, **AT_64),
            steps=256,
        ),
        reader=Path("runs/caption_reader"),
        loss=replace(OF_GLIDE, warmup=10_000, drop=0.1),
        steps=2_500_000,
        batch_size=2048,
    ),
    # Stable Diffusion 1, after Rombach et al. 2022: 859,520,964 weights that learn, beside the
    # autoencoder of `train_kl_autoencoder paper` for 512x512 pixels and the text encoder of CLIP
    # ViT-L/14. Its four stages of training, the first at 256x256 pixels, are one here.
    "stable-diffusion": Args(
        out=Path("runs/stable_diffusion"),
        data="folder",
        model=STABLE_DIFFUSION,
        autoencoder=Path("runs/kl_autoencoder"),
        reader=Path("runs/clip"),
        loss=replace(OF_GLIDE, warmup=10_000, drop=0.1),
        steps=1_171_000,
        batch_size=2048,
    ),
    # Stable Diffusion 2 at 512x512 pixels: heads of 64 features, told 23 of the 24 layers of
    # OpenCLIP ViT-H/14, 865,910,724 weights that learn. Steps of its two stages together.
    "stable-diffusion-2": Args(
        out=Path("runs/stable_diffusion_2"),
        data="folder",
        model=replace(
            STABLE_DIFFUSION,
            text=TextEncoderConfig(
                49_408, 77, 23, replace(clip_block(1024, 16), activation="gelu")
            ),
            network=replace(STABLE_DIFFUSION.network, num_heads=0, head_dim=64, context_dim=1024),
        ),
        autoencoder=Path("runs/kl_autoencoder"),
        reader=Path("runs/clip"),
        loss=replace(OF_GLIDE, warmup=10_000, drop=0.1),
        steps=1_400_000,
        batch_size=2048,
    ),
    # GLIDE as it was released, 192 wide with 16 layers of 512 for the text; its learnt variances
    # and its upsampler are left out.
    "released": Args(
        data="folder",
        model=GLIDEConfig(
            (3, 64, 64),
            text=_text(512, 8, 16, 128, 50_257),
            network=_network(512, width=192, dropout=0.1, **AT_64),
            steps=100,
        ),
        loss=OF_GLIDE,
        steps=2_500_000,
        batch_size=2048,
    ),
    "small": Args(
        data="folder",
        model=GLIDEConfig(
            (3, 64, 64),
            text=_text(256, 4, 6, 32, 10_000),
            network=_network(
                256, width=96, multipliers=(1, 2, 3, 4), num_blocks=(2,), attention=(2, 3)
            ),
        ),
        loss=TextToImageLossConfig(levels="time", lr=1e-4, ema=0.9999),
        steps=100_000,
    ),
    # A place of the U-Net is a cell of the scene. 192 noisy numbers do not fit through its feature
    # maps, the object in the cell does: so the network estimates the data.
    "scenes": Args(
        model=GLIDEConfig(
            (3, 24, 24),
            text=_text(64, 2, 1, 24, 64),
            network=_network(64, width=64, multipliers=(1,), num_blocks=(1,), attention=(0,),
                             transformer=True, patch=8),
            prediction="data",
            steps=60,
            scale=1.0,
            interval=UNTIL_TOLD,
        ),
        loss=OF_SCENES,
        steps=6000,
    ),
    # The same by other forms: a DiT in place of the U-Net, and this DiT by flow matching or as the
    # network of EDM, each with its own loss: by errors of the data, what these networks give is
    # hardly learnt at clear pictures, and all drawings keep a little noise.
    "scenes-dit": Args(
        out=Path("runs/scenes_dit"), model=DIT_OF_SCENES, loss=OF_SCENES, steps=6000
    ),
    "scenes-flow": Args(
        out=Path("runs/scenes_flow"),
        model=replace(DIT_OF_SCENES, schedule=ScheduleConfig("rectified"), prediction="flow"),
        loss=replace(OF_SCENES, weighting="flow"),
        steps=6000,
    ),
    "scenes-edm": Args(
        out=Path("runs/scenes_edm"),
        model=replace(DIT_OF_SCENES, prediction="edm"),
        loss=replace(OF_SCENES, weighting="edm"),
        steps=6000,
    ),
    # The first stage of a cascade, whose second one is the upsampler below. A place of the U-Net is
    # a cell of 12 numbers in place of 192, and noise hides it by ln 16 later.
    "scenes-small": Args(
        out=Path("runs/scenes_small"),
        model=GLIDEConfig(
            (3, 6, 6),
            text=_text(64, 2, 1, 24, 64),
            network=_network(64, width=64, multipliers=(1,), num_blocks=(1,), attention=(0,),
                             transformer=True, patch=2),
            prediction="data",
            steps=30,
            scale=1.0,
            interval=(-20.0, 1.0),
        ),
        loss=replace(OF_SCENES, level_mean=0.0),
        steps=4000,
    ),
    # Cells of 2x2 places, whose objects noise can hide; "a red square" says which it was. What it
    # should do with any object is known, so it sees them all.
    "upsampler": Args(
        out=Path("runs/upsampler"),
        scenes="all",
        model=UpsamplerConfig(
            (3, 24, 24),
            text=_text(64, 2, 1, 24, 64),
            network=_network(64, width=64, multipliers=(1,), num_blocks=(1,), attention=(0,),
                             transformer=True, patch=8, told_level=True),
            prediction="data",
            steps=30,
            factor=4,
            most_noise=0.2,
        ),
        loss=replace(OF_SCENES, drop=0.5),
        steps=9000,
    ),
    # After `train_caption_reader`: the U-Net halves its sides before its blocks, which are wider as
    # they have fewer places. What the convolutions behind them leave in black cells ends at black.
    "imagen": Args(
        out=Path("runs/imagen"),
        model=ImagenConfig(
            (3, 24, 24),
            text=T5Config(64, 12, 2, t5_block(64, 2, 0.0), max_len=24),
            network=_network(
                64, width=64, multipliers=(2,), num_blocks=(1,), attention=(0,), patch=4,
                transformer=True, efficient=True, scale_skips=True,
            ),
            prediction="pixels",
            steps=30,
            scale=1.0,
            interval=UNTIL_TOLD,
        ),
        reader=Path("runs/caption_reader"),
        loss=OF_SCENES,
        steps=9000,
    ),
    # 1,360 emoji of 32x32 pixels, which the project carries.
    "emoji": Args(
        data="emoji",
        model=GLIDEConfig(
            (3, 32, 32),
            text=_text(128, 4, 2, 24, 4096),
            network=_network(128, width=64, multipliers=(1, 2, 2), attention=(1, 2), patch=2),
        ),
        loss=TextToImageLossConfig(level_mean=-1.0, lr=5e-4),
        steps=50_000,
    ),
    # After `train_clip`, whose embeddings have 64 numbers; half of the texts are left out.
    "decoder": Args(
        out=Path("runs/decoder"),
        model=ImageDecoderConfig(
            (3, 24, 24),
            text=_text(64, 2, 1, 24, 64),
            network=ConditionalUNetConfig(
                64, (1,), (1,), (0,), context_dim=64, vector_dim=128, transformer=True, patch=8
            ),
            prediction="data",
            steps=30,
            scale=1.0,
            interval=UNTIL_TOLD,
            embedding_dim=64,
        ),
        clip=Path("runs/clip"),
        loss=replace(OF_SCENES, drop=0.5),
    ),
    # After `train_vqvae scenes` and `train_text_to_image`: a cell of a scene is a place, and its
    # codes take small errors of the latents away.
    "latent": Args(
        out=Path("runs/latent"),
        model=LatentDiffusionConfig(
            CODES_OF_SCENES,
            text=_text(64, 2, 1, 24, 64),
            network=_network(
                64, width=32, multipliers=(1,), num_blocks=(1,), attention=(0,), transformer=True
            ),
            schedule=ScheduleConfig("cosine"),
            prediction="velocity",
            steps=30,
            scale=1.0,
            interval=(-20.0, 0.0),
        ),
        autoencoder=Path("runs/vqvae"),
        reader=Path("runs/text_to_image"),
        loss=replace(OF_SCENES, level_mean=-1.0),
        steps=14_000,
    ),
    "fashion": Args(
        data="fashion-mnist",
        model=GLIDEConfig(
            (1, 28, 28),
            text=_text(64, 2, 1, 12, 64),
            network=_network(64, width=32, multipliers=(1, 2), attention=(1,), patch=2),
        ),
        loss=TextToImageLossConfig(level_mean=-1.0, lr=1e-3),
    ),
    "smoke": Args(
        model=GLIDEConfig(
            (3, 24, 24),
            text=_text(16, 2, 1, 24, 64),
            network=_network(16, width=8, head_dim=8, multipliers=(1, 1), patch=4),
            schedule=ScheduleConfig(),
            steps=2,
        ),
        steps=10,
        batch_size=8,
        scales=(2.0,),
        samples=4,
        log_every=5,
        picture_every=10,
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.text_to_image import TextToImageLearner
    from generative.training.loop import fit
    from generative.training.pictures import image_grid
    from scripts.common.captions import ScenePairs, load_pairs
    from scripts.common.small_scenes import small_scores
    from scripts.common.text_to_image import TextBatches, level_scores

    with Run.open(args, kind="train_text_to_image") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        of = args.data, args.data_dir, args.model.image_shape, args.mix
        pairs = load_pairs(
            *of, max_images=args.max_images, augmentation=args.augmentation, scenes=args.scenes
        )
        torch.manual_seed(run.seed_for("weights"))
        model = build(args, pairs).to(run.device)
        seen = what_is_seen(args, model)
        if model.autoencoder is not None:
            generator = torch.Generator().manual_seed(run.seed_for("latents"))
            parts = [pairs.draw(100, generator)[0].to(run.device) for _ in range(10)]
            tell(f"latents have deviation {model.measure(parts):.3f} over 1,000 images")
        learner = TextToImageLearner(model, args.loss, args.steps)
        batch = TextBatches(pairs, model, run, args.batch_size, seen)
        generator = torch.Generator().manual_seed(run.seed_for("prompts"))
        shown, prompts, _ = pairs.draw(8, generator)

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                generator = torch.Generator(run.device).manual_seed(0)
                given = seen(shown.to(run.device).repeat_interleave(4, 0))
                texts = [text for text in prompts for _ in range(4)]
                drawn = learner.kept.sample(texts, generator, **given)
                scale = max(1, 48 // args.model.image_shape[1])
                run.metrics.log_image(step, "samples", image_grid(drawn, 4, scale))

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training the text-to-image model", on_log=show,
        )  # fmt: skip
        kept = learner.kept.eval()
        kept.save_pretrained(run.path / "model")
        generator.manual_seed(run.seed_for("test"))
        test = load_pairs(*of, part="test", max_images=args.max_images, scenes=args.scenes)
        found = level_scores(kept, test, generator, seen, min(256, args.samples))
        if isinstance(test, ScenePairs):
            if test.factor > 1:
                found |= small_scores(kept, test.world, args.scales, generator, args.samples)
            else:
                found |= of_scenes(args, kept, test.world, generator, seen)
        run.finish({**run.metrics.last(), **found})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def build(args: Args, pairs: Pairs) -> TextToImage:
    """The model with fresh weights; parts that are not trained have those of their runs.

    Raises:
        FileNotFoundError: there is no such run; says what makes one.
        ValueError: a run holds another kind of model.
    """
    from generative.codes import VQVAE
    from generative.data.caption_tokens import CaptionTokeniser
    from generative.loading import load_model
    from generative.nets.text_encoder import TextEncoder
    from generative.text import T5
    from generative.text_to_image import KLAutoencoder, T5Text
    from scripts.common.text_to_image import load_clip

    if not isinstance(args.model, LatentDiffusionConfig | ImagenConfig):
        config, text = args.model, args.model.text
        if isinstance(config, ImageDecoderConfig):
            assert args.clip is not None
            width = load_clip(args.clip, config.image_shape).config.embed_dim
            network = replace(config.network, vector_dim=text.block.dim + width)
            config = replace(config, embedding_dim=width, network=network)
        tokeniser = fit_tokeniser(pairs, text.max_len, text.vocab_size)
        return replace(config, words=tokeniser.words, spelled=tokeniser.spelled).build()
    assert args.reader is not None
    imagen = isinstance(args.model, ImagenConfig)
    commands = ("train_caption_reader",) if imagen else ("train_text_to_image scenes", "train_clip")
    advice = made_by("--reader", *commands)
    reader = load_model(args.reader, advice=advice)
    if imagen:
        text = T5Text.of(reader) if isinstance(reader, T5) else None
    else:
        text = getattr(reader, "text", None)
        text = getattr(text, "encoder", text)  # CLIP has a projection behind its own
    if not isinstance(text, TextEncoder | T5Text):
        raise ValueError(f"{args.reader} holds a {type(reader).__name__}; {advice}")
    # Of a text-to-image model, or of a run that wrote it beside its model.
    tokeniser = getattr(reader, "tokeniser", None)
    if tokeniser is None:
        tokeniser = CaptionTokeniser.load(args.reader / VOCABULARY)
    option = "--model.max-len" if imagen else "--model.text.max-len"
    check_lengths(pairs, tokeniser, f"pass a --reader that was trained with {option}")
    config = replace(args.model, text=text.config, words=tokeniser.words, spelled=tokeniser.spelled)
    if isinstance(config, LatentDiffusionConfig):
        assert args.autoencoder is not None
        advice = made_by("--autoencoder", "train_vqvae scenes", "train_vqgan")
        autoencoder = load_model(args.autoencoder, advice=advice)
        if not isinstance(autoencoder, KLAutoencoder | VQVAE):
            raise ValueError(
                f"{args.autoencoder} holds a {type(autoencoder).__name__}; pass --autoencoder "
                "with a run of train_kl_autoencoder, train_vqvae or train_vqgan"
            )
        model = replace(config, autoencoder=autoencoder.config).build()
        assert model.autoencoder is not None
        model.autoencoder.load_state_dict(autoencoder.state_dict())
    else:
        model = config.build()
    model.text.load_state_dict(text.state_dict())
    return model


def what_is_seen(args: Args, model: TextToImage) -> Seen:
    """Condition of the model besides texts; of a decoder, the embeddings of a CLIP.

    Raises:
        FileNotFoundError: there is no such run; says what makes one.
        ValueError: it holds another model, or one of other images.
    """
    if not isinstance(args.model, ImageDecoderConfig):
        return model.seen
    from scripts.common.text_to_image import embeddings_of, load_clip

    assert args.clip is not None
    return embeddings_of(load_clip(args.clip, args.model.image_shape, model.device))


def of_scenes(args: Args, model: TextToImage, world, generator, seen: Seen) -> dict[str, float]:
    """Measures of a model of scenes, whose best possible values are known."""
    import torch

    from generative.text_to_image import Upsampler
    from scripts.common.text_to_image import detected, scene_gaps, upsampled, varied

    if isinstance(model, Upsampler):
        return upsampled(model, world, args.noises, generator, args.samples)
    if isinstance(args.model, ImageDecoderConfig):
        return varied(model, world, seen, args.scales, generator, args.samples)
    found = scene_gaps(model, world, generator, min(128, args.samples))
    for scale in args.scales:
        drawn = torch.Generator(model.device).manual_seed(args.seed)
        accuracy = detected(
            lambda texts, scale=scale, drawn=drawn: model.sample(texts, drawn, scale=scale),
            world, generator, args.samples,
        )  # fmt: skip
        found[f"satisfied_at_scale_{scale:g}"] = accuracy.satisfied.share
        found[f"rejected_at_scale_{scale:g}"] = accuracy.rejected.share
    return found


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
