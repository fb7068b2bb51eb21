"""Counts launches: every operation on a CUDA tensor is one kernel, but for the few listed here; views are none.

Eager torch is counted as kindly as its code allows: a convolution or product is one kernel, whatever its library
launches besides; `scaled_dot_product_attention` is one on every backend.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastdiff.engine import live_ops

_SDPA = (functional.scaled_dot_product_attention, torch.ops.aten.scaled_dot_product_attention.default)
#: Operations that copy a value to the host and wait for it.
HOST_READS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2")
#: Reads of a few rows of a table, not of all of it.
_ROWS = ("embedding", "index_select", "gather")


def tensors(*values: Any) -> Iterator[Tensor]:
    """The tensors among some values."""
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def touched(tensor: Tensor) -> int:
    """Bytes that hold the values of a tensor; what is expanded counts once."""
    sizes = (n for n, stride in zip(tensor.shape, tensor.stride()) if stride or n == 0)
    return math.prod(sizes) * tensor.element_size()


def _is_view(func: Any, result: Any, args: Any) -> bool:
    if getattr(func, "_schema", None) is not None and func._schema.is_mutable:
        return False
    memory = {t.untyped_storage()._cdata for t in tensors(args)}
    outs = list(tensors(result))
    return bool(outs) and all(t.untyped_storage()._cdata in memory for t in outs)


def launches(name: str, args: Any, result: Any) -> tuple[int, int]:
    """(kernels, bytes) of one operation."""
    read = sum(touched(t) for t in {id(t): t for t in tensors(args)}.values())
    written = sum(touched(t) for t in tensors(result))
    if name in _ROWS:
        return 1, 2 * written
    if name == "convolution":  # cuDNN, then the bias is added in place
        return (2, read + 3 * written) if args[2] is not None else (1, read + written)
    if name == "native_group_norm":  # moments, factors, apply; channels last is made contiguous first
        x = args[0]
        copies = 0 if x.is_contiguous() else 1
        return 3 + copies, read + written + (1 + 2 * copies) * touched(x)
    if name.startswith("norm_silu"):
        s = next(tensors(result))  # the map that is normalised has its shape
        sums = name != "norm_silu"
        kernels = 1 if _is_slab(args[0], s, args[1], sums) else 2
        hidden = (
            0  # a sum that a second launch reads, and that the first had to write where nobody asked for it
        )
        if kernels == 2:
            several = sums and (args[11] is not None or (args[9] is not None and not args[12]))
            hidden = touched(s) * (2 if several and name == "norm_silu_of_sum" else 1)
        return kernels, read + written + hidden
    return 1, read + written


def _is_slab(x: Tensor, s: Tensor, groups: int, sums: bool) -> bool:
    from fastdiff.kernels.group_norm_silu import plan_for
    from fastdiff.kernels.maps import layout_of

    layout = layout_of(x).of_channels(s.shape[1])
    return not groups or plan_for(layout, groups, x.element_size(), sums).slab


class Launches(TorchDispatchMode):
    """Counts what is launched inside its block.

    Attributes:
        by_name: kernels by operation.
        bytes: that they read and write, each operand once for each kernel that takes it.
        host_reads: values that the host waits for.
    """

    def __init__(self, device: str = "cuda") -> None:
        super().__init__()
        self.device = device
        self.by_name: Counter[str] = Counter()
        self.bytes = self.host_reads = 0
        self._attention = _OneAttention(self)

    @property
    def total(self) -> int:
        """All kernels."""
        return sum(self.by_name.values())

    def __enter__(self) -> Launches:
        super().__enter__()
        self._attention.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._attention.__exit__(*error)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.note(func, (*args, *(kwargs or {}).values()), result)
        return result

    def note(self, func: Any, args: Any, result: Any) -> None:
        """Count one operation."""
        name = func.overloadpacket.__name__
        if name in HOST_READS:
            self.host_reads += 1
            return
        outs = list(tensors(result)) or list(tensors(args))
        if not any(t.device.type == self.device and t.numel() for t in outs):
            return
        if (
            name.startswith(("empty", "new_empty", "lift_fresh"))
            or func.namespace == "prim"
            or _is_view(func, result, args)
        ):
            return
        kernels, moved = launches(name, args, result)
        self.by_name[name] += kernels
        self.bytes += moved

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One kernel that keeps no scores."""
        out = live_ops.heads_inside(q, v)
        self.by_name["scaled_dot_product_attention"] += 1
        self.bytes += sum(map(touched, (q, k, v, out)))
        return out


class _OneAttention(TorchFunctionMode):
    """Torch without CUDA would take attention apart."""

    def __init__(self, counted: Launches) -> None:
        super().__init__()
        self.counted = counted

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _SDPA:
            return func(*args, **(kwargs or {}))
        named = dict(zip(("query", "key", "value"), args)) | (kwargs or {})
        return self.counted.attention(named["query"], named["key"], named["value"])
