import logging
import random

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from bilstm_crf_hf.evaluation import plots
from bilstm_crf_hf.evaluation.calibration import (
    brier_score,
    calibration_bins,
    expected_calibration_error,
    fit_temperature,
    precision_from,
)


def overconfident(seed: int, size: int) -> tuple[list[float], list[bool]]:
    """Scores, many of them near 1 and some of them on an edge, and answers that are right less often than these say."""
    rng = random.Random(seed)
    scores = [rng.choice([rng.random(), 1 - rng.random() / 50, rng.randrange(11) / 10]) for _ in range(size)]
    return scores, [rng.random() < score**2 for score in scores]


def test_the_error_of_a_few_entities_by_hand():
    scores, right = [0.95, 0.85, 0.85, 0.15], [True, True, False, False]
    bins = calibration_bins(scores, right)
    assert [(part.low, part.high, part.count) for part in bins] == [
        (pytest.approx(low), pytest.approx(low + 0.1), count) for low, count in ((0.1, 1), (0.8, 2), (0.9, 1))
    ]
    assert expected_calibration_error(bins) == pytest.approx(0.25 * 0.15 + 0.5 * 0.35 + 0.25 * 0.05)
    assert brier_score(scores, right) == pytest.approx((0.05**2 + 0.15**2 + 0.85**2 + 0.15**2) / 4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_answers_were_drawn_at_is_found(temperature):
    generator = np.random.default_rng(0)
    logits = generator.normal(1, 2, 20000)

    def scores_at(value: float) -> np.ndarray:
        return 1 / (1 + np.exp(-logits / value))

    right = generator.random(len(logits)) < scores_at(temperature)
    assert fit_temperature(lambda value: (scores_at(value), right)) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("right", [True, False])
def test_answers_that_no_temperature_fits_best_are_an_error(right):
    """As surer answers are always better, or always worse."""
    with pytest.raises(ValueError, match=r"no temperature from 0\.1 to 10 fits best: give more sentences, and none of"):
        fit_temperature(lambda value: ([0.9 ** (1 / value)] * 3, [right] * 3))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bins", [1, 3, 10])
def test_the_error_equals_a_loop_over_bins_and_entities(seed, bins):
    scores, right = overconfident(seed, 200)
    expected = 0.0
    for number in range(bins):
        low, high = np.linspace(0, 1, bins + 1)[number : number + 2]
        inside = [i for i, score in enumerate(scores) if low < score <= high or score == number == 0]
        if inside:
            confidence = sum(scores[i] for i in inside) / len(inside)
            accuracy = sum(right[i] for i in inside) / len(inside)
            expected += len(inside) / len(scores) * abs(accuracy - confidence)
    assert expected > 0.05
    assert expected_calibration_error(calibration_bins(scores, right, bins)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("equal_mass", [False, True])
def test_bins_and_brier_score_are_those_of_scikit_learn(seed, equal_mass):
    scores, right = overconfident(seed, 300)
    strategy = "quantile" if equal_mass else "uniform"
    precision, means = calibration_curve(right, scores, n_bins=7, strategy=strategy)
    bins = calibration_bins(scores, right, 7, equal_mass)
    assert [part.precision for part in bins] == pytest.approx(precision.tolist())
    assert [part.mean_score for part in bins] == pytest.approx(means.tolist())
    assert sum(part.count for part in bins) == len(scores)
    assert brier_score(scores, right) == pytest.approx(brier_score_loss(right, scores))


def test_bins_of_equal_mass_are_equally_full_where_scores_differ():
    scores = [1 - 0.9**i for i in range(1, 41)]
    counts = [part.count for part in calibration_bins(scores, [True] * 40, 8, equal_mass=True)]
    assert counts == [5] * 8
    assert [part.count for part in calibration_bins([0.7] * 6, [True] * 6, 8, equal_mass=True)] == [6]


def test_precision_from_a_score_on_by_hand():
    rows = precision_from([0.5, 0.9, 0.95, 0.4], [False, True, False, True], (0.5, 0.9, 0.99))
    assert [tuple(row.values()) for row in rows] == [
        (0.5, 3, 0.75, pytest.approx(1 / 3)),
        (0.9, 2, 0.5, 0.5),
        (0.99, 0, 0.0, None),
    ]


@pytest.mark.parametrize("score", [calibration_bins, brier_score, lambda *columns: precision_from(*columns, (0.5,))])
def test_what_cannot_be_calibrated_is_refused(score):
    with pytest.raises(ValueError, match="no scores"):
        score([], [])
    with pytest.raises(ValueError, match="2 scores, but 1 values of `right`"):
        score([0.5, 0.6], [True])


def test_no_bin_is_no_diagram():
    with pytest.raises(ValueError, match="0 bins: one or more"):
        calibration_bins([0.5], [True], 0)


def test_without_matplotlib_a_warning_says_that_there_is_no_picture(tmp_path, monkeypatch, caplog):
    bins = calibration_bins(*overconfident(0, 50))
    plots.plot_reliability(bins, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        plots.plot_reliability(bins, tmp_path / "b.png")
    assert "no b.png: pictures need matplotlib" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
