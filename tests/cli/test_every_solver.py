"""`fastdiff sample --solver NAME --steps N` for every name, on the shipped model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastdiff import cli
from fastdiff.solvers import SOLVERS


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_draws_with_the_shipped_model(name: str, tmp_path: Path) -> None:
    """A few steps give images that differ from each other and are not one grey."""
    out = tmp_path / "images.npz"
    arguments = ["sample", "--model", "fashion", "--solver", name, "--steps", "4", "--num", "2"]
    if name == "ddim_inverse":  # it goes from images to noise
        pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), dtype=np.uint8)
        np.savez(tmp_path / "given.npz", arr_0=pictures)
        arguments += ["--init", str(tmp_path / "given.npz")]
    assert cli.main([*arguments, "--labels", "1", "--out", str(out)]) == 0
    with np.load(out) as read:
        images = read["arr_0"].astype(float)
    assert images.shape[0] == 2 and images.std() > 10
    assert np.abs(images[0] - images[1]).max() > 10
