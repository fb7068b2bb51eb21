"""A plan: the graph of one call's shapes, ready to run.

What depends on weights alone has been taken out (`fold`); the rest is compiled to one Python function whose inputs are
the tensors of the call and the folded values.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor, fx

from . import capture, match, outputs
from .direct_calls import direct_calls
from .fold import Folds, split_folds
from .graphs import Node
from .normalise import normalise
from .settings import Settings

NUMBERS = count()


class Plan:
    """How one call's shapes are computed.

    Attributes:
        number: of this plan, unique in the process.
        graph: the whole graph, weights included, as it was matched.
        folds: its weight-only part.
        moving: positions of its inputs that are not weights.
        live: the part that runs at every call; its inputs are all tensors of the call, then the folded values.
    """

    def __init__(self, traced: fx.GraphModule, weights: Sequence[int], settings: Settings) -> None:
        """Normalise, match and compile a traced graph.

        Args:
            traced: from `capture.trace`; it is changed.
            weights: positions of the weights among its placeholders.
            settings: of the program.

        Raises:
            Unsupported: when the graph must be left to eager torch.
        """
        self.number = next(NUMBERS)
        self.module, self.graph = traced, traced.graph
        returned = outputs.returned(self.graph)  # before copies that nobody can tell inside are dropped
        normalise(self.graph)
        outputs.copied(self.graph, returned)
        inputs = capture.placeholders(traced)
        self.moving = set(range(len(inputs))).difference(weights)
        match.match(self.graph, [inputs[i] for i in weights], settings)
        self.graph.lint()
        self.folds: Folds = split_folds(self.graph, [inputs[i] for i in weights])
        self.live = self._compiled(inputs)
        self._run = self.live.forward

    def _compiled(self, inputs: list[Node]) -> fx.GraphModule:
        live, made = fx.Graph(), {}
        for node in inputs:
            made[node] = live.placeholder(node.name)
        for i, fold in enumerate(self.folds.folds):
            made[fold.node] = live.placeholder(f"folded_{i}")
        skipped = _behind(self.folds)
        for node in self.graph.nodes:
            if node not in made and node not in skipped:
                made[node] = live.node_copy(node, lambda n: made[n])
        direct_calls(live)
        return fx.GraphModule(self.module, live)

    def __call__(self, tensors: Sequence[Tensor], folded: Sequence[Any]) -> Any:
        """Run the plan.

        Args:
            tensors: all tensors of the call, weights included, in their order.
            folded: the values of `folds`.

        Returns:
            What the graph returns; new memory, unless it is a view of an input.
        """
        with torch.no_grad():
            return self._run(*tensors, *folded)


def _behind(folds: Folds) -> set[Node]:
    """Nodes that only folded values need."""
    todo, seen = [fold.node for fold in folds.folds], set()
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo += [n for n in node.all_input_nodes if n not in folds.inputs]
    return seen
