"""`fastdiff.sample`: images from a model in one call."""

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
        model: A name ("fashion"), a path, a `fastdiff.Model`, or any network called as net(x, t), with `schedule`,
            `prediction` and `shape` given. It returns a tensor or, as in diffusers, an object with the tensor as its
            attribute `sample`. It is called in evaluation mode without gradients; its training flags are restored.
        steps: Number of steps, 1 ... T, or a strictly falling list of times.
        num: Number of samples; by default as many as `seeds`, or 16.
        shape: Shape of one sample (C, H, W), or (H, W) with a model that knows its channels.
        solver: A name in `fastdiff.solvers.SOLVERS`, a function (schedule, prediction, steps, ...) -> StepTable, or a
            StepTable. Options of the solver are passed by keyword.
        schedule: A Schedule or its name; needed if the model does not know its schedule, or to use another.
        prediction: "eps", "x0" or "v"; needed if the model does not know it.
        spacing: A name in `fastdiff.solvers.SPACINGS`, a list of times, or "optimized": times chosen from the model's
            own trajectories (computed once, then stored, see `fastdiff.sampling.optimized_times`).
        eta: Share of fresh noise, 0 ... 1, for solvers with this option; None is the solver's default.
        clip: Range that estimates of the clean image are clamped to: "data" for the model's own ((-1, 1) for a bare
            network), (low, high), None, or "dynamic" (`fastdiff.sampling.Dynamic` with its options).
        guidance: Weight w of classifier-free guidance, m_u + w (m_c - m_u); 1 or None means none. See
            `fastdiff.Guidance` for other rules.
        labels: Class labels: one, or a list that is repeated over the samples.
        cond: A tensor (num, ...) passed to the network as `cond`, or a dictionary of tensors passed by keyword.
        seed: Sample i has the seed `seed + i`.
        seeds: The seeds themselves, instead of `seed`.
        x_init: With `start`, an image to start from; with `mask`, the known image; alone, the initial state.
        mask: 1 where x_init is known and kept, 0 where it is drawn; broadcasts over (num, C, H, W).
        start: Row of the table to start at, with x_init noised to that level.
        resample: (jump, repeats) of RePaint, with `mask`: every `jump` rows are repeated `repeats` times.
        temperature: Factor on the initial noise and on the solver's own, >= 0; below 1 draws less varied samples.
        noise: "philox" (from the seed, the same in every batch), "shared" (that of the first seed for all samples),
            "torch", a `torch.Generator`, a function, or a tensor; see `fastdiff.sampling.noise`.
        callback: Called as (step, t, x, x0) after every evaluation; if it returns a true value, sampling stops and
            returns x0.
        trajectory: Return all states, (rows + 1, num, C, H, W).
        progress: Show a progress bar.
        device: Where to sample; None is where the network is. A module is moved there.
        dtype: float16 or bfloat16 run the network under autocast; float64 keeps the state in float64 (CPU only).
        compile: On an NVIDIA GPU, the rows including the network can be recorded in CUDA graphs and replayed: "auto"
            does so if it is possible and worth it, True raises if it is not possible. What a network keeps outside its
            weights (a Python number, say) is recorded as it is at the first call. On a CPU, True compiles the network
            with the engine (`fastdiff.compile`), which takes seconds at the first call of a network; "auto" does so if
            the run has enough operations to repay that (`fastdiff.sampling.compile_rule`). False does neither.
        batch_invariant: Call the network for each sample alone, so that no image depends on the others. This gives up
            the speed that the device gains from batches.
        **solver_options: Options of the solver, such as `variance="learned"` for ddpm.

    Returns:
        (num, C, H, W) float32 in the data range (float64 with `dtype=torch.float64`).

    Raises:
        TypeError, ValueError: for an invalid argument, or NaN in the weights or the result.
    """
    asked = dict(locals())
    return plan(**asked.pop("solver_options"), **asked).draw()
