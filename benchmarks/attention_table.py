"""Where the C++ attention beats torch's own: ``python -m benchmarks.attention_table`` writes the table of the package.

Each point of the grid is a `measure.compare` of a few rounds, two threads, float32, heads beside each other in memory.
The whole grid is measured twice, minutes apart, and of both ratios the smaller one is kept. With widths as arguments
only their points are measured again; the others stay as they are.
"""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import measure
from fastdiff.ops import attention, use_backend

TARGET = Path(__file__).parents[1] / "fastdiff" / "ops" / "attention_table.py"
HEADS = (2, 16)
WIDTHS = (16, 32, 64, 128, 256, 512)
QUERIES = KEYS = (16, 64, 256, 1024, 4096)
#: Points with more multiplications would take seconds each; nothing is chosen there.
MOST_WORK = 2**35
#: How often the grid is measured.
PASSES = 2
HEAD = '''"""Time of torch's attention / time of ours, written by `python -m benchmarks.attention_table`; do not edit.

{machine}
"""

from __future__ import annotations

INSTRUCTION_SET = "{isa}"
HEADS = {heads}
WIDTHS = {widths}
QUERIES = {queries}
KEYS = {keys}
#: (heads, D, N, M) to the median ratio.
RATIOS: dict[tuple[int, ...], float] = {{
'''

Point = tuple[int, int, int, int]


def inputs(heads: int, width: int, queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v (1, heads, rows, width) with the heads of a row beside each other."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, rows, heads, width, generator=generator).transpose(1, 2)
        for rows in (queries, keys, keys)
    )
    return q, k, v


def work(point: Point) -> int:
    """Multiplications of one call."""
    heads, width, queries, keys = point
    return 2 * heads * width * queries * keys


def ratio(point: Point) -> float:
    """Median of torch's time / ours, of the calmest of up to three attempts."""
    q, k, v = inputs(*point)

    def ours() -> Tensor:
        with use_backend("cpp"):
            return attention(q, k, v)

    def theirs() -> Tensor:
        with use_backend("torch"):
            return attention(q, k, v)

    def check() -> None:
        torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-5)

    rounds = 25 if work(point) < 2**28 else 9 if work(point) < 2**32 else 5
    best, spread = 0.0, math.inf
    for _ in range(3):
        found = measure.compare(
            str(point), {"fastdiff": ours, "torch": theirs}, check=check, rounds=rounds
        ).speedup["torch"]
        if found.p90 / found.p10 < spread:
            best, spread = found.median, found.p90 / found.p10
        if spread < 1.15:
            break
    return best


def points(widths: tuple[int, ...]) -> list[Point]:
    """The grid, without what takes too long."""
    grid = itertools.product(HEADS, widths, QUERIES, KEYS)
    return [point for point in grid if work(point) <= MOST_WORK]


def write(ratios: dict[Point, float]) -> None:
    """The module, complete or not at all."""
    facts = measure.machine()
    told = f"{facts['processor']}, {facts['threads']} threads, torch {facts['torch']}, float32."
    text = HEAD.format(
        machine=told,
        isa=facts["instruction_set"],
        heads=HEADS,
        widths=WIDTHS,
        queries=QUERIES,
        keys=KEYS,
    )
    text += "".join(f"    {point}: {value:.2f},\n" for point, value in sorted(ratios.items())) + "}\n"
    temporary = TARGET.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(TARGET)


def main(widths: tuple[int, ...]) -> None:
    """Measure the points of these widths and keep what is known of the others."""
    from fastdiff.ops import attention_table

    torch.set_num_threads(2)
    known = {point: value for point, value in attention_table.RATIOS.items() if point[1] not in widths}
    for point in [*points(widths)] * PASSES:
        found = ratio(point)
        known[point] = min(known.get(point, found), found)
        print(point, f"{found:.2f}", flush=True)
    write(known)


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or WIDTHS)
