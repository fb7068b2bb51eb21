"""The fewest calls of plain torch that do what an op does on an example; `fastdiff bench` compares with them.

These are not the references, which are written to be read and to be exact: noise here comes from torch's own generator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastdiff.doctor.examples import Arguments
from fastdiff.ops.row import column


def _add_noise(*, x0: Tensor, alpha: Tensor, sigma: Tensor, **_: Any) -> object:
    ones = [1] * (x0.dim() - 1)
    noise = torch.randn_like(x0)
    return alpha.reshape(-1, *ones) * x0 + sigma.reshape(-1, *ones) * noise, noise


def _normal(*, seeds: Tensor, shape: tuple[int, ...], **_: Any) -> object:
    return torch.randn(seeds.shape[0], *shape, device=seeds.device)


def _group_norm_silu(*, x: Tensor, groups: int, weight: Tensor, bias: Tensor) -> object:
    return functional.silu(functional.group_norm(x, groups, weight, bias, 1e-5))


def _rms_norm_silu(*, x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> object:
    normed = functional.normalize(x, dim=1) * (weight[:, None, None] * x.shape[1] ** 0.5)
    return functional.silu(normed * (scale[:, :, None, None] + 1) + shift[:, :, None, None])


def _solver_step(
    *, table: Tensor, x: Tensor, m: Tensor, m_u: Tensor | None = None, history: Tensor | None = None, **_: Any
) -> object:
    row = table[0].tolist()
    c = {name: row[column(name)] for name in ("g_c", "g_u", "u_x", "u_m", "lo", "hi", "b", "a", "s", "h_0")}
    m = m if m_u is None else m * c["g_c"] + m_u * c["g_u"]
    x0 = torch.mul(x, c["u_x"]).add_(m, alpha=c["u_m"]).clamp_(c["lo"], c["hi"])
    out = torch.mul(x, c["b"]).add_(x0, alpha=c["a"])
    if history is not None:
        out.add_(history[0], alpha=c["h_0"])
        history[0].copy_(x0)
    return out.add_(torch.randn_like(x), alpha=c["s"]) if c["s"] else out


def _vq_nearest(*, z: Tensor, codebook: Tensor, **_: Any) -> object:
    distance, index = torch.cdist(z, codebook).min(1)
    return index, codebook[index], distance.square(), torch.bincount(index, minlength=codebook.shape[0])


def _vq_code_sums(*, z: Tensor, index: Tensor, codes: int) -> object:
    sums = torch.zeros(codes, z.shape[1], device=z.device).index_add_(0, index, z)
    return sums, torch.bincount(index, minlength=codes)


def _attention(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> object:
    return functional.scaled_dot_product_attention(q, k, v, scale=scale)


def _conv3x3(*, x: Tensor, weight: Any, bias: Tensor) -> object:
    return functional.conv2d(x, weight.weight.contiguous(memory_format=torch.channels_last), bias, padding=1)


def _conv1x1(*, x: Tensor, weight: Any, bias: Tensor) -> object:
    return functional.linear(x.movedim(1, -1), weight.weight, bias).movedim(-1, 1)


RIVALS: dict[str, Callable[..., object]] = {
    **{"add_noise": _add_noise, "normal": _normal, "group_norm_silu": _group_norm_silu},
    **{"rms_norm_silu": _rms_norm_silu, "solver_step": _solver_step, "vq_nearest": _vq_nearest},
    **{"vq_code_sums": _vq_code_sums, "attention": _attention, "conv3x3": _conv3x3},
    "conv1x1": _conv1x1,
}


def call(op: str, arguments: Arguments) -> Callable[[], object]:
    """The rival's call on these arguments, whatever it does beforehand done."""
    rival = RIVALS[op]

    def run() -> object:
        with torch.no_grad():
            return rival(**arguments)

    return run
