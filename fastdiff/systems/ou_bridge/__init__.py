"""Ornstein-Uhlenbeck diffusion bridges over the latents of a VQ-VAE (Cohen et al. 2022, arXiv 2202.04895)."""

from __future__ import annotations

from fastdiff.systems.ou_bridge.bridge import DiffusionBridge, betas_to_deltas
from fastdiff.systems.ou_bridge.elbo import Elbo, diffusion_terms, elbo
from fastdiff.systems.ou_bridge.ho import HoDiffusion
from fastdiff.systems.ou_bridge.latent import LatentBridge
from fastdiff.systems.ou_bridge.prior_unet import PriorUNet

__all__ = [
    "DiffusionBridge",
    "Elbo",
    "HoDiffusion",
    "LatentBridge",
    "PriorUNet",
    "betas_to_deltas",
    "diffusion_terms",
    "elbo",
]
