"""The Frechet distance against closed forms, its invariances, and refused input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from fastdiff.evaluation.frechet import frechet_distance, gaussian_distance, moments


def _covariance(rng: np.random.Generator, size: int, rank: int | None = None) -> np.ndarray:
    half = rng.standard_normal((size, rank or size))
    return half @ half.T / size


def test_one_dimension_is_the_difference_of_means_and_deviations() -> None:
    # d^2 = (m1 - m2)^2 + (s1 - s2)^2
    assert gaussian_distance([1.0], [[4.0]], [3.0], [[9.0]]) == pytest.approx(4.0 + 1.0, rel=1e-14)


def test_commuting_covariances_have_a_closed_form() -> None:
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.standard_normal((12, 12)))
    first, second = rng.uniform(0.1, 3.0, 12), rng.uniform(0.1, 3.0, 12)
    wanted = ((np.sqrt(first) - np.sqrt(second)) ** 2).sum() + 12 * 0.25
    zero, half = np.zeros(12), np.full(12, 0.5)
    got = gaussian_distance(zero, (turn * first) @ turn.T, half, (turn * second) @ turn.T)
    assert got == pytest.approx(wanted, rel=1e-12)


def test_agrees_with_the_general_matrix_square_root() -> None:
    rng = np.random.default_rng(1)
    first, second = _covariance(rng, 16), _covariance(rng, 16)
    zero = np.zeros(16)
    wanted = np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    assert gaussian_distance(zero, first, zero, second) == pytest.approx(wanted, rel=1e-9)


def test_singular_covariances_are_no_special_case() -> None:
    rng = np.random.default_rng(2)
    flat = _covariance(rng, 10, rank=3)
    zero = np.zeros(10)
    # Roots double the digits lost: the eigenvalues that should be 0 come out near 1e-16, their roots near 1e-8.
    assert gaussian_distance(zero, flat, zero, flat) == pytest.approx(0.0, abs=1e-6)
    assert gaussian_distance(zero, flat, zero, np.zeros((10, 10))) == pytest.approx(np.trace(flat), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 8), shift=st.floats(-3, 3), factor=st.floats(0.1, 10))
def test_invariances(seed: int, size: int, shift: float, factor: float) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((40, size)), 1.5 * rng.standard_normal((50, size)) + 0.3
    distance = frechet_distance(first, second)
    turn, _ = np.linalg.qr(rng.standard_normal((size, size)))
    assert frechet_distance(second, first) == pytest.approx(distance, rel=1e-9, abs=1e-9)
    assert frechet_distance(first @ turn + shift, second @ turn + shift) == pytest.approx(distance, rel=1e-8)
    assert frechet_distance(first * factor, second * factor) == pytest.approx(distance * factor**2, rel=1e-8)
    assert frechet_distance(first[::-1], second) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-7)


def test_a_pure_shift_costs_its_squared_length() -> None:
    features = np.random.default_rng(3).standard_normal((200, 5))
    shift = np.array([1.0, -2.0, 0.0, 0.5, 0.0])
    assert frechet_distance(features, features + shift) == pytest.approx((shift**2).sum(), rel=1e-9)


def test_moments_are_unbiased_and_double() -> None:
    features = np.random.default_rng(4).standard_normal((30, 4)).astype(np.float32) + 1e4
    mean, cov = moments(features)
    assert mean.dtype == cov.dtype == np.float64
    np.testing.assert_allclose(cov, np.cov(features.astype(np.float64), rowvar=False), rtol=1e-10)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (np.zeros(5), "shape"),
        (np.zeros((1, 5)), "N >= 2"),
        (np.zeros((3, 0)), "D >= 1"),
        (np.full((3, 2), np.nan), "finite"),
    ],
)
def test_wrong_features_are_refused(features: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        frechet_distance(features, np.ones((3, 2)))


@pytest.mark.parametrize(
    ("cov", "words"),
    [
        (np.eye(3), r"\(D,\) and \(D, D\)"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), "positive semidefinite"),
        (np.array([[np.inf, 0.0], [0.0, 1.0]]), "finite"),
    ],
)
def test_wrong_covariances_are_refused(cov: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gaussian_distance(np.zeros(2), cov, np.zeros(2), np.eye(2))


def test_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="equal D"):
        frechet_distance(np.random.rand(5, 2), np.random.rand(5, 3))
