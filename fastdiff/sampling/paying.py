"""Whether compiling a network for a run on a CPU pays: a rule of floating point operations, the same every time.

The engine takes about five seconds to make a network ready and then saves about half of the time that eager torch takes
(docs/engine.md, docs/lab/engine.md). At the 230 GFLOP/s of eager torch on two threads, half of the time is five
seconds at 2.3e12 operations; twice as many are asked for, so that a faster machine does not lose by it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

log = logging.getLogger("fastdiff.sampling")
#: Operations of a whole run from which on the engine makes up for its cold start.
FLOPS = 5e12


def flops_of(net: Callable[..., Tensor], x: Tensor, inputs: Mapping[str, Tensor]) -> int:
    """Operations of products and convolutions in one evaluation at x (B, ...), which is not carried out.

    0 where the network cannot be run on tensors without values.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports triton

    def unreal(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)

    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            with FlopCounterMode(display=False) as counter:
                t = torch.zeros(len(x), dtype=torch.int64)
                net(unreal(x), t, **{name: unreal(value) for name, value in inputs.items()})
    except Exception as error:
        log.info("sample: the operations of the network cannot be counted: %s", error)
        return 0
    return counter.get_total_flops()


def pays(
    net: Callable[..., Tensor], x: Tensor, inputs: Mapping[str, Tensor], rows: int, branches: int
) -> bool:
    """Whether the engine should run this network.

    Args:
        net: The network; anything but a module in eval mode that nobody has compiled is left alone.
        x: (B, ...) states.
        inputs: What the network gets besides x and t, by keyword.
        rows: Evaluations of the run.
        branches: 2 where each evaluation runs an unconditional branch as well.

    Returns:
        True from `FLOPS` operations on; the decision is logged at level INFO.
    """
    compiled = getattr(net, "_orig_mod", None) is not None
    if not isinstance(net, nn.Module) or compiled or net.training or x.dtype != torch.float32:
        return False
    total = float(rows * branches) * flops_of(net, x, inputs)
    word = "compiled by the engine" if total >= FLOPS else "left to eager torch"
    log.info("sample: the network is %s: %.3g of %.3g operations that pay", word, total, FLOPS)
    return total >= FLOPS
