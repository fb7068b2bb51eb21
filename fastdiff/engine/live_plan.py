"""A live plan: the graph of one call's shapes on a GPU. Weights are read where they lie, nothing is packed from them.

A change of weights on a GPU could only be seen by waiting for it, so nothing may depend on their values. What the
matchers know has become operations of this package; the rest is inductor's, or runs as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from . import match, outputs
from .constants import fold_constants
from .fold import Folds
from .normalise import normalise
from .plan import NUMBERS
from .settings import Settings

log = logging.getLogger("fastdiff.engine")


class LivePlan:
    """How one call's shapes are computed with live weights.

    Attributes:
        number: of this plan, unique in the process.
        graph: as it was matched; its inputs are all tensors of the call.
        folds: none.
        live: the module of the graph.
    """

    def __init__(self, traced: fx.GraphModule, settings: Settings, inputs: Sequence[Tensor]) -> None:
        """Normalise, match and compile a traced graph; it is the same on every device.

        Args:
            traced: from `capture.trace`; it is changed.
            settings: of the program.
            inputs: all tensors of the call, for inductor.

        Raises:
            Unsupported: when the graph must be left to eager torch.
        """
        self.number, self.folds = next(NUMBERS), Folds()
        self.live, self.graph = traced, traced.graph
        returned = outputs.returned(self.graph)
        normalise(self.graph)
        with torch.inference_mode(False), torch.no_grad():
            fold_constants(traced)
        match.match_live(self.graph)
        outputs.unshared(self.graph, returned)  # last: to the matchers a copy is nothing
        self.graph.lint()
        traced.recompile()
        self._run: Callable[..., Any] = traced.forward
        if settings.inductor:
            self._run = _compiled(traced, inputs)

    def __call__(self, tensors: Sequence[Tensor], folded: Sequence[Any]) -> Any:
        """Run the plan on all tensors of a call; `folded` is empty."""
        with torch.no_grad():
            return self._run(*tensors)


def _compiled(module: fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """The graph in inductor's hands; as it is, with a word in the log, where inductor cannot take it."""
    from torch._inductor.compile_fx import compile_fx

    try:
        with torch.no_grad():
            compiled: Any = compile_fx(fx.GraphModule(module, _copied(module.graph)), list(inputs))
            return compiled  # type: ignore[no-any-return]
    except Exception:  # no triton, no compiler, a fault of inductor: the network must run
        log.warning(
            "fastdiff: inductor could not take the rest of this graph; it runs as it is", exc_info=True
        )
        return module.forward


def _copied(graph: fx.Graph) -> fx.Graph:
    copy = fx.Graph()
    copy.output(copy.graph_copy(graph, {}))
    return copy
