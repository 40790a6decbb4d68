"""Scores, frames and minutes on the pages are those of the committed reports beside them."""

import json
import math
import re
from pathlib import Path

import pytest

from agents.evaluation import bootstrap_interval
from tests.commands import ROOT

PAGES = ("README.md", "docs/results.md", "docs/car-in-its-dream.md", "docs/any-environment.md")
LINK = re.compile(r"\[[^]]*\]\(([^)]*results/[^)]*?)\.(?:html|json)\)")


def rows(page: str) -> list[tuple[dict[str, str], Path]]:
    """Cells by the head of their column, of every row of a table that links one report or more."""
    found, heads = [], []
    for line in (ROOT / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            heads = []
        elif not heads:
            heads = cells
        else:
            for link in LINK.findall(line)[:1]:
                report = ((ROOT / page).parent / link).with_suffix(".json")
                found.append((dict(zip(heads, cells, strict=True)), report))
    return found


CASES = [
    pytest.param(cells, report, id=f"{page}-{report.parent.name}-{report.stem}")
    for page in PAGES
    for cells, report in rows(page)
    if "real_mean" in json.loads(report.read_text())
]


def column(cells: dict[str, str], *names: str) -> str:
    """The first of these columns that a table has, without links and emphasis; "" for none."""
    text = next((cells[name] for name in names if name in cells), "")
    return re.sub(r"\[([^]]*)\]\([^)]*\)|\*\*", r"\1", text)


def number(text: str) -> float | None:
    """The first number of a cell."""
    match = re.search(r"-?[\d,]+(\.\d+)?", text)
    return float(match[0].replace(",", "")) if match else None


@pytest.mark.parametrize(("cells", "report"), CASES)
def test_a_row_says_what_its_report_says(cells, report):
    data = json.loads(report.read_text())
    score = column(cells, "score", "score, seed 1", "seed 2")
    mean, deviation = (number(part) for part in score.split("+/-"))
    assert abs(mean - data["real_mean"]) <= 0.5
    assert abs(deviation - data["real_std"]) <= 0.5
    for names, key in (
        (("real frames to learn", "real frames"), "real_frames"),
        (("real episodes to choose", "episodes for choosing"), "selection_episodes"),
        (("tracks", "stock tracks"), "episodes"),
    ):
        shown = number(column(cells, *names))
        if key in data and any(name in cells for name in names):
            assert shown == data[key]
    interval = re.findall(r"-?[\d,]+", column(cells, "95 % interval"))
    if interval:
        # Reports of before have another kind of interval; their scores give today's.
        scores = [track["score"] for track in data["tracks"]]
        assert [float(x.replace(",", "")) for x in interval] == pytest.approx(
            bootstrap_interval(scores), abs=0.6
        )
    minutes = column(cells, "minutes", "minutes, seed 1")
    trained = re.search(r"([\d.]+) minutes", column(cells, "trained"))
    shown = number(minutes) if minutes else float(trained[1]) if trained else None
    if shown is not None:
        others = [report, *report.parent.glob(f"{report.stem[:-1]}[23].json")]
        spent = [json.loads(path.read_text())["wall_seconds"] / 60 for path in others]
        # Where a busy machine made the linked run slow, the row says so, and what it took.
        slow = re.search(r"([\d.]+) beside much other work", minutes)
        near = spent[1:] if slow else spent[:1]
        assert all(abs(shown - took) <= 0.06 + 0.005 * took for took in near)
        assert not slow or abs(float(slow[1]) - spent[0]) <= 0.06


@pytest.mark.parametrize(
    ("run", "kept"), [("dream-seed1", 0), ("latent-seed1", 1), ("pixels-seed1", 1)]
)
def test_frames_of_policies_are_those_of_their_runs(run, kept):
    """A policy of z and h also stands on the frames that its V and M learned from."""
    found = rows("docs/results.md")
    [cells] = [cells for cells, _ in found if f"ppo/{run}/" in cells.get("report", "")]
    training = json.loads((ROOT / f"docs/results/ppo/{run}/training.json").read_text())
    world = json.loads((ROOT / "pretrained/carracing-dream/training.json").read_text())
    numbers = [
        int(n.replace(",", "")) for n in re.findall(r"\d[\d,]+", cells["real frames to learn"])
    ]
    expected = [] if run.startswith("pixels") else [world["real_frames"]]
    assert numbers == expected + [training["decisions"]] * kept
    steps = re.search(r"real game, ([\d,]+) steps", cells["trained"])
    if steps:
        assert int(steps[1].replace(",", "")) == round(training["real_steps"], -3)


def test_frames_of_choosing_are_bounded_as_the_page_says():
    report = json.loads((ROOT / "docs/results/standard-seed1-11-rounds/report.json").read_text())
    looks = math.ceil(report["args"]["episode_steps"] / report["action_repeat"])
    text = " ".join((ROOT / "docs/results.md").read_text().split())
    most = report["selection_episodes"] * looks
    assert (
        f"at most {looks} of them: {report['selection_episodes']} episodes have up to {most:,}"
        in text
    )


def test_the_readme_repeats_the_rows_of_the_results():
    """The published ones; the others are compared with their reports."""
    full = {line for line in (ROOT / "docs/results.md").read_text().splitlines() if "|" in line}
    published = [
        line for line in (ROOT / "README.md").read_text().splitlines() if "| published |" in line
    ]
    assert published
    assert set(published) <= full


def test_speeds_in_the_readme_are_those_of_their_reports():
    speeds = ROOT / "docs/results/benchmarks"
    car = json.loads((speeds / "car.json").read_text())["steps_per_cpu_second"]
    dream = json.loads((speeds / "dream.json").read_text())["steps_per_cpu_second"]
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"makes {car['ours_64']:,.0f} steps a second (the stock game {car['stock']:.0f})" in text
    assert f"{dream['ours, bfloat16']:,} decisions are dreamed" in text


def test_the_published_reports_say_what_was_active():
    """Settings that every round filled in were given as null, and are printed so no more."""
    for page in (ROOT / "docs" / "results").glob("*/report.html"):
        report = json.loads(page.with_suffix(".json").read_text())
        cap = report["args"]["pace"] * report["action_repeat"]
        shown = page.read_text()
        assert (
            f"pace_cap</td><td>as given: None. Correction: active in every round, {cap:g} a"
            in shown
        )
        assert "reward_clip</td><td>as given: None. Correction: every round clipped" in shown
