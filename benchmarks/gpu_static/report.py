"""The page docs/gpu_static.md."""

from __future__ import annotations

import shutil

from . import attention, bodies, codes, machine, norms, steps, traffic

HEAD = """# GPU kernels: static facts

Written by `python -m benchmarks.gpu_static`: what the compilers make of the kernels, read from PTX and machine
code. **No figure here is a timing**; those are in [GPU results](gpu_results.md). That the kernels compute the
right numbers is tested without a GPU (`tests/ops`): the Triton kernels in triton's interpreter, the bodies of
the CUDA kernels compiled for the host under AddressSanitizer and UndefinedBehaviorSanitizer, both against
float64.

Columns: registers per thread; stack: bytes of stack and spills per thread; shared: bytes of shared memory per
block (for CUDA C++ on sm_90 and sm_100 including the 1024 that the system reserves); resident: share of a
multiprocessor's threads that the registers allow to run at once; loads and stores: 128-bit ones per thread;
mul.hi: instructions of the noise; bytes of an element: what all accesses of a block move per element, against
the minimum, where the row uses everything that the case may read (the row itself and the seed count once per
block, since all threads read the same address).
"""


NORMS = """A group norm is one kernel if its slab (the groups that are read together) fits, otherwise a partial and an
apply kernel. A gradient is one kernel, or one for the sums and one for the gradient. HMMA is mma.sync, HGMMA
wgmma, UTCHMMA tcgen05."""
TRAFFIC = """Counted in triton's interpreter for one sample (vq_nearest: 512 rows, 512 codes). Each program is charged
for the distinct 32-byte sectors it reads and writes, with loops and masks as in a real call. A pass is
one read or one write of the map. Savings by the second-level cache are not counted."""


def report() -> str:
    """The whole page."""
    import triton

    lines = [HEAD, f"## Triton {triton.__version__} (128 threads, 8 elements a thread)"]
    for arch in machine.ARCHITECTURES:
        lines += ["", f"### sm_{arch}", ""]
        lines += [
            "| kernel | case | registers | stack | shared | resident | loads | stores | mul.hi | bytes of an element |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *steps.table(arch),
        ]
    lines += ["", "## Triton: normalisations and codebooks", "", NORMS]
    for arch in machine.ARCHITECTURES:
        lines += ["", f"### sm_{arch}, normalisations", ""]
        lines += [
            "| kernel | map | registers | stack | shared | resident | loads | stores |",
            "|---|---|---|---|---|---|---|---|",
            *norms.table(arch),
            "",
            f"### sm_{arch}, codebooks (tile: rows x codes x elements)",
            "",
            "| kernel | case | tile | registers | stack | shared | resident | loads | stores | tensor cores |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *codes.table(arch),
        ]
    lines += ["", "### Bytes asked for", "", TRAFFIC, ""]
    lines += [
        "| op | case | direction | ideal | bytes | / ideal |",
        "|---|---|---|---|---|---|",
        *traffic.table(),
    ]
    lines += [
        "",
        "## Triton: attention",
        "",
        "Width: of a head; tile: rows owned by a program x rows per step (linear_attention: x columns); loads: 128-bit "
        "ones of all.",
        "",
        "| kernel | width | type | architecture | tile | registers | stack | shared | resident | loads | products |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *attention.table(),
    ]
    lines += [
        "",
        "## CUDA C++ (256 threads, 4 elements a thread; group norm: 512 threads, packets of 16 bytes; nearest "
        "code: 256 threads, 64 scores a thread)",
        "",
    ]
    if shutil.which("nvcc") is None:
        return "\n".join([*lines, "nvcc is not here."]) + "\n"
    lines += [
        "One kernel serves every row: each optional tensor has instructions of its own, 128 bits wide where "
        "its address allows; `local` counts instructions that touch the stack. The cluster path of the group "
        "norm (sm_90 and later, same kernel) computes the right numbers on the host; it has not been shown to"
        " run on a device. Shared memory requested at launch is not in the column: the group norm takes what "
        "its slab needs, the nearest code 18 KB plus 8 KB for every 16 dimensions if the device has that "
        "much, otherwise 34 KB.",
        "",
        "| kernel | architecture | registers | stack | shared | 128-bit loads | 128-bit stores | local |",
        "|---|---|---|---|---|---|---|---|",
        *bodies.cuda_table(),
    ]
    return "\n".join(lines) + "\n"
