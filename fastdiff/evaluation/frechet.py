"""Frechet distance between two sets of features, each described by its mean and covariance.

    d^2 = |mu_1 - mu_2|^2 + tr(C_1) + tr(C_2) - 2 tr((C_1^1/2 C_2 C_1^1/2)^1/2)

(Dowson and Landau 1982; on classifier features Heusel et al. 2017, arXiv 1706.08500). Everything is float64. The matrix
under the root is symmetric and positive semidefinite, so its root's trace is the sum of the roots of its eigenvalues:
no complex parts and no failures for singular covariances, as a general matrix square root would have. As there, the
number reported is d^2, and it is biased upwards for few samples: compare distances of equal N only.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def frechet_distance(first: Array, second: Array) -> float:
    """d^2 between two sets of features (N, D) and (M, D), N and M at least 2.

    Raises:
        ValueError: for other shapes, different D, or values that are not finite.
    """
    return gaussian_distance(*moments(first), *moments(second))


def moments(features: Array) -> tuple[Array, Array]:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), in float64."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or features.shape[0] < 2 or features.shape[1] < 1:
        raise ValueError(f"frechet: features must have shape (N >= 2, D >= 1), got {features.shape}")
    _check_finite(features, "features")
    mean = features.mean(axis=0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def gaussian_distance(mean_1: Array, cov_1: Array, mean_2: Array, cov_2: Array) -> float:
    """d^2 between the normal distributions N(mean_1, cov_1) and N(mean_2, cov_2).

    Args:
        mean_1: (D,).
        cov_1: (D, D), symmetric and positive semidefinite.
        mean_2: (D,).
        cov_2: (D, D), likewise.

    Returns:
        The squared distance, never below zero.
    """
    mean_1, cov_1 = _checked(mean_1, cov_1, "first")
    mean_2, cov_2 = _checked(mean_2, cov_2, "second")
    if mean_1.shape != mean_2.shape:
        raise ValueError(
            f"frechet: both sides must have equal D, got {mean_1.shape[0]} and {mean_2.shape[0]}"
        )
    root = _root(cov_1)
    middle = root @ cov_2 @ root
    shared = np.sqrt(_eigenvalues(middle)).sum()
    distance = ((mean_1 - mean_2) ** 2).sum() + np.trace(cov_1) + np.trace(cov_2) - 2.0 * shared
    return max(0.0, float(distance))


def _root(matrix: Array) -> Array:
    """The symmetric square root of a symmetric positive semidefinite matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T


def _eigenvalues(matrix: Array) -> Array:
    return np.linalg.eigvalsh((matrix + matrix.T) / 2).clip(min=0.0)


def _checked(mean: Array, cov: Array, side: str) -> tuple[Array, Array]:
    mean, cov = np.asarray(mean, dtype=np.float64), np.asarray(cov, dtype=np.float64)
    if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
        raise ValueError(
            f"frechet: {side} mean and covariance must be (D,) and (D, D), got {mean.shape} and {cov.shape}"
        )
    _check_finite(mean, f"{side} mean")
    _check_finite(cov, f"{side} covariance")
    scale = np.abs(cov).max(initial=0.0)
    if np.abs(cov - cov.T).max(initial=0.0) > 1e-8 * scale:
        raise ValueError(f"frechet: {side} covariance must be symmetric, got one that is not")
    if np.linalg.eigvalsh((cov + cov.T) / 2).min(initial=0.0) < -1e-8 * scale:
        raise ValueError(
            f"frechet: {side} covariance must be positive semidefinite, got a negative eigenvalue"
        )
    return mean, cov


def _check_finite(values: Array, name: str) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"frechet: {name} must be finite, got NaN or infinity")
