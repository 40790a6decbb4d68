"""Losses by size and data: the command runs, and its table and law are those of its runs."""

import json

import pytest
import torch

from generative.text.gpt import GPT
from generative.text.scaling import ScalingLaw
from generative.training.run import read_result
from scripts import compare_sizes
from tests.commands import run_script

torch.set_num_threads(1)


def test_the_comparison(tmp_path):
    words = ("smoke", "--out", tmp_path / "run", "--results", tmp_path / "results")
    done = run_script("compare_sizes", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results" / "sizes.json").read_text())
    assert len(found["runs"]) == 4
    run = read_result(tmp_path / "run" / "width-8" / "steps-4")
    assert run in found["runs"]
    assert run["tokens"] == 4 * 4 * 16
    config = compare_sizes.model_config(compare_sizes.PRESETS["smoke"], 10, 8)
    assert run["weights"] == sum(p.numel() for p in GPT(config).parameters())
    law = ScalingLaw(**found["law"])
    table = {
        n: torch.tensor([r[n] for r in found["runs"]]) for n in ("weights", "tokens", "excess")
    }
    errors = (law.excess(table["weights"], table["tokens"]) / table["excess"]).log().abs()
    assert found["mean_log_error"] == pytest.approx(float(errors.mean()), rel=1e-4)
    assert (tmp_path / "results" / "sizes.png").stat().st_size > 5000
    assert f"{run['excess']:.4f}" in done.stdout
    assert f"N^-{law.alpha:.3f}" in done.stdout
    # A finished comparison only tells its table again.
    again = run_script("compare_sizes", *words)
    assert again.returncode == 0, again.stderr
    assert f"{run['excess']:.4f}" in again.stdout
