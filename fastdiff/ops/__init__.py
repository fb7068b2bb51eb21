"""The hot operations: each one reference in plain torch, faster backends beside it, one public function."""

from __future__ import annotations

from .add_noise import add_noise
from .dispatch import use_backend
from .group_norm_silu import group_norm_silu
from .normal import normal
from .rms_norm_silu import rms_norm_silu
from .solver_step import solver_step
from .vq_code_sums import vq_code_sums
from .vq_nearest import vq_nearest

__all__ = [
    "add_noise",
    "group_norm_silu",
    "normal",
    "rms_norm_silu",
    "solver_step",
    "use_backend",
    "vq_code_sums",
    "vq_nearest",
]
