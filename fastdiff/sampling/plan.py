"""Checks the arguments of a call and turns them into a plan, which holds everything the loop needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdiff import rng
from fastdiff.guidance import Guidance, as_guidance
from fastdiff.rng import Seeds
from fastdiff.sampling.evaluator import Evaluator
from fastdiff.sampling.execution import execute
from fastdiff.sampling.inputs import Cond, Inputs, Labels, check_inputs
from fastdiff.sampling.loop import Callback, Region, Run
from fastdiff.sampling.noise import NoiseChoice, NoiseSource
from fastdiff.sampling.reductions import Adaptation
from fastdiff.sampling.source import (
    ModelChoice,
    Network,
    Source,
    check_weights,
    evaluating,
    resolve,
    second_network,
)
from fastdiff.sampling.tables import (
    OPTIMIZED,
    ClipChoice,
    SolverChoice,
    Steps,
    count_of,
    dynamic_of,
    make_table,
    varied,
)
from fastdiff.schedule import Schedule
from fastdiff.solvers import StepTable

_HALF = (torch.float16, torch.bfloat16)
_DTYPES = (None, torch.float32, torch.float64, *_HALF)


def plan(
    *,
    model: ModelChoice,
    steps: Steps,
    num: int | None,
    shape: Sequence[int] | None,
    solver: SolverChoice,
    schedule: Schedule | str | None,
    prediction: str | None,
    spacing: str | Sequence[float],
    eta: float | None,
    clip: ClipChoice,
    guidance: float | Guidance | None,
    labels: Labels | None,
    cond: Cond | None,
    seed: int,
    seeds: Seeds | None,
    x_init: Tensor | None,
    mask: Tensor | None,
    start: int | None,
    resample: tuple[int, int] | None,
    temperature: float,
    noise: NoiseChoice,
    callback: Callback | None,
    trajectory: bool,
    progress: bool,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    compile: bool | str,
    batch_invariant: bool,
    **solver_options: Any,
) -> Plan:
    """The plan of a call of `sample`, whose arguments these are."""
    if compile != "auto" and not isinstance(compile, bool):
        raise ValueError(f"sample: compile must be 'auto', True or False, got {compile!r}")
    source = resolve(model, schedule, prediction, shape)
    if callback is not None and not callable(callback):
        raise TypeError(
            f"sample: callback must be a function (step, t, x, x0), got {type(callback).__name__}"
        )
    if isinstance(spacing, str) and spacing == OPTIMIZED:
        from fastdiff.sampling.optimize import optimized_times  # it samples

        spacing = optimized_times(
            model, count_of(steps), schedule=schedule, prediction=prediction, shape=shape
        )
        steps = len(spacing)
    table = make_table(
        solver, source, steps, spacing, clip, {**({} if eta is None else {"eta": eta}), **solver_options}
    )
    table = varied(table, resample, temperature, masked=mask is not None)
    if source.anchor is not None and not isinstance(solver, StepTable):
        table = source.anchor.anchored(table)
    rules = as_guidance(guidance)
    table, dynamic = rules.apply(table), dynamic_of(clip, table)
    place = _place(source, device, dtype)
    with evaluating(source.net):
        pixels = source.pixels(batch_invariant)
        x_init, mask = pixels.image(x_init, place.device), pixels.mask(mask)
    count = num if num is not None else 16 if seeds is None else len(seeds)
    drawn = rng.seed_list(seed, count, seeds)
    inputs = check_inputs(source, count, labels, cond, x_init, mask, started=start is not None)
    if x_init is None and table.start[1] == 0:
        raise ValueError(
            f"sample: x_init must be given with {table.solver}, which starts from a clean image, got None"
        )
    hooks = {"callback": callback, "trajectory": trajectory, "progress": progress}
    table = _started(table, start, masked=mask is not None)
    adapt = Adaptation(rules, dynamic) if rules.adapts or dynamic is not None else None
    second = None if rules.weak is None else second_network(rules.weak, source)
    return Plan(
        source,
        table,
        place,
        drawn,
        inputs,
        noise,
        hooks,
        start is not None,
        batch_invariant,
        rules,
        second,
        adapt,
        compile,
        float(temperature),
    )


def _started(table: StepTable, start: int | None, *, masked: bool) -> StepTable:
    """The table from row `start` on.

    Raises:
        TypeError, ValueError: for a row that is not there, rows that do not say their levels, or rows that remember
            others that would be left out.
    """
    if (masked or start is not None) and np.any((table["i_y"] == 0) & (table["i_s"] == 0)):
        raise ValueError(
            f"sample: mask and start must go with rows that name their levels (i_y, i_s), got {table.solver}"
        )
    if start is None:
        return table
    if isinstance(start, bool) or not isinstance(start, int):
        raise TypeError(f"sample: start must be an integer, a row of the table, got {start!r}")
    try:
        return table.starting_at(start)
    except ValueError as error:
        if table.history == 0:
            raise
        raise ValueError(
            f"sample: start must be a row of {table.solver} that needs none before it (0, or any row of a one-step "
            f"solver such as ddim; or give the times that are left as steps, with start=0), got {start}"
        ) from error


@dataclass(frozen=True)
class Place:
    """Where and how precisely to compute.

    Args:
        device: Of state and network.
        state: Dtype of the state.
        entry: What the network's input is cast to, or None.
        autocast: Half precision of the network under autocast, or None.
    """

    device: torch.device
    state: torch.dtype
    entry: torch.dtype | None
    autocast: torch.dtype | None


def _place(source: Source, device: torch.device | str | None, dtype: torch.dtype | None) -> Place:
    """Choose device and precision; moves a module to the device that was asked for."""
    if dtype not in _DTYPES:
        raise ValueError(f"sample: dtype must be float16, bfloat16, float32 or float64, got {dtype}")
    weight = source.parameter()
    where = checked_device(device if device is not None else "cpu" if weight is None else weight.device)
    if source.module is not None and weight is not None and weight.device != where:
        source.module.to(where)
    if dtype == torch.float64 and where.type != "cpu":
        raise ValueError(f"sample: dtype must not be float64 on {where}, it is for checks on the CPU")
    state = torch.float64 if dtype == torch.float64 else torch.float32
    entry = None if weight is None or weight.dtype == state else weight.dtype
    return Place(where, state, entry, dtype if dtype in _HALF and entry not in _HALF else None)


def checked_device(device: torch.device | str) -> torch.device:
    """A device that is there and holds numbers.

    Raises:
        ValueError: for another.
    """
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"sample: device must be a device that is there, got {str(device)!r}: {reason}"
        ) from None
    if where.type == "meta":
        raise ValueError("sample: device must hold numbers, got 'meta'")
    return where


@dataclass(frozen=True)
class Plan:
    """A checked call.

    Args:
        source: The network and what is known about it.
        table: The rows, guided and started as asked.
        place: Where to compute.
        seeds: One per sample.
        inputs: Per-sample arguments, all of them.
        noise: Where noise comes from.
        hooks: callback, trajectory and progress.
        started: The run starts from a noised image.
        one_by_one: The network is called for each sample alone.
        guidance: Its rules.
        weak: The network of autoguidance, or None.
        adapt: Columns per sample that depend on the outputs, or None.
        compile: Whether rows are recorded: True, False or "auto".
        temperature: Factor on the noise that a started run adds to its image.
    """

    source: Source
    table: StepTable
    place: Place
    seeds: Sequence[int]
    inputs: Inputs
    noise: NoiseChoice
    hooks: dict[str, Any]
    started: bool
    one_by_one: bool
    guidance: Guidance
    weak: Network | None
    adapt: Adaptation | None
    compile: bool | str
    temperature: float

    def draw(self, piece: slice = slice(None)) -> Tensor:
        """The samples, or a piece of them."""
        seeds = self.seeds[piece]
        part = self.inputs.part(piece, self.place.device, self.place.state)
        noise = self._noise(seeds)
        region = None if part.mask is None or part.x_init is None else Region(part.x_init, part.mask)
        task = Run(
            self.table,
            self._evaluator(part),
            noise,
            self._image_condition(part, len(seeds)),
            region,
            self.source.self_condition,
            self.adapt,
            **self.hooks,
        )
        nets = [net for net in (self.source.net, self.weak) if net is not None]
        for net in nets:
            check_weights(net)
        with evaluating(*nets):
            result = execute(task, self._initial(part, noise, len(seeds)), self.compile)
            states = self._within_range(self._finite(result, seeds))
            return self.source.pixels(self.one_by_one).images_of(states)

    def _noise(self, seeds: Sequence[int]) -> NoiseSource:
        shared = isinstance(self.noise, str) and self.noise == "shared"
        used = [self.seeds[0]] * len(seeds) if shared else seeds
        tensor = rng.seed_tensor(num=len(used), seeds=used, device=self.place.device)
        return NoiseSource("philox" if shared else self.noise, tensor)

    def _evaluator(self, part: Inputs) -> Evaluator:
        guided = any(map(self.table.second_branch, range(len(self.table))))
        classifier, place = self.guidance.classifier, self.place
        branches = guided and classifier is None and self.weak is None
        return Evaluator(
            self.source.net,
            part.for_network(),
            part.for_null_branch() if branches else None,
            self.weak,
            classifier,
            place.entry,
            place.autocast,
            self.one_by_one,
        )

    def _initial(self, part: Inputs, noise: NoiseSource, batch: int) -> Tensor:
        """The state that enters the first row."""
        if part.x_init is not None and part.mask is None and not self.started:
            return part.x_init
        like = torch.empty((batch, *self.source.shape), dtype=self.place.state, device=self.place.device)
        drawn, (alpha, sigma) = noise.initial(like), self.table.start
        cond = self._image_condition(part, batch)
        pull = cond if self.table.anchored else None
        if part.x_init is not None and self.started:
            state = alpha * part.x_init + sigma * self.temperature * drawn
            return state if pull is None else state + (1.0 - alpha) * pull
        state = drawn * self.table.init_noise
        known = 0.0 if part.x_init is None or part.mask is None else alpha * part.mask
        if part.x_init is not None and part.mask is not None:
            state = state + known * part.x_init
        if cond is None or self.table.init_cond == 0:
            return state
        return state + (self.table.init_cond - (known if self.table.anchored else 0.0)) * cond

    def _image_condition(self, part: Inputs, batch: int) -> Tensor | None:
        """The tensor that the rows call cond, when they use one: the target of a bridge, or what the caller gave."""
        if not self.table.uses_cond:
            return None
        if self.source.anchor is not None:
            return self.source.target(batch, self.place.device, self.place.state)
        cond = part.cond.get("cond")
        if cond is None or cond.shape[1:] != self.source.shape:
            got = None if cond is None else tuple(cond.shape)
            raise ValueError(
                f"sample: cond must be (num, {self.source.shape}) for {self.table.solver}, got {got}"
            )
        return cond.to(self.place.state)

    def _within_range(self, result: Tensor) -> Tensor:
        """The result with its last state clamped as x0 is: multistep solvers may overshoot in their last step."""
        table = self.table
        if self.hooks["trajectory"] and len(result) <= len(table):
            return result  # stopped early: the last state is a noisy one
        if table["i_y"][-1] == 1 and table["i_s"][-1] == 0:
            last = result[-1] if self.hooks["trajectory"] else result
            last.clamp_(float(table["lo"][-1]), float(table["hi"][-1]))
        return result

    def _finite(self, result: Tensor, seeds: Sequence[int]) -> Tensor:
        """The result; NaN is a fault of weights, network or schedule, never an image."""
        if bool(torch.isfinite(result).all()):
            return result
        check_weights(self.source.net, again=True)
        last = result[-1] if self.hooks["trajectory"] else result
        bad = (~torch.isfinite(last.flatten(1)).all(1)).nonzero().flatten().tolist()
        named = ", ".join(str(seeds[i]) for i in bad[:5])
        raise ValueError(
            f"sample: the result must be finite, got NaN or infinite values in {len(bad)} of {len(seeds)} samples "
            f"(seeds {named}{' ...' if len(bad) > 5 else ''}), from the network's output"
        )
