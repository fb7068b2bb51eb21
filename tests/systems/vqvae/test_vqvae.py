"""The VQ-VAE of the OU bridges: sizes, shapes, gradients, the original's checkpoints."""

from __future__ import annotations

import pytest
import torch

from fastdiff.nn.codebook import FLAVORS, EMACodebook
from fastdiff.systems.vqvae import VQVAE, CifarVQVAE, MiniImagenetVQVAE
from fastdiff.systems.vqvae.vqvae import reconstruction_loss


@pytest.mark.parametrize(
    ("kind", "size", "side", "count"), [(CifarVQVAE, 32, 16, 39_795), (MiniImagenetVQVAE, 88, 22, 59_475)]
)
def test_sizes_of_the_original(kind: type[VQVAE], size: int, side: int, count: int) -> None:
    vqvae = kind(64, 32)
    assert sum(p.numel() for p in vqvae.parameters()) == count
    out = vqvae(torch.randn(2, 3, size, size))
    assert out.images.shape == (2, 3, size, size)
    assert out.quantised.shape == (2, 32, side, side) and out.indices.shape == (2, side, side)
    assert vqvae.featuremap_size == (side, side)


def test_names_of_the_original_with_its_aliases() -> None:
    torch.manual_seed(0)
    vqvae, again = CifarVQVAE(8, 4), CifarVQVAE(8, 4)
    names = {"encode.0.block.3.weight", "encode.0.shortcut.0.bias", "decode.6.weight", "codebook.weight"}
    state = vqvae.state_dict()
    assert names <= set(state)
    aliases = {f"autoencoder.{n}": t for n, t in state.items() if not n.startswith("codebook.")}
    again.load_original({**state, **aliases})
    assert all(torch.equal(t, state[n]) for n, t in again.state_dict().items())
    assert {"codebook.ema_cluster_size", "codebook.ema_positions"} <= set(
        CifarVQVAE(8, 4, "ema").state_dict()
    )
    with pytest.raises(ValueError, match="state must fit this shape and codebook"):
        again.load_original({"encode.0.block.0.weight": torch.zeros(1)})


@pytest.mark.parametrize("flavor", [*FLAVORS, "fsq"])
def test_every_flavor_trains_and_agrees_with_its_indices(flavor: str) -> None:
    torch.manual_seed(0)
    options, dim = ({"levels": (4, 4)}, 2) if flavor == "fsq" else ({}, 6)
    vqvae = VQVAE(16, dim, channels=1, codebook_flavor=flavor, codebook_options=options)
    x = torch.randn(3, 1, 8, 12)
    out = vqvae(x)
    reconstruction_loss(out, x).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in vqvae.encode.parameters())
    assert vqvae.encode[0].block[0].weight.grad.abs().sum() > 0
    vqvae.eval()
    out, indices = vqvae(x), vqvae.indices(x)
    assert torch.equal(out.indices, indices) and indices.shape[:3] == (3, 4, 6)
    assert torch.equal(out.quantised, vqvae.lookup(indices))
    torch.testing.assert_close(vqvae.images(indices), out.images)


def test_channels_last_changes_nothing() -> None:
    torch.manual_seed(0)
    vqvae, x = VQVAE(16, 8, channels=1).eval(), torch.randn(3, 1, 16, 16)
    last = vqvae(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last.images, vqvae(x).images)
    assert torch.equal(last.indices, vqvae(x).indices)


def test_training_learns_two_kinds_of_image() -> None:
    torch.manual_seed(0)
    vqvae = VQVAE(8, 4, channels=1, codebook_flavor="ema", codebook_options={"decay": 0.9})
    assert isinstance(vqvae.codebook, EMACodebook)
    x = torch.ones(16, 1, 8, 8)
    x[::2, :, :, :4] = -1
    optimizer = torch.optim.Adam(vqvae.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = reconstruction_loss(vqvae(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_other_dtypes_of_images_and_no_images() -> None:
    torch.manual_seed(0)
    vqvae, x = VQVAE(8, 4).eval(), torch.rand(2, 3, 8, 8) * 2 - 1
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        again = vqvae(x.to(dtype)).images
        torch.testing.assert_close(again, vqvae(x.to(dtype).float()).images)
    assert vqvae(x[:0]).images.shape == (0, 3, 8, 8)


def test_pixels_known_in_part_are_not_known_but_some_code_must_be() -> None:
    vqvae, mask = VQVAE(8, 4), torch.zeros(2, 8, 8)
    assert vqvae.known_codes(mask).eq(0).all()
    mask[:, :, :3] = 1
    assert vqvae.known_codes(mask)[0].tolist() == [[1.0, 0.0, 0.0, 0.0]] * 4
    mask[1] = 0
    mask[1, :, 3] = 1
    with pytest.raises(ValueError, match="mask must mark all 2 x 2 pixels of a code at least"):
        vqvae.known_codes(mask)


def test_wrong_input() -> None:
    vqvae = VQVAE(8, 4)
    for x in (torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 7, 8), torch.zeros(3, 8, 8)):
        with pytest.raises(ValueError, match=r"VQVAE: x must be \(B, 3, H, W\), H and W multiples of 2, got"):
            vqvae(x)
    with pytest.raises(ValueError, match="VQVAE: x must be"):
        vqvae(torch.zeros(2, 3, 0, 8))
    for x, got in ((torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "torch.uint8"), ([1.0], "list")):
        with pytest.raises(TypeError, match=f"VQVAE: x must be floating point, in .*, got {got}"):
            vqvae.indices(x)
    with pytest.raises(ValueError, match=r"indices must be those of maps, \(B, h, w\), got \(2, 2\)"):
        vqvae.images(torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"VQVAE: z_e must be \(B, 4, h, w\), got \(1, 5, 2, 2\)"):
        vqvae.quantise(torch.zeros(1, 5, 2, 2))
    with pytest.raises(ValueError, match="VQVAE: shape must be one of cifar, mini_imagenet, got 'mnist'"):
        VQVAE(shape="mnist")
    with pytest.raises(ValueError, match="VQVAE: channels must be an integer >= 1"):
        VQVAE(channels=0)
    with pytest.raises(ValueError, match="make_codebook: flavor must be one of"):
        VQVAE(codebook_flavor="best")
    with pytest.raises(ValueError, match="levels must give 64 codes of width 32, got 9 codes"):
        VQVAE(codebook_flavor="fsq", codebook_options={"levels": (3, 3)})
