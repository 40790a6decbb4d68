"""metrics.jsonl: no step twice, no half line, whatever happened."""

import json

import pytest

from generative.training.files import DamagedFileError
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


LINES = [f'{{"step": {step}, "time": 1.5, "loss": {step / 10}}}\n' for step in (1, 2, 3)]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("not JSON\n", "line 2 is damaged"),
        ("\n", "line 2 is damaged"),
        ("[2]\n", r"line 2 is damaged \(it has no step\)"),
        ('{"step": 2.0}\n', r"line 2 is damaged \(it has no step\)"),
        ('{"step": 2, "loss": NaN}\n', r"line 2 is damaged \(NaN is no number"),
        (LINES[1][:20] + LINES[1][21:-5], "line 2 is damaged"),
        (LINES[2] + LINES[1], r"line 3 is damaged \(step 2 follows step 3\)"),
        ("\udcff\udc80\n", "line 2 is damaged"),
        ("[" * 100_000 + "\n", "line 2 is damaged"),
    ],
)
def test_a_damaged_line_is_told_and_hides_none_behind_it(tmp_path, second, words):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes((LINES[0] + second + LINES[2]).encode(errors="surrogateescape"))
    with pytest.raises(DamagedFileError, match=f"metrics.jsonl: {words}"):
        read_metrics(tmp_path)
    with pytest.raises(DamagedFileError, match=words):
        Metrics(tmp_path, tensorboard=False).rewind(5)
    with pytest.raises(DamagedFileError, match=words):
        Metrics(tmp_path, tensorboard=False).last()


def test_what_was_logged_is_known_whatever_becomes_of_the_file(metrics, tmp_path):
    metrics.log(1, {"loss": 0.1})
    path = tmp_path / "metrics.jsonl"
    path.write_text("nonsense")
    metrics.log(2, {"loss": 0.2})
    assert metrics.last() == {"loss": 0.2}
    assert [json.loads(line)["step"] for line in metrics.text.splitlines()] == [1, 2]
    metrics.sync()
    assert path.read_text() == metrics.text


def test_several_lines_of_the_last_step_are_one(metrics):
    assert metrics.last() == {}
    metrics.log(1, {"loss": 0.5, "reached": 0.1})
    metrics.log(2, {"loss": 0.3})
    assert metrics.last() == {"loss": 0.3}
    metrics.log(2, {"reached": 0.2, "loss": 0.25})
    assert metrics.last() == {"loss": 0.25, "reached": 0.2}


@pytest.mark.parametrize("kind", ["cut", "changed", "missing", "folder", "link", "longer"])
def test_the_file_goes_back_to_a_text(metrics, tmp_path, capsys, kind):
    path, text = tmp_path / "metrics.jsonl", LINES[0] + LINES[1]
    path.write_text("".join(LINES))
    if kind == "cut":
        path.write_text(text[:-3])
    elif kind == "changed":
        path.write_text(text.replace("0.1", "0.7"))
    elif kind != "longer":
        path.rename(tmp_path / "elsewhere")
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    metrics.restore(text)
    assert path.read_text() == text
    assert not path.is_symlink()
    told = capsys.readouterr().err
    assert (f"{path}: " in told) == (kind != "longer")
    assert ("metrics.jsonl.damaged is what it was" in told) == (kind not in ("longer", "missing"))
    metrics.log(3, {"loss": 0.3})
    assert len(read_metrics(tmp_path)) == 3
