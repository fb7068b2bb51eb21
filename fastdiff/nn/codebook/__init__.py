"""Codebooks: rows (..., D) to the nearest of K codes, and what training needs to learn the codes.

Every codebook is a module called on channel-last rows; it returns a `Quantised`. The search is `ops.vq_nearest`: no
matrix of all distances, equally near codes resolved to the lowest index, float32 whatever the dtype of the rows.
"""

from __future__ import annotations

from fastdiff.nn.codebook.classic import Codebook
from fastdiff.nn.codebook.ema import EMACodebook
from fastdiff.nn.codebook.flavor import FLAVORS, make_codebook
from fastdiff.nn.codebook.fsq import FSQ
from fastdiff.nn.codebook.gumbel import GumbelCodebook
from fastdiff.nn.codebook.product import ProductCodebook
from fastdiff.nn.codebook.quantised import CodeTable, Quantised, Quantiser, perplexity, usage
from fastdiff.nn.codebook.residual import ResidualCodebook
from fastdiff.nn.codebook.spherical import SphericalCodebook
from fastdiff.nn.codebook.straight_through import straight_through

__all__ = [
    "FLAVORS",
    "FSQ",
    "CodeTable",
    "Codebook",
    "EMACodebook",
    "GumbelCodebook",
    "ProductCodebook",
    "Quantised",
    "Quantiser",
    "ResidualCodebook",
    "SphericalCodebook",
    "make_codebook",
    "perplexity",
    "straight_through",
    "usage",
]
