"""Judging generated images: a small classifier, class accuracy, and the Frechet distance in its feature space."""

from __future__ import annotations

from fastdiff.evaluation.classifier import Classifier, predict, train_classifier
from fastdiff.evaluation.classifier_file import load_classifier, make_classifier
from fastdiff.evaluation.evaluate import Report, Row, evaluate
from fastdiff.evaluation.frechet import frechet_distance, gaussian_distance, moments
from fastdiff.evaluation.latents import centre_mask, latent_usage, patched_nll_bits
from fastdiff.evaluation.reconstruction import ReconstructionReport, judge_reconstruction

__all__ = [
    "Classifier",
    "ReconstructionReport",
    "Report",
    "Row",
    "centre_mask",
    "evaluate",
    "frechet_distance",
    "gaussian_distance",
    "judge_reconstruction",
    "latent_usage",
    "load_classifier",
    "make_classifier",
    "moments",
    "patched_nll_bits",
    "predict",
    "train_classifier",
]
