"""The page docs/gpu_launches.md."""

from __future__ import annotations

from benchmarks.networks import NETWORKS

from . import ways

BATCH = 16
HEAD = """# Launches and bytes of a sampling step

Written by `python -m benchmarks.launches`: counted, not timed; no GPU is needed. A step of DDIM is one call of
the network and one update of the state, in float32, batch {batch}.

What counts as a launch: every ATen operation that makes or writes a tensor is one kernel; views are none. A
convolution with a bias is two (cuDNN, then the sum). A group norm is three in eager torch (moments, factors,
apply); ours, including the sums around it, is one if a group of one sample fits into registers and two
otherwise. `scaled_dot_product_attention` is one. Bytes: every operand of a kernel counts once, regardless of
caches.

The update in eager torch is that of diffusers' `DDIMScheduler`, given its time as a number (reading it from the
GPU would add a wait). Ours is what the recorded loop launches between two network calls: `solver_step`,
including the noise. Runs with hooks replay single rows, each with two more small launches (the time of the row,
the counter).

The rows with inductor count the nodes of its scheduler after fusion, planned for a CPU, because torch without
CUDA cannot plan for a GPU. This is an approximation; what inductor launches on a GPU has not been counted.
"""
TABLE = """| network | | launches of the network | of the update | host reads | in all | of eager | GiB of the network |
|---|---|---|---|---|---|---|---|"""


def _row(network: str, way: str, net: ways.Counted, update: ways.Counted, eager: int) -> str:
    total = net.launches + update.launches
    reads = net.host_reads + update.host_reads
    size = f"{net.bytes / 2**30:.2f}"
    share = f"{total / eager:.2f}"
    return (
        f"| {network} | {way} | {net.launches} | {update.launches} | {reads} | {total} | {share} | {size} |"
    )


def rows(network: str) -> list[str]:
    """Eager torch, inductor, the engine alone and with inductor."""
    theirs, ours = ways.eager_update(network, BATCH), ways.our_update()
    eager = ways.eager(network, BATCH)
    total = eager.launches + theirs.launches
    return [
        _row(network, "eager", eager, theirs, total),
        _row(network, "inductor", ways.inductor(network, BATCH), theirs, total),
        _row(network, "fastdiff, `inductor=False`", ways.engine(network, BATCH), ours, total),
        _row(network, "fastdiff", ways.inductor(network, BATCH, rewritten=True), ours, total),
    ]


TAIL = """
The goal, a third of eager torch's launches without inductor, is reached. The update is one launch, with nothing
read back by the host; in the networks, norms absorb the bias, the embedding, the residual and the concatenation
around them. What remains are convolutions and products, the norms themselves, attention, sums and biases before
a change of size, and, in lucidrains' network, its linear attention (softmax, products, memory tokens).
"""


def page() -> str:
    """The whole page."""
    lines = [HEAD.format(batch=BATCH), TABLE]
    for network in NETWORKS:
        lines += rows(network)
    return "\n".join(lines) + "\n" + TAIL
