"""Scores of taggers and of text classifiers as `evaluate.Metric`s that need no download."""

from collections.abc import Sequence

import datasets
import evaluate
from seqeval.metrics import accuracy_score, classification_report
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support
from seqeval.scheme import IOB2
from sklearn.metrics import f1_score
from sklearn.metrics import precision_recall_fscore_support as class_scores

_DESCRIPTION = """\
Scores of BIO tags against gold ones.

Give it the tags of the characters of the text, white space left out, and they are comparable with KLUE's; give it the
tags of tokens, and entities that begin or end inside a token count as found (a fifth of those in KLUE-NER under a
WordPiece tokenizer).
"""

_INPUTS = """\
Args:
    predictions: a list of tags a sentence.
    references: likewise, the gold ones.
    labels: the tag set, for the macro average over characters. Default: the tags that occur.

Returns, all between 0 and 1:
    precision, recall, f1: of entities, micro-averaged, in seqeval's strict mode (IOB2): an entity is a B- tag with the
        I- tags behind it, and is right if type and both ends are. An I- tag that continues no entity is no entity.
    default_precision, default_recall, default_f1: in seqeval's default mode, that of conlleval, where such an I- tag
        begins an entity, so that `I-PS I-PS` counts as right against `B-PS I-PS`.
    {TYPE}_precision, {TYPE}_recall, {TYPE}_f1, {TYPE}_number: per type, strict; number of gold entities.
    klue_entity_macro_f1: KLUE's "entity F1", the mean over types of the strict F1, as klue_baseline's
        `klue_ner_entity_macro_f1` computes it.
    klue_char_macro_f1: KLUE's "character F1", the mean over tags (B-PS and I-PS are two) of the F1 of characters, as
        klue_baseline's `klue_ner_char_macro_f1` computes it. Its docstring says "except O tag", but the code counts O
        as one of the tags and gives a tag that occurs on neither side an F1 of 1; so does this one. KLUE-baseline also
        appends [CLS] and [SEP] as two O's to each sentence, and cuts sentences at 128 tokens; this one does not.
    accuracy: of single tags.
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class TaggingMetric(evaluate.Metric):
    """Entity scores with seqeval, strict and default, and KLUE's entity and character F1."""

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="Park et al. (2021): KLUE. Nakayama (2018): seqeval. Ramshaw and Marcus (1995): IOB.",
            inputs_description=_INPUTS,
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
            strict = {f"{name} avg": dict.fromkeys(_REPORT_KEYS, 0.0) for name in ("micro", "macro", "weighted")}
        default = precision_recall_fscore_support(references, predictions, average="micro", zero_division=0)
        averages = {name: strict.pop(f"{name} avg") for name in ("micro", "macro", "weighted")}
        scores = {name: averages["micro"][key] for name, key in _REPORT_NAMES}
        scores |= {f"default_{name}": value for (name, _), value in zip(_REPORT_NAMES, default)}
        for entity_type, row in strict.items():
            scores |= {f"{entity_type}_{name}": row[key] for name, key in _REPORT_NAMES}
            scores[f"{entity_type}_number"] = row["support"]
        gold = [tag for tags in references for tag in tags]
        predicted = [tag for tags in predictions for tag in tags]
        scores["klue_entity_macro_f1"] = averages["macro"]["f1-score"]
        scores["klue_char_macro_f1"] = f1_score(
            gold, predicted, labels=labels or sorted({*gold, *predicted}), average="macro", zero_division=1
        )
        scores["accuracy"] = accuracy_score(references, predictions)
        return {name: float(value) for name, value in scores.items()}


_REPORT_KEYS = ("precision", "recall", "f1-score")
_REPORT_NAMES = list(zip(("precision", "recall", "f1"), _REPORT_KEYS, strict=True))


_CLASS_DESCRIPTION = """\
Accuracy, macro F1, and precision, recall and F1 of each class.
"""

_CLASS_INPUTS = """\
Args:
    predictions: the name of a class a text.
    references: likewise, the gold ones.

Returns, all between 0 and 1:
    accuracy.
    macro_f1: the mean of the F1 of the classes that occur on either side, as scikit-learn's by default.
    {CLASS}_precision, {CLASS}_recall, {CLASS}_f1, {CLASS}_number: per class; number of gold texts.
"""


@evaluate.utils.file_utils.add_start_docstrings(_CLASS_DESCRIPTION, _CLASS_INPUTS)
class ClassificationMetric(evaluate.Metric):
    """Scores of single labels with scikit-learn."""

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_CLASS_DESCRIPTION,
            citation="Pedregosa et al. (2011): Scikit-learn.",
            inputs_description=_CLASS_INPUTS,
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
