"""Copies keep their strides; time on a GPU is taken by events after its cache was overwritten (a GPU made of stubs)."""

from __future__ import annotations

import subprocess
import types

import pytest
import torch

from fastdiff.doctor import devices

LAYOUTS = {
    "dense": torch.randn(2, 3, 4, 5),
    "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "sliced": torch.randn(2, 6, 4, 5)[:, 1:5:2, :, ::2],
    "expanded": torch.randn(2, 1, 4, 1).expand(2, 3, 4, 5),
    "overlapping": torch.randn(20).as_strided((4, 5), (2, 3), 1),
    "empty": torch.randn(0, 3),
    "half": torch.randn(3, 2).half().T,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_copy_has_the_same_numbers_and_strides(name):
    tensor = LAYOUTS[name]
    for dtype in (None, torch.float64):
        copy = devices.copied(tensor, dtype=dtype)
        assert copy.stride() == tensor.stride() and copy.dtype == (dtype or tensor.dtype)
        assert (
            torch.equal(copy, tensor.to(copy.dtype))
            and copy.data_ptr() != tensor.data_ptr()
            or name == "empty"
        )


def test_cpu_repeats_short_calls():
    calls = []
    ms = devices.Cpu().time_ms(lambda: calls.append(0))
    assert len(calls) > 10 and 0 < ms < 1


@pytest.mark.parametrize("kind", ["gpu", "cuda:x", "mps", ""])
def test_unknown_devices_are_refused(kind):
    with pytest.raises(ValueError, match="doctor: device must be"):
        devices.named(kind)


def test_a_gpu_that_is_not_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="doctor: device must be available here, got 'cuda:1'"):
        devices.named("cuda:1")
    assert devices.named("auto").kind == "cpu"


def test_cuda_flushes_then_times_by_events(monkeypatch):
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("record")

        def synchronize(self):
            log.append("synchronise")

        def elapsed_time(self, end):
            return 1.25

    facts = types.SimpleNamespace(
        L2_cache_size=64, name="Stub", major=9, minor=0, multi_processor_count=3, total_memory=2**30
    )
    buffer = types.SimpleNamespace(zero_=lambda: log.append("flush"))
    sizes = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: facts)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: log.append("sleep"))
    monkeypatch.setattr(devices, "driver", lambda: "570.86.15")
    monkeypatch.setattr(devices.torch, "empty", lambda size, **_: sizes.append(size) or buffer)
    device = devices.named("cuda:1")
    assert device.time_ms(lambda: log.append("call")) == 1.25
    assert log == ["sleep", "flush", "record", "call", "record", "synchronise"] and sizes == [128]
    found = device.facts()
    assert (found["name"], found["capability"], found["driver"]) == ("Stub", "9.0", "570.86.15")


@pytest.fixture()
def told(monkeypatch):
    """What nvidia-smi writes, or the error of asking it."""

    def tell(answer):
        def run(command, **_):
            if isinstance(answer, Exception):
                raise answer
            return subprocess.CompletedProcess(command, 0, stdout=answer)

        monkeypatch.setattr(devices.subprocess, "run", run)
        devices.driver.cache_clear()

    yield tell
    devices.driver.cache_clear()


def test_the_driver_is_told_by_its_tool_or_by_what_it_serves(told, monkeypatch):
    told("570.86.15\n570.86.15\n")
    assert devices.driver() == "570.86.15"
    told(FileNotFoundError("nvidia-smi"))
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: 12080, raising=False)
    assert devices.driver() == "one that serves CUDA 12.8"
    told(subprocess.TimeoutExpired("nvidia-smi", 20))
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: 0, raising=False)
    assert devices.driver() == "unknown"
