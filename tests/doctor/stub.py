"""An op whose backends misbehave in every way, and a device that pretends to be a GPU, with a clock of its own.

As a program it is a worker for that op and device; its only argument is how it behaves beside that.
"""

from __future__ import annotations

import importlib.machinery
import os
import signal
import sys
import time
import types
from contextlib import contextmanager

import torch

from fastdiff import ops
from fastdiff.doctor import devices, loop, worker
from fastdiff.doctor.examples import Example
from fastdiff.ops import dispatch

EXAMPLES = ("usual", "wrong", "error", "crash", "hang", "refused")
MS = {"cuda": 1.0, "triton": 2.0, "cpp": 4.0, "torch": 8.0}
_taken = [0.0]


def _misbehaving(name):
    def run(*, x, what):
        _taken[0] = MS[name]
        if name == "triton" and what == "hang":
            time.sleep(60)
        if name == "triton" and what == "crash":
            print("a kernel says goodbye", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        if name == "triton" and what == "error":
            raise RuntimeError("no such instruction")
        return 2 * x + (name == "triton" and what == "wrong")

    return run


def _reasons(name):
    return lambda what, **_: ["it is refused"] if name == "triton" and what == "refused" else []


def _toy(x, what):
    return dispatch.run("toy", dispatch.registered()["toy"], {"x": x, "what": what}, lambda inputs: None)


def _backend(name, **options):
    return dispatch.Backend(name, _misbehaving(name), _reasons(name), **options)


def _shapes(x, what):
    return f"{x.dtype} {what}"


def examples():
    for what in EXAMPLES:
        yield Example(what, lambda what=what: {"x": torch.ones(3, 70), "what": what}, timed=what == "usual")


@contextmanager
def registered(*only):
    """The ops `toy`, which misbehaves, and `bare`, which has no examples, beside or instead of the others."""
    before, module = dict(dispatch._OPS), types.ModuleType("fastdiff.doctor.examples.toy")
    module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
    module.examples = examples
    sys.modules[module.__name__] = module
    ops.toy = _toy
    dispatch._OPS.clear()
    dispatch.register(
        "toy",
        _backend("cuda", missing="nvcc was not found"),
        _backend("triton", waits=True),
        _backend("cpp"),
        _backend("torch"),
        shape_class=_shapes,
    )
    dispatch.register("bare", _backend("torch"))
    try:
        yield
    finally:
        dispatch._OPS.clear()
        dispatch._OPS.update(before)
        del ops.toy, sys.modules[module.__name__]


class StubDevice:
    kind = "cuda"

    def facts(self):
        return {"name": "Stub 9000"}

    def put(self, tensor):
        return devices.copied(tensor)

    def time_ms(self, call):
        call()
        return _taken[0]


def _drawn(net, device, record):
    """Images of a way that is right, one that crashes and one that is wrong; the record says which."""
    if net == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    _taken[0] = 5.0
    return torch.full((2, 1, 2, 2), 0.5 if net == "wrong" else 0.25)


def _replace_the_loop():
    for way, kind in (("eager", "right"), ("fastdiff", "crashes"), ("graph", "wrong")):
        loop.WAYS[way] = (lambda net, kind=kind: kind, True)
    loop.drawn = _drawn


def main(how):
    if how == "cannot start":
        sys.exit("no driver")
    if how == "is silent":
        time.sleep(60)
    _replace_the_loop()
    out = worker._private_output()
    with registered():
        worker.serve(StubDevice(), sys.stdin, out)


if __name__ == "__main__":
    main(sys.argv[1])
