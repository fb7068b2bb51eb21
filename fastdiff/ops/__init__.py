"""The hot operations: each one reference in plain torch, faster backends beside it, one public function."""

from __future__ import annotations

from .add_noise import add_noise
from .attention import attention
from .channel_statistics import channel_statistics
from .conv1x1 import conv1x1
from .conv3x3 import NormFactors, conv3x3
from .dispatch import use_backend
from .group_norm_silu import group_norm_silu
from .linear_attention import linear_attention
from .norm_factors import norm_factors
from .normal import normal
from .pixel_norms import pixel_norms
from .rms_norm_silu import rms_norm_silu
from .solver_step import solver_step
from .vq_code_sums import vq_code_sums
from .vq_nearest import vq_nearest

__all__ = [
    "NormFactors",
    "add_noise",
    "attention",
    "channel_statistics",
    "conv1x1",
    "conv3x3",
    "group_norm_silu",
    "linear_attention",
    "norm_factors",
    "normal",
    "pixel_norms",
    "rms_norm_silu",
    "solver_step",
    "use_backend",
    "vq_code_sums",
    "vq_nearest",
]
