"""Points that training scripts share, and the file that collects results of runs."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch.distributions import MultivariateNormal

from generative.known.points import PointData, Points, load_density
from generative.training.files import MAX_CONFIG_BYTES
from generative.training.reports import add_to_report
from generative.training.run import Run


@dataclass(frozen=True)
class Args:
    """Settings of a run of points."""

    out: Path
    report: Path | None = None
    batch_size: int = 64
    device: str = "cpu"
    seed: int = 3


@pytest.mark.parametrize("name", get_args(PointData))
def test_points_have_mean_zero_and_deviation_one(name, tmp_path):
    with Run.open(Args(tmp_path / "run"), kind="points") as run:
        x = Points(name, run).draw(20_000, "points", even=True)
    torch.testing.assert_close(x.mean(0), torch.zeros(2), rtol=0, atol=0.01)
    torch.testing.assert_close(x.std(0), torch.ones(2), rtol=0, atol=0.01)


def test_a_step_has_its_points_whatever_was_drawn_before(tmp_path):
    with Run.open(Args(tmp_path / "run"), kind="points") as run:
        points, even = Points("two-moons", run), Points("two-moons", run, even=True)
        first = points(7)
        points.draw(10, "picture")
        assert torch.equal(points(7), first)
        assert first.shape == (64, 2)
        assert not torch.equal(points(8), first)
        assert not torch.equal(even(7), first)


def test_excess_of_a_gaussian_is_its_cross_entropy_less_the_entropy(tmp_path):
    """Moments of the points are 0 and 1, so a standard normal has 1/2 (D log 2 pi + D) nats."""
    normal = MultivariateNormal(torch.zeros(2), torch.eye(2))
    with Run.open(Args(tmp_path / "run"), kind="points") as run:
        found = Points("eight-gaussians", run).excess(normal.log_prob)
    assert found["nll"] == pytest.approx(math.log(2 * math.pi) + 1, abs=1e-4)
    assert found["floor"] == load_density("eight-gaussians").entropy()
    assert found["gap"] == pytest.approx(found["nll"] - found["floor"])


def test_points_that_there_are_not():
    with pytest.raises(ValueError, match=r"no points 'three-moons'; there are two-moons"):
        load_density("three-moons")


def test_report_collects_results_by_the_names_of_runs(tmp_path):
    file = tmp_path / "reports" / "some.json"
    for name, loss in (("b", 1.0), ("a", 2.0), ("b", 3.0)):
        args = Args(tmp_path / str(loss) / name, report=file)
        with Run.open(args, kind="points") as run:
            run.finish({"loss": loss})
            add_to_report(file, run)
    found = json.loads(file.read_text())
    assert list(found) == ["a", "b"]
    assert found["b"]["result"]["loss"] == 3.0
    assert found["b"]["settings"] == {"batch_size": 64, "device": "cpu", "seed": 3}
    assert "torch" in found["a"]["versions"]["packages"]


def test_a_report_may_hold_more_than_settings_do(tmp_path):
    file = tmp_path / "many.json"
    file.write_text(json.dumps({str(k): {"result": "x" * 1000} for k in range(2000)}))
    assert file.stat().st_size > MAX_CONFIG_BYTES
    with Run.open(Args(tmp_path / "new", report=file), kind="points") as run:
        run.finish({"loss": 1.0})
        add_to_report(file, run)
    assert len(json.loads(file.read_text())) == 2001
