"""The ops against plain torch, which gets preallocated outputs and the fewest calls that compute the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.cases import DDPM_ROW, MULTISTEP_ROW, STATES
from benchmarks.measure import Candidate
from fastdiff.ops import normal, solver_step
from fastdiff.ops.philox import Stream
from fastdiff.ops.row import make_row


def table_of(**columns: float) -> Tensor:
    return torch.from_numpy(make_row(**columns)).float().unsqueeze(0)


def without_gradient(ours: Candidate, eager: Candidate) -> dict[str, Candidate]:
    """Both as a sampling loop calls them."""
    return {"fastdiff": torch.no_grad()(ours), "torch eager": torch.no_grad()(eager)}


class EagerStep:
    """x0 = clamp(u_x x + u_m m); out = b x + a x0 (+ s noise) (+ h_0 old), in place wherever torch allows it."""

    def __init__(self, x: Tensor, m: Tensor, row: dict[str, float], old: Tensor | None = None) -> None:
        self.x, self.m, self.row, self.old = x, m, row, old
        self.x0, self.out, self.noise = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)

    def __call__(self) -> Tensor:
        if "s" in self.row:
            torch.randn(self.noise.shape, out=self.noise)
        return self.update()

    def update(self) -> Tensor:
        row = self.row
        torch.mul(self.x, row["u_x"], out=self.x0)
        self.x0.add_(self.m, alpha=row["u_m"]).clamp_(row["lo"], row["hi"])
        torch.mul(self.x, row["b"], out=self.out)
        self.out.add_(self.x0, alpha=row["a"])
        if "s" in row:
            self.out.add_(self.noise, alpha=row["s"])
        if self.old is not None:
            self.out.add_(self.old, alpha=row["h_0"])
        return self.out


@pytest.mark.parametrize("shape", STATES.values(), ids=STATES.keys())
def bench_solver_step_with_noise(duel, shape):
    x, m, seeds = torch.randn(shape), torch.randn(shape), torch.arange(shape[0])
    table, out, eager = table_of(**DDPM_ROW), torch.empty(shape), EagerStep(x, m, DDPM_ROW)

    def ours() -> Tensor:
        return solver_step(table, 0, x, m, seeds=seeds, out=out)

    def check() -> None:
        eager.noise.copy_(normal(seeds, shape[1:], row=0, stream=Stream.SOLVER))
        torch.testing.assert_close(ours(), eager.update(), rtol=1e-5, atol=1e-5)

    bar = {"torch eager": 10 if shape[2] == 32 else 15}
    duel(f"solver_step with noise, {shape}", without_gradient(ours, eager), check=check, shape=shape, bar=bar)


@pytest.mark.parametrize("shape", STATES.values(), ids=STATES.keys())
def bench_solver_step_without_noise(duel, shape):
    x, m, history = torch.randn(shape), torch.randn(shape), torch.randn(1, *shape)
    table, out, eager = (
        table_of(**MULTISTEP_ROW),
        torch.empty(shape),
        EagerStep(x, m, MULTISTEP_ROW, history[0]),
    )

    def ours() -> Tensor:
        return solver_step(table, 0, x, m, history=history, out=out)

    def check() -> None:
        torch.testing.assert_close(ours(), eager(), rtol=1e-5, atol=1e-5)

    bar = {"torch eager": 4}
    duel(
        f"solver_step without noise, {shape}",
        without_gradient(ours, eager),
        check=check,
        shape=shape,
        bar=bar,
    )


@pytest.mark.parametrize("shape", STATES.values(), ids=STATES.keys())
def bench_normal(duel, shape):
    seeds, out = torch.arange(shape[0]), torch.empty(shape)

    def check() -> None:
        noise = normal(seeds, shape[1:], stream=Stream.INITIAL)
        assert noise.shape == shape and abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02

    candidates = {
        "fastdiff": lambda: normal(seeds, shape[1:], stream=Stream.INITIAL),
        "torch.randn": lambda: torch.randn(shape, out=out),
    }
    duel(f"normal, {shape}", candidates, check=check, shape=shape)
