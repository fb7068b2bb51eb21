"""The UNet of the published bridges: its size, the names of its weights, and what `compat` changes."""

from __future__ import annotations

import pytest
import torch

from fastdiff.systems.ou_bridge import PriorUNet
from fastdiff.systems.ou_bridge.prior_unet import PriorAttention


def small(**options: bool) -> PriorUNet:
    torch.manual_seed(0)
    return PriorUNet(4, 16, (1, 2), (False, True), 1, **options)


def test_the_default_has_the_published_size_and_names() -> None:
    with torch.device("meta"):
        net = PriorUNet()
    assert sum(p.numel() for p in net.parameters()) == 169_898_656
    names = set(net.state_dict())
    for part in ("image_proj", "time_emb.lin1", "down.0.res.conv1", "down.2.conv", "up.0.res.shortcut"):
        assert f"{part}.weight" in names
    for part in ("down.6.attn.projection", "middle.attn.norm", "middle.res2.time_emb", "norm", "final"):
        assert f"{part}.bias" in names
    assert len([name for name in names if name.endswith("shortcut.weight")]) == 11


def test_attention_is_over_keys_and_compat_over_queries() -> None:
    torch.manual_seed(0)
    ours, theirs = PriorAttention(16), PriorAttention(16, compat=True)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 16, 3, 5)
    for module, axis in ((ours, 2), (theirs, 1)):
        rows = (x if module.compat else module.norm(x)).flatten(2).transpose(1, 2)
        q, k, v = module.projection(rows).chunk(3, dim=2)
        weights = (torch.einsum("bid,bjd->bij", q, k) / 4).softmax(axis)
        wanted = x + module.output(weights @ v).transpose(1, 2).reshape(x.shape)
        torch.testing.assert_close(module(x), wanted, atol=1e-5, rtol=1e-5)


def test_time_and_every_weight_count() -> None:
    net, x = small(), torch.randn(2, 4, 8, 12)
    out = net(x, torch.tensor([3, 900]))
    assert out.shape == x.shape
    assert not torch.allclose(out[:1], net(x[:1], torch.tensor([900])), atol=1e-3)
    out.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"x must be \(B, 4, h, w\), h and w multiples of 2, got \(1, 4, 7, 8\)"
    ):
        small()(torch.zeros(1, 4, 7, 8), torch.tensor([0]))
    for times in (torch.tensor([0, 1, 2]), torch.tensor(0)):
        with pytest.raises(ValueError, match=r"t must be \(1,\), got"):
            small()(torch.zeros(1, 4, 8, 8), times)
    for mults in ((1, 2), ()):
        with pytest.raises(ValueError, match="ch_mults as long as is_attn"):
            PriorUNet(ch_mults=mults, is_attn=(True,) * (len(mults) // 2))
