"""Triton's interpreter, without the work that it repeats."""

from __future__ import annotations

from typing import Any


def patch_once() -> None:
    """Prepare `triton.language` once for a launch, and not again for every function that a kernel calls.

    The interpreter replaces the language's functions while a kernel runs. It looks through all of them again at each
    call of a device function, finds them replaced, and changes nothing: that is half of its time in small kernels.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    prepare = interpreter._patch_lang

    def once(kernel: Any) -> Any:
        ready = not any(tl.core.is_builtin(module.load) for module in (tl, tl.core))
        return interpreter._LangPatchScope() if ready else prepare(kernel)

    if not hasattr(prepare, "once"):
        once.once = True  # type: ignore[attr-defined]
        interpreter._patch_lang = once
