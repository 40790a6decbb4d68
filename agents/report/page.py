"""report.html: one file, readable without network, on a phone, in light and dark."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.report.charts import Line, histogram, line_chart, scatter, ticks
from agents.report.records import RoundRecord, RunRecord
from generative.training.files import read_file
from generative.training.progress import format_seconds
from generative.training.settings import flatten

if TYPE_CHECKING:
    from agents.report.checks import ModelCheck

__all__ = ["render_page"]

INLINE_BYTES = 8 * 2**20
"""Largest film that becomes part of the page, in bytes; larger ones stay beside it."""


def render_page(
    record: RunRecord, check: ModelCheck | None, films: Sequence[Path], folder: Path
) -> str:
    """Render the whole page as HTML text.

    Args:
        record: the numbers.
        check: result of V and M on fresh tracks, if they were tested.
        films: mp4 files.
        folder: folder of the page; larger films are linked relative to it.
    """
    sections = [
        _head(record),
        _films(films, folder),
        _rounds(record),
        _losses(record.rounds),
        _vision(check) if check else "",
        _memory(check) if check else "",
        _scores(record),
        _small_print(record),
    ]
    title = f"Trained in its dream: {record.evaluation.mean:.0f} points"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _head(record: RunRecord) -> str:
    evaluation, facts = record.evaluation, record.facts
    low, high = evaluation.interval
    yardstick = ""
    if record.random_scores:
        yardstick = (
            f"Random actions score {np.mean(record.random_scores):.0f} ± "
            f"{np.std(record.random_scores):.0f} in the same episodes. "
        )
    dream = "-" if record.dream_mean is None else f"{record.dream_mean:.0f}"
    tiles = [
        (
            dream,
            "points dreamed",
            "from the moments it trained at, at the pace of 1,000 steps"
            if record.is_car
            else "from the moments it trained at, up to the dream's end",
        ),
        (f"{facts.real_frames:,}", "real frames", "that V and M learned from"),
        (f"{facts.dream_steps:,}", "dreamed decisions", "that the controller was trained on"),
        (f"{facts.selection_episodes:,}", "real episodes", "driven to choose between controllers"),
        (format_seconds(facts.wall_seconds), "of training", "from the first frame to the agent"),
        (str(evaluation.action_repeat), "steps per action", "each action is held this long"),
    ]
    cards = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span>'
        f"<small>{escape(note)}</small></div>"
        for value, name, note in tiles
    )
    return (
        f"<header><h1>{'A car' if record.is_car else 'An agent'} trained in its own dream</h1>"
        f'<p class="score"><b>{evaluation.mean:.0f}</b> <span>± {evaluation.std:.0f} points on '
        f"{_tracks(record)} of {escape(evaluation.game)}</span></p>"
        f"<p>95 % interval of the mean: {low:.0f} to {high:.0f}. {yardstick}Real rewards were "
        "never used to change the controller: it learned inside the world model, and real episodes "
        "only chose "
        f'between finished controllers.</p><div class="cards">{cards}</div></header>'
    )


def _films(films: Sequence[Path], folder: Path) -> str:
    if not films:
        return ""
    players = []
    for film in films:
        if film.stat().st_size <= INLINE_BYTES:
            source = (
                "data:video/mp4;base64," + base64.b64encode(read_file(film, INLINE_BYTES)).decode()
            )
        else:
            source = escape(Path(os.path.relpath(film, folder)).as_posix())
        players.append(
            f'<video controls muted loop playsinline preload="metadata" poster="{_still(film)}" '
            f'src="{source}"></video>'
        )
    return _section(
        "Film",
        "Left the real game, right what the agent has in mind. While it is awake this is V's "
        "picture of the frame before it; then M dreams on alone, and the controller drives there.",
        *players,
    )


def _still(film: Path, seconds: float = 4.0) -> str:
    """Frame of the film, shown until it is played, from after the camera has flown in."""
    import imageio
    from PIL import Image

    reader = imageio.get_reader(film, format="FFMPEG")
    with reader:
        data = reader.get_meta_data()
        frame = reader.get_data(int(min(seconds, data["duration"] / 2) * data["fps"]))
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _rounds(record: RunRecord) -> str:
    rounds = record.rounds
    if not rounds:
        return ""
    index = [r.index for r in rounds]
    dots = [(r.index, score) for r in rounds for score in r.real_scores]
    gap = line_chart(
        [
            Line("dreamed, at the pace of 1,000 steps" if record.is_car else "dreamed", index,
                 [r.dream_score() for r in rounds], "dream"),
            Line("real, mean of the episodes for choosing", index, [r.real_mean for r in rounds],
                 "real", dots=dots),
        ],
        "round",
        "score",
    )  # fmt: skip
    text = "The dream gap. Small dots are single real episodes."
    best = max(rounds, key=lambda r: r.real_mean)
    if rounds[-1].real_mean < best.real_mean:
        text += (
            f" The last round scores less than round {best.index}: so few episodes are a rough "
            f"measure (± {np.std(rounds[-1].real_scores):.0f} from one to the next), and a new "
            "controller learns in a dream that has changed."
        )
    figures = [_figure(gap, text)]
    candidates = [(r, c) for r in rounds for c in r.candidates if c.real_scores]
    if len(candidates) > 2:
        points = [
            (
                r.dream_score(c.dream_return),
                float(np.mean(c.real_scores)),
                "real" if c.chosen else "plain",
                f"round {r.index}, {c.name}: dreamed {r.dream_score(c.dream_return):.0f}, real "
                f"{np.mean(c.real_scores):.0f} in {len(c.real_scores)} episodes",
            )
            for r, c in candidates
        ]
        chart = scatter(points, "dreamed score", "real score")
        text = (
            "Does a good dream make a good driver? Every controller that was tried; green: kept. "
            "On the dashed line reality is as good as the dream."
        )
        figures.append(_figure(chart, text))
    return _section(
        "Rounds",
        "Each round collects frames with the current controller, trains V and M further, trains "
        "the controller in the dream, and drives a few real episodes to choose.",
        _grid(figures),
        _table(*_results_table(rounds)),
        "<details><summary>Losses and seconds of every round</summary>",
        _table(*_losses_table(rounds)),
        _table(*_seconds_table(rounds)),
        "</details>",
    )


Table = tuple[list[str], list[list[str]]]
"""Head and rows; narrow enough for a telephone."""


def _results_table(rounds: Sequence[RoundRecord]) -> Table:
    best = max(rounds, key=lambda r: r.real_mean)
    rows = []
    for r in rounds:
        real = f"{r.real_mean:.0f} ± {np.std(r.real_scores):.0f}"
        rows.append(
            [
                str(r.index),
                f"{r.real_frames_total:,}",
                f"{r.dream_score():.0f}",
                f"<b>{real}</b>" if r is best else real,
                format_seconds(sum(r.seconds.values())),
            ]
        )
    return ["round", "real frames", "dreamed", "real", "time"], rows


def _losses_table(rounds: Sequence[RoundRecord]) -> Table:
    rows = [
        [
            str(r.index),
            _optional(r.vae_recon),
            _optional(r.vae_kl),
            f"{r.memory_nll:.3f}",
            f"{r.memory_reward_error:.3f}",
        ]
        for r in rounds
    ]
    return ["round", "V error", "V nats", "M nats", "M reward"], rows


def _seconds_table(rounds: Sequence[RoundRecord]) -> Table:
    stages = list(dict.fromkeys(stage for r in rounds for stage in r.seconds))
    rows = [
        [str(r.index), *(f"{r.seconds[s]:.0f}" if s in r.seconds else "-" for s in stages)]
        for r in rounds
    ]
    return ["round", *stages], rows


def _losses(rounds: Sequence[RoundRecord]) -> str:
    if not rounds:
        return ""
    figures = []
    for name, label, color, why in _LOSSES:
        values = [getattr(r, name) for r in rounds]
        known = [value for value in values if value is not None]
        if known:
            line = Line(label, [r.index for r in rounds], values, color)
            rises = known[-1] > known[0]
            text = f"It rises from {known[0]:.3g} to {known[-1]:.3g}. {why}" if rises else ""
            figures.append(_figure(line_chart([line], "round", label), text))
    text = (
        "At the end of each round's training, on all frames so far. The data change with every "
        "round, so these curves are not those of one training; lower is better except for V's nats."
    )
    return _section("Losses", text, _grid(figures))


_HARDER = "A better agent brings frames that are harder to predict."

_LOSSES = (
    ("vae_recon", "V: squared error per frame", "vision", _HARDER),
    (
        "vae_kl",
        "V: nats per frame",
        "vision",
        "V keeps more of each frame; this is no error.",
    ),
    (
        "memory_nll",
        "M: nats per latent dimension",
        "dream",
        f"{_HARDER} While V is still trained its z changes too, and where V keeps more there is "
        "more to foresee. A rise alone does not say that M foresees less well.",
    ),
    (
        "memory_reward_error",
        "M: squared reward error (scaled)",
        "dream",
        "Rewards vary more as the agent earns more of them.",
    ),
)
"""Field of a round, label, colour, and why the curve may rise."""


def _vision(check: ModelCheck) -> str:
    return _section(
        "What V keeps",
        "Frames of tracks that nothing was trained on, and V's reconstructions from "
        f"{check.num_latents} numbers each.",
        _strip([("seen", check.seen), ("kept", check.kept)]),
    )


def _memory(check: ModelCheck) -> str:
    strips = []
    for strip in check.strips:
        strips.append(f"<h3>{escape(strip.name)}</h3>")
        heads = ["now"] + [f"{s:.1f} s" for s in check.strip_seconds[1:]]
        strips.append(_strip([("game", strip.real), ("dream", strip.dreamed)], heads))
    charts = []
    for curves, label in (
        (check.latent, "error of z, per dimension"),
        (check.pixel, "error per pixel, of 255"),
    ):
        lines = [
            Line(name, curves.horizons, errors, *_PREDICTOR_STYLE[name])
            for name, errors in curves.errors.items()
        ]
        chart = line_chart(lines, "decisions without a look at the game", label, from_zero=True)
        charts.append(_figure(chart, ""))
    return _section(
        "What M foresees",
        f"{check.num_dreams} dreams that begin in real drives on fresh tracks "
        f"({check.num_drives} of them), under the actions that were really taken. The road beyond "
        "the picture cannot be known, so some error is unavoidable; a prediction is worth "
        "something where it lies below the grey line.",
        _grid(charts),
        *strips,
    )


_PREDICTOR_STYLE = {
    "M, likeliest": ("dream",),
    "M, drawn": ("dream", True),
    "no change": ("plain",),
    "V's own blur": ("vision", True),
}


def _scores(record: RunRecord) -> str:
    evaluation = record.evaluation
    scores = evaluation.scores
    bins = ticks(scores.min(), scores.max(), 12)  # of the range: also a narrow one shows its spread
    width = bins[1] - bins[0]
    chart = histogram(scores.tolist(), "score", _name(record, 2), width=width)
    rows = [
        [
            str(t.seed),
            f"{t.score:.1f}",
            str(t.length),
            "-" if t.tiles is None else f"{t.tiles:.0%}",
            "yes" if t.lap_finished else "",
        ]
        for t in evaluation.tracks
    ]
    head, laps = ["seed", "score", "steps"], ""
    if record.is_car:
        head += ["tiles", "lap finished"]
        count = sum(track.lap_finished for track in evaluation.tracks)
        laps = f"; {count} {'lap' if count == 1 else 'laps'} finished"
    rows = [row[: len(head)] for row in rows]
    return _section(
        "Scores",
        f"{_tracks(record)} with published seeds, from {scores.min():.0f} to {scores.max():.0f}, "
        f"median {np.median(scores):.0f}{laps}. Neither training nor choosing used them.",
        _grid([_figure(chart, "")]),
        f"<details><summary>Every {_name(record, 1)}</summary>" + _table(head, rows) + "</details>",
    )


def _small_print(record: RunRecord) -> str:
    content = record.to_json()
    settings = {k: _text(v) for k, v in flatten(record.args).items()}
    seeds = {k: _text(v) for k, v in content["seeds"].items()}
    versions = {k: _text(v) for k, v in flatten(record.versions).items()}
    tables = {"Settings": settings, "Seeds": seeds, "Versions": versions}
    made, machine = record.made, record.versions
    origin = {
        "command": f"<code>{escape(made['command'] or '')}</code>",
        "commit": escape(made["commit"] or "not known"),
        "date": escape(made["date"] or "not known"),
        "machine": escape(
            f"{machine['cpu']}, {machine['cores']} cores, {machine['gpu'] or 'no GPU'}, "
            f"{machine['system']}"
        ),
    }
    if content["dream"] is not None:
        dream = {k: _text(v) for k, v in flatten(content["dream"]).items()}
        tables = {"Dream of the chosen controller": dream, **tables}
    blocks = [
        f"<details><summary>{name}</summary>"
        + _table(["", ""], [[escape(k), escape(v)] for k, v in table.items()], "plain-table")
        + "</details>"
        for name, table in tables.items()
    ]
    rows = [[name, value] for name, value in origin.items()]
    table = _table(["", ""], rows, "plain-table")
    return _section("Small print", "The same numbers are in report.json.", table, *blocks)


# ---------------------------------------------------------------------------------------------
# HTML
# ---------------------------------------------------------------------------------------------


def _section(title: str, text: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(text)}</p>{''.join(parts)}</section>\n"


def _grid(figures: Iterable[str]) -> str:
    return f'<div class="grid">{"".join(figures)}</div>'


def _figure(chart: str, caption: str) -> str:
    caption = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{chart}{caption}</figure>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], css: str = "") -> str:
    """Table whose cells are HTML and whose head is text."""
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    thead = f"<thead><tr>{names}</tr></thead>" if any(head) else ""
    return f'<table class="{css}">{thead}<tbody>{body}</tbody></table>'


def _strip(rows: Sequence[tuple[str, np.ndarray]], heads: Sequence[str] = ()) -> str:
    """Named rows of small pictures, uint8 (N, H, W, 3) each, with optional heads of the columns."""
    count = len(rows[0][1])
    head = "".join(f"<span>{escape(text)}</span>" for text in heads)
    columns = f'style="--n:{count}"'
    lines = [f'<div class="film heads" {columns}><span></span>{head}</div>'] if heads else []
    for name, frames in rows:
        picture = f'<img alt="{escape(name)}" src="{_png(_side_by_side(frames))}">'
        lines.append(f'<div class="film" {columns}><span>{escape(name)}</span>{picture}</div>')
    return f'<div class="strip">{"".join(lines)}</div>'


def _side_by_side(frames: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) -> (H, N * (W + 2), 4), with transparent gaps."""
    padded = np.zeros((*frames.shape[:2], frames.shape[2] + 2, 4), np.uint8)
    padded[:, :, 1:-1, :3] = frames
    padded[:, :, 1:-1, 3] = 255
    return np.concatenate(list(padded), axis=1)


def _png(picture: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _tracks(record: RunRecord) -> str:
    count = len(record.evaluation.tracks)
    return f"{count} {_name(record, count)}"


def _name(record: RunRecord, count: int) -> str:
    """Name of `count` of the real episodes, in the right number."""
    name = "track" if record.is_car else "episode"
    return name if count == 1 else name + "s"


def _optional(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _text(value: Any) -> str:
    if isinstance(value, list) and len(value) > 4 and value == list(range(value[0], value[-1] + 1)):
        return f"{value[0]} to {value[-1]}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


_STYLE = """
:root{color-scheme:light dark;--back:#fbfbf9;--card:#fff;--edge:#e3e3de;--text:#1d2127;
--dim:#646b76;--real:#2c8a4b;--dream:#7a45d6;--vision:#1f7fb8;--plain:#8a8f98}
@media (prefers-color-scheme:dark){:root{--back:#14161b;--card:#1c1f26;--edge:#31363f;
--text:#e9ebef;--dim:#9aa1ac;--real:#5cc07e;--dream:#b48cff;--vision:#5db4ea;--plain:#7f8691}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);font:16px/1.55 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 6px}
h2{font-size:1.25rem;margin:44px 0 4px}
h3{font-size:.95rem;margin:18px 0 6px;color:var(--dim);font-weight:600}
p{max-width:70ch;margin:4px 0 14px}
section>p,small,figcaption,.score span{color:var(--dim)}
.score{margin:10px 0}.score b{font-size:3.4rem;line-height:1;color:var(--real)}
.score span{font-size:1.15rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin-top:18px}
.card{background:var(--card);border:1px solid var(--edge);border-radius:8px;padding:12px 14px}
.card b,.card span,.card small{display:block}.card b{font-size:1.3rem}
.card small{font-size:.78rem;line-height:1.35;margin-top:3px}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:14px;
margin-bottom:14px}
figure{margin:0;background:var(--card);border:1px solid var(--edge);border-radius:8px;
padding:12px 12px 8px;max-width:560px}
figcaption{font-size:.85rem;margin-top:4px}
video{display:block;width:100%;border-radius:8px;margin-bottom:12px;background:#14161b}
.chart{display:block;width:100%;height:auto;font:12px system-ui,sans-serif}
.tick,.label{fill:var(--dim)}
.rug{stroke:var(--text);stroke-width:1.5;opacity:.6}
.grid line,.chart .grid{stroke:var(--edge)}.chart .zero{stroke:var(--plain)}
.curve{fill:none;stroke-width:2.2;stroke-linejoin:round}.dashed{stroke-dasharray:5 4}
.real{--c:var(--real)}.dream{--c:var(--dream)}.vision{--c:var(--vision)}.plain{--c:var(--plain)}
.curve{stroke:var(--c)}.dot,.bar{fill:var(--c)}.faint{opacity:.35}.hidden{opacity:0}
.mark{stroke:var(--text);stroke-dasharray:3 3}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:.82rem;margin:4px 0 2px;color:var(--dim)}
.key{display:inline-block;width:20px;border-top:3px solid var(--c);margin-right:6px;
vertical-align:middle}.key.dashed{border-top-style:dashed}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;width:100%;
margin-bottom:14px}
th,td{padding:5px 8px;text-align:right;border-bottom:1px solid var(--edge)}
td{white-space:nowrap}
th{color:var(--dim);font-weight:600;overflow-wrap:anywhere}
.plain-table td{text-align:left;white-space:normal;overflow-wrap:anywhere}
.plain-table td:first-child{color:var(--dim)}
.strip{background:var(--card);border:1px solid var(--edge);border-radius:8px;padding:10px;
margin-bottom:8px}
.film{display:grid;grid-template-columns:46px 1fr;align-items:center;font-size:.8rem;
color:var(--dim)}
.film.heads{grid-template-columns:46px repeat(var(--n),1fr);text-align:center}
.film img{width:100%;image-rendering:pixelated;display:block;margin:2px 0}
details{margin:8px 0}summary{cursor:pointer;color:var(--dim)}
code{overflow-wrap:anywhere}
:focus-visible{outline:3px solid var(--vision);outline-offset:2px}
@media (max-width:560px){main{padding:16px 14px 40px}table{font-size:.75rem}th,td{padding:4px 2px}
.chart{font-size:18px}.film{grid-template-columns:40px 1fr}}
"""
