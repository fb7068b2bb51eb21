"""The public call: images from a model in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastdiff.guidance import Guidance
from fastdiff.rng import Seeds
from fastdiff.sampling.inputs import Cond, Labels
from fastdiff.sampling.loop import Callback
from fastdiff.sampling.noise import NoiseChoice
from fastdiff.sampling.plan import plan
from fastdiff.sampling.source import ModelChoice
from fastdiff.sampling.tables import ClipChoice, SolverChoice, Steps
from fastdiff.schedule import Schedule


def sample(
    model: ModelChoice,
    steps: Steps = 50,
    *,
    num: int | None = None,
    shape: Sequence[int] | None = None,
    solver: SolverChoice = "ddim",
    schedule: Schedule | str | None = None,
    prediction: str | None = None,
    spacing: str | Sequence[float] = "trailing",
    eta: float | None = None,
    clip: ClipChoice = "data",
    guidance: float | Guidance | None = None,
    labels: Labels | None = None,
    cond: Cond | None = None,
    seed: int = 0,
    seeds: Seeds | None = None,
    x_init: Tensor | None = None,
    mask: Tensor | None = None,
    start: int | None = None,
    resample: tuple[int, int] | None = None,
    temperature: float = 1.0,
    noise: NoiseChoice = "philox",
    callback: Callback | None = None,
    trajectory: bool = False,
    progress: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    compile: bool | str = "auto",
    batch_invariant: bool = False,
    **solver_options: Any,
) -> Tensor:
    """Draw samples from a diffusion model.

    Args:
        model: A name ("fashion"), a path, a `fastdiff.Model`, or any network called as net(x, t) with `schedule`,
            `prediction` and `shape` given; it returns a tensor or, as in diffusers, an output with the tensor as its
            attribute `sample`. The network is called in evaluation mode without gradients and gets its
            training flags back.
        steps: Number of steps, 1 ... T, or the strictly falling list of times.
        num: Number of samples; 16, or as many as `seeds`.
        shape: Shape of one sample (C, H, W), or (H, W) with a model that knows its channels.
        solver: A name of `fastdiff.solvers.SOLVERS`, a function (schedule, prediction, steps, ...) -> StepTable, or a
            StepTable. Its own options are given by keyword.
        schedule: A Schedule or its name, when the model does not know it or another is wanted.
        prediction: "eps", "x0" or "v", when the model does not know it.
        spacing: A name of `fastdiff.solvers.SPACINGS`, the list of times, or "optimized": the times that the model's
            own trajectories ask for (found once, then kept, see `fastdiff.sampling.optimized_times`).
        eta: Share of fresh noise of a solver that has this option, 0 ... 1; None is the solver's own default.
        clip: Range that estimates of the clean image are clamped to: "data" for the model's own ((-1, 1) for a bare
            network), (low, high), None, or "dynamic" (`fastdiff.sampling.Dynamic` with its options).
        guidance: Weight w of classifier-free guidance, m_u + w (m_c - m_u); 1 or None is none. `fastdiff.Guidance` has
            the other rules.
        labels: Class labels: one, or a list that is repeated over the samples.
        cond: A tensor (num, ...) given to the network as `cond`, or a dictionary of keyword tensors.
        seed: Sample i has the seed `seed + i`.
        seeds: The seeds themselves.
        x_init: With `start`, an image to start from; with `mask`, the known image; alone, the initial state.
        mask: 1 where x_init is known and kept, 0 where it is drawn; broadcasts over (num, C, H, W).
        start: Row of the table to start at, with x_init noised to that level.
        resample: (jump, repeats) of RePaint, with `mask`: every `jump` rows are gone through `repeats` times.
        temperature: Factor on the initial noise and the solver's own, >= 0; below 1 draws less varied samples.
        noise: "philox" (by seed, the same in every batch), "shared" (that of the first seed for all samples), "torch"
            or a generator, a function, or a tensor; see `fastdiff.sampling.noise`.
        callback: Called as (step, t, x, x0) after every evaluation; a true answer stops and returns x0.
        trajectory: Return all states, (rows + 1, num, C, H, W).
        progress: Show a progress bar.
        device: Where to sample; None is where the network is. A module is moved there.
        dtype: float16 or bfloat16 run the network under autocast; float64 keeps the state in float64 (CPU).
        compile: On an NVIDIA GPU the rows, the network included, can be recorded in CUDA graphs and replayed: "auto"
            does so where it can be done and pays, True insists. What a network keeps outside its weights (a Python
            number, say) is recorded as it is at the first call. On a CPU True compiles the network by the engine
            (`fastdiff.compile`), which takes seconds at the first call of a network; "auto" does so where a run has
            enough operations to make up for that (`fastdiff.sampling.compile_rule`). False never does either.
        batch_invariant: Call the network for each sample alone, so that an image does not depend on the others.
            Costs what the device gains from batches.
        **solver_options: Options of the solver, such as `variance="learned"` of ddpm.

    Returns:
        (num, C, H, W) float32 in the data range (float64 when that dtype was asked for).

    Raises:
        TypeError, ValueError: for an argument that does not fit, NaN in the weights or in the result.
    """
    asked = dict(locals())
    return plan(**asked.pop("solver_options"), **asked).draw()
