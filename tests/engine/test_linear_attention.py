"""Linear attention in the spellings of networks becomes one operation, and nothing else does."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from fastdiff.engine import graph_ops
from fastdiff.engine.fuse_linear_attention import fuse_linear_attention
from fastdiff.engine.normalise import normalise

pytestmark = pytest.mark.skipif(not graph_ops.ATTENDS_LINEARLY, reason="the C++ backend is not built")
B, H, D, E, N, L = 2, 3, 8, 6, 70, 4
CHANNELS_FIRST = ((B, H, D, N), (B, H, D, N), (B, H, E, N), (B, H, D, L), (B, H, E, L))
ROWS_FIRST = ((B, H, N, D), (B, H, N, D), (B, H, N, E), (B, H, L, D), (B, H, L, E))


def lucidrains(q, k, v, mk, mv):
    k, v = torch.cat((mk, k), dim=-1), torch.cat((mv, v), dim=-1)
    q, k = q.softmax(dim=-2) * D**-0.5, k.softmax(dim=-1)
    context = torch.einsum("b h d n, b h e n -> b h d e", k, v)
    return torch.einsum("b h d e, b h d n -> b h e n", context, q)


def products(q, k, v, mk, mv):
    context = k.softmax(-2).transpose(-1, -2) @ (v / 2)
    return q.softmax(-1) @ context


def values_first(q, k, v, mk, mv):
    context = torch.einsum("bhen,bhdn->bhed", v, k.softmax(-1))
    return torch.einsum("bhdm,bhed->bhme", q.softmax(2), context)


def keys_over_width(q, k, v, mk, mv):
    context = torch.einsum("bhdn,bhen->bhde", k.softmax(-2), v)
    return torch.einsum("bhde,bhdn->bhen", context, q.softmax(-2))


def other_memory(q, k, v, mk, mv):
    """More rows for the keys than for the values on the left: they are joined as they were."""
    k, v = torch.cat((mk, k), dim=-1), torch.cat((mv[..., :2], mv[..., 2:], v), dim=-1)
    return torch.einsum("bhde,bhdn->bhen", torch.einsum("bhdn,bhen->bhde", k.softmax(-1), v), q.softmax(-2))


@pytest.mark.parametrize(
    ("attend", "sizes", "fuses"),
    [
        (lucidrains, CHANNELS_FIRST, True),
        (products, ROWS_FIRST, False),  # matrices that are turned around by a view are left alone
        (values_first, CHANNELS_FIRST, True),
        (keys_over_width, CHANNELS_FIRST, False),
        (other_memory, CHANNELS_FIRST, True),
    ],
)
def test_spellings(attend, sizes, fuses):
    inputs = [3 * torch.randn(size) for size in sizes]
    traced = make_fx(attend, pre_dispatch=True)(*inputs)
    normalise(traced.graph)
    fuse_linear_attention(traced.graph)
    traced.recompile()
    assert ("linear_attention" in traced.code) == fuses
    assert ("cat" in traced.code) == (attend is other_memory)
    exact = attend(*(x.double() for x in inputs))
    error = (traced(*inputs) - exact).abs().max()
    assert error <= 2 * (attend(*inputs) - exact).abs().max() + 1e-6


def test_memory_of_a_wrong_shape_is_refused():
    q, k, v = torch.randn(1, 1, 4, 2), torch.randn(1, 1, 4, 2), torch.randn(1, 1, 4, 2)
    with pytest.raises(RuntimeError, match="memory must have the leading dimensions of q"):
        graph_ops.linear_attention(q, k, v, k.expand(1, 2, 4, 2), v.expand(1, 2, 4, 2), 1.0)
    with pytest.raises(RuntimeError, match="memory_k and memory_v must come together"):
        graph_ops.linear_attention(q, k, v, k, None, 1.0)
