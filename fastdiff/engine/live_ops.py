"""The operations of a graph whose weights stay where they are: opaque to inductor, in memory like eager torch's.

fastdiff::norm_silu    `graph_ops.norm_silu`; the result has the type and, where x is dense, the strides of x
fastdiff::norm_silu_of_sum  the same of a sum of maps; fastdiff::norm_silu_and_sum returns the sum, too
fastdiff::attention    `fastdiff.ops.attention`, where a network calls it
fastdiff::attention_by attention on the backends that the network's author allowed
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastdiff.ops.feature_maps import dense
from fastdiff.ops.norm_sums import empty_map

from . import graph_ops

_LIBRARY = torch.library.Library("fastdiff", "FRAGMENT")
_FLAGS = (
    SDPBackend.MATH,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
)


def sdpa_choice() -> int:
    """The backends of `scaled_dot_product_attention` that are allowed now, as bits in the order of `_FLAGS`."""
    cuda = torch.backends.cuda
    allowed = (
        *(cuda.math_sdp_enabled(), cuda.flash_sdp_enabled()),
        *(cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()),
    )
    return sum(1 << bit for bit, there in enumerate(allowed) if there)


def _attention_by(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    dropout: float,
    causal: bool,
    scale: float | None,
    grouped: bool,
    choice: int,
) -> Tensor:
    allowed = [backend for bit, backend in enumerate(_FLAGS) if choice >> bit & 1]
    with sdpa_kernel(allowed):
        out = functional.scaled_dot_product_attention(
            q, k, v, mask, dropout, causal, scale=scale, enable_gqa=grouped
        )
    return _laid_out(out, q, v)


def _attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return _laid_out(graph_ops.attention(q, k, v, scale), q, v)


def _laid_out(out: Tensor, q: Tensor, v: Tensor) -> Tensor:
    wanted = heads_inside(q, v)
    return out if out.stride() == wanted.stride() else wanted.copy_(out)


def heads_inside(q: Tensor, v: Tensor) -> Tensor:
    """(..., N, E) with the heads of one row side by side, as most backends leave it."""
    size = [*q.shape[:-1], v.shape[-1]]
    if len(size) < 4:
        return q.new_empty(size)
    return q.new_empty([*size[:-3], size[-2], size[-3], size[-1]]).transpose(-3, -2)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(dense(x))


_LIBRARY.define(
    "norm_silu(Tensor x, int groups, Tensor? weight, Tensor? bias, Tensor? scale, Tensor? shift, float eps, "
    "bool activate) -> Tensor"
)
_LIBRARY.impl("norm_silu", graph_ops.norm_silu, "CompositeExplicitAutograd")
torch.library.register_fake("fastdiff::norm_silu", lambda x, *_: _like(x), lib=_LIBRARY)
_OF_SUM = (
    "(Tensor x, int groups, Tensor? weight, Tensor? bias, Tensor? scale, Tensor? shift, float eps, bool activate, "
    "Tensor? add, Tensor? residual, Tensor? residual_add, Tensor? x2, bool after, bool last) -> "
)


def _fake_of_sum(x: Tensor, *rest: Any) -> Tensor:
    return empty_map(dense(x), rest[10], rest[12])


def _fake_and_sum(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _fake_of_sum(x, *rest), empty_map(dense(x), rest[10], False)


def _and_sum(x: Tensor, groups: int, *rest: Any) -> tuple[Tensor, Tensor]:
    whole: Any = graph_ops.norm_silu_of_sum
    both: tuple[Tensor, Tensor] = whole(x, groups, *rest, with_sum=True)
    return both


_LIBRARY.define(f"norm_silu_of_sum{_OF_SUM}Tensor")
_LIBRARY.impl("norm_silu_of_sum", graph_ops.norm_silu_of_sum, "CompositeExplicitAutograd")
torch.library.register_fake("fastdiff::norm_silu_of_sum", _fake_of_sum, lib=_LIBRARY)
_LIBRARY.define(f"norm_silu_and_sum{_OF_SUM}(Tensor, Tensor)")
_LIBRARY.impl("norm_silu_and_sum", _and_sum, "CompositeExplicitAutograd")
torch.library.register_fake("fastdiff::norm_silu_and_sum", _fake_and_sum, lib=_LIBRARY)
_LIBRARY.define("attention(Tensor q, Tensor k, Tensor v, float scale) -> Tensor")
_LIBRARY.impl("attention", _attention, "CompositeExplicitAutograd")
torch.library.register_fake("fastdiff::attention", lambda q, k, v, scale: heads_inside(q, v), lib=_LIBRARY)
_LIBRARY.define(
    "attention_by(Tensor q, Tensor k, Tensor v, Tensor? mask, float dropout, bool causal, float? scale, "
    "bool grouped, int choice) -> Tensor"
)
_LIBRARY.impl("attention_by", _attention_by, "CompositeExplicitAutograd")
torch.library.register_fake("fastdiff::attention_by", lambda q, k, v, *_: heads_inside(q, v), lib=_LIBRARY)
norm_silu = torch.ops.fastdiff.norm_silu.default
norm_silu_of_sum = torch.ops.fastdiff.norm_silu_of_sum.default
norm_silu_and_sum = torch.ops.fastdiff.norm_silu_and_sum.default
attention = torch.ops.fastdiff.attention.default
attention_by = torch.ops.fastdiff.attention_by.default
