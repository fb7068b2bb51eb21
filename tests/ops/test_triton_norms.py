"""The machine code of the Triton normalisations: nothing spills, every access to a map is 128 bits wide."""

from __future__ import annotations

import pytest

from benchmarks.gpu_static import machine, norms

from .machine_code import compiles, pairs

pytestmark = compiles
QUICK = {(0, 90), (1, 80), (6, 89), (7, 100), (16, 80), (17, 90), (27, 90), (29, 100), (31, 80)}
PAIRS = pairs(norms.CASES, lambda case: case.op, QUICK)


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
