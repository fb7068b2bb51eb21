"""Autoencoders with discrete latents."""

from __future__ import annotations

from fastdiff.systems.vqvae.hierarchical import HierarchicalVQVAE
from fastdiff.systems.vqvae.vqvae import VQVAE, CifarVQVAE, MiniImagenetVQVAE, Reconstruction

__all__ = ["VQVAE", "CifarVQVAE", "HierarchicalVQVAE", "MiniImagenetVQVAE", "Reconstruction"]
