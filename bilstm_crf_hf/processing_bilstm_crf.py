"""Processing of texts into the inputs of the models. This file is copied into exported model repositories.

Training and inference call [`BiLSTMCRFProcessor`]. A further input of each token is one row of [`TEXT_INPUTS`].
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from .morphemes import missing_kiwi, morpheme_ids

logger = logging.getLogger(__name__)

Offsets = Sequence[tuple[int, int]]
"""Characters `[start, end)` of each token."""

UNLIMITED = 2**31 - 1
"""The largest `max_length` that tokenizers accept, which no text reaches."""


class TextInput(NamedTuple):
    """An input of each token that follows from the text."""

    field: str
    """Field of the configuration that is not None if the model reads the input."""
    missing: Callable[[str], str | None]
    """Function of this field, which returns why the input cannot be computed here, or None if it can."""
    compute: Callable[[Sequence[str], Sequence[Offsets]], list[list[int]]]
    """Function of texts and of the offsets of their tokens, which returns one integer for each token."""


TEXT_INPUTS = {"morpheme_ids": TextInput("kiwi_version", missing_kiwi, morpheme_ids)}
"""The inputs that follow from the text, by their names in `forward`; `InputFeatures` reads them."""


@dataclass
class EncodedTexts:
    """Windows of texts, a row each. A text that is not split has one window."""

    inputs: dict[str, list[list[int]]]
    """Columns of model inputs."""
    text_ids: list[int]
    """Index of the text of each window."""
    offsets: list[list[tuple[int, int]]]
    """Characters `[start, end)` in the text of each token; (0, 0) of special tokens."""
    special_tokens_mask: list[list[int]]


class BiLSTMCRFProcessor:
    """The way from texts to all inputs of a model.

    Args:
        tokenizer: any tokenizer with offsets.
        config: configuration of the model, which says what the model reads. Default: nothing but tokens.
        piece_tokenizer: tokenizer of the encoder of a `CharacterEncoderForTokenClassification`.
        strict: whether an input that cannot be computed here is an error, and not only a warning.

    Raises:
        ImportError: if an input needs a library that is missing, or another version of it.
        ValueError: if the tokenizer gives no offsets.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: PreTrainedConfig | None = None,
        piece_tokenizer: PreTrainedTokenizerBase | None = None,
        strict: bool = True,
    ) -> None:
        for each in (tokenizer, piece_tokenizer):
            if each is not None and not each.is_fast:
                raise ValueError(f"{type(each).__name__} gives no offsets into the text: use a fast tokenizer")
        self.tokenizer, self.piece_tokenizer = tokenizer, piece_tokenizer
        self.text_inputs: dict[str, str] = {}  # names of the inputs that are computed, with the fields' values
        for name, (field, missing, _) in TEXT_INPUTS.items():
            if (value := getattr(config, field, None)) is None:
                continue
            if (reason := missing(value)) is None:
                self.text_inputs[name] = value
            elif strict:
                raise ImportError(reason)
            else:
                logger.warning("%s. Without %s the model tags less well.", reason, name)

    def __call__(
        self,
        texts: Sequence[str] | Sequence[Sequence[str]],
        max_length: int | None = None,
        stride: int | None = None,
        padding: bool = False,
        is_split_into_words: bool = False,
        delimiter: str = " ",
    ) -> EncodedTexts:
        """Encode texts.

        Args:
            texts: strings, or lists of words if `is_split_into_words`; `delimiter` joins these to the text that offsets
                refer to.
            max_length: limit in tokens, special ones included. Default: `model_max_length` of the tokenizer.
            stride: number of tokens that neighbouring windows of a longer text share. Default: the text is cut off.
            padding: whether rows are padded to the longest.
        """
        encoded = self.tokenizer(
            list(texts),
            is_split_into_words=is_split_into_words,
            truncation=True,
            max_length=min(max_length or self.tokenizer.model_max_length, UNLIMITED),
            stride=stride or 0,
            return_overflowing_tokens=stride is not None,
            padding=padding,
            return_attention_mask=True,
            return_token_type_ids=False,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        text_ids = encoded.get("overflow_to_sample_mapping", list(range(len(texts))))
        offsets = encoded["offset_mapping"]
        windows: list[Any] = [texts[i] for i in text_ids]
        if is_split_into_words:
            for i, words in enumerate(windows):
                starts = list(accumulate((len(word) + len(delimiter) for word in words), initial=0))
                offsets[i] = [
                    (start, end) if word is None else (starts[word] + start, starts[word] + end)
                    for (start, end), word in zip(offsets[i], encoded.word_ids(i), strict=True)
                ]
            windows = [delimiter.join(words) for words in windows]
        inputs = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
        for name in self.text_inputs:
            inputs[name] = TEXT_INPUTS[name].compute(windows, offsets)
        if self.piece_tokenizer is not None:
            inputs |= piece_inputs(windows, offsets, self.piece_tokenizer)
        return EncodedTexts(inputs, text_ids, offsets, encoded["special_tokens_mask"])

    def fingerprint(self) -> tuple:
        """Return all that the inputs depend on beside the texts, for the keys of caches."""
        tokenizers = (each and each.backend_tokenizer.to_str() for each in (self.tokenizer, self.piece_tokenizer))
        return (*tokenizers, sorted(self.text_inputs.items()))


def piece_inputs(
    texts: Sequence[str], offsets: Sequence[Offsets], piece_tokenizer: PreTrainedTokenizerBase
) -> dict[str, list[list[int]]]:
    """Return what `CharacterEncoderForTokenClassification` reads beside characters, whose `offsets` are given.

    Returns:
        `piece_ids` and `piece_mask`, a number for each piece, and `piece_index`, for each character the index of the
        piece that covers it, or of the last piece before it if none does.
    """
    encoded = piece_tokenizer(list(texts), truncation=True, return_offsets_mapping=True)
    index = []
    for text, of_pieces, of_characters in zip(texts, encoded["offset_mapping"], offsets, strict=True):
        covering = [0] * (len(text) + 1)
        for piece, (start, end) in enumerate(of_pieces):
            covering[start:end] = [piece] * (end - start)
        covering = list(accumulate(covering, max))  # pieces stand in order: a gap takes the last piece before it
        index.append([covering[start] for start, _ in of_characters])
    return {"piece_ids": encoded["input_ids"], "piece_mask": encoded["attention_mask"], "piece_index": index}
