"""Moving averages against a float64 loop, revival, and several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fastdiff.nn.codebook import EMACodebook


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loop64(codebook: EMACodebook, batches: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The update spelled out, row by row, in float64, on the indices the codes of that moment give."""
    e, n, m = (
        t.detach().double().clone()
        for t in (codebook.weight, codebook.ema_cluster_size, codebook.ema_positions)
    )
    g = codebook.decay
    for z in batches:
        counts, sums = torch.zeros_like(n), torch.zeros_like(m)
        for row in z.double().reshape(-1, z.shape[-1]):
            k = int((row - e).square().sum(1).argmin())
            counts[k] += 1
            sums[k] += row
        n, m = g * n + (1 - g) * counts, g * m + (1 - g) * sums
        smooth = (n + codebook.eps) / (n.sum() + len(n) * codebook.eps) * n.sum()
        if codebook.compat:
            n = smooth
        e = m / smooth[:, None]
    return e, n, m


@pytest.mark.parametrize("compat", [False, True])
def test_sums_and_counts_equal_a_float64_loop(compat: bool) -> None:
    torch.manual_seed(0)
    codebook = EMACodebook(6, 4, decay=0.9, revive=0.0, compat=compat)
    with torch.no_grad():
        codebook.weight.copy_(drawn(6, 4, seed=1))
        codebook.ema_positions.copy_(codebook.weight)
    batches = [drawn(3, 7, 5, 4, seed=s) for s in range(2, 8)]
    exact = loop64(codebook, batches)
    for z in batches:
        codebook(z)
    for found, wanted in zip(
        (codebook.weight, codebook.ema_cluster_size, codebook.ema_positions), exact, strict=True
    ):
        torch.testing.assert_close(found.detach().double(), wanted, rtol=1e-5, atol=1e-6)


def test_codes_are_used_before_they_move_and_rest_outside_of_training() -> None:
    codebook, z = EMACodebook(5, 3), drawn(40, 3, seed=0)
    before = codebook.weight.clone()
    out = codebook(z)
    assert torch.equal(out.quantised, before[out.indices]) and not torch.equal(codebook.weight, before)
    moved = codebook.weight.clone()
    codebook.eval()(z)
    assert torch.equal(codebook.weight, moved)


def test_the_codes_have_no_gradient_but_rows_are_drawn_to_them() -> None:
    codebook, z = EMACodebook(5, 3, commitment=0.5), drawn(40, 3, seed=0).requires_grad_()
    assert list(codebook.parameters()) == []
    out = codebook(z)
    out.loss.backward()
    torch.testing.assert_close(z.grad, (z.detach() - out.quantised) / 120)
    assert isinstance(EMACodebook(5, 3, compat=True).weight, torch.nn.Parameter)


def test_codes_converge_to_the_means_of_clusters() -> None:
    torch.manual_seed(0)
    centres = 5 * torch.eye(4)
    codebook = EMACodebook(4, 4, decay=0.8)
    for step in range(200):
        pick = torch.randint(4, (64,), generator=torch.Generator().manual_seed(step))
        codebook(centres[pick] + 0.1 * drawn(64, 4, seed=step))
    found = codebook.weight[codebook.eval()(centres).indices]
    torch.testing.assert_close(found, centres, rtol=0, atol=0.15)
    assert codebook(centres).usage == 1


def test_dead_codes_become_rows_of_the_batch_and_start_with_the_mean_count() -> None:
    torch.manual_seed(0)
    codebook = EMACodebook(4, 2, decay=0.5, revive=0.05)
    codebook.weight[0] = 100.0
    codebook.ema_positions.copy_(codebook.weight)
    z = drawn(5, 8, 2, seed=3)
    steps = 0
    while codebook.weight[0, 0] > 50:
        assert (codebook.ema_cluster_size[0] / codebook.ema_cluster_size.mean()) >= 0.05
        codebook(z)
        steps += 1
    assert steps == 2  # 0.5 of a mean of 5.5, 0.25 of a mean of 7.75
    assert (codebook.weight[0] == z.reshape(-1, 2)).all(1).any()
    assert codebook.ema_cluster_size[0] > 1
    torch.testing.assert_close(codebook.ema_positions[0], codebook.weight[0] * codebook.ema_cluster_size[0])
    never = EMACodebook(4, 2, decay=0.5, revive=0.0)
    never.weight[0] = 100.0
    never.ema_positions.copy_(never.weight)
    for _ in range(8):
        never(z)
    assert never.weight[0].min() > 50


def test_a_row_that_is_not_a_number_revives_nothing() -> None:
    codebook = EMACodebook(4, 2)
    rows = torch.full((3, 2), float("nan"))
    codebook.ema_cluster_size[0] = 0
    before = codebook.weight.clone()
    codebook._revive(rows)
    assert torch.equal(codebook.weight, before)


def test_a_single_row_without_batch_dimension() -> None:
    codebook = EMACodebook(3, 2, revive=0.5)
    assert codebook(torch.ones(2)).indices.shape == ()


def test_no_rows_at_all_leave_the_original_codes_alone() -> None:
    codebook = EMACodebook(3, 2, compat=True)
    before = codebook.weight.detach().clone()
    codebook(torch.zeros(0, 2))
    assert torch.equal(codebook.weight.detach(), before)


def _process(rank: int, world: int, folder: str) -> None:
    """One process: a codebook that revives codes, with uneven and missing rows, and one that does not."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    reviving, plain = EMACodebook(6, 3, decay=0.5, revive=0.2), EMACodebook(6, 3, decay=0.5, revive=0.0)
    torch.manual_seed(rank)
    for step in range(6):
        rows = drawn(20, 3, seed=step)
        reviving(rows[: 20 * rank] if step == 3 else rows.chunk(world)[rank])
        plain(rows.chunk(world)[rank])
    torch.save((reviving.state_dict(), plain.state_dict()), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch is built without torch.distributed")
def test_processes_keep_one_codebook_of_the_rows_of_all(tmp_path: Path) -> None:
    mp.spawn(_process, (2, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    torch.manual_seed(0)
    _, whole = (EMACodebook(6, 3, decay=0.5, revive=share) for share in (0.2, 0.0))  # drawn in the same order
    for step in range(6):
        whole(drawn(20, 3, seed=step))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(first[1][name], value, rtol=1e-5, atol=1e-6)
