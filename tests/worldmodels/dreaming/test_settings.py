"""dream.json: written, read, refused; and what every dream takes from it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from agents.video import Decision, LoneDream
from agents.world_model_agent import WorldModelAgent
from envs.dream import DreamEnv, DreamVectorEnv
from envs.sb3 import DreamVecEnv
from generative.training.files import DamagedFileError
from generative.vae import ConvVAEConfig
from worldmodels.configs import ControllerConfig, DreamConfig, MDNRNNConfig
from worldmodels.controller import LinearController
from worldmodels.dreaming.settings import SETTINGS_NAME, load_settings, save_settings
from worldmodels.dreaming.starts import STARTS_NAME, DreamStarts
from worldmodels.memory import MDNRNN
from worldmodels.world_model import WorldModel

torch.set_num_threads(1)
TRAINED = DreamConfig(4, 0.0, False, reward_clip=(-0.25, 0.5), pace_cap=0.3, pace_window=2)


@pytest.fixture
def folder(tmp_path):
    """A model that pays 1 for every decision, if it is not clipped."""
    torch.manual_seed(0)
    memory = MDNRNN(MDNRNNConfig(4, 3, 8, 2, predict_reward=True, dropout=0.5))
    nn.init.zeros_(memory.reward_head.weight)
    nn.init.ones_(memory.reward_head.bias)
    WorldModel(ConvVAEConfig(4, (2, 3, 4, 5)).build(), memory).save_pretrained(tmp_path)
    starts = DreamStarts(torch.zeros(2, 4), torch.zeros(2, 8), torch.zeros(2, 8), torch.zeros(2))
    starts.save(tmp_path / STARTS_NAME)
    return tmp_path


def played(kind, folder, **given) -> list[float]:
    """Rewards of an episode."""
    env = kind(folder, **given) if kind is DreamEnv else kind(2, folder, **given)
    env.reset(seed=0) if kind is not DreamVecEnv else env.reset()
    rewards = []
    for _ in range(60):
        step = env.step(np.zeros((3,) if kind is DreamEnv else (2, 3), np.float32))
        rewards.append(float(np.ravel(step[1])[0]))
        over = step[2] if kind is DreamVecEnv else np.logical_or(step[2], step[3])
        if np.ravel(over)[0]:
            return rewards
    raise AssertionError("never over")


@pytest.mark.parametrize("kind", [DreamEnv, DreamVectorEnv, DreamVecEnv])
def test_a_dream_is_by_default_that_of_the_training(kind, folder):
    assert played(kind, folder) == [1.0] * 50  # without a file, the defaults of DreamConfig
    save_settings(folder, TRAINED)
    assert played(kind, folder) == pytest.approx([0.5, 0.1, 0.5, 0.1])
    assert played(kind, folder, reward_clip=None, pace_cap=None) == [1.0] * 4
    assert played(kind, folder, horizon=2, pace_cap=None) == [0.5] * 2


def test_written_and_read(tmp_path):
    assert load_settings(tmp_path) is None
    for config in (TRAINED, DreamConfig(), DreamConfig(reward_clip=(-np.inf, 3.0))):
        save_settings(tmp_path, config)
        assert load_settings(tmp_path) == config
    # How it was computed is not how it was dreamed.
    save_settings(tmp_path, DreamConfig(7, bf16=True, truncation=5))
    assert load_settings(tmp_path) == DreamConfig(7)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"horizon": 0}, "horizon is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": "hot"}, "temperature"),
        ({"reward_clip": [1.0, 0.0]}, "reward_clip"),
        ({"pace_window": 0}, "pace_window is 0"),
        ({"pace_cap": "nan"}, "pace_cap"),
        ({"code": "import os"}, "needed are horizon"),
    ],
)
def test_settings_that_cannot_be_are_refused(folder, changes, told):
    save_settings(folder, TRAINED)
    path = folder / SETTINGS_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(DamagedFileError, match=f"dream.json: .*{told}"):
        DreamEnv(folder)


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"null", b"{", b"\x00" * 40, b"[" * 100_000])
def test_damaged_files_are_named(folder, content):
    (folder / SETTINGS_NAME).write_bytes(content)
    for kind in (DreamEnv, DreamVecEnv):
        with pytest.raises(DamagedFileError, match=r"dream\.json"):
            played(kind, folder)


def test_an_agent_carries_its_dream_into_films_and_play(folder, tmp_path):
    world = WorldModel.from_pretrained(folder)
    controller = LinearController(ControllerConfig(4, 8))
    WorldModelAgent(world, controller, dream=TRAINED).save_pretrained(tmp_path / "agent")
    agent = WorldModelAgent.from_pretrained(tmp_path / "agent")
    assert agent.dream == load_settings(tmp_path / "agent") == TRAINED
    seen, action = np.zeros((64, 64, 3), np.uint8), np.zeros(3, np.float32)
    start = Decision(seen, torch.zeros(1, 4), *torch.zeros(2, 1, 8), torch.zeros(1), action)
    dream = LoneDream(agent, start, None, seed=0)
    assert dream.config == TRAINED
    assert dream.step().paid.item() == 0.5
    assert dream.step().paid.item() == pytest.approx(0.1)
    assert LoneDream(agent, start, 0.7, seed=0).config == replace(TRAINED, temperature=0.7)
    agent.dream = None
    agent.save_pretrained(tmp_path / "another")
    assert not (tmp_path / "another" / SETTINGS_NAME).exists()
    assert LoneDream(agent, start, None, seed=0).config.temperature == 1.0
