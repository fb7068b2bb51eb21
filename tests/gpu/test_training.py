"""Training on a GPU: mixed precision learns, a run goes on where it stopped, and its model samples there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import fastdiff
from fastdiff import cli

SMALL = (
    *("--data", "digits", "--batch-size", "64", "--warmup", "5", "--no-progress", "--device", "cuda"),
    *("--network.channels", "32", "--network.channel-mults", "1", "2", "--network.groups", "8"),
    *("--network.blocks", "1", "--network.heads", "2", "--lr", "1e-3", "--log-every", "10"),
)


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_the_loss_falls_and_a_run_goes_on(tmp_path: Path, amp: str) -> None:
    out = tmp_path / "run"
    options = ["train", *SMALL, "--out", str(out), "--amp", amp]
    assert cli.main([*options, "--steps", "60"]) == 0
    assert cli.main([*options, "--steps", "120", "--resume"]) == 0
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) >= 10 and all(loss == loss for loss in losses)
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3]), losses
    model = fastdiff.load(out / "model")
    images = fastdiff.sample(model, 10, num=4, device="cuda")
    assert images.device.type == "cuda" and bool(torch.isfinite(images).all())
