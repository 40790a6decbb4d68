"""temperature_sweep on a tiny model of CarRacing64, whose dreams have returns known beforehand."""

import json
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

import envs  # noqa: F401  registers the environment
from agents.world_model_agent import AgentConfig, WorldModelAgent
from envs.task import Preprocess, Task
from generative.training.cli import parse
from generative.vae.config import ConvVAEConfig
from scripts import temperature_sweep as script
from tests.commands import run_script
from worldmodels.configs import ControllerConfig, MDNRNNConfig
from worldmodels.controller import LinearController
from worldmodels.dreaming.starts import STARTS_NAME, DreamStarts
from worldmodels.memory import MDNRNN
from worldmodels.world_model import WorldModel

REWARD = 2.0
"""Of every dreamed decision."""


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """An agent's folder; M pays `REWARD` whatever is done, and its dreams never end."""
    torch.manual_seed(0)
    memory = MDNRNN(MDNRNNConfig(latent_dim=4, hidden_dim=8, predict_reward=True))
    assert memory.reward_head is not None
    torch.nn.init.zeros_(memory.reward_head.weight)
    torch.nn.init.constant_(memory.reward_head.bias, REWARD)
    vision = ConvVAEConfig(latent_dim=4, channels=(4, 4, 8, 8)).build()
    folder = tmp_path_factory.mktemp("agent")
    WorldModelAgent(
        WorldModel(vision, memory),
        LinearController(ControllerConfig(4, 8)),
        AgentConfig(action_repeat=3),
        task=Task("WorldModels/CarRacing64-v0", preprocess=Preprocess("car_racing", (64, 64, 3))),
    ).save_pretrained(folder)
    h, c = torch.zeros(2, 5, 8)
    DreamStarts(torch.randn(5, 4), h, c, torch.zeros(5)).save(folder / STARTS_NAME)
    return folder


def settings(agent, out, *words):
    return parse(
        script.PRESETS, argv=["smoke", "--agent", str(agent), "--out", str(out), *map(str, words)]
    )


def test_dreamed_and_real_scores_of_every_temperature(agent, tmp_path):
    args = settings(agent, tmp_path / "run", "--controller.features", "zhc")
    sweep = json.loads(script.main(args).read_text())
    assert [row["temperature"] for row in sweep["rows"]] == [0.5, 1.15]
    assert (tmp_path / "run" / "sweep.png").stat().st_size > 5000
    driver = WorldModelAgent.from_pretrained(agent)
    env = gymnasium.make("WorldModels/CarRacing64-v0", max_episode_steps=args.episode_steps)
    for trial in sweep["trials"]:
        assert trial["dream"] == {"mean": REWARD * args.dream_decisions, "std": 0.0}
        folder = tmp_path / "run" / "trials" / f"{trial['temperature']}-0"
        driver.controller = LinearController.from_pretrained(folder / "controller")
        assert driver.controller.config.features == "zhc"
        scores = []
        for seed in script._seeds(args):
            obs, _ = env.reset(seed=seed)
            state, score, over = None, 0.0, False
            while not over:
                action, state = driver.predict(obs, state, episode_start=state is None)
                obs, reward, terminated, truncated, _ = env.step(action)
                score, over = score + float(reward), terminated or truncated
            scores.append(score)
        assert trial["scores"] == [round(score, 1) for score in scores]
        assert trial["real"]["mean"] == pytest.approx(np.mean(scores), abs=0.06)
        assert trial["real"]["std"] == pytest.approx(np.std(scores), abs=0.06)
    env.close()


def test_a_broken_sweep_goes_on_where_it_was(agent, tmp_path):
    args = settings(agent, tmp_path / "run", "--results", tmp_path / "results")
    report = script.main(args)
    whole = json.loads(report.read_text())
    for name in ("result.json", "sweep.json", "trials/1.15-0/result.json"):
        (report.parent / name).unlink()
    again = json.loads(script.main(args).read_text())
    kept, repeated = again["trials"]
    assert kept == whole["trials"][0]
    assert repeated["scores"] == whole["trials"][1]["scores"]
    assert again["rows"] == whole["rows"]
    assert (tmp_path / "results" / "sweep.json").read_text() == report.read_text()
    assert (tmp_path / "results" / "sweep.png").stat().st_size > 5000


def test_runs_by_command_line(agent, tmp_path):
    words = ["smoke", "--agent", agent, "--out", tmp_path / "run", "--temperatures", 1.0]
    done = run_script("temperature_sweep", *words)
    assert done.returncode == 0, done.stderr
    first, row, chance = done.stdout.splitlines()[-4:-1]
    assert first.split() == ["temperature", "dreamed", "real", "best"]
    assert row.split()[:4] == ["1.00", "12", "+/-", "0"]
    assert chance.split()[0] == "random"
    assert max(map(len, (first, row, chance))) <= 80


def test_rows_are_means_over_controllers():
    outcomes = [
        {"temperature": tau, "dream": {"mean": d, "std": 1.0}, "real": {"mean": r, "std": s}}
        for tau, d, r, s in [(0.5, 9.0, 1.0, 2.0), (1.0, 5.0, 10.0, 4.0), (1.0, 7.0, 30.0, 8.0)]
    ]
    low, high = script.summarize(outcomes)
    assert low == {
        "temperature": 0.5, "dream": {"mean": 9.0, "std": 1.0}, "real": {"mean": 1.0, "std": 2.0},
        "best": 1.0,
    }  # fmt: skip
    assert (high["dream"]["mean"], high["real"], high["best"]) == (
        6.0,
        {"mean": 20.0, "std": 6.0},
        30.0,
    )
    scores = [1.0, 2.0, 6.0]
    assert script.summary(scores) == {"mean": 3.0, "std": round(float(np.std(scores)), 1)}


def test_refuses_what_makes_no_sweep():
    smoke = script.PRESETS["smoke"]
    with pytest.raises(ValueError, match="temperatures is empty"):
        replace(smoke, temperatures=())
