"""Recorded rows give what rows carried out one by one give, and hold nothing that a later run may change."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdiff
from fastdiff.engine import recorder as recorders
from fastdiff.engine.recorder import RecordingError
from fastdiff.guidance import Guidance
from fastdiff.sampling import Dynamic, recorded

from .recording import LABELS, OPTIONS, both, fake, no_recordings, unet

__all__ = ["no_recordings"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": "ddpm", **LABELS},
        {"solver": "heun", "s_churn": 10.0},
        {"solver": "unipc"},
        {"solver": "dpmpp_2m_sde"},
        {"guidance": Guidance(3.0, interval=(20, 80)), **LABELS},
        {"guidance": Guidance(2.0, rescale=0.7, parallel=0.5), "clip": Dynamic(most=2.0), **LABELS},
        {"guidance": Guidance(0.6, cfg_pp=True), **LABELS},
        {"schedule": "edm", "prediction": "edm", "solver": "euler", "clip": None},
        {"x_init": torch.zeros(1, 8, 8), "mask": torch.eye(8), "resample": (2, 2)},
        {"x_init": torch.zeros(1, 8, 8), "start": 4},
        {"noise": "shared", "solver": "ddpm"},
        {"dtype": torch.bfloat16},
    ],
    ids=str,
)
def test_equal_to_rows_one_by_one(options: dict[str, Any]) -> None:
    """Without hooks the whole loop is one recording."""
    plain, got, used = both(unet(), **options)
    assert torch.equal(plain, got)
    assert (used.recordings, used.replays) == (1, 1)


@pytest.mark.parametrize(("solver", "recordings"), [("ddpm", 1), ("heun", 2)])
def test_with_hooks_each_kind_of_row_is_recorded_once(solver: str, recordings: int) -> None:
    more = {"s_churn": 10.0} if solver == "heun" else {}
    plain, got, used = both(unet(), solver=solver, trajectory=True, **more)
    assert torch.equal(plain, got)
    assert used.recordings == recordings and used.replays == len(plain) - 1


def test_self_conditioning_and_a_network_that_returns_its_input() -> None:
    plain, got, _ = both(unet(self_condition=True))
    assert torch.equal(plain, got)

    class Same(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x

    plain, got, _ = both(Same(), prediction="v")
    assert torch.equal(plain, got)


def test_one_recording_serves_other_seeds_labels_weights_and_solvers() -> None:
    net = unet()
    runs = [
        {"seed": 0, "labels": [0, 1, 2], "guidance": 2.0},
        {"seed": 9, "labels": [2, 2, 1], "guidance": 4.0},
        {"seed": 9, "labels": [2, 2, 1], "guidance": 4.0, "solver": "ddpm"},
        {"seeds": [5, 1, 0], "labels": [0, 0, 0], "guidance": 1.5, "spacing": "linspace"},
    ]
    plain = [fastdiff.sample(net, 12, compile=False, **OPTIONS, **run) for run in runs]
    with recorders.using(fake.FakeRecorder(net)):
        got = [fastdiff.sample(net, 12, compile=True, **OPTIONS, **run) for run in runs]
        used = recorders.recorder_for(torch.device("cpu"))
    assert used.recordings == 1 and used.replays == len(runs)
    assert all(torch.equal(a, b) for a, b in zip(plain, got))


def test_results_do_not_share_memory_with_the_next_run() -> None:
    net = unet()
    with recorders.using(fake.FakeRecorder(net)):
        first = fastdiff.sample(net, 12, compile=True, **OPTIONS)
        before = first.clone()
        fastdiff.sample(net, 12, compile=True, seed=7, **OPTIONS)
    assert torch.equal(first, before)


def test_weights_written_in_place_are_seen_and_other_weights_are_recorded_anew() -> None:
    net, other = unet(), unet()
    for weight in other.parameters():
        weight.data.mul_(0.9)
    used = fake.FakeRecorder(net, other)
    with recorders.using(used):

        def drawn(module: nn.Module) -> Tensor:
            got = fastdiff.sample(module, 12, compile=True, **OPTIONS)
            assert torch.equal(got, fastdiff.sample(module, 12, compile=False, **OPTIONS))
            return got

        first = drawn(net)
        for mine, theirs in zip(net.parameters(), other.parameters()):
            mine.data.copy_(theirs)
        assert not torch.equal(drawn(net), first) and used.recordings == 1
        net.load_state_dict(copy.deepcopy(other.state_dict()), assign=True)
        used.modules = (net, other)
        drawn(net)
        assert used.recordings == 2
        drawn(other)
        assert used.recordings == 3


def test_few_recordings_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded.RECORDINGS, "most", 2)
    net = unet()
    used = fake.FakeRecorder(net)
    with recorders.using(used):
        for num in (1, 2, 3, 3, 2, 1):
            fastdiff.sample(net, 10, compile=True, **{**OPTIONS, "num": num})
    assert used.recordings == 4 and len(recorded.RECORDINGS) == 2


def test_callbacks_see_the_same_and_can_stop() -> None:
    net, seen = unet(), {True: [], False: []}
    results = {}
    with recorders.using(fake.FakeRecorder(net)):
        for compile in (False, True):

            def watch(step: int, t: float, x: Tensor, x0: Tensor, compile: bool = compile) -> bool:
                seen[compile].append((step, t, x.clone(), x0.clone()))
                return step == 4

            results[compile] = fastdiff.sample(net, 12, compile=compile, callback=watch, **OPTIONS)
        fastdiff.sample(net, 12, compile=True, callback=lambda *_: None, **OPTIONS)
    assert len(seen[True]) == 5 and torch.equal(results[True], results[False])
    for (a, t, x, x0), (b, u, y, y0) in zip(seen[True], seen[False]):
        assert (a, t) == (b, u) and torch.equal(x, y) and torch.equal(x0, y0)


def test_an_error_of_the_network_is_its_own() -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            raise KeyError("mine")

    with recorders.using(fake.FakeRecorder()), pytest.raises(KeyError, match="mine"):
        fastdiff.sample(Wrong(), 12, **OPTIONS)
    assert len(recorded.RECORDINGS) == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"noise": "torch"}, "noise is made on the host"),
        ({"batch_invariant": True}, "for each sample alone"),
        ({"guidance": Guidance(1.0, classifier=lambda x, t: -x.flatten(1).sum(1))}, "classifier's gradient"),
    ],
)
def test_runs_that_are_not_recorded_say_so(options: dict[str, Any], told: str) -> None:
    net = unet()
    used = fake.FakeRecorder(net)
    with recorders.using(used):
        with pytest.raises(ValueError, match=told):
            fastdiff.sample(net, 10, compile=True, **OPTIONS, **options)
        fastdiff.sample(net, 10, **OPTIONS, **options)
    assert used.recordings == 0


def test_a_bare_function_and_a_short_run() -> None:
    net = unet()
    used = fake.FakeRecorder(net)
    with recorders.using(used):
        with pytest.raises(ValueError, match="not a torch module"):
            fastdiff.sample(lambda x, t: net(x, t), 12, compile=True, **OPTIONS)
        fastdiff.sample(net, 3, **OPTIONS)
    assert used.recordings == 0
    with pytest.raises(ValueError, match="compile must be 'auto', True or False"):
        fastdiff.sample(net, 12, compile="max", **OPTIONS)


def test_two_threads_at_once() -> None:
    net, results = unet(), {}
    plain = [fastdiff.sample(net, 12, compile=False, seed=seed, **OPTIONS) for seed in (0, 50)]
    used = fake.FakeRecorder(net)

    def work(index: int, seed: int) -> None:
        results[index] = [fastdiff.sample(net, 12, compile=True, seed=seed, **OPTIONS) for _ in range(3)]

    with recorders.using(used):
        threads = [threading.Thread(target=work, args=pair) for pair in enumerate((0, 50))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(torch.equal(got, plain[index]) for index, many in results.items() for got in many)
    assert len(results) == 2 and used.recordings == 1


def test_recording_error_is_a_runtime_error() -> None:
    assert issubclass(RecordingError, RuntimeError)


def test_the_forced_backend_is_part_of_a_recording_and_outer_autocast_is_not_recorded() -> None:
    net = unet()
    used = fake.FakeRecorder(net)
    with recorders.using(used):
        fastdiff.sample(net, 12, compile=True, **OPTIONS)
        with fastdiff.use_backend("torch"), pytest.raises(ValueError, match="may move|host"):  # of a CPU
            fastdiff.sample(net, 12, compile=True, **OPTIONS)
        assert used.recordings == 1
        with torch.autocast("cpu", torch.bfloat16):
            with pytest.raises(ValueError, match="autocast is on"):
                fastdiff.sample(net, 12, compile=True, **OPTIONS)


def test_a_callback_may_sample() -> None:
    net, inner = unet(), []

    def watch(step: int, t: float, x: Tensor, x0: Tensor) -> None:
        if step == 3:
            inner.append(fastdiff.sample(net, 12, callback=lambda *_: None, **OPTIONS))

    plain = fastdiff.sample(net, 12, compile=False, **OPTIONS)
    with recorders.using(fake.FakeRecorder(net)):
        outer = fastdiff.sample(net, 12, callback=watch, **OPTIONS)
    assert torch.equal(outer, plain) and torch.equal(inner[0], plain)


def test_another_memory_format_and_an_average_swapped_in_and_out() -> None:
    net = unet()
    used = fake.FakeRecorder(net)

    def agrees() -> None:
        with recorders.using(used):
            got = fastdiff.sample(net, 12, compile=True, **OPTIONS)
        torch.testing.assert_close(got, fastdiff.sample(net, 12, compile=False, **OPTIONS), rtol=0, atol=0)

    agrees()
    net.to(memory_format=torch.channels_last)
    agrees()
    assert used.recordings == 2
    online = [weight.data for weight in net.parameters()]
    for weight in net.parameters():
        weight.data = 0.9 * weight.data
    agrees()
    for weight, before in zip(net.parameters(), online):
        weight.data = before
    agrees()
    assert used.recordings == 3  # the first weights are where they were


def test_a_callback_that_fails_leaves_everything_usable() -> None:
    net, calls = unet(), []

    def fails(step: int, t: float, x: Tensor, x0: Tensor) -> None:
        calls.append(step)
        if len(calls) == 4:
            raise KeyError("mine")

    plain = fastdiff.sample(net, 12, compile=False, **OPTIONS)
    used = fake.FakeRecorder(net)
    with recorders.using(used):
        with pytest.raises(KeyError, match="mine"):
            fastdiff.sample(net, 12, compile=True, callback=fails, **OPTIONS)
        got = fastdiff.sample(net, 12, compile=True, callback=lambda *_: None, **OPTIONS)
    assert torch.equal(got, plain) and used.recordings == 1


def test_an_error_in_the_middle_of_a_capture_leaves_no_half_of_it() -> None:
    """The recorder fails after the warm-up; the rows it had recorded before are gone with it."""
    net, calls = unet(), []

    class Breaks(fake.FakeRecorder):
        def record(self, work: Any, reset: Any, static: Any) -> Any:
            calls.append(1)
            if len(calls) == 2:
                reset()
                work()
                raise RecordingError("a CUDA graph cannot hold it: out of memory")
            return super().record(work, reset, static)

    more = {"solver": "heun", "s_churn": 10.0, "trajectory": True}  # two kinds of rows, two recordings
    with recorders.using(Breaks(net)):
        with pytest.raises(ValueError, match="cannot hold it: out of memory"):
            fastdiff.sample(net, 12, compile=True, **OPTIONS, **more)
        assert len(calls) == 2 and len(recorded.RECORDINGS) == 0
        recorded.REFUSED.clear()
        got = fastdiff.sample(net, 12, compile=True, **OPTIONS, **more)
    assert torch.equal(got, fastdiff.sample(net, 12, compile=False, **OPTIONS, **more))


def test_a_module_that_has_no_length() -> None:
    """Compiled networks of torch 2.11 have a `__len__` that raises."""

    class Lengthless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = unet()

        def __len__(self) -> int:
            raise TypeError("does not support len()")

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.net(x, t)

    plain, got, _ = both(Lengthless())
    assert torch.equal(plain, got)


def test_what_went_wrong_first_is_told() -> None:
    """The end of a capture fails after its work; what the caller was handling at the time is another matter."""
    try:
        raise KeyError("of the caller")
    except KeyError as handled:
        try:
            try:
                raise ValueError("the work")
            finally:
                raise RuntimeError("the end of the capture")
        except RuntimeError as last:
            assert str(recorders.first(last, handled)) == "the work"
            assert str(recorders.first(last, None)) == "'of the caller'"
