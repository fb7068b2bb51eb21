"""A recorder without a GPU: it replays the work itself and is as strict as a CUDA graph would be unforgiving."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastdiff.engine.recorder import WARM_UPS, RecordingError, Replay, Work

HOST_READS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2")


class Watch(TorchDispatchMode):
    """Fails on a value read on the host and on a tensor whose address the recording does not own."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.static, self.known = known, set(known)
        self.made: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in HOST_READS:
            raise RecordingError(f"{name} reads a value on the host")
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor) and address(tensor) not in self.known and tensor.numel():
                raise RecordingError(f"{name} reads a tensor {tuple(tensor.shape)} that may move")
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and address(tensor) not in self.static:
                self.known.add(address(tensor))
                self.made.append(weakref.ref(tensor))
        return result


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class FakeRecorder:
    """Replays a closure over the static buffers; counts what it recorded and replayed.

    Args:
        modules: Their weights may be read besides the static tensors.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self.modules = modules
        self.recordings = self.replays = 0

    def record(self, work: Work, reset: Work, static: list[Tensor]) -> Replay:
        weights = [t for module in self.modules for t in (*module.parameters(), *module.buffers())]
        places = [(tensor, tensor.data_ptr()) for tensor in (*static, *weights)]
        known = {address(tensor) for tensor in (*static, *weights)}
        for _ in range(WARM_UPS):
            reset()
            work()
        reset()
        gc.freeze()  # what was there before is not searched for garbage, which takes a second in a long run
        with Watch(known) as watch:
            work()
        gc.collect()
        gc.unfreeze()
        left = [tuple(tensor.shape) for tensor in (made() for made in watch.made) if tensor is not None]
        if left:
            raise RecordingError(f"tensors {left} outlive the recording")
        self.recordings += 1

        def replay() -> None:
            moved = [tuple(tensor.shape) for tensor, place in places if tensor.data_ptr() != place]
            assert not moved, f"tensors {moved} have moved since the recording"
            self.replays += 1
            with Watch(known):
                work()

        return replay
