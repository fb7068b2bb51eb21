"""Recorded runs of networks that write, remember, read on the host or keep switches in Python."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fastdiff
from fastdiff.engine import recorder as recorders
from fastdiff.sampling import recorded
from fastdiff.sampling.evaluator import Evaluator
from fastdiff.sampling.input_safety import leaves_inputs_alone

from .recording import OPTIONS, both, fake, no_recordings, unet

__all__ = ["no_recordings"]


class Writes(nn.Module):
    """A network that changes its state and its time, some of them in the first call, some only later."""

    def __init__(self, late: bool) -> None:
        super().__init__()
        self.late = late

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        result = 0.3 * x + 0.01 * t[:, None, None, None]
        x.clamp_(-9, 9) if self.late else x.mul_(3)
        t.mul_(2)
        return result


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("trajectory", [False, True])
def test_a_network_that_writes_to_what_it_is_given(late: bool, trajectory: bool) -> None:
    plain, got, _ = both(Writes(late), trajectory=trajectory)
    assert torch.equal(plain, got)


class Remembers(nn.Module):
    """A network that keeps the state that it was given."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.last = x
        return 0.5 * x


@pytest.mark.parametrize(
    ("net", "alone"),
    [(unet(), True), (Writes(True), False), (Remembers(), False)],
    ids=["unet", "writes", "keeps"],
)
def test_only_well_mannered_networks_get_the_state_itself(net: nn.Module, alone: bool) -> None:
    x, t = torch.randn(2, 1, 8, 8), torch.zeros(2)
    with torch.no_grad():
        assert leaves_inputs_alone(Evaluator(net), x, t, None, False, 1.0) == alone
    with torch.inference_mode():
        assert not leaves_inputs_alone(Evaluator(net), x, t, None, False, 1.0)


class Reads(nn.Module):
    """A network that reads a value on the host."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x * float(x.mean())


class Keeps(nn.Module):
    """A network that keeps what it made in its last call."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.kept = 0.5 * x
        return self.kept + 0.0


class Loose(nn.Module):
    """A network that reads a tensor nobody knows of."""

    def __init__(self) -> None:
        super().__init__()
        self.table = [torch.ones(8)]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x * self.table[0]


@pytest.mark.parametrize(
    ("net", "told"),
    [(Reads(), "reads a value on the host"), (Keeps(), "outlive the recording"), (Loose(), "that may move")],
    ids=["reads", "keeps", "loose"],
)
def test_what_cannot_be_recorded_is_told_and_leaves_nothing(net: nn.Module, told: str) -> None:
    plain = fastdiff.sample(net, 12, compile=False, **OPTIONS)
    with recorders.using(fake.FakeRecorder(net)):
        with pytest.raises(ValueError, match=told):
            fastdiff.sample(net, 12, compile=True, **OPTIONS)
        assert len(recorded.RECORDINGS) == 0
        with pytest.warns(UserWarning, match=told):
            got = fastdiff.sample(net, 12, **OPTIONS)
    assert torch.equal(plain, got) and len(recorded.RECORDINGS) == 0


class Adapted(nn.Module):
    """A layer with a low-rank adapter that has a weight and a switch in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.rank = unet(), nn.Parameter(torch.full((1, 1, 8, 8), 0.1))
        self.scaling, self.disabled = {"default": 1.0}, False

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        result = self.net(x, t)
        return result if self.disabled else result + self.scaling["default"] * self.rank


def test_what_a_network_keeps_in_python_is_part_of_the_recording() -> None:
    net = Adapted()
    used = fake.FakeRecorder(net)

    def agrees() -> None:
        with recorders.using(used):
            got = fastdiff.sample(net, 12, compile=True, **OPTIONS)
        assert torch.equal(got, fastdiff.sample(net, 12, compile=False, **OPTIONS))

    agrees()
    net.scaling["default"] = 0.3
    agrees()
    net.disabled = True
    agrees()
    hook = net.net.register_forward_hook(lambda module, given, out: 0.5 * out)
    agrees()
    hook.remove()
    agrees()
    assert used.recordings == 4 and used.replays == 5


def test_a_failed_recording_is_not_tried_again() -> None:
    net, calls = Reads(), []
    net.register_forward_hook(lambda *_: calls.append(1))
    with recorders.using(fake.FakeRecorder(net)), pytest.warns(UserWarning, match="on the host"):
        fastdiff.sample(net, 12, **OPTIONS)
        first = len(calls)
        fastdiff.sample(net, 12, **OPTIONS)
    assert first > 12 and len(calls) == first + 12
