"""Scores that seqeval computes when it is called directly, to compare those of the package with."""

from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.scheme import IOB2

STRICT = {"mode": "strict", "scheme": IOB2, "zero_division": 0}


def seqeval_scores(gold: list[list[str]], predicted: list[list[str]]) -> dict[str, float]:
    """Return the scores of tags in the strict and the default mode, by the names that `TaggingMetric` gives them."""
    return {
        "precision": precision_score(gold, predicted, **STRICT),
        "recall": recall_score(gold, predicted, **STRICT),
        "f1": f1_score(gold, predicted, **STRICT),
        "default_precision": precision_score(gold, predicted),
        "default_recall": recall_score(gold, predicted),
        "default_f1": f1_score(gold, predicted),
        "accuracy": accuracy_score(gold, predicted),
    }
