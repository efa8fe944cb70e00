"""Batches of encoded sentences."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchEncoding, DataCollatorForTokenClassification

PIECE_COLUMNS = ("piece_ids", "piece_mask")
"""Columns with a number for each piece of an encoder, see `processing_bilstm_crf.piece_inputs`."""

SINGLE_COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "labels", *PIECE_COLUMNS)
"""Columns with one number for each token or piece."""


class TaggingCollator(DataCollatorForTokenClassification):
    """A `DataCollatorForTokenClassification` that also pads the other inputs of a model, with zeros.

    `piece_ids` and `piece_mask` become (B, P). Any other column has one number for each token, or K numbers for each
    token in one flat list; it becomes (B, S) or (B, S, K), padded on the side and to the length of `input_ids`. Rows
    hold lists or arrays; a row without `attention_mask` gets one.
    """

    def torch_call(self, features: list[dict[str, Any]]) -> BatchEncoding:
        """Return the batch of rows.

        Raises:
            ValueError: if rows differ in their columns, or if a column does not have numbers for all tokens.
        """
        _check_rows(features)
        longest = max(len(row["input_ids"]) for row in features)
        if self.padding == "max_length":
            longest = max(longest, self.max_length or 0)
        multiple = self.pad_to_multiple_of or 1
        inside = _prefixes([row["input_ids"] for row in features], -(-longest // multiple) * multiple)
        if self.tokenizer.padding_side == "left":
            inside = inside[:, ::-1]
        fills = {
            "input_ids": self.tokenizer.pad_token_id,
            "token_type_ids": self.tokenizer.pad_token_type_id,
            "labels": self.label_pad_token_id,
        }
        batch = {"attention_mask": inside.astype(np.int64)}
        for name in features[0]:
            rows = [row[name] for row in features]
            places = _prefixes(rows, max(map(len, rows))) if name in PIECE_COLUMNS else inside
            batch[name] = _placed(rows, places, fills.get(name, 0))
        return BatchEncoding({name: torch.from_numpy(values) for name, values in batch.items()})


def _prefixes(rows: Sequence[Any], size: int) -> np.ndarray:
    """Return a mask (B, size) that is true from the beginning of each row on, as often as it has numbers."""
    return np.arange(size) < np.array([len(row) for row in rows])[:, None]


def _placed(rows: Sequence[Any], places: np.ndarray, fill: int) -> np.ndarray:
    """Return the numbers of all rows at the true `places` (B, S), and `fill` elsewhere: (B, S), or (B, S, K)."""
    numbers = np.concatenate([row for row in rows if len(row)] or [[]])  # an empty list would make all numbers floats
    numbers = numbers.astype(np.float32 if numbers.size and numbers.dtype.kind == "f" else np.int64, copy=False)
    if len(numbers) > (count := places.sum()):
        numbers = numbers.reshape(count, -1)
    placed = np.full((*places.shape, *numbers.shape[1:]), fill, numbers.dtype)
    placed[places] = numbers
    return placed


def _check_rows(rows: list[dict[str, Any]]) -> None:
    """Raise the errors of [`TaggingCollator`]; numbers that one row lacks and another has would go to wrong tokens."""
    for i, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            raise ValueError(f"row {i} of the batch has the columns {[*row]}, and row 0 has {[*rows[0]]}")
    for name in rows[0]:
        tokens = "piece_ids" if name in PIECE_COLUMNS else "input_ids"
        sizes = [(len(row[name]), len(row[tokens])) for row in rows]
        single = name in SINGLE_COLUMNS
        per_token = 1 if single else sum(size for size, _ in sizes) / max(1, sum(count for _, count in sizes))
        for i, (size, count) in enumerate(sizes):
            if size != per_token * count:
                raise ValueError(f"row {i} of the batch has {size} {name} for {count} {tokens}: give one for each")
