"""The examples of docs/reuse.md do what they say; their answers are found another way here."""

import importlib.util
import math

import numpy as np
import pytest
import torch

from tests.commands import ROOT
from worldmodels.world_model import Imagined


def load(name: str):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exact_nll(x: np.ndarray, stay: float, std: float) -> float:
    """By Bayes' rule over the hidden side, number by number: every second number is a chain."""
    total, count = 0.0, 0
    for chain in (x[:, 0::2], x[:, 1::2]):
        plus = np.full(len(chain), 0.5)
        for t in range(chain.shape[1]):
            plus = stay * plus + (1 - stay) * (1 - plus) if t else plus
            normal = [
                np.exp(-((chain[:, t] - side) ** 2) / (2 * std**2)) / math.sqrt(2 * math.pi) / std
                for side in (1, -1)
            ]
            p = plus * normal[0] + (1 - plus) * normal[1]
            if t:
                total, count = total - np.log(p).sum(), count + len(p)
            plus = plus * normal[0] / p
    return total / count


def test_mdn_on_a_sequence_model_comes_close_to_the_exact_answer(capsys):
    example = load("mdn_on_a_sequence_model")
    x = example.sequences(2000, 40, torch.Generator().manual_seed(2))[..., 0].double().numpy()
    # 76,000 numbers, with a deviation of about 1 each: 0.01 is more than two standard errors.
    exact = exact_nll(x, example.STAY, example.STD)
    assert exact == pytest.approx(example.EXACT, abs=0.01)
    nll = example.main(steps=150)
    assert nll < example.EXACT + 0.1 < example.WITHOUT_MEMORY - 0.2
    assert nll > example.EXACT - 0.02
    assert f"exact {example.EXACT:.3f}" in capsys.readouterr().out


class KnownWorld:
    """Rewards that are highest, by a square, for one known plan."""

    def __init__(self, best: torch.Tensor):
        self.best = best

    def imagine(self, z, plans, state, **_):
        return Imagined(z, -(plans - self.best).square().sum(-1), None)


def test_planning_finds_a_known_best_plan():
    example = load("imagine_and_plan")
    best = torch.tensor([[0.5, 0.9, 0.0], [-0.5, 0.2, 0.3]])
    start = torch.tensor([[0.0, 0.3, 0.0]]).repeat(2, 1)
    zeros = torch.zeros(1, 4)
    found = example.plan(
        KnownWorld(best), zeros, (zeros, zeros), start,
        torch.Generator().manual_seed(1), draws=256, elites=16, iterations=6,
    )  # fmt: skip
    assert torch.allclose(found, best, atol=0.1)
    assert ((found >= example.LOW) & (found <= example.HIGH)).all()


def test_planning_drives_the_real_track():
    score = load("imagine_and_plan").main(decisions=2, horizon=2, draws=8)
    # Six steps at -0.1, and at most the tile under the car.
    assert -0.6 - 1e-6 <= score <= 10
