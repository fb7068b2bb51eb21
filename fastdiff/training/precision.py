"""Mixed precision: autocast, and gradient scaling where float16 needs it."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor


def choose_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """The low-precision dtype of a run, None for float32 throughout.

    Args:
        amp: "auto", "off", "bf16" or "fp16".
        device: where the network runs.

    Raises:
        ValueError: for fp16 on a CPU, where training with it is neither fast nor supported.
    """
    if amp == "fp16" and device.type == "cpu":
        raise ValueError("TrainConfig: amp must be 'off', 'bf16' or 'auto' on a CPU, got 'fp16'")
    if amp == "auto":
        return _fast_dtype(device)
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]


def _fast_dtype(device: torch.device) -> torch.dtype | None:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _cpu_has_bf16() else None


def _cpu_has_bf16() -> bool:
    tests = (
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return any(test is not None and test() for test in tests)


class Precision:
    """Autocast and, for float16, a gradient scaler, behind one face.

    Args:
        amp: "auto", "off", "bf16" or "fp16".
        device: where the network runs.
    """

    def __init__(self, amp: str, device: torch.device) -> None:
        self.device, self.dtype = device, choose_dtype(amp, device)
        self.scaler = torch.amp.GradScaler(device.type) if self.dtype == torch.float16 else None

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Context of the forward pass."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to differentiate."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """True gradients, before they are clipped."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Step of the optimizer; a step with overflowed float16 gradients is left out."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()

    def state(self) -> dict[str, Any] | None:
        """JSON-able state."""
        return None if self.scaler is None else self.scaler.state_dict()

    def load(self, state: dict[str, Any] | None) -> None:
        """Put back what `state` gave."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)
