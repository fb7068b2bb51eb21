"""The machine code of the Triton attention kernels: nothing spills, shared memory fits, products on tensor cores."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks.gpu_static import attention, machine
from fastdiff.ops import device

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif(
        importlib.util.find_spec("fastdiff.kernels") is None, reason="fastdiff.kernels is not installed"
    ),
    pytest.mark.skipif(device.INTERPRETED, reason="what is interpreted is not compiled"),
]
QUICK = {
    (attention.Case("attention_kernel", 64, "float16"), 80),
    (attention.Case("attention_kernel", 64, "bfloat16"), 90),
    (attention.Case("attention_kernel", 256, "float32"), 89),
    (attention.Case("attention_dkv_kernel", 64, "float16"), 90),
    (attention.Case("attention_dq_kernel", 40, "bfloat16"), 80),
    (attention.Case("linear_attention_part_kernel", 32, "float32"), 90),
    (attention.Case("linear_attention_kernel", 64, "float16"), 90),
    (attention.Case("attention_dot_kernel", 64, "float16"), 100),
}
PAIRS = [
    pytest.param(
        case,
        arch,
        marks=[] if (case, arch) in QUICK else pytest.mark.slow,
        id=f"{case.kernel}-{case.width}-{case.dtype}-sm_{arch}",
    )
    for case in attention.CASES
    for arch in machine.ARCHITECTURES
]
#: Half precision runs on the tensor cores that came with each architecture; 3 x TF32 may run on older instructions.
OWN = {80: ("HMMA",), 89: ("HMMA",), 90: ("HGMMA",), 100: ("UTCMMA", "UTCHMMA")}
ANY = ("HMMA", "HGMMA", "UTCMMA", "UTCHMMA")


def test_the_quick_ones_exist():
    assert {case for case, _ in QUICK} <= set(attention.CASES)


@pytest.mark.parametrize(("case", "arch"), PAIRS)
def test_machine_code(case, arch):
    facts = machine.facts(attention.build(case, arch), arch)
    assert facts.stack == 0 and facts.shared <= machine.SHARED[arch]
    assert (
        facts.wide("ld") >= 1 or case.width == 16
    )  # half-type tiles that narrow have less than 16 bytes a thread
    if "_dot_" not in case.kernel and "_join_" not in case.kernel:  # the others have no matrix product
        # The context of heads 32 wide has half the rows that one wgmma takes.
        own = case.kernel != "linear_attention_part_kernel"
        names = OWN[arch] if own and case.dtype != "float32" else ANY
        assert sum(facts.tensor[name] for name in names) > 0
