"""Tests of batches of encoded rows."""

import numpy as np
import pytest
import torch
from transformers import DataCollatorForTokenClassification

from bilstm_crf_hf.data.collation import TaggingCollator


def row(length: int, **sizes: int) -> dict[str, list[int]]:
    """Return a row of `length` tokens, with columns of other sizes."""
    columns = dict.fromkeys(("input_ids", "attention_mask", "labels", "morpheme_ids"), length) | {
        "soft_labels": 3 * length
    }
    return {name: [1] * size for name, size in (columns | sizes).items()}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(3), row(5, labels=4)], "row 1 of the batch has 4 labels for 5 input_ids"),
        ([row(3, attention_mask=4), row(5)], "row 0 of the batch has 4 attention_mask for 3 input_ids"),
        ([row(3, morpheme_ids=5), row(5, morpheme_ids=3)], "row 0 of the batch has 5 morpheme_ids for 3 input_ids"),
        ([row(3, soft_labels=15), row(5, soft_labels=9)], "row 0 of the batch has 15 soft_labels for 3 input_ids"),
        ([row(3), row(5) | {"piece_ids": [1]}], "row 1 of the batch has the columns .*piece_ids"),
        ([row(3) | {"more": [1] * 3}, row(5)], "row 1 of the batch has the columns"),
    ],
)
def test_numbers_that_belong_to_no_token_are_an_error(tokenizer, rows, message):
    with pytest.raises(ValueError, match=message):
        TaggingCollator(tokenizer)(rows)


def test_rows_of_all_columns_become_a_batch(tokenizer):
    batch = TaggingCollator(tokenizer)([row(3), row(5)])
    assert {name: tuple(values.shape) for name, values in batch.items()} == {
        **dict.fromkeys(("input_ids", "attention_mask", "labels", "morpheme_ids"), (2, 5)),
        "soft_labels": (2, 5, 3),
    }
    assert batch["morpheme_ids"].sum(1).tolist() == [3, 5]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "options",
    [{}, {"pad_to_multiple_of": 4}, {"padding": "max_length", "max_length": 9, "pad_to_multiple_of": 4}],
    ids=["longest", "multiple", "max_length"],
)
def test_columns_of_a_tokenizer_are_padded_as_in_transformers(tokenizer, side, options, monkeypatch):
    monkeypatch.setattr(tokenizer, "padding_side", side)
    rows = [tokenizer("가" * length) for length in (1, 5, 3)]
    rows = [{**each, "token_type_ids": [0] * len(each["input_ids"]), "labels": each["input_ids"]} for each in rows]
    expected = DataCollatorForTokenClassification(tokenizer, **options)([dict(each) for each in rows])
    found = TaggingCollator(tokenizer, **options)(rows)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert found[name].equal(values), name


def test_arrays_make_the_batch_that_lists_make(tokenizer):
    rows = [row(3) | {"soft_labels": [0.25] * 9}, row(5) | {"soft_labels": [0.5] * 15}]
    dtypes = {"soft_labels": np.float16}
    arrays = [{name: np.array(values, dtypes.get(name)) for name, values in each.items()} for each in rows]
    expected, found = TaggingCollator(tokenizer)(rows), TaggingCollator(tokenizer)(arrays)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype == (torch.float32 if name == "soft_labels" else torch.int64)
        assert found[name].equal(values), name


def test_an_empty_row_leaves_numbers_integers(tokenizer):
    rows = [{"input_ids": [], "labels": []}, {"input_ids": [5, 6], "labels": [0, 1]}]
    batch = TaggingCollator(tokenizer)(rows)
    assert batch["input_ids"].tolist() == [[0, 0], [5, 6]]
    assert {values.dtype for values in batch.values()} == {torch.int64}
