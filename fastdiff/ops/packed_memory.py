"""Memory for packed weights: where it is large, it starts at a page of 2 MiB, so that whole ones can hold it."""

from __future__ import annotations

import torch
from torch import Tensor

_PAGE = 2**21


def packed_memory(floats: int) -> Tensor:
    """New float32 memory (floats,), aligned to 2 MiB if it has as many bytes.

    The packing ops ask the system for large pages there, before they write the first number. What lies before the
    start is never touched and so takes addresses, but no memory.
    """
    if 4 * floats < _PAGE:
        return torch.empty(floats)
    data = torch.empty(floats + _PAGE // 4)
    start = -data.data_ptr() % _PAGE // 4
    return data[start : start + floats]
