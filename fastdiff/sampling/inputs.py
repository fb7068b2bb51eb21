"""Per-sample inputs: labels, conditions, initial and known images, checked and expanded to all samples."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fastdiff.sampling.source import Network, Source

Labels = int | Sequence[int] | Tensor
Cond = Tensor | Mapping[str, Tensor]


@dataclass(frozen=True)
class Inputs:
    """Per-sample inputs of `num` samples, each (num, ...).

    Args:
        labels: (num,) int64, or None.
        null_label: The label that means "none", for the unconditional branch; None when not known.
        cond: What the network gets by keyword.
        x_init: Initial or known image.
        mask: 1 where x_init is known.
    """

    labels: Tensor | None = None
    null_label: int | None = None
    cond: dict[str, Tensor] = field(default_factory=dict)
    x_init: Tensor | None = None
    mask: Tensor | None = None

    def part(self, piece: slice, device: torch.device, dtype: torch.dtype) -> Inputs:
        """Some of the samples, on a device."""

        def take(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[piece].to(device, dtype).contiguous()

        labels = None if self.labels is None else self.labels[piece].to(device)
        cond = {name: value[piece].to(device) for name, value in self.cond.items()}
        return Inputs(labels, self.null_label, cond, take(self.x_init), take(self.mask))

    def for_network(self) -> dict[str, Tensor]:
        """Keyword arguments of the network."""
        return self.cond if self.labels is None else {"labels": self.labels, **self.cond}

    def for_null_branch(self) -> dict[str, Tensor]:
        """What differs in the unconditional branch.

        Raises:
            ValueError: when there are no labels, or no label that means "none".
        """
        if self.labels is None or self.null_label is None:
            raise ValueError(
                "sample: guidance must come with labels and a network that knows num_classes, got none"
            )
        return {"labels": torch.full_like(self.labels, self.null_label)}


def checked_labels(labels: Labels | None, num: int, num_classes: int | None) -> Tensor | None:
    """Labels of `num` samples as (num,) int64; one label, or fewer than num of them, are repeated in turn.

    Args:
        labels: One, a list, a 1-d integer tensor, or None.
        num: Number of samples.
        num_classes: Labels are 0 ... num_classes - 1, and num_classes itself is "none"; None when not known.

    Raises:
        TypeError: for labels that are not integers.
        ValueError: for labels out of range, too many of them, or a network without classes.
    """
    if labels is None:
        return None
    given = _as_tensor(labels)
    if given.numel() == 0:
        raise ValueError(f"sample: labels must be 1 ... num = {num} of them, got 0")
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool or given.ndim > 1:
        raise TypeError(f"sample: labels must be integers (one, or a list), got {labels!r}")
    given = given.reshape(-1).to(torch.int64)
    if len(given) > num:
        raise ValueError(f"sample: labels must be 1 ... num = {num} of them, got {len(given)}")
    if num_classes == 0:
        raise ValueError(
            "sample: labels must be left out for a model without classes (num_classes = 0), got some"
        )
    low, high = int(given.min()), int(given.max())
    if low < 0 or (num_classes is not None and high > num_classes):
        limit = "" if num_classes is None else f" ... {num_classes - 1} (or {num_classes} for none)"
        raise ValueError(f"sample: labels must be in 0{limit}, got {low if low < 0 else high}")
    return given.repeat(-(-num // len(given)))[:num]


def _as_tensor(labels: Labels) -> Tensor:
    try:
        return torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"sample: labels must be integers (one, or a list), got {labels!r}") from None


def checked_cond(cond: Cond | None, num: int) -> dict[str, Tensor]:
    """Conditions as keyword arguments of `num` samples; a tensor alone is called "cond".

    Raises:
        TypeError, ValueError: for something that is not (num, ...) or (1, ...) tensors.
    """
    if cond is None:
        return {}
    named = cond if isinstance(cond, Mapping) else {"cond": cond}
    taken = sorted({"x", "t", "labels", "x_self_cond"} & set(named))
    if taken:
        raise ValueError(f"sample: cond must not hold {', '.join(taken)}, which the network gets otherwise")
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"sample: cond must be a tensor or a dictionary of tensors, got {type(value).__name__}"
            )
        _check_numbers("cond", value)
        if value.ndim < 1 or value.shape[0] not in (1, num):
            raise ValueError(
                f"sample: cond must be ({num}, ...) or (1, ...), got {tuple(value.shape)} for {name!r}"
            )
    return {name: value.expand(num, *value.shape[1:]) for name, value in named.items()}


def _check_numbers(name: str, value: Tensor) -> None:
    """A `TypeError` unless a tensor is dense and holds real numbers that torch computes with."""
    dense = value.layout == torch.strided and not value.is_nested and not value.is_meta
    if not dense or value.is_complex() or (value.is_floating_point() and value.dtype.itemsize == 1):
        got = "a nested one" if value.is_nested else f"{value.layout} {value.dtype} on {value.device}"
        raise TypeError(f"sample: {name} must be a dense tensor of real numbers, got {got}")


def check_keywords(net: Network, given: Mapping[str, Tensor]) -> None:
    """Refuse what the network has no keyword for, as far as its signature tells.

    Raises:
        TypeError: naming the argument.
    """
    call = net.forward if isinstance(net, nn.Module) else net
    try:
        parameters = inspect.signature(call, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):  # a callable without a signature
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    takes = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for name in given:
        if name not in takes:
            argument = "labels" if name == "labels" else "cond"
            raise TypeError(
                f"sample: {argument} must be what the network takes by keyword, which has {', '.join(takes)}, "
                f"got {name!r}"
            )


def checked_image(image: Tensor | None, name: str, num: int, shape: tuple[int, ...]) -> Tensor | None:
    """An image or a mask spread to (num, *shape).

    Raises:
        TypeError, ValueError: for something that does not spread, or holds NaN.
    """
    if image is None:
        return None
    if not isinstance(image, Tensor):
        raise TypeError(f"sample: {name} must be a tensor, got {type(image).__name__}")
    _check_numbers(name, image)
    if name == "x_init" and not image.is_floating_point():
        raise TypeError(f"sample: x_init must be floating point in the range of the data, got {image.dtype}")
    try:
        spread = image.expand(num, *shape)
    except RuntimeError:
        raise ValueError(f"sample: {name} must fit {(num, *shape)}, got {tuple(image.shape)}") from None
    if not torch.isfinite(image).all():
        raise ValueError(f"sample: {name} must be finite, got NaN or infinite values")
    return spread


def checked_mask(mask: Tensor | None, num: int, shape: tuple[int, ...]) -> Tensor | None:
    """A mask spread to (num, *shape), within [0, 1]."""
    spread = checked_image(mask, "mask", num, shape)
    if mask is not None and not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ValueError("sample: mask must be in [0, 1] (1 where known), got values outside")
    return spread


def check_inputs(
    source: Source,
    num: int,
    labels: Labels | None,
    cond: Cond | None,
    x_init: Tensor | None,
    mask: Tensor | None,
    *,
    started: bool,
) -> Inputs:
    """The per-sample arguments of a call for `num` samples of `source`.

    Raises:
        TypeError, ValueError: for one that does not fit.
    """
    if x_init is None and (mask is not None or started):
        raise ValueError("sample: x_init must be given with mask or start, got None")
    inputs = Inputs(
        checked_labels(labels, num, source.num_classes),
        source.num_classes or None,
        checked_cond(cond, num),
        checked_image(x_init, "x_init", num, source.shape),
        checked_mask(mask, num, source.shape),
    )
    check_keywords(source.net, inputs.for_network())
    return inputs
