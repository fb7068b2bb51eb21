"""Launches of a sampling step: what the docs say is counted anew, and held."""

from __future__ import annotations

import pytest
import torch

from benchmarks.launches import ways
from benchmarks.launches.count import Launches
from fastdiff.engine import live_ops


def test_one_launch_between_two_network_calls_and_nothing_read_on_the_host() -> None:
    between = ways.our_update()
    assert between.by_name == {"solver_step_cpp": 1} and between.launches == 1 and between.host_reads == 0


def test_what_counts() -> None:
    x, weight, bias = torch.randn(1, 4, 6, 6), torch.randn(4, 4, 3, 3), torch.randn(4)
    with torch.no_grad(), Launches("cpu") as counted:
        y = torch.conv2d(x, weight, bias).view(4, 16).t()[1:]
        torch.group_norm(x, 2)
        y.add_(1)
        y.sum().item()
    assert dict(counted.by_name) == {"convolution": 2, "native_group_norm": 3, "add_": 1, "sum": 1}
    assert counted.host_reads == 1


@pytest.mark.parametrize("network", ["ddpm-cifar10 35.7 M", "guided 64x64"])
def test_a_step_of_the_engine_alone_is_a_third_of_eager_torchs_launches(network: str) -> None:
    """docs/gpu_launches.md, without inductor: the network and the update."""
    pytest.importorskip("diffusers")
    eager, ours = ways.eager(network, 16), ways.engine(network, 16)
    update = ways.eager_update(network, 16)
    assert 3 * (ours.launches + 1) <= eager.launches + update.launches
    assert ours.bytes < eager.bytes and ours.host_reads == 0


def test_a_norm_with_sums_is_one_launch_and_a_large_one_two() -> None:
    x, rows = torch.randn(1, 32, 8, 8), torch.randn(1, 32)
    large = torch.randn(1, 32, 160, 160)
    for one, kernels in ((x, 1), (large, 2)):
        with torch.no_grad(), Launches("cpu") as counted:
            live_ops.norm_silu_and_sum(
                *(one, 4, None, None, None, None, 1e-5, True), rows, one, None, None, False, False
            )
        assert counted.by_name["norm_silu_and_sum"] == kernels
