"""Judging generated images: a small classifier, class accuracy, and the Frechet distance in its feature space."""

from __future__ import annotations

from fastdiff.evaluation.classifier import Classifier, predict, train_classifier
from fastdiff.evaluation.frechet import frechet_distance, gaussian_distance, moments

__all__ = ["Classifier", "frechet_distance", "gaussian_distance", "moments", "predict", "train_classifier"]
