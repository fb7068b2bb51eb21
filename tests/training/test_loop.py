"""The loop: learning, resuming bit for bit, stopping, refusing what does not fit."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdiff.model import load
from fastdiff.training import Dataset, TrainConfig, TrainingStopped, model_of_run, train
from fastdiff.training.checkpoint import read_newest
from fastdiff.training.loop import Trainer, step_seed
from fastdiff.training.processes import join

RICH = {"network": {"dropout": 0.1, "self_condition": True, "norm": "rms"}, "flip": True, "offset_noise": 0.1}


def with_options(config: TrainConfig, **options: Any) -> TrainConfig:
    network = dataclasses.replace(config.network, **options.pop("network", {}))
    return dataclasses.replace(config, network=network, **options)


def state_of(config: TrainConfig) -> dict[str, torch.Tensor]:
    found = read_newest(config.folder / "checkpoints")
    assert found is not None
    return found[0]


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


class Unplugged(Exception):
    pass


def interrupted(config: TrainConfig, data: Dataset, step: int) -> None:
    """Run until `step`, then vanish without writing anything more."""
    trainer = Trainer(config, data, join("cpu"))
    whole = trainer._step

    def one_step() -> torch.Tensor:
        if trainer.done == step:
            raise Unplugged
        return whole()

    trainer._step = one_step  # type: ignore[method-assign]
    with pytest.raises(Unplugged):
        trainer.run()


@pytest.mark.parametrize("options", [{}, RICH, {"lr_schedule": "constant", "time_draws": "independent"}])
def test_resumed_run_has_the_bits_of_the_unbroken_run(
    shapes: Dataset, config: TrainConfig, tmp_path: Path, options: dict[str, Any]
) -> None:
    broken = with_options(config, **dict(options))
    unbroken = dataclasses.replace(broken, out=str(tmp_path / "unbroken"))
    train(unbroken, shapes)
    for step in (3, 6, 11):
        interrupted(broken, shapes, step)
        broken = dataclasses.replace(broken, resume=True)
        torch.rand(step)  # the state of torch's own generator must not matter
    train(broken, shapes)
    assert_same_bits(state_of(broken), state_of(unbroken))
    a, b = (load(c.folder / "model").net.state_dict() for c in (broken, unbroken))
    assert_same_bits(a, b)


def test_resume_after_the_end_does_nothing_more(shapes: Dataset, config: TrainConfig) -> None:
    train(config, shapes)
    before = state_of(config)
    with pytest.warns(RuntimeWarning, match=f"nothing is left to do, the run in .* has {config.steps} steps"):
        train(dataclasses.replace(config, resume=True), shapes)
    assert_same_bits(before, state_of(config))


def test_a_run_can_be_lengthened(shapes: Dataset, config: TrainConfig, tmp_path: Path) -> None:
    constant = dataclasses.replace(config, lr_schedule="constant")
    train(constant, shapes)
    train(dataclasses.replace(constant, steps=16, resume=True), shapes)
    whole = dataclasses.replace(constant, steps=16, out=str(tmp_path / "whole"))
    train(whole, shapes)
    assert_same_bits(state_of(constant), state_of(whole))


def test_the_loss_falls(shapes: Dataset, config: TrainConfig) -> None:
    train(dataclasses.replace(config, steps=150, log_every=25, checkpoint_every=150), shapes)
    lines = [json.loads(line) for line in (config.folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [25, 50, 75, 100, 125, 150]
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]
    assert lines[-1]["lr"] == 0
    assert all(line["images_per_s"] > 0 and line["grad_norm"] > 0 for line in lines)


def test_log_has_each_step_once_after_a_resume(shapes: Dataset, config: TrainConfig) -> None:
    often = dataclasses.replace(config, log_every=1)
    interrupted(often, shapes, 7)
    train(dataclasses.replace(often, resume=True), shapes)
    lines = (config.folder / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 13))


def test_finished_model_is_the_average(shapes: Dataset, config: TrainConfig) -> None:
    model = train(config, shapes)
    stored = load(config.folder / "model")
    of_run = model_of_run(config.out)
    for other in (stored, of_run):
        assert_same_bits(model.net.state_dict(), other.net.state_dict())
        assert (other.prediction, other.shape, other.class_names) == ("v", (1, 8, 8), ("left", "upper"))
        assert other.schedule == model.schedule
    assert not torch.equal(model.net.stem.weight, state_of(config)["model/stem.weight"])


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_all_predictions_train(shapes: Dataset, config: TrainConfig, prediction: Any) -> None:
    train(dataclasses.replace(config, prediction=prediction, steps=2), shapes)


def test_unlabelled_images_train(shapes: Dataset, config: TrainConfig) -> None:
    model = train(dataclasses.replace(config, steps=2), Dataset(shapes.images, None, (), "unlabelled"))
    assert model.num_classes == 0


def test_bf16_trains_close_to_float32(shapes: Dataset, config: TrainConfig, tmp_path: Path) -> None:
    low = dataclasses.replace(config, amp="bf16", out=str(tmp_path / "low"))
    a, b = train(config, shapes), train(low, shapes)
    assert not torch.equal(a.net.stem.weight, b.net.stem.weight)
    torch.testing.assert_close(a.net.stem.weight, b.net.stem.weight, atol=5e-3, rtol=0)


def test_without_a_terminal_progress_is_lines(
    shapes: Dataset, config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    train(dataclasses.replace(config, progress=True), shapes)
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in told] == [f"step {step} of 12" for step in (4, 8, 12)]
    assert all("loss 0." in line or "loss 1." in line for line in told)


def test_data_is_read_by_name(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = TrainConfig(data="digits", out=str(out), steps=1, batch_size=4, progress=False, amp="off")
    options = with_options(options, network={"channels": 8, "channel_mults": (1,), "blocks": 1})
    assert train(options).num_classes == 10


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_resumable_checkpoint(
    shapes: Dataset, config: TrainConfig, tmp_path: Path, signum: signal.Signals
) -> None:
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    trainer = Trainer(config, shapes, join("cpu"))
    whole = trainer._step

    def one_step() -> torch.Tensor:
        if trainer.done == 5:
            os.kill(os.getpid(), signum)
        return whole()

    trainer._step = one_step  # type: ignore[method-assign]
    with pytest.raises(TrainingStopped) as stopped:
        trainer.run()
    assert (stopped.value.code, stopped.value.step) == (128 + signum, 6)
    assert "continue with --resume (resume=True)" in str(stopped.value)
    assert handlers == [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    assert not (config.folder / "model").exists()
    train(dataclasses.replace(config, resume=True), shapes)
    unbroken = dataclasses.replace(config, out=str(tmp_path / "unbroken"))
    train(unbroken, shapes)
    assert_same_bits(state_of(config), state_of(unbroken))


@pytest.mark.parametrize(("log_every", "checkpoint_every"), [(4, 4), (2, 100), (100, 2)])
def test_a_loss_that_is_not_finite_ends_the_run_before_a_checkpoint(
    shapes: Dataset, config: TrainConfig, log_every: int, checkpoint_every: int
) -> None:
    config = dataclasses.replace(config, log_every=log_every, checkpoint_every=checkpoint_every)
    trainer = Trainer(config, shapes, join("cpu"))
    with torch.no_grad():
        trainer.net.stem.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="loss must be finite, got nan"):
        trainer.run()
    assert read_newest(trainer.checkpoints) is None


def test_a_folder_with_a_run_is_not_overwritten(shapes: Dataset, config: TrainConfig) -> None:
    train(config, shapes)
    with pytest.raises(ValueError, match="out must be a new folder unless resume is set"):
        train(config, shapes)


def test_a_file_in_the_place_of_the_folder_is_told(
    shapes: Dataset, config: TrainConfig, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(ValueError, match="out must be a folder, got the file .*taken"):
        train(dataclasses.replace(config, out=str(tmp_path / "taken")), shapes)


def test_resume_refuses_other_options_and_other_data(shapes: Dataset, config: TrainConfig) -> None:
    interrupted(config, shapes, 5)
    again = dataclasses.replace(config, resume=True)
    with pytest.raises(ValueError, match=r"resume must keep the options .* lr: 0.002 -> 0.5"):
        train(dataclasses.replace(again, lr=0.5), shapes)
    with pytest.raises(ValueError, match="got network.norm: 'group' -> 'rms'$"):
        train(with_options(again, network={"norm": "rms"}), shapes)
    other = dataclasses.replace(shapes, images=shapes.images.flip(0))
    with pytest.raises(ValueError, match="data must be the images"):
        train(again, other)


def test_model_of_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder must be a run with checkpoints"):
        model_of_run(tmp_path)


def test_torchs_generator_is_left_alone(shapes: Dataset, config: TrainConfig) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train(dataclasses.replace(config, steps=2), shapes)
    assert torch.equal(before, torch.get_rng_state())


def test_step_seeds_differ() -> None:
    seeds = {step_seed(s, k, r) for s in range(3) for k in range(50) for r in range(2)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_run_can_start_from_a_model(shapes: Dataset, config: TrainConfig, tmp_path: Path) -> None:
    first = train(config, shapes)
    after = dataclasses.replace(config, out=str(tmp_path / "after"), init=str(config.folder / "model"))
    trainer = Trainer(after, shapes, join("cpu"))
    for net in (trainer.net, trainer.ema.net):
        assert_same_bits(net.state_dict(), first.net.state_dict())
    trainer.run()
    with pytest.raises(ValueError, match="init must be a model of the same network"):
        train(with_options(after, out=str(tmp_path / "other"), network={"blocks": 2}), shapes)


def test_compile_wraps_the_network_that_is_trained(
    shapes: Dataset, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def eager_compile(net: torch.nn.Module, **_: object) -> Any:
        def run(*inputs: Any, **more: Any) -> torch.Tensor:
            calls.append(net)
            return net(*inputs, **more)

        return run

    plain = train(config, shapes)
    monkeypatch.setattr(torch, "compile", eager_compile)
    compiled = train(dataclasses.replace(config, compile=True, out=str(tmp_path / "compiled")), shapes)
    assert len(calls) == config.steps
    assert_same_bits(plain.net.state_dict(), compiled.net.state_dict())
