"""What the tests of solver_step share: a row and everything that it may read at random, and one run of torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastdiff.ops import solver_step, use_backend

from .conftest import assert_as_exact_as_torch, random_inputs, random_row, table_of


class Step(NamedTuple):
    """Coefficients that are float32 in every type, so that only the arithmetic differs; what one call reads."""

    columns: dict[str, float]
    x: Tensor
    history: Tensor
    inputs: dict[str, Tensor]

    def double(self) -> Step:
        """The same in float64."""
        wide = {n: v.double() if v.is_floating_point() else v for n, v in self.inputs.items()}
        return Step(self.columns, self.x.double(), self.history.double(), wide)


def drawn(seed: int, batch: int, sizes: list[int]) -> Step:
    generator = np.random.default_rng(seed)
    shape = (batch, int(generator.integers(1, 4)), *sizes)
    columns = random_row(generator, density=generator.choice([0.3, 0.8]))
    inputs = random_inputs(generator, shape)
    x, *history = (torch.from_numpy(generator.normal(size=shape)).float() for _ in range(5))
    if generator.random() < 0.5:
        inputs["per_sample"] = torch.from_numpy(np.sort(generator.normal(size=(batch, 6)), axis=1)).float()
    columns = {name: float(np.float32(value)) for name, value in columns.items()}
    return Step(columns, x, torch.stack(history), inputs)


def run(backend: str, step: Step) -> tuple[Tensor, Tensor, Tensor]:
    """(next state, x0, history) of one backend; what it forgets to write stays NaN."""
    columns, x, history, inputs = step
    history, x0, out = history.clone(), torch.full_like(x, torch.nan), torch.full_like(x, torch.nan)
    given: dict[str, Any] = {"history": history, "x0_out": x0, "out": out, **inputs}
    with use_backend(backend):
        solver_step(table_of(columns, x.dtype), 0, x, **given)
    return out, x0, history


def compare(ours: Iterable[Tensor], step: Step) -> None:
    """(next state, x0, history) of a backend against torch, in float32 and in float64."""
    for one, two, three in zip(ours, run("torch", step), run("torch", step.double()), strict=True):
        if one.numel() >= 16:
            assert_as_exact_as_torch(one, two, three)
        else:  # a single sum may cancel, and torch may be exact by luck
            torch.testing.assert_close(one, three.float(), rtol=1e-5, atol=1e-6)
