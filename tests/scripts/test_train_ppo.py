"""train_ppo.py by command line, and its agents in evaluate.py."""

import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from stable_baselines3 import PPO

from agents.configs import NetworkConfig, PPOConfig
from agents.loading import load_agent
from scripts import evaluate
from scripts.train_ppo import PRESETS, Args, main
from tests.commands import ROOT, command, imported, run_script
from tests.warm import Program
from worldmodels.configs import DreamConfig


@pytest.fixture(scope="module")
def dreamed(tmp_path_factory):
    """A finished run in the dream."""
    folder = tmp_path_factory.mktemp("runs") / "ppo"
    done = run_script("train_ppo", "smoke", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("verb", ["train_ppo", "evaluate"])
def test_help_does_without_torch(verb):
    done = run_script(verb, "--help", modules=True)
    assert done.returncode == 0
    assert not {"torch", "stable_baselines3", "gymnasium"} & imported(done)


def test_dream_then_real_track(dreamed, tmp_path):
    result = json.loads((dreamed / "result.json").read_text())
    assert result["decisions"] == 400
    assert result["most_real_steps"] == 0
    scores = tmp_path / "scores.json"
    done = run_script("evaluate", "smoke", dreamed / "agent", "--json", scores)
    assert done.returncode == 0, done.stderr
    assert "PPO of V's z and M's h" in done.stdout
    assert "on 400 dreamed decisions, never on a real reward" in done.stdout
    assert json.loads(scores.read_text())["policy"]["algorithm"] == "ppo"
    done = run_script("evaluate", "smoke", dreamed)
    assert done.returncode == 1
    assert "is the folder of a run; pass its agent" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"observation": "zh"},
        pytest.param({"observation": "pixels", "frame_stack": 2}, marks=pytest.mark.nightly),
        {"observation": "z", "algorithm": "dqn", "discrete": True, "network": NetworkConfig((8,))},
    ],
)
def test_real_environments(changes, tmp_path):
    ppo = PPOConfig(n_steps=5, batch_size=5)
    small = {"out": tmp_path / "ppo", "where": "real", "num_envs": 2, "decisions": 40, "ppo": ppo}
    agent_folder = main(replace(PRESETS["smoke"], **small, **changes))
    result = json.loads((tmp_path / "ppo" / "result.json").read_text())
    assert result["most_real_steps"] == 3 * result["decisions"] >= 120
    agent = load_agent(agent_folder)
    assert agent.config.trained_in == "real"
    assert agent.task.env_id == "CarRacing-v3"
    assert agent.task.env_kwargs == ({"continuous": False} if "discrete" in changes else {})
    found = evaluate.main(replace(evaluate.PRESETS["smoke"], agent=agent_folder, episodes=1))
    assert found.tracks[0].length == 30


def test_killed_and_continued_is_the_same(dreamed, tmp_path):
    out = tmp_path / "ppo"
    argv = command("train_ppo", "smoke", "--out", out)[1:]
    with Program(argv, cwd=ROOT, env={}) as process:
        checkpoints = out / "checkpoints"
        for _ in range(2000):
            if (checkpoints.is_dir() and any(checkpoints.iterdir())) or process.poll() is not None:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    done = run_script("train_ppo", "smoke", "--out", out)
    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "config.json"):
        ours, whole = (folder / "agent" / "policy" / name for folder in (out, dreamed))
        assert ours.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"algorithm": "dqn"}, "DQN takes actions of Discrete, the dream of pretrained"),
        (
            {"algorithm": "sac", "where": "real", "discrete": True, "observation": "z"},
            r"SAC takes actions of Box, WorldModels/CarRacing64-v0 has Discrete\(5\)",
        ),
        (
            {"where": "real", "env_id": "CartPole-v1"},
            "was trained on CarRacing-v3, the environment is CartPole-v1",
        ),
        ({"model": Path("no/such/model")}, "no/such/model"),
    ],
)
def test_what_does_not_fit_is_told_and_leaves_no_folder(changes, told, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        main(replace(PRESETS["smoke"], out=tmp_path / "ppo", **changes))
    assert not (tmp_path / "ppo").exists()


def test_archives_need_trust(tmp_path):
    import gymnasium

    model = PPO("CnnPolicy", gymnasium.make("CarRacing-v3"), n_steps=8, batch_size=8, device="cpu")
    model.save(tmp_path / "model.zip")
    args = replace(evaluate.PRESETS["smoke"], agent=tmp_path / "model.zip", episodes=1)
    with pytest.raises(ValueError, match="pass --trust"):
        evaluate.main(args)
    assert evaluate.main(replace(args, trust=True)).tracks[0].length == 30


def test_settings_that_contradict_each_other_are_refused():
    for changes, told in (
        ({"observation": "z"}, "a dream shows z and h"),
        ({"frame_stack": 2}, "only a policy of pixels"),
        ({"dream": DreamConfig(pace_cap=1.0)}, "give one of them"),
        ({"num_envs": 0}, "num_envs is 0"),
    ):
        with pytest.raises(ValueError, match=told):
            Args(**changes)
    assert PRESETS["dream"].dream.pace_cap is None
