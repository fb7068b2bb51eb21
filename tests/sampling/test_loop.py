"""The loop: no value of a tensor is read on the host, hooks see every row, buffers do not leak."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastdiff import nn as fnn
from fastdiff.guidance import Guidance
from fastdiff.sampling import sample
from fastdiff.sampling.evaluator import Evaluator
from fastdiff.sampling.loop import Region, Run, run
from fastdiff.sampling.noise import NoiseSource
from fastdiff.sampling.reductions import Adaptation, Dynamic
from fastdiff.schedule import Schedule
from fastdiff.solvers import ddim, ddpm
from fastdiff.solvers.closed_form import MixtureNetwork

SCHEDULE = Schedule.cosine(100)
SEEDS = torch.arange(3)


class HostRead(AssertionError):
    """A tensor's value was read on the host."""


class NoHostReads(TorchDispatchMode):
    """Fails when an operation hands a tensor's value to the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in (
            "_local_scalar_dense",
            "item",
            "is_nonzero",
            "equal",
            "nonzero",
            "masked_select",
            "unique",
        ):
            raise HostRead(name)
        return func(*args, **(kwargs or {}))


def scaled(x: Tensor, t: Tensor, labels: Tensor | None = None, x_self_cond: Tensor | None = None) -> Tensor:
    """A stand-in for a network that reads all it gets, without reading values on the host."""
    shape = (-1, *(1,) * (x.ndim - 1))
    m = 0.5 * x * (1 + t.reshape(shape).to(x.dtype) / 1000)
    if labels is not None:
        m = m + 0.01 * labels.reshape(shape)
    return m if x_self_cond is None else m + 0.1 * x_self_cond


def plan_of(**changes: Any) -> Run:
    table = ddpm(SCHEDULE, "eps", 5)
    given = {"labels": torch.tensor([0, 1, 2])}
    evaluate = Evaluator(scaled, given, {"labels": torch.full((3,), 9)})
    return Run(**{"table": table, "evaluate": evaluate, "noise": NoiseSource("philox", SEEDS), **changes})


@pytest.mark.parametrize("noise", ["philox", "torch"])
@pytest.mark.parametrize("self_condition", [False, True])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_no_value_is_read_between_first_and_last_row(
    masked: bool, guided: bool, self_condition: bool, noise: str
) -> None:
    plan = plan_of(
        table=Guidance(3.0 if guided else 1.0).apply(ddpm(SCHEDULE, "eps", 5)),
        noise=NoiseSource(noise, SEEDS),
        self_condition=self_condition,
        region=Region(torch.ones(3, 2, 4, 4), torch.eye(4).expand(3, 2, 4, 4).contiguous())
        if masked
        else None,
        callback=lambda step, t, x, x0: None,
        trajectory=True,
    )
    with NoHostReads():
        states = run(plan, torch.randn(3, 2, 4, 4))
    assert states.shape == (6, 3, 2, 4, 4)


def test_no_value_is_read_when_weights_and_limits_depend_on_the_outputs() -> None:
    rule = Guidance(3.0, rescale=0.7, parallel=0.5)
    table = rule.apply(ddpm(SCHEDULE, "eps", 5))
    plan = plan_of(table=table, adapt=Adaptation(rule, Dynamic()))
    with NoHostReads():
        run(plan, torch.randn(3, 2, 4, 4))


def test_no_value_is_read_in_the_unet() -> None:
    net = fnn.UNet(in_channels=1, channels=8, channel_mults=(1, 2), blocks=1, groups=4, num_classes=3).eval()
    evaluate = Evaluator(net, {"labels": torch.tensor([0, 1, 2])}, {"labels": torch.full((3,), 3)})
    with torch.no_grad(), NoHostReads():
        run(
            plan_of(table=Guidance(2.0).apply(ddim(SCHEDULE, "v", 3)), evaluate=evaluate),
            torch.randn(3, 1, 8, 8),
        )


def test_the_guard_notices_a_read() -> None:
    def reads(x: Tensor, t: Tensor) -> Tensor:
        return x * float(x.mean())

    with pytest.raises(HostRead), NoHostReads():
        run(plan_of(evaluate=Evaluator(reads)), torch.randn(3, 2, 4, 4))


def test_trajectory_holds_every_state_and_ends_with_the_result() -> None:
    x = torch.randn(3, 2, 4, 4)
    before = x.clone()
    states, last = run(plan_of(trajectory=True), x), run(plan_of(), x)
    assert torch.equal(x, before)
    assert torch.equal(states[0], x)
    assert torch.equal(states[-1], last)
    assert all((a != b).any() for a, b in zip(states, states[1:]))


def test_a_callback_that_resizes_the_state_is_told() -> None:
    def shrink(step: int, t: float, x: Tensor, x0: Tensor) -> None:
        x.resize_(1, *x.shape[1:])

    with pytest.raises(ValueError, match=r"callback must leave x \(3, 2, 4, 4\), got \(1, 2, 4, 4\)"):
        run(plan_of(callback=shrink), torch.randn(3, 2, 4, 4))


def test_callback_sees_every_row_and_can_stop() -> None:
    seen: list[tuple[int, float, Tensor, Tensor]] = []

    def watch(step: int, t: float, x: Tensor, x0: Tensor) -> bool:
        seen.append((step, t, x.clone(), x0.clone()))
        return step == 3

    x = torch.randn(3, 2, 4, 4)
    result = run(plan_of(callback=watch), x)
    states = run(plan_of(trajectory=True), x)
    assert [(step, t) for step, t, _, _ in seen] == [(0, 99.0), (1, 79.0), (2, 59.0), (3, 39.0)]
    assert all(torch.equal(seen[k][2], states[k + 1]) for k in range(4))
    assert torch.equal(result, seen[3][3])
    assert run(plan_of(callback=watch, trajectory=True), x).shape[0] == 5


def test_self_condition_is_the_previous_estimate() -> None:
    given: list[Tensor] = []
    estimates: list[Tensor] = []

    def network(x: Tensor, t: Tensor, x_self_cond: Tensor) -> Tensor:
        given.append(x_self_cond.clone())
        return 0.3 * x

    def watch(step: int, t: float, x: Tensor, x0: Tensor) -> None:
        estimates.append(x0.clone())

    plan = plan_of(evaluate=Evaluator(network), self_condition=True, callback=watch)
    run(plan, torch.randn(3, 2, 4, 4))
    assert (given[0] == 0).all()
    assert all(torch.equal(a, b) for a, b in zip(given[1:], estimates))
    assert (given[1] != 0).any()


def test_guidance_is_one_call_of_both_branches() -> None:
    batches: list[int] = []

    def network(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        batches.append(len(x))
        return x * labels.reshape(-1, 1, 1, 1)

    evaluate = Evaluator(network, {"labels": torch.tensor([1, 2, 3])}, {"labels": torch.full((3,), 7)})
    table = ddim(SCHEDULE, "x0", 1, clip=None)
    x = torch.randn(3, 2, 4, 4)
    result = run(plan_of(table=Guidance(2.5).apply(table), evaluate=evaluate), x)
    weight = torch.tensor([7 + 2.5 * (c - 7) for c in (1, 2, 3)]).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(result, weight * x, rtol=1e-6, atol=1e-6)
    assert batches == [6]


def test_known_region_is_kept() -> None:
    """Known pixels follow q(x_t | known) on the way and are exact at the end."""
    known, mask = torch.full((3, 2, 4, 4), 0.7), torch.zeros(3, 2, 4, 4)
    mask[..., :2] = 1
    network = MixtureNetwork(SCHEDULE, "eps", [-0.2], [0.3])
    table = ddim(SCHEDULE, "eps", 10, clip=None)
    plan = plan_of(table=table, evaluate=Evaluator(network), region=Region(known, mask), trajectory=True)
    states = run(plan, torch.randn(3, 2, 4, 4))
    assert torch.equal(states[-1][..., :2], known[..., :2])
    assert (states[-1][..., 2:] != 0.7).all()
    level = (states[5][..., :2] - 0.7 * table["i_y"][4]) / table["i_s"][4]
    assert abs(float(level.mean())) < 5 / level.numel() ** 0.5
    assert 0.6 < float(level.std()) < 1.4


@pytest.mark.parametrize("kind", ["function", "generator", "tensor", "numbers"])
def test_own_noise(kind: str) -> None:
    like = torch.zeros(3, 2, 4, 4)
    numbers = torch.randn(6, 3, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    choices = {
        "function": lambda stream, row, like: numbers[0] if stream == 0 else numbers[row + 1],
        "generator": torch.Generator().manual_seed(1),
        "tensor": numbers[0],
        "numbers": numbers,
    }
    solver = ddim if kind == "tensor" else ddpm
    network = MixtureNetwork(SCHEDULE, "eps", [0.1], [0.3])
    options = {"shape": (2, 4, 4), "num": 3, "solver": solver, "clip": None}
    result = sample(network, 5, noise=choices[kind], **options)
    plan = plan_of(table=solver(SCHEDULE, "eps", 5, clip=None), evaluate=Evaluator(network))
    expected = torch.Generator().manual_seed(1)
    draws = (
        [torch.randn(like.shape, generator=expected) for _ in range(5)] if kind == "generator" else numbers
    )
    by_hand = Run(plan.table, plan.evaluate, NoiseSource(lambda s, row, x: draws[row + 1], SEEDS))
    torch.testing.assert_close(result, run(by_hand, draws[0].clone()), rtol=0, atol=1e-6)


def test_noise_refused() -> None:
    network = MixtureNetwork(SCHEDULE, "eps", [0.1], [0.3])
    options = {"shape": (2, 4, 4), "num": 3}
    with pytest.raises(ValueError, match="noise must be 'philox'"):
        sample(network, 5, noise="brownian", **options)
    with pytest.raises(TypeError, match="noise must be a name"):
        sample(network, 5, noise=7, **options)
    with pytest.raises(ValueError, match="noise must have the shape"):
        sample(network, 5, noise=lambda *_: torch.zeros(1), **options)
    with pytest.raises(ValueError, match="noise must have an entry 1"):
        sample(network, 5, solver="ddpm", noise=torch.zeros(1, 3, 2, 4, 4), **options)
    with pytest.raises(ValueError, match="noise must have an entry 1"):
        sample(network, 5, solver="ddpm", noise=torch.zeros(3, 2, 4, 4), **options)
