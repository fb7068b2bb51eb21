"""Rules of guidance and thresholds that depend on the outputs, against their published formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdiff.guidance import Guidance
from fastdiff.model import Model
from fastdiff.ops import solver_step
from fastdiff.sampling import Dynamic, sample
from fastdiff.sampling.position import host_positions
from fastdiff.sampling.reductions import Adaptation, dynamic_limit, guided_weights
from fastdiff.schedule import Schedule
from fastdiff.solvers import ddim, dpmpp_2m
from fastdiff.solvers.closed_form import MixtureNetwork

SCHEDULE = Schedule.cosine(100)
BASE = {"shape": (2, 4, 4), "num": 3, "clip": None, "schedule": SCHEDULE}


def outputs(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    m = torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64)
    return m, 0.7 * m + 0.5 * torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64) + 0.2


def mixed(guidance: Guidance) -> Tensor:
    m, m_u = outputs()
    g_c, g_u = (w.reshape(-1, 1, 1, 1) for w in guided_weights(m, m_u, guidance))
    return g_c * m + g_u * m_u


def test_rescaling_gives_the_deviation_back() -> None:
    m, m_u = outputs()
    plain = m_u + 5.0 * (m - m_u)
    full, part = mixed(Guidance(5.0, rescale=1.0)), mixed(Guidance(5.0, rescale=0.7))
    own, pushed = (t.std((1, 2, 3), keepdim=True) for t in (m, plain))
    torch.testing.assert_close(full, plain * own / pushed)
    torch.testing.assert_close(part, 0.7 * plain * own / pushed + 0.3 * plain)
    torch.testing.assert_close(full.std((1, 2, 3)), m.std((1, 2, 3)))


def test_projection_removes_what_lies_along_the_output() -> None:
    m, m_u = outputs()
    push = mixed(Guidance(5.0, parallel=0.0)) - m
    assert (push * m).sum((1, 2, 3)).abs().max() < 1e-9
    step = m - m_u
    along = (step * m).sum((1, 2, 3), keepdim=True) / (m * m).sum((1, 2, 3), keepdim=True) * m
    torch.testing.assert_close(push, 4.0 * (step - along))
    half = mixed(Guidance(5.0, parallel=0.5)) - m
    torch.testing.assert_close(half, 4.0 * (step - 0.5 * along))


def test_weights_reach_the_fused_step() -> None:
    m, m_u = outputs()
    rule = Guidance(4.0, rescale=0.6, parallel=0.2)
    table = rule.apply(ddim(SCHEDULE, "eps", 4, clip=None))
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    at = list(host_positions(table, x))[1]
    columns = Adaptation(rule, None)(at, x, m, m_u)
    got = solver_step(table.tensor(dtype=torch.float64), 1, x, m, m_u=m_u, per_sample=columns)
    plain = ddim(SCHEDULE, "eps", 4, clip=None)
    expected = solver_step(plain.tensor(dtype=torch.float64), 1, x, mixed(rule))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


class Labelled:
    """An exact network of a point for each label, and of all of them for the null label 2; counts its work."""

    num_classes, schedule, prediction = 2, SCHEDULE, "eps"

    def __init__(self) -> None:
        points = ([-0.5], [0.5], [-0.5, 0.5])
        self.parts = [MixtureNetwork(SCHEDULE, "eps", p, [0.3] * len(p)) for p in points]
        self.states = 0

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        self.states += len(x)
        every = torch.stack([part(x, t) for part in self.parts])
        return every[labels, torch.arange(len(x))]


def drawn(guidance: Any, steps: int = 20, **options: Any) -> tuple[Tensor, int]:
    network = Labelled()
    result = sample(network, steps, labels=[0, 1, 1], guidance=guidance, **{**BASE, **options})
    return result, network.states


def test_interval_and_share_save_branches() -> None:
    table = ddim(SCHEDULE, "eps", 20)
    for rule, branches in [
        (Guidance(3.0), 40),
        (Guidance(3.0, interval=(20, 60)), 28),
        (Guidance(3.0, share=0.75), 35),
        (Guidance(3.0, share=0.0), 20),
        (Guidance(1.0), 20),
    ]:
        guided = rule.apply(table)
        assert (guided.branches, guided.evaluations) == (branches, 20)
        assert drawn(rule)[1] == 3 * branches
    inside = (table["t"] >= 20) & (table["t"] <= 60)
    assert np.array_equal(Guidance(3.0, interval=(20, 60)).apply(table)["g_c"] == 3.0, inside)
    low, high = float(table["t"][9]), float(table["t"][4])  # the ends are inside
    assert np.array_equal(
        Guidance(3.0, interval=(low, high)).apply(table)["g_c"] == 3.0, [4 <= i <= 9 for i in range(20)]
    )
    everywhere, plain = drawn(Guidance(3.0, interval=(0, 99)))[0], drawn(3.0)[0]
    assert torch.equal(everywhere, plain)
    assert (drawn(Guidance(3.0, interval=(20, 60)))[0] - plain).abs().max() > 1e-3


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_cfg_plus_plus_renoises_with_the_unconditional_branch(eta: float) -> None:
    """Against the update of the paper, written out: x' = alpha' x0_guided + sqrt(sigma'^2 - s^2) eps_u + s noise."""
    w, network = 0.6, Labelled()
    table = Guidance(w, cfg_pp=True).apply(ddim(SCHEDULE, "eps", 5, clip=None, eta=eta))
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    labels = torch.tensor([0, 1, 1])
    seeds = torch.arange(3)
    levels = [*zip(*(values.tolist() for values in table.levels)), (1.0, 0.0)]
    for k in range(5):
        (alpha, sigma), (alpha2, sigma2) = levels[k], levels[k + 1]
        t = torch.full((3,), int(table["t"][k]))
        m, m_u = network(x, t, labels), network(x, t, torch.full((3,), 2))
        x0 = (x - sigma * (m_u + w * (m - m_u))) / alpha
        noise = float(table["s"][k])
        still = solver_step(table.tensor(dtype=torch.float64), k, x, m, m_u=m_u, seeds=seeds)
        quiet = solver_step(table.with_columns(s=0.0).tensor(dtype=torch.float64), k, x, m, m_u=m_u)
        torch.testing.assert_close(
            quiet, alpha2 * x0 + (sigma2**2 - noise**2) ** 0.5 * m_u, rtol=0, atol=1e-9
        )
        x = still
    with pytest.raises(ValueError, match="cfg_pp must go with a one-step solver such as ddim, got dpmpp_2m"):
        Guidance(0.5, cfg_pp=True).apply(dpmpp_2m(SCHEDULE, "eps", 5))


def test_autoguidance_is_a_second_network() -> None:
    good, bad = (MixtureNetwork(SCHEDULE, "x0", [mean], [0.0]) for mean in (0.5, 0.4))
    options = {**BASE, "prediction": "x0"}
    result = sample(good, 5, guidance=Guidance(3.0, weak=bad), **options)
    torch.testing.assert_close(result, torch.full_like(result, 0.4 + 3.0 * 0.1), rtol=0, atol=1e-5)
    with pytest.raises(TypeError, match="the weak network must be a model or a callable"):
        sample(good, 5, guidance=Guidance(3.0, weak=7), **options)
    other = Model(torch.nn.Identity(), SCHEDULE, "v", (2, 4, 4))
    with pytest.raises(ValueError, match="the weak model must predict 'x0' with 2 channels, got 'v' with 2"):
        sample(good, 5, guidance=Guidance(3.0, weak=other), **options)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_classifier_guidance_is_bayes_rule(prediction: str, one_by_one: bool) -> None:
    """The unconditional network of two points and an exact classifier draw the asked one."""
    both = MixtureNetwork(SCHEDULE, prediction, [-0.5, 0.5], [0.1, 0.1])
    parts = [MixtureNetwork(SCHEDULE, prediction, [mean], [0.1]) for mean in (-0.5, 0.5)]

    def logits(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        alpha, sigma = float(SCHEDULE.alpha(t[0].item())), float(SCHEDULE.sigma(t[0].item()))
        variance = alpha**2 * 0.01 + sigma**2
        return torch.stack([-((x - alpha * mean) ** 2).flatten(1) / 2 / variance for mean in (-0.5, 0.5)], 2)

    def log_probability(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        each = logits(x, t, labels).log_softmax(2)
        return each.gather(2, labels.reshape(-1, 1, 1).expand(-1, each.shape[1], 1)).sum((1, 2))

    def without_labels(net: MixtureNetwork) -> Any:
        return lambda x, t, labels=None: net(x, t)

    options = {**BASE, "prediction": prediction, "dtype": torch.float64, "batch_invariant": one_by_one}
    options["x_init"] = torch.randn(
        3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    rule = Guidance(1.0, classifier=log_probability)
    got = sample(without_labels(both), 12, labels=[0, 1, 0], guidance=rule, **options)
    expected = [sample(without_labels(part), 12, **options) for part in parts]
    torch.testing.assert_close(
        got, torch.stack([expected[c][i] for i, c in enumerate([0, 1, 0])]), atol=1e-6, rtol=0
    )
    with pytest.raises(ValueError, match="the classifier must return log p"):
        bad = Guidance(1.0, classifier=lambda x, t, labels: x)
        sample(without_labels(both), 2, labels=0, guidance=bad, **options)


def test_classifier_logits_are_normalised() -> None:
    def linear(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return torch.stack((x.flatten(1).sum(1), 0 * x.flatten(1).sum(1)), 1)

    network = MixtureNetwork(SCHEDULE, "eps", [0.0], [0.5])
    options = {**BASE, "prediction": "eps", "labels": 0}
    pushed = sample(
        lambda x, t, labels: network(x, t), 10, guidance=Guidance(1.0, classifier=linear), **options
    )
    plain = sample(lambda x, t, labels: network(x, t), 10, **options)
    assert float((pushed - plain).mean()) > 0.01


def test_dynamic_limit_is_the_quantile() -> None:
    x0 = 3 * torch.randn(4, 2, 9, 9, generator=torch.Generator().manual_seed(1))
    x0[0] *= 0.01
    for quantile in (0.0, 0.5, 0.9, 0.995, 1.0):
        expected = torch.quantile(x0.abs().flatten(1), quantile, dim=1).clamp(min=1.0)
        torch.testing.assert_close(dynamic_limit(x0, Dynamic(quantile), 1.0), expected)
    assert float(dynamic_limit(x0, Dynamic(0.99, most=2.0), 1.0).max()) == 2.0


@pytest.mark.parametrize("guidance", [None, 3.0, Guidance(3.0, rescale=0.5)])
def test_dynamic_thresholding_divides_by_its_limit(guidance: Any) -> None:
    """One step: the result is the estimate clamped to its own quantile and brought back into the range."""
    network = Labelled()
    for part in network.parts:
        part.means *= 4
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    options = {**BASE, "labels": [0, 1, 1], "x_init": x, "guidance": guidance}
    raw = sample(network, 1, **options)
    limit = torch.quantile(raw.abs().flatten(1), 0.8, dim=1).clamp(min=1.0).reshape(-1, 1, 1, 1)
    assert float(limit.max()) > 1.05
    got = sample(network, 1, **{**options, "clip": Dynamic(0.8)})
    torch.testing.assert_close(got, raw.clamp(-limit, limit) / limit, rtol=1e-4, atol=1e-5)
    assert float(sample(network, 4, **{**options, "clip": "dynamic"}).abs().max()) <= 1


def test_dynamic_needs_an_even_range() -> None:
    model = Model(torch.nn.Identity(), SCHEDULE, "v", (2, 4, 4), data_range=(0.0, 1.0))
    with pytest.raises(ValueError, match=r"clip must not be dynamic for data that is not within \(-a, a\)"):
        sample(model, 2, clip="dynamic")
    for options in ({"quantile": 1.5}, {"most": 0.5}):
        with pytest.raises(ValueError, match="quantile must be in"):
            Dynamic(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rescale": 2.0}, r"rescale must be in \[0, 1\]"),
        ({"parallel": -1.0}, r"parallel must be in \[0, 1\]"),
        ({"share": "all"}, r"share must be in \[0, 1\]"),
        ({"interval": (3, 1)}, r"interval must be \(low, high\)"),
        ({"classifier": len, "rescale": 0.5}, "classifier must be the only rule"),
        ({"classifier": 3}, "classifier must be a function"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Guidance(2.0, **options)
