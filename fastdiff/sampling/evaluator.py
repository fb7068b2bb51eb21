"""Calls the network, and whatever provides the second tensor of guidance, for one row of the table."""

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
    """Calls the network on a batch; with an unconditional branch both go in one call.

    Args:
        net: The network.
        inputs: What it gets besides x and t, by keyword, each (B, ...).
        null: The same for the unconditional branch; None when there is none.
        weak: A network whose output is the second tensor instead, called with the same inputs.
        classifier: (x, t, **inputs) -> log p (B,) or logits (B, K), whose gradient is the second tensor instead.
        input_dtype: What x is cast to before the network; None leaves it.
        autocast: Half precision to run the network in under autocast, or None.
        one_by_one: Call the network for each sample alone, so that a result cannot depend on the batch. Slower by
            as much as the device gains from batches.
        copies: Networks get copies of the state and the time, which they may change or keep. False is for those that
            do neither, see `fastdiff.sampling.input_safety`.
    """

    net: Callable[..., Tensor]
    inputs: dict[str, Tensor] = field(default_factory=dict)
    null: dict[str, Tensor] | None = None
    weak: Callable[..., Tensor] | None = None
    classifier: Callable[..., Tensor] | None = None
    input_dtype: torch.dtype | None = None
    autocast: torch.dtype | None = None
    one_by_one: bool = False
    copies: bool = True

    def __call__(
        self,
        x: Tensor,
        t: Tensor,
        x_self_cond: Tensor | None = None,
        *,
        guided: bool = False,
        scale: float | Tensor = 1.0,
    ) -> Pair:
        """(m, m_u) at states x (B, ...) and times t (B,); networks see scale * x; m_u is None unless `guided`."""
        if not self.one_by_one:
            whole = slice(None)
            return self._evaluate(x, t, self._inputs(x_self_cond, whole), whole, guided, scale)
        pairs = []
        for piece in self._pieces(len(x)):
            m, m_u = self._evaluate(
                x[piece], t[piece], self._inputs(x_self_cond, piece), piece, guided, scale
            )
            pairs.append(
                (m.clone(), None if m_u is None else m_u.clone())
            )  # a network may use one output again
        return torch.cat([m for m, _ in pairs]), torch.cat(
            [u for _, u in pairs if u is not None]
        ) if guided else None

    def _pieces(self, batch: int) -> Iterator[slice]:
        return (slice(i, i + 1) for i in range(batch))

    def _inputs(self, x_self_cond: Tensor | None, piece: slice) -> dict[str, Tensor]:
        more = {name: value[piece] for name, value in self.inputs.items()}
        return (
            more if x_self_cond is None else {**more, "x_self_cond": self._cast(x_self_cond[piece]).clone()}
        )

    def _evaluate(
        self,
        state: Tensor,
        t: Tensor,
        more: dict[str, Tensor],
        piece: slice,
        guided: bool,
        scale: float | Tensor,
    ) -> Pair:
        x = self._cast(state if isinstance(scale, float) and scale == 1.0 else state * scale)
        mine = self._copied(x, t)
        if not guided or (self.null is None and self.weak is None and self.classifier is None):
            return self._call(self.net, *mine, more), None
        if self.classifier is not None:
            return self._call(self.net, *mine, more), gradient(self.classifier, state, t, more)
        if self.weak is not None:
            return self._call(self.net, *mine, more), self._call(self.weak, *self._copied(x, t), more)
        other = {**more, **{name: value[piece] for name, value in (self.null or {}).items()}}
        both = {name: torch.cat((more[name], other[name])) for name in more}
        m, m_u = self._call(self.net, torch.cat((x, x)), torch.cat((t, t)), both).chunk(2)
        return m, m_u

    def _copied(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """What a network may change or keep: the state is updated in place."""
        return (x.clone(), t.clone()) if self.copies else (x, t)

    def _call(self, net: Callable[..., Tensor], x: Tensor, t: Tensor, more: dict[str, Tensor]) -> Tensor:
        with self._precision(x.device.type):
            m = net(x, t, **more)
        return checked_output(m, x)

    def _cast(self, x: Tensor) -> Tensor:
        return x if self.input_dtype is None else x.to(self.input_dtype)

    def _precision(self, device_type: str) -> AbstractContextManager[object]:
        return nullcontext() if self.autocast is None else torch.autocast(device_type, self.autocast)


def gradient(classifier: Callable[..., Tensor], x: Tensor, t: Tensor, more: dict[str, Tensor]) -> Tensor:
    """The gradient of log p(label | x) with respect to states x (B, ...); logits (B, K) are normalised first.

    Raises:
        ValueError: for an answer of another shape, or logits without labels.
    """
    with torch.enable_grad():
        state = x.detach().requires_grad_(True)
        answer = classifier(
            state, t, **{name: value for name, value in more.items() if name != "x_self_cond"}
        )
        if isinstance(answer, Tensor) and answer.ndim == 2 and "labels" in more:
            answer = answer.log_softmax(1).gather(1, more["labels"].unsqueeze(1)).squeeze(1)
        if not isinstance(answer, Tensor) or answer.shape != x.shape[:1]:
            got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise ValueError(
                f"sample: the classifier must return log p ({len(x)},), or logits with labels, got {got}"
            )
        return torch.autograd.grad(answer.sum(), state)[0]


def checked_output(m: object, x: Tensor) -> Tensor:
    """The tensor that a network returned, itself or as `.sample` (diffusers): x's shape, once or twice its channels.

    Raises:
        TypeError, ValueError: for anything else.
    """
    m = m if isinstance(m, Tensor) else getattr(m, "sample", m)
    if not isinstance(m, Tensor):
        raise TypeError(f"sample: the network must return a tensor, got {type(m).__name__}")
    if not m.is_floating_point() or m.layout != torch.strided or m.is_nested or m.device != x.device:
        got = "a nested one" if m.is_nested else f"{m.layout} {m.dtype} on {m.device}"
        raise TypeError(f"sample: the network must return a dense floating tensor on {x.device}, got {got}")
    shape, channels = tuple(m.shape), x.shape[1]
    if shape[:1] + shape[2:] != x.shape[:1] + x.shape[2:] or shape[1] not in (channels, 2 * channels):
        raise ValueError(
            f"sample: the network must return {tuple(x.shape)}, or {2 * channels} channels with a variance, "
            f"got {shape}"
        )
    return m


def split_variance(m: Tensor, channels: int, dtype: torch.dtype) -> Pair:
    """(mean part, variance part or None) of an output with once or twice `channels`, in dtypes the step takes."""
    m = m if m.dtype in (*_HALF, dtype) else m.to(dtype)
    return (m, None) if m.shape[1] == channels else (m[:, :channels], m[:, channels:].to(dtype).contiguous())
