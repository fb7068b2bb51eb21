"""Small UNets in the spellings of well-known repositories: the same arithmetic, written as each of them writes it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class GroupNorm32(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).type(x.dtype)


class GuidedBlock(nn.Module):
    """guided-diffusion: scale-shift norm, SiLU modules, casts around the norm."""

    def __init__(self, c_in: int, c_out: int, emb: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(GroupNorm32(8, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, 2 * c_out))
        self.out_layers = nn.Sequential(
            GroupNorm32(8, c_out), nn.SiLU(), nn.Dropout(p=0.1), nn.Conv2d(c_out, c_out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers(x)
        emb_out = self.emb_layers(emb).type(h.dtype)
        while len(emb_out.shape) < len(h.shape):
            emb_out = emb_out[..., None]
        norm, rest = self.out_layers[0], self.out_layers[1:]
        scale, shift = torch.chunk(emb_out, 2, dim=1)
        h = norm(h) * (1 + scale) + shift
        return self.skip_connection(x) + rest(h)


class GuidedAttention(nn.Module):
    """guided-diffusion: conv1d qkv, einsum, both factors scaled, softmax in float."""

    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.proj_out = (
            GroupNorm32(8, c),
            nn.Conv1d(c, 3 * c, 1),
            nn.Conv1d(c, c, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, *spatial = x.shape
        x = x.reshape(b, c, -1)
        qkv = self.qkv(self.norm(x))
        bs, width, length = qkv.shape
        ch = width // (3 * self.heads)
        q, k, v = qkv.reshape(bs * self.heads, ch * 3, length).split(ch, dim=1)
        scale = 1 / math.sqrt(math.sqrt(ch))
        weight = torch.einsum("bct,bcs->bts", q * scale, k * scale)
        weight = torch.softmax(weight.float(), dim=-1).type(weight.dtype)
        a = torch.einsum("bts,bcs->bct", weight, v).reshape(bs, -1, length)
        return (x + self.proj_out(a)).reshape(b, c, *spatial)


class EdmConv(nn.Module):
    """EDM: weights cast at every call, bias added in place, up- and downsampling by an interleaved pair."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel) / math.sqrt(c_in * kernel**2))
        self.bias = nn.Parameter(torch.randn(c_out) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        w, b = self.weight.to(x.dtype), self.bias.to(x.dtype)
        x = functional.conv2d(x, w, padding=w.shape[-1] // 2)
        return x.add_(b.reshape(1, -1, 1, 1))


class EdmBlock(nn.Module):
    """EDM: silu(addcmul(shift, norm(x), scale + 1)), residual added in place and scaled."""

    def __init__(self, c_in: int, c_out: int, emb: int) -> None:
        super().__init__()
        self.norm0, self.norm1 = nn.GroupNorm(8, c_in, eps=1e-6), nn.GroupNorm(8, c_out, eps=1e-6)
        self.conv0, self.conv1 = EdmConv(c_in, c_out), EdmConv(c_out, c_out)
        self.affine = nn.Linear(emb, 2 * c_out)
        self.skip = EdmConv(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        original = x
        x = self.conv0(functional.silu(self.norm0(x)))
        params = self.affine(emb).unsqueeze(2).unsqueeze(3).to(x.dtype)
        scale, shift = params.chunk(chunks=2, dim=1)
        x = functional.silu(torch.addcmul(shift, self.norm1(x), scale + 1))
        x = self.conv1(functional.dropout(x, p=0.1, training=self.training))
        x = x.add_(self.skip(original) if self.skip is not None else original)
        return x * math.sqrt(0.5)


class EdmAttention(nn.Module):
    """EDM: einsum with channels first, softmax over the last axis."""

    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm2, self.qkv, self.proj = nn.GroupNorm(8, c), EdmConv(c, 3 * c, 1), EdmConv(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.qkv(self.norm2(x)).reshape(x.shape[0] * self.heads, x.shape[1] // self.heads, 3, -1)
        q, k, v = rows.unbind(2)
        w = torch.einsum("ncq,nck->nqk", q, k / math.sqrt(k.shape[1])).softmax(dim=2)
        a = torch.einsum("nqk,nck->ncq", w, v)
        return self.proj(a.reshape(*x.shape)).add_(x)


class VdmBlock(nn.Module):
    """VDM: additive conditioning through a bias-free projection, x * sigmoid(x), `+=`."""

    def __init__(self, c_in: int, c_out: int, emb: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, c_in), nn.GroupNorm(8, c_out)
        self.conv1, self.conv2 = (
            nn.Conv2d(c_in, c_out, 3, padding=1),
            nn.Conv2d(c_out, c_out, 3, padding=1),
        )
        self.cond = nn.Linear(emb, c_out, bias=False)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.norm1(x)
        h = self.conv1(h * torch.sigmoid(h))
        h += self.cond(emb)[:, :, None, None]
        h = self.norm2(h)
        h = self.conv2(h.sigmoid() * h)
        return (x if self.skip is None else self.skip(x)) + h


class LabmlAttention(nn.Module):
    """labml: norm unused inside, one projection, softmax over keys, einsum 'bihd,bjhd->bijh'."""

    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.heads, self.d = heads, c // heads
        self.projection, self.output = nn.Linear(c, 3 * c), nn.Linear(c, c)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x = x.view(b, c, -1).permute(0, 2, 1)
        q, k, v = torch.chunk(self.projection(x).view(b, -1, self.heads, 3 * self.d), 3, dim=-1)
        attn = torch.einsum("bihd,bjhd->bijh", q, k) * self.d**-0.5
        res = torch.einsum("bijh,bjhd->bihd", attn.softmax(dim=2), v).reshape(b, -1, c)
        return (self.output(res) + x).permute(0, 2, 1).view(b, c, h, w)


class RmsBlock(nn.Module):
    """lucidrains: conv, F.normalize times g times sqrt(C), scale-shift, SiLU."""

    def __init__(self, c_in: int, c_out: int, emb: int) -> None:
        super().__init__()
        self.proj1, self.proj2 = (
            nn.Conv2d(c_in, c_out, 3, padding=1),
            nn.Conv2d(c_out, c_out, 3, padding=1),
        )
        self.g1, self.g2 = (nn.Parameter(torch.rand(1, c_out, 1, 1) + 0.5) for _ in range(2))
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(emb, 2 * c_out))
        self.res_conv = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.mlp(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.proj1(x)
        h = functional.normalize(h, dim=1) * self.g1 * h.shape[1] ** 0.5
        h = functional.silu(h * (scale + 1) + shift)
        h = self.proj2(h)
        h = functional.silu(functional.normalize(h, dim=1) * self.g2 * h.shape[1] ** 0.5)
        return h + self.res_conv(x)


BLOCKS = {
    "guided": (GuidedBlock, GuidedAttention),
    "edm": (EdmBlock, EdmAttention),
    "vdm": (VdmBlock, EdmAttention),
    "labml": (VdmBlock, LabmlAttention),
    "rms": (RmsBlock, GuidedAttention),
}


class SpelledUNet(nn.Module):
    """Two levels: block, attention, down, block, up, concatenation, block, in one repository's spelling."""

    def __init__(self, spelling: str, width: int = 16) -> None:
        super().__init__()
        block, attention = BLOCKS[spelling]
        self.embed = nn.Linear(1, 24)
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.block1, self.attention = block(width, width, 24), attention(2 * width, 2)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.block2 = block(2 * width, 2 * width, 24)
        self.up = nn.Conv2d(2 * width, width, 3, padding=1)
        self.block3 = block(2 * width, width, 24)
        self.last = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        emb = self.embed(t[:, None] / 1000)
        h = self.block1(self.first(x), emb)
        low = self.attention(self.block2(self.down(h), emb))
        up = functional.interpolate(low, size=h.shape[2:], mode="nearest")
        return self.last(self.block3(torch.cat([self.up(up), h], dim=1), emb))
