"""V and M from episodes of your own, without any environment: here of a ball that is pushed.

python examples/own_episodes.py

It writes small .npz files as your program would, imports them, makes V, trains M in half a minute,
and asks M what the ball will do. Here two numbers are seen, place and speed; where pictures are
(uint8, any size), `train_vae` takes the place of `scale_vectors`.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from agents.rounds.encoding import Encoding, encode
from agents.rounds.memory import MDNRNNTraining, train_memory
from agents.rounds.own_episodes import Importing, import_episodes
from agents.rounds.vision import VectorScaling, scale_vectors
from worldmodels.configs import MDNRNNConfig, MemoryLossConfig
from worldmodels.memory import MDNRNN
from worldmodels.sequences import EncodedRollouts


def play(rng: np.random.Generator, steps: int = 60) -> dict[str, np.ndarray]:
    """An episode of a ball on a line that is pushed left or right and stops at the walls."""
    place, speed = rng.uniform(-1, 1), 0.0
    seen, actions, rewards = [[place, speed]], [], []
    for _ in range(steps):
        push = rng.uniform(-1, 1)
        speed = 0.9 * speed + 0.1 * push
        speed = 0.0 if abs(place + speed) > 1 else speed
        place += speed
        seen.append([place, speed])
        actions.append([push])
        rewards.append(-abs(place))
    return {
        "frames": np.array(seen),
        "actions": np.array(actions),
        "rewards": np.array(rewards),
        "ends": np.zeros(steps, bool),  # the recording stops, the ball does not
    }


def main(folder: Path, episodes: int = 60, steps: int = 500) -> tuple[float, float]:
    """Returns the squared error of z one decision ahead: M's, and that of "nothing moves"."""
    torch.set_num_threads(1)
    own = folder / "pushed ball"
    own.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for i in range(episodes):
        episode = play(rng)
        np.savez(
            own / f"{i:03d}.npz",
            frames=episode["frames"],
            actions=episode["actions"],
            rewards=episode["rewards"],
            ends=episode["ends"],
        )

    rollouts = (
        import_episodes(Importing(source=own, out=folder / "import", low=(-1.0,), high=(1.0,))),
    )
    vision = scale_vectors(VectorScaling(rollouts=rollouts, out=folder / "v"))
    encoded = encode(Encoding(rollouts=rollouts, vision=vision, out=folder / "z"))
    sizes = MDNRNNConfig(
        latent_dim=2,
        action_dim=1,
        hidden_dim=32,
        predict_reward=True,
        predict_end=True,
        residual=True,
    )
    trained = train_memory(
        MDNRNNTraining(
            out=folder / "m",
            encoded=(encoded,),
            model=sizes,
            loss=MemoryLossConfig(lr=5e-3),
            steps=steps,
            batch_size=32,
            length=16,
        )
    )

    memory, data = MDNRNN.from_pretrained(trained), EncodedRollouts.load(encoded)
    first = slice(0, data.starts[1])  # one episode
    z = torch.from_numpy(data.mu[first]).float()[None]
    with torch.no_grad():
        out, _ = memory(z, torch.from_numpy(data.actions[first])[None])
    ahead = (out.mixture.log_pi.exp() * out.mixture.mu).sum(-1)[:, :-1]
    return float((ahead - z[:, 1:]).square().mean()), float((z[:, 1:] - z[:, :-1]).square().mean())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        ours, still = main(Path(*sys.argv[1:] or [scratch]) / "example")
    print(f"squared error of z one decision ahead: M {ours:.4f}, if nothing moved {still:.4f}")
