"""Batches of encoded sentences."""

from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DataCollatorForTokenClassification

TOKENIZER_COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "labels")
"""Columns that the collator of transformers pads."""

PIECE_COLUMNS = ("piece_ids", "piece_mask")
"""Columns with a number for each piece of an encoder, see `processing_bilstm_crf.piece_inputs`."""


class TaggingCollator(DataCollatorForTokenClassification):
    """A `DataCollatorForTokenClassification` that also pads the other inputs of a model, with zeros.

    `piece_ids` and `piece_mask` become (B, P). Any other column has one number for each token, or K numbers for each
    token in one flat list; it becomes (B, S) or (B, S, K), padded on the side and to the length of `input_ids`.
    """

    def torch_call(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch of rows.

        Raises:
            ValueError: if rows differ in their columns, or if a column does not have numbers for all tokens.
        """
        _check_rows(features)
        more = [name for name in features[0] if name not in TOKENIZER_COLUMNS]
        batch = super().torch_call([{name: row[name] for name in row if name not in more} for row in features])
        inside = batch["attention_mask"].bool()  # (B, S)
        count = int(inside.sum())
        for name in more:
            rows = [torch.as_tensor(row[name], dtype=None if len(row[name]) else torch.long) for row in features]
            if name in PIECE_COLUMNS:
                batch[name] = pad_sequence(rows, batch_first=True)  # (B, P)
            else:
                tokens = torch.cat(rows)
                if len(tokens) > count:
                    tokens = tokens.view(count, -1)
                batch[name] = tokens.new_zeros(*inside.shape, *tokens.shape[1:])  # (B, S) or (B, S, K)
                batch[name][inside] = tokens
        return batch


def _check_rows(rows: list[dict[str, Any]]) -> None:
    """Raise the errors of [`TaggingCollator`]; numbers that one row lacks and another has would go to wrong tokens."""
    for i, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            raise ValueError(f"row {i} of the batch has the columns {[*row]}, and row 0 has {[*rows[0]]}")
    for name in rows[0]:
        tokens = "piece_ids" if name in PIECE_COLUMNS else "input_ids"
        sizes = [(len(row[name]), len(row[tokens])) for row in rows]
        single = name in TOKENIZER_COLUMNS or name in PIECE_COLUMNS
        per_token = 1 if single else sum(size for size, _ in sizes) / max(1, sum(count for _, count in sizes))
        for i, (size, count) in enumerate(sizes):
            if size != per_token * count:
                raise ValueError(f"row {i} of the batch has {size} {name} for {count} {tokens}: give one for each")
