"""UNet: shapes, options, refusals, and the meaning of its inputs."""

from __future__ import annotations

import json

import pytest
import torch

from fastdiff.nn import UNet

SMALL = {"in_channels": 1, "channels": 16, "channel_mults": (1, 2), "blocks": 1, "heads": 2}


def awake(net: UNet, seed: int = 0) -> UNet:
    """The network with its zero-initialised layers filled, so that every input reaches the result."""
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        if not p.any():
            p.data.normal_(std=0.1, generator=generator)
    return net.eval()


def call(net: UNet, batch: int = 2, height: int = 8, width: int = 8, **kwargs: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, net.config["in_channels"], height, width, generator=generator)
    with torch.no_grad():
        return net(x, torch.arange(batch) * 100, **kwargs)


@pytest.mark.parametrize("norm", ["group", "rms"])
@pytest.mark.parametrize("time_embedding", ["scale_shift", "additive"])
@pytest.mark.parametrize("patch", [1, 2])
def test_result_has_the_shape_of_the_input(norm: str, time_embedding: str, patch: int) -> None:
    net = UNet(**SMALL, norm=norm, time_embedding=time_embedding, patch=patch, attention_levels=(0, 1))
    assert call(awake(net)).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_channel_count_and_non_square_sizes(channels: int) -> None:
    net = awake(UNet(**{**SMALL, "in_channels": channels}))
    assert call(net, height=6, width=10).shape == (2, channels, 6, 10)


def test_out_channels_may_differ() -> None:
    assert call(awake(UNet(**SMALL, out_channels=2))).shape == (2, 2, 8, 8)


def test_a_fresh_network_returns_zero() -> None:
    assert not call(UNet(**SMALL)).any()


def test_time_and_class_reach_the_result() -> None:
    net = awake(UNet(**SMALL, num_classes=3))
    x = torch.randn(1, 1, 8, 8).expand(4, -1, -1, -1)
    with torch.no_grad():
        out = net(x, torch.tensor([0, 500, 0, 0]), torch.tensor([0, 0, 1, 3]))
    for i in (1, 2, 3):
        assert (out[0] - out[i]).abs().max() > 1e-3


def test_no_labels_means_the_null_class() -> None:
    net = awake(UNet(**SMALL, num_classes=3))
    null = call(net, labels=torch.full((2,), 3))
    assert torch.equal(call(net), null)
    assert not torch.equal(null, call(net, labels=torch.tensor([0, 1])))


def test_self_conditioning_defaults_to_zeros_and_is_read() -> None:
    net = awake(UNet(**SMALL, self_condition=True))
    zeros = torch.zeros(2, 1, 8, 8)
    assert torch.equal(call(net), call(net, x_self_cond=zeros))
    assert not torch.equal(call(net), call(net, x_self_cond=zeros + 0.5))


def test_samples_of_a_batch_do_not_mix() -> None:
    net = awake(UNet(**SMALL, attention_levels=(0, 1), norm="group"))
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([1, 20, 300])
    with torch.no_grad():
        whole, one = net(x, t), net(x[1:2], t[1:2])
    torch.testing.assert_close(whole[1:2], one, atol=1e-5, rtol=1e-5)


def test_float_times_equal_integer_times_and_scale_multiplies_them() -> None:
    net, scaled = UNet(**SMALL), UNet(**SMALL, time_scale=1000.0)
    scaled.load_state_dict(awake(net).state_dict())
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        expected = net(x, torch.tensor([250, 500]))
        assert torch.equal(net(x, torch.tensor([250.0, 500.0])), expected)
        torch.testing.assert_close(scaled(x, torch.tensor([0.25, 0.5])), expected)


def test_dropout_acts_in_training_only() -> None:
    net = awake(UNet(**SMALL, dropout=0.5))
    assert torch.equal(call(net), call(net))
    net.train()
    assert not torch.equal(call(net), call(net))


def test_every_parameter_gets_a_gradient() -> None:
    options = {"num_classes": 3, "self_condition": True, "attention_levels": (0,)}
    net = awake(UNet(**SMALL, **options)).train()
    x = torch.randn(2, 1, 8, 8)
    net(x, torch.tensor([3, 700]), torch.tensor([0, 3]), x * 0.3).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_channels_last_gives_the_same_result() -> None:
    net = awake(UNet(**SMALL, attention_levels=(1,), norm="rms"))
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([5, 6])
    with torch.no_grad():
        expected = net(x, t)
        found = net.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last), t)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_size_that_cannot_be_halved_is_refused_in_words() -> None:
    with pytest.raises(
        ValueError, match=r"UNet: height and width must be multiples of 4 .* got 9 x 8.*size_policy='pad'"
    ):
        call(UNet(**SMALL, patch=2), height=9)


def test_a_size_that_cannot_be_halved_is_padded_and_cropped_by_choice() -> None:
    net = awake(UNet(**SMALL, size_policy="pad"))
    assert call(net, height=7, width=9).shape == (2, 1, 7, 9)
    refusing = UNet(**SMALL)
    refusing.load_state_dict(net.state_dict())
    assert torch.equal(call(net), call(refusing))


def test_padding_repeats_the_border() -> None:
    net = awake(UNet(**SMALL, size_policy="pad"))
    x, t = torch.randn(1, 1, 7, 8), torch.tensor([3])
    with torch.no_grad():
        assert torch.equal(net(x, t), net(torch.cat((x, x[:, :, -1:]), 2), t)[:, :, :7])


def test_config_is_json_and_rebuilds_the_network() -> None:
    net = awake(UNet(**SMALL, num_classes=2, patch=2, head_dim=8))
    again = UNet(**json.loads(json.dumps(net.config)))
    again.load_state_dict(net.state_dict())
    assert torch.equal(call(net), call(again.eval()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "batch"}, "norm must be one of 'group', 'rms', got 'batch'"),
        ({"time_embedding": "film"}, "time_embedding must be one of 'scale_shift', 'additive'"),
        ({"size_policy": "crop"}, "size_policy must be one of 'refuse', 'pad'"),
        ({"channels": 0}, "channels must be an integer >= 1, got 0"),
        ({"channels": 15}, "channels must be even, got 15"),
        ({"channel_mults": ()}, "channel_mults must hold integers >= 1"),
        ({"attention_levels": (2,)}, "attention_levels must name levels 0...1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"num_classes": -1}, "num_classes must be an integer >= 0"),
        ({"patch": 0}, "patch must be an integer >= 1"),
        ({"heads": 3}, "heads must divide the 32 channels, got 3"),
    ],
)
def test_wrong_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(**{**SMALL, **options})


def test_wrong_inputs_are_named() -> None:
    net = UNet(**SMALL)
    with pytest.raises(ValueError, match=r"x must be \(B, 1, H, W\), got \(2, 3, 8, 8\)"):
        net(torch.zeros(2, 3, 8, 8), torch.zeros(2))
    with pytest.raises(ValueError, match="labels must be None"):
        call(net, labels=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="x_self_cond must be None"):
        call(net, x_self_cond=torch.zeros(2, 1, 8, 8))
