"""What can be sampled from: a shipped model, a saved one, or any network with its schedule and prediction."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastdiff.model import Model, load
from fastdiff.prediction import check_prediction
from fastdiff.sampling.spaces import PixelInterface, Space
from fastdiff.schedule import Schedule
from fastdiff.solvers import Anchor

Network = Callable[..., Tensor]
ModelChoice = str | Path | Model | Network


@dataclass(frozen=True)
class Source:
    """A network and what is known about it.

    Args:
        net: Called as net(x, t, ...).
        schedule: Its noise schedule.
        prediction: What it returns.
        shape: Shape of one sample, usually (C, H, W).
        num_classes: Number of labels; None when not known.
        data_range: Range of the states, or None when unbounded.
        anchor: Where the process comes to rest, when that is not the standard normal distribution.
        space: What makes images of the states, when they are none.
    """

    net: Network
    schedule: Schedule
    prediction: str
    shape: tuple[int, ...]
    num_classes: int | None
    data_range: tuple[float, float] | None
    anchor: Anchor | None = None
    space: Space | None = None

    @property
    def module(self) -> nn.Module | None:
        """The network when it is a torch module."""
        return self.net if isinstance(self.net, nn.Module) else None

    def pixels(self, one_by_one: bool) -> PixelInterface:
        """Converts between images and states; one image at a time if none may depend on the others."""
        return PixelInterface(self.space, 1) if one_by_one else PixelInterface(self.space)

    def target(self, batch: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The anchor's target for each sample, (batch, ...).

        Raises:
            ValueError: for a target that does not broadcast over one sample.
        """
        goal = torch.as_tensor(0.0 if self.anchor is None else self.anchor.target, device=device, dtype=dtype)
        try:
            return goal.expand(batch, *self.shape).contiguous()
        except RuntimeError:
            raise ValueError(
                f"sample: diffusion_target must broadcast over a sample {self.shape}, got {tuple(goal.shape)}"
            ) from None

    @property
    def self_condition(self) -> bool:
        """Whether the network wants its previous estimate of x0."""
        return bool(_config(self.net, "self_condition", False))

    def parameter(self) -> Tensor | None:
        """One floating parameter or buffer, to read device and dtype from."""
        tensors = [] if self.module is None else [*self.module.parameters(), *self.module.buffers()]
        return next((p for p in tensors if p.is_floating_point()), None)


def resolve(
    model: ModelChoice,
    schedule: Schedule | str | None,
    prediction: str | None,
    shape: Sequence[int] | None,
) -> Source:
    """Find out what `model` is.

    Raises:
        TypeError: for something that is not a model.
        ValueError: when schedule, prediction or shape are missing or contradict the model.
    """
    given = Schedule.named(schedule) if isinstance(schedule, str) else schedule
    if given is not None and not isinstance(given, Schedule):
        raise TypeError(f"sample: schedule must be a Schedule or a name, got {type(given).__name__}")
    if isinstance(model, (str, Path)):
        model = load(model)
    if isinstance(model, Model):
        return _from_model(model, given, prediction, shape)
    if not callable(model):
        raise TypeError(
            f"sample: model must be a name, a path, a Model or a callable, got {type(model).__name__}"
        )
    return _from_callable(model, given, prediction, shape)


def _from_model(
    model: Model, schedule: Schedule | None, prediction: str | None, shape: Sequence[int] | None
) -> Source:
    if prediction not in (None, model.prediction):
        raise ValueError(f"sample: prediction must be the model's, {model.prediction!r}, got {prediction!r}")
    own = tuple(model.shape)
    chosen = (
        own if shape is None else (own[:1] + tuple(shape) if len(shape) == len(own) - 1 else tuple(shape))
    )
    if len(chosen) != len(own) or chosen[0] != own[0]:
        raise ValueError(
            f"sample: shape must have the model's {own[0]} channels, like {own}, got {tuple(shape or ())}"
        )
    if getattr(model.net, "anchor", None) is not None:
        return _from_callable(model.net, schedule or model.schedule, model.prediction, shape)
    limits = None if model.data_range is None else (float(model.data_range[0]), float(model.data_range[1]))
    return Source(
        model.net,
        schedule or model.schedule,
        model.prediction,
        _checked_shape(chosen),
        model.num_classes,
        limits,
    )


def _from_callable(
    net: Network, schedule: Schedule | None, prediction: str | None, shape: Sequence[int] | None
) -> Source:
    schedule = schedule if schedule is not None else _attribute(net, "schedule", Schedule)
    prediction = prediction if prediction is not None else _attribute(net, "prediction", str)
    anchor, space = _attribute(net, "anchor", Anchor), getattr(net, "space", None)
    shape = shape if shape is not None else _attribute(net, "shape", tuple)
    missing = [
        n for n, v in (("schedule", schedule), ("prediction", prediction), ("shape", shape)) if v is None
    ]
    if schedule is None or prediction is None or shape is None:
        raise ValueError(f"sample: {', '.join(missing)} must be given with a bare network, got None")
    check_prediction(prediction, "sample")
    if anchor is not None and prediction != "eps":
        raise ValueError(f"sample: prediction must be 'eps' for a bridge, got {prediction!r}")
    return Source(
        net,
        schedule,
        prediction,
        _checked_shape(shape),
        _config(net, "num_classes", None),
        (-1.0, 1.0) if anchor is None else None,
        anchor,
        space,
    )


def _attribute(net: Network, name: str, kind: type) -> Any:
    value = getattr(net, name, None)
    return value if isinstance(value, kind) else None


def _config(net: Network, name: str, default: Any) -> Any:
    config = getattr(net, "config", None)
    return config[name] if isinstance(config, dict) and name in config else getattr(net, name, default)


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(shape, Sequence):
        raise TypeError(f"sample: shape must be a sequence such as (C, H, W), got {type(shape).__name__}")
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n < 2**31 for n in shape)
    if not shape or not whole:
        raise ValueError(f"sample: shape must be whole numbers >= 1 such as (C, H, W), got {tuple(shape)}")
    return tuple(shape)


def second_network(weak: Any, source: Source) -> Network:
    """The network of autoguidance, which must speak as the first does; moved to where the first one is.

    Raises:
        TypeError: for something that is not a model.
        ValueError: for a model of another prediction or shape.
    """
    if isinstance(weak, (str, Path)):
        weak = load(weak)
    if isinstance(weak, Model):
        if (weak.prediction, weak.shape[0]) != (source.prediction, source.shape[0]):
            raise ValueError(
                f"sample: the weak model must predict {source.prediction!r} with {source.shape[0]} channels, "
                f"got {weak.prediction!r} with {weak.shape[0]}"
            )
        weak = weak.net
    if not callable(weak):
        raise TypeError(f"sample: the weak network must be a model or a callable, got {type(weak).__name__}")
    weight = source.parameter()
    if isinstance(weak, nn.Module) and weight is not None:
        weak.to(weight.device)
    return weak


@contextmanager
def evaluating(*nets: object) -> Iterator[None]:
    """Evaluation mode without gradients inside; every submodule gets its own training flag back."""
    modules = [module for net in nets if isinstance(net, nn.Module) for module in net.modules()]
    flags = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag


_FINITE: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()


def check_weights(net: Network, *, again: bool = False) -> None:
    """Refuse a module with NaN or infinite weights; looks anew only when a weight was written since, or `again`.

    Raises:
        ValueError: naming the first such weight.
    """
    if not isinstance(net, nn.Module):
        return
    tensors = [(n, p) for n, p in (*net.named_parameters(), *net.named_buffers()) if p.is_floating_point()]
    stamp = hash(tuple((id(p), p.data_ptr(), 0 if p.is_inference() else p._version) for _, p in tensors))
    if _FINITE.get(net) == stamp and not again:
        return
    for name, tensor in tensors:
        count = int((~torch.isfinite(tensor)).sum())
        if count:
            raise ValueError(
                f"sample: weights must be finite, got {count} NaN or infinite values in {name!r}"
            )
    _FINITE[net] = stamp
