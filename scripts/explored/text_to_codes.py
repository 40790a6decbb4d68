"""A trained DALL.E, Parti or MUSE: pictures of captions, ranking by CLIP, steps of decoding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from generative.training.ranges import Checked, Count, Length
from scripts.common.clip import load_vocabulary
from scripts.common.scene_codes import accuracy_by_steps, best_of, load_codes, writer_scores
from scripts.explored.common import Subject

if TYPE_CHECKING:
    from generative.data.caption_tokens import CaptionTokeniser

CLASSES = ("DALLE", "Parti", "MUSE")


@dataclass(frozen=True)
class Settings(Checked):
    """DALL.E, Parti and MUSE."""

    prompts: Annotated[tuple[str, ...], Length(1, 64)] = (
        "a red square left of a blue disc",
        "a blue square left of a red disc",
        "three green triangles",
        "a white cross in the middle",
    )
    """Captions to draw pictures for."""
    num_images: Count = 8
    """Pictures for each of them."""
    captions: Count = 200
    """Captions by which pictures are judged."""
    clip: Path | None = None
    """Run of train_clip on scenes, which ranks 16 pictures of each caption; None for no ranking."""
    steps: Annotated[tuple[Count, ...], Length(1, 16)] = (1, 2, 4, 9)
    """Numbers of decoding steps to compare, of MUSE."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures; returns nats beside their floor, and shares of pictures that fit their captions."""
    import torch

    from generative.known.captioned_scenes import CaptionedScenes
    from generative.known.scenes import LETTER

    model = subject.model
    tokeniser = load_vocabulary(subject.run, subject.folder, "train_text_to_codes")
    letters = model.config.num_codes > LETTER
    codes = load_codes(_path(subject.setting("codes", None)), subject.device, letters)
    generator = torch.Generator().manual_seed(subject.seed)
    world = CaptionedScenes()
    found = writer_scores(model, codes, tokeniser, world, generator, settings.captions)
    subject.save("prompts", pictures(model, codes, tokeniser, settings, subject))
    texts, _ = world.draw(settings.captions, generator)
    if subject.model.saved_name == "MUSE":
        found |= accuracy_by_steps(model, codes, tokeniser, texts, settings.steps)
    if settings.clip is not None:
        from generative.clip import CLIP

        clip = CLIP.from_pretrained(settings.clip / "model", subject.device)
        words = load_vocabulary(settings.clip, settings.clip)
        found |= best_of(model, codes, tokeniser, clip, words, texts)
    return found


def pictures(
    model: Any, codes: Any, tokeniser: CaptionTokeniser, settings: Settings, subject: Subject
) -> Any:
    """A row of pictures for each prompt, below it."""
    from generative.training.pictures import sheet, strips

    rows = []
    for prompt in settings.prompts:
        tokens = tokeniser.encode([prompt] * settings.num_images).to(subject.device)
        drawn = codes.decode(model.sample(tokens, subject.generator()))
        rows.append(strips(drawn, scale=2))
    return sheet(rows, settings.prompts, columns=1)


def _path(setting: Any) -> Path | None:
    setting = setting[0] if isinstance(setting, list) else setting
    return None if setting is None else Path(setting)
