"""Training of priors over a VQ-VAE's latents: bridge (in two stages and jointly) and PixelCNN, on tiny pictures."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import fastdiff
from fastdiff import systems
from fastdiff.systems.ou_bridge import LatentBridge
from fastdiff.systems.vqvae import VQVAE
from fastdiff.training import Dataset, train
from fastdiff.training.config import RunConfig
from fastdiff.training.latents import images, latent_moments, load_vqvae
from fastdiff.training.ou_bridge import JointLoss, OUBridgeConfig, OUBridgeTask, PriorNetwork, irregularity
from fastdiff.training.pixelcnn import PixelCNNConfig, PixelCNNNetwork, PixelCNNTask
from fastdiff.training.task import Task

RUN: dict[str, Any] = {
    **{"data": "shapes", "steps": 6, "batch_size": 8, "warmup": 2, "checkpoint_every": 3, "log_every": 3},
    **{"amp": "off", "progress": False, "lr": 2e-3},
}
TINY = PriorNetwork(n_channels=8, ch_mults=(1, 2), is_attn=(False, True), n_blocks=1)


@pytest.fixture
def vqvae(tmp_path: Path) -> str:
    torch.manual_seed(0)
    net = VQVAE(8, 4, channels=1, codebook_flavor="classic").eval()
    return str(systems.save(net, tmp_path / "vqvae"))


def bridge_config(vqvae: str, out: Path, **options: Any) -> OUBridgeConfig:
    return OUBridgeConfig(out=str(out), vqvae=vqvae, network=TINY, timesteps=50, **{**RUN, **options})


def test_a_bridge_is_trained_saved_and_drawn_from(shapes: Dataset, vqvae: str, tmp_path: Path) -> None:
    system = train(bridge_config(vqvae, tmp_path / "run"), shapes, OUBridgeTask)
    model = fastdiff.load(tmp_path / "run" / "model")
    assert model.shape == (1, 8, 8) and model.net.latent_shape == (4, 4, 4)
    means, variance = latent_moments(load_vqvae(vqvae, shapes), shapes)
    torch.testing.assert_close(model.net.anchor.target.flatten(), torch.tensor(means))
    assert model.net.anchor.scale == pytest.approx(variance**0.5, rel=1e-6)
    before, after = systems.load(vqvae).state_dict(), system.vqvae.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    drawn, again = (fastdiff.sample(m, 4, num=3, solver="ddpm") for m in (model, system))
    assert drawn.shape == (3, 1, 8, 8) and drawn.abs().max() <= 1
    torch.testing.assert_close(drawn, again)
    chain = fastdiff.sample(model, 4, num=2, trajectory=True)
    assert chain.shape == (5, 2, 1, 8, 8)


def test_known_pixels_become_known_latents(shapes: Dataset, vqvae: str, tmp_path: Path) -> None:
    model = fastdiff.load(_trained(shapes, vqvae, tmp_path))
    image, mask = images(shapes.images[:2]), torch.zeros(8, 8)
    mask[:, :5] = 1  # the third column of latents is known in part: not known
    seen = fastdiff.sample(model, 5, num=2, solver="ddpm", x_init=image, mask=mask)
    latents = model.net.encode(image)
    columns = model.net.latent_mask(mask[None])
    assert columns.tolist() == [[[1.0, 1.0, 0.0, 0.0]] * 4]
    drawn = fastdiff.sample(model, 5, num=2, solver="ddpm", x_init=latents, mask=columns)
    torch.testing.assert_close(seen, drawn)
    whole = fastdiff.sample(model, 5, num=2, x_init=image, mask=torch.ones(1, 1, 8, 8))
    torch.testing.assert_close(whole, model.net.reconstruct(image))
    free = fastdiff.sample(model, 5, num=2, x_init=image, mask=torch.zeros(8, 8))
    torch.testing.assert_close(free, fastdiff.sample(model, 5, num=2))
    half = fastdiff.sample(model, 5, num=2, x_init=image.half(), mask=mask, solver="ddpm")
    torch.testing.assert_close(half, seen, atol=0.05, rtol=0)
    double = fastdiff.sample(copy.deepcopy(model.net).double(), 5, num=2, dtype=torch.float64)
    torch.testing.assert_close(double.float(), fastdiff.sample(model, 5, num=2), atol=1e-3, rtol=0)


def test_what_does_not_fit_is_refused(shapes: Dataset, vqvae: str, tmp_path: Path) -> None:
    model = fastdiff.load(_trained(shapes, vqvae, tmp_path))
    image = images(shapes.images[:1])
    with pytest.raises(ValueError, match=r"mask must be \(8, 8\) pixels or \(4, 4\) latents, got \(3, 3\)"):
        fastdiff.sample(model, 3, num=1, x_init=image, mask=torch.ones(3, 3))
    with pytest.raises(ValueError, match=r"x_init must be images \(1, 8, 8\) or latents \(4, 4, 4\)"):
        fastdiff.sample(model, 3, num=1, x_init=torch.zeros(1, 9, 9), mask=torch.ones(8, 8))
    line = torch.zeros(8, 8)
    line[:, 3] = 1  # one pixel wide, and a latent has two
    with pytest.raises(
        ValueError, match="mask must mark all 2 x 2 pixels of a code at least, got only parts"
    ):
        fastdiff.sample(model, 3, num=1, x_init=image, mask=line)
    with pytest.raises(ValueError, match="mask must mark all 2 x 2 pixels"):
        fastdiff.sample(model, 3, num=2, x_init=image, mask=torch.stack((line, torch.ones(8, 8)))[:, None])
    with pytest.raises(
        TypeError, match="x_init must be floating point in the range of the data, got torch.uint8"
    ):
        fastdiff.sample(model, 3, num=1, x_init=shapes.images[:1], mask=torch.ones(8, 8))
    with pytest.raises(ValueError, match="labels must be left out"):
        fastdiff.sample(model, 3, num=1, labels=0)
    with pytest.raises(ValueError, match="target must have 1 or 4 numbers, got 3"):
        LatentBridge(model.net.vqvae.config, {"n_channels": 8}, target=[0.0, 1.0, 2.0])
    with pytest.raises(
        ValueError, match="image_size must give a multiple of 4 codes across, .* got 5 of 10 pix"
    ):
        LatentBridge(model.net.vqvae.config, {"n_channels": 8}, image_size=10)
    for size in (0, 7):
        with pytest.raises(ValueError, match=f"image_size must be a positive multiple of 2, got {size}"):
            LatentBridge(model.net.vqvae.config, {"n_channels": 8}, image_size=size)
    with pytest.raises(ValueError, match="vqvae must be a VQVAE, got a LatentBridge"):
        load_vqvae(str(tmp_path / "run" / "model"), shapes)
    with pytest.raises(ValueError, match="vqvae must name a trained VQ-VAE, got ''"):
        OUBridgeConfig(data="x", out="y")
    with pytest.raises(ValueError, match="use fastdiff.systems.load"):
        fastdiff.load(vqvae)


def _trained(shapes: Dataset, vqvae: str, tmp_path: Path, **options: Any) -> Path:
    train(bridge_config(vqvae, tmp_path / "run", **options), shapes, OUBridgeTask)
    return tmp_path / "run" / "model"


@pytest.mark.parametrize("joint", [False, True])
def test_a_stopped_bridge_goes_on_to_the_same_bits_in_other_folders(
    shapes: Dataset, tmp_path: Path, joint: bool
) -> None:
    """Also where the run and its VQ-VAE were moved meanwhile; jointly, the VQ-VAE is one whose dead codes revive."""
    torch.manual_seed(0)
    flavor: dict[str, Any] = {"codebook_flavor": "ema", "codebook_options": {"revive": 0.5}}
    vqvae = systems.save(VQVAE(8, 4, channels=1, **flavor).eval(), tmp_path / "vqvae")
    options: dict[str, Any] = {"lr_schedule": "constant", "joint": joint}
    whole = train(bridge_config(str(vqvae), tmp_path / "a", **options), shapes, OUBridgeTask)
    train(bridge_config(str(vqvae), tmp_path / "b", steps=3, **options), shapes, OUBridgeTask)
    (tmp_path / "away").mkdir()
    moved, out = vqvae.rename(tmp_path / "away" / "v"), (tmp_path / "b").rename(tmp_path / "away" / "run")
    rest = train(bridge_config(str(moved), out, resume=True, **options), shapes, OUBridgeTask)
    first, second = whole.state_dict(), rest.state_dict()
    assert whole.config == rest.config
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    with pytest.raises(ValueError, match=f"got '{vqvae}'"):
        train(bridge_config(str(vqvae), out, resume=True, **options), shapes, OUBridgeTask)


@pytest.mark.parametrize("task", [OUBridgeTask, PixelCNNTask])
def test_a_run_does_not_go_on_over_another_vqvae(
    shapes: Dataset, vqvae: str, tmp_path: Path, task: type[Task]
) -> None:
    """Target and scale of a bridge are those of the first VQ-VAE's latents."""

    def run(**options: Any) -> RunConfig:
        if task is OUBridgeTask:
            return bridge_config(vqvae, tmp_path / "run", lr_schedule="constant", **options)
        network = PixelCNNNetwork(dim=8, n_layers=2)
        return PixelCNNConfig(
            out=str(tmp_path / "run"),
            vqvae=vqvae,
            network=network,
            **{**RUN, "lr_schedule": "constant", **options},
        )

    train(run(steps=3), shapes, task)
    torch.manual_seed(1)
    systems.save(VQVAE(8, 4, channels=1).eval(), vqvae)
    with pytest.raises(
        ValueError, match="train: vqvae must be what the run in .* was started with, got another"
    ):
        train(run(resume=True), shapes, task)


def test_joint_training_moves_the_encoder_by_every_part(shapes: Dataset, vqvae: str, tmp_path: Path) -> None:
    """The gradient of the bridge's loss reaches the encoder; the whole run changes codes and prior."""
    task = OUBridgeTask(bridge_config(vqvae, tmp_path / "x", joint=True), shapes, _here())
    trainee = task.network()
    task.loss(trainee, 0)
    part = task.batches.images(0)
    latents = trainee.system.encode(part.x0)
    trainee.system.bridge.compute_loss(latents).backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in trainee.system.vqvae.encode.parameters()
    )
    assert set(task.facts()) == {"error", "prior", "irregularity", "perplexity"}
    system = fastdiff.load(_trained(shapes, vqvae, tmp_path, joint=True)).net
    before = systems.load(vqvae)
    assert not torch.equal(before.codebook.weight, system.vqvae.codebook.weight)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"prior": -1.0}, {"regularity": float("nan")}])
def test_weights_of_the_joint_loss_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"JointLoss: {next(iter(wrong))} must be finite and >= "):
        JointLoss(**wrong)


def test_irregularity_is_the_cross_entropy_of_the_assignment() -> None:
    torch.manual_seed(1)
    net = VQVAE(5, 3, channels=1, codebook_flavor="classic")
    z = torch.randn(2, 3, 2, 2)
    index = net.quantise(z).indices
    wanted = []
    for b in range(2):
        for i in range(2):
            for j in range(2):
                logits = -(z[b, :, i, j] - net.codebook.weight).square().sum(1) / 0.3
                wanted.append(-logits.log_softmax(0)[index[b, i, j]])
    found = irregularity(net, z, index, 0.3)
    torch.testing.assert_close(found, torch.stack(wanted).mean())


@pytest.mark.parametrize("classes", [0, 2])
def test_a_pixelcnn_is_trained_and_drawn_from(
    shapes: Dataset, vqvae: str, tmp_path: Path, classes: int
) -> None:
    network = PixelCNNNetwork(dim=8, n_layers=2, n_classes=classes)
    train(
        PixelCNNConfig(out=str(tmp_path / "run"), vqvae=vqvae, network=network, **RUN), shapes, PixelCNNTask
    )
    system: Any = systems.load(tmp_path / "run" / "model")
    labels = torch.tensor([0, 1]) if classes else None
    image, mask = images(shapes.images[:2]), torch.ones(4, 4)
    mask[1:3, 1:3] = 0
    drawn = system.sample(2, labels=labels, known=image, mask=mask)
    assert drawn.shape == (2, 1, 8, 8)
    kept = system.vqvae.images(system.vqvae.indices(image)).clamp(-1, 1)
    torch.testing.assert_close(system.sample(2, labels=labels, known=image, mask=torch.ones(4, 4)), kept)
    with pytest.raises(ValueError, match="n_classes must be 0 or 2, got 3"):
        train(
            PixelCNNConfig(out=str(tmp_path / "r"), vqvae=vqvae, network=PixelCNNNetwork(n_classes=3), **RUN),
            shapes,
            PixelCNNTask,
        )


def _here() -> Any:
    from fastdiff.training.processes import join

    return join("cpu")
