"""Batches of texts of similar length, and rows of tokens as arrays.

This file is copied into exported model repositories and beside ONNX graphs, and needs only numpy.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy import ndarray

from .processing_bilstm_crf import own_tokens

USUAL_LENGTH = 256
"""Number of characters above which fewer texts are read at a time, so that the memory of a batch is bounded."""

BATCHES_SORTED = 16
"""Number of batches whose texts are read ahead and sorted by length, for up to seven threads."""


def map_by_length(run: Callable[[list[list]], Iterable[list]], texts: Sequence, batch_size: int) -> Iterator[Any]:
    """Yield the results of texts in their order.

    Args:
        run: function of batches, the longest texts first, that returns the results of each.
        texts: texts, or their words.
        batch_size: number of texts in a batch; of long texts there are fewer.
    """
    lengths = [len(text) if isinstance(text, str) else sum(map(len, text)) + len(text) for text in texts]
    order, batches = sorted(range(len(texts)), key=lambda i: -lengths[i]), []
    while order:
        size = max(1, batch_size * USUAL_LENGTH // max(USUAL_LENGTH, lengths[order[0]]))
        batches.append(order[:size])
        order = order[size:]
    found = run([[texts[i] for i in batch] for batch in batches])
    results = dict(zip(chain.from_iterable(batches), chain.from_iterable(found), strict=True))
    yield from (results[i] for i in range(len(texts)))


def matrix(rows: Sequence[Sequence[int]]) -> ndarray:
    """Return rows of equal length as an array; much faster than `np.array`."""
    return np.fromiter(chain.from_iterable(rows), np.int64, len(rows) * len(rows[0])).reshape(len(rows), -1)


def own_token_mask(
    special_tokens_mask: Sequence[Sequence[int]], text_ids: Sequence[int] | ndarray, stride: int | None
) -> ndarray:
    """Return which tokens of each window speak for the text, (windows, S); those that the tokenizer added do not.

    Args:
        special_tokens_mask: a row for each window, 1 for tokens that the tokenizer added.
        text_ids: index of the text of each window; the windows of a text stand side by side.
        stride: number of tokens that neighbouring windows of a text share; None if each text has one window.
    """
    own = matrix(special_tokens_mask) == 0
    edges = np.diff(text_ids, prepend=-1, append=-1) != 0  # whether a text begins, or has ended, at a window
    for i in (~(edges[:-1] & edges[1:])).nonzero()[0]:
        places = own[i].nonzero()[0]
        own[i] = False
        own[i, places[own_tokens(len(places), stride or 0, edges[i], edges[i + 1])]] = True
    return own
