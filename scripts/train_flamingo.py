"""Train Flamingo: a model of texts learns to read pictures through gated layers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from generative.flamingo.config import (
    FlamingoConfig,
    FlamingoLossConfig,
    NFNetConfig,
    ResamplerConfig,
    flamingo_of,
)
from generative.text.config import GPTConfig, TextLossConfig, gpt2_block
from generative.training.cli import start
from generative.training.ranges import (
    Checked,
    Count,
    Device,
    Ending,
    Folder,
    Probability,
    Range,
    Seed,
    Workers,
)
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.common.text import VOCABULARY_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from generative.flamingo.model import Flamingo, FlamingoBatch
    from generative.known.picture_talk import PictureTalk, Talk
    from generative.text.gpt import GPT

QUESTIONS = {
    "how many": "counts", "what colour": "colours", "where is": "places", "what is": "objects",
}  # fmt: skip
"""Names of the questions in the result, by how they begin."""
READING = {"names": 0.2, "questions": 0.45, "caption": 0.25, "film": 0.1}
"""Kinds of texts from which the gated layers learn. The GPT's have fewer captions: it knows from
what it is told in words what stands where, the gated layers have to find it in the picture."""
EMBED_DIM = 64
"""Numbers of the vectors by which pictures and captions find each other."""


@dataclass(frozen=True)
class Args(Checked):
    """Train Flamingo: a model of texts learns to read pictures through gated layers.

    The pictures are scenes of nine cells, the texts captions, questions, films and names that are
    given to objects anew in every text. First a GPT learns the language, with pictures told in
    words; then the vision learns by contrast with captions, as CLIP does; then both are frozen, and
    gated layers and a resampler learn. The preset scenes takes 25 to 80 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/flamingo")
    """Run folder; the trained model is in its `model` folder, GPT and vision in `language` and
    `vision`."""
    model: FlamingoConfig = field(default_factory=FlamingoConfig)
    """vocab_size and the tags follow from the texts."""
    language: TextLossConfig = field(
        default_factory=lambda: TextLossConfig(
            optimizer="muon", lr=3e-3, final_lr=3e-5, warmup=100, beta2=0.99, clip=1.0
        )
    )
    language_steps: Count = 10_000
    told: Probability = 0.9
    """Share of the GPT's texts in which pictures are told in words; in the others tags stand
    alone."""
    vision_by: Literal["contrast", "captions"] = "contrast"
    """Task by which the vision learns: to find the caption of a picture, as published, or to tell
    the GPT what is in it, through gated layers that are thrown away."""
    vision: FlamingoLossConfig = field(
        default_factory=lambda: FlamingoLossConfig(lr=2e-3, final_lr=2e-5)
    )
    vision_steps: Count = 500
    vision_batch: Annotated[int, Range(2, 2**20)] = 128
    """Pairs of a contrast."""
    loss: FlamingoLossConfig = field(default_factory=lambda: FlamingoLossConfig(optimizer="muon"))
    steps: Count = 6000
    """Steps of the gated layers and the resampler."""
    batch_size: Count = 32
    log_every: Count = 50
    num_test: Count = 300
    """Texts of each kind in which an answer is asked for at the end."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "scenes"
PAPER = Args(
    out=Path("runs/paper_flamingo"),
    model=flamingo_of("80b"),
    language=TextLossConfig(lr=1e-4, final_lr=1e-5, warmup=1500, beta2=0.95, clip=1.0),
    loss=FlamingoLossConfig(
        lr=1e-4, final_lr=1e-4, warmup=5000, beta2=0.999, weight_decay=0.1, clip=1.0
    ),
    steps=500_000,
)
PRESETS = {
    # Flamingo of 80 billion weights (Alayrac et al. 2022), 194 million of them in the resampler.
    # Twelve gated layers of this layout have 8.4 billion, where 10 are stated; the GPT 64.7 for 70,
    # as it has no relative positions. The rate of the gated layers and their steps are stated. The
    # texts are this command's; pictures of scenes ask for --model.vision.image-shape 3 24 24.
    "paper": PAPER,
    # 24 gated layers, 1.2 billion weights as stated.
    "paper-3b": replace(PAPER, model=flamingo_of("3b")),
    # The stated ten gated layers have 1.8 billion weights, where 1.6 are stated.
    "paper-9b": replace(PAPER, model=flamingo_of("9b")),
    "scenes": Args(),
    "smoke": Args(
        model=FlamingoConfig(
            GPTConfig(100, 96, 2, gpt2_block(16, 2, dropout=0.0), tied=True, init="normal"),
            NFNetConfig(stem=(4,), widths=(8, 8, 8)),
            ResamplerConfig(2, 1, 2),
            num_heads=2,
        ),
        language_steps=4,
        vision_steps=2,
        steps=4,
        batch_size=4,
        log_every=2,
        num_test=4,
        vision_batch=8,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import random

    import torch

    from generative.flamingo.model import FlamingoLearner
    from generative.flamingo.vision import NFNet
    from generative.known.picture_talk import PictureTalk
    from generative.training.loop import fit

    with Run.open(args, kind="train_flamingo") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        talk = PictureTalk()
        pictures = talk.images(talk.draw(1, random.Random(0)))
        check_shape(args.model.vision, tuple(pictures.shape[-3:]))
        talk.tokeniser.save(run.path / VOCABULARY_NAME)
        train_language(args, talk)
        if args.vision_by == "contrast":
            train_by_contrast(args)
        else:
            train_by_captions(args, talk)
        model = new_model(args, run, talk)
        vision = NFNet.from_pretrained(run.path / "vision" / "model")
        model.vision.load_state_dict(vision.state_dict())
        if vision.places is not None and vision.places[0].numel() == len(model.resampler.latents):
            model.resampler.look_at(vision.places.flatten(1).T)
        learner = FlamingoLearner(model.to(run.device), args.loss, args.steps)
        fit(
            learner, picture_batches(args, run, PictureTalk(READING)), run, args.steps,
            log_every=args.log_every, what="learning to read pictures",
        )  # fmt: skip
        model = learner.kept.eval()
        model.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **score(model, talk, args.num_test)})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def check_shape(vision: NFNetConfig, shape: tuple[int, ...]) -> None:
    """Refuse a vision of other images than the pictures of the texts, (C, H, W).

    Raises:
        ValueError: says which option fits.
    """
    if vision.image_shape != shape:
        sides = " ".join(map(str, shape))
        raise ValueError(
            f"model.vision.image_shape is {vision.image_shape}, and the pictures are {shape}; give "
            f"--model.vision.image-shape {sides}"
        )


def config_of(args: Args, talk: PictureTalk) -> FlamingoConfig:
    """The settings of the model with the vocabulary and the tags of the texts."""
    return replace(
        args.model,
        language=replace(args.model.language, vocab_size=len(talk.tokeniser)),
        image_token=talk.image_token,
        chunk_token=talk.chunk_token,
    )


def new_model(args: Args, run: Run, talk: PictureTalk) -> Flamingo:
    """A Flamingo around the GPT that was trained, with new weights everywhere else."""
    import torch

    from generative.text.gpt import GPT

    torch.manual_seed(run.seed_for("weights"))
    model = config_of(args, talk).build()
    language = GPT.from_pretrained(args.out / "language" / "model")
    model.language.load_state_dict(language.state_dict())
    return model.train()


def train_language(args: Args, talk: PictureTalk) -> None:
    """A GPT of texts whose pictures are told in words, in the run's folder `language`."""
    import random

    import torch

    from generative.text.gpt import GPT
    from generative.text.tokens import TextLearner
    from generative.training.loop import fit

    with Run.open(args, args.out / "language", kind="train_flamingo language") as run:
        if run.done:
            return
        torch.manual_seed(run.seed_for("weights"))
        model = GPT(config_of(args, talk).language).to(run.device)
        learner = TextLearner(model, args.language, args.language_steps)

        def batch(step: int) -> Tensor:
            rng = random.Random(run.seed_for("batch", step))
            texts = talk.draw(args.batch_size, rng)
            words = [talk.in_words(t) if rng.random() < args.told else t.text for t in texts]
            return rows(talk, words).to(run.device)

        fit(
            learner, batch, run, args.language_steps,
            log_every=args.log_every, what="learning the language",
        )  # fmt: skip
        model = learner.kept.eval()
        model.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **score_language(model, talk, args.num_test)})


def train_by_contrast(args: Args) -> None:
    """A vision by which captions and pictures find each other, in the run's folder `vision`.

    The pictures have one object or two, with their places; the text encoder is thrown away.
    """
    import torch

    from generative.clip import CLIP, CLIPBatch, CLIPLearner, CLIPLossConfig, TextEncoderConfig
    from generative.clip.networks import TextTower
    from generative.data.caption_tokens import CaptionTokeniser
    from generative.flamingo.vision import NFNet, VisionTower
    from generative.known.captioned_scenes import CaptionedScenes, CaptionMix
    from generative.known.captions import WORDS, matches
    from generative.known.scenes import draw
    from generative.training.loop import fit

    with Run.open(args, args.out / "vision", kind="train_flamingo vision") as run:
        if run.done:
            return
        torch.manual_seed(run.seed_for("weights"))
        world = CaptionedScenes(
            CaptionMix(one=0, one_placed=1, two=0, two_placed=2, relation=0, count=1), "all"
        )
        text = TextEncoderConfig(64, 24)
        tokeniser = CaptionTokeniser.fit([" ".join(WORDS)], text.max_len, most=text.vocab_size)
        tower = VisionTower(NFNet(args.model.vision), EMBED_DIM)
        clip = CLIP(tower, TextTower(text, EMBED_DIM), world.image_shape).to(run.device)
        config = CLIPLossConfig(
            lr=args.vision.lr, final_lr=args.vision.final_lr, warmup=args.vision.warmup,
            clip=args.vision.clip, ema=args.vision.ema, weight_decay=args.vision.weight_decay,
        )  # fmt: skip

        def batch(step: int) -> CLIPBatch:
            generator = torch.Generator().manual_seed(run.seed_for("batch", step))
            texts, cells = world.draw(args.vision_batch, generator)
            tokens, fits = tokeniser.encode(texts), matches(texts, cells).T
            x, device = draw(cells), run.device
            return CLIPBatch(x.to(device), tokens.to(device), fits.to(device))

        learner = CLIPLearner(clip, config, args.vision_steps)
        fit(
            learner, batch, run, args.vision_steps,
            log_every=args.log_every, what="learning to see",
        )  # fmt: skip
        image = learner.kept.image
        assert isinstance(image, VisionTower)
        image.vision.eval().save_pretrained(run.path / "model")
        run.finish(run.metrics.last())


def train_by_captions(args: Args, talk: PictureTalk) -> None:
    """A vision that tells the GPT what is in a picture, in the run's folder `vision`."""
    from generative.flamingo.model import FlamingoLearner
    from generative.known.picture_talk import PictureTalk
    from generative.training.loop import fit

    with Run.open(args, args.out / "vision", kind="train_flamingo vision") as run:
        if run.done:
            return
        model = new_model(args, run, talk).to(run.device)
        learner = FlamingoLearner(model, args.vision, args.vision_steps, vision=True)
        plain = PictureTalk({"caption": 0.5, "questions": 0.5})
        fit(
            learner, picture_batches(args, run, plain), run, args.vision_steps,
            log_every=args.log_every, what="learning to see",
        )  # fmt: skip
        learner.kept.vision.eval().save_pretrained(run.path / "model")
        run.finish(run.metrics.last())


def rows(talk: PictureTalk, texts: Sequence[str | Talk]) -> Tensor:
    """Texts as tokens, with an end behind the longest."""
    words = [text if isinstance(text, str) else text.text for text in texts]
    return talk.tokens(words, 1 + max(len(talk.tokeniser.encode(text)) for text in words))


def picture_batches(args: Args, run: Run, talk: PictureTalk) -> Callable[[int], FlamingoBatch]:
    """Batches of a step: texts of one kind with their pictures."""
    import random

    from generative.flamingo.model import FlamingoBatch

    def batch(step: int) -> FlamingoBatch:
        texts = talk.draw(args.batch_size, random.Random(run.seed_for("batch", step)))
        return FlamingoBatch(rows(talk, texts).to(run.device), talk.images(texts).to(run.device))

    return batch


# ---------------------------------------------------------------------------------------------
# Scores
# ---------------------------------------------------------------------------------------------


def answers(
    model: Flamingo | GPT, talk: PictureTalk, texts: Sequence[Talk], among_names: bool = False
) -> list[bool]:
    """Tell of each text whether the most probable answer to its last question is right.

    Args:
        model: a GPT gets the pictures in words.
        among_names: take the most probable of the names that the text may ask for.
    """
    from functools import partial

    import torch

    from generative.flamingo.model import Flamingo

    tokeniser, device = talk.tokeniser, next(model.parameters()).device
    right = [False] * len(texts)
    by_length: dict[int, list[int]] = {}
    prompts = []
    for k, text in enumerate(texts):
        whole = text.text if isinstance(model, Flamingo) else talk.in_words(text)
        ending = f" {text.answer} {whole.split()[-1]}"
        prompts.append(tokeniser.encode(whole.removesuffix(ending)))
        by_length.setdefault(len(prompts[-1]), []).append(k)
    for some in by_length.values():
        prompt = torch.tensor([prompts[k] for k in some], device=device)
        extra: tuple[Any, ...] = ()
        if isinstance(model, Flamingo):
            extra = (talk.images([texts[k] for k in some]).to(device),)
        if among_names:
            from generative.text.tokens import with_start

            with torch.no_grad():
                logits = model.logits(with_start(prompt), *extra)[:, -1]
            for k, row in zip(some, logits, strict=True):
                names = list(texts[k].names)
                best = row[[tokeniser.encode(name)[0] for name in names]].argmax()
                right[k] = names[int(best)] == texts[k].answer
            continue
        seen = partial(model.generate, prompt, *extra)
        written = seen(num_tokens=4, temperature=0.0)[:, prompt.shape[1] :]
        for k, row in zip(some, written, strict=True):
            expected = texts[k].answer.split()
            right[k] = tokeniser.pieces(row)[: len(expected)] == expected
    return right


def share(right: Sequence[bool]) -> float:
    """Share of what is right; 0 of nothing."""
    return sum(right) / max(1, len(right))


def score_language(model: GPT, talk: PictureTalk, num: int) -> dict[str, float]:
    """Share of right answers of the GPT, which reads the pictures in words."""
    import random

    from generative.known.picture_talk import Talk

    rng = random.Random(0)
    naming = [talk.naming(4, rng) for _ in range(num)]
    asked = [Talk("questions", (talk.questions(rng, 1),)) for _ in range(num)]
    return {
        "right_names": share(answers(model, talk, naming)),
        "right_questions": share(answers(model, talk, asked)),
    }


def score(model: Flamingo, talk: PictureTalk, num: int) -> dict[str, float]:
    """Share of right answers about pictures that were not trained on.

    Names: after an example of each of four names; with the pictures of the examples exchanged in
    any way; and without examples, the most probable of the four names.
    """
    import random

    from generative.known.picture_talk import Talk

    rng = random.Random(0)
    naming = [talk.naming(4, rng) for _ in range(num)]
    exchanged = [talk.exchanged(text, rng) for text in naming]
    alone = [talk.naming(4, rng, shots=0) for _ in range(num)]
    films = [talk.talk("film", rng) for _ in range(num)]
    asked = [Talk("questions", (talk.questions(rng, 1),)) for _ in range(4 * num)]
    right = answers(model, talk, asked)
    found = {
        "right_names_one_shot": share(answers(model, talk, naming)),
        "right_names_exchanged": share(answers(model, talk, exchanged)),
        "right_names_no_shot": share(answers(model, talk, alone, among_names=True)),
        "right_films": share(answers(model, talk, films)),
    }
    for begins, name in QUESTIONS.items():
        some = [
            r for r, text in zip(right, asked, strict=True)
            if text.chunks[0].words.startswith(begins)
        ]  # fmt: skip
        found[f"right_{name}"] = share(some)
    return found


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
