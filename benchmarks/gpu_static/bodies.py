"""The CUDA C++ kernels: the bodies of csrc/include compiled by nvcc, where it is there."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
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


#: Bodies of the group norm x elements of 4 and 2 bytes x channels first and last, in packets of 16 bytes.
GROUP_NORM = {
    f"group_norm_{what}_kernel<{kind}, {count}, {'last' if last == 'true' else 'first'}>": (
        f"group_norm_{what}_kernel<{kind}, {count}, {last}>",
        f"group_norm_{what}_kernelI{mangled}Li{count}ELb{int(last == 'true')}E",
    )
    for what in ("slab", "part", "apply")
    for kind, mangled, count in (("float", "f", 4), ("uint16_t", "t", 8))
    for last in ("false", "true")
}
#: The nearest code x rows and codes of float32 and of 2 bytes.
VQ_NEAREST = {
    f"vq_nearest_kernel<{z}, {code}>": (f"vq_nearest_kernel<{z}, {code}>", f"vq_nearest_kernelI{one}{other}E")
    for z, one in (("float", "f"), ("uint16_t", "t"))
    for code, other in (("float", "f"), ("uint16_t", "t"))
}


def _compiled(source: str, architecture: int) -> tuple[str, str]:
    """(resources, machine code) of CUDA C++."""
    with tempfile.TemporaryDirectory() as folder:
        path, cubin = Path(folder) / "kernels.cu", Path(folder) / "kernels.cubin"
        path.write_text(source)
        flags = ["-std=c++20", "-O3", "-I", str(INCLUDE), f"-arch=sm_{architecture}", "-cubin"]
        subprocess.run(["nvcc", *flags, str(path), "-o", str(cubin)], check=True, capture_output=True)
        return machine.cuobjdump(cubin, "-res-usage"), machine.cuobjdump(cubin, "-sass")


def _kernel(mangled: str, usage: str, code: str) -> CudaFacts:
    found = re.search(rf"Function \S*?{mangled}\S*:\s*\n(.*)", usage)
    body = re.search(rf"Function : \S*?{mangled}\S*\n(.*?)(?=Function :|\Z)", code, re.DOTALL)
    assert found is not None and body is not None, mangled
    return _cuda_kernel(found[1], body[1])


def cuda_facts(architecture: int) -> dict[str, CudaFacts]:
    """Compile the bodies of csrc/include with nvcc, and count."""
    usage, code = _compiled(
        "".join(f'#include "fastdiff/{name}.cuh"\n' for name in CUDA_KERNELS), architecture
    )
    return {name: _kernel(f"{name}_kernelE", usage, code) for name in CUDA_KERNELS}


def _instantiated(
    room: str, launch: str, kernels: Mapping[str, tuple[str, str]], architecture: int
) -> dict[str, CudaFacts]:
    """The templates of one room, by (name, mangled name), instantiated as the launch does."""
    source = f'#include "fastdiff/{room}.cuh"\nnamespace fastdiff::device {{\n'
    source += "".join(
        f"template __global__ void {name}(const __grid_constant__ {launch});\n"
        for name, _ in kernels.values()
    )
    usage, code = _compiled(source + "}\n", architecture)
    return {name: _kernel(mangled, usage, code) for name, (_, mangled) in kernels.items()}


def group_norm_facts(architecture: int, what: str = "") -> dict[str, CudaFacts]:
    """The same for each kernel of the group norm whose name contains `what`."""
    chosen = {name: kernel for name, kernel in GROUP_NORM.items() if what in name}
    return _instantiated("group_norm_silu", "GroupNormLaunch", chosen, architecture)


def vq_nearest_facts(architecture: int) -> dict[str, CudaFacts]:
    """The same for the nearest code."""
    return _instantiated("vq_nearest", "VqNearestLaunch", VQ_NEAREST, architecture)


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
        for name, f in {**cuda_facts(arch), **group_norm_facts(arch), **vq_nearest_facts(arch)}.items()
    ]
