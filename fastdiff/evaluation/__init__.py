"""Judging generated images: a small classifier, class accuracy, and the Frechet distance in its feature space."""

from __future__ import annotations

from fastdiff.evaluation.classifier import Classifier, predict, train_classifier
from fastdiff.evaluation.classifier_file import load_classifier, make_classifier
from fastdiff.evaluation.evaluate import Report, Row, evaluate
from fastdiff.evaluation.frechet import frechet_distance, gaussian_distance, moments
from fastdiff.evaluation.reconstruction import ReconstructionReport, judge_reconstruction

__all__ = [
    "Classifier",
    "ReconstructionReport",
    "Report",
    "Row",
    "evaluate",
    "frechet_distance",
    "gaussian_distance",
    "judge_reconstruction",
    "load_classifier",
    "make_classifier",
    "moments",
    "predict",
    "train_classifier",
]
