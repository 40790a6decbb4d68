"""metrics.jsonl: no step twice, no half line, whatever happened."""

import json

import pytest

from generative.training.metrics import Metrics, read_metrics


@pytest.fixture
def metrics(tmp_path):
    return Metrics(tmp_path, tensorboard=False)


def test_lines_come_back(metrics, tmp_path):
    metrics.log(10, {"loss": 0.1, "kl": 3})
    metrics.log(20, {"loss": float("nan")})
    assert [{k: v for k, v in line.items() if k != "time"} for line in read_metrics(tmp_path)] == [
        {"step": 10, "loss": 0.1, "kl": 3.0},
        {"step": 20, "loss": None},
    ]
    for raw in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(raw, parse_constant=pytest.fail)


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_half_written_line_is_dropped_and_the_file_goes_on(metrics, tmp_path, cut):
    for step in (1, 2, 3):
        metrics.log(step, {"loss": step / 10})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    metrics.rewind(5)
    metrics.log(3, {"loss": 0.3})
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3]


def test_rewind_drops_later_steps_only(metrics, tmp_path):
    for step in (1, 2, 3):
        metrics.log(step, {"loss": step / 10})
    before = (tmp_path / "metrics.jsonl").read_text().splitlines()
    metrics.rewind(3)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == before
    metrics.rewind(1)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == before[:1]
    metrics.rewind(0)
    assert read_metrics(tmp_path) == []


def test_rewind_of_a_run_without_metrics(metrics):
    metrics.rewind(0)
    metrics.sync()


def test_tensorboard_gets_the_numbers_and_forgets_what_was_undone(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first = Metrics(tmp_path)
    for step in (1, 2, 3):
        first.log(step, {"loss": step / 2})
    first.close()
    second = Metrics(tmp_path)
    second.rewind(1)
    second.log(2, {"loss": 7.0})
    second.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5), (2, 7.0)]
