"""Scores of taggers and of text classifiers, as `evaluate.Metric`s that need no download and as `compute_metrics`."""

import inspect
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import datasets
import evaluate
import numpy as np
from seqeval.metrics import accuracy_score, classification_report
from seqeval.metrics import f1_score as seqeval_f1_score
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support
from seqeval.scheme import IOB2
from sklearn.metrics import f1_score
from sklearn.metrics import precision_recall_fscore_support as class_scores
from transformers import EvalPrediction

from ..alignment import IGNORED, Span, spans_from_tags, token_tags
from ..data.encoding import EncodedCorpus, best_labels

_REPORT_NAMES = {"precision": "precision", "recall": "recall", "f1": "f1-score"}
"""The names of scores in seqeval's report, by ours."""


class TaggingMetric(evaluate.Metric):
    """Metric of BIO tags: entities with seqeval, strict and default, with KLUE's entity and character F1.

    Scores of the tags of characters, without white space, are comparable with those of KLUE. With the tags of tokens,
    entities that begin or end inside a token count as found (a fifth of those in KLUE-NER with a WordPiece tokenizer).

    Args:
        predictions, references: the predicted and the gold tags of each sentence.
        labels: the tag set, for the macro average over characters. Default: the tags that occur.

    Returns, all between 0 and 1:
        precision, recall, f1: scores of entities, micro-averaged, in seqeval's strict mode (IOB2): an entity is a B-
            tag with the I- tags behind it, and is right if its type and both ends are. An I- tag that continues no
            entity is ignored.
        default_precision, default_recall, default_f1: the same in seqeval's default mode, that of conlleval, where such
            an I- tag begins an entity, so that `I-PS I-PS` counts as right against `B-PS I-PS`.
        {TYPE}_precision, {TYPE}_recall, {TYPE}_f1, {TYPE}_number: strict scores and number of gold entities of a type.
        klue_entity_macro_f1: KLUE's "entity F1", the mean of the strict F1 over the types, as
            `klue_ner_entity_macro_f1` of klue_baseline computes it.
        klue_char_macro_f1: KLUE's "character F1", the mean over the tags (B-PS and I-PS are two) of the F1 of
            characters, as `klue_ner_char_macro_f1` of klue_baseline computes it. Its docstring says "except O tag", but
            its code counts O as one of the tags and gives a tag that occurs on neither side an F1 of 1; this metric
            does the same. klue_baseline also adds [CLS] and [SEP] as two O tags to each sentence and cuts sentences at
            128 tokens; this metric does not.
        accuracy: share of single tags that are right.
    """

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=inspect.getdoc(self),
            citation="Park et al. (2021): KLUE. Nakayama (2018): seqeval. Ramshaw and Marcus (1995): IOB.",
            inputs_description=inspect.getdoc(self),
            features=datasets.Features({"predictions": tags, "references": tags}),
            reference_urls=[
                "https://github.com/chakki-works/seqeval",
                "https://github.com/KLUE-benchmark/KLUE-baseline",
            ],
        )

    def _compute(
        self, predictions: list[list[str]], references: list[list[str]], labels: Sequence[str] | None = None
    ) -> dict[str, float]:
        for i, (predicted, gold) in enumerate(zip(predictions, references)):
            if len(predicted) != len(gold):
                raise ValueError(f"sentence {i} has {len(predicted)} predicted and {len(gold)} gold tags")
        if any(tag.startswith("B-") for tags in (*references, *predictions) for tag in tags):
            strict = classification_report(
                references, predictions, output_dict=True, mode="strict", scheme=IOB2, zero_division=0
            )
        else:  # no entity at all: seqeval would average over no type, with a warning
            nothing = dict.fromkeys(_REPORT_NAMES.values(), 0.0)
            strict = dict.fromkeys(("micro avg", "macro avg", "weighted avg"), nothing)
        micro, macro, _ = (strict.pop(f"{name} avg") for name in ("micro", "macro", "weighted"))
        default = precision_recall_fscore_support(references, predictions, average="micro", zero_division=0)
        scores = {name: micro[key] for name, key in _REPORT_NAMES.items()}
        scores |= {f"default_{name}": value for name, value in zip(_REPORT_NAMES, default)}
        for entity_type, row in strict.items():
            scores |= {f"{entity_type}_{name}": row[key] for name, key in _REPORT_NAMES.items()}
            scores[f"{entity_type}_number"] = row["support"]
        gold = [tag for tags in references for tag in tags]
        predicted = [tag for tags in predictions for tag in tags]
        scores["klue_entity_macro_f1"] = macro["f1-score"]
        scores["klue_char_macro_f1"] = f1_score(
            gold, predicted, labels=labels or sorted({*gold, *predicted}), average="macro", zero_division=1
        )
        scores["accuracy"] = accuracy_score(references, predictions)
        return {name: float(value) for name, value in scores.items()}


class ClassificationMetric(evaluate.Metric):
    """Metric of single labels with scikit-learn: accuracy, macro F1, and precision, recall and F1 of each class.

    Args:
        predictions, references: the names of the predicted and the gold class of each text.

    Returns, all between 0 and 1:
        accuracy: share of texts whose class is right.
        macro_f1: mean of the F1 of the classes that occur on either side, the default of scikit-learn.
        {CLASS}_precision, {CLASS}_recall, {CLASS}_f1, {CLASS}_number: scores and number of gold texts of each class.
    """

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("string")
        return evaluate.MetricInfo(
            description=inspect.getdoc(self),
            citation="Pedregosa et al. (2011): Scikit-learn.",
            inputs_description=inspect.getdoc(self),
            features=datasets.Features({"predictions": label, "references": label}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        names = sorted({*references, *predictions})
        columns = class_scores(references, predictions, labels=names, zero_division=0)
        right = sum(gold == predicted for gold, predicted in zip(references, predictions, strict=True))
        scores = {"accuracy": right / len(references), "macro_f1": columns[2].mean()}
        for name, *row in zip(names, *columns, strict=True):
            scores |= {f"{name}_{key}": value for key, value in zip(("precision", "recall", "f1", "number"), row)}
        return {name: float(value) for name, value in scores.items()}


def entity_scores(
    texts: Sequence[str], gold: Sequence[list[Span]], predicted: Sequence[list[Span]], labels: Iterable[str]
) -> dict[str, float]:
    """Compute the scores of `TaggingMetric` on the characters that are not white space, for the labels of a model."""
    predicted_tags, gold_tags = (list(map(visible_tags, texts, side)) for side in (predicted, gold))
    return TaggingMetric().compute(predictions=predicted_tags, references=gold_tags, labels=bio_labels(labels))


class EntityScorer:
    """The scores of a tagger on a corpus, as `compute_metrics` of `Trainer`, and the entities that they count."""

    def __init__(self, corpus: EncodedCorpus) -> None:
        self.corpus = corpus
        self.metric, self.labels = TaggingMetric(), bio_labels(corpus.labels)
        self.gold = list(map(visible_tags, corpus.texts, corpus.spans))

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Compute the scores of `TaggingMetric` on characters, and `token_f1` on the labels of tokens.

        `token_f1` is the F1 of seqeval's default mode. It does not see that entities begin or end inside tokens.

        Args:
            prediction: the label ids of each row of `corpus.inputs`, -100 at special and padded tokens, and what
                `label_rows` takes as their predictions.

        Raises:
            ValueError: if the rows are not those of `corpus.inputs` in their order.
        """
        sides = gold, predicted = [label_rows(ids) for ids in (prediction.label_ids, prediction.predictions)]
        if not np.array_equal(_known_ids(gold), self._gold_ids):
            raise ValueError(
                "the predictions are not those of the rows of the corpus in their order: evaluate on `corpus.inputs`, "
                'with train_sampling_strategy="random" if the trainer is not TaggerTrainer'
            )
        tags = self.corpus.predicted_tags(predicted)
        scores = self.metric.compute(predictions=tags, references=self.gold, labels=self.labels)
        known = [(row != IGNORED) & (guess != IGNORED) for row, guess in zip(*sides, strict=True)]
        tokens = [
            [[self.corpus.labels[i] for i in row[mask]] for row, mask in zip(rows, known, strict=True)]
            for rows in sides
        ]
        return scores | {"token_f1": float(seqeval_f1_score(*tokens))}

    @cached_property
    def _gold_ids(self) -> np.ndarray:
        return _known_ids(map(np.array, self.corpus.inputs["labels"]))

    def scores(self) -> list[str]:
        """Return the names of the scores that each evaluation has, with those of the types of gold entities."""
        types = sorted({span.label for spans in self.corpus.spans for span in spans})
        by_type = [f"{label}_{name}" for label in types for name in (*_REPORT_NAMES, "number")]
        return [*self.metric.compute(predictions=[["O"]], references=[["O"]]), *by_type, "token_f1"]

    def entities(self, predictions: Any) -> list[list[Span]]:
        """Return the entities of each sentence that the strict scores count, for predictions as in `__call__`."""
        return list(map(strict_spans, self.corpus.texts, self.corpus.predicted_tags(label_rows(predictions))))


class ClassScorer:
    """The scores of a text classifier on texts with the label ids `gold`, as `compute_metrics` of `Trainer`."""

    def __init__(self, labels: Sequence[str], gold: Iterable[int]) -> None:
        self.labels, self.gold, self.metric = labels, [*gold], ClassificationMetric()

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Compute the scores of `ClassificationMetric`; `label_rows` describes the predictions."""
        return self._compute(label_rows(prediction.predictions), label_rows(prediction.label_ids))

    def scores(self) -> list[str]:
        """Return the names of the scores that each evaluation has, with those of the classes of gold labels."""
        return [*self._compute(self.gold, self.gold)]

    def _compute(self, predicted: Iterable[int], gold: Iterable[int]) -> dict[str, float]:
        names = [[self.labels[i] for i in ids] for ids in (predicted, gold)]
        return self.metric.compute(predictions=names[0], references=names[1])


def label_rows(outputs: Any) -> list:
    """Return the label ids of each row in an array, in the outputs of a model, or in a list of these for each batch.

    The outputs are logits, or with a CRF a tuple of logits and Viterbi paths. They reach `compute_metrics` of a
    `Trainer` without `preprocess_logits_for_metrics`, in batches with `eval_do_concat_batches=False`.
    """
    if isinstance(outputs, list):
        return [row for batch in outputs for row in label_rows(batch)]
    if isinstance(outputs, tuple) or np.issubdtype(outputs.dtype, np.floating):
        outputs = best_labels(outputs, outputs)
    return list(outputs)


def _known_ids(rows: Iterable[np.ndarray]) -> np.ndarray:
    """Return the label ids of all rows in one array, without -100."""
    return np.concatenate([row[row != IGNORED] for row in rows])


def bio_labels(labels: Iterable[str]) -> list[str]:
    """Return the BIO tags of the entity types in `labels`, which may be BIO or BIOES, and O."""
    return sorted({f"{prefix}-{label[2:]}" for label in labels if label != "O" for prefix in "BI"} | {"O"})


def visible_tags(text: str, spans: Iterable[Span]) -> list[str]:
    """Return the BIO tags of the characters of `text` that are not white space, for the entities in `spans`."""
    tags = token_tags(text, [(i, i + 1) for i in _visible(text)], spans)
    return [tag or "O" for tag in tags]  # none is None, since each token covers a character


def strict_spans(text: str, tags: Sequence[str]) -> list[Span]:
    """Return the entities in the BIO tags of the characters of `text` that are not white space.

    An entity begins with a B- tag; I- tags that continue no entity are ignored, as in seqeval's strict mode.
    """
    places = _visible(text)
    found = (span for span in spans_from_tags(tags) if tags[span.start].startswith("B"))
    return [Span(places[span.start], places[span.end - 1] + 1, span.label) for span in found]


def _visible(text: str) -> list[int]:
    """Return the places of the characters that are not white space."""
    return [i for i, character in enumerate(text) if not character.isspace()]
