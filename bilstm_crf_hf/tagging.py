"""From sentences with character tags to what `Trainer` takes, and from its predictions back to the characters."""

from collections.abc import Callable, Sequence

import numpy as np
from datasets import Dataset
from seqeval.metrics import f1_score
from transformers import EvalPrediction, PreTrainedTokenizerBase

from .alignment import IGNORED, Span, scheme_of, spans_from_tags, spans_from_token_tags, token_tags
from .corpora import labels_of
from .metrics import TaggingMetric


class EncodedCorpus:
    """Sentences as model inputs, and the sentences to score predictions against.

    Sentences that have more tokens than the limit are split into windows that overlap, and their predictions are put
    together again, so that nothing is cut off. The rows of `inputs` are sorted by length, for batches without padding.

    Args:
        dataset: rows with `text` and character `tags`, see `corpora`.
        tokenizer: any tokenizer with offsets.
        labels: the model's labels in the order of their ids.
        max_length: limit in tokens with special ones; None for the tokenizer's `model_max_length`.
        stride: tokens that neighbouring windows share.

    Attributes:
        inputs: rows of `input_ids`, `attention_mask`, `labels` (-100 on special tokens).
        split_sentences: number of sentences that needed more than one window.

    Raises:
        ValueError: the tokenizer has no offsets; a label of the data set is not among `labels`; the stride leaves no
            room for new tokens.
    """

    def __init__(
        self,
        dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        max_length: int | None = None,
        stride: int = 32,
    ) -> None:
        if not tokenizer.is_fast:
            raise ValueError(f"{type(tokenizer).__name__} gives no offsets into the text: use a fast tokenizer")
        names = labels_of(dataset)
        self.labels = list(labels)
        self.texts: list[str] = list(dataset["text"])
        self.spans = [_trimmed(text, tags, names) for text, tags in zip(self.texts, list(dataset["tags"]), strict=True)]
        if unknown := sorted({f"B-{s.label}" for spans in self.spans for s in spans} - _openings(self.labels)):
            raise ValueError(f"the model has no label for {', '.join(unknown)}; its labels are {', '.join(labels)}")
        limit = max_length or tokenizer.model_max_length
        if stride >= limit - tokenizer.num_special_tokens_to_add():
            raise ValueError(f"a stride of {stride} tokens leaves windows of {limit} no room: lower the stride")
        encoded = tokenizer(
            self.texts,
            truncation=True,
            max_length=min(limit, 2**31 - 1),
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_token_type_ids=False,
        )
        order = sorted(range(len(encoded["input_ids"])), key=lambda i: len(encoded["input_ids"][i]))
        self.sentence_of = [encoded["overflow_to_sample_mapping"][i] for i in order]
        self.offsets = [encoded["offset_mapping"][i] for i in order]
        self.special = [encoded["special_tokens_mask"][i] for i in order]
        self.split_sentences = len(set(_repeated(self.sentence_of)))
        self.inputs = Dataset.from_dict(
            {
                "input_ids": [encoded["input_ids"][i] for i in order],
                "attention_mask": [encoded["attention_mask"][i] for i in order],
                "labels": self._token_labels(),
            }
        )

    def _token_labels(self) -> list[list[int]]:
        ids = {label: i for i, label in enumerate(self.labels)} | {None: IGNORED}
        scheme = scheme_of(self.labels)
        return [
            [ids[tag] for tag in token_tags(self.texts[sentence], offsets, self.spans[sentence], scheme)]
            for sentence, offsets in zip(self.sentence_of, self.offsets, strict=True)
        ]

    def decode(self, predictions: Sequence[Sequence[int]]) -> list[list[Span]]:
        """The predicted entities on the characters of each sentence, in the order of the data set.

        Args:
            predictions: label ids of each row of `inputs`, which may be padded.
        """
        windows: list[list[tuple[int, int, list[Span]]]] = [[] for _ in self.texts]
        for row, sentence in enumerate(self.sentence_of):
            offsets, special = self.offsets[row], self.special[row]
            tags = [None if s or p == IGNORED else self.labels[p] for s, p in zip(special, predictions[row])]
            spans = spans_from_token_tags(self.texts[sentence], offsets, tags)
            covered = [pair for pair, s in zip(offsets, special, strict=True) if not s]
            if covered:
                windows[sentence].append((covered[0][0], covered[-1][1], spans))
        return [_merge_windows(sorted(of_sentence)) for of_sentence in windows]

    def character_tags(self, spans: Sequence[Sequence[Span]]) -> list[list[str]]:
        """BIO tags of the characters of each sentence that are not white space."""
        units = ([(i, i + 1) for i, character in enumerate(text) if not character.isspace()] for text in self.texts)
        return [token_tags(*row) for row in zip(self.texts, units, spans, strict=True)]

    def scorer(self) -> Callable[[EvalPrediction], dict[str, float]]:
        """A `compute_metrics` for predicted label ids: `metrics.TaggingMetric` on characters.

        Beside it, labelled so, stands `token_f1`: seqeval's default F1 on the labels of tokens, which does not see that
        entities begin or end inside tokens.
        """
        metric = TaggingMetric()
        gold = self.character_tags(self.spans)
        labels = sorted({f"{prefix}-{label[2:]}" for label in self.labels if label != "O" for prefix in "BI"} | {"O"})

        def compute(prediction: EvalPrediction) -> dict[str, float]:
            predicted = self.character_tags(self.decode(prediction.predictions))
            scores = metric.compute(predictions=predicted, references=gold, labels=labels)
            gold_ids, predicted_ids = prediction.label_ids, prediction.predictions
            known = (gold_ids != IGNORED) & (predicted_ids != IGNORED)
            rows = [
                [[self.labels[i] for i in row[mask]] for row, mask in zip(ids, known, strict=True)]
                for ids in (gold_ids, predicted_ids)
            ]
            return scores | {"token_f1": float(f1_score(*rows))}

        return compute


def best_labels(outputs: tuple | np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`preprocess_logits_for_metrics`: the best path of a CRF model, the most probable labels of any other."""
    if isinstance(outputs, tuple):
        return outputs[1]
    return outputs.argmax(-1)


def _trimmed(text: str, tags: list[int], names: list[str]) -> list[Span]:
    """The entities in character tags, without white space at their edges (two entities in KLUE-NER begin with some)."""
    spans = []
    for start, end, label in spans_from_tags(names[i] for i in tags):
        content = text[start:end]
        start, end = start + len(content) - len(content.lstrip()), end - len(content) + len(content.rstrip())
        if start < end:
            spans.append(Span(start, end, label))
    return spans


def _openings(labels: Sequence[str]) -> set[str]:
    return {f"B-{label[2:]}" for label in labels if label[:2] in ("B-", "S-")}


def _repeated(items: Sequence[int]) -> list[int]:
    seen: set[int] = set()
    return [item for item in items if item in seen or seen.add(item)]


def _merge_windows(windows: list[tuple[int, int, list[Span]]]) -> list[Span]:
    """Entities from windows (start, end, entities): where two overlap, each speaks up to the middle of the overlap."""
    merged: list[Span] = []
    for i, (start, end, spans) in enumerate(windows):
        low = (start + windows[i - 1][1]) // 2 if i else 0
        high = (windows[i + 1][0] + end) // 2 if i + 1 < len(windows) else end
        for span in spans:
            if low <= span.start < high and (not merged or span.start >= merged[-1].end):
                merged.append(span)
    return merged
