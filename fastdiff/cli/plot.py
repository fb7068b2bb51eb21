"""`fastdiff plot solver`: schedule, time steps, and error against evaluations on data whose answer is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: Evaluations of the error curves.
COUNTS = (4, 6, 8, 12, 16, 24, 32, 48, 64)
SUBJECTS = ("solver",)


@dataclass
class PlotOptions:
    """Plot solvers: the schedule, the times they visit, and their error against network evaluations.

    The error is the root mean square distance to the samples of 2000 Heun steps (or as many as the schedule has) from
    the same noise. Pixels come from a Gaussian mixture, so the network is exact. Solvers that add noise have no such
    error and are left out.

    Examples:
        fastdiff plot solver --out solvers.png

        fastdiff plot solver --solvers ddim,unipc --schedule linear --spacings trailing,karras --out two.png
    """

    solvers: str = "ddim,heun,dpmpp_2m,unipc,deis,ipndm"
    """Names of solvers, separated by commas."""
    spacings: str = "trailing,karras,log_snr,ays"
    """Names of spacings whose times are shown; the first is used for the error curves."""
    schedule: str = "cosine"
    """Name of the noise schedule."""
    prediction: str = "v"
    """What the exact network returns."""
    steps: int = 10
    """Steps shown for each spacing."""
    out: Path = Path("solvers.png")
    """The image to write (.png, .pdf or .svg)."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    from fastdiff.cli.options import parse

    if not arguments or arguments[0] not in (*SUBJECTS, "-h", "--help"):
        raise ValueError(
            f"plot: the subject must be one of {', '.join(SUBJECTS)}, got {' '.join(arguments[:1])!r}"
        )
    options = parse(PlotOptions, arguments[1:] if arguments[0] in SUBJECTS else arguments, "plot solver")
    run(options)
    print(f"wrote {options.out}")
    return 0


def run(options: PlotOptions) -> None:
    """Compute the curves and write the plot."""
    from fastdiff.cli.files import replacing
    from fastdiff.schedule import Schedule
    from fastdiff.solvers import solver_named, timesteps_of

    if options.out.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"plot: --out must end in .png, .pdf or .svg, got {options.out}")
    schedule = Schedule.named(options.schedule)
    spacings, names = _names(options.spacings, "spacings"), _names(options.solvers, "solvers")
    times = {name: timesteps_of(schedule, options.steps, name) for name in spacings}
    for name in names:
        solver_named(name)
    errors = error_curves(schedule, options.prediction, names, spacings[0])
    with replacing(options.out) as temporary:
        _draw(schedule, times, errors, temporary)


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError(f"plot: --{option} must be names separated by commas, got {text!r}")
    return names


def error_curves(
    schedule: Any, prediction: str, solvers: list[str], spacing: str, counts: tuple[int, ...] = COUNTS
) -> dict[str, list[tuple[int, float]]]:
    """(evaluations, error) for each solver that adds no noise, on a mixture of two Gaussians."""
    import torch

    from fastdiff.sampling import sample
    from fastdiff.solvers import solver_named
    from fastdiff.solvers.closed_form import MixtureNetwork

    network = MixtureNetwork(schedule, prediction, [-0.4, 0.5], [0.25, 0.15], [0.6, 0.4])
    options: dict[str, Any] = {"shape": (256,), "num": 1, "dtype": torch.float64}
    fine = min(2000, schedule.T) if schedule.discrete else 2000
    exact = sample(network, fine, solver="heun", clip=None, **options)
    curves: dict[str, list[tuple[int, float]]] = {}
    for name in solvers:
        for steps in counts:
            table = solver_named(name)(schedule, prediction, steps, spacing=spacing, clip=None)
            if not table["s"].any() and table.evaluations <= counts[-1]:
                drawn = sample(network, steps, solver=table, **options)
                error = float((drawn - exact).pow(2).mean().sqrt())
                curves.setdefault(name, []).append((table.evaluations, error))
    return curves


def _draw(
    schedule: Any, times: dict[str, Any], errors: dict[str, list[tuple[int, float]]], out: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(
        1, 3, figsize=(10, 3.4)
    )  # legible in a page 900 pixels wide
    t = np.linspace(schedule.t_min, schedule.t_max, 400)
    if schedule.discrete:
        t = np.unique(np.round(t))
    left.plot(t, schedule.alpha(t), label="alpha")
    left.plot(t, np.minimum(schedule.sigma(t), 1.5), label="sigma")
    left.set(xlabel="time t")
    left.set_title(repr(schedule).removeprefix("Schedule."), fontsize=9)
    left.legend()
    for row, (name, visited) in enumerate(times.items()):
        middle.plot(visited, np.full(len(visited), row), "o", label=name)
    middle.set_title("times visited", fontsize=9)
    middle.set(xlabel="time t", yticks=range(len(times)), yticklabels=list(times))
    for name, curve in errors.items():
        right.loglog(*zip(*curve, strict=True), marker=".", label=name)
    right.set_title("error on a Gaussian mixture", fontsize=9)
    right.set(xlabel="network evaluations")
    right.set_xticks(COUNTS, [str(count) for count in COUNTS])
    right.minorticks_off()
    right.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.02))
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
