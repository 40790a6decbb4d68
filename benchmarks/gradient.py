"""Contribution of the choice of mixture components, which the pathwise gradient of a dream lacks.

For the committed car: the derivative of the mean imagined return along some directions of the
controller's weights, by back-propagation (`Dream.rollout`) and by central differences of the mean
return under common random numbers (`Dream.evaluate`). They differ by the contribution of the choice
between the Gaussians of a mixture. As a control the same M is measured with mixture weights that do
not depend on its recurrent state: there the choice contributes nothing.

    python benchmarks/gradient.py --json docs/results/gradient.json
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from worldmodels.configs import DreamConfig
from worldmodels.controller import LinearController
from worldmodels.dreaming.rollout import Dream
from worldmodels.dreaming.starts import DreamStarts
from worldmodels.memory import MDNRNN

PRETRAINED = Path(__file__).parents[1] / "pretrained" / "carracing-dream"
STEP = 0.01
"""Root mean square change of each weight for a difference."""


def directions(vector: Tensor, downhill: Tensor, count: int) -> dict[str, Tensor]:
    """Random directions, and that of a gradient from other dreams; root mean square 1."""
    generator = torch.Generator().manual_seed(0)
    found = {f"random {i}": torch.randn(vector.shape, generator=generator) for i in range(count)}
    found["of the gradient"] = downhill / downhill.square().mean().sqrt()
    return found


def pathwise(dream: Dream, starts: DreamStarts, vector: Tensor, dreams: int, seed: int) -> Tensor:
    """Gradients of the mean return over batches of 256 dreams each, (batches, n)."""
    found = []
    for batch in range(dreams // 256):
        rng = np.random.default_rng([seed, batch])
        theta = vector.clone().requires_grad_()
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        result = dream.rollout(theta[None], starts.draw(256, rng), generator, ends="expected")
        found.append(torch.autograd.grad(result.returns.mean(), theta)[0])
    return torch.stack(found)


def differences(
    dream: Dream, starts: DreamStarts, vector: Tensor, along: Tensor, dreams: int
) -> Tensor:
    """Central differences of the mean return along a direction, over batches of 1,024 dreams."""
    both, found = torch.stack([vector + STEP * along, vector - STEP * along]), []
    for batch in range(dreams // 1024):
        rng = np.random.default_rng([3, batch])
        chosen = starts.draw(1024, rng)
        up, down = dream.evaluate(both, chosen, int(rng.integers(2**63))).returns.mean(1)
        found.append((up - down) / (2 * STEP))
    return torch.stack(found)


def summary(values: Tensor) -> dict[str, float]:
    """Mean and standard error over batches."""
    error = values.std() / len(values) ** 0.5
    return {"mean": round(values.mean().item(), 4), "error": round(error.item(), 4)}


def measure(memory: MDNRNN, horizon: int, dreams: int, count: int) -> dict[str, dict]:
    """Both derivatives, by direction."""
    controller = LinearController.from_pretrained(PRETRAINED / "controller")
    starts = DreamStarts.load(PRETRAINED / "starts.safetensors")
    config = DreamConfig(horizon, 1.15, reward_clip=(-1.0, 6.0), pace_cap=2.7)
    dream, vector = Dream(memory, controller.config, config), controller.to_vector()
    gradients = pathwise(dream, starts, vector, dreams, seed=1)
    own = pathwise(dream, starts, vector, dreams, seed=2).mean(0)
    return {
        name: {
            "pathwise": summary(gradients @ along),
            "differences": summary(differences(dream, starts, vector, along, 8 * dreams)),
        }
        for name, along in directions(vector, own, count).items()
    }


def with_fixed_weights(memory: MDNRNN) -> MDNRNN:
    """The same M with constant mixture weights."""
    mem, memory = memory.config, copy.deepcopy(memory)
    with torch.no_grad():
        memory.mixture_head.linear.weight[: mem.latent_dim * mem.num_mixtures] = 0
    return memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--dreams", type=int, default=1024, help="dreams of a gradient")
    parser.add_argument("--directions", type=int, default=2, help="random directions")
    args = parser.parse_args()
    torch.set_num_threads(1)
    memory = MDNRNN.from_pretrained(PRETRAINED / "memory").requires_grad_(False)
    report: dict[str, dict] = {}
    cases = {f"{n} decisions": (memory, n) for n in (2, 10, 30)}
    cases["10 decisions, weights of mixtures fixed"] = with_fixed_weights(memory), 10
    for case, (m, horizon) in cases.items():
        # The gradient that leaks through a released brake is no derivative of the return.
        with mock.patch("worldmodels.actions.BRAKE_LEAK", 0.0):
            report[case] = measure(m, horizon, args.dreams, args.directions)
        print(f"{case:44}{'pathwise':>18}{'differences':>18}")
        for name, both in report[case].items():
            columns = (f"{x['mean']:9.2f} +/- {x['error']:4.2f}" for x in both.values())
            print(f"  {name:42}" + "".join(f"{column:>18}" for column in columns), flush=True)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
        print(f"written to {args.json}")


if __name__ == "__main__":
    main()
