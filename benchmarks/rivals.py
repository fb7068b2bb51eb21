"""Ways to run a network, each in a process of its own: thread pools of one would take the cores of another.

A process builds the network, makes it ready, calls it once, and says so with the seconds that took. Then it answers
every line "N" on its input with the milliseconds of N calls, and "memory" with what it holds. Between lines it
sleeps: no pool spins.

    python -m benchmarks.rivals NETWORK BATCH RIVAL OUTPUT
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.networks import built, inputs, tensor_of

Call = Callable[[], Tensor]
THREADS = 2
MIB = 2**20


def eager(net: nn.Module, x: Tensor, t: Tensor) -> Call:
    return lambda: tensor_of(net(x, t))


def eager_channels_last(net: nn.Module, x: Tensor, t: Tensor) -> Call:
    net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    return lambda: tensor_of(net(x, t))


def fastdiff_engine(net: nn.Module, x: Tensor, t: Tensor, **options: Any) -> Call:
    compiled = torch.compile(net, backend="fastdiff", options=options)
    return lambda: tensor_of(compiled(x, t))


def inductor(net: nn.Module, x: Tensor, t: Tensor) -> Call:
    net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(net, dynamic=False)
    return lambda: tensor_of(compiled(x, t))


def inductor_freezing(net: nn.Module, x: Tensor, t: Tensor) -> Call:
    torch._inductor.config.freezing = True
    return inductor(net, x, t)


class _Plain(nn.Module):
    """The network with a tensor as its result, for exporters."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return tensor_of(self.net(x, t))


def openvino(net: nn.Module, x: Tensor, t: Tensor) -> Call:
    import openvino as ov

    model = ov.convert_model(_Plain(net), example_input=(x, t), input=[list(x.shape), list(t.shape)])
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": THREADS,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = ov.compile_model(model, "CPU", options).create_infer_request()
    arrays = [x.numpy(), t.numpy()]
    return lambda: torch.from_numpy(np.array(next(iter(request.infer(arrays).values()))))


def onnxruntime(net: nn.Module, x: Tensor, t: Tensor) -> Call:
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "net.onnx")
        torch.onnx.export(_Plain(net), (x, t), path, input_names=["x", "t"], dynamo=True, verbose=False)
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    arrays = {"x": x.numpy(), "t": t.numpy()}
    return lambda: torch.from_numpy(session.run(None, arrays)[0])


def ncnn(net: nn.Module, x: Tensor, t: Tensor) -> Call:
    """One sample after the other: ncnn's tensors have no batch."""
    import ncnn
    import pnnx

    times = t.float()
    with tempfile.TemporaryDirectory() as folder:
        pnnx.export(_Plain(net), f"{folder}/net.pt", (x[:1], times[:1]))
        runner = ncnn.Net()
        runner.opt.num_threads = THREADS
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(runner.opt, name, False)
        if runner.load_param(f"{folder}/net.ncnn.param") or runner.load_model(f"{folder}/net.ncnn.bin"):
            raise RuntimeError("ncnn does not know a layer of this network")

    def one(image: Tensor, time: Tensor) -> Tensor:
        extractor = runner.create_extractor()
        for name, value in zip(runner.input_names(), (image, time[None]), strict=True):
            extractor.input(name, ncnn.Mat(value.numpy()))
        return torch.from_numpy(np.array(extractor.extract(runner.output_names()[0])[1]))

    return lambda: torch.stack([one(image, time) for image, time in zip(x, times, strict=True)])


def mnn(net: nn.Module, x: Tensor, t: Tensor) -> Call:
    from MNN import expr
    from MNN import nn as runners

    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/net.onnx", f"{folder}/net.mnn"
        names: dict[str, Any] = {"input_names": ["x", "t"], "output_names": ["y"]}
        torch.onnx.export(
            _Plain(net), (x, t), source, dynamo=True, verbose=False, external_data=False, **names
        )
        # Not by MNN.tools: its converter installs a logger that reports what it does.
        convert = "import sys, _tools; _tools.mnnconvert(sys.argv)"
        options = ["-f", "ONNX", "--modelFile", source, "--MNNModel", target, "--bizCode", "b"]
        subprocess.run([sys.executable, "-c", convert, *options], check=True, stdout=subprocess.DEVNULL)
        manager = runners.create_runtime_manager(
            ({"precision": "high", "backend": "CPU", "numThread": THREADS},)
        )
        runner = runners.load_module_from_file(target, ["x", "t"], ["y"], runtime_manager=manager)
    arrays = [
        expr.const(x.numpy(), list(x.shape), expr.NCHW),
        expr.const(t.tolist(), list(t.shape), expr.NCHW, expr.int),
    ]

    def call() -> Tensor:
        result = expr.convert(runner.forward(arrays)[0], expr.NCHW)
        return torch.from_numpy(np.array(result.read()))

    return call


RIVALS: dict[str, Callable[[nn.Module, Tensor, Tensor], Call]] = {
    "fastdiff": fastdiff_engine,
    "fastdiff, memory low": partial(fastdiff_engine, memory="low"),
    "fastdiff, winograd off": partial(fastdiff_engine, winograd=False),
    "eager": eager,
    "eager channels_last": eager_channels_last,
    "torch.compile": inductor,
    "torch.compile + freezing": inductor_freezing,
    "OpenVINO f32": openvino,
    "ONNX Runtime": onnxruntime,
    "ncnn": ncnn,
    "MNN": mnn,
}
#: What a rival needs beside torch: modules and the distributions whose versions its row tells.
NEEDS = {
    "OpenVINO f32": {"openvino": "openvino"},
    "ONNX Runtime": {"onnxruntime": "onnxruntime", "onnxscript": "onnxscript"},
    "ncnn": {"ncnn": "ncnn", "pnnx": "pnnx"},
    "MNN": {"MNN": "MNN", "onnxscript": "onnxscript"},
}


def memory(net: nn.Module) -> list[float]:
    """MiB: resident now, resident at most, packed by the engine, the network's weights."""
    from fastdiff.engine.program import programs

    pages = int(Path("/proc/self/statm").read_text().split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    packed = sum(program.weights.nbytes() for program in programs()) / MIB
    raw = sum(p.numel() * p.element_size() for p in net.parameters()) / MIB
    return [pages * resource.getpagesize() / MIB, most, packed, raw]


def main(network: str, batch: str, rival: str, output: str) -> None:
    torch.set_num_threads(THREADS)
    net, (x, t) = built(network), inputs(network, int(batch))
    start = time.perf_counter()
    with torch.no_grad():
        call = RIVALS[rival](net, x, t)
        result = call()
        cold = time.perf_counter() - start
        np.save(output, result.detach().contiguous().numpy())
        call()
        print(f"ready {cold}", flush=True)
        for line in sys.stdin:
            if line.startswith("memory"):
                print("answer", *memory(net), flush=True)
                continue
            start = time.perf_counter()
            for _ in range(int(line)):
                call()
            print("answer", 1e3 * (time.perf_counter() - start) / int(line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
