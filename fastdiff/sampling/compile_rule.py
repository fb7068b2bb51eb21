"""When `compile="auto"` compiles a network on a CPU: if the run has enough floating-point operations to repay it.

The engine takes about five seconds to prepare a network and then saves about half of the time of eager torch
(docs/engine.md, docs/lab/engine.md). Eager torch on two threads reaches 230 GFLOP/s, so half of its time is five
seconds at 2.3e12 operations; the rule asks for twice as many, so that a faster machine does not lose by it. It counts
instead of timing, which makes the choice the same in every run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

log = logging.getLogger("fastdiff.sampling")
#: Operations of a whole run from which on the engine repays its cold start.
FLOPS = 5e12


def flops_of(net: Callable[..., Tensor], x: Tensor, inputs: Mapping[str, Tensor]) -> int:
    """Floating-point operations of the products and convolutions of one evaluation at x (B, ...), without running it.

    Returns:
        The count; 0 if the network cannot be run on tensors without storage.
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


def _about(net: nn.Module, x: Tensor) -> float:
    """Operations of one evaluation if every weight met every pixel of x (B, C, ...) once.

    A UNet stays below, as it halves its maps. Attention at full resolution or a part that is applied several times may
    stay above; where it does by more than four times, a long run is left to eager torch: slower, never wrong. A run
    that is ruled out by this saves the seconds that counting takes (it imports torch.compile).
    """
    weights = sum(p.numel() for p in net.parameters())
    return 2.0 * weights * len(x) * math.prod(x.shape[2:])


def worth_compiling(
    net: Callable[..., Tensor], x: Tensor, inputs: Mapping[str, Tensor], rows: int, branches: int
) -> bool:
    """Whether the engine should run this network.

    Args:
        net: The network. False for anything but a module in eval mode that is not compiled already.
        x: (B, ...) states; False unless float32.
        inputs: What the network gets besides x and t, by keyword.
        rows: Network evaluations of the run.
        branches: 2 if each evaluation also runs an unconditional branch, else 1.

    Returns:
        True if the run has at least `FLOPS` operations; the decision is logged at level INFO.
    """
    compiled = getattr(net, "_orig_mod", None) is not None
    if not isinstance(net, nn.Module) or compiled or net.training or x.dtype != torch.float32:
        return False
    about = _about(net, x) * rows * branches
    if about < FLOPS / 4:
        told = "sample: the network is left to eager torch: about %.3g operations, worth compiling from %.3g"
        log.info(told, about, FLOPS)
        return False
    total = float(rows * branches) * flops_of(net, x, inputs)
    word = "compiled by the engine" if total >= FLOPS else "left to eager torch"
    log.info("sample: the network is %s: %.3g operations, worth compiling from %.3g", word, total, FLOPS)
    return total >= FLOPS
