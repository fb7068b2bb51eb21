"""The bytes that the Triton kernels ask for, counted in the interpreter, against what they must move."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks.gpu_static import codes, norms, traffic

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or importlib.util.find_spec("fastdiff.kernels") is None,
    reason="triton or fastdiff.kernels is not installed",
)
#: float32 slab, slab of groups of 40 and its gradient in two launches, two launches of a sum, RMS norm, search.
QUICK = ("norms 0", "norms 12", "norms 13", "norms 30", "norms 18", "codes 1")
#: The maps of the VAE take the interpreter minutes.
SLOW = [f"norms {i}" for i, case in enumerate(norms.CASES) if case.side <= 64]
SLOW += [f"codes {i}" for i, case in enumerate(codes.CASES) if case.op == "vq_nearest"]


@pytest.mark.parametrize("names", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["quick", "all"])
def test_bytes_are_near_the_ideal(names):
    for name, (moved, ideal) in traffic.measured(*names).items():
        assert ideal <= moved <= 1.10 * ideal, (name, moved / ideal)
