"""DALL.E, Parti and MUSE on the micro-world: nats beside ln of what fits, and what is written."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def scenes(preset: str, settings: Settings) -> list[Line]:
    """Nats of new scenes given their captions, scenes that do not fit, and evenness of 27."""
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
    return [
        Line(f"nats of {what} given its caption, gap as a share", nll, floor,
             "listed scenes", nll / floor - 1, 0.02),
        Line("scenes that do not fit their captions", wrong, 0.0, "none", wrong, 0.05),
        Line("1 - p of a chi-squared test of 27 scenes that fit one caption",
             1 - found["even_p"], None, "any value is as likely, were they even",
             1 - found["even_p"], 0.99),
    ]  # fmt: skip


CERTIFICATES = {
    "dalle-scenes": Certificate("DALL.E", partial(scenes, "dalle")),
    "parti-scenes": Certificate("Parti", partial(scenes, "parti")),
    "muse-scenes": Certificate("MUSE", partial(scenes, "muse")),
}
