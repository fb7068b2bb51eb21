"""Codebooks by name, for configurations."""

from __future__ import annotations

from typing import Any

from fastdiff.nn.codebook.classic import Codebook
from fastdiff.nn.codebook.ema import EMACodebook
from fastdiff.nn.codebook.fsq import FSQ
from fastdiff.nn.codebook.gumbel import GumbelCodebook
from fastdiff.nn.codebook.product import ProductCodebook
from fastdiff.nn.codebook.quantised import Quantiser
from fastdiff.nn.codebook.residual import ResidualCodebook
from fastdiff.nn.codebook.spherical import SphericalCodebook

FLAVORS: dict[str, type[Quantiser]] = {
    "classic": Codebook,
    "ema": EMACodebook,
    "gumbel": GumbelCodebook,
    "spherical": SphericalCodebook,
    "residual": ResidualCodebook,
    "product": ProductCodebook,
}


def make_codebook(flavor: str, num_codes: int, dim: int, **options: Any) -> Quantiser:
    """The codebook called `flavor`.

    Args:
        flavor: one of `FLAVORS`, or "fsq", which takes `levels`: one for each of the `dim` numbers of a row, with
            the product `num_codes`.
        num_codes: K.
        dim: D.
        options: further arguments of its class.

    Raises:
        ValueError: for an unknown flavor or option, or sizes that do not fit.
    """
    known = (*FLAVORS, "fsq")
    if flavor not in known:
        raise ValueError(f"make_codebook: flavor must be one of {', '.join(known)}, got {flavor!r}")
    try:
        codebook = FSQ(**options) if flavor == "fsq" else FLAVORS[flavor](num_codes, dim, **options)
    except TypeError as error:
        raise ValueError(f"make_codebook: options must be those of {flavor!r}, got: {error}") from error
    if (codebook.num_codes, codebook.dim) != (num_codes, dim):
        found = f"{codebook.num_codes} codes of width {codebook.dim}"
        raise ValueError(f"make_codebook: levels must give {num_codes} codes of width {dim}, got {found}")
    return codebook
