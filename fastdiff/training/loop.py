"""The training loop."""

from __future__ import annotations

import contextlib
import hashlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastdiff.training.checkpoint import (
    list_checkpoints,
    read_newest,
    remove_partial,
    write_checkpoint,
)
from fastdiff.training.config import RunConfig, check_same_run
from fastdiff.training.datasets import Dataset, read_dataset
from fastdiff.training.ema import EMA
from fastdiff.training.export import part_of
from fastdiff.training.logs import RunLog
from fastdiff.training.optimizer import (
    learning_rate,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
)
from fastdiff.training.precision import Precision
from fastdiff.training.processes import Processes, join
from fastdiff.training.stopping import StopRequest, TrainingStopped
from fastdiff.training.task import DenoisingTask, Task, Trained

NOTHING = contextlib.nullcontext()


def train(
    config: RunConfig, data: Dataset | None = None, task: Callable[..., Task] = DenoisingTask
) -> Trained:
    """Train a network as `config` says; the finished model lies in `<out>/model`.

    Args:
        config: the run.
        data: images to train on instead of reading `config.data`.
        task: what is trained: (config, data, processes) -> `fastdiff.training.task.Task`.

    Returns:
        The model (or system) with the averaged weights.

    Raises:
        ValueError: for options or files that are wrong.
        TrainingStopped: when SIGTERM or Ctrl-C ended the run; a checkpoint to resume from is written.
        FloatingPointError: when the loss stops being finite.
    """
    if config.folder.exists() and not config.folder.is_dir():
        raise ValueError(f"train: out must be a folder, got the file {config.out}")
    data = read_dataset(config.data, size=config.size) if data is None else data
    return Trainer(config, data, join(config.device), task).run()


class Trainer:
    """The state of a run and its steps.

    Args:
        config: the run.
        data: the images.
        processes: this process among the others.
        task: makes what is trained: network, loss, model.
    """

    def __init__(
        self,
        config: RunConfig,
        data: Dataset,
        processes: Processes,
        task: Callable[..., Task] = DenoisingTask,
    ) -> None:
        self.config, self.data, self.processes = config, data, processes
        self.task = task(config, data, processes)
        self.net = self.task.network().to(processes.device)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = EMA(self.net, config.ema_decay)
        self.optimizer = make_optimizer(self.net, config)
        self.precision = Precision(config.amp, processes.device)
        self.checkpoints = config.folder / "checkpoints"
        self.facts = data_facts(data)
        self.done = 0
        self._restore()
        compiled = torch.compile(self.net, dynamic=False) if config.compile else self.net
        self.parallel = processes.wrap(compiled)  # type: ignore[arg-type]
        self._sum, self._count = torch.zeros((), device=processes.device), 0

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> Trained:
        """Do the steps that are left and return the model; a warning says so where none are."""
        if self.done >= self.config.steps and self.processes.first:
            told = f"the run in {self.config.out} has {self.done} steps and steps is {self.config.steps}"
            warnings.warn(f"train: nothing is left to do, {told}", RuntimeWarning, stacklevel=3)
        log = RunLog(self.config, self.done) if self.processes.first else None
        devices = [self.processes.device] if self.processes.device.type == "cuda" else []
        aside = torch.random.fork_rng(devices=devices)
        with StopRequest() as stop, aside, contextlib.closing(log) if log else NOTHING:
            while self.done < self.config.steps:
                norm = self._step()
                self._report(log, norm)
                self._maybe_stop(self.processes.largest(stop.signum))
                if self.done % self.config.checkpoint_every == 0 or self.done == self.config.steps:
                    self.save_checkpoint()
        model = self.averaged_model()
        if self.processes.first:
            self.task.save(model, self.config.folder / "model", self.config.store)
        self.processes.wait()
        return model

    def _step(self) -> Tensor:
        """One optimizer step; returns the norm of the gradient."""
        step, c = self.done, self.config
        torch.manual_seed(step_seed(c.seed, step, self.processes.rank))
        rate = learning_rate(c, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.net.train()
        with self.precision.autocast():
            loss = self.task.loss(self.parallel, step)
        self.optimizer.zero_grad(set_to_none=True)
        self.precision.scale(loss).backward()
        self.precision.unscale(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), c.grad_clip or float("inf"))
        self.precision.step(self.optimizer)
        self.ema.update(self.net)
        self.done += 1
        self._sum += loss.detach()
        self._count += 1
        return norm

    def _report(self, log: RunLog | None, norm: Tensor) -> None:
        if log is not None:
            log.tick()
        if self.done % self.config.log_every == 0 or self.done == self.config.steps:
            loss = self.processes.mean(float(self._sum) / self._count)
            self._sum.zero_()
            self._count = 0
            self._check_finite(loss)
            if log is not None:
                rate = learning_rate(self.config, self.done)
                log.step(self.done, loss, {"lr": rate, "grad_norm": float(norm), **self.task.facts()})
        if log is not None and self.config.sample_every and self.done % self.config.sample_every == 0:
            path = self.config.folder / "samples" / f"step-{self.done:08d}.png"
            self.task.preview(self.averaged_model(), path)

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(f"train: loss must be finite, got {loss} by step {self.done}")

    def _maybe_stop(self, signum: int) -> None:
        if signum:
            self.save_checkpoint()
            raise TrainingStopped(signum, self.done)

    # -- state --------------------------------------------------------------------------------------------------

    def save_checkpoint(self) -> None:
        """Write a checkpoint of all that the next step depends on; never one of a run that has diverged."""
        self._check_finite(float(self._sum))
        if self.processes.first:
            tensors = {f"model/{n}": t for n, t in self.net.state_dict().items()}
            tensors |= {f"ema/{n}": t for n, t in self.ema.net.state_dict().items()}
            tensors |= {f"optimizer/{n}": t for n, t in optimizer_tensors(self.optimizer, self.net).items()}
            write_checkpoint(self.checkpoints, self.done, tensors, self._facts(), self.config.keep)
        self.processes.wait()

    def _facts(self) -> dict[str, Any]:
        return {
            "config": self.config.to_dict(),
            "data": self.facts,
            "origin": self.task.origin,
            "ema_updates": self.ema.updates,
            "scaler": self.precision.state(),
            "class_names": list(self.data.class_names),
            "torch": torch.__version__,
        }

    def _restore(self) -> None:
        """Continue from the newest checkpoint when `resume` is set; else refuse to overwrite a run."""
        if self.processes.first:
            remove_partial(self.checkpoints)
        if not self.config.resume:
            if list_checkpoints(self.checkpoints):
                out = self.config.out
                raise ValueError(
                    f"train: out must be a new folder unless resume is set, got {out} with a run in it"
                )
            return
        found = read_newest(self.checkpoints)
        if found is None:
            return
        tensors, meta = found
        check_same_run(meta["config"], self.config)
        if meta["data"] != self.facts:
            raise ValueError(f"train: data must be the images the run in {self.config.out} was started with")
        if meta.get("origin", {}) != self.task.origin:
            told = ", ".join(self.task.origin)
            raise ValueError(
                f"train: {told} must be what the run in {self.config.out} was started with, got another"
            )
        self.net.load_state_dict(part_of(tensors, "model/"))
        self.ema.net.load_state_dict(part_of(tensors, "ema/"))
        load_optimizer_tensors(self.optimizer, self.net, part_of(tensors, "optimizer/"))
        self.precision.load(meta["scaler"])
        self.ema.updates, self.done = meta["ema_updates"], meta["step"]

    def averaged_model(self) -> Trained:
        """The model with the averaged weights of now."""
        return self.task.model(self.ema.net, self.done)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of torch's own generator (dropout) in one step of one process."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def data_facts(data: Dataset) -> dict[str, Any]:
    """What tells one set of images from another: shape, classes and a checksum."""
    digest = hashlib.sha256(data.images.numpy().tobytes())
    if data.labels is not None:
        digest.update(data.labels.numpy().tobytes())
    return {"shape": list(data.images.shape), "num_classes": data.num_classes, "sha256": digest.hexdigest()}
