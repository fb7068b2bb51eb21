"""The search for the nearest code against torch (cdist, and one product), faiss, and the rate of a plain product."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor

from benchmarks.cases import CODEBOOKS
from benchmarks.clocks import Candidate
from fastdiff.ops import vq_code_sums, vq_nearest

HAS_FAISS = importlib.util.find_spec("faiss") is not None


def drawn(rows: int, codes: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows + codes)
    return torch.randn(rows, width, generator=generator), torch.randn(codes, width, generator=generator)


def by_product(z: Tensor, codebook: Tensor) -> Candidate:
    """|c|^2 - 2 z c, whose least is the nearest code: one call less than cdist, and no root; |c|^2 made beforehand."""
    squares, columns = codebook.square().sum(1), codebook.t()
    return lambda: torch.addmm(squares, z, columns, alpha=-2).argmin(1)


def faiss_search(z: Tensor, codebook: Tensor) -> Candidate:
    """faiss with its index built beforehand; it has threads of its own, as many as torch has."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(codebook.shape[1])
    index.add(codebook.contiguous().numpy())
    rows = z.contiguous().numpy()
    return lambda: index.search(rows, 1)


@pytest.mark.parametrize("shape", CODEBOOKS.values(), ids=CODEBOOKS.keys())
def bench_vq_nearest(duel, place, shape):
    """The ratio over sgemm_2048 is of times; `sgemm_flops` and `flops` turn it into a ratio of rates."""
    z, codebook = (t.to(place) for t in drawn(*shape))
    a, b, out = (torch.randn(2048, 2048, device=place) for _ in range(3))

    def check() -> None:
        exact = torch.cdist(z[:500].double(), codebook.double()).square()
        index = vq_nearest(z, codebook).indices[:500]
        gap = exact.gather(1, index.unsqueeze(1)).squeeze(1) - exact.amin(1)
        assert (gap <= 1e-5 * exact.amin(1)).all()

    candidates: dict[str, Candidate] = {
        "fastdiff": lambda: vq_nearest(z, codebook),
        "torch.cdist": lambda: torch.cdist(z, codebook).argmin(1),
        "torch.addmm": by_product(z, codebook),
        "sgemm 2048": lambda: torch.mm(a, b, out=out),
    }
    why = (
        "" if HAS_FAISS and place == "cpu" else "not installed" if place == "cpu" else "faiss-cpu has no GPU"
    )
    if not why:
        candidates["faiss IndexFlatL2"] = faiss_search(z, codebook)
    rows, codes, width = shape
    work = {"flops": 2 * rows * codes * width, "sgemm_flops": 2 * 2048**3}
    aim = 1.2 if width == 256 else 1.5
    bar = {rival: aim for rival in ("torch.cdist", "faiss IndexFlatL2") if rival in candidates}
    if place != "cpu":
        bar = {}
    elif width >= 64:  # 85 % of the rate of the product
        bar["sgemm 2048"] = 0.85 * work["sgemm_flops"] / work["flops"]
    result = duel(
        f"vq_nearest, {shape}",
        candidates,
        check=check,
        rounds=9,
        shape=shape,
        cannot={"faiss IndexFlatL2": why} if why else {},
        bar=bar,
        **work,
    )
    rate = work["flops"] / work["sgemm_flops"] * result.speedup["sgemm 2048"].median
    print(f"    {100 * rate:.0f} % of the rate of a 2048^3 sgemm in the same rounds")


@pytest.mark.parametrize("shape", CODEBOOKS.values(), ids=CODEBOOKS.keys())
def bench_vq_nearest_with_everything(duel, place, shape):
    """Codes, distances and counts in the same pass, against the cheapest calls of torch after its own search."""
    z, codebook = (t.to(place) for t in drawn(*shape))

    def ours() -> object:
        return vq_nearest(z, codebook, return_quantised=True, return_distance=True, return_counts=True)

    def torch_calls() -> object:
        distance, index = torch.cdist(z, codebook).min(1)
        return codebook[index], distance.square(), torch.bincount(index, minlength=codebook.shape[0])

    def check() -> None:
        ours_found, torch_found = ours(), torch_calls()
        torch.testing.assert_close(ours_found.distance, torch_found[1], rtol=1e-3, atol=1e-3)

    duel(
        f"vq_nearest with everything, {shape}",
        {"fastdiff": ours, "torch": torch_calls},
        check=check,
        rounds=5,
        shape=shape,
    )


@pytest.mark.parametrize("shape", CODEBOOKS.values(), ids=CODEBOOKS.keys())
def bench_vq_code_sums(duel, place, shape):
    z, codebook = (t.to(place) for t in drawn(*shape))
    index, codes = vq_nearest(z, codebook).indices, codebook.shape[0]

    def torch_calls() -> Tensor:
        return torch.zeros_like(codebook).index_add_(0, index, z)

    def check() -> None:
        torch.testing.assert_close(vq_code_sums(z, index, codes).sums, torch_calls(), rtol=1e-4, atol=1e-4)

    candidates = {"fastdiff": lambda: vq_code_sums(z, index, codes), "torch index_add_": torch_calls}
    duel(f"vq_code_sums, {shape}", candidates, check=check, rounds=20, shape=shape)
