"""The network and the whole loop on this machine: 50 DDIM steps with the shipped model, executed in several ways.

Every way draws the images of the same seeds. Each is held against those that the CPU draws in eager torch: an image may
differ by 1e-3 of the range, since a convolution may be computed by another algorithm.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn

from fastdiff import engine
from fastdiff.doctor.devices import Device
from fastdiff.doctor.examine import Finding
from fastdiff.model import Model, load
from fastdiff.sampling.sample import sample

#: What the findings of the loop are of, in place of an op.
LOOP = "sample"
STEPS, IMAGES = 50, 16
_ALLOWED = 2e-3  # images reach from -1 to 1
_RUNS, _CALLS = 3, 9
#: A way that compiles is silent for longer than a kernel.
PATIENCE_S = 150.0


def _inductor(net: nn.Module) -> nn.Module:
    torch._dynamo.reset()
    return torch.compile(net)  # type: ignore[return-value]


def _engine(net: nn.Module) -> nn.Module:
    torch._dynamo.reset()
    return engine.compile(net, inductor=False)  # type: ignore[no-any-return]


def _as_it_is(net: nn.Module) -> nn.Module:
    return net


#: way -> (what becomes of the network, whether the loop is recorded: a CUDA graph).
WAYS: dict[str, tuple[Callable[[nn.Module], nn.Module], bool]] = {
    "eager": (_as_it_is, False),
    "fastdiff": (_engine, False),
    "graph": (_as_it_is, True),
    "fastdiff in a graph": (_engine, True),
    "inductor": (_inductor, False),
}


def drawn(net: nn.Module, device: str, record: bool) -> Tensor:
    """(IMAGES, C, H, W) of seeds 0, 1, ... on a device, row by row or recorded."""
    model = shipped()
    return sample(
        net,
        STEPS,
        num=IMAGES,
        shape=model.shape,
        schedule=model.schedule,
        prediction=model.prediction,
        labels=list(range(model.num_classes))[:IMAGES] or None,
        device=device,
        compile=record,
    )


@lru_cache(maxsize=1)
def shipped() -> Model:
    """The model that comes along."""
    return load("fashion")


@lru_cache(maxsize=1)
def of_the_cpu() -> Tensor:
    """The images that every way is held against."""
    return drawn(load("fashion").net, "cpu", False)


def examine_loop(device: Device, way: str, begin: Callable[[str, str], None]) -> Iterator[Finding]:
    """The finding of one way.

    Args:
        device: where.
        way: a name of `WAYS`.
        begin: called with (way, phase) before something is called that may crash.
    """
    prepare, record = WAYS[way]
    found = Finding(LOOP, way, f"{IMAGES} images, {STEPS} steps", "forward", "right")
    if record and device.kind != "cuda":
        found.state, found.note = "absent", "loops are recorded on a CUDA device"
        yield found
        return
    begin("torch", "reference")
    wanted = of_the_cpu()
    begin(way, "forward")
    try:
        _try(device, prepare, record, wanted, found)
    except Exception as error:
        found.failed(error)
    yield found


def _try(
    device: Device,
    prepare: Callable[[nn.Module], nn.Module],
    record: bool,
    wanted: Tensor,
    found: Finding,
) -> None:
    place = device.put(torch.zeros(1)).device
    plain = load("fashion").net.to(place).eval()
    net, began = prepare(plain), time.perf_counter()
    images = drawn(net, str(place), record)
    first_s = time.perf_counter() - began
    error = float((images.cpu() - wanted).abs().max())
    found.error = error / _ALLOWED
    if not error <= _ALLOWED:
        found.state, found.note = (
            "wrong",
            f"images differ from the CPU's by {error:.2g}, allowed {_ALLOWED:g}",
        )
        return
    taken = sorted(device.time_ms(lambda: drawn(net, str(place), record)) for _ in range(_RUNS))
    found.ms, found.spread = statistics.median(taken), (taken[0], taken[-1])
    rate = 1e3 * IMAGES / found.ms
    found.note = f"{rate:.3g} images/s, first run {first_s:.1f} s"
    if not record:
        found.note += f", network {_network_ms(device, net, place):.3g} ms"


def _network_ms(device: Device, net: nn.Module, place: torch.device) -> float:
    """Median time of one call of the network."""
    model = shipped()
    x = torch.randn(IMAGES, *model.shape, device=place)
    t = torch.full((IMAGES,), 500, device=place)
    more = {"labels": torch.zeros(IMAGES, dtype=torch.int64, device=place)} if model.num_classes else {}
    with torch.no_grad():
        net(x, t, **more)
        return statistics.median(device.time_ms(lambda: net(x, t, **more)) for _ in range(_CALLS))
