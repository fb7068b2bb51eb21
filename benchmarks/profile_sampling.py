"""Where a sampling run spends its time: python -m benchmarks.profile_sampling [--out FOLDER] [--steps N] [--num N]

Writes a trace of torch.profiler with a range for every step and op (open it in Perfetto), and a table of what took
longest. The same ranges are NVTX ranges, so that on a GPU the tools of NVIDIA show them; the command lines are printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import fastdiff

COMMANDS = (
    "nsys profile --trace=cuda,nvtx,osrt --output={out}/sampling python -m benchmarks.profile_sampling --device cuda",
    "nsys stats --report nvtx_sum,cuda_gpu_kern_sum {out}/sampling.nsys-rep",
    "ncu --nvtx --nvtx-include 'fastdiff::step 2/' --set full --export {out}/step"
    " python -m benchmarks.profile_sampling --device cuda --steps 4",
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/profile"))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--num", type=int, default=16)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    model = fastdiff.load("fashion")
    model.net.to(options.device)
    labels = [k % 10 for k in range(options.num)]

    def draw() -> torch.Tensor:
        return fastdiff.sample(model, options.steps, num=options.num, labels=labels, device=options.device)

    draw()
    with fastdiff.profile(options.out) as profiler:
        draw()
    own = [event for event in profiler.key_averages() if event.key.startswith("fastdiff::")]
    for event in sorted(own, key=lambda event: -event.cpu_time_total)[:12]:
        print(f"{event.key:<40}{event.count:>6} calls{event.cpu_time_total / 1e3:>10.2f} ms")
    print(f"\nwrote {options.out}/trace.json (Perfetto) and {options.out}/ops.txt\nOn a machine with a GPU:")
    for command in COMMANDS:
        print("  " + command.format(out=options.out))


if __name__ == "__main__":
    main()
