"""Recorded runs that meet: a callback may wait for another thread that samples."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

import fastdiff
from fastdiff.engine import recorder as recorders

from .recording import OPTIONS, fake, no_recordings, unet

__all__ = ["no_recordings"]


@pytest.mark.parametrize("compile", [True, "auto"])
def test_a_callback_may_wait_for_another_thread_that_samples(compile: bool | str) -> None:
    """Each has a recording of its own, and both are right; the second time both are kept ones."""
    net, results = unet(), {}
    used = fake.FakeRecorder(net)
    plain = {seed: fastdiff.sample(net, 12, compile=False, seed=seed, **OPTIONS) for seed in (0, 7)}

    def other() -> None:
        results["other"] = fastdiff.sample(
            net, 12, compile=compile, seed=7, callback=lambda *_: None, **OPTIONS
        )

    def waits(step: int, t: float, x: Tensor, x0: Tensor) -> None:
        if step == 5:
            thread = threading.Thread(target=other, daemon=True)
            thread.start()
            thread.join(60)
            assert not thread.is_alive(), "the other thread waits for the run whose callback waits for it"

    with recorders.using(used):
        for recordings in (2, 2):
            got = fastdiff.sample(net, 12, compile=compile, callback=waits, **OPTIONS)
            assert torch.equal(got, plain[0]) and torch.equal(results.pop("other"), plain[7])
            assert used.recordings == recordings


def test_a_callback_that_fails_leaves_the_turn_to_others() -> None:
    net = unet()

    def fails(*_: object) -> None:
        raise KeyError("mine")

    with recorders.using(fake.FakeRecorder(net)):
        with pytest.raises(KeyError, match="mine"):
            fastdiff.sample(net, 12, compile=True, callback=fails, **OPTIONS)
        done = threading.Thread(target=lambda: fastdiff.sample(net, 12, compile=True, **OPTIONS), daemon=True)
        done.start()
        done.join(60)
        assert not done.is_alive()
