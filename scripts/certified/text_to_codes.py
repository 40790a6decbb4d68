"""DALL.E, Parti and MUSE on the micro-world: nats beside ln of what fits, and what is written."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from scripts.certified.common import Certificate, Line, Settings

if TYPE_CHECKING:
    from generative.data.caption_tokens import CaptionTokeniser
    from scripts.train_text_to_codes import Args

__all__ = ["CERTIFICATES"]

STEPS = (1, 2, 4)
"""Numbers of MUSE's steps of decoding, beside one for each code."""
FITTING = (1, 27, 72, 84)
"""Numbers of scenes that fit a caption: with both places, a relation, two objects, three equal
ones."""
LEAST = 0.02
"""Largest gap in nats where the least is 0, of which there is no share."""


def scenes(preset: str, settings: Settings) -> list[Line]:
    """Nats of new scenes given their captions, of any kind and of those that so many fit, scenes
    that do not fit, and evenness of 27."""
    from generative.training.run import read_result
    from scripts import train_text_to_codes

    args = replace(
        train_text_to_codes.PRESETS[preset], out=settings.work / preset, seed=settings.seed
    )
    if settings.smoke:
        args = replace(args, steps=2, batch_size=8, samples=20)
    train_text_to_codes.main(args)
    found = read_result(args.out)
    nll, floor, wrong = found["test_nll"], found["floor"], 1 - found["satisfied"]
    what = "a hidden code" if preset == "muse" else "a scene"
    steps = _by_steps(args, settings) if preset == "muse" else []
    return [
        Line(f"nats of {what} given its caption, gap as a share", nll, floor,
             "listed scenes", nll / floor - 1, 0.02),
        *_by_fitting(args, settings, what),
        Line("scenes that do not fit their captions", wrong, 0.0, "none", wrong, 0.05),
        Line("1 - p of a chi-squared test of 27 scenes that fit one caption",
             1 - found["even_p"], None, "any value is as likely, were they even",
             1 - found["even_p"], 0.99),
        *steps,
    ]  # fmt: skip


def _by_fitting(args: Args, settings: Settings, what: str) -> list[Line]:
    """Nats of new scenes by the number that fit their captions, beside ln of it.

    The captions have the weights of the training. Of MUSE the least is that of hidden codes.
    """
    from scripts.common.scene_codes import nats_by_fitting

    found = nats_by_fitting(
        *_trained(args), FITTING, args.mix, settings.seed, 20 if settings.smoke else 4000
    )
    lines = []
    for number, (nll, floor) in found.items():
        known = "listed scenes" if what == "a hidden code" else f"ln {number}"
        told = f"nats of {what} given a caption that"
        if number == 1:
            lines.append(Line(f"{told} 1 scene fits, gap", nll, floor, known, nll - floor, LEAST))
        else:
            told, share = f"{told} {number} scenes fit, gap as a share", nll / floor - 1
            lines.append(Line(told, nll, floor, known, share, 0.02))
    return lines


def _trained(args: Args) -> tuple[Any, Any, CaptionTokeniser]:
    """The model of a run, what its codes are, and its words."""
    from generative.data.caption_tokens import CaptionTokeniser
    from generative.loading import load_model
    from scripts.common.captions import VOCABULARY
    from scripts.common.scene_codes import load_codes

    model: Any = load_model(args.out / "model")
    return model, load_codes(None, "cpu"), CaptionTokeniser.load(args.out / VOCABULARY)


def _by_steps(args: Args, settings: Settings) -> list[Line]:
    """Scenes that contradict their captions where several codes are filled in at once, beside those
    of the exact probabilities of hidden codes with the same steps."""
    import torch

    from generative.known.captioned_scenes import CaptionedScenes
    from scripts.common.scene_codes import accuracy_by_steps, exact_muse

    model, codes, words = _trained(args)
    generator = torch.Generator().manual_seed(settings.seed)
    texts, _ = CaptionedScenes(args.mix).draw(args.samples, generator)
    exact = exact_muse(texts)
    exact.config = model.config
    lines = []
    for number in STEPS:
        wrong, least = (
            1 - accuracy_by_steps(muse, codes, words, texts, (number,))[
                f"satisfied_in_{number}_steps"
            ]
            for muse in (model, exact)
        )  # fmt: skip
        what = "1 step" if number == 1 else f"{number} steps"
        lines.append(
            Line(f"scenes that do not fit, filled in in {what}, more than by exact probabilities",
                 wrong, least, "exact probabilities", wrong - least, 0.05)
        )  # fmt: skip
    return lines


CERTIFICATES = {
    "dalle-scenes": Certificate("DALL.E", partial(scenes, "dalle"), 13),
    "parti-scenes": Certificate("Parti", partial(scenes, "parti"), 13),
    "muse-scenes": Certificate("MUSE", partial(scenes, "muse"), 13),
}
