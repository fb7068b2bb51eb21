"""Evaluator: how the network is called for one row of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor | None]
_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Evaluator:
    """Calls the network on a batch; with a second branch both go in one call.

    Args:
        net: The network.
        inputs: What it gets besides x and t, by keyword, each (B, ...).
        null: The same for the unconditional branch; None when there is no guidance.
        input_dtype: What x is cast to before the network; None leaves it.
        autocast: Half precision to run the network in under autocast, or None.
        one_by_one: Call the network for each sample alone, so that a result cannot depend on the batch. Slower by
            as much as the device gains from batches.
    """

    net: Callable[..., Tensor]
    inputs: dict[str, Tensor] = field(default_factory=dict)
    null: dict[str, Tensor] | None = None
    input_dtype: torch.dtype | None = None
    autocast: torch.dtype | None = None
    one_by_one: bool = False

    def __call__(
        self, x: Tensor, t: Tensor, x_self_cond: Tensor | None = None, *, guided: bool = False
    ) -> Pair:
        """(m, m_u) for states x (B, ...) at times t (B,); m_u is None unless `guided`."""
        pairs = [self._evaluate(x, t, x_self_cond, piece, guided) for piece in self._pieces(len(x))]
        if len(pairs) == 1:
            return pairs[0]
        return torch.cat([m for m, _ in pairs]), torch.cat(
            [u for _, u in pairs if u is not None]
        ) if guided else None

    def _pieces(self, batch: int) -> Iterator[slice]:
        size = 1 if self.one_by_one else batch
        return (slice(i, i + size) for i in range(0, batch, size))

    def _evaluate(self, x: Tensor, t: Tensor, x_self_cond: Tensor | None, piece: slice, guided: bool) -> Pair:
        more = {name: value[piece] for name, value in self.inputs.items()}
        if x_self_cond is not None:
            more["x_self_cond"] = self._cast(x_self_cond[piece])
        x, t = self._cast(x[piece]), t[piece]
        if not guided or self.null is None:
            return self._call(x, t, more), None
        other = {**more, **{name: value[piece] for name, value in self.null.items()}}
        both = {name: torch.cat((more[name], other[name])) for name in more}
        m, m_u = self._call(torch.cat((x, x)), torch.cat((t, t)), both).chunk(2)
        return m, m_u

    def _call(self, x: Tensor, t: Tensor, more: dict[str, Tensor]) -> Tensor:
        with self._precision(x.device.type):
            m = self.net(x, t, **more)
        check_output(m, x)
        return m

    def _cast(self, x: Tensor) -> Tensor:
        return x if self.input_dtype is None else x.to(self.input_dtype)

    def _precision(self, device_type: str) -> AbstractContextManager[object]:
        return nullcontext() if self.autocast is None else torch.autocast(device_type, self.autocast)


def check_output(m: object, x: Tensor) -> None:
    """Refuse a network output that is no tensor of x's shape, with once or twice its channels."""
    if not isinstance(m, Tensor):
        raise TypeError(f"sample: the network must return a tensor, got {type(m).__name__}")
    shape, channels = tuple(m.shape), x.shape[1]
    if shape[:1] + shape[2:] != x.shape[:1] + x.shape[2:] or shape[1] not in (channels, 2 * channels):
        raise ValueError(
            f"sample: the network must return {tuple(x.shape)}, or {2 * channels} channels with a variance, "
            f"got {shape}"
        )


def split_variance(m: Tensor, channels: int, dtype: torch.dtype) -> Pair:
    """(mean part, variance part or None) of an output with once or twice `channels`, in dtypes the step takes."""
    m = m if m.dtype in (*_HALF, dtype) else m.to(dtype)
    return (m, None) if m.shape[1] == channels else (m[:, :channels], m[:, channels:].to(dtype).contiguous())
