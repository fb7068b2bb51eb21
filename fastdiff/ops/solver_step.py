"""solver_step: carry out one row of a step table, with the noise made inside the pass.

The formula is `fastdiff.ops.row`. State, history and noise are contiguous float32 (B, ...); the network's outputs
may be float32, float16 or bfloat16 in any strides. The torch backend also takes float64 on the CPU, for tests of
order; nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import device, dispatch, extension, philox
from .arguments import check_exactly, check_like, check_tensor, check_written, described, device_row, overlap
from .row import HISTORIES, PER_SAMPLE, PUSHES, WIDTH, Push, check_columns, column, needs, slots
from .shape_classes import of_maps

Coefficient = float | Tensor


def host_row(table: Tensor, row: int | Tensor) -> list[float] | None:
    """The row's values where they can be read without waiting for a device or breaking a graph, else None."""
    if torch.compiler.is_compiling() or type(table) is not Tensor or table.device.type != "cpu":
        return None
    if isinstance(row, Tensor) and (type(row) is not Tensor or row.device.type != "cpu"):
        return None
    return list(table.detach()[int(row)].tolist())


class _Row:
    """Coefficients by name: floats where the host knows them, else 0-d tensors of the table."""

    def __init__(self, table: Tensor, row: int | Tensor) -> None:
        values = host_row(table, row)
        self.values: Any = values if values is not None else table[row].reshape(WIDTH)

    def __getitem__(self, name: str) -> Coefficient:
        return self.values[column(name)]


def _shaped(coefficient: Coefficient, like: Tensor) -> Coefficient:
    """A per-sample (B,) coefficient as (B, 1, ...)."""
    if isinstance(coefficient, Tensor) and coefficient.dim() == 1:
        return coefficient.reshape(-1, *[1] * (like.dim() - 1))
    return coefficient


def _term(coefficient: Coefficient, tensor: Tensor | None, like: Tensor) -> Tensor | float:
    """coefficient * tensor, and 0 where the coefficient is 0, whatever the tensor holds."""
    if tensor is None or (not isinstance(coefficient, Tensor) and coefficient == 0.0):
        return 0.0
    coefficient, tensor = _shaped(coefficient, like), tensor.to(like.dtype)
    if isinstance(coefficient, Tensor):
        return torch.where(coefficient == 0, torch.zeros_like(tensor), coefficient * tensor)
    return coefficient * tensor


def _sum(like: Tensor, *terms: Tensor | float) -> Tensor:
    total: Tensor | float = 0.0
    for term in terms:
        total = total + term
    return total if isinstance(total, Tensor) else torch.full_like(like, total)


def _noise(
    given: Tensor | None, seeds: Tensor | None, row: Coefficient, stream: Coefficient, x: Tensor
) -> Tensor | None:
    if given is not None or seeds is None:
        return given
    rows = row.to(torch.int64).expand(x.shape[0]) if isinstance(row, Tensor) else int(row)
    streams = stream.to(torch.int64) if isinstance(stream, Tensor) else int(stream)
    flat = philox.normal(seeds, x[0].numel() if x.shape[0] else 0, row=rows, stream=streams, dtype=x.dtype)
    return flat.reshape(x.shape)


def _is_zero(coefficient: Coefficient) -> bool:
    return not isinstance(coefficient, Tensor) and coefficient == 0.0


def _slot(history: Tensor, slot: Coefficient) -> Tensor:
    if isinstance(slot, Tensor):
        return history.index_select(0, slot.to(torch.int64).reshape(1)).squeeze(0)
    return history[int(slot)]


def _push(history: Tensor, what: Coefficient, slot: Coefficient, x: Tensor, x0: Tensor, eps: Tensor) -> None:
    if not isinstance(what, Tensor):
        if what != Push.NONE:
            _slot(history, slot).copy_({Push.X: x, Push.X0: x0, Push.EPS: eps}[Push(int(what))])
        return
    value = torch.where(what == Push.X, x, torch.where(what == Push.X0, x0, eps))
    kept = torch.where(what == Push.NONE, _slot(history, slot), value)
    history.index_copy_(0, torch.as_tensor(slot).to(torch.int64).reshape(1), kept.unsqueeze(0))


def reference(
    table: Tensor,
    row: int | Tensor,
    x: Tensor,
    m: Tensor | None = None,
    *,
    m_u: Tensor | None = None,
    v: Tensor | None = None,
    cond: Tensor | None = None,
    history: Tensor | None = None,
    seeds: Tensor | None = None,
    noise: Tensor | None = None,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    known_noise: Tensor | None = None,
    per_sample: Tensor | None = None,
    out: Tensor | None = None,
    x0_out: Tensor | None = None,
) -> Tensor:
    """One row in plain torch, in the dtype of x; see `solver_step`."""
    c = _Row(table, row)
    own = (
        dict(zip(PER_SAMPLE, per_sample.to(x.dtype).unbind(1), strict=True)) if per_sample is not None else {}
    )

    def pick(name: str) -> Coefficient:
        return own.get(name, c[name])

    def term(name: str, tensor: Tensor | None) -> Tensor | float:
        return _term(pick(name), tensor, x)

    gain = _shaped(pick("gain"), x)
    x = gain * x if isinstance(gain, Tensor) or gain != 1.0 else x
    m = _sum(x, term("g_c", m), term("g_u", m_u))
    x0 = _sum(x, term("u_x", x), term("u_m", m), term("u_c", cond))
    low, high = _shaped(pick("lo"), x), _shaped(pick("hi"), x)
    x0 = torch.maximum(
        torch.minimum(x0, torch.as_tensor(high, dtype=x.dtype)), torch.as_tensor(low, dtype=x.dtype)
    )
    x0 = _shaped(pick("rho"), x) * x0
    eps = _sum(x, term("p_x", x), term("p_0", x0), term("p_m", m), term("p_u", m_u), term("p_c", cond))
    new = _sum(x, term("b", x), term("a", x0), term("q_m", m), term("q_u", m_u), term("d", cond))
    for k in range(HISTORIES):
        if history is not None and not _is_zero(c[f"h_{k}"]):
            new = new + _term(c[f"h_{k}"], _slot(history, c[f"slot_{k}"]), x)
    if not _is_zero(c["s"]):
        new = new + _scaled_noise(c, v, _noise(noise, seeds, c["noise_row"], c["stream"], x), x)
    if mask is not None:
        new = _blend(c, new, known, mask, known_noise, seeds)
    if history is not None:
        for k in range(PUSHES):
            _push(history, c[f"push_{k}"], c[f"push_{k}_slot"], x, x0, eps)
    if x0_out is not None:
        x0_out.copy_(x0)
    return out.copy_(new) if out is not None else new


def _scaled_noise(c: _Row, v: Tensor | None, noise: Tensor | None, x: Tensor) -> Tensor | float:
    log_variance = _sum(x, c["l_0"], _term(c["l_1"], v, x))
    return _term(c["s"], None if noise is None else torch.exp(0.5 * log_variance) * noise, x)


def _blend(
    c: _Row, x: Tensor, known: Tensor | None, mask: Tensor, known_noise: Tensor | None, seeds: Tensor | None
) -> Tensor:
    noise = None if _is_zero(c["i_s"]) else _noise(known_noise, seeds, c["noise_row"], philox.Stream.KNOWN, x)
    region = _sum(x, _term(c["i_y"], known, x), _term(c["i_s"], noise, x))
    mask = mask.to(x.dtype)
    return torch.where(mask == 1, region, torch.where(mask == 0, x, mask * region + (1 - mask) * x))


_OP = "solver_step"


def _check(inputs: Mapping[str, Any]) -> None:
    table, row, x = inputs["table"], inputs["row"], inputs["x"]
    check_tensor(_OP, "x", x)
    check_tensor(_OP, "table", table)
    if x.dim() < 2 or x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{_OP}: x must be float32 (or float64) (B, ...), got {described(x)}")
    if table.dim() != 2 or table.shape[1] != WIDTH or table.dtype != x.dtype or table.device != x.device:
        wanted = f"{x.dtype} (rows, {WIDTH}) on {x.device}"
        raise ValueError(f"{_OP}: table must be {wanted}, got {described(table)}")
    _check_shapes(inputs, x)
    if not torch.compiler.is_compiling():
        _check_row(row, table)
        _check_aliases(inputs)
        values = host_row(table, row)
        if values is not None:
            _check_needs(values, inputs)


def _check_row(row: int | Tensor, table: Tensor) -> None:
    dense = isinstance(row, Tensor) and row.layout == torch.strided
    if not isinstance(row, int) and not (dense and row.dtype == torch.int64 and tuple(row.shape) == (1,)):
        raise TypeError(f"{_OP}: row must be an int or an int64 tensor (1,), got {row!r}")
    if isinstance(row, Tensor) and row.device.type != "cpu" and row.device != table.device:
        raise ValueError(f"{_OP}: row must be on {table.device} or the CPU, got one on {row.device}")
    index = int(row) if type(row) is Tensor and row.device.type == "cpu" else row
    if not isinstance(index, Tensor) and not 0 <= index < table.shape[0]:
        raise ValueError(f"{_OP}: row must be in [0, {table.shape[0]}), got {index}")


def _check_shapes(inputs: Mapping[str, Any], x: Tensor) -> None:
    for name in ("m", "m_u", "v", "cond", "known", "mask", "noise", "known_noise"):
        check_like(_OP, name, inputs[name], x)
    for name in ("out", "x0_out"):
        check_exactly(_OP, name, inputs[name], x.dtype, tuple(x.shape), x)
        check_written(_OP, name, inputs[name])
    history = inputs["history"]
    if history is not None:
        check_tensor(_OP, "history", history)
        check_exactly(_OP, "history", history, x.dtype, (*history.shape[:1], *x.shape), x)
        check_written(_OP, "history", history)
    check_exactly(_OP, "seeds", inputs["seeds"], torch.int64, (x.shape[0],), x)
    check_exactly(_OP, "per_sample", inputs["per_sample"], x.dtype, (x.shape[0], len(PER_SAMPLE)), x)


_READ = ("m", "m_u", "v", "cond", "noise", "known", "mask", "known_noise", "per_sample", "table", "seeds")


def _check_aliases(inputs: Mapping[str, Any]) -> None:
    """What is written overlaps nothing else; `out` may be x itself."""
    written = {name: inputs[name] for name in ("out", "x0_out", "history") if inputs[name] is not None}
    for name, tensor in written.items():
        others = {k: inputs[k] for k in (*_READ, "row")} | {k: t for k, t in written.items() if k != name}
        if not (name == "out" and tensor.data_ptr() == inputs["x"].data_ptr()):
            others["x"] = inputs["x"]
        for other, value in others.items():
            if isinstance(value, Tensor) and overlap(tensor, value):
                raise ValueError(f"{_OP}: {name} must not share memory with {other}, got overlapping tensors")


def _check_needs(values: list[float], inputs: Mapping[str, Any]) -> None:
    """Every coefficient that is not 0 finds its tensor, every slot exists."""
    wanted = needs(values, masked=inputs["mask"] is not None, scaled=inputs["per_sample"] is not None)
    for name in sorted(wanted):
        made_here = name in ("noise", "known_noise") and inputs["seeds"] is not None
        if inputs[name] is None and not made_here:
            instead = " (or seeds)" if "noise" in name else ""
            raise ValueError(f"{_OP}: {name}{instead} must be given, because the row uses it, got None")
    size = 0 if inputs["history"] is None else inputs["history"].shape[0]
    if any(not 0 <= slot < size or slot != int(slot) for slot in slots(values)):
        raise ValueError(f"{_OP}: history must have the slots {slots(values)} of the row, got {size} slots")
    check_columns(_OP, values, made=inputs["seeds"] is not None and bool(wanted & {"noise", "known_noise"}))


_DENSE = ("x", "history", "out", "x0_out", "table", "seeds", "per_sample")


def _cpp_reasons(**inputs: Any) -> list[str]:
    x, recording = inputs["x"], torch.is_grad_enabled()
    reasons = [] if x.dtype == torch.float32 else [f"x is {x.dtype}, it takes float32"]
    if x.dim() > 8:
        reasons.append(f"x has {x.dim()} dimensions, it takes at most 8")
    for name, value in inputs.items():
        if not isinstance(value, Tensor):
            continue
        if not value.is_cpu:
            reasons.append(f"{name} is on {value.device}, it runs on the CPU")
        if name in _DENSE and not value.is_contiguous():
            reasons.append(f"{name} is not contiguous")
        if recording and value.requires_grad:
            reasons.append(f"{name} wants a gradient, it has none")
    return reasons


def _cpp(
    *,
    table: Tensor,
    row: int | Tensor,
    x: Tensor,
    m: Tensor | None,
    m_u: Tensor | None,
    v: Tensor | None,
    cond: Tensor | None,
    history: Tensor | None,
    seeds: Tensor | None,
    noise: Tensor | None,
    known: Tensor | None,
    mask: Tensor | None,
    known_noise: Tensor | None,
    per_sample: Tensor | None,
    out: Tensor | None,
    x0_out: Tensor | None,
) -> Tensor:
    out = torch.empty_like(x) if out is None else out
    counter, index = device_row(row)
    written, rows = (out, x0_out, history), (table, counter, index)  # by keyword a call costs 3 us more
    if history is not None and history.is_neg():  # torch would change it before the kernel could refuse it
        check_written(_OP, "history", history)
    read = (x, m, m_u, v, cond, seeds, noise, known, mask, known_noise, per_sample)
    torch.ops.fastdiff.solver_step_cpp.default(*written, *rows, *read)
    return out


def _not_float32(x: Tensor) -> list[str]:
    return [] if x.dtype == torch.float32 else [f"x is {x.dtype}, it takes float32"]


def _triton_reasons(**inputs: Any) -> list[str]:
    return _not_float32(inputs["x"]) + device.triton_reasons(inputs, *_DENSE)


def _cuda_reasons(**inputs: Any) -> list[str]:
    return _not_float32(inputs["x"]) + device.cuda_reasons(inputs, *_DENSE)


def _stepped(name: str, inputs: Mapping[str, Any]) -> Tensor:
    rest = dict(inputs)
    table, row, out, x0_out, history = (rest.pop(k) for k in ("table", "row", "out", "x0_out", "history"))
    out = torch.empty_like(rest["x"]) if out is None else out
    counter, index = device_row(row)
    getattr(torch.ops.fastdiff, name)(out, x0_out, history, table, counter, index, **rest)
    return out


def _triton(**inputs: Any) -> Tensor:
    from ..kernels import solver_step as _  # noqa: F401 (registers the op)

    return _stepped("solver_step_triton", inputs)


def _cuda(**inputs: Any) -> Tensor:
    return _stepped("solver_step_cuda", inputs)


for _name in ("solver_step_cpp", "solver_step_cuda"):
    extension.register_fake(_name)
_BACKENDS = dispatch.register(
    _OP,
    dispatch.Backend("triton", _triton, _triton_reasons, device.WITHOUT_TRITON),
    dispatch.Backend("cuda", _cuda, _cuda_reasons, extension.CUDA_MISSING),
    dispatch.Backend("cpp", _cpp, _cpp_reasons, extension.MISSING, verifies=True, refuses=True),
    dispatch.Backend("torch", reference, lambda **_: []),
    shape_class=lambda x, **inputs: of_maps(
        x, **{name: inputs[name] for name in (*_READ[1:9], "history", "seeds")}
    ),
)


def solver_step(
    table: Tensor,
    row: int | Tensor,
    x: Tensor,
    m: Tensor | None = None,
    *,
    m_u: Tensor | None = None,
    v: Tensor | None = None,
    cond: Tensor | None = None,
    history: Tensor | None = None,
    seeds: Tensor | None = None,
    noise: Tensor | None = None,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    known_noise: Tensor | None = None,
    per_sample: Tensor | None = None,
    out: Tensor | None = None,
    x0_out: Tensor | None = None,
) -> Tensor:
    """Carry out one row of a step table: network output in, next state out, in one pass over memory.

    Args:
        table: (R, `row.WIDTH`) of x's dtype, the rows; see `fastdiff.ops.row` for the formula.
        row: which row, an int or an int64 tensor (1,) that lives where x lives (a counter a graph can replay).
        x: (B, ...) state, float32 (float64 on the torch backend, for tests of order).
        m: (B, ...) network output of the conditional branch, float32, float16 or bfloat16, any strides.
        m_u: (B, ...) the second tensor of the guidance pair (unconditional branch, weaker network, gradient).
        v: (B, ...) variance output of a learned-variance network, in [-1, 1].
        cond: (B, ...) conditioning image or end point of a bridge.
        history: (K, B, ...) ring of earlier x, x0 or eps; the row reads and writes it in place.
        seeds: (B,) int64 seeds of the noise made inside; needed when the row adds noise and none is given.
        noise: (B, ...) solver noise to use instead.
        known: (B, ...) known image, with mask.
        mask: (B, ...) 1 where known, 0 where free, between for a soft edge.
        known_noise: (B, ...) noise of the known region to use instead of the made one.
        per_sample: (B, 6) of (g_c, g_u, lo, hi, rho, gain) that replace the row's own.
        out: (B, ...) where to write; may be x itself. A new tensor when None.
        x0_out: (B, ...) where to write x0 (previews, self-conditioning); not written when None.

    Returns:
        (B, ...) the next state: `out`.

    Raises:
        TypeError: x or row is of a wrong type.
        ValueError: shapes, dtypes or devices do not fit, a tensor that the row needs is missing, tensors overlap,
            or no backend can run the inputs.

    Source: the sampler algebra of DDPM (Ho et al. 2020, eq. 6-7), DDIM (Song et al. 2021, eq. 12), multistep solvers
    (Lu et al. 2022) and of bridges, written as one linear form.
    """
    # fmt: off
    inputs = {
        "table": table, "row": row, "x": x, "m": m, "m_u": m_u, "v": v,
        "cond": cond, "history": history, "seeds": seeds, "noise": noise, "known": known,
        "mask": mask, "known_noise": known_noise, "per_sample": per_sample, "out": out, "x0_out": x0_out,
    }
    # fmt: on
    return dispatch.run(_OP, _BACKENDS, inputs, _check)
