"""Controllers scored in the dream, in batches that workers or devices share among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.configs import ControllerConfig, DreamConfig
from worldmodels.scoring import Scores

__all__ = ["DreamReturns", "same_generation"]


class DreamReturns:
    """Imagined returns of candidates, a `BatchProblem` for `worldmodels.scoring.Scoring`.

    All dreams of a generation begin at the same moments and meet the same noise, in any process:
    their random numbers come from the seed of the search and the generation
    (`same_generation`).

    Args:
        memory: folder of M.
        starts: file of moments, see `DreamStarts`.
        controller, config: of the agent that dreams, and of the dream.
        seed: of the search.
        device: `cpu`, or `cuda`: the device that the worker was given.
    """

    def __init__(
        self,
        memory: Path,
        starts: Path,
        controller: ControllerConfig,
        config: DreamConfig,
        seed: int,
        device: str = "cpu",
    ):
        self._files = Path(memory).absolute(), Path(starts).absolute()
        self._controller, self._config = controller, config
        self._seed, self._device = seed, device
        self._loaded: tuple[Any, Any] | None = None

    def score_batch(self, candidates: np.ndarray, seeds: np.ndarray) -> Scores:
        """Returns (b, E) of candidates (b, n) in E dreams; seeds (b, E) are all the generation."""
        import torch

        if (seeds != seeds[0, 0]).any():
            raise ValueError(f"dreams of one batch have one seed, and these have {seeds}")
        dream, starts = self._loaded = self._loaded or self._load()
        rng = np.random.default_rng([self._seed, int(seeds[0, 0])])
        lanes = torch.from_numpy(candidates).to(dream.device, dream.dtype)
        chosen = starts.draw(seeds.shape[1], rng)
        result = dream.evaluate(lanes, chosen, seed=int(rng.integers(2**63)))
        return Scores(result.returns.double().cpu().numpy(), seeds.size * self._config.horizon)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    def _load(self) -> tuple[Any, Any]:
        # These load torch, which the one who hands out the work does not need.
        from worldmodels.dreaming.rollout import Dream
        from worldmodels.dreaming.starts import DreamStarts
        from worldmodels.memory import load_memory

        memory = load_memory(self._files[0], device=self._device)
        dream = Dream(memory.requires_grad_(False), self._controller, self._config)
        return dream, DreamStarts.load(self._files[1])


def same_generation(generation: int, _candidate: int, _episode: int) -> int:
    """`seed_of` for `DreamReturns`."""
    return generation
