"""Memory for what the steps of a tape make: kept from call to call, handed out again when nobody reads it any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_WASTE = 2  # a buffer is taken for what needs at least this part of it


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of a result, which may be a tuple or a list of them; none that hides its memory, as oneDNN's do."""
    if isinstance(value, Tensor):
        if not value.is_mkldnn:
            yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors_in(part)


def address(tensor: Tensor) -> int:
    """Where the memory of a tensor begins."""
    return tensor.untyped_storage().data_ptr()


class Full(Exception):
    """More memory is needed than may be kept."""


class Buffers:
    """Buffers of one program; its tapes share them, one call at a time.

    Args:
        most: bytes that may be kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._all: dict[int, Tensor] = {}
        self._readers: Counter[int] = Counter()

    def nbytes(self) -> int:
        """Memory of all buffers."""
        return sum(len(buffer) for buffer in self._all.values())

    def like(self, form: Tensor) -> Tensor:
        """Memory for a tensor of this size, type and strides; to be held by `hold`, else the next one gets it, too.

        Raises:
            Full: when that would be more than may be kept.
        """
        sizes = zip(form.shape, form.stride(), strict=True)
        reach = 1 + sum((n - 1) * s for n, s in sizes) if form.numel() else 0
        buffer = self._free(max(64, reach * form.element_size()))
        return buffer[: reach * form.element_size()].view(form.dtype).as_strided(form.shape, form.stride())

    def _free(self, nbytes: int) -> Tensor:
        free = [b for at, b in self._all.items() if not self._readers[at]]
        fitting = [b for b in free if nbytes <= len(b) <= _WASTE * nbytes]
        if fitting:
            return min(fitting, key=len)
        if self.nbytes() + nbytes > self._most:
            raise Full
        buffer = torch.empty(nbytes, dtype=torch.uint8)
        self._all[address(buffer)] = buffer
        return buffer

    def hold(self, value: Any) -> list[int]:
        """Note a reader of the buffers that a value lies in; returns them, for `release`."""
        held = list({address(t) for t in tensors_in(value)} & self._all.keys())
        self._readers.update(held)
        return held

    def release(self, held: list[int]) -> None:
        """Note that a reader is gone."""
        self._readers.subtract(held)

    def begin(self) -> set[int]:
        """Before a tape is written: nobody reads anything. Returns the buffers that there are."""
        self._readers.clear()
        return set(self._all)

    def keep(self, these: set[int]) -> None:
        """Drop all other buffers."""
        self._all = {at: buffer for at, buffer in self._all.items() if at in these}
