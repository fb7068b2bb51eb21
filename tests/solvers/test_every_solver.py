"""What every solver of the registry must do."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from fastdiff.prediction import PREDICTIONS
from fastdiff.sampling import sample
from fastdiff.schedule import Schedule
from fastdiff.solvers import SOLVERS, SPACINGS
from fastdiff.solvers.closed_form import MixtureNetwork

SCHEDULE = Schedule.linear(60, 1e-3, 0.2)
ZERO = SCHEDULE.rescale_zero_terminal_snr()
#: Those that go from noise to an image.
DRAWING = [name for name in SOLVERS if name != "ddim_inverse"]
CONTINUOUS = Schedule.from_log_snr(lambda t: 9 - 16 * t)


@pytest.mark.parametrize("schedule", [SCHEDULE, CONTINUOUS], ids=["discrete", "continuous"])
@pytest.mark.parametrize(
    ("prediction", "spacing"),
    [*((p, "trailing") for p in (*PREDICTIONS, "edm:1.3")), *(("v", s) for s in SPACINGS if s != "trailing")],
)
@pytest.mark.parametrize("name", DRAWING)
def test_finds_a_point_exactly(name: str, prediction: str, spacing: str, schedule: Schedule) -> None:
    """With one possible image every estimate is that image, whatever the number of steps."""
    network = MixtureNetwork(schedule, prediction, [0.3], [0.0])
    for steps in (1, 2, 7):
        result = sample(
            network, steps, solver=name, spacing=spacing, shape=(2,), num=3, clip=None, dtype=torch.float64
        )
        torch.testing.assert_close(result, torch.full_like(result, 0.3), rtol=0, atol=1e-7)


@pytest.mark.parametrize("prediction", ["x0", "v", "flow"])
@pytest.mark.parametrize("name", DRAWING)
def test_starts_from_zero_terminal_snr(name: str, prediction: str) -> None:
    network = MixtureNetwork(ZERO, prediction, [0.3], [0.2])
    for steps in (3, 16, 60):
        table = SOLVERS[name](ZERO, prediction, steps)
        assert np.isfinite(np.delete(table.rows, [6, 7], axis=1)).all()
    for steps in (1, 2, 5, 12):
        result = sample(network, steps, solver=name, shape=(2,), num=50, clip=None, dtype=torch.float64)
        assert abs(float(result.mean()) - 0.3) < 0.15
    with pytest.raises(ValueError, match="x0 or v where alpha is 0"):
        SOLVERS[name](ZERO, "eps", 3)


@pytest.mark.parametrize("name", DRAWING)
def test_result_is_in_the_range_it_was_clipped_to(name: str) -> None:
    network = MixtureNetwork(SCHEDULE, "v", [-1.0, 1.0], [0.05, 0.05])
    states = sample(network, 7, solver=name, shape=(2,), num=200, clip=(-0.5, 0.75), trajectory=True)
    assert (float(states[-1].min()), float(states[-1].max())) == (-0.5, 0.75)
    assert float(states[0].max()) > 0.75


@pytest.mark.parametrize("name", DRAWING)
def test_noise_of_rows_is_distinct(name: str) -> None:
    table = SOLVERS[name](SCHEDULE, "v", 20)
    noisy = table["s"] != 0
    used = list(zip(table["stream"][noisy], table["noise_row"][noisy]))
    assert len(used) == len(set(used))
    assert table["s"][-1] == 0


@pytest.mark.parametrize("name", DRAWING)
def test_known_region_follows_the_state(name: str) -> None:
    """i_y and i_s of a row are the level its state has, so the next evaluation sees both parts equally noisy."""
    table = SOLVERS[name](SCHEDULE, "v", 10)
    times = table["t"][1:]
    np.testing.assert_allclose(table["i_y"][:-1], SCHEDULE.alpha(times), rtol=1e-12)
    np.testing.assert_allclose(table["i_s"][:-1], SCHEDULE.sigma(times), rtol=1e-12)
    assert (table["i_y"][-1], table["i_s"][-1]) == (1.0, 0.0)


@pytest.mark.parametrize("name", SOLVERS)
def test_options_out_of_range(name: str) -> None:
    bad = {"eta": 2.0, "order": 9, "variance": "none", "variant": "bh9", "s_churn": -1.0}
    bad |= {"gamma": 2.0, "tau": -1.0, "flow": 2.0, "warmup": "none", "timestep_scaling": 0.0, "shift": 0.0}
    bad |= {"r": 1.0, "corrector_order": 5}
    known = inspect.signature(SOLVERS[name]).parameters
    for option in set(bad) & set(known):
        with pytest.raises(ValueError, match=f"{name}: .*must"):
            SOLVERS[name](SCHEDULE, "v", 5, **{option: bad[option]})


@pytest.mark.parametrize("spread", [(), (0.05, 5.0)])
def test_churn_keeps_the_marginal_of_gaussian_data(spread: tuple) -> None:
    """Churned Heun with many steps draws the data's own mean and variance."""
    options = {"s_churn": 20.0, **dict(zip(("s_tmin", "s_tmax"), spread))}
    network = MixtureNetwork(CONTINUOUS, "v", [0.3], [0.5])
    x = sample(network, 60, solver="heun", shape=(1,), num=4000, clip=None, dtype=torch.float64, **options)
    assert float(x.mean()) == pytest.approx(0.3, abs=5 * 0.5 / 4000**0.5 + 0.005)
    assert float(x.std()) == pytest.approx(0.5, abs=5 * 0.5 / 8000**0.5 + 0.005)
