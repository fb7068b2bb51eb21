"""What a solver costs on the shipped model, by evaluations: the seconds beside which `benchmarks.plots` draws quality.

All take turns, set as for benchmarks/solver_quality.py, which judged their images with several processes at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

import fastdiff
from benchmarks.clocks import Candidate
from benchmarks.solver_quality import ENTRIES, EVALUATIONS

NUM, DTYPE = 16, torch.bfloat16


def bench_solvers(duel):
    model = fastdiff.load("fashion")
    model.net.to(memory_format=torch.channels_last)
    labels = [k % 10 for k in range(NUM)]

    def sampler(solver: str, spacing: str, count: int) -> Candidate:
        def run() -> Tensor:
            options = {"solver": solver, "spacing": spacing, "dtype": DTYPE}
            return fastdiff.sample(model, count, num=NUM, labels=labels, **options)

        return run

    candidates = {
        f"{name}, {count}": sampler(*choice, count)
        for name, choice in ENTRIES.items()
        for count in sorted(EVALUATIONS)
    }

    def check() -> None:
        for name in ENTRIES:
            images = candidates[f"{name}, 5"]()
            assert images.isfinite().all() and images.abs().max() <= 1.5, name

    duel(f"{NUM} images by every solver, bfloat16", candidates, check=check, rounds=3, images=NUM)
