"""Errors of taggers and classifiers by kind."""

from collections import Counter
from collections.abc import Iterator, Sequence

from ..alignment import Span
from .runs import Run
from .tasks import TAGGING

ERROR_KINDS = {
    "boundary": "same type, overlapping, other edges",
    "type": "same span, other type",
    "both": "overlapping, other type and edges",
    "missed": "gold entity without a counterpart",
    "invented": "predicted entity without a counterpart",
}
"""The kinds of errors of a tagger, with their definitions."""


def match_entities(gold: Sequence[Span], predicted: Sequence[Span]) -> Iterator[tuple[str, Span | None, Span | None]]:
    """Pair the gold entities of a sentence with the predicted ones, each in one pair at most.

    An entity is paired with one of the same span if there is one, else with the free entity of its type, then of any
    type, that shares most characters with it.

    Yields:
        `right` or a key of `ERROR_KINDS`, the gold entity and the predicted one. An entity without a counterpart is
        `missed` (gold) or `invented` (predicted), with None on the other side.
    """
    kinds = ("right", "type", "boundary", "both")
    pairs = []
    for ours in gold:
        for theirs in predicted:
            shared = min(ours.end, theirs.end) - max(ours.start, theirs.start)
            if shared > 0:
                rank = 2 * (ours[:2] != theirs[:2]) + (ours.label != theirs.label)
                pairs.append((rank, -shared, ours, theirs))
    free, free_predicted = set(gold), set(predicted)
    for rank, _, ours, theirs in sorted(pairs):
        if ours in free and theirs in free_predicted:
            free.remove(ours)
            free_predicted.remove(theirs)
            yield kinds[rank], ours, theirs
    yield from (("missed", span, None) for span in sorted(free))
    yield from (("invented", None, span) for span in sorted(free_predicted))


def error_counts(run: Run) -> Counter:
    """Count the predictions of a run by `right` and `ERROR_KINDS`, those of a classifier by `gold → predicted`."""
    pairs = zip(run.predictions.gold, run.predictions.predicted, strict=True)
    if run.task is TAGGING:
        return Counter(name for gold, predicted in pairs for name, _, _ in match_entities(gold, predicted))
    return Counter("right" if gold == predicted else f"{gold} → {predicted}" for gold, predicted in pairs)
