"""The PyTorch checkpoints of ctallec/world-models (Tallec, Blier & Kalainathan 2018).

https://github.com/ctallec/world-models writes `vae/best.tar`, `mdrnn/best.tar`, `ctrl/best.tar`:
{"epoch", "state_dict", "precision" or "reward", "optimizer"} saved by `torch.save`, in the format
of 2018 or in today's.

Such files are pickles, which can run anything. Here they are read by PyTorch's restricted
unpickler, which accepts tensors and plain values and calls nothing else.
"""

from __future__ import annotations

import io
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generative.training.archives import open_zip, read_member
from generative.training.files import DamagedFileError, cut, read_file, reading
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

__all__ = ["read_checkpoints", "read_state_dict"]

MAX_BYTES = 256 * 2**20
"""Largest file in bytes; more than ten times the size of any of these files."""

OLD_PICKLES = 5
"""Pickles in a file of the old format: magic number, version, system, content, storage keys."""

NAMES = frozenset({
    "collections.OrderedDict", "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter", "_codecs.encode", "numpy.dtype",
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    *(f"torch.{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int")),
})  # fmt: skip
"""Names of the functions that rebuild tensors and NumPy's numbers."""

# Scores are NumPy numbers in some of these files. They are built from a type and a few bytes.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_SCALARS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
]


@torch.inference_mode(False)
def read_checkpoints(folder: Path | str) -> Imported:
    """Read V, M and C of an experiment folder; C is None without a `ctrl/best.tar`.

    The controller's outputs are not squashed (`ActionHead("raw")`). Its actions and h are those of
    the original program. M's prediction of z has the same density in every dimension, but the
    original draws one mixture component for all dimensions together, and ours one for each.

    Raises:
        FileNotFoundError: V or M is missing.
        DamagedFileError: a file is no checkpoint, is cut, too large or a link.
        ForeignWeightsError: a file holds other weights, or more than data.
    """
    folder = Path(folder)
    files = [find(folder, "V", ("vae/best.tar",)), find(folder, "M", ("mdrnn/best.tar",))]
    vision = read_vae(files[0])
    memory = read_mdrnn(files[1], vision.latent_dim)
    world = WorldModel(vision, memory).eval()
    path = folder / "ctrl" / "best.tar"
    if not path.exists():
        return Imported(world, None, tuple(files))
    return Imported(world, read_controller(path, memory.config), (*files, path))


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors under "state_dict" of a checkpoint, without running its content.

    They have the names of the plain network, also if it was saved within DataParallel or
    compiled.

    Raises:
        DamagedFileError, ForeignWeightsError: as `read_checkpoints`.
    """
    data = read_file(path, MAX_BYTES)
    if data[257:262] == b"ustar":  # the format of 2017, which torch unpacks to the disk
        raise ForeignWeightsError(f"{path}: is a real tar archive; save it again with torch.save")
    size = _check_pickles(data, path)
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes can make the unpickler raise anything
        lines = str(error).strip().splitlines()
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            raise _refused(path, _cause(str(error))) from None
        raise DamagedFileError(
            f"{path}: is not a whole PyTorch checkpoint ({lines[0] if lines else error!r})"
        ) from None
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise ForeignWeightsError(f'{path}: has no "state_dict"; needed is a best.tar')
    # Tensors can share numbers, or repeat one with a stride of 0.
    needed = sum(value.nbytes for value in state.values() if isinstance(value, Tensor))
    if needed > size:
        raise DamagedFileError(f"{path}: its tensors take {needed} bytes, it holds {size}")
    tensors = {_own_name(str(key)): _tensor(path, str(key), value) for key, value in state.items()}
    if len(tensors) < len(state):
        raise ForeignWeightsError(f"{path}: has weights of the same name under several prefixes")
    return tensors


def _own_name(key: str) -> str:
    """Name of a weight without the prefixes of DataParallel and torch.compile."""
    return ".".join(part for part in key.split(".") if part not in ("module", "_orig_mod"))


def _check_pickles(data: bytes, path: Path) -> int:
    """Unpacked size of the file in bytes; refuses names that PyTorch's unpickler would call.

    It trusts, for example, `bytearray` and `torch.Tensor`, with which a few bytes can ask for any
    amount of memory.
    """
    if data[:2] == b"PK":
        with open_zip(io.BytesIO(data), path, MAX_BYTES) as archive:
            size = sum(member.file_size for member in archive.infolist())
            names = [name for name in archive.namelist() if name.lower().endswith(".pkl")]
            pickles = [read_member(archive, name, path) for name in names]
    else:  # several pickles, one after the other, then the numbers
        size, pickles = len(data), [data]
    for content in pickles:
        stream, found = io.BytesIO(content), set()
        for _ in range(1 if data[:2] == b"PK" else OLD_PICKLES):
            with reading(path, "is not a whole PyTorch checkpoint"):
                for opcode, argument, _ in pickletools.genops(stream):
                    if opcode.name == "GLOBAL":
                        found.add(str(argument).replace(" ", "."))
        if strange := sorted(found - NAMES):
            raise _refused(path, f"it names {cut(', '.join(strange), 100)}")
    return size


def _refused(path: Path, cause: str) -> ForeignWeightsError:
    return ForeignWeightsError(
        f"{path}: holds more than tensors and numbers, and was not read; save its state_dict "
        f"alone, in the program that made it ({cause})"
    )


def _cause(message: str) -> str:
    """Line of torch's long message that names the cause."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    found = [line for line in lines if "GLOBAL" in line or "Unsupported" in line]
    return (found or lines or ["refused"])[0][:200]


def _tensor(path: Path, key: str, value: Any) -> Tensor:
    good = isinstance(value, Tensor) and value.layout == torch.strided
    if not good or not value.is_floating_point() or not value.isfinite().all():
        raise ForeignWeightsError(f"{path}: {key} is not a dense tensor of finite numbers")
    return value.double()


class _Weights:
    """Tensors of one file; every one must be taken, with the needed shape."""

    def __init__(self, path: Path):
        self.path, self.state = path, read_state_dict(path)

    def get(self, key: str, ndim: int) -> Tensor:
        """Take a tensor if only its number of axes is known."""
        if key not in self.state:
            raise ForeignWeightsError(
                f"{self.path}: {key} is missing; there are {', '.join(sorted(self.state)[:6])} ..."
            )
        if self.state[key].ndim != ndim:
            raise ForeignWeightsError(
                f"{self.path}: {key} has shape {tuple(self.state[key].shape)}, needed are {ndim} "
                "axes"
            )
        return self.state[key]

    def take(self, key: str, *shape: int) -> Tensor:
        """Take a tensor of this shape."""
        value = self.get(key, len(shape))
        check_shape(self.path, key, value.shape, shape)
        return self.state.pop(key)

    def finish(self) -> None:
        """Raise ForeignWeightsError if a tensor is left."""
        if self.state:
            raise ForeignWeightsError(
                f"{self.path}: has weights that have no place here: {', '.join(sorted(self.state))}"
            )


def read_vae(path: Path) -> ConvVAE:
    """Read V: the paper's network, except for a ReLU behind the decoder's first layer, and log
    standard deviations instead of our log variances."""
    file = _Weights(path)
    convolutions = [file.get(f"encoder.conv{i}.weight", 4) for i in (1, 2, 3, 4)]
    channels = tuple(w.shape[0] for w in convolutions)
    d = file.get("encoder.fc_mu.weight", 2).shape[0]
    config = ConvVAEConfig(d, channels, relu_from_z=True)  # type: ignore[arg-type]
    c1, c2, c3, c4 = channels
    down = ((3, c1), (c1, c2), (c2, c3), (c3, c4))
    up = ((4 * c4, c3, 5), (c3, c2, 5), (c2, c1, 6), (c1, 3, 6))
    weights = {}
    for i, (into, out) in enumerate(down):
        theirs, ours = f"encoder.conv{i + 1}", f"encoder.{2 * i}"
        weights[f"{ours}.weight"] = file.take(f"{theirs}.weight", out, into, 4, 4)
        weights[f"{ours}.bias"] = file.take(f"{theirs}.bias", out)
    for i, (into, out, size) in enumerate(up):
        theirs, ours = f"decoder.deconv{i + 1}", f"decoder.layers.{2 * i + 1}"
        weights[f"{ours}.weight"] = file.take(f"{theirs}.weight", into, out, size, size)
        weights[f"{ours}.bias"] = file.take(f"{theirs}.bias", out)
    for ours, theirs, factor in (
        ("posterior.to_mu", "fc_mu", 1.0),
        ("posterior.to_logvar", "fc_logsigma", 2.0),  # log sigma^2 = 2 log sigma
    ):
        weights[f"{ours}.weight"] = factor * file.take(f"encoder.{theirs}.weight", d, 4 * c4)
        weights[f"{ours}.bias"] = factor * file.take(f"encoder.{theirs}.bias", d)
    weights["decoder.from_z.weight"] = file.take("decoder.fc1.weight", 4 * c4, d)
    weights["decoder.from_z.bias"] = file.take("decoder.fc1.bias", 4 * c4)
    file.finish()
    vision = config.build()
    fill(vision, weights)
    return vision


def read_mdrnn(path: Path, latent_dim: int) -> MDNRNN:
    """Read M: an LSTM on (action, z), and a linear map to mu, log sigma, log pi, reward, end.

    Its mixture weights are shared by all dimensions; here each dimension has a copy.
    """
    file = _Weights(path)
    weight_ih = file.get("rnn.weight_ih_l0", 2)
    hidden, num_inputs = weight_ih.shape[0] // 4, weight_ih.shape[1]
    outputs, d, a = file.get("gmm_linear.weight", 2).shape[0], latent_dim, num_inputs - latent_dim
    mixtures, rest = divmod(outputs - 2, 2 * d + 1)
    if rest or mixtures < 1 or a < 1:
        raise ForeignWeightsError(
            f"{path}: {num_inputs} inputs and {outputs} outputs do not fit a z of {d} dimensions; "
            f"needed are actions + {d} inputs and mixtures x {2 * d + 1} + 2 outputs: take the "
            "mdrnn that was trained with this V"
        )
    weight_ih = file.take("rnn.weight_ih_l0", 4 * hidden, num_inputs)
    weights = lstm_weights(
        torch.cat([weight_ih[:, a:], weight_ih[:, :a]], 1),
        file.take("rnn.weight_hh_l0", 4 * hidden, hidden),
        file.take("rnn.bias_ih_l0", 4 * hidden) + file.take("rnn.bias_hh_l0", 4 * hidden),
    )
    for part, *shape in (("weight", outputs, hidden), ("bias", outputs)):
        rows = file.take(f"gmm_linear.{part}", *shape)
        mu, log_std, log_pi, reward, end = rows.split([mixtures * d, mixtures * d, mixtures, 1, 1])
        mu, log_std = (x.unflatten(0, (mixtures, d)).transpose(0, 1) for x in (mu, log_std))
        shared = log_pi.expand(d, *log_pi.shape)
        mixture = torch.stack([shared, mu, log_std]).flatten(0, 2)
        weights[f"mixture_head.linear.{part}"] = mixture
        weights[f"reward_head.{part}"], weights[f"end_head.{part}"] = reward, end
    file.finish()
    memory = MDNRNN(MDNRNNConfig(d, a, hidden, mixtures, predict_reward=True, predict_end=True))
    fill(memory, weights)
    return memory


def read_controller(path: Path, memory: MDNRNNConfig) -> LinearController:
    """Read C: one linear map from z and h to the action."""
    file = _Weights(path)
    d, hidden, a = memory.latent_dim, memory.hidden_dim, memory.action_dim
    weights = {
        "linear.weight": file.take("fc.weight", a, d + hidden),
        "linear.bias": file.take("fc.bias", a),
    }
    file.finish()
    controller = LinearController(ControllerConfig(d, hidden, a, "zh", ActionHead("raw", num=a)))
    fill(controller, weights)
    return controller
