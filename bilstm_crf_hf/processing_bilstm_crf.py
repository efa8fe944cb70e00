"""Processing of texts into the inputs of the models. This file is copied into exported model repositories.

Training and inference call [`BiLSTMCRFProcessor`]. A further input of each token is one row of [`TEXT_INPUTS`].
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from .morphemes import installed_kiwi_version, morpheme_ids
from .threads import lock_of_process

if TYPE_CHECKING:  # beside an ONNX graph, this file runs without transformers
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Offsets = Sequence[tuple[int, int]]
"""Characters `[start, end)` of each token."""

UNLIMITED = 2**31 - 1
"""The largest `max_length` that tokenizers accept, which no text reaches."""

STRIDE = 32
"""Number of tokens that neighbouring windows of a text share by default."""

COUNTING_FROM_PADDING = {
    *("camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "markuplm", "mpnet", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
}
"""Types of encoders whose first position is `pad_token_id + 1`, so that 514 positions hold 512 tokens."""


def usable_positions(
    tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig | None, max_length: int | None = None
) -> int:
    """Return the number of tokens, special ones included, that a model reads at a time.

    Args:
        tokenizer: the tokenizer of the model, or of its encoder.
        config: configuration of the model. A BiLSTM and encoders with relative positions set no limit.
        max_length: a limit to use instead of `model_max_length` of the tokenizer. The positions limit both. A tagger of
            words has no limit, so that no word is cut in two.

    Raises:
        ValueError: if there is no room for a token of the text beside the special ones, or for a limit of words.
    """
    if labels_words(config):
        if max_length not in (None, UNLIMITED):
            raise ValueError(
                f"a limit of {max_length} tokens would cut words in two: leave out max_length (in commands "
                '--max_seq_length) for a model with unit "words", which reads sentences of any length'
            )
        return UNLIMITED
    encoder: Any = getattr(config, "encoder_config", config)
    positions = getattr(encoder, "max_position_embeddings", None)
    if positions is None or positions < 0:  # -1: XLNet
        positions = UNLIMITED
    elif encoder.model_type in COUNTING_FROM_PADDING:
        positions -= encoder.pad_token_id + 1
    limit = min(tokenizer.model_max_length if max_length is None else max_length, positions, UNLIMITED)
    special = tokenizer.num_special_tokens_to_add()
    if limit <= special:
        raise ValueError(
            f"a limit of {limit} tokens leaves no room for a text beside {special} special tokens: set max_length (in "
            f"commands --max_seq_length) or the tokenizer's model_max_length to {special + 1} or more"
        )
    return limit


def labels_words(config: PreTrainedConfig | None) -> bool:
    """Return whether the model labels words, which several tokens make up."""
    return getattr(config, "unit", None) == "words"


def default_stride(limit: int) -> int:
    """Return the number of tokens that windows of `limit` tokens share if the caller names none."""
    return max(1, min(STRIDE, limit // 4))


def own_tokens(length: int, stride: int, is_first: bool, is_last: bool) -> slice:
    """Return the tokens of a window that speak for the text, of its `length` tokens without special ones.

    For each half of the tokens that two windows share, the window counts whose edge is farther away.
    """
    return slice(0 if is_first else stride - stride // 2, length if is_last else length - stride // 2)


def check_text(text: str, name: str) -> None:
    """Raise ValueError with `name` if a string holds a half of a surrogate pair, which is no character of Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name}: character {error.start} is {text[error.start]!a}, half of a surrogate pair: remove it, or read "
            "the text with the right encoding"
        ) from None


def check_is_text(text: Any, name: str) -> None:
    """Raise ValueError with `name` if `text` is no text."""
    if not isinstance(text, str):
        remedy = " (of the rows of a data set, pass the column of the texts)" if isinstance(text, Mapping) else ""
        raise ValueError(f"{name} is {text!r:.80}, and not a string{remedy}")
    check_text(text, name)


def check_are_words(words: Any, name: str) -> None:
    """Raise ValueError with `name` if `words` are no words of a text."""
    if not isinstance(words, (list, tuple)):
        raise ValueError(f"{name} is {words!r:.80}, and not a list of words, which is_split_into_words calls for")
    for i, word in enumerate(words):
        check_is_text(word, f"{name}, word {i}")


def check_batches(batch_size: Any, num_workers: Any) -> None:
    """Raise ValueError unless a batch has a text or more, and the number of threads is None or 0 or more."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}: set it to an integer from 1 on")
    if num_workers is not None and (not isinstance(num_workers, int) or num_workers < 0):
        raise ValueError(f"num_workers is {num_workers!r}: set it to an integer from 0 on")


class TextInput(NamedTuple):
    """An input of each token that follows from the text."""

    field: str
    """Field of the configuration that is true if the model reads the input."""
    library: str
    """Name of the package that computes it."""
    installed: Callable[[], str | None]
    """Function that returns the version of the library, on which the input depends, or None if it is missing."""
    compute: Callable[[Sequence[str], Sequence[Offsets]], list[list[int]]]
    """Function of texts and of the offsets of their tokens, which returns one integer for each token."""


TEXT_INPUTS = {"morpheme_ids": TextInput("read_morphemes", "kiwipiepy", installed_kiwi_version, morpheme_ids)}
"""The inputs that follow from the text, by their names in `forward`; `InputFeatures` reads them."""


@dataclass
class EncodedTexts:
    """Windows of texts, a row each. A text that is not split has one window."""

    inputs: dict[str, list[list[int]]]
    """Columns of model inputs."""
    texts: list[str]
    """The texts, words joined."""
    text_ids: list[int]
    """Index of the text of each window; the windows of a text stand side by side."""
    offsets: list[list[tuple[int, int]]]
    """Characters `[start, end)` in the text of each token; (0, 0) of special tokens."""
    special_tokens_mask: list[list[int]]
    stride: int | None
    """Number of tokens that neighbouring windows of a text share; None if each text has one window."""


class BiLSTMCRFProcessor:
    """The way from texts to all inputs of a model.

    Args:
        tokenizer: any tokenizer with offsets.
        config: configuration of the model, which says what the model reads. Default: nothing but tokens.
        piece_tokenizer: tokenizer of the encoder of a `CharacterEncoderForTokenClassification`.
        strict: whether an input that cannot be computed here is an error, and not only a warning.

    Raises:
        ImportError: if an input needs a library that is missing.
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
        self.tokenizer, self.config, self.piece_tokenizer = tokenizer, config, piece_tokenizer
        self.text_inputs: dict[str, str] = {}  # the inputs that are computed, with their libraries and versions
        for name, (field, library, installed, _) in TEXT_INPUTS.items():
            if not getattr(config, field, False):
                continue
            if version := installed():
                self.text_inputs[name] = f"{library} {version}"
                continue
            if strict:
                raise ImportError(f"{name} need {library}: pip install {library}")
            logger.warning("The model reads %s: pip install %s. Without them it tags less well.", name, library)

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
            texts: strings, or lists of words if `is_split_into_words`. `delimiter` joins these to the text that is
                tokenized, as in the training, and that offsets refer to.
            max_length: limit in tokens, special ones included, see [`usable_positions`].
            stride: number of tokens that neighbouring windows of a longer text share. Default: the text is cut off.
            padding: whether rows are padded to the longest.

        Raises:
            ValueError: if windows of this limit and stride bring no new token, or if the encoder of a
                `CharacterEncoderForTokenClassification` has no positions for all pieces of a row.
        """
        limit = usable_positions(self.tokenizer, self.config, max_length)
        room = limit - self.tokenizer.num_special_tokens_to_add()
        if stride is not None and not 1 <= stride < room:  # a window alone cannot tell whether an entity begins with it
            raise ValueError(
                f"stride is {stride}: windows of {limit} tokens, {limit - room} of them special, can share 1 to "
                f"{room - 1} tokens: set it to one of these numbers, or the limit to more"
            )
        contents: list[Any] = [delimiter.join(text) if is_split_into_words else text for text in texts]
        with lock_of_process("tokenizer"):  # its padding is a state, which threads must not change side by side
            encoded = self.tokenizer(
                contents,
                truncation=True,
                max_length=limit,
                stride=stride or 0,
                return_overflowing_tokens=stride is not None,
                padding=padding,
                return_attention_mask=True,
                return_token_type_ids=False,
                return_offsets_mapping=True,
                return_special_tokens_mask=True,
            )
        text_ids = encoded.get("overflow_to_sample_mapping", list(range(len(contents))))
        offsets = encoded["offset_mapping"]
        windows = [contents[i] for i in text_ids]
        inputs = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
        for name in self.text_inputs:
            inputs[name] = TEXT_INPUTS[name].compute(windows, offsets)
        if self.piece_tokenizer is not None:
            inputs |= piece_inputs(windows, offsets, self.piece_tokenizer, self.config)
        return EncodedTexts(inputs, contents, text_ids, offsets, encoded["special_tokens_mask"], stride)

    def fingerprint(self) -> tuple:
        """Return all that the inputs depend on beside the texts, for the keys of caches."""
        tokenizers = (each and each.backend_tokenizer.to_str() for each in (self.tokenizer, self.piece_tokenizer))
        return (*tokenizers, sorted(self.text_inputs.items()))


def piece_inputs(
    texts: Sequence[str],
    offsets: Sequence[Offsets],
    piece_tokenizer: PreTrainedTokenizerBase,
    config: PreTrainedConfig | None = None,
) -> dict[str, list[list[int]]]:
    """Return what `CharacterEncoderForTokenClassification` reads beside characters, whose `offsets` are given.

    `config` is that of the model, for the number of positions of its encoder.

    Returns:
        `piece_ids` and `piece_mask`, a number for each piece of the part of the text that the characters cover, and
        `piece_index`, for each character the index of the piece that covers it, or of the last piece before it if none
        does.

    Raises:
        ValueError: if a part has more pieces than the encoder has positions.
    """
    positions = usable_positions(piece_tokenizer, config)
    bounds = [_covered_part(*row) for row in zip(texts, offsets, strict=True)]
    parts = [text[start:end] for text, (start, end) in zip(texts, bounds, strict=True)]
    encoded = piece_tokenizer(parts, return_offsets_mapping=True, verbose=False)
    index = []
    for part, (first, _), of_pieces, of_characters in zip(parts, bounds, encoded["offset_mapping"], offsets):
        if len(of_pieces) > positions:
            raise ValueError(
                f"{part[:20]!r}...: {len(of_pieces)} pieces for {len(of_characters)} characters, and the encoder reads "
                f"{positions}: set max_length (in commands --max_seq_length) to {len(of_characters) // 2} or less"
            )
        covering = [0] * (len(part) + 1)
        for piece, (start, end) in enumerate(of_pieces):
            covering[start:end] = [piece] * (end - start)
        covering = list(accumulate(covering, max))  # pieces stand in order: a gap takes the last piece before it
        index.append([covering[max(0, start - first)] for start, _ in of_characters])
    return {"piece_ids": encoded["input_ids"], "piece_mask": encoded["attention_mask"], "piece_index": index}


def _covered_part(text: str, offsets: Offsets) -> tuple[int, int]:
    """Return the range of `text` that tokens cover, with the white space around them if nothing else is left out."""
    start = min((start for start, end in offsets if start < end), default=0)
    end = max((end for _, end in offsets), default=0)
    return start if text[:start].strip() else 0, end if text[end:].strip() else len(text)
