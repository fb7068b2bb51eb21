"""The machine code of the Triton vq kernels: nothing spills, shared memory fits, products run on tensor cores."""

from __future__ import annotations

import pytest

from benchmarks.gpu_static import codes, machine

from .machine_code import compiles, pairs

pytestmark = compiles
QUICK = {(1, 80), (1, 90), (6, 90)}
PAIRS = pairs(codes.CASES, lambda case: case.op, QUICK)
#: mma.sync, wgmma and tcgen05 as machine code.
TENSOR = {80: "HMMA", 89: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}


@pytest.mark.parametrize(("case", "arch"), PAIRS)
def test_machine_code(case, arch):
    for build in codes.builds(case, arch):
        facts = machine.facts(build, arch)
        assert facts.stack == 0 and facts.shared <= machine.SHARED[arch]
        if build.kernel != "vq_code_sums_kernel":
            assert facts.wide("ld") >= 2
        if case.op == "vq_nearest":
            assert facts.tensor[TENSOR[arch]] > 0 and facts.wide("st") >= 2
