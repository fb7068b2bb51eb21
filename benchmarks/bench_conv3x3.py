"""conv3x3 against oneDNN's prepacked direct convolution and ncnn's Winograd, alone and with what surrounds it.

A candidate runs `LAYERS` layers of a shape, each with weights of its own, as a network does: weights come from memory
and not from the cache of the call before. ncnn has no batches and takes the images one after the other.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.cases import DDPM_CIFAR10_CONVS, FUSED_CONVS
from fastdiff.ops import NormFactors, channel_statistics, conv3x3, norm_factors
from fastdiff.ops.conv3x3 import choose, pack

HAS_NCNN = importlib.util.find_spec("ncnn") is not None
LAYERS = 4
Layer = Callable[[Tensor, int], Tensor]


def last(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def weights(outs: int, channels: int) -> list[Tensor]:
    return [last(outs, channels, 3, 3) / (9 * channels) ** 0.5 for _ in range(LAYERS)]


def one_dnn(filters: list[Tensor], x: Tensor) -> Layer:
    """torch's own convolution with weights laid out beforehand, as torch.compile with freezing calls it."""
    one, size = [1, 1], list(x.shape)
    ready = [torch.ops.mkldnn._reorder_convolution_weight(w, one, one, one, 1, size) for w in filters]
    return lambda x, i: torch.ops.mkldnn._convolution_pointwise(
        x, ready[i], None, one, one, one, 1, "none", [], ""
    )


def ours(filters: list[Tensor], x: Tensor) -> Layer:
    outs, channels = filters[0].shape[:2]
    algorithm = choose(x.shape[0], channels, outs, x.shape[2], x.shape[3])
    ready = [pack(w, algorithm) for w in filters]
    out = last(x.shape[0], outs, *x.shape[2:])
    return lambda x, i: conv3x3(x, ready[i], out=out)


def all_layers(layer: Layer, x: Tensor) -> Callable[[], None]:
    def run() -> None:
        for i in range(LAYERS):
            layer(x, i)

    return run


def ncnn_layers(filters: list[Tensor], x: Tensor, folder: Path) -> Callable[[], object]:
    """The layers as one network of ncnn, so that packing its input and unpacking its output weigh little."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = torch.get_num_threads()
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, name, False)
    outs, channels = filters[0].shape[:2]
    lines = ["7767517", f"{LAYERS + 1} {LAYERS + 1}"]
    lines.append(f"Input b0 0 1 b0 0={x.shape[3]} 1={x.shape[2]} 2={channels}")
    lines += [
        f"Convolution c{i} 1 1 b{i} b{i + 1} 0={outs} 1=3 4=1 5=0 6={outs * channels * 9}"
        for i in range(LAYERS)
    ]
    (folder / "net.param").write_text("\n".join(lines) + "\n")
    (folder / "net.bin").write_bytes(b"".join(bytes(4) + w.contiguous().numpy().tobytes() for w in filters))
    if net.load_param(str(folder / "net.param")) or net.load_model(str(folder / "net.bin")):
        raise RuntimeError("ncnn does not read the network")
    images = [ncnn.Mat(image.contiguous().numpy()).clone() for image in x]

    def run() -> None:
        for image in images:
            extractor = net.create_extractor()
            extractor.input("b0", image)
            extractor.extract(f"b{LAYERS}")

    run.net = net  # type: ignore[attr-defined]
    return run


def exact_enough(layer: Layer, filters: list[Tensor], x: Tensor) -> Callable[[], None]:
    def check() -> None:
        exact = functional.conv2d(x.double(), filters[0].double(), padding=1)
        assert (layer(x, 0) - exact).abs().max() <= 1e-4 * exact.abs().max()

    return check


#: Aimed at for these (size, inputs, outputs) at batch 4.
BARRED = {(32, 128, 128), (16, 256, 256)}
BARS = {"oneDNN prepacked": 2.2, "ncnn": 1.4}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("size, channels, outs, count", DDPM_CIFAR10_CONVS)
def bench_conv3x3(duel, tmp_path, batch, size, channels, outs, count):
    x, filters = last(batch, channels, size, size), weights(outs, channels)
    layer = ours(filters, x)
    candidates = {"fastdiff": all_layers(layer, x), "oneDNN prepacked": all_layers(one_dnn(filters, x), x)}
    candidates["torch channels_last"] = all_layers(
        lambda x, i: functional.conv2d(x, filters[i], padding=1), x
    )
    if HAS_NCNN and channels == outs:
        candidates["ncnn"] = ncnn_layers(filters, x, tmp_path)
    duel(
        f"{LAYERS} conv3x3 {batch}x{channels}->{outs} {size}x{size}",
        candidates,
        check=exact_enough(layer, filters, x),
        rounds=15,
        shape=(batch, channels, outs, size),
        layers_of_the_network=count,
        algorithm=choose(batch, channels, outs, size, size),
        flops=2 * 9 * LAYERS * batch * channels * outs * size * size,
        bar=dict(BARS) if batch == 4 and (size, channels, outs) in BARRED else {},
        cannot={} if HAS_NCNN else {"ncnn": "not installed"},
    )


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("size, channels", FUSED_CONVS)
def bench_block(duel, batch, size, channels):
    """GroupNorm, SiLU, convolution, time embedding, residual and the statistics for the next GroupNorm."""
    x, filters, skip = (
        last(batch, channels, size, size),
        weights(channels, channels),
        last(batch, channels, size, size),
    )
    bias, time, gain = torch.randn(channels), torch.randn(batch, channels), torch.ones(channels)
    ready = [pack(w, choose(batch, channels, channels, size, size)) for w in filters]
    direct, out = one_dnn(filters, x), torch.empty_like(x)

    def fused(x: Tensor, i: int) -> Tensor:
        norm = NormFactors(norm_factors(channel_statistics(x), 32, gain, bias))
        return conv3x3(
            x, ready[i], bias, norm=norm, activate=True, add=time, residual=skip, statistics=True, out=out
        )[0]

    def apart(x: Tensor, i: int) -> Tensor:
        v = functional.silu(functional.group_norm(x, 32, gain, bias))
        return direct(v, i).add_((bias + time)[:, :, None, None]).add_(skip)

    def check() -> None:
        torch.testing.assert_close(fused(x, 0), apart(x, 0), rtol=1e-3, atol=1e-3)

    candidates = {"fastdiff": all_layers(fused, x), "torch with oneDNN prepacked": all_layers(apart, x)}
    duel(
        f"{LAYERS} blocks {batch}x{channels} {size}x{size}",
        candidates,
        check=check,
        rounds=15,
        shape=(batch, channels, size),
    )
