"""The JSON weights of the original World Models program (Ha & Schmidhuber 2018).

https://github.com/hardmaru/WorldModelsExperiments keeps TensorFlow's variables in the order of
their creation, every number times 10,000 and rounded; only controllers are plain floats.

| file | arrays |
|---|---|
| vae.json | kernel and bias of 4 convolutions, mu, log variance, dec_fc, 4 transposed ones |
| rnn.json, cars | output_w (H, 3KD), output_b, the cell's kernel (D + A + H, 4H), bias |
| rnn.json, Doom | kernel (D + A + 1 + H, 4H), bias, output_w (H, 1 + 3KD), output_b |
| *.best.json, cars | [[3 biases, then (D + H, 3) row by row], score] |
| *.best.json, Doom | [[(D + 2H, 1): z, c, h; no bias], score] |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generative.training.files import MAX_LIST_BYTES, read_json
from generative.vae import ConvVAE, ConvVAEConfig
from worldmodels.configs import ActionHead, ControllerConfig, MDNRNNConfig
from worldmodels.controller import LinearController
from worldmodels.importers.source import (
    ForeignWeightsError,
    Imported,
    check_shape,
    fill,
    find,
    lstm_weights,
)
from worldmodels.memory import MDNRNN
from worldmodels.world_model import WorldModel

__all__ = ["read_controller", "read_json_weights", "read_rnn", "read_vae"]

SCALE = 10_000.0
"""Numbers in vae.json and rnn.json are weights times this."""

VAE_FILES = ("vae.json", "vae/vae.json", "tf_models/vae.json")
RNN_FILES = ("rnn.json", "rnn/rnn.json", "tf_models/rnn.json")
CONTROLLER_FILES = (
    "controller.json",
    "log/carracing.cma.16.64.best.json",
    "log/doomrnn.cma.16.64.best.json",
)
"""File names to look for: plain names, then those of the original repository."""

ENCODER = ("enc_conv1", "enc_conv2", "enc_conv3", "enc_conv4")
DECODER = ("dec_deconv1", "dec_deconv2", "dec_deconv3", "dec_deconv4")
VAE_LAYERS = (*ENCODER, "enc_fc_mu", "enc_fc_log_var", "dec_fc", *DECODER)

FORGET_BIAS = 1.0
"""Constant that TensorFlow's cell adds to the forget gate when it runs."""

SATURATED = 50.0
"""Input at which a sigmoid or tanh is 1 in single precision (at minus this, 0 or -1)."""


@torch.inference_mode(False)
def read_json_weights(
    folder: Path | str,
    vae: Path | None = None,
    rnn: Path | None = None,
    controller: Path | None = None,
) -> Imported:
    """Read V, M and C of a folder of the original program, `carracing` or `doomrnn`.

    Doom's M has one LSTM unit more than the original: see `read_rnn`.

    Args:
        vae, rnn, controller: files to read instead of those of the folder.
    Raises:
        FileNotFoundError: there is no V or no M.
        DamagedFileError: a file is not JSON, too large, or a link.
        ForeignWeightsError: a file holds other weights; names the array and what is needed.
    """
    folder = Path(folder)
    vae = vae or find(folder, "vae.json", VAE_FILES)
    rnn = rnn or find(folder, "rnn.json", RNN_FILES)
    vision = read_vae(vae)
    memory = read_rnn(rnn, vision.latent_dim)
    world = WorldModel(vision, memory).eval()
    if controller is None:
        try:
            controller = find(folder, "controller", CONTROLLER_FILES)
        except FileNotFoundError:
            return Imported(world, None, (vae, rnn))
    return Imported(world, read_controller(controller, memory.config), (vae, rnn, controller))


def read_vae(path: Path) -> ConvVAE:
    """Read V from vae.json."""
    names = [f"{layer}/{part}" for layer in VAE_LAYERS for part in ("kernel", "bias")]
    arrays = _arrays(path, names)
    channels = tuple(arrays[f"{layer}/kernel"].shape[-1] for layer in ENCODER)
    config = ConvVAEConfig(arrays["enc_fc_mu/kernel"].shape[-1], channels)  # type: ignore[arg-type]
    c1, c2, c3, c4 = channels
    d, code = config.latent_dim, 4 * c4
    kernels = [
        *((4, 4, a, b) for a, b in ((3, c1), (c1, c2), (c2, c3), (c3, c4))),
        *((code, d), (code, d), (d, code)),
        *((5, 5, c3, code), (5, 5, c2, c3), (6, 6, c1, c2), (6, 6, 3, c1)),
    ]
    biases = [*channels, d, d, code, c3, c2, c1, 3]
    for layer, kernel, bias in zip(VAE_LAYERS, kernels, biases, strict=True):
        check_shape(path, f"{layer}/kernel", arrays[f"{layer}/kernel"].shape, kernel)
        check_shape(path, f"{layer}/bias", arrays[f"{layer}/bias"].shape, (bias,))

    weights = {}

    def put(ours: str, layer: str, kernel: Tensor) -> None:
        weights[f"{ours}.weight"], weights[f"{ours}.bias"] = kernel, arrays[f"{layer}/bias"]

    # Height, width, in, out of a convolution, and height, width, out, in of a transposed one: both
    # are torch's axes in reverse order.
    for i, layer in enumerate(ENCODER):
        put(f"encoder.{2 * i}", layer, arrays[f"{layer}/kernel"].permute(3, 2, 0, 1))
    for i, layer in enumerate(DECODER):
        put(f"decoder.layers.{2 * i + 1}", layer, arrays[f"{layer}/kernel"].permute(3, 2, 0, 1))
    for ours, layer in (("to_mu", "enc_fc_mu"), ("to_logvar", "enc_fc_log_var")):
        # TensorFlow flattens (2, 2, channels), torch (channels, 2, 2).
        kernel = arrays[f"{layer}/kernel"].unflatten(0, (2, 2, c4)).permute(3, 2, 0, 1)
        put(f"posterior.{ours}", layer, kernel.flatten(1))
    put("decoder.from_z", "dec_fc", arrays["dec_fc/kernel"].t())
    vision = config.build()
    fill(vision, weights)
    return vision


def read_rnn(path: Path, latent_dim: int) -> MDNRNN:
    """Read M from rnn.json; the shapes show whether it has Doom's restart flag.

    Doom's cell has an input that is 1 at the first decision of an episode. Ours has no such input,
    but its state is zero there: one more unit, whose h is 0 before the first decision and tanh(1)
    afterwards, gives the flag as 1 - h / tanh(1). Heads and controller do not see it. Doom's
    rewards, 1 for every decision, become a reward head without weights.
    """
    output_w, output_b, kernel, bias = _rnn_arrays(path)
    hidden, num_outputs = output_w.shape
    num_inputs = kernel.shape[0] - hidden
    restart = num_outputs % (3 * latent_dim) == 1
    mixtures, rest = divmod(num_outputs - restart, 3 * latent_dim)
    action_dim = num_inputs - latent_dim - restart
    if rest or mixtures < 1 or action_dim < 1:
        raise ForeignWeightsError(
            f"{path}: {num_inputs} inputs and {num_outputs} outputs do not fit a z of {latent_dim} "
            f"dimensions; needed are {latent_dim} + actions inputs and 3 x mixtures x {latent_dim} "
            "outputs, or one more of each (Doom): take the rnn.json that was trained with this V"
        )
    check_shape(path, "output_b", output_b.shape, (num_outputs,))
    check_shape(path, "kernel", kernel.shape, (num_inputs + hidden, 4 * hidden))
    check_shape(path, "bias", bias.shape, (4 * hidden,))

    # Gates i, j, f, o; torch has i, f, g = j, o.
    i, j, f, o = kernel.t().chunk(4)
    cell = torch.cat([i, f, j, o])
    i, j, f, o = bias.chunk(4)
    gate_bias = torch.cat([i, f + FORGET_BIAS, j, o])
    weight_ih, weight_hh = cell[:, :num_inputs], cell[:, num_inputs:]
    if restart:
        weight_ih, weight_hh, gate_bias = _without_flag(weight_ih, weight_hh, gate_bias)
        output_w = torch.cat([output_w, torch.zeros(1, num_outputs)])
    config = MDNRNNConfig(
        latent_dim,
        action_dim,
        hidden + restart,
        mixtures,
        predict_reward=restart,
        predict_end=restart,
    )
    weights = lstm_weights(weight_ih, weight_hh, gate_bias)
    if restart:
        weights["end_head.weight"], weights["end_head.bias"] = output_w[:, :1].t(), output_b[:1]
        output_w, output_b = output_w[:, 1:], output_b[1:]
        weights["reward_head.weight"] = torch.zeros(1, hidden + 1)
        weights["reward_head.bias"] = torch.ones(1)
    # Per dimension log weights, means, log deviations; ours has these outside, dimensions inside.
    order = (latent_dim, 3, mixtures)
    mixture_w = output_w.t().unflatten(0, order).transpose(0, 1).flatten(0, 2)
    weights["mixture_head.linear.weight"] = mixture_w
    weights["mixture_head.linear.bias"] = output_b.unflatten(0, order).transpose(0, 1).flatten()
    memory = MDNRNN(config)
    fill(memory, weights)
    return memory


def _rnn_arrays(path: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read output_w, output_b, kernel, bias; cars have this order, Doom has the cell first."""
    first = _arrays(path, ["array 0", "array 1", "array 2", "array 3"])
    a, a_bias, b, b_bias = first.values()
    if a.ndim == b.ndim == 2:
        if b.shape[1] == 4 * a.shape[0]:
            return a, a_bias, b, b_bias
        if a.shape[1] == 4 * b.shape[0]:
            return b, b_bias, a, a_bias
    raise ForeignWeightsError(
        f"{path}: arrays 0 and 2 have shapes {tuple(a.shape)} and {tuple(b.shape)}; needed are "
        "output_w (H, outputs) and the cell's kernel (inputs + H, 4H), in either order (a cell "
        "with layer normalisation has more arrays, and cannot be read)"
    )


def _without_flag(
    weight_ih: Tensor, weight_hh: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Replace the last input of a cell by one more unit; gates i, f, g, o."""
    flag, hidden = weight_ih[:, -1], weight_hh.shape[1]
    weight_ih = weight_ih[:, :-1]
    weight_hh = torch.cat([weight_hh, -flag[:, None] / np.tanh(1.0)], 1)
    # The new unit forgets everything, and its c is 1 after every decision.
    gates = []
    for rows, fixed in zip((weight_ih, weight_hh, bias + flag), (0.0, 0.0, SATURATED), strict=True):
        parts = []
        for gate, part in enumerate(rows.unflatten(0, (4, hidden)).unbind()):
            value = -fixed if gate == 1 else fixed
            parts.append(torch.cat([part, part.new_full((1, *part.shape[1:]), value)]))
        gates.append(torch.cat(parts))
    return gates[0], gates[1], gates[2]


def read_controller(path: Path, memory: MDNRNNConfig) -> LinearController:
    """Read C from the `best.json` of an evolution, for an M of `read_rnn`.

    Raises:
        ForeignWeightsError: the number of parameters differs, for example by a hidden layer.
    """
    content = read_json(path, MAX_LIST_BYTES)
    numbers = content[0] if isinstance(content, list) and content[:1] != [] else content
    numbers = content if not isinstance(numbers, list) else numbers
    vector = _numbers(path, "the controller", numbers)
    doom, d, a = memory.predict_end, memory.latent_dim, memory.action_dim
    hidden = memory.hidden_dim - doom
    if a not in (1, 3):
        raise ForeignWeightsError(
            f"{path}: M takes {a} actions; controllers of the original program have 3 (cars) or 1 "
            "(Doom)"
        )
    sizes = {
        a * (d + n * hidden + (not doom)): features for n, features in enumerate(("z", "zh", "zhc"))
    }
    if vector.shape not in [(size,) for size in sizes]:
        choices = " or ".join(f"{size} ({features})" for size, features in sizes.items())
        raise ForeignWeightsError(
            f"{path}: the controller has shape {tuple(vector.shape)}, needed is one list of "
            f"{choices} numbers for z of {d} and an LSTM of {hidden}; one with a hidden layer is "
            "no linear controller"
        )
    features = sizes[len(vector)]
    bias = torch.zeros(a) if doom else vector[:a]
    weight = (vector if doom else vector[a:]).unflatten(0, (-1, a)).t()
    if features == "zhc":  # the original has z, c, h
        z, c, h = weight.split([d, hidden, hidden], 1)
        weight = torch.cat([z, h, c], 1)
    if doom:  # the unit that stands for the flag
        z, *states = weight.split([d, *[hidden] * (len(features) - 1)], 1)
        weight = torch.cat([z, *(torch.nn.functional.pad(s, (0, 1)) for s in states)], 1)
    action = ActionHead() if a == 3 else ActionHead("box", low=(-1.0,), high=(1.0,))
    controller = LinearController(
        ControllerConfig(d, memory.hidden_dim, a, features, action)  # type: ignore[arg-type]
    )
    fill(controller, {"linear.weight": weight, "linear.bias": bias})
    return controller


def _arrays(path: Path, names: list[str]) -> dict[str, Tensor]:
    """Read the arrays of a file by name, as weights."""
    content = read_json(path, MAX_LIST_BYTES)
    if not isinstance(content, list) or len(content) != len(names):
        got = f"{len(content)} arrays" if isinstance(content, list) else "no list"
        raise ForeignWeightsError(
            f"{path}: holds {got}, needed are {len(names)}: {', '.join(names[:3])} ... {names[-1]}"
        )
    return {
        name: _numbers(path, name, item) / SCALE for name, item in zip(names, content, strict=True)
    }


def _numbers(path: Path, name: str, item: Any) -> Tensor:
    """Convert a nested list to a float64 tensor."""
    try:
        array = np.array(item)
    except (ValueError, OverflowError):
        array = np.array(None)
    if array.dtype.kind not in "iuf" or not array.size or not np.isfinite(array).all():
        raise ForeignWeightsError(f"{path}: {name} is not an array of finite numbers")
    return torch.from_numpy(array.astype(np.float64))
