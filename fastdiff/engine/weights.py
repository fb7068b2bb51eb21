"""The weights that a program was called with, what was packed from them, and whether they are still the same.

One compiled program serves every instance of a class, and training, EMA libraries and `load_state_dict` edit weights in
place, some behind torch's back. So what was packed belongs to the tensors of the call, not to those of the compilation,
and every call asks: same addresses and strides, same version counters, same sampled lines, and the same checksums over
one share in 32 of the bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from threading import Lock
from typing import Any, Literal

import torch
from torch import Tensor

from fastdiff.ops import extension

from .fold import Folds
from .tape import Tape

_ROWS, _SHARES = 8, (32, 64)  # of the state: csrc/bindings/weights_changed.cpp
_KEPT = 3  # sets of weights (a network, its average, ...) whose packs a program keeps


def _versions(tensors: Sequence[Tensor]) -> int:
    try:
        return sum([t._version for t in tensors])
    except RuntimeError:  # tensors made in inference mode have no version
        return -1


@cache
def _check_extension(rows: int) -> None:
    """Try a state of so many rows on no weights: an extension built from other sources lays it out otherwise.

    Raises:
        RuntimeError: the extension is not of this package.
    """
    state, shares = (torch.zeros(size, dtype=torch.int64) for size in ((rows, 0), _SHARES))
    try:
        torch.ops.fastdiff.note_weights(state, shares, [])
        torch.ops.fastdiff.weights_changed(state, shares, 0)
    except (AttributeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise RuntimeError(
            f"compile: the extension is older than this package, it cannot watch weights ({reason}): install again"
        ) from error


class _Watch:
    """Notes what weights look like, and tells when they look different."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._turn, self._compiled = 0, not extension.MISSING and all(w.is_cpu for w in weights)
        if self._compiled:
            _check_extension(_ROWS)
        self._state = torch.zeros((_ROWS, len(weights)), dtype=torch.int64)
        self._shares = torch.zeros(_SHARES, dtype=torch.int64)
        self.note(weights)

    def note(self, weights: Sequence[Tensor]) -> None:
        """Take the weights as they are now for the unchanged ones."""
        self._version = _versions(weights)
        self._places = _places(weights)
        if self._compiled:
            torch.ops.fastdiff.note_weights(self._state, self._shares, weights)
        else:
            self._sums = [_sum(w) for w in weights]

    def same_tensors(self, weights: Sequence[Tensor]) -> bool:
        """Whether these are the noted tensors, by their addresses, sizes and strides."""
        return self._places == _places(weights)

    def changed(self, weights: Sequence[Tensor]) -> bool:
        """Whether an address, a version counter, a sampled line or the next share of bytes is another one."""
        if _versions(weights) != self._version or not self.same_tensors(weights):
            return True
        if not self._compiled:
            return self._sums != [_sum(w) for w in weights]
        self._turn += 1
        return torch.ops.fastdiff.weights_changed(self._state, self._shares, self._turn)


def _places(tensors: Sequence[Tensor]) -> tuple[list[Any], ...]:
    """Addresses, sizes and strides: `p.data = p.data.transpose(2, 3)` changes nothing but the strides."""
    return [t.data_ptr() for t in tensors], [t.numel() for t in tensors], [t.stride() for t in tensors]


def _sum(weight: Tensor) -> float:
    return float(weight.double().sum())


class Packed(list[Any]):
    """What a plan reads that was packed from one set of weights.

    Attributes:
        tape: of the plan for these weights; None before it is written, False where there can be none.
    """

    tape: Tape | Literal[False] | None = None


class WeightSet:
    """One set of weights with everything packed from it."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.watch = _Watch(weights)
        self._values: dict[str, Any] = {}
        self._constants: dict[int, Packed] = {}

    def forget(self, weights: Sequence[Tensor]) -> None:
        """Drop what was packed: the weights are other ones now."""
        self._values, self._constants = {}, {}
        self.watch.note(weights)

    def constants(self, plan: int, folds: Folds, weights: Sequence[Tensor]) -> Packed:
        """The folded values of a plan, packed at its first call with these weights."""
        if plan not in self._constants:
            self._constants[plan] = Packed(folds.compute(weights, self._values))
        return self._constants[plan]

    def nbytes(self) -> int:
        """Memory that packed weights hold."""
        kept = [value for value in self._values.values() if isinstance(value, Tensor)]
        opaque = sum(t.numel() * t.element_size() for t in kept if t.is_mkldnn)
        plain = {t.data_ptr(): t.numel() * t.element_size() for t in kept if not t.is_mkldnn}
        return opaque + sum(plain.values())


class WeightSets:
    """The sets of weights that a program has met lately, most recent last."""

    def __init__(self) -> None:
        self._sets: OrderedDict[tuple[int, ...], WeightSet] = OrderedDict()
        self._recent: WeightSet | None = None
        self._lock = Lock()

    def constants(self, plan: int, folds: Folds, weights: Sequence[Tensor]) -> Packed:
        """The folded values of a plan for these weights, packed anew if the weights have changed."""
        with self._lock:
            recent = self._recent
            if recent is None or recent.watch.changed(weights):
                recent = self._recent = self._find(weights, recent)
            return recent.constants(plan, folds, weights)

    def _find(self, weights: Sequence[Tensor], suspect: WeightSet | None) -> WeightSet:
        """The set of these weights; `suspect` was just seen to differ, in a share that the next look skips."""
        key = tuple(w.data_ptr() for w in weights)
        found = self._sets.pop(key, None)
        if found is None:
            found = WeightSet(weights)
        elif found is suspect or found.watch.changed(weights):
            found.forget(weights)
        self._sets[key] = found
        while len(self._sets) > _KEPT:
            self._sets.popitem(last=False)
        return found

    def refresh(self, addresses: set[int]) -> None:
        """Drop everything packed from weights at any of these addresses."""
        with self._lock:
            for key in [key for key in self._sets if addresses.intersection(key)]:
                if self._sets.pop(key) is self._recent:
                    self._recent = None

    def nbytes(self) -> int:
        """Memory that packed weights hold, all sets."""
        return sum(kept.nbytes() for kept in self._sets.values())
