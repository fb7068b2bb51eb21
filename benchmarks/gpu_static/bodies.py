"""The CUDA C++ kernels: the bodies of csrc/include compiled by nvcc, where it is there."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import machine

INCLUDE = Path(__file__).parents[2] / "csrc" / "include"


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
        usage, code = machine.cuobjdump(cubin, "-res-usage"), machine.cuobjdump(cubin, "-sass")
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
        *machine.used(usage), count(wide.format("LDG")), count(wide.format("STG")), count(r"\b(?:LDL|STL)\b")
    )


def cuda_table() -> list[str]:
    """Rows of the table of the CUDA C++ kernels."""
    return [
        f"| {name} | sm_{arch} | {f.registers} | {f.stack} | {f.shared} | "
        f"{f.wide_loads} | {f.wide_stores} | {f.local} |"
        for arch in machine.ARCHITECTURES
        for name, f in cuda_facts(arch).items()
    ]
