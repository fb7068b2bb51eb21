"""Separates what depends on the weights alone, so that it is computed once per set of weights and not at every call.

Casts of weights, normalised weights (Karras et al. 2024), repacked weights: all are ordinary nodes of the graph; here
they become the inputs of the part that runs at every call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from .graphs import Node, attribute_of, output_nodes


@dataclass(frozen=True)
class Fold:
    """One value made from weights.

    Attributes:
        key: the same for the same computation on the same weights, in every plan of a program.
        node: the node that computes it.
    """

    key: str
    node: Node


@dataclass
class Folds:
    """The weight-only part of a graph.

    Attributes:
        folds: the values that the other part reads.
        inputs: node of each weight, with its position among the weights.
    """

    folds: list[Fold] = field(default_factory=list)
    inputs: dict[Node, int] = field(default_factory=dict)

    def compute(self, weights: Sequence[Tensor], known: dict[str, Any]) -> list[Any]:
        """The folded values, taken from `known` where an earlier plan has computed them, else put there."""
        values: dict[Node, Any] = {}
        for fold in self.folds:
            if fold.key not in known:
                known[fold.key] = self._value(fold.node, weights, values)
        return [known[fold.key] for fold in self.folds]

    def _value(self, node: Node, weights: Sequence[Tensor], values: dict[Node, Any]) -> Any:
        if node in self.inputs:
            return weights[self.inputs[node]]
        if node not in values:
            for needed in node.all_input_nodes:
                self._value(needed, weights, values)
            args = fx.map_arg(node.args, lambda n: self._value(n, weights, values))
            kwargs = fx.map_arg(node.kwargs, lambda n: self._value(n, weights, values))
            values[node] = attribute_of(node) if node.op == "get_attr" else node.target(*args, **kwargs)
        return values[node]


def _may_fold(node: Node, folded: set[Node]) -> bool:
    if node.op == "get_attr":
        return True
    if node.op != "call_function" or any(n not in folded for n in node.all_input_nodes):
        return False
    return torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ())


def _key(node: Node, keys: dict[Node, str]) -> str:
    args = repr(fx.map_arg((node.args, node.kwargs), lambda n: keys[n]))
    target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    # Two plans may call different constants by the same name; a plan keeps its own alive.
    constant = id(attribute_of(node)) if node.op == "get_attr" else ""
    return hashlib.sha1(f"{node.op} {target} {node.target} {constant} {args}".encode()).hexdigest()


def weight_only(graph: fx.Graph, weights: Sequence[Node]) -> set[Node]:
    """The weights and all nodes that depend on nothing else, outputs of the graph left out."""
    folded = set(weights)
    returned = {node for node in output_nodes(graph) if isinstance(node, fx.Node)}
    for node in graph.nodes:
        if node not in folded and node not in returned and _may_fold(node, folded):
            folded.add(node)
    return folded


def hoist(graph: fx.Graph, weights: Sequence[Node]) -> set[Node]:
    """Move the weight-only nodes to the top, where any pass may read them; returns them and the weights."""
    static = weight_only(graph, weights)
    top = next(node for node in graph.nodes if node.op != "placeholder")
    for node in [node for node in graph.nodes if node in static and node.op != "placeholder"]:
        if node is top:
            top = top.next
        else:
            top.prepend(node)
    return static


def split_folds(graph: fx.Graph, weights: Sequence[Node]) -> Folds:
    """Find the weight-only part of a graph.

    Args:
        graph: the whole graph; it stays as it is.
        weights: placeholders of the weights, in their order.
    """
    result = Folds(inputs={node: i for i, node in enumerate(weights)})
    keys = {node: f"weight {i}" for i, node in enumerate(weights)}
    folded = weight_only(graph, weights)
    for node in graph.nodes:
        if node in folded and node not in keys:
            keys[node] = _key(node, keys)
    for node in graph.nodes:
        if node in folded and node not in result.inputs and any(user not in folded for user in node.users):
            result.folds.append(Fold(keys[node], node))
    return result
