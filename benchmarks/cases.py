"""Shapes of real models, so that a benchmark measures what somebody runs."""

from __future__ import annotations

#: State (B, C, H, W) of a sampling loop.
STATES = {
    "cifar 64x3x32x32": (64, 3, 32, 32),  # ddpm-cifar10, a usual batch for sampling
    "large 16x3x256x256": (16, 3, 256, 256),  # celeba-hq-256: no longer fits the caches
}
#: One DDPM row with clamped x0: coefficients from the middle of a linear schedule of 1000 steps, 50 of them used.
DDPM_ROW = {"u_x": 1.66, "u_m": -1.33, "lo": -1.0, "hi": 1.0, "b": 0.88, "a": 0.11, "s": 0.12}
#: A multistep row without noise, with one history.
MULTISTEP_ROW = {"u_x": 1.66, "u_m": -1.33, "lo": -1.0, "hi": 1.0, "b": 0.88, "a": 0.16, "h_0": -0.05}
#: (rows N, codes K, width D) of a search for the nearest code.
CODEBOOKS = {
    "16384x512x64": (16384, 512, 64),  # VQ-VAE of van den Oord et al.: 32x32 latents, 16 images
    "65536x1024x64": (65536, 1024, 64),
    "65536x8192x32": (65536, 8192, 32),  # VQGAN-type codebook: many narrow codes
    "4096x16384x256": (4096, 16384, 256),  # VQGAN f16 16384: 16x16 latents, 16 images
}
#: Feature maps (B, C, H, W) and groups of group norms.
GROUP_NORMS = {
    "ddpm-cifar10 4x128x32x32": ((4, 128, 32, 32), 32),
    "ddpm-cifar10 4x256x16x16": ((4, 256, 16, 16), 32),
    "lucidrains 4x64x64x64": ((4, 64, 64, 64), 8),
    "SD 1.5 2x320x64x64": ((2, 320, 64, 64), 32),
    "DiffuseVAE 8x128x32x32": ((8, 128, 32, 32), 32),
}
#: A feature map of 268 MB, beyond the last cache of most machines.
FAR_GROUP_NORM = ((32, 128, 128, 128), 32)
#: Feature maps (B, C, H, W) of RMS norms over channels, with scale and shift from the time embedding.
RMS_NORMS = {
    "lucidrains 4x64x64x64": (4, 64, 64, 64),
    "fashion 64x48x16x16": (64, 48, 16, 16),
    "fashion 64x96x8x8": (64, 96, 8, 8),
}
#: (B, heads, queries, keys, width of a head).
ATTENTIONS = {
    "4x4 1024x1024 d64": (4, 4, 1024, 1024, 64),  # 32x32 pixels, 256 channels
    "4x8 256x256 d32": (4, 8, 256, 256, 32),  # 16x16 pixels, 256 channels
    "ddpm-cifar10 8x1 256x256 d256": (8, 1, 256, 256, 256),
    "lucidrains 4x4 256x260 d32": (4, 4, 256, 260, 32),  # four memory tokens
    "SD 1.5 2x8 4096x4096 d40": (2, 8, 4096, 4096, 40),
    "SD 1.5 text 2x8 4096x77 d40": (2, 8, 4096, 77, 40),
    "fashion 64x4 64x64 d24": (64, 4, 64, 64, 24),
}
#: 3x3 convolutions of stride 1 in google/ddpm-cifar10-32: size, input channels, output channels, how many.
DDPM_CIFAR10_CONVS = (
    *((32, 128, 128, 7), (32, 256, 128, 2), (32, 384, 128, 1), (32, 256, 256, 1)),
    *((16, 128, 256, 1), (16, 256, 256, 7), (16, 384, 256, 1), (16, 512, 256, 2)),
    *((8, 256, 256, 8), (8, 512, 256, 3), (4, 256, 256, 11), (4, 512, 256, 3)),
)
#: Size and channels of residual blocks of the same network.
FUSED_CONVS = ((32, 128), (16, 256), (8, 256), (4, 256))
