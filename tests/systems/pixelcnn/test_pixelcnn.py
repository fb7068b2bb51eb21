"""The gated PixelCNN: what a code sees, the walk over rows against whole forwards, drawing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastdiff.systems.pixelcnn import GatedPixelCNN, sample_codes
from fastdiff.systems.pixelcnn.rows import Rows


def net_of(classes: int = 3, layers: int = 5, dim: int = 8, codes: int = 11) -> GatedPixelCNN:
    torch.manual_seed(0)
    net = GatedPixelCNN(codes, dim, layers, classes)
    for parameter in net.parameters():  # far from zero, so that every path counts
        torch.nn.init.normal_(parameter, std=0.35)
    return net.eval()


def some_codes(net: GatedPixelCNN, *shape: int) -> Tensor:
    return torch.randint(0, net.config["input_dim"], shape, generator=torch.Generator().manual_seed(1))


def test_a_code_sees_all_codes_before_it_and_no_other() -> None:
    """Gradient of one logit: zero exactly where it must not look, and not zero within the reach of six layers."""
    net = net_of(0, layers=6)
    net.embedding.weight.requires_grad_(True)
    codes = some_codes(net, 1, 6, 7)
    embedded: list[Tensor] = []
    net.embedding.register_forward_hook(lambda _, __, out: (out.retain_grad(), embedded.append(out))[0])
    net(codes)[0, :, 3, 4].square().sum().backward()
    seen = (embedded[0].grad[0].abs().sum(-1) > 0).flatten()
    assert seen.tolist() == [place < 3 * 7 + 4 for place in range(6 * 7)]


@pytest.mark.parametrize("classes", [0, 3])
def test_rows_have_the_logits_of_whole_forwards(classes: int) -> None:
    net = net_of(classes)
    codes = some_codes(net, 4, 9, 8)
    labels = torch.tensor([0, 1, 2, 1]) if classes else None
    with torch.no_grad():
        whole, rows = net(codes, labels), Rows(net, 4, 8, labels)
        for i in range(9):
            rows.start_row()
            for j in range(8):
                torch.testing.assert_close(rows.logits(j), whole[:, :, i, j], atol=1e-5, rtol=1e-5)
                rows.put(j, codes[:, i, j])
    assert whole.std() > 0.5


@pytest.mark.parametrize("masked", [False, True])
def test_cached_draws_are_the_draws_of_whole_forwards(masked: bool) -> None:
    net = net_of()
    labels = torch.tensor([0, 2, 1])
    options: dict[str, Any] = {"num": 3, "labels": labels, "seed": 7}
    if masked:
        mask = torch.ones(6, 5)
        mask[2:4, 1:4] = 0
        options |= {"known": some_codes(net, 6, 5), "mask": mask}
    fast, slow = (sample_codes(net, (6, 5), cached=cached, **options) for cached in (True, False))
    assert torch.equal(fast, slow)
    if masked:
        assert torch.equal(fast[:, mask == 1], options["known"][mask == 1].expand(3, -1))
    one = sample_codes(net, (6, 5), **{**options, "num": 1, "seed": 8, "labels": labels[1:2]})
    assert torch.equal(one[0], fast[1])


def test_draws_have_the_frequencies_of_the_logits() -> None:
    net = net_of(0, layers=2)
    drawn = sample_codes(net, (1, 1), num=20_000)[:, 0, 0]
    wanted = net(torch.zeros(1, 1, 1, dtype=torch.int64))[0, :, 0, 0].softmax(0)
    found = torch.bincount(drawn, minlength=11) / len(drawn)
    assert ((found - wanted).abs() < 5 * (wanted * (1 - wanted) / len(drawn)).sqrt() + 1e-6).all()
    cold = sample_codes(net, (1, 1), num=100, temperature=1e-3)
    assert (cold == wanted.argmax()).all()


def test_a_small_net_learns_a_rule() -> None:
    """Codes that alternate along a row: after some steps the likelihood is that of the first code alone."""
    torch.manual_seed(0)
    net = GatedPixelCNN(2, 8, 2, 0)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        first = torch.randint(0, 2, (16, 4, 1))
        codes = (first + torch.arange(6)) % 2
        loss = net.nll(codes).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(net.nll(codes)[:, :, 1:].mean().detach()) < 0.05
    drawn = sample_codes(net, (4, 6), num=8)
    assert (drawn[:, :, 1:] != drawn[:, :, :-1]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (0, 3)}, r"size must be \(H, W\), both >= 1"),
        ({"temperature": 0.0}, "temperature must be finite and > 0"),
        ({"labels": None}, r"labels must be \(2,\) int64 in 0 ... 2, got None"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels must be \(2,\) int64"),
        ({"mask": torch.ones(3, 3)}, "known and mask must be given together"),
        (
            {"mask": torch.ones(3, 4), "known": torch.zeros(3, 3, dtype=torch.int64)},
            r"mask must fit \(2, 3, 3\)",
        ),
        (
            {"mask": torch.full((3, 3), 0.5), "known": torch.zeros(3, 3, dtype=torch.int64)},
            "mask must be 0 or 1 everywhere",
        ),
        ({"size": 3}, r"size must be \(H, W\), both >= 1, got 3"),
        ({"labels": torch.tensor([0, 3])}, r"labels must lie in 0 \.\.\. 2, got 0 \.\.\. 3"),
        ({"labels": [0, 1]}, r"labels must be \(2,\) int64, got \[0, 1\]"),
        (
            {"mask": torch.ones(3, 3), "known": torch.ones(3, 3)},
            "known must be whole numbers, got torch.float32",
        ),
        (
            {"mask": torch.ones(5, 3, 3), "known": torch.zeros(3, 3, dtype=torch.int64)},
            r"mask must fit \(2, 3, 3\), got \(5, 3, 3\)",
        ),
        (
            {"mask": torch.ones(3, 3), "known": torch.zeros(5, 3, 3, dtype=torch.int64)},
            r"known must fit \(2, 3, 3\), got \(5, 3, 3\)",
        ),
        (
            {"mask": [1], "known": torch.zeros(3, 3, dtype=torch.int64)},
            r"mask must fit \(2, 3, 3\), got list",
        ),
        ({"mask": torch.ones(3, 3), "known": torch.full((3, 3), 11)}, r"codes must be .* in 0 \.\.\. 10"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    good = {"size": (3, 3), "num": 2, "labels": torch.zeros(2, dtype=torch.int64)}
    with pytest.raises(ValueError, match=message):
        sample_codes(net_of(), **{**good, **change})
    with pytest.raises(ValueError, match="n_layers must be an integer >= 1, got 0"):
        GatedPixelCNN(4, 8, 0)
