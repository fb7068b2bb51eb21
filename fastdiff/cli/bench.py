"""`fastdiff bench`: a short table of our ops and the shipped model against plain torch, on this machine."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass
class BenchOptions:
    """Time fastdiff's ops and the shipped model against plain torch on this machine, in about two minutes.

    Results are checked first; then the two take turns, and the ratio is the median over rounds. For a comparison with
    other libraries, run `make bench` in the repository.

    Examples:
        fastdiff bench

        fastdiff bench --ops vq_nearest,group_norm_silu --no-sampling --json bench.json
    """

    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:N."""
    ops: str = ""
    """Names of ops, separated by commas; empty means all."""
    sampling: bool = True
    """Also time sampling from the shipped model."""
    json: Path | None = None
    """Also write the rows to this JSON file."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    from tqdm import tqdm

    from fastdiff.cli.files import replacing
    from fastdiff.cli.options import parse
    from fastdiff.doctor import bench, devices
    from fastdiff.doctor.rivals import RIVALS
    from fastdiff.ops import dispatch

    options = parse(BenchOptions, arguments, "bench")
    wanted = [name.strip() for name in options.ops.split(",") if name.strip()]
    for name in wanted:
        if name not in RIVALS:
            raise ValueError(f"bench: op must be one of {', '.join(sorted(RIVALS))}, got {name!r}")
    device = devices.named(options.device)
    dispatch.load()
    rows = []
    with tqdm(unit="case", leave=False, disable=not sys.stderr.isatty()) as bar:
        for row in bench.op_rows(device, wanted or sorted(RIVALS)):
            rows.append(row)
            bar.update()
        if options.sampling:
            bar.set_description("sampling")
            rows.append(bench.sampling_row(device=options.device if device.kind == "cuda" else "cpu"))
    if options.json is not None:
        with replacing(options.json) as temporary:
            text = json.dumps(bench.to_dict(rows, device.facts()), indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")
    print(bench.as_text(rows, device.facts()))
    return 0
