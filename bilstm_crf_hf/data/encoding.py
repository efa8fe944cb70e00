"""Encoding of sentences with character tags for `Trainer`, and decoding of its predictions to spans of characters."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from .. import __version__
from ..alignment import (
    IGNORED,
    Span,
    character_tags,
    continues_entity,
    scheme_of,
    spans_from_tags,
    spans_from_token_tags,
    token_tags,
    word_offsets,
)
from ..processing_bilstm_crf import (
    BiLSTMCRFProcessor,
    EncodedTexts,
    default_stride,
    labels_words,
    own_tokens,
    usable_positions,
)
from ..sequences import sequence_tokens
from ..token_table import token_table
from ..utils.files import write_atomically
from .ner import contexts_of, labels_of


class EncodedCorpus:
    """Sentences as model inputs, and the gold entities that predictions are compared with.

    A sentence with more tokens than the limit is split into overlapping windows, and its predictions are joined again,
    so that nothing is cut off. The rows of `inputs` are sorted by length, for batches without padding. Encoded rows
    are cached on disk, and read from there when the same sentences are encoded again.

    Texts in the columns `before` and `after` of the data set are read around each sentence. Their tokens have the label
    -100, which is unknown, and predictions leave them out; so does `inputs` the windows that have no other tokens. An
    entity that a prediction begins in the context and continues in the sentence begins with the sentence.

    Args:
        dataset: rows with `text` and character `tags`, and with a context or not, see `data.ner`.
        labels: the model's labels in the order of their ids.
        max_length: limit in tokens, special ones included, see `processing_bilstm_crf.usable_positions`.
        stride: number of tokens that neighbouring windows share. Default: `processing_bilstm_crf.default_stride`.

    Attributes:
        limit: largest number of tokens of a row.
        inputs: rows of all inputs of the model, and of `labels` (-100 on special tokens and those of the context).
        split_sentences: number of sentences that needed more than one window.

    Raises:
        ValueError: if a label of the data set is not among `labels`, or if limit and stride leave no room for new
            tokens.
    """

    def __init__(
        self,
        dataset: Dataset,
        processor: BiLSTMCRFProcessor,
        labels: Sequence[str],
        max_length: int | None = None,
        stride: int | None = None,
    ) -> None:
        self.processor, self.labels = processor, list(labels)
        self.texts: list[str] = list(dataset["text"])
        self._tags: list[list[int]] = list(dataset["tags"])
        self._names = labels_of(dataset)
        contexts = contexts_of(dataset)
        self._read = [f"{before}{text}{after}" for text, (before, after) in zip(self.texts, contexts, strict=True)]
        self._starts = [len(before) for before, _ in contexts]  # of the sentences in the texts that are read
        self.limit = usable_positions(processor.tokenizer, processor.config, max_length)
        self.stride = default_stride(self.limit) if stride is None else stride
        data, settings = (self._read, self._starts, self._tags, self._names), (self.labels, self.limit, self.stride)
        unit = labels_words(processor.config)
        self._rows = cached_rows((data, settings, unit, processor.fingerprint()), self._encode)
        self.inputs = self._rows.remove_columns(["sentence", "offsets", "special"])
        self.split_sentences = sum(windows > 1 for windows in Counter(self._rows["sentence"][:]).values())

    @cached_property
    def spans(self) -> list[list[Span]]:
        """Return the gold entities of each sentence."""
        return [gold_spans(text, tags, self._names) for text, tags in zip(self.texts, self._tags, strict=True)]

    @cached_property
    def _places(self) -> tuple[list[int], list[list[tuple[int, int]]], list[list[int]]]:
        """Return the index of the sentence of each row of `inputs`, the offsets of its tokens and which are special."""
        offsets = [[tuple(pair) for pair in row] for row in self._rows["offsets"]]
        return self._rows["sentence"][:], offsets, self._rows["special"][:]

    def _encode(self) -> dict[str, list]:
        """Return the columns of all rows, in order of length."""
        encoded = self.processor(self._read, max_length=self.limit, stride=self.stride)
        within = list(map(self._within, encoded.text_ids, encoded.offsets))
        columns: dict[str, list] = encoded.inputs | {
            "labels": self._token_labels(encoded, within),
            "sentence": encoded.text_ids,
            "offsets": encoded.offsets,
            "special": encoded.special_tokens_mask,
        }
        rows = [
            i
            for i, (sentence, ranges) in enumerate(zip(encoded.text_ids, within, strict=True))
            if not self._has_context(sentence) or any(start < end for start, end in ranges)
        ]
        order = sorted(rows, key=lambda i: len(columns["input_ids"][i]))
        return {name: [column[i] for i in order] for name, column in columns.items()}

    def _has_context(self, sentence: int) -> bool:
        return len(self._read[sentence]) > len(self.texts[sentence])

    def _within(self, sentence: int, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the places in a sentence of tokens of the text that is read; they are empty in its context."""
        if not self._has_context(sentence):
            return list(offsets)
        first, length = self._starts[sentence], len(self.texts[sentence])
        places = [(max(start - first, 0), min(end - first, length)) for start, end in offsets]
        return [(start, end) if start < end else (0, 0) for start, end in places]

    def _own_tokens(
        self, sentence: int, offsets: list[tuple[int, int]], tags: list[str | None]
    ) -> tuple[list[tuple[int, int]], list[str | None]]:
        """Return the places and the tags of the tokens in a sentence, from those in the text that is read."""
        places = self._within(sentence, offsets)
        if not self._has_context(sentence):
            return places, tags
        own = [i for i, (start, end) in enumerate(places) if start < end]
        own_tags = [tags[i] for i in own]
        before, tag = (tags[own[0] - 1], tags[own[0]]) if own and own[0] else (None, None)
        if before and tag and continues_entity(before, tag):  # the entity begins in the context
            own_tags[0] = f"{'B' if tag[0] == 'I' else 'S'}{tag[1:]}"
        return [places[i] for i in own], own_tags

    def _token_labels(self, encoded: EncodedTexts, offsets: list[list[tuple[int, int]]]) -> list[list[int]]:
        """Return the label ids of the tokens of each row, given their places; those of words are at first tokens."""
        if labels_words(self.processor.config):
            offsets = offsets_of_words(self.processor.tokenizer, encoded.inputs["input_ids"], offsets)
        ids: dict[str | None, int] = {label: i for i, label in enumerate(self.labels)}
        ids[None] = IGNORED
        scheme = scheme_of(self.labels)
        rows = [
            token_tags(self.texts[sentence], pairs, self.spans[sentence], scheme)
            for sentence, pairs in zip(encoded.text_ids, offsets, strict=True)
        ]
        if unknown := {str(tag) for tags in rows for tag in tags if tag not in ids}:
            problem = f"the model has no label for {', '.join(sorted(unknown))}"
            raise ValueError(f"{problem}; its labels are {', '.join(self.labels)}")
        return [[ids[tag] for tag in tags] for tags in rows]

    def _tokens(self, predictions: Sequence[Sequence[int]]) -> list[tuple[list[tuple[int, int]], list[str | None]]]:
        """Return the offsets and the predicted tags of the tokens of each sentence, its windows joined."""
        windows: list[list[list[tuple[tuple[int, int], str | None]]]] = [[] for _ in self.texts]
        for sentence, pairs, special, row in zip(*self._places, predictions):
            of_row = (None if label == IGNORED else self.labels[label] for label in row)
            window = [(pair, tag) for pair, is_special, tag in zip(pairs, special, of_row) if not is_special]
            windows[sentence].append(window)
        joined: list[tuple[list[tuple[int, int]], list[str | None]]] = []
        for of_sentence in windows:
            of_sentence.sort(key=lambda window: [pair for pair, _ in window])
            last = len(of_sentence) - 1
            parts = [
                window[own_tokens(len(window), self.stride, i == 0, i == last)] for i, window in enumerate(of_sentence)
            ]
            tokens = list(chain.from_iterable(parts))
            offsets, tags = [pair for pair, _ in tokens], [tag for _, tag in tokens]
            joined.append(self._own_tokens(len(joined), offsets, tags))
        return joined

    def decode(self, predictions: Sequence[Sequence[int]]) -> list[list[Span]]:
        """Return the entities in the label ids of each row of `inputs`, as spans of characters of each sentence."""
        tokens = self._tokens(predictions)
        return [spans_from_token_tags(text, *row) for text, row in zip(self.texts, tokens, strict=True)]

    def predicted_tags(self, predictions: Sequence[Sequence[int]]) -> list[list[str]]:
        """Return the predicted BIO tags of the characters of each sentence, white space left out."""
        rows = zip(self.texts, self._tokens(predictions), strict=True)
        tags = ((text, character_tags(text, *tokens)) for text, tokens in rows)
        return [[tag for tag, c in zip(row, text, strict=True) if not c.isspace()] for text, row in tags]


def offsets_of_words(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]], offsets: Sequence[Sequence[tuple[int, int]]]
) -> list[list[tuple[int, int]]]:
    """Return the range of each word of `rows` of token ids at its first token, and empty ranges at all others.

    The words are those of `words.WordSequences`: special tokens within a text separate them.
    """
    is_start = token_table(tokenizer, ["word_start"])[:, 0].bool().tolist()
    special: Any = sequence_tokens(tokenizer)["special_token_ids"]
    ranges = []
    for ids, of_row in zip(rows, offsets, strict=True):
        own = [i not in special for i in ids]
        places = [pair if is_own else (0, 0) for pair, is_own in zip(of_row, own)]
        starts = [is_start[i] or not follows for i, follows in zip(ids, [False, *own])]
        ranges.append(word_offsets(places, starts))
    return ranges


def best_labels(outputs: tuple | np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the Viterbi path of a CRF model, or the most probable labels of another one, for `Trainer`'s metrics."""
    return outputs[1] if isinstance(outputs, tuple) else outputs.argmax(-1)


def gold_spans(text: str, tags: Sequence[int], names: Sequence[str]) -> list[Span]:
    """Return the entities in character tags, without white space at their edges (two of KLUE-NER begin with some)."""
    spans = []
    for start, end, label in spans_from_tags(names[i] for i in tags):
        content = text[start:end]
        start, end = start + len(content) - len(content.lstrip()), end - len(content) + len(content.rstrip())
        if start < end:
            spans.append(Span(start, end, label))
    return spans


def cached_rows(content: Any, encode: Callable[[], dict[str, list]]) -> Dataset:
    """Return the columns that `encode` computes, from the cache of `datasets` if there are any for `content`."""
    folder = Path(datasets.config.HF_DATASETS_CACHE, "bilstm_crf_hf")
    file = folder / f"{Hasher.hash((__version__, content))}.arrow"
    if not (datasets.is_caching_enabled() and file.exists()):
        table = Dataset.from_dict(encode()).data.table
        folder.mkdir(parents=True, exist_ok=True)
        with write_atomically(file) as target, pa.ipc.new_stream(target, table.schema) as stream:
            stream.write_table(table)
    return Dataset.from_file(str(file))
