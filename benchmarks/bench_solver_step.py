"""The ops against plain torch, which gets preallocated outputs and the fewest calls that compute the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.cases import DDPM_ROW, MULTISTEP_ROW, STATES
from benchmarks.clocks import Candidate
from fastdiff.ops import normal, solver_step
from fastdiff.ops.philox import Stream
from fastdiff.ops.row import make_row


def table_of(place: str, **columns: float) -> Tensor:
    return torch.from_numpy(make_row(**columns)).float().unsqueeze(0).to(place)


def without_gradient(ours: Candidate, eager: EagerStep) -> dict[str, Candidate]:
    """All as a sampling loop calls them; torch.compile makes one loop over the tensors of the whole formula."""
    torch.compiler.reset()
    compiled = torch.compile(eager.formula, dynamic=False)
    candidates = {"fastdiff": ours, "torch eager": eager, "torch.compile": lambda: compiled(*eager.inputs())}
    return {name: torch.no_grad()(candidate) for name, candidate in candidates.items()}


class EagerStep:
    """x0 = clamp(u_x x + u_m m); out = b x + a x0 (+ s noise) (+ h_0 old), in place wherever torch allows it."""

    def __init__(self, x: Tensor, m: Tensor, row: dict[str, float], old: Tensor | None = None) -> None:
        self.x, self.m, self.row, self.old = x, m, row, old
        self.x0, self.out, self.noise = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)

    def __call__(self) -> Tensor:
        if "s" in self.row:
            self.noise.normal_()
        return self.update()

    def inputs(self) -> list[Tensor]:
        """What `formula` takes."""
        return [self.x, self.m, *([] if self.old is None else [self.old])]

    def formula(self, x: Tensor, m: Tensor, old: Tensor | None = None) -> Tensor:
        """The same, as it is written where somebody else makes it fast."""
        row = self.row
        x0 = (row["u_x"] * x + row["u_m"] * m).clamp(row["lo"], row["hi"])
        out = row["b"] * x + row["a"] * x0
        if "s" in row:
            out = out + row["s"] * torch.randn_like(x)
        return out if old is None else out + row["h_0"] * old

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
def bench_solver_step_with_noise(duel, place, shape):
    x, m = torch.randn(shape, device=place), torch.randn(shape, device=place)
    seeds, out = torch.arange(shape[0], device=place), torch.empty(shape, device=place)
    table, eager = table_of(place, **DDPM_ROW), EagerStep(x, m, DDPM_ROW)

    def ours() -> Tensor:
        return solver_step(table, 0, x, m, seeds=seeds, out=out)

    def check() -> None:
        eager.noise.copy_(normal(seeds, shape[1:], row=0, stream=Stream.SOLVER))
        torch.testing.assert_close(ours(), eager.update(), rtol=1e-5, atol=1e-5)

    bar = {"torch eager": 10 if shape[2] == 32 else 15} if place == "cpu" else {}
    duel(f"solver_step with noise, {shape}", without_gradient(ours, eager), check=check, shape=shape, bar=bar)


@pytest.mark.parametrize("shape", STATES.values(), ids=STATES.keys())
def bench_solver_step_without_noise(duel, place, shape):
    x, m, old = (torch.randn(shape, device=place) for _ in range(3))
    table, out, history = table_of(place, **MULTISTEP_ROW), torch.empty(shape, device=place), old[None]
    eager = EagerStep(x, m, MULTISTEP_ROW, old)

    def ours() -> Tensor:
        return solver_step(table, 0, x, m, history=history, out=out)

    def check() -> None:
        wanted = eager()
        torch.testing.assert_close(eager.formula(*eager.inputs()), wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours(), wanted, rtol=1e-5, atol=1e-5)

    bar = {"torch eager": 4} if place == "cpu" else {}
    duel(
        f"solver_step without noise, {shape}",
        without_gradient(ours, eager),
        check=check,
        shape=shape,
        bar=bar,
    )


@pytest.mark.parametrize("shape", STATES.values(), ids=STATES.keys())
def bench_normal(duel, place, shape):
    seeds, out = torch.arange(shape[0], device=place), torch.empty(shape, device=place)

    def check() -> None:
        noise = normal(seeds, shape[1:], stream=Stream.INITIAL)
        assert noise.shape == shape and abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02

    candidates = {
        "fastdiff": lambda: normal(seeds, shape[1:], stream=Stream.INITIAL),
        "torch.randn": lambda: out.normal_(),
    }
    duel(f"normal, {shape}", candidates, check=check, shape=shape)
