"""Speed of the training of V and M, and comparison of the losses reached.

    python benchmarks/training.py [--json FILE] [--threads N] [--skip-paper]

Our learners and plain float32 loops in the style of PyTorch's tutorials take turns in one process,
so that all run under equal conditions. They begin with the same weights and learn from frames
of the project's own environment. Times are CPU time of this process, all threads together, so
other work on the machine matters little; each includes the assembly of the batch. Under three
minutes.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torch.nn import functional as F

from agents.explorers import RandomWalkDriver
from envs.car_racing import CarRacing64
from generative.vae import ConvVAE, ConvVAEConfig, VAELearner, VAELossConfig, to_float_bchw
from scripts import train_mdnrnn, train_vae
from worldmodels.memory import MDNRNN, MDNRNNConfig, MemoryLearner, MemoryLossConfig, memory_loss
from worldmodels.sequences import EncodedRollouts, SequenceBatches

PRETRAINED = Path(__file__).parents[1] / "pretrained/carracing-dream"
Step = Callable[[int], object]


# ---------------------------------------------------------------------------------------------
# Data
# ---------------------------------------------------------------------------------------------


def record(episodes: int, steps: int) -> tuple[list[np.ndarray], list[np.ndarray], list[list]]:
    """Frames uint8 (T + 1, 64, 64, 3), actions (T, 3) and rewards (T,) of random drives."""
    env, frames, actions, rewards = CarRacing64(), [], [], []
    for seed in range(episodes):
        driver = RandomWalkDriver(seed)
        obs, _ = env.reset(seed=seed)
        seen, taken, paid, state = [obs], [], [], None
        for t in range(steps):
            action, state = driver.predict(obs, state, np.array([t == 0]))
            obs, reward, terminated, _, _ = env.step(action)
            seen.append(obs)
            taken.append(action)
            paid.append(reward)
            if terminated:
                break
        frames.append(np.stack(seen))
        actions.append(np.stack(taken).astype(np.float32))
        rewards.append(paid)
    return frames, actions, rewards


@torch.no_grad()
def encode(
    frames: list[np.ndarray], actions: list[np.ndarray], rewards: list[list]
) -> EncodedRollouts:
    """Latents of the episodes, by the pretrained V."""
    vision = ConvVAE.from_pretrained(PRETRAINED / "vision")
    parts = []
    for seen, taken, paid in zip(frames, actions, rewards, strict=True):
        batches = [
            vision.encode_mu_logvar(to_float_bchw(b)) for b in torch.from_numpy(seen).split(256)
        ]
        mu, logvar = (torch.cat(x).half().numpy() for x in zip(*batches, strict=True))
        parts.append(
            EncodedRollouts(
                mu,
                logvar,
                np.pad(taken, ((0, 1), (0, 0))),
                np.pad(np.array(paid, np.float32), (0, 1)),
                np.zeros(len(seen), bool),
                np.array([0, len(seen)]),
            )
        )
    return EncodedRollouts.concat(parts)


# ---------------------------------------------------------------------------------------------
# Plain loops
# ---------------------------------------------------------------------------------------------


def cosine(optimizer: torch.optim.Optimizer, steps: int, final_lr: float):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, final_lr)


def plain_vae_step(
    model: ConvVAE, frames: list[np.ndarray], config: VAELossConfig, batch_size: int, steps: int
) -> Step:
    """V in float32 and PyTorch's standard layout."""
    images = np.concatenate(frames).transpose(0, 3, 1, 2).copy()  # uint8 (N, 3, 64, 64)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    schedule = cosine(optimizer, steps, config.final_lr)

    def step(index: int) -> None:
        rows = np.random.default_rng([1, index]).integers(len(images), size=batch_size)
        x = torch.from_numpy(images[rows]).float() / 255
        recon, mu, logvar = model(x)
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1)
        floor = config.free_bits * mu.shape[1]
        error = F.mse_loss(recon, x, reduction="sum") / len(x)
        loss = error + config.beta * kl.clamp(min=floor).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    return step


class PlainWindows:
    """Windows drawn as by `SequenceBatches`, from float32 arrays, one at a time."""

    def __init__(self, encoded: EncodedRollouts, batch_size: int, length: int):
        ends = zip(encoded.starts[:-1], encoded.starts[1:], strict=True)
        self.episodes = [
            (
                encoded.mu[a:b].astype(np.float32),
                encoded.logvar[a:b].astype(np.float32),
                encoded.actions[a:b],
                encoded.rewards[a:b],
                encoded.terminated[a:b].astype(np.float32),
            )
            for a, b in ends
        ]
        self.share = encoded.lengths / encoded.lengths.sum()
        self.batch_size, self.length = batch_size, length

    def __call__(self, index: int) -> dict[str, Tensor]:
        rng, windows = np.random.default_rng([2, index]), []
        for i in range(self.batch_size):
            episode = rng.choice(len(self.episodes), p=self.share)
            mu, logvar, action, reward, terminated = self.episodes[episode]
            decisions = len(mu) - 1
            first = rng.integers(1 - self.length, decisions)
            first = min(max(first, 0), max(decisions - self.length, 0))
            if i < self.batch_size / 10:
                first = 0
            count = min(decisions - first, self.length)
            rows = slice(first, first + count + 1)
            z = mu[rows] + np.exp(logvar[rows] / 2) * rng.standard_normal(mu[rows].shape)
            here = slice(first, first + count)
            window = {
                "z": z[:-1],
                "next_z": z[1:],
                "action": action[here],
                "reward": reward[here],
                "terminated": terminated[here],
                "mask": np.ones(count),
            }
            missing = self.length - count
            windows.append(
                {
                    name: np.pad(x, [(0, missing), (0, 0)][: x.ndim]).astype(np.float32)
                    for name, x in window.items()
                }
            )
        return {name: torch.from_numpy(np.stack([w[name] for w in windows])) for name in windows[0]}


def distributions_loss(
    model: MDNRNN, batch: dict[str, Tensor], weights: MemoryLossConfig
) -> Tensor:
    """M's loss with torch.distributions and PyTorch's loss functions."""
    config, mask = model.config, batch["mask"]
    h, _ = model.lstm(torch.cat([batch["z"], batch["action"]], dim=-1))
    h = F.dropout(h, config.dropout)
    out = model.mixture_head.linear(h).unflatten(-1, (3, config.latent_dim, config.num_mixtures))
    logits, mu, log_std = out.unbind(-3)
    if config.residual:
        mu = mu + batch["z"].unsqueeze(-1)
    mixture = MixtureSameFamily(Categorical(logits=logits), Normal(mu, log_std.exp()))
    loss = -(mixture.log_prob(batch["next_z"]).mean(-1) * mask).sum()
    if model.reward_head is not None:
        target = batch["reward"] / config.reward_scale
        error = F.mse_loss(model.reward_head(h).squeeze(-1), target, reduction="none")
        loss = loss + weights.reward_weight * (error * mask).sum()
    if model.end_head is not None:
        error = F.binary_cross_entropy_with_logits(
            model.end_head(h).squeeze(-1), batch["terminated"], reduction="none"
        )
        loss = loss + weights.end_weight * (error * mask).sum()
    return loss / mask.sum()


def formula_loss(model: MDNRNN, batch: dict[str, Tensor], weights: MemoryLossConfig) -> Tensor:
    """M's loss by the formulas of `worldmodels.memory`, as separate tensor operations."""
    out, _ = model(batch["z"], batch["action"])
    return memory_loss(out, batch, model.config, weights).loss


def plain_memory_step(
    model: MDNRNN, windows: PlainWindows, config: MemoryLossConfig, steps: int, loss_of: Callable
) -> Step:
    """M in float32."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=config.lr)
    schedule = cosine(optimizer, steps, config.final_lr)

    def step(index: int) -> None:
        loss = loss_of(model, windows(index), config)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), config.clip_value)
        optimizer.step()
        schedule.step()

    return step


# ---------------------------------------------------------------------------------------------
# Contests
# ---------------------------------------------------------------------------------------------


def take_turns(steps: dict[str, Step], turns: int, steps_per_turn: int) -> dict[str, list[float]]:
    """CPU milliseconds per step of each, one value per turn; the first turn warms up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns):
        for name, step in steps.items():
            begin = time.process_time()
            for index in range(turn * steps_per_turn, (turn + 1) * steps_per_turn):
                torch.manual_seed(index)
                step(index)
            spent = 1000 * (time.process_time() - begin) / steps_per_turn
            if turn > 0:
                times[name].append(spent)
    return times


def summary(times: dict[str, list[float]], ours: str = "ours") -> dict[str, dict[str, float]]:
    """Median milliseconds, and the median over turns of our speed-up."""
    return {
        name: {
            "ms_per_step": round(statistics.median(values), 2),
            "ours_is_faster": round(
                statistics.median(v / o for v, o in zip(values, times[ours], strict=True)), 2
            ),
        }
        for name, values in times.items()
    }


def vae_contest(
    model: ConvVAEConfig,
    loss: VAELossConfig,
    batch_size: int,
    frames: list[np.ndarray],
    turns: int,
    steps_per_turn: int,
) -> dict:
    torch.manual_seed(0)
    begin = model.build().train()
    models = {"plain float32": copy.deepcopy(begin), "ours": copy.deepcopy(begin)}
    steps, rows = turns * steps_per_turn, np.concatenate(frames)
    learner = VAELearner(models["ours"], loss, steps)

    def ours(index: int) -> None:
        chosen = np.random.default_rng([1, index]).integers(len(rows), size=batch_size)
        learner.update(torch.from_numpy(rows[chosen]))

    plain = plain_vae_step(models["plain float32"], frames, loss, batch_size, steps)
    found = summary(take_turns({"plain float32": plain, "ours": ours}, turns, steps_per_turn))
    x = to_float_bchw(torch.from_numpy(rows[:: max(len(rows) // 200, 1)]))
    for name, trained in models.items():
        with torch.no_grad():
            error = (trained.reconstruct(x) - x).square().sum() / len(x)
        found[name]["squared_error"] = round(error.item(), 1)
    return found


def memory_contest(
    model: MDNRNNConfig,
    loss: MemoryLossConfig,
    batch_size: int,
    length: int,
    encoded: EncodedRollouts,
    turns: int,
    steps_per_turn: int,
) -> dict:
    torch.manual_seed(0)
    begin = MDNRNN(model).train()
    losses = {"plain float32": distributions_loss, "plain, loss by formula": formula_loss}
    models = {name: copy.deepcopy(begin) for name in (*losses, "ours")}
    steps = turns * steps_per_turn
    windows = PlainWindows(encoded, batch_size, length)
    contestants: dict[str, Step] = {
        name: plain_memory_step(models[name], windows, loss, steps, loss_of)
        for name, loss_of in losses.items()
    }
    learner = MemoryLearner(models["ours"], loss, steps)
    batches = SequenceBatches(encoded, batch_size, length, seed=1)
    contestants["ours"] = lambda index: learner.update(batches(index))
    found = summary(take_turns(contestants, turns, steps_per_turn))
    tests = [SequenceBatches(encoded, 16, min(length, 128), seed=2)(i) for i in range(8)]
    for name, trained in models.items():
        trained.eval()
        with torch.no_grad():
            values = [formula_loss(trained, batch, loss).item() for batch in tests]
        found[name]["loss"] = round(statistics.mean(values), 4)
    return found


def show(title: str, found: dict) -> None:
    print(f"\n{title}", flush=True)
    measures = [key for key in found["ours"] if key not in ("ms_per_step", "ours_is_faster")]
    print(f"  {'':22}{'CPU ms per step':>17}{'ours is faster':>17}{measures[0]:>20}")
    for name, row in found.items():
        ratio = "" if name == "ours" else f"{row['ours_is_faster']:.2f}"
        print(f"  {name:22}{row['ms_per_step']:17.1f}{ratio:>17}{row[measures[0]]:20.4g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--turns", type=int, default=16, help="at the sizes of the quick preset")
    parser.add_argument("--skip-paper", action="store_true", help="leave out the paper's sizes")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    recorded = record(6, 1000)
    frames, encoded = recorded[0], encode(*recorded)
    vae, memory = train_vae.PRESETS, train_mdnrnn.PRESETS
    found = {}

    def contest(title: str, result: dict) -> None:
        show(title, result)
        found[title] = result

    quick, turns = vae["quick"], args.turns
    contest(
        f"V, quick preset: {quick.batch_size} frames",
        vae_contest(quick.model, quick.loss, quick.batch_size, frames, turns, 8),
    )
    quick = memory["quick"]
    contest(
        f"M, quick preset: {quick.batch_size} windows of {quick.length} decisions",
        memory_contest(quick.model, quick.loss, quick.batch_size, quick.length, encoded, turns, 12),
    )
    if not args.skip_paper:
        paper = vae["paper"]
        contest(
            f"V, the paper's sizes: {paper.batch_size} frames",
            vae_contest(paper.model, VAELossConfig(bf16="auto"), paper.batch_size, frames, 6, 1),
        )
        paper = memory["paper"]
        contest(
            f"M, the paper's sizes: {paper.batch_size} windows of {paper.length} decisions",
            memory_contest(
                paper.model,
                MemoryLossConfig(bf16="auto"),
                paper.batch_size,
                paper.length,
                encoded,
                3,
                1,
            ),
        )
    if args.json:
        report = {
            "contests": found,
            "threads": args.threads,
            "machine": platform.processor() or platform.machine(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "versions": {name: version(name) for name in ("torch", "numpy")},
        }
        args.json.write_text(json.dumps(report, indent=2) + "\n")
        print(f"\nwritten to {args.json}")


if __name__ == "__main__":
    main()
