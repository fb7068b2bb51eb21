"""Writes docs/gpu_launches.md."""

from pathlib import Path

from . import page

target = Path(__file__).parents[2] / "docs" / "gpu_launches.md"
target.write_text(page.page(), encoding="utf-8")
print(target.read_text(encoding="utf-8"))
