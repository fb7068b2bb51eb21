"""norm_factors: from partial statistics of channels to the factor and offset that a group norm applies to each.

    mean, variance = joined statistics of the C / G channels of a group, all stretches
    factor = weight * (1 + scale) / sqrt(variance + eps)
    offset = bias * (1 + scale) + shift - mean * factor            so that y = x * factor + offset

statistics: (B, P, 3, C) as `channel_statistics` and `conv3x3` make them, or two of them for two maps that are
concatenated over channels (their P may differ, and a group may reach across both). The result is (B, 2, C): factors,
offsets. All channels of a stretch have one count. Triples are joined by Chan's formula, the variance is never a
difference of means. Where squares do not fit float32, both factor and offset are NaN.

The raw op is ``torch.ops.fastdiff.norm_factors_cpp(out, statistics, statistics2, groups, weight, bias, scale,
shift, eps)``; it fills a contiguous float32 out (B, 2, C). Statistics, weight and bias are contiguous, scale and shift
have dense rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import dispatch, extension
from .arguments import check_groups, check_number, check_tensor, described
from .channel_statistics import float32_on_cpu
from .feature_maps import dense_floats, factor_shapes, plain_rows, unless_infinite
from .shape_classes import rounded

_OP = "norm_factors"
Statistics = Tensor | tuple[Tensor, Tensor]


def reference(
    *,
    statistics: Statistics,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
) -> Tensor:
    """`norm_factors` in plain torch, joined in float64."""
    parts = statistics if isinstance(statistics, tuple) else (statistics,)
    channels = torch.cat([_joined(part.double(), 1) for part in parts], dim=2)
    spread = channels.shape[2] // groups
    grouped = channels.unflatten(2, (int(groups), spread))
    count, mean, squares = _joined(grouped.permute(0, 3, 1, 2), 1).unbind(1)  # (B, G) each
    reciprocal = (unless_infinite(squares / count) + eps).rsqrt()
    factor, mean = reciprocal.repeat_interleave(spread, 1), mean.repeat_interleave(spread, 1)
    gain = torch.ones_like(factor) if scale is None else 1 + scale.double()
    offset = torch.zeros_like(factor) if bias is None else bias.double() * gain
    factor = factor * gain if weight is None else factor * gain * weight.double()
    offset = offset - mean * factor if shift is None else offset + shift.double() - mean * factor
    return torch.stack([factor, offset], dim=1).to(parts[0].dtype)


def _joined(triples: Tensor, dim: int) -> Tensor:
    """Triples (count, mean, squares), which lie in the dimension after dim, as one over dim."""
    count, mean, squares = triples.unbind(dim + 1)
    total = count.sum(dim)
    joined = (count * mean).sum(dim) / total
    between = (count * (mean - joined.unsqueeze(dim)).square()).sum(dim)
    return torch.stack([total, joined, squares.sum(dim) + between], dim=dim)


def _check(inputs: Mapping[str, Any]) -> None:
    statistics, groups, eps = inputs["statistics"], inputs["groups"], inputs["eps"]
    parts = statistics if isinstance(statistics, tuple) else (statistics,)
    for part in parts:
        _check_statistics(part, parts[0])
    if len(parts) > 2:
        raise ValueError(f"{_OP}: statistics must be one tensor or two, got {len(parts)}")
    batch, channels = parts[0].shape[0], sum(part.shape[3] for part in parts)
    check_groups(_OP, groups, channels)
    check_number(_OP, "eps", eps, 0.0)
    for name, shape in factor_shapes(batch, channels).items():
        if inputs[name] is not None:
            _check_factor(name, inputs[name], shape, parts[0])


def _check_statistics(part: Any, like: Any) -> None:
    check_tensor(_OP, "statistics", part)
    fits = part.dim() == 4 and part.shape[2] == 3 and part.shape[1] > 0 and part.shape[3] > 0
    if not fits or part.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{_OP}: statistics must be float32 (B, P, 3, C), got {described(part)}")
    counts = part.select(2, 0)
    if not torch.compiler.is_compiling() and part.is_cpu and not bool((counts == counts[..., :1]).all()):
        raise ValueError(
            f"{_OP}: statistics must have one count for all channels of a stretch, got different ones"
        )
    if part.shape[0] != like.shape[0] or part.dtype != like.dtype or part.device != like.device:
        raise ValueError(
            f"{_OP}: statistics must agree in batch, type and device, got {described(like)} and {described(part)}"
        )


def _check_factor(name: str, value: Any, shape: tuple[int, ...], like: Tensor) -> None:
    check_tensor(_OP, name, value)
    if tuple(value.shape) != shape or not value.is_floating_point() or value.device != like.device:
        raise ValueError(f"{_OP}: {name} must be floating {shape} on {like.device}, got {described(value)}")


def _cpp_reasons(*, statistics: Statistics, **others: Any) -> list[str]:
    parts = statistics if isinstance(statistics, tuple) else (statistics,)
    factors = {name: value.float() if isinstance(value, Tensor) else value for name, value in others.items()}
    return float32_on_cpu(statistics=parts[0], statistics2=parts[-1], **factors)


def _cpp(
    *,
    statistics: Statistics,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
) -> Tensor:
    first, second = statistics if isinstance(statistics, tuple) else (statistics, None)
    first, second = first.contiguous(), None if second is None else second.contiguous()
    channels = first.shape[3] + (0 if second is None else second.shape[3])
    out = first.new_empty((first.shape[0], 2, channels))
    torch.ops.fastdiff.norm_factors_cpp.default(
        out,
        first,
        second,
        groups,
        dense_floats(weight),
        dense_floats(bias),
        plain_rows(scale),
        plain_rows(shift),
        eps,
    )
    return out


def _shape_class(*, statistics: Statistics, groups: int, **_: Any) -> str:
    parts = (statistics,) if isinstance(statistics, Tensor) else statistics
    return f"{len(parts)} maps of {rounded(parts[0].shape[-1])} channels in {groups} groups"


extension.register_fake("norm_factors_cpp")
extension.register_fake("affine_factors_cpp")
_BACKENDS = dispatch.register(
    _OP,
    dispatch.Backend("cpp", _cpp, _cpp_reasons, extension.MISSING),
    dispatch.Backend("torch", reference, lambda **_: []),
    shape_class=_shape_class,
)


def norm_factors(
    statistics: Statistics,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Factor and offset per sample and channel of a group norm with scale and shift.

    Args:
        statistics: (B, P, 3, C) partial statistics, or two for maps that are concatenated.
        groups: number of groups G, a divisor of all channels C.
        weight: (C,) factor after the normalisation, None for 1.
        bias: (C,), None for 0.
        scale: (B, C), None for 0.
        shift: (B, C), None for 0.
        eps: added to the variance, at least 0.

    Returns:
        (B, 2, C): factors, offsets, in the dtype of the statistics.

    Raises:
        TypeError: statistics are not float32 (B, P, 3, C).
        ValueError: groups do not divide C, or something does not fit the statistics.

    Source: Chan, Golub and LeVeque 1983; Wu and He 2018.
    """
    inputs = {
        **{"statistics": statistics, "groups": groups, "weight": weight, "bias": bias},
        **{"scale": scale, "shift": shift, "eps": eps},
    }
    return dispatch.run(_OP, _BACKENDS, inputs, _check)
