"""Bytes that a kernel asks for, counted where it runs: in triton's interpreter.

Every program pays for the distinct sectors of 32 bytes that it reads, and for those that it writes; what another
program has read already costs again (on a device the second-level cache may have it). Loops, masks and strides are
those of a real call. ``TRITON_INTERPRET=1 python -m benchmarks.gpu_static.traffic`` prints the counts as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import codes, interpreter, norms

SECTOR = 32
#: Rows and codes of the calls of vq_nearest.
ROWS, CODES = 512, 512


class Sectors:
    """Counts distinct sectors, program by program, while it is entered."""

    def __enter__(self) -> Sectors:
        from triton.runtime.interpreter import interpreter_builder as builder

        self.total, self.builder, self.touched = 0, builder, ([], [])
        self.before = {name: getattr(builder, name) for name in _HOOKS}
        for name, hook in _HOOKS.items():
            setattr(builder, name, hook(self, self.before[name]))
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
        for name in _HOOKS:
            delattr(self.builder, name)

    def note(self, kind: int, pointers: Any, mask: Any) -> None:
        """Remember which sectors one access touches; no access here straddles two."""
        wanted = np.broadcast_to(mask.data, pointers.data.shape)
        self.touched[kind].append(np.unique(pointers.data[wanted] // SECTOR))

    def finish(self) -> None:
        """The program has ended."""
        for kind in self.touched:
            if kind:
                self.total += SECTOR * np.unique(np.concatenate(kind)).size
            kind.clear()


def _load(counter: Sectors, run: Callable[..., Any]) -> Callable[..., Any]:
    def hooked(pointers: Any, mask: Any, *rest: Any) -> Any:
        counter.note(0, pointers, mask)
        return run(pointers, mask, *rest)

    return hooked


def _store(counter: Sectors, run: Callable[..., Any]) -> Callable[..., Any]:
    def hooked(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        counter.note(1, pointers, mask)
        return run(pointers, value, mask, *rest)

    return hooked


def _program(counter: Sectors, run: Callable[..., Any]) -> Callable[..., Any]:
    def hooked(*place: int) -> Any:
        counter.finish()
        return run(*place)

    return hooked


_HOOKS = {"create_masked_load": _load, "create_masked_store": _store, "set_grid_idx": _program}


def of_norm(case: norms.Case) -> tuple[int, int]:
    """(bytes, those of one map) of one sample."""
    import torch

    from fastdiff.ops import group_norm_silu, rms_norm_silu, use_backend

    kind = torch.float32 if case.size == 4 else torch.bfloat16
    x = torch.randn(1, case.channels, case.side, case.side).to(kind)
    x = x.contiguous(memory_format=torch.channels_last) if case.last else x
    weight = torch.randn(case.channels)
    with use_backend("triton"):
        if case.backward:
            x.requires_grad_()
        groups = [case.groups] if case.op == "group_norm_silu" else []
        op = group_norm_silu if groups else rms_norm_silu
        if case.terms:
            given = _terms(case, x)
            with Sectors() as counter:
                op(given.pop("x"), *groups, weight, **given, with_sum=True)
        elif not case.backward:
            with Sectors() as counter:
                op(x, *groups, weight)
        else:
            out = op(x, *groups, weight)
            with Sectors() as counter:
                out.backward(out.detach())
    return counter.total, x.numel() * case.size


def _terms(case: norms.Case, x: Any) -> dict[str, Any]:
    """The terms of a sum that is normalised; half of the channels are x2's, where there is one."""
    import torch

    channels = case.channels // 2 if "x2" in case.terms else case.channels
    last = torch.channels_last if case.last else torch.contiguous_format
    parts = {"x": x[:, :channels], "x2": x[:, channels:], "residual": x.clone()}
    given = {name: parts[name].contiguous(memory_format=last) for name in ("x", *case.terms) if name in parts}
    return given | {name: torch.randn(channels) for name in case.terms if name not in parts}


def of_codes(case: codes.Case) -> tuple[int, int]:
    """(bytes, ideal bytes) of a search that returns everything: the codebook is read once by each block of rows."""
    import torch
    from fastdiff.kernels.vq_nearest import tile_of

    from fastdiff.ops import use_backend, vq_nearest

    kind = torch.float32 if case.size == 4 else torch.bfloat16
    z, codebook = torch.randn(ROWS, case.width).to(kind), torch.randn(CODES, case.width).to(kind)
    options = {"return_quantised": True, "return_distance": True, "return_counts": True}
    with use_backend("triton"):
        vq_nearest(z[:1], codebook)
        with Sectors() as counter:
            vq_nearest(z, codebook, **options)
    blocks = ROWS // tile_of(case.width, case.size == 4, 80).rows
    row = 2 * case.width * case.size + 8 + 4
    return counter.total, ROWS * row + blocks * CODES * case.width * case.size


def table() -> list[str]:
    """Rows of the table of bytes; the maps of the VAE would take the interpreter minutes."""
    cases: dict[str, norms.Case | codes.Case] = {
        f"norms {i}": case for i, case in enumerate(norms.CASES) if case.side <= 64
    }
    cases |= {f"codes {i}": case for i, case in enumerate(codes.CASES) if case.op == "vq_nearest"}
    rows = []
    for name, (moved, ideal) in measured(*cases).items():
        case = cases[name]
        direction = "backward" if isinstance(case, norms.Case) and case.backward else "forward"
        model = (
            f"{norms.passes(case)} passes" if isinstance(case, norms.Case) else "z, codes by block, results"
        )
        rows.append(f"| {case.op} | {case.name} | {direction} | {model} | {moved} | {moved / ideal:.3f} |")
    return rows


def measured(*names: str) -> dict[str, tuple[int, int]]:
    """(bytes, ideal bytes) of the cases named "norms 0", "codes 1" ..., counted in a process of its own.

    Every launch of a norm should read and write each map that it needs once.
    """
    command = [sys.executable, "-m", "benchmarks.gpu_static.traffic", *names]
    variables = {**os.environ, "TRITON_INTERPRET": "1"}
    root = Path(__file__).parents[2]
    run = subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout.splitlines()[-1])
    for name in [name for name in found if name.startswith("norms")]:
        moved, one = found[name]  # launches are told apart here: under the interpreter there are none
        found[name] = moved, one * norms.passes(norms.CASES[int(name.split()[1])])
    return found


def main() -> None:
    """Print the counts of all cases, for `measured`; those named on the command line, if any."""
    wanted = set(sys.argv[1:])
    interpreter.patch_once()
    found = {f"norms {i}": (of_norm, case) for i, case in enumerate(norms.CASES)}
    found |= {f"codes {i}": (of_codes, case) for i, case in enumerate(codes.CASES) if case.op == "vq_nearest"}
    print(
        json.dumps(
            {name: count(case) for name, (count, case) in found.items() if not wanted or name in wanted}
        )
    )


if __name__ == "__main__":
    main()
