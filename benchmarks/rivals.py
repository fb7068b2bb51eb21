"""Ways to run a network, each in a process of its own: thread pools of one would take the cores of another.

A process builds the network, makes it ready, calls it once, and says so with the seconds that took. Then it answers
every line "N" on its input with the milliseconds of N calls. Between lines it sleeps: no pool spins.

    python -m benchmarks.rivals NETWORK BATCH RIVAL OUTPUT
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.networks import built, inputs, tensor_of

Call = Callable[[], Tensor]
THREADS = 2


def eager(net: nn.Module, x: Tensor, t: Tensor) -> Call:
    return lambda: tensor_of(net(x, t))


def eager_channels_last(net: nn.Module, x: Tensor, t: Tensor) -> Call:
    net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    return lambda: tensor_of(net(x, t))


def fastdiff_engine(net: nn.Module, x: Tensor, t: Tensor) -> Call:
    compiled = torch.compile(net, backend="fastdiff")
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


RIVALS: dict[str, Callable[[nn.Module, Tensor, Tensor], Call]] = {
    "fastdiff": fastdiff_engine,
    "eager": eager,
    "eager channels_last": eager_channels_last,
    "torch.compile": inductor,
    "torch.compile + freezing": inductor_freezing,
    "OpenVINO f32": openvino,
    "ONNX Runtime": onnxruntime,
}


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
            start = time.perf_counter()
            for _ in range(int(line)):
                call()
            print(1e3 * (time.perf_counter() - start) / int(line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
