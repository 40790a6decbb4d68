"""Models of music on held-out chorales: against an LSTM, and against halves of real music."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def transformer_chorales(settings: Settings) -> list[Line]:
    """Nats of notes and durations of 35 chorales, each voice alone, beside an LSTM of equal size.

    Both are trained in the same way, in all twelve keys, for as many steps; no melody of the test
    was in training in any setting. There is no floor: the entropy of a chorale's next note is not
    known.
    """
    from generative.training.run import read_result
    from scripts import train_music_transformer as script

    found = {}
    for name in ("chorales", "chorales-lstm"):
        args = replace(
            script.PRESETS[name],
            out=settings.work / name,
            data_dir=settings.work.parent,
            seed=settings.seed,
        )
        if settings.smoke:
            args = replace(args, data="tunes", max_pieces=20, steps=2, batch_size=4)
        script.main(args)
        found[name] = read_result(settings.work / name)
    ours, lstm = found["chorales"], found["chorales-lstm"]
    lines = []
    for what in ("note", "duration"):
        nats, theirs = (result[f"test_{what}_nats"] for result in (ours, lstm))
        lines.append(Line(f"nats of a {what}", nats, theirs, "LSTM", nats - theirs, 0.0))
    size = ours["parameters"] / lstm["parameters"] - 1
    lines.append(Line("weights more than the LSTM's", size, 0.0, "as large", abs(size), 0.1))
    return lines


def musegan_chorales(settings: Settings) -> list[Line]:
    """Distance of samples from held-out bars in four measures of style, relative to real halves.

    The real bars are split into random halves 100 times, and as many samples are drawn. Distances
    are Wasserstein's between the measures of single pieces, averaged over the tracks. Chorales have
    no empty bar; the bar of this measure is a thousandth.
    """
    from generative.training.run import read_result
    from scripts import train_musegan

    args = replace(
        train_musegan.PRESETS["chorales"],
        out=settings.work / "run",
        data_dir=settings.work.parent,
        seed=settings.seed,
    )
    if settings.smoke:
        model = replace(args.model, num_pitches=84, lowest=24)
        args = replace(args, data="tunes", max_pieces=20, steps=2, batch_size=4, model=model)
    train_musegan.main(args)
    result, lines = read_result(settings.work / "run"), []
    for name in ("empty_bars", "used_pitch_classes", "qualified_notes", "tonal_distance"):
        ours, halves = result[f"{name}_distance"], result[f"{name}_of_halves"]
        what = f"distance in {name.replace('_', ' ')}"
        lines.append(Line(what, ours, halves, "real halves", ours, max(1.5 * halves, 1e-3)))
    return lines


def jsb(preset: str, published: float) -> Callable[[Settings], list[Line]]:
    """Nats per frame of the 77 test chorales of the usual split, 88 keys at every quarter note.

    All frames count; the published value leaves out the first of each piece, which costs most nats.
    """

    def certify(settings: Settings) -> list[Line]:
        from generative.training.run import read_result
        from scripts import train_music_rnn as script

        args = replace(
            script.PRESETS["smoke" if settings.smoke else preset],
            out=settings.work,
            seed=settings.seed,
        )
        if not settings.smoke:
            args = replace(args, data_dir=settings.data)
        script.main(args)
        result = read_result(settings.work)
        lines = []
        for what, key in (("", "per_frame"), (" after the first", "after_first_frame")):
            nats = result[f"test_nats_{key}"]
            lines.append(Line(f"nats a frame{what}", nats, published, "TCN's", nats, published))
        return lines

    return certify


CERTIFICATES = {
    "jsb-lstm": Certificate("LSTM, JSB chorales", jsb("lstm", 8.45), 11, given=True),
    "jsb-gru": Certificate("GRU, JSB chorales", jsb("gru", 8.43), 11, given=True),
    "music-transformer-chorales": Certificate(
        "Music Transformer, relative, chained", transformer_chorales, 11
    ),
    "musegan-chorales": Certificate("MuseGAN, held notes", musegan_chorales, 11),
}
