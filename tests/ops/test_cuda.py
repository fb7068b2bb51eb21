"""The CUDA kernels: their bodies compiled for the host under sanitizers, and the device code compiled where nvcc is."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_static import bodies, machine

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INCLUDE = ROOT / "csrc" / "include"
CXX = os.environ.get("CXX", "g++")
KERNELS = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
ROOMS = [HERE / f"hosted_{room}.py" for room in ("cuda", "norms", "codes")]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


def run(command, **variables):
    result = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.skipif(shutil.which(CXX) is None, reason="there is no C++ compiler")
def test_bodies_are_right_on_the_host(tmp_path):
    library = tmp_path / "hosted.so"
    flags = ["-std=c++20", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", *SANITIZERS]
    run([CXX, *flags, "-I", INCLUDE, "-x", "c++", HERE / "hosted_cuda.cpp", "-o", library])
    preloaded = [run([CXX, f"-print-file-name={name}"]).strip() for name in ("libasan.so", "libstdc++.so")]
    if not all(Path(path).is_absolute() for path in preloaded):
        pytest.skip(f"{CXX} brings no address sanitizer")
    run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *ROOMS],
        LD_PRELOAD=" ".join(preloaded),  # without libstdc++ the sanitizer does not know how to throw
        ASAN_OPTIONS="detect_leaks=0:detect_odr_violation=0",
        UBSAN_OPTIONS="print_stacktrace=1",
        FASTDIFF_HOSTED=str(library),
        OMP_NUM_THREADS="1",
    )


needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton, which brings cuobjdump, is not installed"
)
#: Every tensor that a kernel may read or write, once: (loads, stores).
ACCESSES = {"normal": (0, 1), "add_noise": (2, 2), "solver_step": (1 + 8 + 3, 2 + 2)}


@needs_nvcc
@needs_triton
@pytest.mark.parametrize(
    ("arch", "what", "kernels"),
    [
        (90, "uint16_t, 8, last", 3),
        *(pytest.param(arch, "", 12, marks=pytest.mark.slow) for arch in machine.ARCHITECTURES),
    ],
)
def test_machine_code_of_the_group_norm(arch, what, kernels):
    """In packets of 16 bytes; the part kernel only reads."""
    found = bodies.group_norm_facts(arch, what)
    assert len(found) == kernels
    for name, facts in found.items():
        assert facts.stack == 0 and facts.local == 0, name
        assert facts.registers * 512 <= machine.REGISTERS, name
        assert facts.wide_loads >= 1 and (facts.wide_stores >= 1 or "part" in name), name


@needs_nvcc
@needs_triton
@pytest.mark.parametrize(
    "arch", [90, *(pytest.param(arch, marks=pytest.mark.slow) for arch in (80, 89, 100))]
)
def test_machine_code(arch):
    for name, facts in bodies.cuda_facts(arch).items():
        loads, stores = ACCESSES[name]
        assert facts.stack == 0 and facts.local == 0, name
        assert facts.registers * 256 * 2 <= machine.REGISTERS, name  # two blocks at once at least
        assert facts.wide_loads >= loads and facts.wide_stores >= stores, name


@needs_nvcc
@needs_triton
@pytest.mark.parametrize(
    "arch", [90, *(pytest.param(arch, marks=pytest.mark.slow) for arch in (80, 89, 100))]
)
def test_machine_code_of_the_nearest_code(arch):
    """Rows, codes and what is written in 16 bytes each; a whole block's threads fit the registers."""
    for name, facts in bodies.vq_nearest_facts(arch).items():
        assert facts.stack == 0 and facts.local == 0, name
        assert facts.registers * 256 <= machine.REGISTERS, name
        assert facts.wide_loads >= 2 and facts.wide_stores >= 1, name


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("source", KERNELS, ids=lambda path: path.stem)
def test_bindings_compile(source, tmp_path):
    """With torch's headers; linking needs a torch that is built for CUDA."""
    from torch.utils import cpp_extension

    include = [f"-I{folder}" for folder in (INCLUDE, *cpp_extension.include_paths())]
    architectures = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in machine.ARCHITECTURES]
    macros = ["-DUSE_CUDA=1", "-DTORCH_TARGET_VERSION=0x020b000000000000", "-DPy_LIMITED_API=0x030a0000"]
    run(
        [
            "nvcc",
            "-std=c++20",
            "-O1",
            *macros,
            *include,
            *architectures,
            "-c",
            source,
            "-o",
            tmp_path / "kernel.o",
        ]
    )
