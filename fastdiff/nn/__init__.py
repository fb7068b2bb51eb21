"""Networks of the DDPM family and the blocks they are built from."""

from __future__ import annotations

from fastdiff.nn.attention import Attention
from fastdiff.nn.blocks import Downsample, ResBlock, Upsample
from fastdiff.nn.embeddings import ClassEmbedding, TimeEmbedding, sinusoidal
from fastdiff.nn.norms import GroupNormSiLU, RMSNormSiLU
from fastdiff.nn.unet import UNet

__all__ = [
    "Attention",
    "ClassEmbedding",
    "Downsample",
    "GroupNormSiLU",
    "RMSNormSiLU",
    "ResBlock",
    "TimeEmbedding",
    "UNet",
    "Upsample",
    "sinusoidal",
]
