"""V and M in a model-based loop of one's own: plan by imagining, with no controller at all.

At every decision the cross-entropy method draws plans of two thirds of a second, M imagines what
each would bring, the best few say where to draw next, and the first action of their mean is
taken on the real track.

python examples/imagine_and_plan.py [DECISIONS] [TRACK]
"""

import sys

import gymnasium
import torch
from torch import Tensor

import envs  # noqa: F401  registers WorldModels/CarRacing64-v0
from worldmodels.world_model import WorldModel

LOW, HIGH = torch.tensor([-1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 1.0])
REPEAT = 3  # environment steps an action is held; this M was trained so


def plan(
    world: WorldModel, z: Tensor, state: tuple[Tensor, Tensor], mean: Tensor,
    generator: torch.Generator, draws: int = 64, elites: int = 8, iterations: int = 3,
) -> Tensor:  # fmt: skip
    """Mean of the best plans (T, 3) that M knows from z (1, latent_dim) on."""
    std = torch.tensor([0.4, 0.3, 0.15]).expand_as(mean)
    for _ in range(iterations):
        noise = torch.randn(draws, *mean.shape, generator=generator)
        plans = (mean + std * noise).clamp(LOW, HIGH)
        seen = (x.expand(draws, -1) for x in (z, *state))
        z0, h0, c0 = (x.contiguous() for x in seen)
        imagined = world.imagine(z0, plans, (h0, c0), temperature=0.5, generator=generator)
        assert imagined.reward is not None  # this M predicts rewards
        best = plans[imagined.reward.sum(1).topk(elites).indices]
        mean, std = best.mean(0), best.std(0)
    return mean


def main(decisions: int = 60, track: int = 1, horizon: int = 12, draws: int = 64) -> float:
    """Score of `decisions` decisions on a real track."""
    world = WorldModel.from_pretrained("pretrained/carracing-dream")
    generator = torch.Generator().manual_seed(1)
    env = gymnasium.make("envs:WorldModels/CarRacing64-v0")
    frame, _ = env.reset(seed=track)
    state, score = world.memory.initial_state(1), 0.0
    mean = torch.tensor([0.0, 0.3, 0.0]).repeat(horizon, 1)
    for _ in range(decisions):
        z = world.encode(frame[None])
        mean = plan(world, z, state, mean, generator, draws)
        for _ in range(REPEAT):
            frame, reward, terminated, truncated, _ = env.step(mean[0].numpy())
            score += float(reward)
            if terminated or truncated:
                return score
        _, _, state = world.step(z, mean[:1], state)  # M remembers what was done
        mean = torch.cat([mean[1:], mean[-1:]])
    return score


if __name__ == "__main__":
    print(f"score {main(*map(int, sys.argv[1:])):.0f}")
