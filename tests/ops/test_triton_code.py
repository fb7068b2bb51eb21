"""The machine code of the Triton kernels: nothing spills, every access to a state is 128 bits wide."""

from __future__ import annotations

import pytest

from benchmarks.gpu_static import machine, steps

from .machine_code import compiles, pairs

pytestmark = compiles
QUICK = {(3, 90), (4, 80), (0, 100)}
PAIRS = pairs(steps.CASES, lambda case: case.kernel, QUICK)


@pytest.mark.parametrize(("case", "arch"), PAIRS)
def test_machine_code(case, arch):
    facts = machine.facts(steps.build(case), arch)
    ideal, loads, stores = steps.ideal_accesses(case)
    assert (
        facts.stack == 0 and facts.registers * 128 * 3 <= machine.REGISTERS
    )  # three blocks at once at least
    assert facts.shared <= 8 * 1024
    assert (facts.wide("ld"), facts.wide("st"), facts.narrow("st")) == (loads, stores, 0)
    assert steps.moved(facts) <= 1.10 * 128 * ideal
    draws = 2 if "known" in case.given else 1 if "seeds" in case.given or case.kernel == "normal" else 0
    assert facts.mul_hi <= 40 * draws
    assert (facts.mul_hi > 0) == (draws > 0)
