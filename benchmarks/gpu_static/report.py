"""The page docs/gpu_static.md."""

from __future__ import annotations

import shutil

from . import attention, bodies, codes, machine, norms, steps, traffic

HEAD = """# GPU kernels, static facts

Written by `python -m benchmarks.gpu_static`: what the compilers make of the kernels, read from PTX and machine code.
**No figure here is a timing** (those are in [figures of GPUs](gpu_results.md)). That they compute the right numbers is
tested without one: the Triton kernels in triton's interpreter, the bodies of the CUDA kernels compiled for the host
under AddressSanitizer and UndefinedBehaviorSanitizer, both against float64 (`tests/ops`).

Columns: registers of a thread; stack = bytes of stack and spills of a thread; shared = bytes of shared memory of a
block (of CUDA C++ on sm_90 and sm_100 with the 1024 that the system keeps); resident = share of a multiprocessor's
threads that the registers let run at once; 128-bit loads and stores of a thread; mul.hi = instructions of the noise;
bytes of an element = what all accesses of a block move for each element, where the row uses everything that the case
may read (the row itself and the seed count once for a block: all threads read one address), against what they must.
"""


NORMS = """A group norm whose slab fits is one kernel; else a partial and an apply kernel. A gradient: one kernel, or
sums and gradient. HMMA is mma.sync, HGMMA wgmma, UTCHMMA tcgen05."""
TRAFFIC = """Counted in triton's interpreter for one sample (of vq_nearest: 512 rows, 512 codes): each program pays for
the distinct 32-byte sectors it reads and writes, loops and masks as in a real call. A pass is one read or one write of
the map. What a second-level cache saves is not counted."""


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
        "Width: of a head; tile: rows that a program owns x rows of a step (linear_attention: x columns); loads: those "
        "of 128 bits of all.",
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
        "One kernel for every row: each tensor that may be given has instructions of its own, 128 bits wide where its "
        "address allows; `local` counts instructions that touch the stack. The cluster path of the group norm (sm_90 "
        "and later, same kernel) computes the right numbers on the host; that a device runs it is unproven. "
        "Shared memory asked for at the launch is not in the column: the group norm takes what its slab needs, the "
        "nearest code 18 KB and 8 KB for every 16 dimensions where the device has that, else 34 KB.",
        "",
        "| kernel | architecture | registers | stack | shared | 128-bit loads | 128-bit stores | local |",
        "|---|---|---|---|---|---|---|---|",
        *bodies.cuda_table(),
    ]
    return "\n".join(lines) + "\n"
