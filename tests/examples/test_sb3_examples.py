"""The examples around Stable-Baselines3 and CleanRL, run small, and the arithmetic of one."""

import re
import runpy
import sys

import gymnasium
import numpy as np
import pytest
import torch

from tests.commands import ROOT


def test_vae_in_front_of_sb3(monkeypatch, capsys):
    """With episodes of 30 steps, where the game's have 1,000."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["vae_in_front_of_sb3.py", "64"])
    monkeypatch.setattr(gymnasium.spec("WorldModels/CarRacing64-v0"), "max_episode_steps", 30)
    runpy.run_path("examples/vae_in_front_of_sb3.py", run_name="__main__")
    shown = capsys.readouterr().out
    assert re.search(r"total_timesteps +\| 64 ", shown)
    assert re.search(r"two episodes: -?\d+ on average, deviation \d+\n$", shown)


def load_cleanrl():
    import importlib.util

    path = ROOT / "examples" / "dream_ppo_cleanrl.py"
    spec = importlib.util.spec_from_file_location("dream_ppo_cleanrl", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_advantages_are_those_of_sb3():
    from gymnasium import spaces
    from stable_baselines3.common.buffers import RolloutBuffer

    module, rng = load_cleanrl(), np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 6, 3)).astype(np.float32)
    dones, last = rng.random((6, 3)) < 0.3, rng.normal(size=3).astype(np.float32)
    box = spaces.Box(-1, 1, (1,))
    buffer = RolloutBuffer(6, box, box, "cpu", module.LAMBDA, module.GAMMA, n_envs=3)
    starts = np.zeros(3)
    for reward, value, done in zip(rewards, values, dones, strict=True):
        zeros = np.zeros((3, 1))
        buffer.add(zeros, zeros, reward, starts, torch.from_numpy(value), torch.zeros(3))
        starts = done
    buffer.compute_returns_and_advantage(torch.from_numpy(last), dones[-1])
    ours = module.advantages(*map(torch.from_numpy, (rewards, values, dones, last)))
    np.testing.assert_allclose(ours.numpy(), buffer.advantages, atol=1e-5)


@pytest.mark.nightly
def test_dream_ppo_learns_to_drive(monkeypatch):
    monkeypatch.chdir(ROOT)
    curve = load_cleanrl().main(updates=12, lanes=48, steps=50)
    assert np.mean(curve[-2:]) > curve[0] + 0.2


def test_cleanrl_prints_the_reward_itself(monkeypatch, capsys):
    """What a cut dream might have paid later is learned from, and is no reward of a decision."""
    module, paid = load_cleanrl(), []

    class Watched(module.DreamVectorEnv):
        def step(self, actions):
            stepped = super().step(actions)
            paid.append((stepped[1].copy(), stepped[1]))
            return stepped

    monkeypatch.setattr(module, "DreamVectorEnv", Watched)
    [shown] = module.main(updates=1, lanes=4, steps=60)  # dreams are cut after 50
    before, after = (np.array(rewards) for rewards in zip(*paid, strict=True))
    np.testing.assert_array_equal(before, after)
    assert shown == pytest.approx(before.mean(), rel=1e-5)
    assert f"update 1: {before.mean():.3f} a decision" in capsys.readouterr().out
