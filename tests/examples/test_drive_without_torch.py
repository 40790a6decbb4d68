"""The example in a process of its own, where torch must not be loaded, against the agent itself."""

import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from agents.world_model_agent import AgentConfig, WorldModelAgent
from envs.car_racing import resize_frames
from tests.worldmodels.exported import ACTION_REPEAT, exported_agent, tiny_agent

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


def test_it_drives_as_the_agent_does_and_loads_no_torch(tmp_path_factory, tmp_path):
    agent = WorldModelAgent(*tiny_agent(), AgentConfig(action_repeat=ACTION_REPEAT))
    folder, _ = exported_agent(tmp_path_factory)
    words = [EXAMPLE, folder, "--seed", SEED, "--steps", STEPS]
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


def test_its_picture_is_the_agents():
    import runpy

    shrink = runpy.run_path(str(EXAMPLE))["shrink"]
    frames = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), np.uint8)
    frames[2, :40] = 255
    for frame in frames:
        np.testing.assert_array_equal(shrink(frame), resize_frames(frame))
