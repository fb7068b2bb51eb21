"""Sampling: the public call and the one loop behind it."""

from __future__ import annotations

from fastdiff.sampling.batches import sample_batches
from fastdiff.sampling.sample import sample

__all__ = ["sample", "sample_batches"]
