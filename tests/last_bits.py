"""A plugin that moves last bits as another processor would: `pytest -p tests.last_bits`.

Kernels sum in an order that depends on the instruction set and on the size of the batch. Here every
product of matrices and every convolution in float32 is multiplied by 1, 1 + 2**-23 or 1 - 2**-23;
the shapes that go into it decide by which. The same computation still gives the same bits, a batch
of another size does not. A test that fails under it compares floats too strictly, or compares with
what another process computed, which knows nothing of this (the Makefile leaves that one out).
"""

import zlib

import pytest
import torch
from torch.overrides import TorchFunctionMode

PRODUCTS = frozenset({
    "linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "einsum",
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "lstm", "gru", "lstm_cell", "gru_cell", "scaled_dot_product_attention",
})  # fmt: skip


class LastBits(TorchFunctionMode):
    """Active from the beginning of a test, its fixtures included, to its end."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") not in PRODUCTS:
            return result
        shapes = [tuple(part.shape) for part in args if isinstance(part, torch.Tensor)]
        factor = 1 + (zlib.crc32(repr(shapes).encode()) % 3 - 1) * 2.0**-23
        in_place = bool(kwargs and "out" in kwargs)
        parts = result if isinstance(result, tuple) else (result,)
        moved = [
            part
            if not isinstance(part, torch.Tensor) or part.dtype != torch.float32
            else (part.mul_(factor) if in_place else part * factor)
            for part in parts
        ]
        return tuple(moved) if isinstance(result, tuple) else moved[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Every test under it."""
    with LastBits():
        return (yield)
