"""Self-attention over the positions of a feature map."""

from __future__ import annotations

from torch import Tensor, nn

from fastdiff.nn.norms import make_norm
from fastdiff.ops import attention


class Attention(nn.Module):
    """x + project(softmax(q k^T / sqrt(d)) v) with q, k, v from the normalised x.

    The projection starts at zero, so that the module starts as the identity.

    Args:
        channels: number of channels C.
        heads: number of heads.
        head_dim: width of a head; None: C / heads.
        norm: "group" or "rms", applied without activation.
        groups: groups of a group norm.

    Raises:
        ValueError: when no head_dim is given and `heads` does not divide C.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 4,
        head_dim: int | None = None,
        norm: str = "group",
        groups: int = 32,
    ) -> None:
        super().__init__()
        if head_dim is None and channels % heads:
            raise ValueError(f"Attention: heads must divide the {channels} channels, got {heads}")
        self.heads, self.head_dim = heads, channels // heads if head_dim is None else head_dim
        inner = heads * self.head_dim
        self.norm = make_norm(norm, channels, groups, activate=False)
        self.qkv = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        self.project = nn.Conv2d(inner, channels, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) to (B, C, H, W)."""
        b, _, h, w = x.shape
        rows = self.qkv(self.norm(x)).permute(0, 2, 3, 1).reshape(b, h * w, 3, self.heads, self.head_dim)
        q, k, v = rows.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, d) each
        out = attention(q, k, v)
        return x + self.project(
            out.transpose(1, 2).reshape(b, h, w, self.heads * self.head_dim).permute(0, 3, 1, 2)
        )
