"""Analysis of a tagger: its errors, the calibration of its scores, and probable errors in the gold labels."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, NamedTuple

from datasets import Dataset

from ..alignment import Span, render, split_tag
from ..data.encoding import gold_spans
from ..data.ner import contexts_of, labels_of
from ..inference.predictors import EntityPredictor
from .calibration import brier_score, calibration_bins, expected_calibration_error, precision_from
from .errors import ERROR_KINDS, match_entities
from .markdown import Rows

THRESHOLDS = (0.5, 0.9, 0.99)
"""Scores from which on precision is computed."""

LENGTHS = {"1": 1, "2": 2, "3": 3, "4": 4, "5–6": 6, "7–9": 9}
"""Upper limits of the groups of entities by length, in characters, by their names; `LONGER` has longer entities."""
LONGER = "≥ 10"


class Sentence(NamedTuple):
    """A text with its gold entities, and the predicted ones with their scores, in order."""

    text: str
    gold: list[Span]
    predicted: dict[Span, float]

    @property
    def right(self) -> set[Span]:
        """Return the predicted entities that are gold."""
        return self.predicted.keys() & set(self.gold)


class Error(NamedTuple):
    """A pair of `errors.match_entities` that is not right, with the row of its sentence, counted from 0."""

    row: int
    kind: str
    gold: Span | None
    predicted: Span | None

    @property
    def spans(self) -> list[Span]:
        """Return the gold entity and the predicted one, or the only one of the two."""
        return [span for span in (self.gold, self.predicted) if span]


def tag_sentences(predictor: EntityPredictor, dataset: Dataset) -> list[Sentence]:
    """Tag a data set of `data.ner`; raise ValueError if no entity is found, or a gold entity has an unknown label."""
    texts, contexts, names = list(dataset["text"]), contexts_of(dataset), labels_of(dataset)
    gold = [gold_spans(text, tags, names) for text, tags in zip(texts, dataset["tags"], strict=True)]
    known = {split_tag(label)[1] for label in predictor.pipe.model.config.id2label.values()}
    if unknown := {span.label for spans in gold for span in spans} - known:
        types = ", ".join(sorted(known - {""}))
        raise ValueError(f"the model has no label for {', '.join(sorted(unknown))}; its entity types are {types}")
    predicted = [
        {Span(entity["start"], entity["end"], entity["entity_group"]): entity["score"] for entity in row["entities"]}
        for row in (predictor.in_context(texts, contexts) if any(map(any, contexts)) else predictor(texts))
    ]
    if not any(predicted):
        raise ValueError(f"the model finds no entity in {len(texts)} sentences: train it longer or with other settings")
    return [Sentence(*row) for row in zip(texts, gold, predicted, strict=True)]


def entity_texts(dataset: Dataset) -> set[str]:
    """Return the texts of all gold entities of a data set, see `data.ner`."""
    names = labels_of(dataset)
    rows = zip(dataset["text"], dataset["tags"], strict=True)
    return {text[start:end] for text, tags in rows for start, end, _ in gold_spans(text, tags, names)}


@dataclass(frozen=True)
class Analysis:
    """The numbers of a report, as tables whose keys are headings.

    Attributes:
        seen: texts of the entities in the training sentences; None if these are unknown.
        gold_error_score: score from which on a predicted entity that contradicts gold is a probable error in gold.
    """

    sentences: Sequence[Sentence]
    seen: set[str] | None = None
    bins: int = 10
    gold_error_score: float = 0.99

    @cached_property
    def errors(self) -> list[Error]:
        """Return the errors in the order of the sentences."""
        return [
            Error(row, *pair)
            for row, sentence in enumerate(self.sentences)
            for pair in match_entities(sentence.gold, list(sentence.predicted))
            if pair[0] != "right"
        ]

    def scored(self, label: str | None = None) -> tuple[list[float], list[bool]]:
        """Return the scores of the predicted entities, of one type or of all, and whether each entity is right."""
        pairs = [
            (score, span in sentence.gold)
            for sentence in self.sentences
            for span, score in sentence.predicted.items()
            if label in (None, span.label)
        ]
        return [score for score, _ in pairs], [right for _, right in pairs]

    def calibration(self) -> dict[str, Any]:
        """Return the calibration of all predicted entities, and in the table `types` of the entities of each type."""
        scores, right = self.scored()
        by_width, by_mass = (calibration_bins(scores, right, self.bins, equal_mass) for equal_mass in (False, True))
        types = {span.label for sentence in self.sentences for span in sentence.predicted}
        return {
            **self._trust(scores, right),
            "ECE, equal mass": expected_calibration_error(by_mass),
            "bins": [asdict(part) for part in by_width],
            "bins of equal mass": [asdict(part) for part in by_mass],
            "thresholds": precision_from(scores, right, THRESHOLDS),
            "types": [{"type": label} | self._trust(*self.scored(label)) for label in sorted(types)],
        }

    def _trust(self, scores: list[float], right: list[bool]) -> dict[str, Any]:
        return {
            "entities": len(scores),
            "mean score": fmean(scores),
            "precision": fmean(right),
            "ECE": expected_calibration_error(calibration_bins(scores, right, self.bins)),
            "Brier score": brier_score(scores, right),
        }

    def scores_by(self, heading: str, group: Callable[[str, Span], str]) -> Rows:
        """Compute precision, recall and F1 of the entities of each group, in the order of the names of the groups.

        `group` returns the name of the group from the text and the span of a gold or predicted entity.
        """
        gold, predicted, right = (
            Counter(group(s.text[span.start : span.end], span) for s in self.sentences for span in getattr(s, side))
            for side in ("gold", "predicted", "right")
        )
        return [
            {
                heading: name,
                "gold": gold[name],
                "predicted": predicted[name],
                "precision": right[name] / predicted[name] if predicted[name] else None,
                "recall": right[name] / gold[name] if gold[name] else None,
                "F1": 2 * right[name] / (gold[name] + predicted[name]),
            }
            for name in sorted(gold | predicted)
        ]

    def errors_by_type(self) -> Rows:
        """Count the errors of each kind by gold type, invented entities by their predicted type."""
        counts = Counter((error.spans[0].label, error.kind) for error in self.errors)
        labels = sorted({label for label, _ in counts})
        rows: Rows = [{"entity": label} | {kind: counts[label, kind] for kind in ERROR_KINDS} for label in labels]
        return rows + [{"entity": "all"} | {kind: sum(row[kind] for row in rows) for kind in ERROR_KINDS}]

    def confusions(self) -> Rows:
        """Count the pairs of a gold type and another predicted type, the most frequent first."""
        pairs = Counter(tuple(span.label for span in e.spans) for e in self.errors if e.kind in ("type", "both"))
        return [
            {"gold": gold, "predicted": predicted, "entities": count}
            for (gold, predicted), count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
        ]

    def probable_gold_errors(self, quoted: bool) -> Rows:
        """Return the predicted entities with high scores that are not gold, the highest score first."""
        rows = [
            {"score": self.sentences[error.row].predicted[error.predicted]} | self.describe(error, quoted)
            for error in self.errors
            if error.predicted
        ]
        sure = (row for row in rows if row["score"] >= self.gold_error_score)
        return sorted(sure, key=lambda row: -row["score"])

    def describe(self, error: Error, quoted: bool) -> dict[str, Any]:
        """Return an error as a row with the gold and predicted entities at its place, on request marked in the text."""
        start, end = min(span.start for span in error.spans), max(span.end for span in error.spans)
        sentence = self.sentences[error.row]
        readings = {
            side: [span for span in spans if span.start < end and span.end > start]
            for side, spans in (("gold", sentence.gold), ("predicted", sentence.predicted))
        }
        texts = {f"{side} text": render(sentence.text, spans) for side, spans in readings.items()} if quoted else {}
        return {"row": error.row, "error": error.kind, **readings, **texts}

    def examples(self, count: int) -> dict[str, Rows]:
        """Return up to `count` errors of each kind, spread over the sentences."""
        chosen = {}
        for kind in ERROR_KINDS:
            errors = [error for error in self.errors if error.kind == kind]
            shown = min(count, len(errors))
            chosen[kind] = [self.describe(errors[i * len(errors) // shown], quoted=True) for i in range(shown)]
        return chosen

    def numbers(self, sentences: int) -> dict[str, Any]:
        """Return all numbers of the analysis, and up to `sentences` quoted sentences for each kind of error.

        With `sentences` 0, the result has no text of the data.
        """
        training = []
        if (seen := self.seen) is not None:
            training = self.scores_by("in training", lambda text, span: "seen" if text in seen else "unseen")
        return {
            "sentences": len(self.sentences),
            "scores": self.scores_by("type", lambda text, span: "all")[0],
            "calibration": self.calibration(),
            "types": self.scores_by("type", lambda text, span: span.label),
            "errors": self.errors_by_type(),
            "confusions": self.confusions(),
            "lengths": self.scores_by("characters", lambda text, span: _length_group(len(text))),
            "training": training,
            "examples": self.examples(sentences),
            "gold_error_score": self.gold_error_score,
            "probable gold errors": self.probable_gold_errors(quoted=sentences > 0),
        }


def _length_group(length: int) -> str:
    """Return the name of a group of `LENGTHS`; sorted names are in the order of lengths, since ≥ follows the digits."""
    return next((name for name, limit in LENGTHS.items() if length <= limit), LONGER)
