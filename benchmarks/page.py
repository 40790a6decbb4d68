"""Tables of docs/performance.md from the results of the benchmarks.

    python benchmarks/page.py [--results FOLDER] [--page FILE]

`make bench` calls it last. It prints the tables, and puts them between the two marks of the page.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
MARKS = "<!-- tables: begin -->", "<!-- tables: end -->"

Row = tuple[str, str, str, str]
"""Quantity, our value, the compared value, and the ratio in our favour."""


def car(data: dict[str, Any]) -> list[Row]:
    rates, ratio = data["steps_per_cpu_second"], data["ratio_to_stock"]
    stock = f"stock {rates['stock']:,.0f}"
    rows = [
        ("car, 64x64, steps per CPU-second", f"{rates['ours_64']:,.0f}", stock, ratio["ours_64"]),
        ("car, 96x96 with bar", f"{rates['ours_96']:,.0f}", stock, ratio["ours_96"]),
    ]
    if "envpool" in rates:
        pool = rates["envpool"]
        name = f"EnvPool {pool:,.0f}"
        rows.insert(1, ("car, 64x64", f"{rates['ours_64']:,.0f}", name, rates["ours_64"] / pool))
    reset = data["reset_ms"]
    rows.append(
        ("car, a reset, ms", f"{reset['ours_64']:.1f}", f"stock {reset['stock']:.1f}",
         reset["stock"] / reset["ours_64"])
    )  # fmt: skip
    many = data["steps_per_second_of_16"]
    best = many["our pool, 2 processes"]
    rows += [
        ("16 cars, 2 processes, steps per second", f"{best:,.0f}", f"{name} {many[name]:,.0f}",
         best / many[name])
        for name in ("our pool, 1 process", "SyncVectorEnv", "AsyncVectorEnv",
                     "stock, AsyncVectorEnv")
    ]  # fmt: skip
    difference = data["mean_pixel_difference_of_255"]["64"]
    rows.append(("car, difference of pixels, of 255", f"{difference:.2f}", "stock 0", None))
    return [_row(*row) for row in rows]


def dream(data: dict[str, Any]) -> list[Row]:
    rates = data["steps_per_cpu_second"]
    precision = data["precision_of_cases"]
    best = rates[f"ours, {precision}"]
    what = "dream, steps per CPU-second"
    rows = [
        _row(f"{what}, {precision}", f"{best:,.0f}", f"{name} {rates[name]:,.0f}",
             best / rates[name])
        for name in ("one lane after the other", "one batch, plain torch")
    ]  # fmt: skip
    if precision != "float32":
        exact, plain = rates["ours, float32"], rates["one batch, plain torch"]
        name = f"one batch, plain torch {plain:,.0f}"
        rows.append(_row(f"{what}, float32", f"{exact:,.0f}", name, exact / plain))
    one, two = (data["steps_per_second_of_processes"][n] for n in ("1", "2"))
    rows.append(
        _row("dream, 2 processes, steps per second", f"{two:,.0f}", f"1 process {one:,.0f}",
             two / one)
    )  # fmt: skip
    rows += [
        _row(f"dream, correlation of ranks, {name}", f"{value:.3f}", "float32 1", None)
        for name, value in data["rank_correlation_with_float32"].items()
    ]
    return rows


def training(data: dict[str, Any]) -> list[Row]:
    return [
        _row(f"{title}, CPU ms a step", f"{rows['ours']['ms_per_step']:.1f}",
             f"{name} {row['ms_per_step']:.1f}", row["ours_is_faster"])
        for title, rows in data["contests"].items()
        for name, row in rows.items()
        if name != "ours"
    ]  # fmt: skip


def evolution(data: dict[str, Any]) -> list[Row]:
    times = data["ask_and_tell_ms"]["64"]
    rows = [
        _row("CMA-ES, 867 numbers, population 64, CPU ms", f"{times['ours']:.1f}",
             f"{name} {value:,.1f}", value / times["ours"])
        for name, value in times.items()
        if not name.startswith("ours")
    ]  # fmt: skip
    share = data["share_of_generation"]["ours"]
    rows.append(_row("CMA-ES, share of a dreamed generation", f"{share:.1%}", "", None))
    resume = 1.8 * data["resume_ms_per_generation"]
    rows.append(_row("back in a search of 1,800 generations, CPU s", f"{resume:.0f}", "", None))
    return rows


def drawings(data: dict[str, Any]) -> list[Row]:
    ours, stock = data["scores"]["ours"], data["scores"]["stock"]
    return [
        _row(f"score of the committed agent, {data['tracks']} tracks",
             f"{ours['mean']:.0f} +/- {ours['std']:.0f}",
             f"stock drawing {stock['mean']:.0f} +/- {stock['std']:.0f}", None)
    ]  # fmt: skip


def scaling(data: dict[str, Any]) -> list[Row]:
    rows = []
    for name, rates in (("real tracks", data["tracks"]), ("dreams", data["dreams"])):
        for count, bare in rates["bare loops"].items():
            for backend in ("processes", "ray"):
                what = f"{name}, {count} worker{'s' * (count != '1')}, {backend}, steps per second"
                rate = rates[backend][count]
                peer = f"bare loops {bare:,.0f} ({rate / bare:.0%})"
                rows.append(_row(what, f"{rate:,.0f}", peer, None))
    rows += [
        _row(f"64 candidates that cost nothing, {name.replace('1 episodes', '1 episode')}, ms",
             f"{spent['clock']:.0f}", "", None)
        for name, spent in data["overhead_ms"].items()
    ]  # fmt: skip
    return rows


def generation(data: dict[str, Any]) -> list[Row]:
    return [
        _row(f"256 tokens by {name}, CPU s", f"{times['remembering_s']:.2f}",
             f"reading anew {times['reading_anew_s']:.2f}", times["times_as_fast"])
        for name, times in data["cpu_seconds_of_256_tokens"].items()
    ]  # fmt: skip


def sb3_dream(data: dict[str, Any]) -> list[Row]:
    rows = []
    for lanes, rates in data["lane_steps_per_cpu_second"].items():
        ours, peer = rates["DreamVecEnv, tensors"], rates["DreamVectorEnv"]
        what = f"dreams for a learner, {int(lanes):,} lanes, float32, steps per CPU-second"
        rows.append(_row(what, f"{ours:,.0f}", f"DreamVectorEnv {peer:,.0f}", ours / peer))
    return rows


PARTS = {
    "dream": dream,
    "car": car,
    "training": training,
    "evolution": evolution,
    "drawings": drawings,
    "scaling": scaling,
    "generation": generation,
    "sb3_dream": sb3_dream,
}


def _row(what: str, ours: str, peer: str, ratio: float | None) -> Row:
    return (what, ours, peer, "" if ratio is None else f"{ratio:.1f}x")


def tables(results: Path) -> str:
    """Tables as Markdown: ours beside others, growth of dreams, and time of a step by part."""
    data = {
        name: json.loads((results / f"{name}.json").read_text())
        for name in PARTS
        if (results / f"{name}.json").exists()
    }
    lines = ["| what | ours | beside it | ratio |", "|---|---|---|---|"]
    for name, found in data.items():
        lines += [f"| {' | '.join(row)} |" for row in PARTS[name](found)]
    if "dream" in data:
        cases, processes = data["dream"]["cases"], data["dream"]["steps_per_second_of_processes"]
        lines += [
            "",
            "How the dream's cost grows: one size at a time differs from the first row's.",
            "",
            f"| dream, {data['dream']['precision_of_cases']} | steps per CPU-second | memory, MB |",
            "|---|---|---|",
        ]
        for name, case in cases.items():
            lines.append(f"| {name} | {case['steps_per_cpu_second']:,} | {case['megabytes']:.0f} |")
        for count, rate in processes.items():
            lines.append(f"| {count} processes, steps per second of the clock | {rate:,} | |")
        lines += ["", "Where a dreamed step's time goes, CPU microseconds:", ""]
        lines += _parts(data["dream"]["microseconds_per_step"])
    if "car" in data:
        lines += ["", "Where the time of a step of the car goes, CPU microseconds:", ""]
        lines += _parts({"64x64": data["car"]["microseconds_per_step"]})
    return "\n".join(lines)


def _parts(columns: dict[str, dict[str, float]]) -> list[str]:
    """A row for every part, a column for every way, and the sums."""
    head = f"| | {' | '.join(columns)} |"
    lines = [head, "|---" * (1 + len(columns)) + "|"]
    for part in next(iter(columns.values())):
        lines.append(f"| {part} | {' | '.join(f'{c[part]:.2f}' for c in columns.values())} |")
    sums = " | ".join(f"{sum(column.values()):.2f}" for column in columns.values())
    return [*lines, f"| together | {sums} |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=DOCS / "results" / "benchmarks")
    parser.add_argument("--page", type=Path, default=DOCS / "performance.md")
    args = parser.parse_args()
    text = tables(args.results)
    print(text)
    begin, end = MARKS
    page = args.page.read_text()
    if page.count(begin) != 1 or page.count(end) != 1:
        raise SystemExit(f"{args.page}: needs the lines {begin} and {end} once each")
    pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    args.page.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", page))


if __name__ == "__main__":
    main()
