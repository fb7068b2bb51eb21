"""CUDA graphs of the sampling loop: what is replayed equals rows carried out one by one, and the CPU's images."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdiff
from fastdiff import nn as fnn
from fastdiff.guidance import Guidance
from fastdiff.sampling import Dynamic, recorded
from fastdiff.schedule import Schedule

OPTIONS: dict[str, Any] = {
    "schedule": Schedule.cosine(100),
    "prediction": "eps",
    "shape": (1, 16, 16),
    "num": 3,
    "device": "cuda",
}
LABELS = {"labels": [0, 1, 2]}


def unet(**options: Any) -> fnn.UNet:
    torch.manual_seed(0)
    sizes = {"channels": 32, "channel_mults": (1, 2), "blocks": 1, "groups": 4, "num_classes": 3}
    net = fnn.UNet(in_channels=1, **{**sizes, **options}).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return net.cuda()


def close(got: Tensor, wanted: Tensor, allowed: float = 1e-4) -> None:
    assert got.shape == wanted.shape
    error = float((got.cpu().float() - wanted.cpu().float()).abs().max())
    assert error <= allowed, error


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": "ddpm", **LABELS},
        {"solver": "heun", "s_churn": 10.0},
        {"solver": "unipc"},
        {"solver": "dpmpp_2m_sde"},
        {"guidance": Guidance(3.0, interval=(20, 80)), **LABELS},
        {"guidance": Guidance(2.0, rescale=0.7, parallel=0.5), "clip": Dynamic(most=2.0), **LABELS},
        {"x_init": torch.zeros(1, 16, 16), "mask": torch.eye(16), "resample": (2, 2)},
        {"noise": "shared", "solver": "ddpm"},
        {"solver": "ddpm", "trajectory": True},
    ],
    ids=str,
)
def test_equal_to_rows_one_by_one_and_to_the_cpu(options: dict[str, Any]) -> None:
    net = unet()
    plain = fastdiff.sample(net, 12, compile=False, **OPTIONS, **options)
    first = fastdiff.sample(net, 12, compile=True, **OPTIONS, **options)
    again = fastdiff.sample(net, 12, compile=True, **OPTIONS, **options)
    assert len(recorded.RECORDINGS) > 0
    assert torch.equal(first, again)
    close(first, plain)
    on_cpu = fastdiff.sample(net.cpu(), 12, compile=False, **{**OPTIONS, **options, "device": "cpu"})
    close(first, on_cpu, 2e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_networks(dtype: torch.dtype) -> None:
    net = unet()
    half = fastdiff.sample(net, 12, compile=True, dtype=dtype, **OPTIONS)
    plain = fastdiff.sample(net, 12, compile=False, dtype=dtype, **OPTIONS)
    close(half, plain, 0.05)


@pytest.mark.parametrize("compiled", [True, False])
def test_compiled_networks(compiled: bool) -> None:
    net = unet()
    plain = fastdiff.sample(net, 12, compile=False, **OPTIONS)
    fast: Any = fastdiff.compile(net, inductor=False) if compiled else torch.compile(net, backend="fastdiff")
    for _ in range(2):
        close(fastdiff.sample(fast, 12, compile=True, **OPTIONS), plain, 2e-3)


def test_other_seeds_labels_and_guidance_are_the_same_recording() -> None:
    net = unet()
    runs: list[dict[str, Any]] = [
        {"seed": 0, "labels": [0, 1, 2], "guidance": 2.0},
        {"seed": 9, "labels": [2, 2, 1], "guidance": 4.0},
        {"seed": 9, "labels": [2, 2, 1], "guidance": 4.0, "solver": "ddpm"},
    ]
    for run in runs:
        got = fastdiff.sample(net, 12, compile=True, **OPTIONS, **run)
        close(got, fastdiff.sample(net, 12, compile=False, **OPTIONS, **run))
    assert len(recorded.RECORDINGS) == 1


def test_results_do_not_share_memory_with_the_next_run() -> None:
    net = unet()
    first = fastdiff.sample(net, 12, compile=True, **OPTIONS)
    before = first.clone()
    fastdiff.sample(net, 12, compile=True, seed=7, **OPTIONS)
    assert torch.equal(first, before)


def test_edits_in_place_and_other_weights() -> None:
    net = unet()

    def agrees() -> None:
        got = fastdiff.sample(net, 12, compile=True, **OPTIONS)
        close(got, fastdiff.sample(net, 12, compile=False, **OPTIONS))

    agrees()
    for weight in net.parameters():
        weight.data.mul_(0.9)
    agrees()
    assert len(recorded.RECORDINGS) == 1
    net.load_state_dict({name: 0.9 * value for name, value in net.state_dict().items()}, assign=True)
    agrees()
    net.to(memory_format=torch.channels_last)
    agrees()


def test_callbacks_see_the_states_of_their_rows_and_can_stop() -> None:
    net, seen = unet(), {True: [], False: []}
    results = {}
    for compile in (False, True):

        def watch(step: int, t: float, x: Tensor, x0: Tensor, compile: bool = compile) -> bool:
            seen[compile].append((step, t, x.clone(), x0.clone()))
            return step == 4

        results[compile] = fastdiff.sample(net, 12, compile=compile, callback=watch, **OPTIONS)
    assert len(seen[True]) == len(seen[False]) == 5
    close(results[True], results[False])
    for (a, t, x, x0), (b, u, y, y0) in zip(seen[True], seen[False]):
        assert (a, t) == (b, u)
        close(x, y)
        close(x0, y0)


class Reads(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x * float(x.abs().max().clamp(max=1.0))


class Copies(nn.Module):
    """Brings a tensor from the host at every call, from memory that a graph cannot read."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x * torch.tensor([0.5]).to(x.device)


@pytest.mark.parametrize("kind", [Reads, Copies])
def test_what_cannot_be_captured_is_told_and_the_device_goes_on(kind: type[nn.Module]) -> None:
    net = kind()
    plain = fastdiff.sample(net, 12, compile=False, **OPTIONS)
    with pytest.raises(ValueError, match="record|graph|host"):
        fastdiff.sample(net, 12, compile=True, **OPTIONS)
    assert len(recorded.RECORDINGS) == 0
    recorded.REFUSED.clear()
    with pytest.warns(UserWarning):
        close(fastdiff.sample(net, 12, **OPTIONS), plain)
    other = unet()
    close(
        fastdiff.sample(other, 12, compile=True, **OPTIONS),
        fastdiff.sample(other, 12, compile=False, **OPTIONS),
    )


def test_two_threads_at_once() -> None:
    net, results = unet(), {}
    plain = [fastdiff.sample(net, 12, compile=False, seed=seed, **OPTIONS) for seed in (0, 50)]

    def work(index: int, seed: int) -> None:
        results[index] = [fastdiff.sample(net, 12, compile=True, seed=seed, **OPTIONS) for _ in range(3)]

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate((0, 50))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    for index, many in results.items():
        for got in many:
            close(got, plain[index])


def test_on_a_stream_of_the_callers() -> None:
    net = unet()
    plain = fastdiff.sample(net, 12, compile=False, **OPTIONS)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got = [fastdiff.sample(net, 12, compile=True, seed=0, **OPTIONS) for _ in range(2)]
    stream.synchronize()
    for one in got:
        close(one, plain)


def test_recordings_give_their_memory_back() -> None:
    net = unet()
    fastdiff.sample(net, 12, compile=True, **OPTIONS)
    recorded.RECORDINGS.clear()
    before = torch.cuda.memory_allocated()
    for num in range(1, 25):
        fastdiff.sample(net, 12, compile=True, **{**OPTIONS, "num": num})
    assert len(recorded.RECORDINGS) <= recorded.RECORDINGS.most
    recorded.RECORDINGS.clear()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() - before < 16 << 20
