"""Real processes: SIGKILL at random moments, SIGTERM, and two ranks."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastdiff.training.checkpoint import list_checkpoints, read_checkpoint

WORKER = Path(__file__).with_name("worker.py")
STEPS = 150


def start(
    out: Path, steps: int = STEPS, every: int = 3, dropout: float = 0.1, **env: str
) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(WORKER), str(out), str(steps), str(every), str(dropout)]
    return subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1", **env}, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def logged_steps(out: Path) -> int:
    log = out / "log.jsonl"
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def wait_until(out: Path, process: subprocess.Popen[bytes], more: int) -> None:
    """Until the process has logged `more` steps beyond those logged when it began to train, or has ended."""
    before, limit = logged_steps(out), time.monotonic() + 120
    while process.poll() is None and time.monotonic() < limit:
        now = logged_steps(out)
        before = min(before, now)  # a resumed run takes back the lines after its checkpoint
        if now >= before + more:
            return
        time.sleep(0.002)


def assert_same_end(a: Path, b: Path) -> None:
    states = [read_checkpoint(list_checkpoints(out / "checkpoints")[-1][1]) for out in (a, b)]
    assert states[0][1]["step"] == states[1][1]["step"]
    assert states[0][0].keys() == states[1][0].keys()
    assert [n for n, t in states[0][0].items() if not torch.equal(t, states[1][0][n])] == []
    models = [(out / "model" / "model.safetensors").read_bytes() for out in (a, b)]
    assert models[0] == models[1]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    finish(start(out))
    return out


@pytest.mark.slow
def test_killed_ten_times_at_random_moments_ends_with_the_same_bits(tmp_path: Path, unbroken: Path) -> None:
    chance, out, killed = random.Random(0), tmp_path / "run", 0
    while killed < 10:
        process = start(out)
        wait_until(out, process, chance.randrange(1, STEPS // 14))
        time.sleep(chance.uniform(0, 0.02))  # anywhere in a step, or in the writing of a checkpoint
        assert process.poll() is None, "the run ended before it was killed ten times"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
        killed += 1
        for _, path in list_checkpoints(out / "checkpoints"):
            read_checkpoint(path)  # nothing half-written lies under a final name
    finish(start(out))
    assert_same_end(out, unbroken)


@pytest.mark.slow
def test_sigterm_ends_with_its_code_and_resumes(tmp_path: Path, unbroken: Path) -> None:
    out = tmp_path / "run"
    process = start(out, every=1000)
    wait_until(out, process, 33)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert len(list_checkpoints(out / "checkpoints")) == 1
    finish(start(out, every=1000))
    assert_same_end(out, unbroken)


def ranks(out: Path, steps: int, world: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        start(out, steps, dropout=0.0, **group, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(world)
    ]
    for process in started:
        finish(process)


@pytest.mark.slow
def test_two_ranks_train_as_one(tmp_path: Path) -> None:
    for world in (1, 2):
        ranks(tmp_path / f"plain{world}", 12, world)
    one, two = (load_file(tmp_path / f"plain{w}" / "model" / "model.safetensors") for w in (1, 2))
    fresh = load_file(tmp_path / "plain1" / "checkpoints" / "step-00000012" / "state.safetensors")
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=2e-4, rtol=0)
    assert any(not torch.equal(one[n], fresh[f"model/{n}"]) for n in one)
