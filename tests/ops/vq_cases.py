"""What the tests of the nearest code share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from fastdiff.ops import use_backend, vq_nearest
from fastdiff.ops.vq_nearest import Nearest

Search = Callable[[torch.Tensor, torch.Tensor], Nearest]
EVERYTHING = {"return_quantised": True, "return_distance": True, "return_counts": True}


def distances(z: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """All squared distances in float64, without cancellation."""
    rows = z.double().reshape(-1, 1, z.shape[-1])
    return (rows - codebook.double()).square().sum(2)


def assert_nearest(index: torch.Tensor, z: torch.Tensor, codebook: torch.Tensor) -> None:
    """The float64 argmin, except where the two distances are closer than float32 can tell apart."""
    exact = distances(z, codebook)
    chosen = exact.gather(1, index.reshape(-1, 1)).squeeze(1)
    norms = z.double().reshape(-1, z.shape[-1]).square().sum(1) + codebook.double().square().sum(1).max()
    rounding = torch.finfo(torch.float32).eps * max(2.0, z.shape[-1] ** 0.5) * norms
    assert (chosen - exact.amin(1) <= rounding).all()


def drawn(generator: np.random.Generator, shape: tuple[int, ...], layout: str) -> torch.Tensor:
    values = torch.from_numpy(generator.normal(size=shape)).float()
    if layout == "channels first":
        return values.movedim(-1, 1).contiguous().movedim(1, -1) if values.dim() > 1 else values
    if layout == "sliced":
        return torch.cat([values, values, values], dim=-1)[..., shape[-1] : 2 * shape[-1]]
    return values


def searched_on(backend: str) -> Search:
    """`vq_nearest` with distances, on one backend."""

    def search(z: torch.Tensor, codebook: torch.Tensor) -> Nearest:
        with use_backend(backend):
            return vq_nearest(z, codebook, return_distance=True)

    return search


def check_ties(search: Search, shift: float, codes: tuple[int, int], rows: int, dtype: torch.dtype) -> None:
    """Whole numbers: every distance is exact, and many are equal; codes are (distinct, copies)."""
    generator = torch.Generator().manual_seed(5)
    codebook = torch.randint(-3, 4, (codes[0], 5), generator=generator).float().repeat(codes[1], 1) + shift
    z = torch.randint(-6, 7, (rows, 5), generator=generator) / 2.0 + shift
    exact = distances(z, codebook)
    lowest = (exact == exact.amin(1, keepdim=True)).int().argmax(1)
    assert torch.equal(search(z.to(dtype), codebook.to(dtype)).indices, lowest)


def check_far_from_zero(search: Search, rows: int) -> None:
    """Mean 1000, spread 0.01: the plain formula in float32 knows nothing here."""
    generator = torch.Generator().manual_seed(0)
    z = 1000 + 0.01 * torch.randn(rows, 32, generator=generator)
    codebook = 1000 + 0.01 * torch.randn(100, 32, generator=generator)
    found = search(z, codebook)
    exact = distances(z, codebook)
    chosen = exact.gather(1, found.indices.unsqueeze(1)).squeeze(1)
    assert (chosen <= exact.amin(1) * (1 + 1e-5)).all()
    assert torch.allclose(found.distance.double(), chosen, rtol=1e-5)


def check_not_a_number(search: Search) -> None:
    """A code with such an element is nobody's nearest; a row with one gets code 0 at no distance."""
    z, codebook = torch.randn(40, 20), torch.randn(50, 20)
    z[3, 7], codebook[0, 2], codebook[9] = torch.nan, torch.nan, torch.inf
    keep = [k for k in range(50) if k not in (0, 9)]
    found, clean = search(z, codebook), torch.tensor(keep)[search(z, codebook[keep]).indices]
    assert found.indices[3] == 0 and found.distance[3].isnan()
    rest = torch.arange(40) != 3
    assert torch.equal(found.indices[rest], clean[rest]) and found.distance[rest].isfinite().all()
