"""The machine code of the Triton normalisations: nothing spills, every access to a map is 128 bits wide."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks.gpu_static import machine, norms
from fastdiff.ops import device

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif(
        importlib.util.find_spec("fastdiff.kernels") is None, reason="fastdiff.kernels is not installed"
    ),
    pytest.mark.skipif(device.INTERPRETED, reason="what is interpreted is not compiled"),
]
QUICK = {(0, 90), (1, 80), (6, 89), (7, 100), (16, 80), (17, 90), (27, 90), (29, 100), (31, 80)}
PAIRS = [
    pytest.param(
        case, arch, marks=[] if (i, arch) in QUICK else pytest.mark.slow, id=f"{case.op}-{i}-sm_{arch}"
    )
    for i, case in enumerate(norms.CASES)
    for arch in machine.ARCHITECTURES
]


@pytest.mark.parametrize(("case", "arch"), PAIRS)
def test_machine_code(case, arch):
    for build in norms.builds(case):
        facts = machine.facts(build, arch)
        assert facts.stack == 0 and facts.shared <= machine.SHARED[arch]
        assert facts.resident(arch) >= 0.24  # 512 threads at least
        elements = build.fixed["CHANNELS"] * build.fixed["PIXELS"] // (32 * build.warps)
        wide = max(1, elements * case.size // 16)
        tensors = 2 if case.backward else 1
        assert facts.wide("ld") >= wide * tensors, "x and the gradient are read in pieces of 128 bits"
        if "out" in build.arguments:
            assert facts.wide("st") >= wide
