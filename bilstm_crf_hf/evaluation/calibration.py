"""Whether probabilities are what they say: of all entities with a score of 0.9, nine out of ten should be right."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Bin(NamedTuple):
    """The entities whose scores lie in `(low, high]`: how many, their mean score, and the share that is right."""

    low: float
    high: float
    count: int
    mean_score: float
    precision: float


def calibration_bins(
    scores: Sequence[float], right: Sequence[bool], bins: int = 10, equal_mass: bool = False
) -> list[Bin]:
    """The bins that are not empty, from low to high.

    Args:
        scores: probability of each entity, at least one.
        right: whether it is.
        bins: how many there are; a score of exactly 0 belongs to the first.
        equal_mass: whether edges are quantiles of the scores, so that bins are about equally full, and not equally far
            from each other between 0 and 1. Equal scores stay in one bin.

    Raises:
        ValueError: there are no scores, or another number of answers; `bins` is not positive.
    """
    values, answers = _arrays(scores, right)
    if bins < 1:
        raise ValueError(f"{bins} bins: one or more are needed")
    shares = np.linspace(0, 1, bins + 1)
    edges = np.quantile(values, shares) if equal_mass else shares
    places = np.searchsorted(edges[1:-1], values)
    return [
        Bin(
            float(edges[i]),
            float(edges[i + 1]),
            int((places == i).sum()),
            float(values[places == i].mean()),
            float(answers[places == i].mean()),
        )
        for i in np.unique(places)
    ]


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """ECE = Σ over bins of (count / n) · |precision − mean score|, with n the sum of all counts.

    Of bins of equal width it is that of Naeini, Cooper and Hauskrecht (2015), "Obtaining well calibrated probabilities
    using Bayesian binning", as Guo et al. (2017), "On calibration of modern neural networks", compute it.
    """
    total = sum(part.count for part in bins)
    return sum(part.count / total * abs(part.precision - part.mean_score) for part in bins)


def brier_score(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Mean of (score − 1)² over the entities that are right and of score² over the others (Brier, 1950).

    Raises:
        ValueError: there are no scores, or another number of answers.
    """
    values, answers = _arrays(scores, right)
    return float(((values - answers) ** 2).mean())


def precision_from(
    scores: Sequence[float], right: Sequence[bool], thresholds: Sequence[float]
) -> list[dict[str, float | int | None]]:
    """Of the entities with at least each score: how many there are, their share of all, and the share that is right.

    The latter is None where there are none.

    Raises:
        ValueError: there are no scores, or another number of answers.
    """
    values, answers = _arrays(scores, right)
    rows = []
    for threshold in thresholds:
        kept = answers[values >= threshold]
        row = {"score from": threshold, "entities": len(kept), "coverage": len(kept) / len(values)}
        rows.append(row | {"precision": float(kept.mean()) if len(kept) else None})
    return rows


def _arrays(scores: Sequence[float], right: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    if len(scores) != len(right):
        raise ValueError(f"{len(scores)} scores, but {len(right)} answers")
    if not len(scores):
        raise ValueError("no scores: there is nothing to calibrate")
    return np.asarray(scores, dtype=float), np.asarray(right, dtype=bool)
