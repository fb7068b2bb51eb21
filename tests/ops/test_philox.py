"""The counter-based generator against its published answers and its own promises."""

import math

import pytest
import torch

from fastdiff.ops import normal, philox, use_backend

from .conftest import SEEDS, needs_cpp

# kat_vectors of the Random123 library: philox 4x32, 10 rounds: counter, key, answer.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
BACKENDS = [pytest.param("torch"), pytest.param("cpp", marks=needs_cpp)]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter, key, answer):
    words = philox.philox4x32(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))
    assert tuple(int(word) for word in words) == answer


def _by_hand(seed: int, row: int, stream: int, element: int) -> float:
    """One normal number in Python's own numbers, from the words of the generator."""
    seed %= 2**64
    block = element // 4
    counter = (block % 2**32, row, stream, block >> 32)
    words = philox.philox4x32(
        tuple(map(torch.tensor, counter)), (torch.tensor(seed % 2**32), torch.tensor(seed >> 32))
    )
    pair = [int(word) for word in words][2 * (element % 4 // 2) :][:2]
    u0, u1 = (((word >> 9) + 0.5) * 2.0**-23 for word in pair)
    turn = math.cos(2 * math.pi * u1) if element % 2 == 0 else math.sin(2 * math.pi * u1)
    return math.sqrt(-2 * math.log(u0)) * turn


@pytest.mark.parametrize("backend", BACKENDS)
def test_counter_layout(backend):
    with use_backend(backend):
        drawn = normal(SEEDS, (3, 7, 5), row=2**31 + 9, stream=3).flatten(1)
    for sample, seed in enumerate(SEEDS.tolist()):
        for element in (0, 1, 2, 3, 4, 63, 64, 104):
            assert drawn[sample, element].item() == pytest.approx(
                _by_hand(seed, 2**31 + 9, 3, element), abs=3e-6
            )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [0, 1, 3, 5, 63, 1023, 1024, 1025, 4099])
def test_backends_agree_with_float64(backend, count):
    exact = philox.normal(SEEDS, count, row=7, stream=1, dtype=torch.float64)
    with use_backend(backend):
        ours = normal(SEEDS, (count,), row=7, stream=1)
    assert ours.shape == exact.shape
    assert count == 0 or (ours - exact).abs().max() <= 1.5e-6  # so any two backends differ by at most 3e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_noise_depends_on_the_sample_alone(backend):
    shape, seeds = (3, 20, 30), torch.arange(64)
    with use_backend(backend):
        batch = normal(seeds, shape, row=5, stream=1)
        alone = normal(seeds[17:18], shape, row=5, stream=1)
        backwards = normal(seeds.flip(0), shape, row=5, stream=1)
        rows = normal(seeds, shape, row=torch.full((64,), 5), stream=1)
    assert torch.equal(batch[17], alone[0])
    assert torch.equal(batch, backwards.flip(0))
    assert torch.equal(batch, rows)


@needs_cpp
def test_noise_does_not_depend_on_threads():
    threads = torch.get_num_threads()
    seeds = torch.arange(7)
    many = normal(seeds, (3, 33, 65), stream=0)
    try:
        torch.set_num_threads(1)
        assert torch.equal(normal(seeds, (3, 33, 65), stream=0), many)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("backend", BACKENDS)
def test_moments_and_independence(backend):
    with use_backend(backend):
        x = normal(torch.arange(256), (4096,), row=3, stream=1).double()
        other = [
            normal(torch.arange(256), (4096,), row=4, stream=1).double(),
            normal(torch.arange(256), (4096,), row=3, stream=2).double(),
            normal(torch.arange(256) + 1, (4096,), row=3, stream=1).double(),
        ]
    n = x.numel()
    assert abs(x.mean()) < 5 / math.sqrt(n)
    assert abs(x.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((x**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((x**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert abs((x.abs() > 3).double().mean() - 0.0026998) < 5 * math.sqrt(0.0027 / n)
    for y in (*other, x.roll(1, 1), x.roll(2, 1), x.roll(1, 0)):
        assert abs((x * y).mean()) < 5 / math.sqrt(n)
        assert abs((x**2 * y**2).mean() - 1) < 5 * math.sqrt(8 / n)


def test_uniform_is_open_and_flat():
    u = philox.uniform(torch.arange(64), 4096, stream=4).double()
    assert 0 < u.min() and u.max() < 1
    counts = torch.histc(u, bins=16, min=0, max=1)
    expected = u.numel() / 16
    assert ((counts - expected) ** 2 / expected).sum() < 45  # chi-squared, 15 degrees of freedom, p = 1e-4


@pytest.mark.parametrize("word", [0, 511, 512, 2**31, 2**32 - 512, 2**32 - 1])
def test_extreme_words_stay_finite(word):
    u = philox._unit(torch.tensor([word]), torch.float32)
    assert 0 < u.item() < 1
    assert torch.isfinite(torch.sqrt(-2 * torch.log(u)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": torch.arange(3).int()}, "seeds must be int64"),
        ({"seeds": torch.arange(4).reshape(2, 2)}, "seeds must be int64"),
        ({"seeds": [1, 2]}, "seeds must be a tensor"),
        ({"row": -1}, "row must be in"),
        ({"row": 2**32}, "row must be in"),
        ({"row": torch.arange(4)}, "row must be torch.int64"),
        ({"dtype": torch.float16}, "dtype must be"),
        ({"shape": (2, -1)}, "shape must not be negative"),
    ],
)
def test_wrong_input(change, message):
    arguments = {"seeds": torch.arange(3), "shape": (2, 2), "row": 0, "stream": 1} | change
    with pytest.raises((TypeError, ValueError), match=f"normal: .*{message}"):
        normal(arguments.pop("seeds"), arguments.pop("shape"), **arguments)
