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
from collections.abc import Iterator
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
from worldmodels.controller import LinearController
from worldmodels.memory import Memory
from worldmodels.vision import VectorVision, Vision, encode_mu_logvar
from worldmodels.world_model import WorldModel

__all__ = ["TOLERANCE", "Graph", "export_onnx", "graphs"]

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
    _need_onnx()
    world = world.eval()
    mem = world.memory.config
    files, differences = {}, {}
    for name, graph in graphs(world, controller).items():
        data = _trace(graph)
        differences[name] = _difference(graph, data)
        if not differences[name] <= TOLERANCE:
            raise ValueError(
                f"{name} differs from its model by {differences[name]:.2g}, more than "
                f"{TOLERANCE:.0e}; nothing was written to {folder}"
            )
        files[name] = data
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
            scale = theirs.abs().clamp_min(1.0).numpy()
            largest = max(largest, float(np.max(np.abs(ours - theirs.numpy()) / scale)))
    return largest
