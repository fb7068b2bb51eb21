"""Figures and pictures of docs/vqvae.md from trained autoencoders: `python docs/vqvae_figures.py NAME ...`.

NAME is a shipped autoencoder or the `model` folder of a run. The table goes to the terminal, pictures to docs/img/.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastdiff import systems
from fastdiff.evaluation import judge_reconstruction
from fastdiff.systems.vqvae import HierarchicalVQVAE
from fastdiff.training import read_dataset
from fastdiff.training.preview import grid, write_pairs

HERE = Path(__file__).parent


def main(names: list[str]) -> None:
    """The table, and for each autoencoder the first twenty test images with their reconstructions."""
    tests = read_dataset("fashion-mnist", split="test", size=32).images
    for name in names:
        net = systems.load(name)
        report = judge_reconstruction(net, tests)
        levels = ", ".join(f"{p:.1f} ({100 * u:.0f} %)" for p, u in zip(report.perplexity, report.usage))
        count = sum(p.numel() for p in net.parameters())
        figures = f"{count:,} | {report.error:.5f} | {report.psnr:.2f} | {levels} | {report.bits:.0f}"
        sys.stdout.write(f"| {name} | {figures} |\n")
        x = tests[:20].float().div(127.5).sub(1)
        target = HERE / "img" / f"{'hierarchical' if isinstance(net, HierarchicalVQVAE) else 'vqvae'}.png"
        write_pairs(x, net(x).images, target)
        enlarge(target)
        if isinstance(net, HierarchicalVQVAE):
            pictures = np.concatenate([grid(images, 10) for images in by_levels(net, x[:10])])
            Image.fromarray(pictures).save(HERE / "img" / "hierarchical_levels.png")
            enlarge(HERE / "img" / "hierarchical_levels.png")


def by_levels(net: HierarchicalVQVAE, x: Tensor) -> list[Tensor]:
    """Reconstructions from the codes of all levels, with the finer levels of other images: coarsest kept first.

    Row 0 is x; row n keeps the n coarsest levels and takes the finer ones from the image to the right; the last row
    is the reconstruction.
    """
    with torch.no_grad():
        codes = net(x).quantised
        mixed = [
            [own.roll(-1, 0) if i >= kept else own for i, own in enumerate(codes)] for kept in range(1, 4)
        ]
        return [x, *(net.decode(each) for each in mixed)]


def enlarge(path: Path, factor: int = 2) -> None:
    """Every pixel `factor` times in both directions."""
    image = Image.open(path)
    image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main(sys.argv[1:])
