"""A world model's V and M in front of somebody else's agent: PPO sees z and h in place of pixels.

python examples/vae_in_front_of_sb3.py [DECISIONS]
"""

import sys

import gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from envs.action_repeat import ActionRepeat
from envs.latent import LatentObservation

if __name__ == "__main__":
    decisions = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    # M knows decisions of three steps.
    env = ActionRepeat(gymnasium.make("envs:WorldModels/CarRacing64-v0"), 3)
    env = Monitor(LatentObservation(env, "pretrained/carracing-dream"))
    model = PPO("MlpPolicy", env, n_steps=min(1024, decisions), verbose=1, device="cpu", seed=1)
    model.learn(decisions)
    mean, std = evaluate_policy(model, env, n_eval_episodes=2)
    print(f"two episodes: {mean:.0f} on average, deviation {std:.0f}")
