"""Calibration of scores: of all entities with a score of 0.9, nine out of ten should be right."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

TEMPERATURES = (0.1, 10.0)
"""The bounds between which a temperature is searched for."""


@dataclass(frozen=True)
class Bin:
    """The entities with scores in `(low, high]`: their number, their mean score, and the share that is right."""

    low: float
    high: float
    count: int
    mean_score: float
    precision: float


def calibration_bins(
    scores: Sequence[float], right: Sequence[bool], bins: int = 10, equal_mass: bool = False
) -> list[Bin]:
    """Sort entities into bins by their scores, and return the bins that are not empty, in ascending order.

    Args:
        scores: probability of each entity, at least one.
        bins: number of bins; a score of exactly 0 belongs to the first one.
        equal_mass: take quantiles of the scores as edges, so that bins have about equally many entities, in place of
            equal widths between 0 and 1. Equal scores stay in one bin.
    """
    values, hits = _arrays(scores, right)
    if bins < 1:
        raise ValueError(f"{bins} bins: one or more are needed")
    edges = np.linspace(0, 1, bins + 1)
    if equal_mass:
        edges = np.quantile(values, edges)
    strategy = "quantile" if equal_mass else "uniform"
    precision, mean_scores = calibration_curve(hits, values, n_bins=bins, strategy=strategy)
    counts = np.bincount(np.searchsorted(edges[1:-1], values), minlength=bins)
    filled = counts.nonzero()[0]
    columns = (edges[filled], edges[filled + 1], counts[filled], mean_scores, precision)
    return [Bin(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Compute ECE = Σ over bins of (count / n) · |precision − mean score|, where n is the sum of all counts.

    With bins of equal width this is the ECE of Naeini, Cooper and Hauskrecht (2015), "Obtaining well calibrated
    probabilities using Bayesian binning", as computed by Guo et al. (2017), "On calibration of modern neural networks".
    """
    total = sum(part.count for part in bins)
    return sum(part.count / total * abs(part.precision - part.mean_score) for part in bins)


def brier_score(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Compute the mean of (score − 1)² over right entities and score² over wrong ones (Brier, 1950)."""
    values, hits = _arrays(scores, right)
    return float(brier_score_loss(hits, values))


def fit_temperature(scored: Callable[[float], tuple[Sequence[float], Sequence[bool]]]) -> float:
    """Return the temperature (Guo et al., 2017) whose scores have the least log loss, within one percent.

    The log loss of the entities that a user sees is minimized, not that of the labels of all tokens: a tagger that
    misses entities would get a temperature that is too high for those that it finds.

    Args:
        scored: function of a temperature that returns the scores of entities and whether each is right.

    Raises:
        ValueError: if the best temperature is not between `TEMPERATURES`.
    """

    def loss(logarithm: float) -> float:
        values, hits = _arrays(*scored(math.exp(logarithm)))
        return log_loss(hits, values, labels=[False, True])

    low, high = map(math.log, TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 0.01}).x
    if min(found - low, high - found) < 0.02:
        limits = " to ".join(f"{limit:g}" for limit in TEMPERATURES)
        raise ValueError(f"no temperature from {limits} fits best: give more sentences, and none of the training")
    return math.exp(found)


def precision_from(
    scores: Sequence[float], right: Sequence[bool], thresholds: Sequence[float]
) -> list[dict[str, float | int | None]]:
    """Compute, for each threshold, the number, share and precision of the entities with at least this score.

    The precision is None where there is no such entity.
    """
    values, hits = _arrays(scores, right)
    kept = {threshold: hits[values >= threshold] for threshold in thresholds}
    return [
        {
            "score from": threshold,
            "entities": len(part),
            "coverage": len(part) / len(values),
            "precision": float(part.mean()) if len(part) else None,
        }
        for threshold, part in kept.items()
    ]


def _arrays(scores: Sequence[float], right: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Return both lists as arrays; raise ValueError if they are empty or differ in length."""
    if len(scores) != len(right):
        raise ValueError(f"{len(scores)} scores, but {len(right)} values of `right`: give one for each score")
    if not len(scores):
        raise ValueError("no scores: there is nothing to calibrate")
    # exp of a sum of single precision logarithms may exceed 1 by rounding, which scikit-learn refuses.
    return np.minimum(np.asarray(scores, dtype=float), 1.0), np.asarray(right, dtype=bool)
