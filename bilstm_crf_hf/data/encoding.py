"""From sentences with character tags to what `Trainer` takes, and from its predictions back to the characters."""

import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
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
    scheme_of,
    spans_from_tags,
    spans_from_token_tags,
    token_tags,
)
from .collation import more_columns
from .ner import labels_of

PIECES = "pieces"
"""Folder, in that of a tagger of characters with an encoder, of the encoder's tokenizer."""

UNLIMITED = 2**31 - 1
"""A limit in tokens that no text reaches, and that tokenizers can count to."""


class EncodedCorpus:
    """Sentences as model inputs, and the sentences to score predictions against.

    Sentences that have more tokens than the limit are split into windows that overlap, and their predictions are put
    together again, so that nothing is cut off. The rows of `inputs` are sorted by length, for batches without padding.
    Encoded rows are kept in the cache of `datasets`, and read from there when the same sentences come again.

    Args:
        dataset: rows with `text` and character `tags`, see `corpora`.
        tokenizer: any tokenizer with offsets.
        labels: the model's labels in the order of their ids.
        max_length: limit in tokens with special ones; None for the tokenizer's `model_max_length`.
        stride: tokens that neighbouring windows share.
        pieces: tokenizer of the encoder beside a tagger of characters, see `piece_columns`.
        morphemes: the version of Kiwi's model that the tagger reads, see `BiLSTMCRFConfig`.

    Attributes:
        inputs: rows of `input_ids`, `attention_mask`, `labels` (-100 on special tokens), those of `piece_columns`, and
            `morpheme_ids`.
        split_sentences: number of sentences that needed more than one window.

    Raises:
        ImportError: there are `morphemes`, and Kiwi is missing or another one.
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
        pieces: PreTrainedTokenizerBase | None = None,
        morphemes: str | None = None,
    ) -> None:
        if not tokenizer.is_fast:
            raise ValueError(f"{type(tokenizer).__name__} gives no offsets into the text: use a fast tokenizer")
        self.labels = list(labels)
        self.stride, self.pieces, self.morphemes = stride, pieces, morphemes
        self.texts: list[str] = list(dataset["text"])
        self._tags: list[list[int]] = list(dataset["tags"])
        self._names = labels_of(dataset)
        limit = min(max_length or tokenizer.model_max_length, UNLIMITED)
        if stride >= limit - tokenizer.num_special_tokens_to_add():
            raise ValueError(f"a stride of {stride} tokens leaves windows of {limit} no room: lower the stride")
        content = (
            self.texts,
            self._tags,
            self._names,
            self.labels,
            tokenizer.backend_tokenizer.to_str(),
            limit,
            stride,
            pieces and pieces.backend_tokenizer.to_str(),
            morphemes,
        )
        self._rows = cached_rows(content, lambda: self._encode(tokenizer, limit))
        self.inputs = self._rows.remove_columns(["sentence", "offsets", "special"])
        self.split_sentences = len(set(_repeated(self._rows["sentence"][:])))

    @cached_property
    def spans(self) -> list[list[Span]]:
        """The gold entities of each sentence."""
        return [gold_spans(text, tags, self._names) for text, tags in zip(self.texts, self._tags, strict=True)]

    @cached_property
    def _places(self) -> tuple[list[int], list[list[tuple[int, int]]], list[list[int]]]:
        """Of each row of `inputs` its sentence, and of its tokens the offsets and whether they are special."""
        offsets = [[tuple(pair) for pair in row] for row in self._rows["offsets"]]
        return self._rows["sentence"][:], offsets, self._rows["special"][:]

    def _encode(self, tokenizer: PreTrainedTokenizerBase, limit: int) -> dict[str, list]:
        encoded = tokenizer(
            self.texts,
            truncation=True,
            max_length=limit,
            stride=self.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_token_type_ids=False,
        )
        sentences, offsets = encoded["overflow_to_sample_mapping"], encoded["offset_mapping"]
        columns = {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "labels": self._token_labels(sentences, offsets),
            "sentence": sentences,
            "offsets": offsets,
            "special": encoded["special_tokens_mask"],
        }
        columns |= more_columns([self.texts[i] for i in sentences], offsets, self.pieces, self.morphemes)
        order = sorted(range(len(sentences)), key=lambda i: len(encoded["input_ids"][i]))
        return {name: [column[i] for i in order] for name, column in columns.items()}

    def _token_labels(self, sentences: list[int], offsets: list[list[tuple[int, int]]]) -> list[list[int]]:
        ids = {label: i for i, label in enumerate(self.labels)} | {None: IGNORED}
        scheme = scheme_of(self.labels)
        rows = [
            token_tags(self.texts[sentence], pairs, self.spans[sentence], scheme)
            for sentence, pairs in zip(sentences, offsets, strict=True)
        ]
        if unknown := {tag for tags in rows for tag in tags} - set(ids):
            raise ValueError(
                f"the model has no label for {', '.join(sorted(unknown))}; its labels are {', '.join(self.labels)}"
            )
        return [[ids[tag] for tag in tags] for tags in rows]

    def _tokens(self, predictions: Sequence[Sequence[int]]) -> list[tuple[list[tuple[int, int]], list[str | None]]]:
        """Offsets and predicted tags of the tokens of each sentence, its windows put together.

        Of the tokens that two windows share, each speaks for the half that is farther from its edge.
        """
        windows: list[list[list[tuple[tuple[int, int], str | None]]]] = [[] for _ in self.texts]
        for sentence, offsets, special, row in zip(*self._places, predictions):
            tags = (None if label == IGNORED else self.labels[label] for label in row)
            window = [(pair, tag) for pair, is_special, tag in zip(offsets, special, tags) if not is_special]
            windows[sentence].append(window)
        joined = []
        for of_sentence in windows:
            of_sentence.sort(key=lambda window: [pair for pair, _ in window])
            tokens = of_sentence[0]
            for window in of_sentence[1:]:
                tokens = tokens[: len(tokens) - self.stride // 2] + window[self.stride - self.stride // 2 :]
            joined.append(([pair for pair, _ in tokens], [tag for _, tag in tokens]))
        return joined

    def decode(self, predictions: Sequence[Sequence[int]]) -> list[list[Span]]:
        """The predicted entities on the characters of each sentence, in the order of the data set.

        Args:
            predictions: label ids of each row of `inputs`, which may be padded.
        """
        tokens = self._tokens(predictions)
        return [spans_from_token_tags(text, *row) for text, row in zip(self.texts, tokens, strict=True)]

    def predicted_tags(self, predictions: Sequence[Sequence[int]]) -> list[list[str]]:
        """The predicted BIO tags of the characters of each sentence that are not white space."""
        rows = zip(self.texts, self._tokens(predictions), strict=True)
        tags = ((text, character_tags(text, *tokens)) for text, tokens in rows)
        return [[tag for tag, c in zip(row, text, strict=True) if not c.isspace()] for text, row in tags]

    @cached_property
    def gold_tags(self) -> list[list[str]]:
        """The BIO tags of the characters of each sentence that are not white space."""
        units = ([(i, i + 1) for i, character in enumerate(text) if not character.isspace()] for text in self.texts)
        return [token_tags(*row) for row in zip(self.texts, units, self.spans, strict=True)]


def best_labels(outputs: tuple | np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`preprocess_logits_for_metrics`: the best path of a CRF model, the most probable labels of any other."""
    if isinstance(outputs, tuple):
        return outputs[1]
    return outputs.argmax(-1)


def gold_spans(text: str, tags: Sequence[int], names: Sequence[str]) -> list[Span]:
    """The entities in character tags, without white space at their edges (two entities in KLUE-NER begin with some)."""
    spans = []
    for start, end, label in spans_from_tags(names[i] for i in tags):
        content = text[start:end]
        start, end = start + len(content) - len(content.lstrip()), end - len(content) + len(content.rstrip())
        if start < end:
            spans.append(Span(start, end, label))
    return spans


def cached_rows(content: Any, encode: Callable[[], dict[str, list]]) -> Dataset:
    """The columns that `encode` makes of `content`, from the cache of `datasets` if they have been made before."""
    folder = Path(datasets.config.HF_DATASETS_CACHE, "bilstm_crf_hf")
    file = folder / f"{Hasher.hash((__version__, content))}.arrow"
    if not (datasets.is_caching_enabled() and file.exists()):
        table = Dataset.from_dict(encode()).data.table
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            part = Path(unfinished, file.name)
            with pa.ipc.new_stream(str(part), table.schema) as stream:
                stream.write_table(table)
            part.replace(file)
    return Dataset.from_file(str(file))


def _repeated(items: Sequence[int]) -> list[int]:
    seen: set[int] = set()
    return [item for item in items if item in seen or seen.add(item)]
