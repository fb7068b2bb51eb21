"""From tensors to the arguments of a kernel, and the registration of ops with torch."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

#: Elements of one program and its warps: 8 elements a thread, two 128-bit accesses of float32 or one of a half type.
BLOCK = 1024
WARPS = 4
#: Triton reads the variable when a kernel is defined, and then runs it on the CPU.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"

_LIBRARY = torch.library.Library("fastdiff", "FRAGMENT")


def register(schema: str, launch: Callable[..., None]) -> None:
    """Define an op that writes into its arguments and returns nothing; for CUDA, and for the CPU where interpreted."""
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, launch, "CPU" if INTERPRETED else "CUDA")
    torch.library.register_fake(f"fastdiff::{name}", lambda *args, **kwargs: None, lib=_LIBRARY)


def sizes(x: Tensor) -> tuple[int, int, int]:
    """(elements of a sample, elements of a channel, tiles of a sample) of a tensor (B, ...)."""
    count = x.numel() // x.shape[0]
    pixels = count // x.shape[1] if x.dim() > 1 else 1
    return count, max(1, pixels), -(-count // BLOCK)


def strides(t: Tensor) -> tuple[int, int, int] | None:
    """(sample, channel, pixel) strides of a tensor (B, C, ...) with elements, or None without one pixel stride."""
    if t.is_contiguous():  # torch leaves the strides of sizes of 1 as they were
        pixels = t[0, 0].numel()
        return t.shape[1] * pixels, pixels, 1
    sizes, pixel, reach = t.shape[2:], 0, 0
    for size, stride in zip(reversed(sizes), reversed(t.stride()[2:]), strict=True):
        if size == 1:
            continue
        if reach == 0 and pixel == 0:
            pixel, reach = stride, stride * size
        elif stride != reach:
            return None
        else:
            reach *= size
    return t.stride(0), t.stride(1), pixel


def dense_inside(t: Tensor, layout: tuple[int, int, int]) -> bool:
    """Whether one sample lies in row-major order without gaps."""
    pixels = t[0, 0].numel()
    channel_fits = t.shape[1] == 1 or layout[1] == pixels
    return channel_fits and (pixels == 1 or layout[2] == 1)


def alike(*tensors: Tensor | None) -> tuple[list[Tensor | None], tuple[int, int, int], bool]:
    """Tensors of one shape, copied where they do not share a layout; that layout; whether samples are dense."""
    given = [t for t in tensors if t is not None]
    if not given:
        return list(tensors), (0, 0, 0), True
    layout = strides(given[0])
    if layout is None or any(strides(t) != layout for t in given):
        copies = [None if t is None else t.contiguous() for t in tensors]
        return alike(*copies)
    return list(tensors), layout, dense_inside(given[0], layout)


def dense(t: Tensor | None) -> Tensor | None:
    """Contiguous, copied where it is not."""
    return None if t is None else t.contiguous()


def capability_of(t: Tensor) -> int:
    """10 x major + minor of the device that t is on."""
    if INTERPRETED:
        return 80
    major, minor = torch.cuda.get_device_capability(t.device)
    return 10 * major + minor
