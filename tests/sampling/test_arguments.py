"""Arguments that once were dropped or misread: computed right, or refused in words."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fastdiff
from fastdiff import rng
from fastdiff.ops.row import make_row
from fastdiff.schedule import Schedule
from fastdiff.solvers import StepTable, ddim
from fastdiff.solvers.closed_form import MixtureNetwork

SCHEDULE = Schedule.cosine(100)
NET = MixtureNetwork(SCHEDULE, "eps", [0.2], [0.3])
OPTIONS: dict[str, Any] = {"shape": (1, 4, 4), "num": 2}
IMAGE = torch.full((1, 4, 4), 0.5)
NAMELESS = StepTable(np.array([make_row(eval=1, t=50, u_x=1.0, a=1.0)] * 3), "nameless")


def test_a_run_that_is_stopped_keeps_its_noisy_states() -> None:
    whole = fastdiff.sample(NET, 10, trajectory=True, **OPTIONS)
    part = fastdiff.sample(NET, 10, trajectory=True, callback=lambda k, t, x, x0: k == 4, **OPTIONS)
    assert torch.equal(part, whole[:6]) and part[-1].abs().max() > 1


@pytest.mark.parametrize("guided", [False, True])
def test_a_network_may_change_and_keep_what_it_gets(guided: bool) -> None:
    kept: list[Tensor] = []

    def changes(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        kept.append(x)
        return x.mul_(0.5)

    def gives(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return 0.5 * x

    options = {**OPTIONS, "schedule": SCHEDULE, "prediction": "v", "labels": [1]}
    assert torch.equal(fastdiff.sample(changes, 5, **options), fastdiff.sample(gives, 5, **options))
    assert not torch.equal(kept[0], kept[1])


def test_a_network_may_give_the_same_tensor_again() -> None:
    out = torch.empty(1, 1, 4, 4)

    def gives(x: Tensor, t: Tensor) -> Tensor:
        return out.copy_(0.5 * x) if len(x) == 1 else 0.5 * x

    options = {**OPTIONS, "schedule": SCHEDULE, "prediction": "v"}
    alone = fastdiff.sample(gives, 5, batch_invariant=True, **options)
    assert torch.equal(alone, fastdiff.sample(gives, 5, **options))


def test_temperature_scales_the_noise_of_a_start() -> None:
    cold = fastdiff.sample(NET, 10, x_init=IMAGE, start=5, temperature=0.0, **OPTIONS)
    assert torch.equal(cold[0], cold[1])
    warm = fastdiff.sample(NET, 10, x_init=IMAGE, start=5, **OPTIONS)
    assert not torch.equal(warm[0], warm[1])


@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc", "ipndm"])
def test_a_multistep_solver_starts_late_on_the_times_that_are_left(solver: str) -> None:
    """From a level of little noise the image is nearly kept."""
    exact = MixtureNetwork(SCHEDULE, "eps", [0.5], [0.01])
    drawn = fastdiff.sample(exact, [12, 8, 4], solver=solver, x_init=IMAGE, start=0, **OPTIONS)
    assert float((drawn - IMAGE).abs().max()) < 0.05
    noisy = fastdiff.sample(NET, [90, 60, 30], solver=solver, x_init=IMAGE, start=0, **OPTIONS)
    assert not torch.equal(noisy[0], noisy[1])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"solver": NAMELESS, "x_init": IMAGE, "mask": torch.ones(4, 4)}, "rows that name their levels"),
        ({"solver": NAMELESS, "x_init": IMAGE, "start": 1}, "rows that name their levels"),
        ({"solver": "dpmpp_2m", "x_init": IMAGE, "start": 4}, "start must be a row of dpmpp_2m"),
        ({"x_init": IMAGE, "start": 2.0}, "start must be an integer"),
        ({"x_init": torch.full((1, 4, 4), 200, dtype=torch.uint8), "start": 3}, "x_init must be floating"),
        ({"seeds": torch.tensor([1.2, 1.9])}, "seeds must be int64"),
        ({"seeds": torch.zeros(2, 1, dtype=torch.int64)}, "seeds must be int64"),
        ({"cond": {"labels": torch.zeros(2)}}, "cond must not hold labels"),
        ({"compile": 1}, "compile must be"),
        ({"callback": 3}, "callback must be a function"),
    ],
    ids=str,
)
def test_refused_in_words(options: dict[str, Any], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        fastdiff.sample(NET, 10, **OPTIONS, **options)


def test_arguments_that_a_choice_leaves_no_room_for() -> None:
    with pytest.raises(ValueError, match="spacing must be left out"):
        fastdiff.sample(NET, [90, 50, 10], spacing="quad", **OPTIONS)
    table = ddim(SCHEDULE, "eps", 5)
    for more in ({"clip": (-0.2, 0.2)}, {"spacing": "quad"}, {"eta": 0.5}):
        with pytest.raises(ValueError, match=f"{next(iter(more))} must be left out"):
            fastdiff.sample(NET, 5, solver=table, **OPTIONS, **more)


def test_schedules_are_copied_and_pickled() -> None:
    assert copy.deepcopy(SCHEDULE) is SCHEDULE and copy.copy(SCHEDULE) is SCHEDULE
    again = pickle.loads(pickle.dumps(SCHEDULE))
    assert again.to_config() == SCHEDULE.to_config()


def test_seeds_as_a_tensor_keep_their_bits() -> None:
    big = torch.tensor([-1], dtype=torch.int64)
    assert torch.equal(rng.normal(big, (8,)), rng.normal([2**64 - 1], (8,)))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"shape": np.array([1, 4, 4])}, "shape must be a sequence"),
        ({"shape": (1, 10**20, 4)}, "shape must be whole numbers"),
        ({"spacing": None}, "spacing must be a name or a list of times, got NoneType"),
        ({"clip": 3}, "clip must be .*, got 3"),
        ({"clip": ("a", "b")}, "clip must be"),
        ({"seeds": 3}, "seeds must be integers, a list of them, got int"),
        ({"seeds": {3, 5}}, "seeds must be integers, a list of them, got set"),
        ({"eta": "0.5"}, "eta must be a number, got '0.5'"),
        ({"cond": IMAGE[None].to("meta")}, "cond must be a dense tensor of real numbers"),
        ({"cond": IMAGE[None].to_sparse()}, "cond must be a dense tensor of real numbers"),
        ({"cond": torch.nested.nested_tensor([IMAGE, IMAGE])}, "cond must be .*, got a nested one"),
        ({"x_init": IMAGE.to("meta")}, "x_init must be a dense tensor of real numbers"),
        ({"x_init": IMAGE.to(torch.float8_e4m3fn)}, "x_init must be a dense tensor of real numbers"),
        ({"x_init": IMAGE, "mask": IMAGE * 1j}, "mask must be a dense tensor of real numbers"),
    ],
)
def test_what_holds_no_numbers_is_refused_in_words(options: dict[str, Any], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        fastdiff.sample(NET, 5, **{**OPTIONS, **options})


@pytest.mark.parametrize(
    "gives", [lambda x, t: torch.complex(x, x), lambda x, t: x.long(), lambda x, t: x.to("meta")]
)
def test_a_network_gives_floating_tensors(gives: Any) -> None:
    """Imaginary parts were dropped with a warning of torch's, whole numbers taken as they were cut."""
    with pytest.raises(TypeError, match="the network must return a dense floating tensor"):
        fastdiff.sample(gives, 5, schedule=SCHEDULE, prediction="v", **OPTIONS)


def test_a_hook_that_comes_or_goes_is_seen_by_a_compiled_network() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.conv(x)

    net, options = Net(), {**OPTIONS, "schedule": SCHEDULE, "prediction": "v", "compile": True}
    before = fastdiff.sample(net, 2, **options)
    hook = net.conv.register_forward_hook(lambda module, inputs, out: 0.5 * out)
    hooked = fastdiff.sample(net, 2, **options)
    torch.testing.assert_close(hooked, fastdiff.sample(net, 2, **{**options, "compile": False}))
    hook.remove()
    other = net.conv.register_forward_hook(lambda module, inputs, out: 0.25 * out)
    torch.testing.assert_close(
        fastdiff.sample(net, 2, **options), fastdiff.sample(net, 2, **{**options, "compile": False})
    )
    other.remove()
    assert not torch.equal(before, hooked) and torch.equal(before, fastdiff.sample(net, 2, **options))
