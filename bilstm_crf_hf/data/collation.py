"""What taggers read beside the ids of tokens, as columns of rows and in batches."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DataCollatorForTokenClassification, PreTrainedTokenizerBase

from ..morphemes import check_version, morpheme_ids

TOKENIZER_COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "labels")
PIECE_COLUMNS = ("piece_ids", "piece_mask")


def more_columns(
    texts: Sequence[str],
    offsets: Sequence[Sequence[tuple[int, int]]],
    pieces: PreTrainedTokenizerBase | None,
    morphemes: str | None,
) -> dict[str, list[list[int]]]:
    """What a tagger reads beside `input_ids`: [`piece_columns`] and `morpheme_ids`, if it does.

    Raises:
        ImportError: there are `morphemes`, and Kiwi is missing or another one.
    """
    columns = {} if pieces is None else piece_columns(texts, offsets, pieces)
    if morphemes is not None:
        check_version(morphemes)
        columns["morpheme_ids"] = morpheme_ids(texts, offsets)
    return columns


def piece_columns(
    texts: Sequence[str], offsets: Sequence[Sequence[tuple[int, int]]], pieces: PreTrainedTokenizerBase
) -> dict[str, list[list[int]]]:
    """What `CharacterEncoderForTokenClassification` reads beside characters: `piece_ids` with their `piece_mask`, and
    `piece_index`, for each character the piece that covers it.

    Args:
        offsets: of the characters of each text.
        pieces: the encoder's tokenizer, with offsets.
    """
    encoded = pieces(list(texts), truncation=True, return_offsets_mapping=True)
    index = []
    for text, of_pieces, of_characters in zip(texts, encoded["offset_mapping"], offsets, strict=True):
        covering, last = [], 0
        starts = {i: piece for piece, (start, end) in enumerate(of_pieces) for i in range(start, end)}
        for i in range(len(text) + 1):  # where none does, the one before
            last = starts.get(i, last)
            covering.append(last)
        index.append([covering[start] for start, _ in of_characters])
    return {"piece_ids": encoded["input_ids"], "piece_mask": encoded["attention_mask"], "piece_index": index}


class TaggingCollator(DataCollatorForTokenClassification):
    """Also pads what a row has beside the columns of a tokenizer and `labels`, with zeros.

    `piece_ids` and `piece_mask` become (B, P). Any other column has a number for each token, or K numbers one after the
    other, and becomes (B, S) or (B, S, K), padded on the side and to the length of `input_ids`.
    """

    def torch_call(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        more = [name for name in features[0] if name not in TOKENIZER_COLUMNS]
        batch = super().torch_call([{name: row[name] for name in row if name not in more} for row in features])
        inside = batch["attention_mask"].bool()
        count = int(inside.sum())
        for name in more:
            rows = [torch.as_tensor(row[name], dtype=None if len(row[name]) else torch.long) for row in features]
            if name in PIECE_COLUMNS:
                batch[name] = pad_sequence(rows, batch_first=True)
            else:
                tokens = torch.cat(rows)
                if len(tokens) > count:
                    tokens = tokens.view(count, -1)
                batch[name] = tokens.new_zeros(*inside.shape, *tokens.shape[1:])
                batch[name][inside] = tokens
        return batch
