"""The report: its numbers against hand counts, its files against damage, its charts against XML."""

import dataclasses
import html.parser
import itertools
import json
import math
import subprocess
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import agents.report
from agents.evaluation import EpisodeScore, Evaluation, TrainingFacts
from agents.report import Candidate, RoundRecord, append_round, read_rounds, write_report
from agents.report.charts import Line, histogram, line_chart, scatter, ticks
from agents.report.checks import check_world_model
from agents.video import write_video
from agents.world_model_agent import AgentConfig, WorldModelAgent
from generative.training.files import DamagedFileError
from generative.vae import ConvVAEConfig
from tests.browser import browser_in
from tests.commands import ROOT
from worldmodels.controller import ControllerConfig, LinearController
from worldmodels.memory import MDNRNN, MDNRNNConfig
from worldmodels.world_model import WorldModel


def tiny_agent():
    torch.manual_seed(1)
    world = WorldModel(
        ConvVAEConfig(latent_dim=4, channels=(2, 2, 4, 4)).build(),
        MDNRNN(MDNRNNConfig(latent_dim=4, hidden_dim=8, reward_input=True, predict_reward=True)),
    )
    controller = LinearController(ControllerConfig(latent_dim=4, hidden_dim=8))
    controller.load_vector(torch.randn(controller.config.num_parameters))
    return WorldModelAgent(world, controller, AgentConfig(action_repeat=3))


def a_round(index, real=100.0, dream=12.0):
    return RoundRecord(
        index=index,
        real_frames_total=1000 * (index + 1),
        vae_recon=20.0 if index == 0 else None,
        vae_kl=16.0 if index == 0 else None,
        memory_nll=1.2,
        memory_reward_error=0.3,
        dream_return=dream,
        dream_decisions=50,
        dream_steps_total=5000,
        action_repeat=2,
        real_scores=[real - 10, real + 10],
        candidates=[Candidate("evolution", dream, [real - 10, real + 10], chosen=True)],
        seconds={"collect": 3.0, "train <V>": 4.0},
    )


def a_run(folder):
    (folder / "videos").mkdir(parents=True)
    config = {"format": 1, "kind": "train_in_dream", "settings": {"seed": 5, "deep": {"x": [1, 2]}}}
    (folder / "config.json").write_text(json.dumps(config))
    for index, real in enumerate([-30.0, 200.0, 150.0]):
        append_round(folder, a_round(index, real, 10.0 * (index + 1)))
    frame = np.full((32, 64, 3), 90, np.uint8)
    write_video(folder / "videos" / "drive.mp4", [frame] * 30)
    tiny_agent().save_pretrained(folder / "agent")
    TrainingFacts(3000, 9, 5000, 77.0, seed=5).save(folder / "agent")
    tracks = [EpisodeScore(1_000_000 + i, float(i), 1000, 0.5, i > 2) for i in range(4)]
    return Evaluation("CarRacing-v3", 2, tracks, 3.0)


class Page(html.parser.HTMLParser):
    """Checks that tags close in order and collects what the page would load."""

    VOID = ("meta", "img", "br", "line", "circle", "rect", "polyline")

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href", "poster")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_write_report(tmp_path):
    run = tmp_path / "a run"
    evaluation = a_run(run)
    report = write_report(run, evaluation=evaluation, check_drives=1, check_steps=80)
    assert json.loads((run / "report.json").read_text()) == report
    expected = {
        "real_mean": 1.5,
        "real_std": math.sqrt(1.25),
        "episodes": 4,
        "real_frames": 3000,
        "selection_episodes": 9,
        "dream_steps": 5000,
        "action_repeat": 2,
        "wall_seconds": 77.0,
        # Round 1 drives best; 20 in 50 decisions of 2 steps is 200 in 1,000 steps.
        "dream_mean": 200.0,
    }
    assert {name: report[name] for name in expected} == pytest.approx(expected)
    assert [r["real_mean"] for r in report["rounds"]] == [-30, 200, 150]
    assert report["seeds"]["run"] == 5
    assert report["versions"]["packages"]["torch"]
    curves = report["prediction_error"]["pixel_mean_absolute"]
    assert len(curves["no change"]) == len(curves["horizons"])

    made = report["made"]
    assert made["command"].startswith("python")
    assert datetime.now(UTC) - datetime.strptime(
        made["date"] + "+0000", "%Y-%m-%d %H:%M UTC%z"
    ) < timedelta(minutes=20)

    page = Page((run / "report.html").read_text())
    assert page.sources
    assert all(source.startswith("data:") for source in page.sources)  # nothing is loaded
    for words in ("3,000", "train <V>", "deep.x", "± 1 points on 4 tracks", "1:17 min"):
        assert words in page.text
    for words in (made["command"], made["date"], report["versions"]["cpu"]):
        assert words in page.text
    # Round 1 is the best of three, and no loss rises.
    assert "The last round scores less than round 1" in page.text
    assert "It rises" not in page.text


def test_a_curve_that_rises_is_explained(tmp_path):
    evaluation = a_run(tmp_path)
    rises = dataclasses.replace(a_round(2, 300.0), memory_nll=1.31, memory_reward_error=0.2)
    append_round(tmp_path, rises)
    write_report(tmp_path, evaluation=evaluation, films=[], check_drives=0)
    text = Page((tmp_path / "report.html").read_text()).text
    assert "It rises from 1.2 to 1.31. A better agent brings frames" in text
    assert text.count("It rises") == 1
    assert "scores less than" not in text


def test_the_page_fits_a_telephone(tmp_path):
    """Everything open, with the stages of a run of the car."""
    evaluation = a_run(tmp_path)
    stages = ("collect", "vision", "encode", "memory", "controller", "choose")
    seconds = dict.fromkeys(stages, 1234.5)
    append_round(tmp_path, dataclasses.replace(a_round(2, -123.4), seconds=seconds))
    write_report(tmp_path, evaluation=evaluation, check_drives=1, check_steps=80)
    with browser_in(tmp_path / "chromium") as browser:
        for width in (1280, 390):
            browser.resize(width, 844, touch=width < 500)
            browser.call("Page.navigate", url=(tmp_path / "report.html").as_uri())
            browser.wait("document.readyState === 'complete' && !!document.querySelector('h1')")
            browser.value("for (const d of document.querySelectorAll('details')) d.open = true")
            assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.errors == []


@pytest.mark.nightly
def test_axe_finds_nothing_serious_in_the_report(tmp_path):
    evaluation = a_run(tmp_path)
    write_report(tmp_path, evaluation=evaluation, check_drives=1, check_steps=80)
    with browser_in(tmp_path / "chromium") as browser:
        for width, scheme in itertools.product((1280, 390), ("light", "dark")):
            browser.resize(width, 844, scheme, touch=width < 500)
            browser.call("Page.navigate", url=(tmp_path / "report.html").as_uri())
            browser.wait("document.readyState === 'complete' && !!document.querySelector('h1')")
            browser.value("for (const d of document.querySelectorAll('details')) d.open = true")
            assert browser.serious() == [], (width, scheme)


def test_the_commit_is_that_of_the_projects_tree():
    words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is no working tree of git")
    told = agents.report._commit()
    assert done.stdout.startswith(told.removesuffix("-dirty"))
    assert len(told) >= 12


def test_a_report_of_little(tmp_path):
    evaluation = a_run(tmp_path)
    (tmp_path / "rounds.jsonl").unlink()
    report = write_report(tmp_path, evaluation=evaluation, films=[], check_drives=0)
    assert report["dream_mean"] is None
    assert Page((tmp_path / "report.html").read_text()).sources == []
    (tmp_path / "agent" / "training.json").unlink()
    with pytest.raises(ValueError, match=r"agent has no training\.json"):
        write_report(tmp_path, evaluation=evaluation, check_drives=0)


def test_a_large_film_is_linked_from_where_the_page_lies(tmp_path, monkeypatch):
    monkeypatch.setattr("agents.report.page.INLINE_BYTES", 10)
    write_report(tmp_path, evaluation=a_run(tmp_path), check_drives=0)
    sources = Page((tmp_path / "report.html").read_text()).sources
    assert [source for source in sources if not source.startswith("data:")] == ["videos/drive.mp4"]


def test_rounds_on_disk(tmp_path):
    assert read_rounds(tmp_path) == []
    records = [a_round(i) for i in range(3)]
    for record in records:
        append_round(tmp_path, record)
    assert read_rounds(tmp_path) == records
    # A run that is continued from round 1 says it anew.
    again = dataclasses.replace(records[1], memory_nll=0.9)
    append_round(tmp_path, again)
    assert read_rounds(tmp_path) == [records[0], again]
    with pytest.raises(ValueError, match="2 rounds before round 3"):
        append_round(tmp_path, a_round(3))
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedFileError, match=r"rounds\.jsonl, line 2"):
        read_rounds(tmp_path)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (-30, 512, [-200, 0, 200, 400, 600]),
        (0.91, 1.3, [0.9, 1.0, 1.1, 1.2, 1.3]),
        (3, 3, [2.4, 2.6, 2.8, 3.0, 3.2, 3.4, 3.6]),
    ],
)
def test_ticks_are_round_and_cover(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_charts_are_whole_xml_and_put_values_where_they_belong():
    def parse(chart):
        return ElementTree.fromstring(chart[: chart.index("</svg>") + 6])

    chart = parse(line_chart([Line("a & b", [0, 1, 2], [0, None, 10], "real")], "x", "y <z>"))
    (curve,) = chart.iter("polyline")
    (x0, y0), (x2, y2) = [map(float, p.split(",")) for p in curve.get("points").split()]
    grid = {float(line.get("y1")) for line in chart.iter("line")}
    assert x0 < x2
    assert {y0, y2} <= grid  # 0 and 10 are ticks
    assert y0 > y2  # up is down in SVG
    bars = list(parse(histogram([5, 50, 150, 350], "score", "tracks")).iter("rect"))
    marks = parse(histogram([5, 50, 150, 350], "score", "tracks")).iter("line")
    assert len([mark for mark in marks if mark.get("class") == "rug"]) == 4
    heights = [float(bar.get("height")) for bar in bars]
    assert heights == pytest.approx([heights[0], heights[0] / 2, 0, heights[0] / 2])
    points = [(0, 0, "real", "p"), (100, 50, "plain", "q")]
    assert len(list(parse(scatter(points, "x", "y")).iter("circle"))) == 2


def test_prediction_errors_against_a_loop():
    agent = tiny_agent()
    what = {"num_drives": 1, "max_steps": 60, "horizon": 4, "num_dreams": 1}
    check = check_world_model(agent, **what)
    # One dream: its strip shows every frame that the errors are made of.
    strip = check.strips[0]
    assert strip.real.shape == strip.dreamed.shape == (5, 64, 64, 3)
    assert check.latent.horizons == check.pixel.horizons == [1, 2, 3, 4]
    for i in check.pixel.horizons:
        real = strip.real[i].astype(float)
        kept = agent.world.decode(agent.world.encode(strip.real[i : i + 1]))[0]
        expected = {
            "M, drawn": strip.dreamed[i],
            "no change": strip.real[0],
            "V's own blur": kept,
        }
        for name, picture in expected.items():
            error = np.abs(picture - real).mean()
            assert check.pixel.errors[name][i - 1] == pytest.approx(error, abs=0.02), name
        z = agent.world.encode(strip.real[[0, i]]).numpy()
        error = np.sqrt(((z[0] - z[1]) ** 2).mean())
        assert check.latent.errors["no change"][i - 1] == pytest.approx(error, abs=1e-6)
    assert np.array_equal(check.kept, agent.world.decode(agent.world.encode(check.seen)))
    assert check_world_model(agent, **what).to_json() == check.to_json()
    assert check_world_model(agent, num_drives=1, max_steps=6) is None
