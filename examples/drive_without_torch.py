"""Drive CarRacing-v3 with NumPy and onnxruntime: no torch, nothing else of this project.

python scripts/export_onnx.py pretrained/carracing-dream --into agent-onnx    # where torch is
python examples/drive_without_torch.py agent-onnx --seed 1000000             # where it is not
"""

import argparse
import json
from math import gcd
from pathlib import Path

import gymnasium
import numpy as np
import onnxruntime


def overlaps(old: int, new: int) -> np.ndarray:
    """(new, old) whole numbers: how much each old pixel counts in each new one."""
    length, size = old // gcd(old, new), new // gcd(old, new)
    i, j = np.arange(new)[:, None], np.arange(old)
    shared = np.minimum((i + 1) * length, (j + 1) * size) - np.maximum(i * length, j * size)
    return shared.clip(0)


ROWS, COLUMNS = overlaps(84, 64), overlaps(96, 64)
AREA = int(ROWS[0].sum() * COLUMNS[0].sum())


def shrink(frame: np.ndarray) -> np.ndarray:
    """(96, 96, 3) -> (64, 64, 3) uint8: without the status bar, mean of the covered area."""
    rows = np.tensordot(ROWS, frame[:84].astype(np.int64), 1)  # (64, 96, 3)
    total = np.einsum("ik,jkc->jic", COLUMNS, rows)
    return ((total + AREA // 2) // AREA).astype(np.uint8)


class Agent:
    """V, M and C of a folder that scripts/export_onnx.py wrote."""

    def __init__(self, folder: Path):
        self.sizes = json.loads((folder / "agent.json").read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.encoder, self.memory, self.controller = (
            onnxruntime.InferenceSession(
                folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"]
            )
            for name in ("encoder", "memory", "controller")
        )
        self.heads = [output.name for output in self.memory.get_outputs()]
        self.reset()

    def reset(self) -> None:
        """Begin an episode."""
        self.h = np.zeros((1, self.sizes["hidden_dim"]), np.float32)
        self.c = np.zeros((1, self.sizes["state_dim"]), np.float32)
        self.reward = np.zeros(1, np.float32)
        self.last: tuple[np.ndarray, np.ndarray] | None = None

    def act(self, frame: np.ndarray) -> np.ndarray:
        """The action for a (96, 96, 3) frame, to be held for `action_repeat` frames."""
        if self.last is not None:  # M reads a decision once it is over
            z, action = self.last
            inputs = {"z": z, "action": action, "h": self.h, "c": self.c}
            if self.sizes["reward_input"]:
                inputs["prev_reward"] = self.reward
            out = dict(zip(self.heads, self.memory.run(None, inputs), strict=True))
            self.h, self.c = out["next_h"], out["next_c"]
            self.reward = out.get("reward", self.reward)
        z = np.asarray(self.encoder.run(None, {"frames": shrink(frame)[None]})[0])
        # An input that C does not use is not in its graph.
        known = {"z": z, "h": self.h, "c": self.c}
        inputs = {i.name: known[i.name] for i in self.controller.get_inputs()}
        action = np.asarray(self.controller.run(None, inputs)[0])
        self.last = z, action
        return action[0]


def drive(agent: Agent, seed: int, steps: int) -> float:
    """The score of one episode."""
    env = gymnasium.make("CarRacing-v3", max_episode_steps=steps)
    frame, _ = env.reset(seed=seed)
    agent.reset()
    score, over, t, action = 0.0, False, 0, np.zeros(3, np.float32)
    while not over:
        if t % agent.sizes["action_repeat"] == 0:
            action = agent.act(frame)
        frame, reward, terminated, truncated, _ = env.step(action)
        score, over, t = score + float(reward), terminated or truncated, t + 1
    env.close()
    return score


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("agent", type=Path, help="folder that scripts/export_onnx.py wrote")
    parser.add_argument("--seed", type=int, default=1_000_000, help="of the track")
    parser.add_argument("--steps", type=int, default=1000, help="frames, at most")
    args = parser.parse_args()
    print(f"track {args.seed}: {drive(Agent(args.agent), args.seed, args.steps):.1f}")


if __name__ == "__main__":
    main()
