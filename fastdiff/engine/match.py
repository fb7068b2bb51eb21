"""Match: the fusions, in the order in which they build on each other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from . import graph_ops, live_ops
from .fold import hoist
from .fuse_attention import fuse_attention, own_attention
from .fuse_convs import fuse_convs
from .fuse_linear_attention import fuse_linear_attention
from .fuse_norms import fuse_norms
from .fuse_products import fuse_products, pointwise_to_linear
from .fuse_sinusoids import fuse_sinusoids
from .fuse_sums import fuse_sums
from .graphs import Node, calls
from .live_linears import join_linears
from .normalise import drop_no_ops, plain_views
from .settings import Settings


def match(graph: fx.Graph, weights: Sequence[Node], settings: Settings) -> None:
    """Replace what the engine knows by its own operations; the rest stays as it is.

    Args:
        graph: normalised.
        weights: placeholders of the weights.
        settings: of the program.
    """
    fuse_sinusoids(graph)
    fuse_norms(graph)
    fuse_attention(graph)
    own_attention(graph)
    fuse_linear_attention(graph)
    pointwise_to_linear(graph, hoist(graph, weights))
    plain_views(graph)
    drop_no_ops(graph)
    fuse_convs(graph, weights, settings)
    fuse_products(graph, weights)


_OPAQUE = {graph_ops.norm_silu: live_ops.norm_silu, graph_ops.attention: live_ops.attention}


def match_live(graph: fx.Graph) -> None:
    """Replace what needs no packed weights by operations that inductor leaves as they are; the rest stays.

    Args:
        graph: normalised.
    """
    fuse_norms(graph)
    fuse_attention(graph)
    plain_views(graph)
    drop_no_ops(graph)
    join_linears(graph)
    fuse_sums(graph)
    for node in calls(graph, *_OPAQUE):
        node.target = _OPAQUE[node.target]
