"""Sampling: the public call and the one loop behind it."""

from __future__ import annotations

from fastdiff.sampling.batches import sample_batches, step_table
from fastdiff.sampling.optimize import optimized_times
from fastdiff.sampling.paths import interpolate
from fastdiff.sampling.reductions import Dynamic
from fastdiff.sampling.sample import sample

__all__ = ["Dynamic", "interpolate", "optimized_times", "sample", "sample_batches", "step_table"]
