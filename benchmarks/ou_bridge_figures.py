"""Figures and numbers of docs/ou_bridge.md: python -m benchmarks.ou_bridge_figures BRIDGE PIXELCNN OUT.

BRIDGE and PIXELCNN are folders that `fastdiff train` wrote; OUT gets the pictures. Everything is seeded.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fastdiff
from fastdiff import systems
from fastdiff.cli.images import enlarged, grid, save_png, to_uint8
from fastdiff.evaluation import (
    centre_mask,
    frechet_distance,
    latent_usage,
    load_classifier,
    patched_nll_bits,
    predict,
)
from fastdiff.evaluation.classifier_file import real_images
from fastdiff.systems.ou_bridge import elbo

NUM, STEPS = 500, 50


def picture(images: Tensor, path: Path, columns: int) -> None:
    save_png(path, grid(enlarged(to_uint8(images), 2), columns))


def judged(images: Tensor, real: np.ndarray) -> float:
    return frechet_distance(predict(load_classifier(), images)[1], real)


@torch.no_grad()
def main(bridge_folder: str, pixelcnn_folder: str, out: Path) -> None:
    model = fastdiff.load(bridge_folder)
    bridge: Any = model.net
    pixelcnn: Any = systems.load(pixelcnn_folder)
    test, _ = real_images("fashion-mnist", "test")
    train, _ = real_images("fashion-mnist", "train")
    real = predict(load_classifier(), test)[1]
    codes = bridge.vqvae.config["num_codebook"]
    print("weights:", *(sum(p.numel() for p in n.parameters()) for n in (bridge.bridge, pixelcnn.prior)))
    print("real training images:", judged(train[:NUM], real))
    print("reconstructions:", judged(torch.cat([bridge.reconstruct(p) for p in test[:NUM].split(100)]), real))
    for solver, steps in (("ddpm", STEPS), ("ddpm", 250), ("ddim", STEPS)):
        drawn = fastdiff.sample(model, steps, num=NUM, solver=solver)
        used = latent_usage(bridge.vqvae.indices(drawn), codes)
        print(f"bridge, {solver}, {steps} steps:", judged(drawn, real), "usage", used)
        if steps == 250:
            picture(drawn[:40], out / "ou_bridge_samples.png", 10)
    drawn = pixelcnn.sample(NUM)
    print("pixelcnn:", judged(drawn, real), "usage", latent_usage(bridge.vqvae.indices(drawn), codes))
    picture(drawn[:40], out / "pixelcnn_samples.png", 10)
    print("pixelcnn bits per code, test:", float(pixelcnn(test[:NUM]).mean()) / np.log(2))
    chain = fastdiff.sample(model, STEPS, num=4, solver="ddpm", trajectory=True)
    kept = chain[np.linspace(0, STEPS, 10).round().astype(int)].transpose(0, 1)
    picture(kept.flatten(0, 1), out / "ou_bridge_chain.png", 10)
    conditional(model, pixelcnn, test, out)
    bound = elbo(bridge, test[:4])
    print("elbo, nats:", float(bound.reconstruction.mean()), -float(bound.diffusion.mean()))


def conditional(model: Any, pixelcnn: Any, test: Tensor, out: Path) -> None:
    """The centre of test images drawn anew: picture and bits of the hidden codes."""
    bridge, count = model.net, 10
    mask = centre_mask(*bridge.latent_shape[1:], 4)
    pixels = mask.repeat_interleave(bridge.vqvae.reduction, 0).repeat_interleave(bridge.vqvae.reduction, 1)
    seen = {"x_init": test[:count], "mask": pixels[None]}
    drawn = [fastdiff.sample(model, STEPS, num=count, solver="ddpm", seed=s, **seen) for s in (0, 100)]
    other = pixelcnn.sample(count, known=test[:count], mask=mask)
    hidden = torch.where(pixels.bool(), test[:count], torch.zeros(()))
    picture(torch.cat((test[:count], hidden, *drawn, other)), out / "ou_bridge_centre.png", count)
    latents = latents_of(bridge, {"x_init": test[:100], "mask": pixels[None]}, 100)
    distances = bridge.vqvae.codebook.distances(latents.permute(0, 2, 3, 1))
    print("patched NLL, bits:", patched_nll_bits(distances, bridge.vqvae.indices(test[:100]), mask))


def latents_of(bridge: Any, seen: dict[str, Tensor], num: int) -> Tensor:
    """Drawn latents before they are quantised."""
    known = bridge.encode(seen["x_init"])
    mask = bridge.latent_mask(seen["mask"])
    return fastdiff.sample(bridge.bridge, STEPS, num=num, solver="ddpm", x_init=known, mask=mask)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
