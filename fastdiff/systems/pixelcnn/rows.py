"""The logits of a gated PixelCNN one code at a time, each in the time of one code.

The vertical stack of a row depends on the rows above alone: it is computed once per row. The horizontal stack of a code
depends on k // 2 codes to its left: their layers are remembered, and a code costs two small products a layer.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from fastdiff.systems.pixelcnn.network import GatedLayer, GatedPixelCNN, gate


class _Stack:
    """What one layer remembers.

    Attributes:
        above: (B, D, rows, W) inputs of the vertical convolution, the last rows.
        side: (B, reach + W, D) inputs of the horizontal convolution in this row, zeros before it.
        given: (W, B, 2D) what the row and its class add to every code.
    """

    def __init__(self, layer: GatedLayer, batch: int, width: int, labels: Tensor | None) -> None:
        down, right = layer.masked()
        like, dim = down.new_zeros, down.shape[1]
        self.layer, self.down, self.seen = layer, down, right.shape[3]
        # (seen * D, 2D): the window of codes to the left, nearest last, as one vector.
        self.right = rearrange(right[:, :, 0], "out inner seen -> (seen inner) out").contiguous()
        self.residual, self.shift = _linear(layer.residual)
        self.above = like(batch, dim, layer.reach, width)
        self.side = like(batch, layer.reach + width, dim)
        self.bias = layer.class_bias(labels)
        self.given = like(0)

    def next_row(self, v: Tensor) -> Tensor:
        """Take the row v (B, D, 1, W) of the stack below and return this layer's; mask A looks at the rows before."""
        rows = torch.cat((self.above, v), 2)
        seen = rows[:, :, : self.down.shape[2]]
        vertical = functional.conv2d(
            functional.pad(seen, (self.layer.reach, self.layer.reach)), self.down, self.layer.vertical.bias
        )
        self.above = rows[:, :, 1:]
        horizontal = self.layer.horizontal.bias
        given = (
            self.layer.across(vertical)
            + self.bias
            + (0.0 if horizontal is None else horizontal[:, None, None])
        )
        self.given = rearrange(given, "b d 1 w -> w b d").contiguous()
        return gate(vertical + self.bias)

    def code(self, column: int) -> Tensor:
        """(B, D) output of the horizontal stack at a column; inputs up to there must be in `side`."""
        window = self.side[:, column : column + self.seen].flatten(1)
        out = gate(torch.addmm(self.given[column], window, self.right))
        step = torch.addmm(self.shift, out, self.residual)
        return step if self.layer.first else step.add_(self.side[:, column + self.layer.reach])


def _linear(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """A 1 x 1 convolution as (weight (in, out), bias (out,)) for rows (B, in)."""
    weight = conv.weight[:, :, 0, 0].t().contiguous()
    return weight, weight.new_zeros(weight.shape[1]) if conv.bias is None else conv.bias


class Rows:
    """Walks over the codes of a batch of maps in order: `start_row`, then for each column `logits` and `put`.

    Args:
        net: the network; its weights must not change meanwhile.
        batch: number of maps B.
        width: columns W.
        labels: (B,) classes, or None.
    """

    def __init__(self, net: GatedPixelCNN, batch: int, width: int, labels: Tensor | None = None) -> None:
        layers = [layer for layer in net.layers if isinstance(layer, GatedLayer)]
        self.net = net
        self.stacks = [_Stack(layer, batch, width, labels) for layer in layers]
        self.row = net.embedding.weight.new_zeros(batch, width, net.embedding.embedding_dim)
        self.fed = False
        self.head = [_linear(part) for part in net.head if isinstance(part, nn.Conv2d)]

    def start_row(self) -> None:
        """Go to the beginning of the next row, all of whose predecessors have been put."""
        first = self.stacks[0]
        if self.fed:  # the finished row is the nearest of those that the first layer sees from now on
            done = rearrange(self.row, "b w d -> b d 1 w")
            first.above = torch.cat((first.above[:, :, 1:], done), 2)
        above, self.fed = first.above, True
        v = first.next_row(above.new_zeros(above.shape[0], above.shape[1], 1, above.shape[3]))
        first.above = above
        for stack in self.stacks[1:]:
            v = stack.next_row(v)
        for stack in self.stacks:
            stack.side.zero_()

    def logits(self, column: int) -> Tensor:
        """(B, K) logits of the code at `column`, all before it being put."""
        h = self.stacks[0].code(column)
        for stack in self.stacks[1:]:
            stack.side[:, column + stack.layer.reach] = h
            h = stack.code(column)
        (w1, b1), (w2, b2) = self.head
        return torch.addmm(b2, torch.addmm(b1, h, w1).relu_(), w2)

    def put(self, column: int, codes: Tensor) -> None:
        """Fix the codes (B,) of `column`."""
        embedded: Tensor = self.net.embedding(codes)
        self.row[:, column] = embedded
        self.stacks[0].side[:, column + self.stacks[0].layer.reach] = embedded
