"""Calls that are written into a traced graph as they are: the graph is that of a trace of all calls."""

import pytest
import torch
from torch import fx
from torch.nn import functional

from fastdiff.engine import capture, known_calls
from fastdiff.engine.graphs import value_of
from fastdiff.engine.normalise import fill_defaults

_X = torch.randn(2, 8, 6, 5, generator=torch.Generator().manual_seed(0))
_W = torch.randn(4, 8, 3, 3, generator=torch.Generator().manual_seed(1))


def _captured(call, *args):
    found = []

    def keep(module, _):
        found.append(module)
        return module.forward

    torch._dynamo.reset()
    with torch.no_grad():
        torch.compile(call, backend=keep)(*args)
    return found[0]


def _told(traced: fx.GraphModule):
    """All nodes: operation, arguments, form of the value."""
    fill_defaults(traced.graph)
    told, names = [], {node: i for i, node in enumerate(traced.graph.nodes)}
    for node in traced.graph.nodes:
        value = value_of(node)
        form = (value.shape, value.stride(), value.dtype) if isinstance(value, torch.Tensor) else None
        told.append((node.op, node.op == "call_function" and node.target, form))
        told.append(fx.map_arg((node.args, dict(node.kwargs)), lambda n: names[n]))
    return told


CALLS = {
    "conv": lambda x, w: functional.conv2d(x, w, None, 1, 1),
    "strided conv": lambda x, w: functional.conv2d(x, w, stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    "same padding": lambda x, w: functional.conv2d(x, w, padding="same"),
    "one image": lambda x, w: functional.conv2d(x[0], w, w[:, 0, 0, 0], padding=1),
    "linear": lambda x, w: functional.linear(x, w.flatten()[:15].reshape(3, 5)) + 1,
    "norm": lambda x, w: functional.silu(functional.group_norm(x, 4, w[0, :, 0, 0], eps=1e-3)),
    "turned": lambda x, w: functional.silu(x.transpose(1, 3)) / x.transpose(1, 3) * 2.0,
    "in place": lambda x, w: functional.silu(x * 1.0, inplace=True) + x,
    "types": lambda x, w: x.to(torch.bfloat16) + x.double() * 3,
    "a number first": lambda x, w: 2.0 / (1.0 + x),
    "a constant": lambda x, w: x + torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]),
    "resized": lambda x, w: functional.silu(x).unsqueeze_(0).squeeze(0) + 1.0,
}


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("name", CALLS)
def test_the_graph_is_that_of_a_whole_trace(name, last, monkeypatch):
    x = _X.contiguous(memory_format=torch.channels_last) if last else _X
    module = _captured(CALLS[name], x, _W)
    args = [
        {x.shape: x, _W.shape: _W}[node.meta["example_value"].shape] for node in capture.placeholders(module)
    ]
    with torch.no_grad():
        quick = capture.trace(module, args)
        monkeypatch.setattr(known_calls, "results", lambda *_: {})
        assert _told(quick) == _told(capture.trace(module, args))


def test_other_sizes_than_dynamo_saw_are_traced():
    module = _captured(CALLS["conv"], _X, _W)
    wider = torch.zeros(2, 8, 6, 9)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        assert len(known_calls.results(module, [_X, _W])) == 1
        assert known_calls.results(module, [wider, _W]) == {}
        assert known_calls.results(module, [_X.transpose(2, 3), _W]) == {}
        assert known_calls.results(module, [_X.double(), _W]) == {}
