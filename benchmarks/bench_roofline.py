"""How near the ops come to what the processor can do: bytes against a copy of as many, products against sgemm.

Copy and sgemm take turns with the op, so that all see the same machine. `flops` are those of the definition (a Winograd
convolution makes fewer), `bytes` what has to be read and written at least once.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.cases import (
    ATTENTIONS,
    CODEBOOKS,
    FAR_GROUP_NORM,
    GROUP_NORMS,
    MULTISTEP_ROW,
    RMS_NORMS,
    STATES,
)
from benchmarks.clocks import Candidate
from fastdiff.ops import attention, conv3x3, group_norm_silu, rms_norm_silu, solver_step, vq_nearest
from fastdiff.ops.conv3x3 import choose, pack
from fastdiff.ops.row import make_row

SGEMM = 2048


@dataclass(frozen=True)
class Work:
    """A call, what it should give, and what it has to do."""

    ours: Candidate
    exact: Candidate
    flops: int
    bytes: int


def last(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def step(shape: tuple[int, ...]) -> Work:
    """x0 = clamp(u_x x + u_m m); b x + a x0 + h_0 old: three tensors read, one written, ten operations a number."""
    row = MULTISTEP_ROW
    table = torch.from_numpy(make_row(**row)).float().unsqueeze(0)
    x, m, history = torch.randn(shape), torch.randn(shape), torch.randn(1, *shape)
    out = torch.empty(shape)

    def exact() -> Tensor:
        x0 = (row["u_x"] * x + row["u_m"] * m).clamp(row["lo"], row["hi"])
        return row["b"] * x + row["a"] * x0 + row["h_0"] * history[0]

    return Work(
        lambda: solver_step(table, 0, x, m, history=history, out=out), exact, 10 * x.numel(), 16 * x.numel()
    )


def group_norm(shape: tuple[int, ...], groups: int, reads: int = 1) -> Work:
    """Mean, variance, norm, factors and SiLU: about 15 operations a number."""
    x, weight, bias = last(*shape), torch.randn(shape[1]), torch.randn(shape[1])
    return Work(
        lambda: group_norm_silu(x, groups, weight, bias),
        lambda: functional.silu(functional.group_norm(x, groups, weight, bias, 1e-5)),
        15 * x.numel(),
        4 * (reads + 1) * x.numel(),
    )


def rms_norm(shape: tuple[int, ...]) -> Work:
    x, weight, root = last(*shape), torch.randn(shape[1]), shape[1] ** 0.5
    return Work(
        lambda: rms_norm_silu(x, weight),
        lambda: functional.silu(functional.normalize(x, dim=1) * weight[:, None, None] * root),
        13 * x.numel(),
        8 * x.numel(),
    )


def codes(rows: int, count: int, width: int) -> Work:
    z, codebook = torch.randn(rows, width), torch.randn(count, width)
    return Work(
        lambda: vq_nearest(z, codebook, return_distance=True).distance,
        lambda: torch.cdist(z, codebook).amin(1).square(),
        2 * rows * count * width,
        4 * (rows + count) * width + 8 * rows,
    )


def heads(batch: int, count: int, queries: int, keys: int, width: int) -> Work:
    q, k, v = (torch.randn(batch, n, count, width).transpose(1, 2) for n in (queries, keys, keys))
    return Work(
        lambda: attention(q, k, v),
        lambda: functional.scaled_dot_product_attention(q, k, v),
        4 * batch * count * queries * keys * width,
        8 * batch * count * (queries + keys) * width,
    )


def convolution(batch: int, channels: int, size: int) -> Work:
    x, weight = last(batch, channels, size, size), torch.randn(channels, channels, 3, 3) / (3 * channels**0.5)
    ready, out = pack(weight, choose(batch, channels, channels, size, size)), torch.empty_like(x)
    return Work(
        lambda: conv3x3(x, ready, out=out),
        lambda: functional.conv2d(x, weight, padding=1),
        2 * 9 * channels * x.numel(),
        8 * x.numel() + 4 * weight.numel(),
    )


CASES = {
    "solver_step 64x3x32x32": lambda: step(STATES["cifar 64x3x32x32"]),
    "solver_step 16x3x256x256": lambda: step(STATES["large 16x3x256x256"]),
    "group_norm_silu 4x128x32x32": lambda: group_norm(*GROUP_NORMS["ddpm-cifar10 4x128x32x32"]),
    "group_norm_silu 32x128x128x128": lambda: group_norm(*FAR_GROUP_NORM, reads=2),
    "rms_norm_silu 4x64x64x64": lambda: rms_norm(RMS_NORMS["lucidrains 4x64x64x64"]),
    "vq_nearest 65536x1024x64": lambda: codes(*CODEBOOKS["65536x1024x64"]),
    "attention 4x4 1024x1024 d64": lambda: heads(*ATTENTIONS["4x4 1024x1024 d64"]),
    "conv3x3 4x128 32x32": lambda: convolution(4, 128, 32),
    "conv3x3 4x256 16x16": lambda: convolution(4, 256, 16),
}


@pytest.mark.parametrize("name", CASES)
def bench_roofline(duel, name):
    work = CASES[name]()
    source = torch.randn(work.bytes // 8)
    target, a, b, c = torch.empty_like(source), *(torch.randn(SGEMM, SGEMM) for _ in range(3))

    def check() -> None:
        torch.testing.assert_close(work.ours(), work.exact(), rtol=1e-3, atol=1e-3)

    duel(
        name,
        {"fastdiff": work.ours, "copy": lambda: target.copy_(source), "sgemm": lambda: torch.mm(a, b, out=c)},
        check=check,
        rounds=15 if work.bytes < 1e8 else 5,
        flops=work.flops,
        bytes=work.bytes,
        sgemm_flops=2 * SGEMM**3,
    )
