"""Choice of bfloat16 for matrix products: by the user, or by the processor.

On a processor with instructions for bfloat16, products in it are about twice as fast as in float32.
Elsewhere they are emulated, which takes many times as long: a dream about 40 times.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from generative.training.files import read_json, write_json
from generative.training.settings import from_json, to_json

if TYPE_CHECKING:
    import torch

    from generative.training.run import Run

__all__ = ["BF16", "bf16_of_run", "default_bf16", "uses_bf16"]

BF16 = Literal["auto", True, False]
"""Values of the setting: `auto` takes bfloat16 if the device has instructions for it."""

RECORD_NAME = "precision.json"
"""File in a run's folder that records the result of `auto`."""

NARROW_ISA = frozenset(
    {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}
)
"""Limits of oneDNN's instruction set that exclude the products of bfloat16:
https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html"""


@dataclass(frozen=True)
class _Record:
    bf16: bool


def default_bf16(device: torch.device | str = "cpu") -> bool:
    """True if this device multiplies bfloat16 matrices by its own instructions.

    A CPU needs the instructions, and no variable may forbid them: ONEDNN_MAX_CPU_ISA
    (DNNL_MAX_CPU_ISA) for the products, ATEN_CPU_CAPABILITY for the conversions. False if torch
    cannot tell (before 2.13).
    """
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    limits = {os.environ.get(f"{name}_MAX_CPU_ISA", "").upper() for name in ("ONEDNN", "DNNL")}
    if limits & NARROW_ISA or os.environ.get("ATEN_CPU_CAPABILITY") in ("default", "avx2"):
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def uses_bf16(asked: BF16, device: torch.device | str) -> bool:
    """True if a setting means bfloat16 on a device."""
    return default_bf16(device) if asked == "auto" else asked


def bf16_of_run(asked: BF16, run: Run, device: torch.device | str | None = None) -> bool:
    """True if a setting means bfloat16 in a run.

    Prints the choice of `auto` and records it in the run's folder: a run that is continued on
    another processor keeps it, since its result depends on it.

    Args:
        device: device of the products; by default the run's own.
    """
    if asked != "auto":
        return asked
    file = run.path / RECORD_NAME
    if not file.exists():
        chosen = default_bf16(device or run.device)
        where = "CPU" if str(device or run.device) == "cpu" else "GPU"
        words = "yes, this {} has" if chosen else "no, this {} has no"
        print(f"bfloat16: {words.format(where)} instructions for it", flush=True)
        write_json(file, to_json(_Record(chosen)))
    return from_json(_Record, read_json(file), str(file)).bf16
