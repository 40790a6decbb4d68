"""PPO in a dream, in one file, in the manner of CleanRL: no library but torch and Gymnasium.

python examples/dream_ppo_cleanrl.py [UPDATES]

`DreamVectorEnv` is a `gymnasium.vector.VectorEnv` like any other, so this loop would train on real
environments unchanged. `envs.sb3.DreamVecEnv` is the faster one from a few hundred lanes on.
"""

import sys

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import nn
from torch.distributions import Normal

from envs.dream import DreamVectorEnv

LANES, STEPS, EPOCHS, MINIBATCHES = 64, 50, 4, 8
GAMMA, LAMBDA, CLIP, LR = 0.99, 0.95, 0.2, 1e-3


class Agent(nn.Module):
    def __init__(self, seen: int, actions: int):
        super().__init__()
        self.mean = nn.Linear(seen, actions)
        nn.init.zeros_(self.mean.weight)
        nn.init.constant_(self.mean.bias, 0.2)
        self.log_std = nn.Parameter(torch.full((actions,), -1.0))
        self.critic = nn.Sequential(nn.Linear(seen, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, obs: torch.Tensor) -> tuple[Normal, torch.Tensor]:
        return Normal(self.mean(obs), self.log_std.exp()), self.critic(obs)[..., 0]


def advantages(rewards, values, dones, last_value):
    """Generalised advantage estimation, (T, N)."""
    found, following = torch.zeros_like(rewards), torch.zeros_like(last_value)
    for t in reversed(range(len(rewards))):
        next_value = last_value if t == len(rewards) - 1 else values[t + 1]
        delta = rewards[t] + GAMMA * next_value * ~dones[t] - values[t]
        found[t] = following = delta + GAMMA * LAMBDA * following * ~dones[t]
    return found


def main(updates: int = 40, lanes: int = LANES, steps: int = STEPS) -> list[float]:
    """Returns the mean reward of a decision in every update."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    envs = DreamVectorEnv(
        lanes,
        "pretrained/carracing-dream",
        horizon=50,
        temperature=1.15,
        reward_clip=(-1.0, 2.7),
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    agent = Agent(envs.single_observation_space.shape[0], envs.single_action_space.shape[0])
    optimizer = torch.optim.Adam(agent.parameters(), lr=LR, eps=1e-5)
    obs, curve = torch.from_numpy(envs.reset(seed=1)[0]), []
    for update in range(updates):
        rows = []
        for _ in range(steps):
            with torch.no_grad():
                policy, value = agent(obs)
                action = policy.sample()
            new_obs, reward, terminated, truncated, infos = envs.step(action.numpy())
            target = reward.copy()  # beside the reward itself, which the curve is made of
            cut = truncated & ~terminated  # the dream was not over: what might have followed counts
            if cut.any():
                final = torch.from_numpy(np.stack(list(infos["final_obs"][cut])))
                with torch.no_grad():
                    target[cut] += GAMMA * agent(final)[1].numpy()
            log_prob = policy.log_prob(action).sum(-1)
            done = torch.from_numpy(terminated | truncated)
            paid, target = (torch.from_numpy(x).float() for x in (reward, target))
            rows.append((obs, action, log_prob, value, paid, target, done))
            obs = torch.from_numpy(new_obs)
        seen, actions, log_probs, values, rewards, targets, dones = map(
            torch.stack, zip(*rows, strict=True)
        )
        with torch.no_grad():
            advantage = advantages(targets, values, dones, agent(obs)[1])
        batch = [x.flatten(0, 1) for x in (seen, actions, log_probs, advantage, advantage + values)]
        for _ in range(EPOCHS):
            for index in torch.randperm(lanes * steps).chunk(MINIBATCHES):
                o, a, old, adv, target = (x[index] for x in batch)
                policy, value = agent(o)
                ratio = (policy.log_prob(a).sum(-1) - old).exp()
                adv = (adv - adv.mean()) / (adv.std() + 1e-8)
                gain = torch.min(ratio * adv, ratio.clamp(1 - CLIP, 1 + CLIP) * adv).mean()
                loss = 0.5 * (value - target).square().mean() - gain
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
        curve.append(rewards.mean().item())
        print(f"update {update + 1}: {curve[-1]:.3f} a decision", flush=True)
    return curve


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
