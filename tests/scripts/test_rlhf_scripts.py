"""The whole recipe by command line, killed and continued, and the frontier of trained policies."""

import json
import shutil
import signal
from dataclasses import replace

import pytest
import torch

from generative.known.requests import Requests
from generative.rlhf import RewardModel
from generative.rlhf.config import DPOConfig, GRPOConfig
from generative.text.gpt import GPT
from generative.training.run import read_result
from scripts import explore, train_rlhf
from scripts.explored import rlhf
from tests.commands import crash, run_script

torch.set_num_threads(1)
SMOKE = train_rlhf.PRESETS["smoke"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, by command line."""
    folder = tmp_path_factory.mktemp("rlhf") / "a run"
    done = run_script("train_rlhf", "smoke", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_what_is_said_of_a_run_is_what_its_models_do(run):
    found = read_result(run)
    requests = Requests(SMOKE.num_letters, SMOKE.length)
    reference, policy = (
        requests.log_probs(GPT.from_pretrained(folder))
        for folder in (run / "sft" / "model", run / "model")
    )
    outcome = requests.outcome(policy, reference, requests.rewards, SMOKE.loss.beta)
    best = requests.optimum(reference, requests.rewards, SMOKE.loss.beta)
    assert found["exact_objective"] == pytest.approx(outcome.objective)
    assert found["gap"] == pytest.approx(best.objective - outcome.objective)
    assert found["gap"] > 0
    assert found["reward_model_gap"] > 0
    assert RewardModel.from_pretrained(run / "reward" / "model").config.max_len == 4
    shown = (run / "texts" / "answers-000006.txt").read_text().splitlines()
    assert shown[0] == f"exact_objective {outcome.objective:.4f}"
    assert [line[:3] for line in shown[-2:]] == ["a: ", "b: "]


@pytest.mark.parametrize("loss", [GRPOConfig(), DPOConfig()])
def test_other_methods_start_from_the_same_run(run, tmp_path, loss):
    args = replace(SMOKE, out=tmp_path / "run", start_from=run, loss=loss)
    model = train_rlhf.main(args)
    assert not (tmp_path / "run" / "sft").exists()
    assert read_result(tmp_path / "run")["optimum"] == pytest.approx(read_result(run)["optimum"])
    before = (tmp_path / "run" / "result.json").stat().st_mtime_ns
    assert train_rlhf.main(args) == model  # finished: nothing is done again
    assert (tmp_path / "run" / "result.json").stat().st_mtime_ns == before


def outcome(folder) -> dict:
    paths = [*folder.glob("**/model/*"), *folder.glob("texts/*"), *folder.glob("**/result.json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_killed_and_continued_ends_as_if_never_stopped(run, tmp_path):
    stopped, log = tmp_path / "stopped", tmp_path / "log"
    expected = outcome(run)
    assert {"sft/result.json", "reward/result.json", "result.json"} < expected.keys()
    for number, status in ((signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -9)):
        env = crash(stopped / "metrics.jsonl", log, 1, number)
        done = run_script("train_rlhf", "smoke", "--out", stopped, **env)
        assert done.returncode == status, done.stderr
    assert not (stopped / "result.json").exists()
    shutil.rmtree(stopped / "reward")  # as if it had been killed before that stage
    done = run_script("train_rlhf", "smoke", "--out", stopped)
    assert done.returncode == 0, done.stderr
    assert outcome(stopped) == expected


def test_frontier(run, tmp_path):
    """Trained policies are below the exact curve, which rises and is concave."""
    args = replace(
        explore.PRESETS["smoke"], folder=run / "model", pictures=tmp_path,
        rlhf=rlhf.Settings(betas=(0.5,), steps=2),
    )  # fmt: skip
    explore.main(args)
    assert (tmp_path / "frontier.png").stat().st_size > 5000
    found = json.loads((tmp_path / "explore.json").read_text())
    kl, reward, beta = (
        torch.tensor([point[name] for point in found["frontier"]], dtype=torch.float64)
        for name in ("kl", "reward", "beta")
    )
    assert (kl.diff() > 0).all()
    # The slope of the frontier at an optimum is its price.
    slope = reward.diff() / kl.diff()
    assert ((slope < beta[:-1]) & (slope > beta[1:])).all()
    assert set(found["policies"]) == {"ppo", "grpo", "dpo"}
    for (point,) in found["policies"].values():
        assert point["optimum"] - point["gap"] == pytest.approx(point["reward"] - 0.5 * point["kl"])
        assert point["gap"] > 0


def test_what_does_not_fit_is_refused_in_words(run, tmp_path):
    args = replace(SMOKE, out=tmp_path / "other", start_from=run, num_letters=3)
    with pytest.raises(ValueError, match="has 2 letters and answers of 3, this run 3 and 3"):
        train_rlhf.main(args)
    with pytest.raises(ValueError, match="betas"):
        rlhf.Settings(betas=(0.0,))
