"""What the tests of the ops share: rows and inputs drawn at random, and the rule of accuracy."""

import numpy as np
import pytest
import torch

from benchmarks.gpu_static import interpreter
from fastdiff.ops import device, extension, row

needs_cpp = pytest.mark.skipif(
    bool(extension.MISSING), reason=f"the C++ backend is not here: {extension.MISSING}"
)
if device.INTERPRETED and not device.WITHOUT_TRITON:
    interpreter.patch_once()
SEEDS = torch.tensor([0, 1, 17, -5, 2**62 + 12345])


@pytest.fixture(autouse=True, scope="module")
def _two_threads(request: pytest.FixtureRequest) -> None:
    """Not in the rooms that run in a process of their own: the interpreter and the sanitizers have one thread."""
    if request.path.name.startswith("test_"):
        request.getfixturevalue("two_threads")


def random_row(generator: np.random.Generator, density: float = 0.7) -> dict[str, float]:
    """Columns of a row in which each coefficient is set with probability `density`."""
    named = {name: float(generator.normal()) for name in row.COEFFICIENTS if generator.random() < density}
    named |= (
        {"lo": -abs(generator.normal()), "hi": abs(generator.normal())} if generator.random() < 0.7 else {}
    )
    named |= {f"slot_{k}": float(generator.integers(0, 4)) for k in range(3)}
    named |= {"push_0": float(generator.integers(0, 4)), "push_0_slot": 0.0}
    named |= {"push_1": float(generator.integers(0, 4)), "push_1_slot": float(generator.integers(1, 4))}
    return named | {
        "stream": float(generator.integers(0, 6)),
        "noise_row": float(generator.integers(0, 1000)),
    }


def random_inputs(generator: np.random.Generator, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Every tensor a row may read, in mixed layouts and dtypes."""

    def tensor() -> torch.Tensor:
        drawn = torch.from_numpy(generator.normal(size=shape)).float()
        kind = generator.integers(0, 4)
        if kind == 1 and len(shape) == 4:
            return drawn.contiguous(memory_format=torch.channels_last)
        if kind == 2:
            return drawn.half()
        if kind == 3:
            return torch.cat([drawn, drawn], dim=1)[:, : shape[1]]
        return drawn

    names = ("m", "m_u", "v", "cond", "known")
    inputs = {name: tensor() for name in names}
    inputs["mask"] = (
        torch.from_numpy(generator.integers(0, 3, size=(shape[0], 1, *shape[2:])) / 2.0).float().expand(shape)
    )
    return inputs | {"seeds": torch.from_numpy(generator.integers(-(2**63), 2**63 - 1, size=shape[0]))}


def table_of(columns: dict[str, float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A table of one row."""
    return torch.from_numpy(row.make_row(**columns)).to(dtype).unsqueeze(0)


def assert_as_exact_as_torch(ours: torch.Tensor, plain: torch.Tensor, exact: torch.Tensor) -> None:
    """error <= 2 x torch's own error in the same dtype + 2 ulp of the output's largest value.

    Of few elements the largest error is a matter of luck: torch may happen to be exact. There the floor is 16 ulp.
    """
    floor = (2 if exact.numel() >= 128 else 16) * torch.finfo(plain.dtype).eps
    allowed = 2 * (plain.double() - exact).abs().max() + floor * exact.abs().max()
    error = (ours.double() - exact).abs().max()
    assert error <= allowed, f"error {error:.3e}, allowed {allowed:.3e}"
