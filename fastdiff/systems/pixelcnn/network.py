"""The gated PixelCNN: p(codes) = prod p(code | codes above it, and left of it in its row).

Two stacks of masked convolutions (van den Oord et al. 2016, arXiv 1606.05328): the vertical one sees the rows above,
the horizontal one the row so far and, through a 1 x 1 convolution, the vertical one:

    v' = gate(vertical(v) + class)
    h' = [h +] residual(gate(across(vertical(v)) + horizontal(h) + class))       gate(a, b) = tanh(a) sigmoid(b)

In the first layer (mask A) neither the row of the code nor the code itself is seen, and h is not added.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_FIRST, _OTHER, _HEAD = 7, 3, 512


def gate(x: Tensor) -> Tensor:
    """tanh of the first half of the channels (axis 1) times the sigmoid of the second half."""
    a, b = x.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


class GatedLayer(nn.Module):
    """One layer of both stacks.

    Args:
        dim: channels of each stack.
        kernel: k, odd: the vertical stack sees k // 2 rows above, the horizontal one k // 2 codes to the left.
        first: mask A: the row itself (vertical) and the code itself (horizontal) are hidden.
        n_classes: number of classes, 0 for none.
    """

    def __init__(self, dim: int, kernel: int, first: bool, n_classes: int) -> None:
        super().__init__()
        self.reach, self.first = kernel // 2, first
        self.vertical = nn.Conv2d(dim, 2 * dim, (self.reach + 1, kernel))
        self.across = nn.Conv2d(2 * dim, 2 * dim, 1)
        self.horizontal = nn.Conv2d(dim, 2 * dim, (1, self.reach + 1))
        self.residual = nn.Conv2d(dim, dim, 1)
        self.classes = nn.Embedding(n_classes, 2 * dim) if n_classes else None

    def masked(self) -> tuple[Tensor, Tensor]:
        """Weights of the vertical (2D, D, reach + 1, k) and horizontal (2D, D, 1, reach + 1) convolution, without
        what mask A hides: their last row and column.
        """
        seen = slice(0, self.reach if self.first else self.reach + 1)
        return self.vertical.weight[:, :, seen], self.horizontal.weight[..., seen]

    def class_bias(self, labels: Tensor | None) -> Tensor | float:
        """(B, 2D, 1, 1) of labels (B,), or 0 without."""
        return 0.0 if self.classes is None or labels is None else self.classes(labels)[:, :, None, None]

    def forward(self, v: Tensor, h: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both stacks, (B, D, H, W) each, one layer on."""
        (down, right), bias, hidden = self.masked(), self.class_bias(labels), int(self.first)
        above = functional.pad(v, (self.reach, self.reach, self.reach, 0))[
            :, :, : v.shape[2] + self.reach - hidden
        ]
        vertical = functional.conv2d(above, down, self.vertical.bias)
        left = functional.pad(h, (self.reach, 0))[..., : h.shape[3] + self.reach - hidden]
        horizontal = functional.conv2d(left, right, self.horizontal.bias)
        out = self.residual(gate(self.across(vertical) + horizontal + bias))
        return gate(vertical + bias), out if self.first else h + out


class GatedPixelCNN(nn.Module):
    """Logits of every code given those before it.

    Args:
        input_dim: K, number of codes.
        dim: channels of each stack.
        n_layers: layers; the first has kernel 7, the others 3.
        n_classes: number of class labels; 0 for a prior without labels.

    Raises:
        ValueError: for a size below 1 (classes: 0).
    """

    def __init__(self, input_dim: int = 256, dim: int = 64, n_layers: int = 15, n_classes: int = 10) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            **{"input_dim": input_dim, "dim": dim, "n_layers": n_layers, "n_classes": n_classes},
        }
        for name, value in self.config.items():
            least = 0 if name == "n_classes" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"GatedPixelCNN: {name} must be an integer >= {least}, got {value!r}")
        self.embedding = nn.Embedding(input_dim, dim)
        self.layers = nn.ModuleList(
            GatedLayer(dim, _OTHER if i else _FIRST, i == 0, n_classes) for i in range(n_layers)
        )
        self.head = nn.Sequential(nn.Conv2d(dim, _HEAD, 1), nn.ReLU(), nn.Conv2d(_HEAD, input_dim, 1))

    def forward(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits (B, K, H, W) of codes (B, H, W) int64, of classes (B,) where the network has them.

        Raises:
            ValueError: for codes or labels that do not fit.
        """
        self.check(codes, labels)
        h = v = self.embedding(codes).permute(0, 3, 1, 2)
        for layer in self.layers:
            v, h = layer(v, h, labels)
        return self.head(h)

    def nll(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """Negative log-likelihood of each code in nats, (B, H, W)."""
        return functional.cross_entropy(self(codes, labels).float(), codes, reduction="none")

    def check(self, codes: Tensor, labels: Tensor | None) -> None:
        """Refuse codes and labels that do not fit, with a ValueError."""
        whole = codes.dtype == torch.int64 and codes.ndim == 3
        count, classes = self.config["input_dim"], self.config["n_classes"]
        if (
            not whole
            or 0 in codes.shape[1:]
            or (codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < count)
        ):
            got = f"{codes.dtype} {tuple(codes.shape)}"
            raise ValueError(f"GatedPixelCNN: codes must be (B, H, W) int64 in 0 ... {count - 1}, got {got}")
        if (labels is not None) != bool(classes):
            want = (
                f"({len(codes)},) int64 in 0 ... {classes - 1}" if classes else "None, there are no classes"
            )
            raise ValueError(f"GatedPixelCNN: labels must be {want}, got {labels}")
        if labels is None:
            return
        if not isinstance(labels, Tensor) or labels.shape != codes.shape[:1] or labels.dtype != torch.int64:
            got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else repr(labels)
            raise ValueError(f"GatedPixelCNN: labels must be ({len(codes)},) int64, got {got}")
        low, high = (int(v) for v in labels.aminmax()) if labels.numel() else (0, 0)
        if not 0 <= low <= high < classes:
            raise ValueError(f"GatedPixelCNN: labels must lie in 0 ... {classes - 1}, got {low} ... {high}")
