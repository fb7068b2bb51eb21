"""Triton's interpreter, without the work that it repeats, and with sums as exact as those of a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np


def pairwise_sum(values: np.ndarray, axis: int | None, keepdims: bool) -> Any:
    """A sum in pairs along any axis, as threads exchange theirs; numpy adds one by one along all axes but the last."""
    if axis is None:
        return np.sum(values, keepdims=keepdims)
    last = np.ascontiguousarray(np.moveaxis(values, axis, -1))
    total = np.sum(last, axis=-1)
    return np.expand_dims(total, axis) if keepdims else total


def patch_once() -> None:
    """Prepare `triton.language` once for a launch, and not again for every function that a kernel calls.

    The interpreter replaces the language's functions while a kernel runs. It looks through all of them again at each
    call of a device function, finds them replaced, and changes nothing: that is half of its time in small kernels.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    def added(self: Any, given: Any) -> Any:
        return self.to_tensor(pairwise_sum(given.handle.data, self.axis, self.keep_dims), given.dtype)

    interpreter.ReduceOps.sum = added

    prepare = interpreter._patch_lang

    def once(kernel: Any) -> Any:
        ready = not any(tl.core.is_builtin(module.load) for module in (tl, tl.core))
        return interpreter._LangPatchScope() if ready else prepare(kernel)

    if not hasattr(prepare, "once"):
        once.once = True  # type: ignore[attr-defined]
        interpreter._patch_lang = once
