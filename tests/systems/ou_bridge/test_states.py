"""What a bridge is called with: dtypes, shapes and numbers that do not fit; tables that casts leave alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastdiff.systems.ou_bridge import DiffusionBridge, HoDiffusion, betas_to_deltas, diffusion_terms

BETAS = np.linspace(1e-4, 0.02, 20)
X, T = torch.zeros(3, 2), torch.tensor([1, 2, 3])


def bridge_of(net: Any = None, **options: Any) -> DiffusionBridge:
    return HoDiffusion(net or (lambda x, t: 0 * x), betas_to_deltas(BETAS), 20, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_states_are_taken_to_float32(dtype: torch.dtype) -> None:
    bridge, x, eps = bridge_of(lambda x, t: 0.5 * x), torch.randn(3, 2).to(dtype), torch.randn(3, 2)
    for step in (bridge.posterior_sample, bridge.posterior_onestep_sample, bridge.prior_onestep_sample):
        found = step(x, T, eps)
        assert found.dtype == torch.float32
        assert torch.equal(found, step(x.float(), T, eps))
    assert torch.equal(bridge.compute_loss(x, T, eps), bridge.compute_loss(x.float(), T, eps))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_casts_leave_the_tables_alone(dtype: torch.dtype) -> None:
    bridge, x, eps = bridge_of(), torch.randn(3, 2), torch.randn(3, 2)
    before = bridge.prior_onestep_sample(x, T, eps)
    assert torch.equal(bridge.to(dtype).prior_onestep_sample(x, T, eps), before)
    np.testing.assert_allclose(1 - bridge.alpha.double(), BETAS, rtol=1e-3)


def test_a_state_dict_stored_in_half_precision_leaves_the_tables_alone() -> None:
    bridge, other = bridge_of(), bridge_of()
    bridge.load_state_dict({name: t.half() for name, t in other.state_dict().items()})
    assert all(torch.equal(t, getattr(other, name)) for name, t in bridge.named_buffers())


def test_a_state_dict_of_another_process_is_refused() -> None:
    nested = torch.nn.ModuleList([bridge_of()])
    other = DiffusionBridge(lambda x, t: x, betas_to_deltas(BETAS), 20, 2.0, 4.0, 0.0)
    for theirs in (other, HoDiffusion(lambda x, t: x, betas_to_deltas(BETAS[:19]), 19)):
        with pytest.raises(RuntimeError, match="DiffusionBridge: beta must be that of this process"):
            nested.load_state_dict({f"0.{name}": t for name, t in theirs.state_dict().items()})
    nested.load_state_dict({f"0.{name}": t for name, t in bridge_of().state_dict().items()})


@pytest.mark.parametrize("x", [X.long(), X.to(torch.complex64), torch.tensor(1.0), [1.0]])
def test_what_are_no_states_is_refused(x: Any) -> None:
    bridge = bridge_of()
    for call in (bridge.posterior_sample, bridge.posterior_onestep_sample, bridge.prior_onestep_sample):
        with pytest.raises(TypeError, match=r"x must be a floating tensor \(B, ...\), got"):
            call(x, 1)
    with pytest.raises(TypeError, match="x must be a floating tensor"):
        bridge.compute_loss(x)
    with pytest.raises(ValueError, match=r"x must hold data, got \(0, 2\)"):
        bridge.compute_loss(X[:0])


@pytest.mark.parametrize("t", [1.7, True, torch.tensor([1.0, 2.0, 3.0])])
def test_times_are_whole_numbers(t: Any) -> None:
    with pytest.raises(TypeError, match="t must be integers, got torch"):
        bridge_of().posterior_sample(X, t)


def test_noise_and_answers_have_the_shape_of_the_states() -> None:
    bridge, wrong = bridge_of(), torch.zeros(5, 3, 2)
    for call in (bridge.posterior_sample, bridge.posterior_onestep_sample, bridge.prior_onestep_sample):
        with pytest.raises(ValueError, match=r"epsilon must be like x, \(3, 2\), got \(5, 3, 2\)"):
            call(X, 1, wrong)
    with pytest.raises(ValueError, match="epsilon must be like x"):
        bridge.prior_initial_sample((3, 2), wrong)
    with pytest.raises(ValueError, match=r"x0 must be like x, \(3, 2\), got \(3, 1\)"):
        bridge.bridge_posterior(X, X[:, :1], 1)
    for net, got in ((lambda x, t: x[:, :1], r"\(3, 1\)"), (lambda x, t: (x,), "tuple")):
        for call in (lambda b: b.compute_loss(X), lambda b: b.prior_sample((3, 2))):
            with pytest.raises(
                ValueError, match=rf"denoising_model must return noise like x, \(3, 2\), got {got}"
            ):
                call(bridge_of(net))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"num_steps": 0, "delta_schedule": []}, ValueError, "num_steps must be an integer >= 1, got 0"),
        ({"num_steps": 20.0}, ValueError, "num_steps must be an integer >= 1, got 20.0"),
        (
            {"num_steps": 1, "delta_schedule": [0.1], "compat": True},
            ValueError,
            "num_steps must be >= 2 with compat",
        ),
        ({"delta_schedule": "abc"}, TypeError, "delta_schedule must be real numbers, got 'abc'"),
        ({"theta": None}, TypeError, "theta must be real numbers, got None"),
        ({"diffusion_target": 1j}, TypeError, "diffusion_target must be real numbers, got 1j"),
        ({"shape": 4}, ValueError, "shape must be whole numbers, got 4"),
        ({"shape": "ab"}, ValueError, "shape must be whole numbers, got 'ab'"),
    ],
)
def test_wrong_numbers_are_named(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    good = {
        "delta_schedule": [0.05] * 20,
        "num_steps": 20,
        "theta": 1.0,
        "eta2": 2.0,
        "diffusion_target": 0.0,
    }
    with pytest.raises(kind, match=f"DiffusionBridge: {message}"):
        DiffusionBridge(lambda x, t: x, **{**good, **change})


def test_numbers_keep_their_double_precision() -> None:
    process = DiffusionBridge(lambda x, t: x, [0.1, 0.3], 2, 0.7, 0.9, 0.0).process
    assert (process.theta, process.eta2, process.delta.tolist()) == (0.7, 0.9, [0.1, 0.3])
    for wrong in (torch.ones(2, dtype=torch.complex64), [0.1, "b"]):
        with pytest.raises(TypeError, match="delta_schedule must be real numbers"):
            DiffusionBridge(lambda x, t: x, wrong, 2, 0.7, 0.9, 0.0)


@pytest.mark.parametrize(("betas", "theta"), [([0.0, 0.1], 1.0), ([0.1, 1.0], 1.0), ([0.1], 0.0)])
def test_betas_lie_between_nothing_and_everything(betas: list[float], theta: float) -> None:
    with pytest.raises(ValueError, match=r"betas must lie in \(0, 1\) and theta be > 0"):
        betas_to_deltas(betas, theta)


def test_terms_want_a_seed_for_every_sample() -> None:
    with pytest.raises(ValueError, match="seeds must be those of 3 samples, got 1"):
        diffusion_terms(bridge_of(), X, seeds=[4])
    with pytest.raises(ValueError, match="times_per_call must be >= 1, got 0"):
        diffusion_terms(bridge_of(), X, times_per_call=0)
