"""The example in a process of its own, where torch must not be loaded, against the agent itself."""

import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from agents.world_model_agent import AgentConfig, WorldModelAgent
from envs.car_racing import resize_frames
from generative.vae import ConvVAEConfig
from worldmodels.configs import ControllerConfig, MDNRNNConfig
from worldmodels.controller import LinearController
from worldmodels.memory import MDNRNN
from worldmodels.world_model import WorldModel

REASON = "the extra `onnx` is not installed"
pytest.importorskip("onnx", reason=REASON)
pytest.importorskip("onnxscript", reason=REASON)
pytest.importorskip("onnxruntime", reason=REASON)

EXAMPLE = Path(__file__).parents[2] / "examples" / "drive_without_torch.py"
SEED, STEPS = 3, 14

LISTED = """
import json, runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
# Not `envs`: installed beside Gymnasium, it registers its environments whenever that is imported.
ours = ("torch", "generative", "worldmodels", "agents", "stable_baselines3")
print(json.dumps([name for name in ours if name in sys.modules]))
"""


@pytest.fixture(scope="module")
def agent():
    torch.manual_seed(0)
    memory = MDNRNN(MDNRNNConfig(4, 3, 6, 2, reward_input=True, predict_reward=True))
    controller = LinearController(ControllerConfig(4, 6))
    nn.init.normal_(controller.linear.weight, 0, 2.0)
    world = WorldModel(ConvVAEConfig(4, (2, 3, 4, 5)).build(), memory)
    return WorldModelAgent(world, controller, AgentConfig(action_repeat=3))


def test_it_drives_as_the_agent_does_and_loads_no_torch(agent, tmp_path):
    from worldmodels.export import export_onnx

    export_onnx(agent.world, agent.controller, tmp_path / "agent", action_repeat=3)
    words = [EXAMPLE, tmp_path / "agent", "--seed", SEED, "--steps", STEPS]
    done = subprocess.run(
        [sys.executable, "-c", LISTED, *map(str, words)],
        cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown, loaded = done.stdout.strip().splitlines()
    assert json.loads(loaded) == []

    env = gymnasium.make("CarRacing-v3", max_episode_steps=STEPS)
    obs, _ = env.reset(seed=SEED)
    score, over, state = 0.0, False, None
    while not over:
        action, state = agent.predict(obs, state, episode_start=state is None)
        obs, reward, terminated, truncated, _ = env.step(action)
        score, over = score + reward, terminated or truncated
    env.close()
    assert shown == f"track {SEED}: {score:.1f}"


def test_its_picture_is_the_agents(agent):
    import runpy

    shrink = runpy.run_path(str(EXAMPLE))["shrink"]
    frames = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), np.uint8)
    frames[2, :40] = 255
    for frame in frames:
        np.testing.assert_array_equal(shrink(frame), resize_frames(frame))
