"""The engine: `torch.compile(net, backend="fastdiff")`, a network made faster without touching its code.

capture -> normalise -> match -> fold -> plan -> run, a file each; docs/engine.md explains them.
"""

from .compiling import backend, compile
from .explain import Explanation, explain
from .program import refresh

__all__ = ["Explanation", "backend", "compile", "explain", "refresh"]
