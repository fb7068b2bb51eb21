"""Networks of other libraries give what they give in eager torch, and nothing of them is left to it."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest
import torch

import fastdiff

from .agreement import assert_same_values, randomised

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fused")]
BATCHES = (1, 2, 3, 8)
SIZES = ((16, 16), (24, 8))


def compare(net, make, batches=BATCHES, sizes=SIZES):
    net = randomised(net)
    compiled = fastdiff.compile(net)
    for batch in batches:
        for height, width in sizes:
            inputs = make(batch, height, width)
            with torch.no_grad():
                assert_same_values(compiled(*inputs), net(*inputs))
    with torch.inference_mode():
        assert_same_values(compiled(*inputs), net(*inputs))


def image_and_time(batch, height, width):
    return torch.randn(batch, 3, height, width), torch.arange(batch) * 7


UNETS = {
    "default": {},
    "scale_shift": {"resnet_time_scale_shift": "scale_shift"},
    "attention": {"attention_head_dim": 8, "down_block_types": ("AttnDownBlock2D", "AttnDownBlock2D"),
                  "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D")},
    "resnet sampling": {"downsample_type": "resnet", "upsample_type": "resnet"},
}  # fmt: skip


@pytest.mark.parametrize("variant", UNETS)
def test_diffusers_unet(variant):
    diffusers = pytest.importorskip("diffusers")
    options = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
               "attention_head_dim": 8, **UNETS[variant]}  # fmt: skip
    net = diffusers.UNet2DModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8, **options
    )
    compare(net, image_and_time)


def test_diffusers_conditional_unet():
    diffusers = pytest.importorskip("diffusers")
    net = diffusers.UNet2DConditionModel(
        sample_size=16, in_channels=3, out_channels=3, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24, attention_head_dim=4, norm_num_groups=8,
    )  # fmt: skip
    compare(net, lambda b, h, w: (*image_and_time(b, h, w), torch.randn(b, 5, 24)))


def test_diffusers_decoders():
    diffusers = pytest.importorskip("diffusers")
    options = {
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    vae = diffusers.AutoencoderKL(latent_channels=4, **options)
    compare(vae.decoder, lambda b, h, w: (torch.randn(b, 4, h, w),))
    torch.compiler.reset()
    vq = diffusers.VQModel(latent_channels=3, num_vq_embeddings=32, **options)
    compare(vq, lambda b, h, w: (torch.randn(b, 3, h, w),))


@pytest.fixture
def lucidrains(monkeypatch):
    """denoising-diffusion-pytorch, which imports torchvision for things a network does not need."""
    if importlib.util.find_spec("torchvision") is None:
        stand_in = types.ModuleType("torchvision")
        stand_in.transforms, stand_in.utils = types.ModuleType("transforms"), types.ModuleType("utils")
        monkeypatch.setitem(sys.modules, "torchvision", stand_in)
    return pytest.importorskip("denoising_diffusion_pytorch")


@pytest.mark.parametrize("flash", [False, True])
def test_lucidrains_unet(lucidrains, flash):
    net = lucidrains.Unet(dim=16, dim_mults=(1, 2), flash_attn=flash, attn_dim_head=8)
    compare(net, image_and_time)


def test_lucidrains_unet_1d(lucidrains):
    net = lucidrains.Unet1D(dim=16, dim_mults=(1, 2), channels=3)
    compare(net, lambda b, h, w: (torch.randn(b, 3, h), torch.arange(b)), batches=(1, 3))


def test_lucidrains_karras_unet(lucidrains):
    module = importlib.import_module("denoising_diffusion_pytorch.karras_unet")
    net = module.KarrasUnet(
        image_size=16, dim=16, dim_max=32, num_downsamples=1, num_blocks_per_stage=1, attn_dim_head=8
    )
    compare(
        net, lambda b, h, w: (torch.randn(b, 4, 16, 16), torch.rand(b)), batches=(1, 3), sizes=((16, 16),)
    )


def test_lucidrains_uvit(lucidrains):
    module = importlib.import_module("denoising_diffusion_pytorch.simple_diffusion")
    net = module.UViT(dim=16, dim_mults=(1, 2), downsample_factor=2, vit_depth=1, attn_dim_head=8)
    compare(net, lambda b, h, w: (torch.randn(b, 3, h, w), torch.rand(b)), batches=(1, 3))


@pytest.fixture
def k_diffusion_models(monkeypatch):
    """k_diffusion.models alone: the package imports scikit-image, clip and more, which its networks do not use."""
    found = importlib.util.find_spec("k_diffusion")
    if found is None:
        pytest.skip("k_diffusion is not installed")
    absent = ["dctorch", "torchsde", "torchdiffeq", "torchvision", "torchvision.transforms"]
    for name in ["k_diffusion", *(n for n in absent if n not in sys.modules)]:
        module = types.ModuleType(name)
        module.__path__ = list(found.submodule_search_locations) if name == "k_diffusion" else []
        module.functional = module.transforms = module.odeint = None
        monkeypatch.setitem(sys.modules, name, module)
    yield importlib.import_module("k_diffusion.models.image_v1")
    for name in [name for name in sys.modules if name.startswith("k_diffusion.")]:
        monkeypatch.delitem(sys.modules, name)


def test_k_diffusion_image_model(k_diffusion_models):
    net = k_diffusion_models.ImageDenoiserModelV1(
        3, 16, [1, 1], [16, 32], [False, True], has_variance=False, dropout_rate=0.0
    )
    compare(net, lambda b, h, w: (torch.randn(b, 3, h, w), torch.rand(b) + 0.1), sizes=((16, 16),))
