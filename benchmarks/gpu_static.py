"""What the GPU kernels are as machine code: ``python -m benchmarks.gpu_static`` writes docs/gpu_static.md.

Triton compiles ahead of time and needs no GPU; the tables hold static facts, not timings.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARCHITECTURES = (80, 89, 90, 100)
#: Threads and 32-bit registers of one multiprocessor.
THREADS = {80: 2048, 89: 1536, 90: 2048, 100: 2048}
REGISTERS = 65536
INCLUDE = Path(__file__).parents[1] / "csrc" / "include"
_FLOATS = {"*fp32": 4, "*fp16": 2, "*bf16": 2}
_STATE = (
    "out",
    "noise_out",
    "x0_out",
    "x0",
    "x",
    "m",
    "m_u",
    "v",
    "cond",
    "noise",
    "known",
    "mask",
    "known_noise",
)
_READ_ONLY_STATE = frozenset(_STATE) - {"out", "noise_out", "x0_out"}


@dataclass(frozen=True)
class Case:
    """One specialisation of a kernel: which pointers are given, and of which types.

    Attributes:
        kernel: file of `fastdiff.kernels` that holds `<kernel>_kernel`.
        title: what it does, for the table.
        given: optional pointers that are not None; the rest of `optional` is.
        types: pointer types other than float32.
        history: (reads, writes) of the ring.
    """

    kernel: str
    title: str
    given: tuple[str, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    history: tuple[int, int] = (0, 0)


CASES = (
    Case("normal", "noise alone"),
    Case("add_noise", "noise made inside", ("seeds",)),
    Case("add_noise", "bfloat16 data, noise kept", ("seeds", "noise_out"), {"x0": "*bf16"}),
    Case("solver_step", "DDPM: x, m, noise made inside", ("m", "seeds")),
    Case("solver_step", "the same, bfloat16 m", ("m", "seeds"), {"m": "*bf16"}),
    Case("solver_step", "three histories, two pushes", ("m", "history"), history=(3, 2)),
    Case("solver_step", "guidance pair, float16", ("m", "m_u"), {"m": "*fp16", "m_u": "*fp16"}),
    Case(
        "solver_step",
        "everything a row may read",
        ("m", "m_u", "v", "cond", "history", "seeds", "known", "mask", "per_sample", "x0_out"),
        history=(3, 2),
    ),
)
_POINTERS = {
    "normal": {"out": "*fp32", "seeds": "*i64", "rows": None},
    "add_noise": {
        **dict.fromkeys(("out", "x0", "alpha", "sigma"), "*fp32"),
        **dict.fromkeys(("noise_out", "seeds", "rows", "noise", "shifts")),
    },
    "solver_step": {
        **dict.fromkeys(("out", "table", "x"), "*fp32"),
        "counter": "*i64",
        **dict.fromkeys(("x0_out", "history", "m", "m_u", "v", "cond", "seeds", "noise", "known", "mask")),
        **dict.fromkeys(("known_noise", "per_sample")),
    },
}
#: Whole numbers that are multiples of 16 for states of real sizes; triton looks at each call.
_ROUND = ("count", "pixels", "ring", "x0_sample", "net_sample", "mask_sample")
_FIXED = {"DENSE": True, "NET_DENSE": True, "MASK_DENSE": True, "WIDE": False}


def kernel_of(case: Case) -> Any:
    """The kernel; where triton's interpreter is on, it cannot be compiled."""
    import importlib

    return getattr(importlib.import_module(f"fastdiff.kernels.{case.kernel}"), f"{case.kernel}_kernel")


def pointers(case: Case) -> dict[str, str | None]:
    """Type of every pointer argument, None where it is not given."""
    kinds: dict[str, str | None] = dict(_POINTERS[case.kernel])
    kinds |= {name: "*i64" if name == "seeds" else "*fp32" for name in case.given}
    return kinds | dict(case.types)


def compiled(case: Case, architecture: int) -> Any:
    """The specialisation, compiled ahead of time for one architecture."""
    import triton
    from fastdiff.kernels.launching import BLOCK, WARPS
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, kinds = kernel_of(case), pointers(case)
    fixed: dict[str, Any] = {name: value for name, value in _FIXED.items() if name in kernel.arg_names}
    fixed |= {"BLOCK": BLOCK} | {name: None for name, kind in kinds.items() if kind is None}
    signature = {name: kinds.get(name) or _scalar(name) for name in kernel.arg_names}
    signature |= dict.fromkeys(fixed, "constexpr")
    aligned = [name for name in (*kinds, *_ROUND) if name in signature and name not in fixed]
    place = kernel.arg_names.index
    source = ASTSource(
        kernel,
        signature=signature,
        constexprs={(place(name),): value for name, value in fixed.items()},
        attrs={(place(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": WARPS})


def _scalar(name: str) -> str:
    return "fp32" if name == "offset" else "i64" if name in ("row", "ring") else "i32"


def ideal_accesses(case: Case) -> tuple[int, int, int]:
    """(bytes, loads, stores) that one thread of 8 elements must make; an access moves 16 bytes."""
    kinds = pointers(case)
    width = {name: 8 * _FLOATS[str(kinds[name])] for name in _STATE if kinds.get(name)}
    loads = sum(size for name, size in width.items() if name in _READ_ONLY_STATE) + 32 * case.history[0]
    stores = sum(size for name, size in width.items() if name not in _READ_ONLY_STATE) + 32 * case.history[1]
    return loads + stores, loads // 16, stores // 16


@dataclass(frozen=True)
class Facts:
    """What the machine code of one kernel holds."""

    registers: int
    stack: int
    shared: int
    wide_loads: int
    wide_stores: int
    single_loads: int
    single_stores: int
    mul_hi: int
    moved: float
    ideal: float

    def resident(self, architecture: int, threads: int = 128) -> float:
        """Share of a multiprocessor's threads that its registers let run at once."""
        rounded = -(-self.registers // 8) * 8
        blocks = min(REGISTERS // (rounded * threads), THREADS[architecture] // threads)
        return blocks * threads / THREADS[architecture]


def facts(case: Case, architecture: int) -> Facts:
    """Compile and count."""
    kernel = compiled(case, architecture)
    registers, stack, _ = resources(kernel.asm["cubin"])
    shared = kernel.metadata.shared  # asked for at the launch, so not in the file
    accesses = re.findall(r"\b(ld|st)\.global(?:\.[a-z:]+\w*)*?(?:\.v(\d))?\.b(\d+)", kernel.asm["ptx"])
    wide = {
        op: sum(1 for o, n, bits in accesses if o == op and int(n or 1) * int(bits) == 128)
        for op in ("ld", "st")
    }
    single = [
        (op, int(n or 1) * int(bits) // 8) for op, n, bits in accesses if int(n or 1) * int(bits) != 128
    ]
    # What is not 128 bits wide is the row and the seed: one address for the whole program of 128 threads.
    moved = 16 * sum(wide.values()) + sum(size for _, size in single) / 128
    return Facts(
        registers,
        stack,
        shared,
        wide["ld"],
        wide["st"],
        sum(op == "ld" for op, _ in single),
        sum(op == "st" for op, _ in single),
        len(re.findall(r"\bmul\.hi\.u32", kernel.asm["ptx"])),
        moved / 8,
        ideal_accesses(case)[0] / 8,
    )


def tool(name: str) -> str:
    """cuobjdump or nvdisasm, which triton brings."""
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _cuobjdump(cubin: Path, what: str) -> str:
    folder = str(Path(tool("nvdisasm")).parent)
    path = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [tool("cuobjdump"), what, str(cubin)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=path).stdout


def resources(cubin: bytes) -> tuple[int, int, int]:
    """(registers, bytes of stack and spills, bytes of shared memory) of a file with one kernel."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        return _used(_cuobjdump(path, "-res-usage"))


def _used(text: str) -> tuple[int, int, int]:
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", text)}
    return found["REG"], found["STACK"] + found["LOCAL"], found["SHARED"]


@dataclass(frozen=True)
class CudaFacts:
    """What the machine code of one CUDA C++ kernel holds; every tensor it may read has its own instructions."""

    registers: int
    stack: int
    shared: int
    wide_loads: int
    wide_stores: int
    local: int  # instructions that touch the stack


CUDA_KERNELS = ("normal", "add_noise", "solver_step")


def cuda_facts(architecture: int) -> dict[str, CudaFacts]:
    """Compile the bodies of csrc/include with nvcc, and count."""
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder) / "kernels.cu", Path(folder) / "kernels.cubin"
        source.write_text("".join(f'#include "fastdiff/{name}.cuh"\n' for name in CUDA_KERNELS))
        flags = ["-std=c++20", "-O3", "-I", str(INCLUDE), f"-arch=sm_{architecture}", "-cubin"]
        subprocess.run(["nvcc", *flags, str(source), "-o", str(cubin)], check=True, capture_output=True)
        usage, code = _cuobjdump(cubin, "-res-usage"), _cuobjdump(cubin, "-sass")
    names = "|".join(CUDA_KERNELS)
    used = dict(re.findall(rf"Function \S*?({names})_kernelE\S*:\s*\n(.*)", usage))
    bodies = dict(
        re.findall(rf"Function : \S*?({names})_kernelE\S*\n(.*?)(?=Function :|\Z)", code, re.DOTALL)
    )
    return {name: _cuda_kernel(used[name], bodies[name]) for name in CUDA_KERNELS}


def _cuda_kernel(usage: str, code: str) -> CudaFacts:
    def count(pattern: str) -> int:
        return len(re.findall(pattern, code))

    wide = r"\b{}\.E(?:\.[A-Z]+)*\.128\b"
    return CudaFacts(
        *_used(usage), count(wide.format("LDG")), count(wide.format("STG")), count(r"\b(?:LDL|STL)\b")
    )


HEAD = """# GPU kernels, static facts

Written by `python -m benchmarks.gpu_static`: what the compilers make of the kernels, read from PTX and machine code.
**No figure here is a timing; none of these kernels has run on a GPU yet.** That they compute the right numbers is
tested without one: the Triton kernels in triton's interpreter, the bodies of the CUDA kernels compiled for the host
under AddressSanitizer and UndefinedBehaviorSanitizer, both against float64 (`tests/ops`).

Columns: registers of a thread; stack = bytes of stack and spills of a thread; shared = bytes of shared memory of a
block (of CUDA C++ on sm_90 and sm_100 with the 1024 that the system keeps); resident = share of a multiprocessor's
threads that the registers let run at once; 128-bit loads and stores of a thread; mul.hi = instructions of the noise;
bytes of an element = what all accesses of a block move for each element, where the row uses everything that the case
may read (the row itself and the seed count once for a block: all threads read one address), against what they must.
"""


def triton_table(architecture: int) -> list[str]:
    """Rows of the table of one architecture."""
    rows = []
    for case in CASES:
        f = facts(case, architecture)
        share = f"{f.resident(architecture):.0%}"
        held = f"{f.registers} | {f.stack} | {f.shared} | {share}"
        bytes_moved = f"{f.moved:.2f} / {f.ideal:.0f} = {f.moved / f.ideal:.3f}"
        counted = f"{f.wide_loads} | {f.wide_stores} | {f.mul_hi} | {bytes_moved}"
        rows.append(f"| {case.kernel} | {case.title} | {held} | {counted} |")
    return rows


def cuda_table() -> list[str]:
    """Rows of the table of the CUDA C++ kernels."""
    return [
        f"| {name} | sm_{arch} | {f.registers} | {f.stack} | {f.shared} | "
        f"{f.wide_loads} | {f.wide_stores} | {f.local} |"
        for arch in ARCHITECTURES
        for name, f in cuda_facts(arch).items()
    ]


def report() -> str:
    """The whole page."""
    import triton

    lines = [HEAD, f"## Triton {triton.__version__} (128 threads, 8 elements a thread)"]
    for arch in ARCHITECTURES:
        lines += ["", f"### sm_{arch}", ""]
        lines += [
            "| kernel | case | registers | stack | shared | resident | loads | stores | mul.hi | bytes of an element |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *triton_table(arch),
        ]
    lines += ["", "## CUDA C++ (256 threads, 4 elements a thread)", ""]
    if shutil.which("nvcc") is None:
        return "\n".join([*lines, "nvcc is not here."]) + "\n"
    lines += [
        "One kernel for every row: each tensor that may be given has instructions of its own, 128 bits wide where its "
        "address allows; `local` counts instructions that touch the stack.",
        "",
        "| kernel | architecture | registers | stack | shared | 128-bit loads | 128-bit stores | local |",
        "|---|---|---|---|---|---|---|---|",
        *cuda_table(),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "docs" / "gpu_static.md"
    target.write_text(report(), encoding="utf-8")
    print(target.read_text(encoding="utf-8"))
