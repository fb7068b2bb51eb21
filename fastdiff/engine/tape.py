"""A tape: the steps of a plan that are kernels of ours, written down with their memory and run again without Python.

At small sizes a network spends a good part of its time between its kernels: every call through Python and torch costs
some 50 us where the kernel before has filled the caches (docs/lab/engine.md). What is in a tape always reads and writes
the same memory: inputs are copied in, results out; the steps that torch computes stand in a Python function between
the parts of the tape.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx


class Tape:
    """What `tape_writer.write` has written.

    Attributes:
        number: of the kernels' list in C++.
    """

    def __init__(self) -> None:
        self.number: int = torch.ops.fastdiff.tape_new()
        weakref.finalize(self, torch.ops.fastdiff.tape_delete, self.number).atexit = False
        self._arguments: list[Any] = []
        self._places: list[tuple[int, int]] = []
        self._run: Any = None

    def finish(self, steps: fx.Graph, sources: Sequence[int | Tensor]) -> None:
        """Take the function that runs the tape.

        Args:
            steps: its graph.
            sources: of its inputs: the position of a tensor of the call (weights packed for it behind them), or what
                is the same at every call.
        """
        self._arguments = [None if isinstance(source, int) else source for source in sources]
        self._places = [(i, source) for i, source in enumerate(sources) if isinstance(source, int)]
        self._run = fx.GraphModule(torch.nn.Module(), steps).forward

    def __call__(self, tensors: Sequence[Tensor], folded: Sequence[Any]) -> Any:
        """Run it; never twice at the same time.

        Args:
            tensors: all tensors of the call, weights included, in their order.
            folded: what was packed from the weights.

        Returns:
            What the graph returns; new memory, unless it is a view of an input.
        """
        arguments, count = self._arguments.copy(), len(tensors)
        for i, place in self._places:
            arguments[i] = tensors[place] if place < count else folded[place - count]
        with torch.no_grad():
            return self._run(*arguments)
