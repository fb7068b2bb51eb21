"""The engine: `torch.compile(net, backend="fastdiff")`, speeding up a network without changing its code.

The stages capture -> normalise -> match -> fold -> plan -> tape -> run have a file each; see docs/engine.md.
"""

from .compiling import backend, compile
from .explain import Explanation, explain
from .program import refresh

__all__ = ["Explanation", "backend", "compile", "explain", "refresh"]
