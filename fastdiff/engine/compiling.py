"""The two entry points: the backend that `torch.compile` finds by name, and `fastdiff.compile`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from .program import Program
from .settings import Settings


def backend(
    module: fx.GraphModule, inputs: Sequence[Any], *, options: dict[str, Any] | None = None, mode: str = ""
) -> Program:
    """What `torch.compile(net, backend="fastdiff", options={...})` calls for each captured graph.

    Args:
        module: the captured graph.
        inputs: example inputs, unused: plans are made from the arguments of each call.
        options: `precision`, `winograd`, `memory` and `inductor`, see `fastdiff.compile`.
        mode: accepted for compatibility, without effect.

    Raises:
        ValueError: for an unknown option.
    """
    return Program(module, Settings.of("fastdiff backend", options or {}))


def compile(
    net: nn.Module,
    *,
    precision: str = "float32",
    winograd: bool = True,
    memory: str = "default",
    inductor: bool = True,
    **options: Any,
) -> Any:
    """Compile a network with the engine, for inference; calls that need gradients run in eager torch.

    Args:
        net: a network; its weights stay where they are, and edits of them are noticed.
        precision: "float32", the only one so far.
        winograd: compute 3x3 convolutions in Winograd form where that is faster (error up to 1e-4 of the largest value,
            usually 1e-6).
        memory: "default", or "low": transformed weights take at most twice the memory of the originals.
        inductor: on a GPU, pass what no pattern covers to torch's inductor, which compiles at the first call of a
            shape; False runs it as it is, at once.
        options: further options of `torch.compile`, such as `dynamic` and `fullgraph`.

    Returns:
        The compiled network, called like the original.

    Raises:
        ValueError: for an invalid option value.
    """
    chosen = {"precision": precision, "winograd": winograd, "memory": memory, "inductor": inductor}
    settings = Settings.of("compile", chosen)
    return torch.compile(net, backend=partial(_run_with, settings), **options)


def _run_with(settings: Settings, module: fx.GraphModule, inputs: Sequence[Any], **kwargs: Any) -> Program:
    return Program(module, settings)
