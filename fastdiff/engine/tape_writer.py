"""Writes a tape: runs a plan once, step by step, and notes for each step where its operands lie and its result goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fastdiff.ops.conv1x1 import last
from fastdiff.ops.feature_maps import dense_floats, plain_rows

from . import graph_ops
from .buffers import Buffers, address, tensors_in
from .fuse_sinusoids import sinusoids
from .graphs import Node, attribute_of
from .tape import Tape

_tape = torch.ops.fastdiff
Form = Callable[[Tensor], Any]
_MAP: Form = graph_ops.channels_last
#: What a tape can hold, with the form that each kernel brings its operands to, by their positions; others are dense.
_FORMS: dict[Any, dict[int, Form]] = {
    graph_ops.conv3x3: {0: _MAP, 1: _MAP, 4: dense_floats, 9: plain_rows, 10: _MAP},
    graph_ops.conv1x1: {0: last, 1: last, 7: last},
    graph_ops.statistics_of: {0: _MAP},
    graph_ops.group_factors: {5: plain_rows, 6: plain_rows},
    graph_ops.channel_factors: {2: dense_floats, 3: plain_rows, 4: plain_rows},
    graph_ops.pixel_factors: {0: _MAP, 1: _MAP},
    sinusoids: {0: dense_floats},
    graph_ops.attention: dict.fromkeys(range(3), lambda t: t),
    graph_ops.linear_attention: dict.fromkeys(range(5), lambda t: t),
}


def write(
    live: fx.GraphModule, tensors: Sequence[Tensor], folded: Sequence[Any], moving: set[int], buffers: Buffers
) -> Tape:
    """Write the tape of a plan for one set of weights.

    Args:
        live: of the plan.
        tensors: of a call.
        folded: what was packed from the weights.
        moving: positions of the tensors that differ from call to call: those that are not weights.
        buffers: of the program.

    Raises:
        Full: when what lies between the steps is too large to be kept.
    """
    known = buffers.begin()
    with torch.inference_mode(False), torch.no_grad():
        try:
            return _Writer(live, [*tensors, *folded], moving, buffers).tape
        except BaseException:
            buffers.keep(known)
            raise


def _dying(graph: fx.Graph) -> dict[Node, list[Node]]:
    """For each node those that nobody reads after it."""
    last_reader: dict[Node, Node] = {}
    for node in graph.nodes:
        for read in (node, *node.all_input_nodes):
            last_reader[read] = node
    dying: dict[Node, list[Node]] = defaultdict(list)
    for read, reader in last_reader.items():
        dying[reader].append(read)
    return dying


def _copy(to: Tensor, value: Tensor) -> None:
    to.copy_(value)


class _Writer:
    """Values are either fixed (the same memory at every call) or moving (made by Python at every call)."""

    def __init__(
        self, live: fx.GraphModule, given: Sequence[Any], moving: set[int], buffers: Buffers
    ) -> None:
        self._buffers = buffers
        self.tape, self._steps, self._written = Tape(), fx.Graph(), 0
        self._values: dict[Node, Any] = {}
        self._made: dict[Node, Node] = {}  # in the graph of steps
        self._sources: list[int | Tensor] = []
        self._moving: set[Node] = set()
        self._places: dict[Node, int] = {}
        held: dict[Node, list[int]] = {}
        dying = _dying(live.graph)
        for node in live.graph.nodes:
            if node.op == "placeholder":
                self._place(node, given, moving)
            else:
                self._step(node)
            held[node] = buffers.hold(self._values[node])
            for dead in dying[node]:
                buffers.release(held.pop(dead))
        self.tape.finish(self._steps, self._sources)

    def _place(self, node: Node, given: Sequence[Any], moving: set[int]) -> None:
        place = len(self._places)
        value = given[place]
        if place in moving:
            self._moving.add(node)
        elif isinstance(value, Tensor):
            value = (
                value.detach()
            )  # `p.data = other` moves the caller's tensor, not the one that the tape keeps
        self._places[node], self._values[node] = place, value

    def _step(self, node: Node) -> None:
        arguments = fx.map_arg((node.args, node.kwargs), lambda n: self._values[n])
        if node.op == "output":
            self._flush()
            self._steps.output(fx.map_arg(node.args[0], self._read))
            self._values[node] = None
        elif node.op == "get_attr":
            self._values[node] = attribute_of(node)
        elif node.target in _FORMS and self._fits(node):
            self._values[node] = self._kernel(node)
        else:
            self._values[node] = value = node.target(*arguments[0], **arguments[1])
            if not self._is_fixed_view(node, value):
                self._in_python(node)

    def _fits(self, node: Node) -> bool:
        """Whether a kernel takes these operands as they are: attention reads what fits, and copies nothing."""
        if node.target not in (graph_ops.attention, graph_ops.linear_attention):
            return True
        read = node.all_input_nodes
        floats = all(self._values[n].dtype == torch.float32 for n in read)
        return floats and not self._moving.intersection(read) and 0 not in self._values[read[0]].shape

    def _is_fixed_view(self, node: Node, value: Any) -> bool:
        read, made = node.all_input_nodes, list(tensors_in(value))
        memory = {address(t) for n in read for t in tensors_in(self._values[n])}
        views = all(address(t) in memory for t in made)
        return bool(made) and views and not self._moving.intersection(read)

    def _in_python(self, node: Node) -> None:
        """A step that torch computes."""
        self._flush()
        for n in node.all_input_nodes:
            self._read(n)
        self._made[node] = self._steps.node_copy(node, lambda n: self._made[n])
        self._moving.add(node)

    def _read(self, node: Node) -> Node:
        """A value of the plan, for a step in Python."""
        if node not in self._made:
            place = self._places.get(node)
            self._made[node] = self._input(self._values[node] if place is None else place)
        return self._made[node]

    def _input(self, source: int | Tensor) -> Node:
        before = [n for n in self._steps.nodes if n.op == "placeholder"]
        point = self._steps.inserting_after(before[-1]) if before else self._steps.inserting_before(None)
        with point:
            new = self._steps.placeholder(f"input_{len(before)}")
        self._sources.append(source)
        return new

    def _flush(self) -> None:
        """Have Python run what was written to the tape since."""
        size = _tape.tape_size(self.tape.number)
        if size > self._written:
            self._steps.call_function(_tape.tape_run.default, (self.tape.number, self._written, size))
            self._written = size

    def _kernel(self, node: Node) -> Any:
        """A step of the tape."""
        forms, copies = _FORMS[node.target], list[int]()
        operands = list(node.args)
        for i, argument in enumerate(operands):
            if isinstance(argument, fx.Node):
                operands[i] = self._operand(argument, forms.get(i, Tensor.contiguous))
                copies += self._buffers.hold(operands[i])
        made = node.target(*operands, **node.kwargs)
        out = (
            tuple(self._own(part, copies) for part in made)
            if isinstance(made, tuple)
            else self._own(made, copies)
        )
        _tape.tape_open(self.tape.number)
        try:
            node.target(*operands, **node.kwargs, out=out)
        finally:
            _tape.tape_open(0)
        self._buffers.release(copies)
        return out

    def _own(self, made: Tensor, held: list[int]) -> Tensor:
        out = self._buffers.like(made).copy_(made)
        held += self._buffers.hold(out)
        return out

    def _operand(self, node: Node, form: Form) -> Tensor:
        """What a kernel reads: the value itself where it is fixed and has its form, else a copy made by Python."""
        value = self._values[node]
        formed: Tensor = form(value)
        if node not in self._moving and formed.data_ptr() == value.data_ptr():
            return formed
        self._flush()
        copy = self._buffers.like(formed).copy_(formed)
        self._steps.call_function(_copy, (self._input(copy), self._read(node)))
        return copy
