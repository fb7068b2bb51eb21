"""An autoregressive prior over maps of codes: the gated PixelCNN, drawn from row by row."""

from __future__ import annotations

from fastdiff.systems.pixelcnn.latent import LatentPixelCNN
from fastdiff.systems.pixelcnn.network import GatedPixelCNN
from fastdiff.systems.pixelcnn.sampling import sample_codes

__all__ = ["GatedPixelCNN", "LatentPixelCNN", "sample_codes"]
