"""Codebooks against vector-quantize-pytorch: 16x16 latents of 256 images, 512 codes of width 64."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdiff.nn.codebook import EMACodebook

BARS = {"eval": 4.0, "train": 2.0}
ROWS, CODES, WIDTH = (256, 16 * 16), 512, 64
HAS_PEER = importlib.util.find_spec("vector_quantize_pytorch") is not None
pytestmark = pytest.mark.skipif(not HAS_PEER, reason="needs vector-quantize-pytorch (extra: oracles)")


def twins() -> tuple[EMACodebook, Any, Tensor]:
    """Both codebooks with the same codes, and rows for them. Neither revives codes."""
    from vector_quantize_pytorch import VectorQuantize

    generator = torch.Generator().manual_seed(0)
    z = torch.randn(*ROWS, WIDTH, generator=generator)
    first = torch.randn(CODES, WIDTH, generator=generator)
    ours = EMACodebook(CODES, WIDTH, decay=0.99, revive=0.0)
    theirs = VectorQuantize(
        dim=WIDTH, codebook_size=CODES, decay=0.99, threshold_ema_dead_code=0, commitment_weight=0.25
    )
    for codes in (ours.weight, ours.ema_positions, theirs._codebook.embed_avg, theirs._codebook.embed):
        codes.copy_(first)
    return ours, theirs, z


def agree(ours: EMACodebook, theirs: Any, z: Tensor) -> None:
    """The same codes, but for rows whose two nearest codes are equally near up to rounding."""
    differ = ours(z).indices != theirs(z)[1]
    assert differ.float().mean() < 1e-4, differ.float().mean()


@pytest.mark.parametrize("mode", ["eval", "train", "train and backward"])
def bench_codebook(duel, mode):
    ours, theirs, z = twins()
    agree(ours.eval(), theirs.eval(), z)
    ours.train(mode != "eval")
    theirs.train(mode != "eval")
    backward = mode == "train and backward"

    def quantise() -> None:
        rows = z.detach().requires_grad_(backward)
        out = ours(rows)
        if backward:
            (out.quantised.sum() + out.loss).backward()

    def peer_quantise() -> None:
        rows = z.detach().requires_grad_(backward)
        quantised, _, loss = theirs(rows)
        if backward:
            (quantised.sum() + loss.sum()).backward()

    def check() -> None:
        if mode == "eval":
            agree(ours, theirs, z)
            return
        with torch.no_grad():
            for _ in range(3):
                found, peer = ours(z), theirs(z)
        torch.testing.assert_close(found.loss, peer[2].squeeze(), rtol=1e-4, atol=0)
        torch.testing.assert_close(ours.weight, theirs.codebook, rtol=1e-3, atol=1e-3)

    candidates = {"fastdiff EMACodebook": quantise, "VectorQuantize": peer_quantise}
    with torch.set_grad_enabled(backward):
        duel(
            f"codebook {mode}, 256 images of 16x16",
            candidates,
            check=check,
            rounds=15,
            shape=(*ROWS, CODES, WIDTH),
            bar={"VectorQuantize": BARS[mode]} if mode in BARS else {},
        )
