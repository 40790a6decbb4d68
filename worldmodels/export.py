"""V, M and C as ONNX graphs, so that an agent acts without torch.

    export_onnx(agent.world, agent.controller, "agent-onnx", action_repeat=3)
    # encoder.onnx  frames (B, 64, 64, 3) uint8 -> mu (B, D)
    # decoder.onnx  z (B, D) -> images (B, 3, 64, 64) in [0, 1]
    # memory.onnx   z, action, h, c -> log_pi, mu, log_std, reward, end_logit, next_h, next_c
    # controller.onnx  z, h, c -> action
    # agent.json    sizes, the action head, frames for which an action is held

With a V of vectors, encoder.onnx takes `vectors` (B, D) float32 and decoder.onnx returns them. An M
that reads rewards also has the input `prev_reward` (B,), and it has the outputs of its heads only.
Every graph is compared in onnxruntime with its model before anything is written.
`examples/drive_without_torch.py` shows how a program uses them.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from generative.training.checks import placed
from generative.training.extras import how_to_install
from generative.training.files import json_bytes, write_folder
from generative.training.settings import to_json
from generative.vae import to_float_bchw
from worldmodels.configs import DreamConfig
from worldmodels.controller import LinearController
from worldmodels.dreaming.noise import gumbel, normal, uniform
from worldmodels.dreaming.step import DreamState, Noise, check_can_dream, dream_step
from worldmodels.memory import Memory
from worldmodels.memory.base import MixtureNoise
from worldmodels.vision import VectorVision, Vision, encode_mu_logvar
from worldmodels.world_model import WorldModel

__all__ = ["TOLERANCE", "Graph", "dream_graph", "export_onnx", "graphs", "traced"]

TOLERANCE = 1e-5
"""Largest difference between a graph and its model, for numbers of size 1 (in proportion for larger
ones)."""

OPSET = 18


class Graph(NamedTuple):
    """A module to be traced, with inputs of two rows."""

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


class _Encoder(nn.Module):
    def __init__(self, vision: Vision):
        super().__init__()
        self.vision = vision

    def forward(self, seen: Tensor) -> Tensor:
        vectors = isinstance(self.vision, VectorVision)
        return encode_mu_logvar(self.vision, seen if vectors else to_float_bchw(seen))[0]


class _Decoder(nn.Module):
    def __init__(self, vision: Vision):
        super().__init__()
        self.vision = vision

    def forward(self, z: Tensor) -> Tensor:
        return self.vision.decode(z)


class _Memory(nn.Module):
    def __init__(self, memory: Memory):
        super().__init__()
        self.memory = memory

    def forward(
        self,
        z: Tensor,
        action: Tensor,
        h: Tensor,
        c: Tensor,
        prev_reward: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        out, (h, c) = self.memory.step(z, action, (h, c), prev_reward)
        heads = [x for x in (out.reward, out.end_logit) if x is not None]
        return (*out.mixture, *heads, h, c)


class _DreamStep(nn.Module):
    """`dream_step` of an M with a reward head, as a function of tensors."""

    def __init__(self, memory: Memory, config: DreamConfig):
        super().__init__()
        # The caller scales the noise by the temperature: see `dream_graph`. The exporter knows no
        # bounds of mixed types.
        clip = config.reward_clip and (float(config.reward_clip[0]), float(config.reward_clip[1]))
        self.config = replace(config, temperature=1.0, reward_clip=clip)
        self.memory = memory

    def forward(
        self,
        z: Tensor,
        h: Tensor,
        c: Tensor,
        prev_reward: Tensor,
        alive: Tensor,
        age: Tensor,
        stretch: Tensor,
        mask: Tensor,
        action: Tensor,
        gumbel: Tensor,
        eps: Tensor,
        uniform: Tensor,
    ) -> tuple[Tensor, ...]:
        state = DreamState(z, h, c, prev_reward, alive, age, stretch, mask)
        noise = Noise(MixtureNoise(gumbel, eps), uniform)
        after, outcome = dream_step(self.memory, state, action, noise, self.config)
        p_end = torch.zeros_like(alive) if outcome.p_end is None else outcome.p_end
        assert after.prev_reward is not None
        assert outcome.paid is not None
        # The LSTM of onnxruntime turns NaN into numbers, so what M reads is judged beside it.
        bad = torch.cat([z, h, c, action], 1).isnan().any(1)
        rows = [x.masked_fill(bad[:, None], torch.nan) for x in (after.z, after.h, after.c)]
        paid, p_end, reward, stretch = (
            x.masked_fill(bad, torch.nan)
            for x in (outcome.paid, p_end, after.prev_reward, after.stretch)
        )
        goes_on = after.alive.masked_fill(bad & (alive > 0), torch.nan)
        return (
            *rows,
            reward,
            goes_on,
            after.age,
            stretch,
            paid,
            p_end,
            goes_on == 0,
            outcome.truncated,
        )


class _Controller(nn.Module):
    def __init__(self, controller: LinearController):
        super().__init__()
        self.controller = controller

    def forward(self, z: Tensor, h: Tensor, c: Tensor) -> Tensor:
        return self.controller.act(z, h, c)


def graphs(world: WorldModel, controller: LinearController | None) -> dict[str, Graph]:
    """Modules to trace, by the names of their files; the inputs are examples of two rows."""
    mem, vision = world.memory.config, world.vision
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.rand(2, *shape, generator=generator, dtype=placed(world.memory)["dtype"])

    if isinstance(vision, VectorVision):
        seen = {"vectors": some(vision.latent_dim)}
    else:
        seen = {"frames": some(64, 64, 3).mul(255).byte()}
    z, action = some(mem.latent_dim), some(mem.action_dim)
    h, c = _a_state(world.memory)
    steps = {"z": z, "action": action, "h": h, "c": c}
    if mem.reward_input:
        steps["prev_reward"] = some()
    heads = ["reward"] * mem.predict_reward + ["end_logit"] * mem.predict_end
    out = ("log_pi", "mu", "log_std", *heads, "next_h", "next_c")
    decoded = "vectors" if "vectors" in seen else "images"
    found = {
        "encoder.onnx": Graph(_Encoder(vision), seen, ("mu",)),
        "decoder.onnx": Graph(_Decoder(vision), {"z": z}, (decoded,)),
        "memory.onnx": Graph(_Memory(world.memory), steps, out),
    }
    if controller is not None:
        inputs = {"z": z, "h": h, "c": c}
        found["controller.onnx"] = Graph(_Controller(controller), inputs, ("action",))
    return found


def dream_graph(memory: Memory, config: DreamConfig) -> Graph:
    """`dream_step` of one M under these settings, to be traced.

    Inputs and outputs are the fields of `DreamState` (the outputs named next_z and so on), the
    action, the noise, and what the decision paid. The noise is as for temperature 1; to dream at
    temperature tau, multiply `gumbel` by tau and `eps` by its root, as `Mixture.draw` does. Without
    dropout `mask` is ones.

    Raises:
        ValueError: M has no reward head.
    """
    check_can_dream(memory.config)
    mem, kind = memory.config, memory.kind
    random = torch.Generator(memory.device).manual_seed(2)
    h, c = _a_state(memory)
    state = {
        "z": normal(2, (mem.latent_dim,), random, kind),
        "h": h,
        "c": c,
        "prev_reward": normal(2, (), random, kind),
        "alive": torch.ones(2, **kind),
        "age": torch.arange(2),
        "stretch": normal(2, (), random, kind),
    }
    given = {
        "mask": torch.ones_like(h),
        "action": uniform(2, (mem.action_dim,), random, kind),
        "gumbel": gumbel(2, (mem.latent_dim, mem.num_mixtures), random, kind),
        "eps": normal(2, (mem.latent_dim,), random, kind),
        "uniform": uniform(2, (), random, kind),
    }
    outputs = (*(f"next_{name}" for name in state), "paid", "p_end", "ended", "truncated")
    return Graph(_DreamStep(memory, config), {**state, **given}, outputs)


@torch.no_grad()
def _a_state(memory: Memory) -> tuple[Tensor, Tensor]:
    """(h, c) in the middle of an episode, for two rows."""
    mem, generator = memory.config, torch.Generator().manual_seed(1)
    dtype = placed(memory)["dtype"]
    z = torch.randn(2, 3, mem.latent_dim, generator=generator, dtype=dtype)
    action = torch.rand(2, 3, mem.action_dim, generator=generator, dtype=dtype)
    paid = torch.zeros(2, 3, dtype=dtype) if mem.reward_input else None
    return memory.read(z, action, None, paid)[1]


def export_onnx(
    world: WorldModel,
    controller: LinearController | None,
    folder: Path | str,
    action_repeat: int = 1,
) -> dict[str, float]:
    """Write the graphs and agent.json into folder: all of it or nothing.

    Args:
        folder: new, or written by this function earlier.
        action_repeat: frames for which an action is held; noted in agent.json.
    Returns:
        the largest difference between graph and model, by file name.
    Raises:
        ImportError: onnx, onnxruntime or onnxscript is missing.
        ValueError: a graph differs from its model by more than `TOLERANCE`; nothing was written.
    """
    files, differences = traced(graphs(world.eval(), controller))
    mem = world.memory.config
    about: dict[str, Any] = {
        "format": 1,
        "latent_dim": mem.latent_dim,
        "action_dim": mem.action_dim,
        "hidden_dim": mem.hidden_dim,
        "state_dim": mem.state_dim,
        "reward_input": mem.reward_input,
        "action_repeat": action_repeat,
        "action": None if controller is None else to_json(controller.config.action),
    }
    write_folder(Path(folder), {"agent.json": json_bytes(about), **files})
    return differences


def traced(found: Mapping[str, Graph]) -> tuple[dict[str, bytes], dict[str, float]]:
    """Trace graphs to ONNX files, and compare each with its module in onnxruntime.

    Returns:
        the files, and the largest difference between graph and module, both by name.
    Raises:
        ImportError: onnx, onnxruntime or onnxscript is missing.
        ValueError: a graph differs from its module by more than `TOLERANCE`.
    """
    _need_onnx()
    files, differences = {}, {}
    for name, graph in found.items():
        files[name] = _trace(graph)
        differences[name] = _difference(graph, files[name])
        if not differences[name] <= TOLERANCE:
            raise ValueError(
                f"{name} differs from its model by {differences[name]:.2g}, more than "
                f"{TOLERANCE:.0e}; nothing was written"
            )
    return files, differences


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"to export, {how_to_install(error.name or '')}") from error


def _trace(graph: Graph) -> bytes:
    """Trace a graph to ONNX, for batches of any size."""
    batch = torch.export.Dim("batch", min=1, max=2**16)
    module = graph.module.eval()
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(graph.inputs.values()),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=tuple({0: batch} for _ in graph.inputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto.SerializeToString()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes on packages that are not needed (torchvision, old opsets)."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@torch.no_grad()
def _difference(graph: Graph, data: bytes) -> float:
    """Largest |graph - model| / max(1, |model|) for batches of two, one and five rows."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for rows in ([0, 1], [1], [0, 1, 1, 0, 1]):
        inputs = {name: value[rows] for name, value in graph.inputs.items()}
        expected = graph.module(*inputs.values())
        expected = expected if isinstance(expected, tuple) else (expected,)
        got = session.run(list(graph.outputs), {k: v.numpy() for k, v in inputs.items()})
        for ours, theirs in zip(got, expected, strict=True):
            wanted = theirs.double().numpy()
            scale = np.maximum(np.abs(wanted), 1.0)
            largest = max(largest, float(np.max(np.abs(ours - wanted) / scale)))
    return largest
