"""The public call: what it accepts, what it refuses and how it says so."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastdiff import nn as fnn
from fastdiff.model import Model, save
from fastdiff.ops.row import make_row
from fastdiff.sampling import sample
from fastdiff.schedule import Schedule
from fastdiff.solvers import StepTable, ddim, ddpm
from fastdiff.solvers.closed_form import MixtureNetwork

SCHEDULE = Schedule.cosine(50)


def unet(**options: Any) -> fnn.UNet:
    """A small network whose output is not zero."""
    torch.manual_seed(0)
    net = fnn.UNet(
        **{"in_channels": 1, "channels": 8, "channel_mults": (1, 2), "blocks": 1, "groups": 4, **options}
    )
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return net


def model(**options: Any) -> Model:
    return Model(unet(num_classes=3, **options), SCHEDULE, "v", (1, 8, 8), num_classes=3)


def mixture(prediction: str = "v") -> MixtureNetwork:
    return MixtureNetwork(SCHEDULE, prediction, [0.2], [0.3])


def test_result_and_defaults() -> None:
    images = sample(model(), 3)
    assert images.shape == (16, 1, 8, 8)
    assert images.dtype == torch.float32
    assert float(images.abs().max()) <= 1
    assert float(images.std()) > 0.01
    assert not images.requires_grad


def test_a_saved_model_is_the_same_model(tmp_path) -> None:
    original = model()
    save(original, tmp_path / "m")
    expected = sample(original, 3, num=2, labels=1)
    assert torch.equal(sample(tmp_path / "m", 3, num=2, labels=1), expected)
    assert torch.equal(sample(str(tmp_path / "m"), 3, num=2, labels=1), expected)
    bare = sample(original.net, 3, num=2, labels=1, schedule=SCHEDULE, prediction="v", shape=(1, 8, 8))
    assert torch.equal(bare, expected)
    named = sample(original.net, 3, num=2, labels=1, schedule="cosine", prediction="v", shape=(1, 8, 8))
    assert (named != expected).any()


def test_training_flags_come_back() -> None:
    source = model(dropout=0.5)
    source.net.train()
    source.net.mid1.eval()
    flags = [m.training for m in source.net.modules()]
    first, second = sample(source, 2, num=2), sample(source, 2, num=2)
    assert torch.equal(first, second)
    assert flags == [m.training for m in source.net.modules()]
    with pytest.raises(ValueError, match="finite"):
        with torch.no_grad():
            source.net.stem.weight[0] = torch.nan
        sample(source, 2, num=2)
    assert flags == [m.training for m in source.net.modules()]


def test_other_shape() -> None:
    assert sample(model(), 2, num=1, shape=(4, 12)).shape == (1, 1, 4, 12)
    assert sample(model(), 2, num=1, shape=(1, 4, 12)).shape == (1, 1, 4, 12)
    assert sample(mixture(), 2, num=3, shape=(5,)).shape == (3, 5)
    assert sample(mixture(), 2, num=3, shape=(2, 3, 4, 5)).shape == (3, 2, 3, 4, 5)


def test_steps_as_list_and_spacing_as_list() -> None:
    times = [49, 30, 3]
    base = {"num": 2, "shape": (1, 2, 2)}
    as_steps = sample(mixture(), times, **base)
    assert torch.equal(as_steps, sample(mixture(), 3, spacing=times, **base))
    assert torch.equal(as_steps, sample(mixture(), spacing=times, **base))
    assert torch.equal(as_steps, sample(mixture(), 3, timesteps=times, **base))
    with pytest.raises(ValueError, match="steps must be 3"):
        sample(mixture(), 4, spacing=times, **base)


@pytest.mark.parametrize(
    "choice", ["ddpm", ddpm, functools.partial(ddpm, variance="fixed_small"), ddpm(SCHEDULE, "v", 4)]
)
def test_solver_choices(choice: Any) -> None:
    options = {"num": 2, "shape": (1, 2, 2)}
    assert torch.equal(
        sample(mixture(), 4, solver=choice, **options), sample(mixture(), 4, solver="ddpm", **options)
    )


def test_own_solver() -> None:
    def one_jump(schedule: Schedule, prediction: str, steps: int) -> StepTable:
        row = make_row(eval=1, t=schedule.T - 1, u_m=-1.0, u_x=0.0, a=1.0)
        return StepTable(row[None], "one_jump")

    images = sample(mixture(), 1, solver=one_jump, num=2, shape=(1, 2, 2))
    assert images.shape == (2, 1, 2, 2)
    with pytest.raises(TypeError, match="solver must return a StepTable, got int"):
        sample(mixture(), 1, solver=lambda schedule, prediction, steps: 3, num=2, shape=(1, 2, 2))
    with pytest.raises(ValueError, match="eta must be an option of the solver"):
        sample(mixture(), 1, solver=one_jump, eta=0.5, num=2, shape=(1, 2, 2))


@pytest.mark.parametrize(
    "labels",
    [1, [1], torch.tensor(1), torch.tensor([1, 1]), [1, 1, 1, 1], torch.tensor([1], dtype=torch.uint8)],
)
def test_labels_spread(labels: Any) -> None:
    source = model()
    assert torch.equal(sample(source, 2, num=4, labels=labels), sample(source, 2, num=4, labels=[1, 1, 1, 1]))


def test_labels_repeat_in_turn_and_matter() -> None:
    source = model()
    mixed = sample(source, 2, num=5, labels=[0, 1])
    zeros = sample(source, 2, num=5, labels=0)
    ones = sample(source, 2, num=5, labels=1)
    for i in range(5):
        torch.testing.assert_close(mixed[i], (ones if i % 2 else zeros)[i], rtol=0, atol=1e-5)
    assert (zeros != ones).any()
    null = sample(source, 2, num=5, labels=3)
    torch.testing.assert_close(null, sample(source, 2, num=5), rtol=0, atol=1e-6)


def test_guidance() -> None:
    source = model()
    options = {"num": 3, "labels": [0, 1, 2]}
    assert torch.equal(sample(source, 2, guidance=1.0, **options), sample(source, 2, **options))
    torch.testing.assert_close(
        sample(source, 2, guidance=0.0, **options), sample(source, 2, num=3), rtol=0, atol=1e-5
    )
    assert (sample(source, 2, guidance=4.0, **options) - sample(source, 2, **options)).abs().max() > 1e-3


def test_self_conditioning_of_the_unet() -> None:
    source = Model(unet(self_condition=True), SCHEDULE, "v", (1, 8, 8))
    assert sample(source, 3, num=2).shape == (2, 1, 8, 8)


def test_cond_reaches_the_network() -> None:
    def network(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return cond - x

    given = torch.tensor([0.1, 0.2]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
    options = {"schedule": SCHEDULE, "prediction": "x0", "shape": (1, 2, 2), "num": 2, "clip": None}
    by_tensor = sample(network, 3, cond=given, **options)
    assert torch.equal(by_tensor, sample(network, 3, cond={"cond": given}, **options))
    one_step = sample(network, 1, cond=given, x_init=torch.zeros(1, 2, 2), **options)
    torch.testing.assert_close(one_step, given)
    with pytest.raises(ValueError, match="cond must be"):
        sample(network, 3, cond=given, **{**options, "num": 3})
    with pytest.raises(TypeError, match="cond must be a tensor"):
        sample(network, 3, cond=[1, 2], **options)


def test_rows_read_the_condition() -> None:
    """A table that pulls towards an image: x' = cond, whatever the network says."""
    row = make_row(eval=1, t=49, u_x=1.0, d=1.0)
    table = StepTable(row[None], "pull", init_cond=1.0)
    cond = torch.full((2, 1, 2, 2), 0.4)
    options = {"schedule": SCHEDULE, "prediction": "eps", "shape": (1, 2, 2), "num": 2, "solver": table}

    def network(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return x

    states = sample(network, 1, cond=cond, trajectory=True, **options)
    assert torch.equal(states[1], cond)
    plain = sample(
        network, 1, cond=cond, trajectory=True, **{**options, "solver": StepTable(row[None], "pull")}
    )
    torch.testing.assert_close(states[0], plain[0] + 0.4)
    with pytest.raises(ValueError, match="cond must be .* for pull, got None"):
        sample(lambda x, t: x, 1, **options)
    with pytest.raises(ValueError, match=r"cond must be .* for pull, got \(2, 3\)"):
        sample(network, 1, cond=torch.zeros(2, 3), **options)


def test_start_from_an_image() -> None:
    """A late start keeps the image, an early one forgets it."""
    image = torch.full((1, 8, 8), 0.9)
    options = {"shape": (1, 8, 8), "num": 8, "x_init": image, "clip": None}
    network = mixture("eps")
    late = sample(network, 50, start=49, **options)
    early = sample(network, 50, start=0, **options)
    assert abs(float(late.mean()) - 0.9) < 0.05
    assert abs(float(early.mean()) - 0.2) < 0.1
    with pytest.raises(ValueError, match=r"row must be in \[0, 50\)"):
        sample(network, 50, start=50, **options)


def test_inpainting() -> None:
    image, mask = torch.full((1, 8, 8), 0.9), torch.zeros(8, 8)
    mask[:4] = 1
    images = sample(mixture("eps"), 20, shape=(1, 8, 8), num=8, x_init=image, mask=mask)
    assert torch.equal(images[..., :4, :], image[..., :4, :].expand(8, 1, 4, 8))
    assert abs(float(images[..., 4:, :].mean()) - 0.2) < 0.1


def test_x_init_alone_is_the_state() -> None:
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    states = sample(mixture(), 3, shape=(1, 4, 4), num=2, x_init=x, trajectory=True)
    assert torch.equal(states[0], x)


def test_dtype() -> None:
    assert sample(mixture(), 2, shape=(1, 2, 2), num=1, dtype=torch.float64).dtype == torch.float64
    source = model()
    plain, half = sample(source, 3, num=2), sample(source, 3, num=2, dtype=torch.bfloat16)
    assert half.dtype == torch.float32
    assert 0 < float((plain - half).abs().max()) < 0.2
    source.net.to(torch.bfloat16)
    stored = sample(source, 3, num=2)
    assert stored.dtype == torch.float32
    assert 0 < float((plain - stored).abs().max()) < 0.2


def test_progress_shows_on_stderr(capsys) -> None:
    sample(mixture(), 3, shape=(1, 2, 2), num=1, progress=True)
    assert "ddim" in capsys.readouterr().err


REFUSED = [
    ({"solver": "dimm"}, "solver must be one of ddpm, ddim, euler"),
    ({"solver": 3}, "solver must be a name, a function or a table"),
    ({"schedule": "cosin"}, "name must be one of linear, scaled_linear, cosine, sigmoid"),
    ({"schedule": 5}, "schedule must be a Schedule or a name"),
    ({"spacing": "even"}, "spacing must be one of leading, linspace, trailing, quad"),
    ({"steps": 0}, r"steps must be in 1 \.\.\. 50"),
    ({"steps": 51}, r"steps must be in 1 \.\.\. 50"),
    ({"steps": 2.5}, "steps must be an integer"),
    ({"steps": [3, 5]}, "timesteps must fall strictly"),
    ({"steps": "a"}, "steps must be an integer or a list of times, got 'a'"),
    ({"device": "foo"}, "device must be a device that is there, got 'foo'"),
    ({"device": "cuda:99"}, "device must be a device that is there, got 'cuda:99'"),
    ({"device": "meta"}, "device must hold numbers"),
    ({"prediction": "eps"}, "prediction must be the model's, 'v'"),
    ({"shape": (3, 8, 8)}, "shape must have the model's 1 channels"),
    ({"shape": (8,)}, "shape must have the model's 1 channels"),
    ({"shape": (0, 8)}, "shape must be whole numbers >= 1"),
    ({"shape": (7, 8)}, "multiples of 2"),
    ({"labels": 4}, r"labels must be in 0 \.\.\. 2 \(or 3 for none\), got 4"),
    ({"labels": [0, -1]}, "labels must be in 0 .* got -1"),
    ({"labels": [0, 1, 2]}, "labels must be 1 ... num = 2 of them, got 3"),
    ({"labels": []}, "labels must be 1 ... num = 2 of them, got 0"),
    ({"labels": 1.0}, "labels must be integers"),
    ({"labels": "cat"}, "labels must be integers .* got 'cat'"),
    ({"labels": [[1], [2, 3]]}, "labels must be integers"),
    ({"labels": [True]}, "labels must be integers"),
    ({"guidance": 2.0}, "guidance must come with labels"),
    ({"guidance": float("nan")}, "w must be a finite number"),
    ({"eta": 2.0}, r"eta must be in \[0, 1\]"),
    ({"eta": 0.5, "solver": "ddpm"}, "eta must be an option of the solver 'ddpm'"),
    ({"order": 3}, "order must be an option of the solver 'ddim'"),
    (
        {"order": 3, "solver": ddim(SCHEDULE, "v", 2)},
        "order must be left out when solver is a finished table",
    ),
    ({"clip": "soft"}, "clip must be 'data', 'dynamic'"),
    ({"num": 0}, "num must be an integer >= 1"),
    ({"seed": -1}, "seeds must be in"),
    ({"seeds": [1, 2, 3]}, "seeds must have num = 2 entries"),
    ({"start": 1}, "x_init must be given"),
    ({"mask": torch.ones(1, 8, 8)}, "x_init must be given"),
    ({"x_init": torch.zeros(3, 8, 8)}, "x_init must fit"),
    ({"x_init": torch.full((1, 8, 8), float("nan"))}, "x_init must be finite"),
    ({"x_init": 3}, "x_init must be a tensor"),
    ({"x_init": torch.zeros(1, 8, 8), "mask": torch.full((8, 8), 2.0)}, r"mask must be in \[0, 1\]"),
    ({"dtype": torch.int64}, "dtype must be float16"),
    ({"compile": "max"}, "compile must be 'auto', True or False"),
    ({"model": "shirts"}, "known model"),
    ({"model": 3}, "model must be a name, a path, a Model or a callable"),
    ({"model": lambda x, t: x}, "schedule, prediction, shape must be given with a bare network"),
]


# Without the values: names with addresses would differ between the processes of a run.
@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[", ".join(changes) for changes, _ in REFUSED])
def test_refusals(changes: dict[str, Any], message: str) -> None:
    arguments = {"model": model(), "steps": 2, "num": 2, **changes}
    with pytest.raises((ValueError, TypeError), match=message):
        sample(arguments.pop("model"), arguments.pop("steps"), **arguments)


def test_labels_without_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="labels must be left out"):
        sample(Model(unet(), SCHEDULE, "v", (1, 8, 8)), 2, labels=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_weights_are_named(bad: float) -> None:
    source = model()
    sample(source, 2, num=1)
    with torch.no_grad():
        source.net.mid1.get_parameter(next(n for n, _ in source.net.mid1.named_parameters()))[0] = bad
    with pytest.raises(ValueError, match="weights must be finite, got .* in 'mid1"):
        sample(source, 2, num=1)


def test_bad_weights_are_named_even_when_written_unseen() -> None:
    source = model()
    sample(source, 2, num=1)
    source.net.out_conv.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="weights must be finite, got .* in 'out_conv.weight'"):
        sample(source, 2, num=1)


def test_nan_from_the_network_is_named() -> None:
    def network(x: Tensor, t: Tensor) -> Tensor:
        m = torch.zeros_like(x)
        m[1] = torch.nan
        return m

    with pytest.raises(ValueError, match=r"result must be finite, got .* in 1 of 3 samples \(seeds 8\)"):
        sample(network, 3, num=3, seed=7, schedule=SCHEDULE, prediction="eps", shape=(1, 2, 2))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: x[:, :, :1], "the network must return"),
        (lambda x: torch.cat((x, x, x), 1), "the network must return"),
        (lambda x: x[:1], "the network must return"),
        (lambda x: (x, x), "the network must return a tensor, got tuple"),
    ],
)
def test_outputs_that_do_not_fit(output: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        sample(lambda x, t: output(x), 2, num=2, schedule=SCHEDULE, prediction="eps", shape=(2, 3, 3))


def test_an_output_with_the_tensor_as_its_sample_is_taken():
    """As the networks of diffusers answer."""
    options = {"schedule": SCHEDULE, "prediction": "eps", "shape": (2, 3, 3), "num": 2}
    wrapped = sample(lambda x, t: SimpleNamespace(sample=0.1 * x), 3, **options)
    assert torch.equal(wrapped, sample(lambda x, t: 0.1 * x, 3, **options))


def test_eta_of_zero_reaches_a_solver_whose_default_is_not_zero():
    """An explicit 0 is an answer, not the absence of one."""
    options = {
        "schedule": "cosine",
        "prediction": "eps",
        "shape": (1, 4, 4),
        "num": 2,
        "solver": "euler_ancestral",
    }
    noisy, still, euler = (
        sample(lambda x, t: 0.1 * x, 5, **options | more) for more in ({}, {"eta": 0.0}, {"solver": "euler"})
    )
    assert not torch.equal(noisy, still)
    torch.testing.assert_close(still, euler)
