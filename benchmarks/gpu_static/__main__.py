"""Writes docs/gpu_static.md."""

from pathlib import Path

from . import report

target = Path(__file__).parents[2] / "docs" / "gpu_static.md"
target.write_text(report.report(), encoding="utf-8")
print(target.read_text(encoding="utf-8"))
