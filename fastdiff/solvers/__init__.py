"""Solvers: functions (schedule, prediction, steps, ...) -> StepTable.

`SOLVERS` lists them by name. Any function of your own that returns a `StepTable` is accepted wherever a name is.
"""

from __future__ import annotations

from collections.abc import Callable

from fastdiff.solvers.anchored import Anchor, anchored
from fastdiff.solvers.consistency import lcm, tcd
from fastdiff.solvers.ddim import ddim
from fastdiff.solvers.ddim_inverse import ddim_inverse
from fastdiff.solvers.ddpm import ddpm
from fastdiff.solvers.deis import deis
from fastdiff.solvers.dpmpp import dpmpp_2m, dpmpp_3m
from fastdiff.solvers.dpmpp_sde import dpmpp_2m_sde, dpmpp_sde
from fastdiff.solvers.em import em
from fastdiff.solvers.euler import euler, euler_ancestral
from fastdiff.solvers.flow_euler import flow_euler
from fastdiff.solvers.grid import Grid, GridOptions, Level, make_grid
from fastdiff.solvers.heun import heun
from fastdiff.solvers.ipndm import ipndm
from fastdiff.solvers.levels import level_times
from fastdiff.solvers.lms import lms
from fastdiff.solvers.optimized import optimize_steps
from fastdiff.solvers.pndm import pndm
from fastdiff.solvers.sa_solver import sa_solver
from fastdiff.solvers.spacing import SPACINGS, timesteps_of
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.two_stage import dpmpp_2s, kdpm2, kdpm2_ancestral
from fastdiff.solvers.unipc import unipc
from fastdiff.solvers.vdm import vdm

Solver = Callable[..., StepTable]
_ALL: tuple[Solver, ...] = (
    *(ddpm, ddim, euler, euler_ancestral, heun, kdpm2, kdpm2_ancestral, lms),
    *(dpmpp_2s, dpmpp_2m, dpmpp_3m, unipc, deis, ipndm),
    *(dpmpp_sde, dpmpp_2m_sde, pndm, sa_solver, vdm, em, lcm, tcd, flow_euler, ddim_inverse),
)
SOLVERS: dict[str, Solver] = {solver.__name__: solver for solver in _ALL}

__all__ = [
    "SOLVERS",
    "SPACINGS",
    "Anchor",
    "Grid",
    "GridOptions",
    "Level",
    "StepTable",
    "anchored",
    "ddim",
    "ddpm",
    "deis",
    "dpmpp_2m",
    "dpmpp_2s",
    "dpmpp_3m",
    "euler",
    "euler_ancestral",
    "heun",
    "ipndm",
    "kdpm2",
    "kdpm2_ancestral",
    "level_times",
    "lms",
    "make_grid",
    "optimize_steps",
    "solver_named",
    "timesteps_of",
    "unipc",
    "ddim_inverse",
    "dpmpp_sde",
    "dpmpp_2m_sde",
    "pndm",
    "sa_solver",
    "vdm",
    "em",
    "lcm",
    "tcd",
    "flow_euler",
]


def solver_named(name: str) -> Solver:
    """The solver called `name`; a ValueError that lists them when there is none."""
    if name not in SOLVERS:
        raise ValueError(f"solvers: solver must be one of {', '.join(SOLVERS)}, got {name!r}")
    return SOLVERS[name]
