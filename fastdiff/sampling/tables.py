"""From the arguments of `sample` to a table of rows."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastdiff.sampling.reductions import Dynamic
from fastdiff.sampling.source import Source
from fastdiff.solvers import SOLVERS, SPACINGS, GridOptions, StepTable, solver_named
from fastdiff.solvers.resampling import resampled

SolverChoice = str | Callable[..., StepTable] | StepTable
Steps = int | Sequence[float]
ClipChoice = tuple[float, float] | str | Dynamic | None
#: The spacing that a model's own trajectories decide.
OPTIMIZED = "optimized"


def make_table(
    solver: SolverChoice,
    source: Source,
    steps: Steps,
    spacing: str | Sequence[float],
    clip: ClipChoice,
    options: dict[str, Any],
) -> StepTable:
    """The rows of a run.

    Args:
        solver: A name, a function (schedule, prediction, steps, ...) -> StepTable, or a table.
        source: Its schedule, prediction and data range.
        steps: Number of steps, or the explicit list of times.
        spacing: Name of a spacing, or the explicit list of times.
        clip: "data" for the model's range, (low, high), None, or dynamic thresholding.
        options: Other options that were given; the solver must know each of them.

    Raises:
        TypeError, ValueError: for an unknown solver or option, or one that does not fit.
    """
    if isinstance(clip, str) and clip not in ("data", "dynamic"):
        raise ValueError(
            f"sample: clip must be 'data', 'dynamic', Dynamic(...), (low, high) or None, got {clip!r}"
        )
    if not isinstance(spacing, str) and not hasattr(spacing, "__len__"):
        raise TypeError(f"sample: spacing must be a name or a list of times, got {type(spacing).__name__}")
    if clip is not None and not isinstance(clip, (str, Dynamic)):
        _check_limits(clip)
    if isinstance(solver, StepTable):
        fixed = {
            **options,
            **({} if isinstance(spacing, str) and spacing == "trailing" else {"spacing": spacing}),
        }
        if not isinstance(clip, (str, Dynamic)):
            fixed["clip"] = clip
        if fixed:
            raise ValueError(f"sample: {', '.join(fixed)} must be left out when solver is a finished table")
        return solver
    function = solver_named(solver) if isinstance(solver, str) else solver
    if not callable(function):
        raise TypeError(f"sample: solver must be a name, a function or a table, got {type(solver).__name__}")
    if isinstance(spacing, str) and spacing not in SPACINGS and function in SOLVERS.values():
        names = ", ".join((*SPACINGS, OPTIMIZED))
        raise ValueError(f"sample: spacing must be one of {names}, got {spacing!r}")
    count, timing = _timing(steps, spacing)
    limits = {"clip": source.data_range if isinstance(clip, (str, Dynamic)) else clip}
    known = _options_of(function)
    used = {**timing, **options}
    unknown = [] if known is None else [name for name in used if name not in known]
    if unknown:
        offered = ", ".join(sorted(known or ())) or "none"
        raise ValueError(
            f"sample: {unknown[0]} must be an option of the solver {solver!r} ({offered}), or an argument of "
            "sample, got neither"
        )
    _check_numbers(function, options)
    table = function(
        source.schedule,
        source.prediction,
        count,
        **used,
        **(limits if known is None or "clip" in known else {}),
    )
    if not isinstance(table, StepTable):
        raise TypeError(f"sample: solver must return a StepTable, got {type(table).__name__}")
    return table


def _check_numbers(solver: Callable[..., StepTable], options: dict[str, Any]) -> None:
    """A `TypeError` unless options whose default is a float are numbers."""
    for name, parameter in inspect.signature(solver).parameters.items():
        if name not in options or not isinstance(parameter.default, float):
            continue
        try:
            math.isnan(options[name])  # unlike float, it takes no text
        except (TypeError, ValueError):
            raise TypeError(f"sample: {name} must be a number, got {options[name]!r}") from None


def _check_limits(clip: Any) -> None:
    """A `TypeError` unless these are two numbers."""
    try:
        low, high = clip
        float(low), float(high)
    except (TypeError, ValueError):
        raise TypeError(f"sample: clip must be (low, high), a name or None, got {clip!r}") from None


def varied(
    table: StepTable, resample: tuple[int, int] | None, temperature: float, *, masked: bool
) -> StepTable:
    """The table with the passes of RePaint and its noise scaled.

    Raises:
        ValueError: for counts or a temperature out of range, or passes without a mask.
    """
    real = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    if not real or not 0 <= temperature < np.inf:
        raise ValueError(f"sample: temperature must be a finite number >= 0, got {temperature!r}")
    if resample is not None:
        if not masked:
            raise ValueError("sample: resample must go with mask, got no mask")
        if not isinstance(resample, (tuple, list)) or len(resample) != 2:
            raise ValueError(f"sample: resample must be (jump, repeats), got {resample!r}")
        table = resampled(table, *resample)
    if temperature == 1:
        return table
    cooled = table.with_columns(s=table["s"] * temperature)
    return replace(cooled, init_noise=table.init_noise * temperature)


def dynamic_of(clip: ClipChoice, table: StepTable) -> Dynamic | None:
    """Dynamic thresholding where it was asked for; the data's range must lie evenly around 0.

    Raises:
        ValueError: for another range.
    """
    if clip != "dynamic" and not isinstance(clip, Dynamic):
        return None
    rows = table["eval"] == 1
    if not np.all((table["hi"][rows] == -table["lo"][rows]) & np.isfinite(table["hi"][rows])):
        raise ValueError(
            "sample: clip must not be dynamic for data that is not within (-a, a), got another range"
        )
    return clip if isinstance(clip, Dynamic) else Dynamic()


def _timing(steps: Steps, spacing: str | Sequence[float]) -> tuple[int, dict[str, Any]]:
    """(number of steps, options that say which times) from the two arguments that may hold the list of times."""
    if isinstance(steps, str):
        raise TypeError(f"sample: steps must be an integer or a list of times, got {steps!r}")
    if isinstance(spacing, str):
        if isinstance(steps, Sequence):
            if spacing != "trailing":
                raise ValueError(
                    f"sample: spacing must be left out when steps is a list of times, got {spacing!r}"
                )
            return len(steps), {"timesteps": list(steps)}
        return steps, {} if spacing == "trailing" else {"spacing": spacing}
    if steps not in (50, len(spacing)):
        raise ValueError(f"sample: steps must be {len(spacing)}, the number of times in spacing, got {steps}")
    return len(spacing), {"timesteps": list(spacing)}


def count_of(steps: Steps) -> int:
    """The number of steps of a spacing that chooses the times itself."""
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"sample: steps must be an integer with spacing={OPTIMIZED!r}, got {steps!r}")
    return steps


def _options_of(function: Callable[..., Any]) -> set[str] | None:
    """Names of the options of a solver; None for a function of the caller's that takes any."""
    parameters = list(inspect.signature(function).parameters.values())
    names = {p.name for p in parameters[3:] if p.kind is not inspect.Parameter.VAR_KEYWORD}
    if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters):
        return names
    return names | set(GridOptions.__annotations__) if function in SOLVERS.values() else None
