"""The dream of an agent as one HTML file, which runs in a browser alone.

    build_page(agent, starts, "runs/page", "runs/data/onnxruntime-web")

V's decoder, C, and the dreamed step (`worldmodels.dreaming.step`, with M in it) are ONNX graphs.
ONNX Runtime runs them in the browser, compiled to WebAssembly. The page draws the noise, reads keys
and shows the picture (`alone.html`). A page that is opened as a file may fetch nothing, so all of
this lies in index.html, packed by gzip and base64; a web server has nothing to do but send it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.play.session import BRAKE, GAS, STRAIGHTEN, TURN
from agents.video import GAME_FPS, dream_temperature
from agents.world_model_agent import WorldModelAgent
from generative.training.files import (
    DamagedFileError,
    read_file,
    refuse_strangers,
    write_file,
    write_folder,
)
from worldmodels.configs import DreamConfig
from worldmodels.dreaming.starts import DreamStarts
from worldmodels.export import dream_graph, graphs, traced
from worldmodels.vision import VectorVision

__all__ = ["LOST_SECONDS", "PACKAGE", "RUNTIME", "build_page", "runtime_files"]

PACKAGE = "onnxruntime-web@1.30.0"
"""Package of npm that holds the runtime, with its version."""

RUNTIME = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}
"""SHA-256 of the two files of it that the page needs, by name."""

MAX_RUNTIME_BYTES = 64 * 2**20

LOST_SECONDS = 1.5
"""Seconds over which a dream has to bring points together, or the page calls it lost."""

_ROW = ("z", "h", "c", "prev_reward")


def runtime_files(folder: Path | str) -> dict[str, bytes]:
    """The files of `RUNTIME`, from a folder; npm fetches them into it if it has none of them.

    Args:
        folder: where the files lie, or a node_modules/onnxruntime-web with them in dist.
    Raises:
        FileNotFoundError: the files are missing and there is no npm.
        ConnectionError: npm cannot fetch them.
        DamagedFileError: a file is not the one of this version; names it.
    """
    folder = Path(folder)
    if (folder / "dist").is_dir():
        folder = folder / "dist"
    if not any((folder / name).exists() for name in RUNTIME):
        _fetch(folder)
    files = {name: read_file(folder / name, MAX_RUNTIME_BYTES, links=True) for name in RUNTIME}
    for name, data in files.items():
        _check(str(folder / name), name, data)
    return files


def _fetch(folder: Path) -> None:
    """Have npm fetch the package, and put the two files into folder: both or none."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(
            f"{folder} has no {' and no '.join(RUNTIME)}, and there is no npm to fetch them; get "
            f"the package {PACKAGE} on a machine that has it, and name its folder by --runtime"
        )
    with tempfile.TemporaryDirectory() as place:
        words = [npm, "pack", PACKAGE, "--pack-destination", place, "--fetch-retries", "1"]
        done = subprocess.run(words, cwd=place, capture_output=True, text=True)
        archives = list(Path(place).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            raise ConnectionError(
                f"npm could not fetch {PACKAGE}; get it on another machine, and name its folder by "
                f"--runtime. npm says: {done.stderr.strip()[-500:]}"
            )
        found = {}
        with tarfile.open(archives[0]) as archive:
            for name in RUNTIME:
                member = archive.extractfile(f"package/dist/{name}")
                found[name] = b"" if member is None else member.read(MAX_RUNTIME_BYTES)
                _check(f"{PACKAGE}: {name}", name, found[name])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in found.items():
        write_file(folder / name, data)


def _check(where: str, name: str, data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if digest != RUNTIME[name]:
        raise DamagedFileError(
            f"{where}: its SHA-256 is {digest}, that of {PACKAGE} is {RUNTIME[name]}; delete it, "
            "or name another folder by --runtime"
        )


def build_page(
    agent: WorldModelAgent,
    starts: DreamStarts,
    folder: Path | str,
    runtime: Path | str,
    *,
    temperature: float | None = None,
    num_starts: int = 64,
    horizon: int = 1000,
    fps: float = GAME_FPS,
) -> Path:
    """Write folder/index.html.

    Args:
        agent: V decodes, M dreams, and C drives when asked to. The dream is the one that trained
            it where that is known, except for its horizon.
        starts: moments at which dreams begin. The page gets `num_starts` of those that a reward
            led to, where the car is on its road; of all, if there are none.
        folder: new, or written by this function earlier.
        runtime: see `runtime_files`.
        temperature: with which the page begins; see `agents.video.dream_temperature`.
        horizon: decisions after which a dream is over.
        fps: frames of the game in a second; an action is held for `action_repeat` of them.
    Raises:
        ImportError: onnx, onnxruntime or onnxscript is missing.
        ValueError: V is of vectors, and has no picture to show; the starts do not fit M; or see
            `runtime_files`.
    """
    world, mem = agent.world.eval(), agent.world.memory.config
    if isinstance(world.vision, VectorVision):
        raise ValueError(
            "this agent's V is of vectors, and its dream has no picture; give an agent that sees "
            "frames"
        )
    starts.check_fits(mem)
    folder = Path(folder)
    refuse_strangers(folder, {"index.html": b""})
    files = runtime_files(runtime)
    config = replace(agent.dream or DreamConfig(dropout=False), horizon=horizon)
    named = graphs(world, agent.controller)
    wanted = {name: named[name] for name in ("decoder.onnx", "controller.onnx")}
    wanted["dream.onnx"] = dream_graph(world.memory, config)
    models, _ = traced(wanted)
    paid = (starts.prev_reward > 0).nonzero()[:, 0].numpy()
    order = np.random.default_rng(0).permutation(paid if len(paid) else len(starts))
    rows = starts.take(order[:num_starts])
    columns = [getattr(rows, name).reshape(len(rows), -1) for name in _ROW]
    game = {
        "seconds": agent.config.action_repeat / fps,
        "horizon": horizon,
        "temperature": dream_temperature(agent, temperature),
        "dropout": mem.dropout if config.dropout else 0.0,
        "keyboard": _keyboard(agent),
        "lost_seconds": LOST_SECONDS,
        "actions": mem.action_dim,
        "mixtures": mem.num_mixtures,
        "start": {name: column.shape[1] for name, column in zip(_ROW, columns, strict=True)},
    }
    packed = {
        "runtime": files["ort.wasm.bundle.min.mjs"],
        "wasm": files["ort-wasm-simd-threaded.wasm"],
        "starts": torch.cat(columns, 1).numpy().astype("<f4").tobytes(),
        **{name.removesuffix(".onnx"): data for name, data in models.items()},
    }
    page = resources.files("agents.play").joinpath("alone.html").read_text("utf-8")
    parts = [_as_json(game), *(_as_script(name, data) for name, data in packed.items())]
    page = page.replace("<!-- data -->", "\n".join(parts))
    write_folder(folder, {"index.html": page.encode()})
    return folder / "index.html"


def _keyboard(agent: WorldModelAgent) -> dict[str, Any] | None:
    """The way in which arrow keys make an action; None if only the agent can drive."""
    head = agent.controller.config.action
    if head.kind == "car_racing":
        return {"gas": GAS, "brake": BRAKE, "turn": TURN, "straighten": STRAIGHTEN}
    one_way = head.kind == "box" and head.size == 1
    return {"turn": 1.0, "straighten": 2.0} if one_way else None


def _as_json(game: dict[str, Any]) -> str:
    text = json.dumps(game, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="game">{text}</script>'


def _as_script(name: str, data: bytes) -> str:
    text = base64.b64encode(gzip.compress(data, mtime=0)).decode()
    return f'<script type="application/octet-stream" id="packed-{name}">{text}</script>'
