"""compare_controllers: every kind of trial is run, summed up rightly, and continued."""

import json
from dataclasses import replace

import numpy as np
import pytest

from generative.training.cli import parse
from generative.training.settings import differences, to_json
from scripts import compare_controllers as script
from scripts import train_controller
from tests.commands import run_script


def test_compares_methods_on_a_finished_run(smoke_run, tmp_path):
    out = tmp_path / "compare"
    done = run_script("compare_controllers", "smoke", "--run", smoke_run, "--out", out)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines()[:4])) <= 80
    content = json.loads((out / "comparison.json").read_text())
    assert [row["kind"] for row in content["rows"]] == ["gradient", "cma", "both"]
    assert (out / "comparison.png").stat().st_size > 5000
    for trial in content["trials"]:
        assert len(trial["scores"]) == 1
        assert trial["dream_steps"] > 0


def test_a_broken_study_goes_on_where_it_was(smoke_run, tmp_path):
    out = tmp_path / "compare"
    words = ["smoke", "--run", str(smoke_run), "--out", str(out)]
    report = script.main(parse(script.PRESETS, argv=words))
    whole = json.loads(report.read_text())
    for name in ("result.json", "comparison.json", "trials/cma-0-0/result.json"):
        (out / name).unlink()
    again = json.loads(script.main(parse(script.PRESETS, argv=words)).read_text())
    for before, after in zip(whole["trials"], again["trials"], strict=True):
        assert before["scores"] == after["scores"]
        assert before["dream_return"] == after["dream_return"]
    kept = [trial for trial in again["trials"] if trial["kind"] != "cma"]
    assert kept == [trial for trial in whole["trials"] if trial["kind"] != "cma"]


def test_dreams_change_one_setting_at_a_time():
    base = train_controller.PRESETS["quick"]
    base = replace(base, dream=replace(base.dream, pace_cap=2.7))
    variants = script.dreams(script.PRESETS["dreams"], base)
    assert variants.pop(("as in the run", 0)) == base
    assert len(variants) == 11
    for (kind, _), variant in variants.items():
        changed = set(differences(to_json(base), to_json(variant)))
        assert len(changed) == 1 + kind.startswith("horizon"), kind  # lanes with the horizon


def test_rows_are_means_over_trials():
    trials = [
        {"kind": kind, "budget": 0, "seconds": 2.0, "dream_steps": 7, "dream_return": dream,
         "real_mean": real}
        for kind, dream, real in [("cma", 1.0, 100.0), ("cma", 3.0, 400.0), ("both", 5.0, 7.0)]
    ]  # fmt: skip
    cma, both = script.summarize(trials)
    assert (cma["kind"], cma["real_mean"], cma["dream_return"]) == ("cma", 250.0, 2.0)
    assert cma["spread"] == pytest.approx(np.std([100.0, 400.0]))
    assert (cma["worst"], cma["best"], both["real_mean"]) == (100.0, 400.0, 7.0)


def test_refuses_what_is_no_run_of_train_in_dream(smoke_run, tmp_path):
    with pytest.raises(ValueError, match="is not a run"):
        script.Source.of(tmp_path, -1)
    with pytest.raises(ValueError, match="run of collect_rollouts"):
        script.Source.of(smoke_run / "round-00" / "collect", -1)
    with pytest.raises(ValueError, match="round 2 is not finished"):
        script.Source.of(smoke_run, 2)
