"""Building networks for their sizes alone, on torch's meta device, which holds no numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["SizesAlone"]


class SizesAlone(TorchFunctionMode):
    """Leaves out first weights, and the power iterations of spectral norms.

    On the meta device they change nothing. Yet torch works out their sizes in Python, for which it
    loads its compiler: seconds for a small model.

        with torch.device("meta"), SizesAlone():
            sizes = {name: x.shape for name, x in config.build().state_dict().items()}
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        if func in (torch.mv, torch.vdot):  # of a spectral norm, as is the next one
            return args[0].new_empty(args[0].shape[:-1])
        if func is F.normalize:
            return torch.empty_like(args[0]) if kwargs.get("out") is None else kwargs["out"]
        return func(*args, **kwargs)
