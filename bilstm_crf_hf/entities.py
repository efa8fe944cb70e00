"""Entities of a batch of texts from the tags of their tokens, by arrays.

The results are those of `alignment.entities_of_tokens`, which handles one text. This file is copied into exported model
repositories and beside ONNX graphs, and needs only numpy.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from .alignment import Span, character_ranges, continues_entity, split_tag, token_tags

_LAST_SPACE = 0x3000
_IS_SPACE = np.array([chr(code).isspace() for code in range(_LAST_SPACE + 2)])
"""Table of the characters that are white space; the last row stands for all characters behind U+3000, the last one."""


def entities_of_batch(
    texts: Sequence[str],
    text_ids: ndarray,
    offsets: ndarray,
    tags: ndarray,
    log_probs: ndarray,
    labels: Sequence[str],
    ignored: Collection[str] = ("O",),
) -> list[list[dict[str, Any]]]:
    """Return the entities of each text, as the token-classification pipeline does.

    Args:
        texts: the texts.
        text_ids: (N,), ascending, the index of the text of each token that has a tag.
        offsets: (N, 2), characters `[start, end)` of the tokens.
        tags: (N,), indices into `labels`.
        log_probs: (N, 3), the probabilities of `recursions.decode`.
        labels: BIO or BIOES tags.
        ignored: types of entities to leave out. Without `"O"` among them, runs of that tag are entities, too.

    Raises:
        ValueError: if a tag is not one of BIO or BIOES.
    """
    entities: list[list[dict[str, Any]]] = [[] for _ in texts]
    if not len(tags):
        return entities
    scheme = _scheme(tuple(labels))
    if not scheme.is_valid[tags].all():
        split_tag(labels[tags[~scheme.is_valid[tags]][0]])  # raises the error
    is_first = np.ones(len(tags), bool)
    is_first[1:] = (text_ids[1:] != text_ids[:-1]) | ~scheme.continues[tags[:-1], tags[1:]]
    first = is_first.nonzero()[0]  # the tokens fall into segments: entities, and runs of O
    last = np.append(first[1:], len(tags)) - 1
    reported = np.array([name not in ignored for name in scheme.types])[tags[first]]
    first, last = first[reported], last[reported]
    steps = log_probs[:, 1].cumsum()
    scores = np.exp(np.minimum(log_probs[first, 0] + steps[last] - steps[first] + log_probs[last, 2], 0))
    starts, ends = _places(texts, text_ids, offsets, first, last)
    outside = scheme.is_outside[tags[first]]
    if outside.any():  # a run of O is as long as its tokens, white space included
        starts, ends = np.where(outside, offsets[first, 0], starts), np.where(outside, offsets[last, 1], ends)
    rows = zip(*(column.tolist() for column in (text_ids[first], tags[first], scores, starts, ends, outside)))
    for text, tag, score, start, end, is_outside in rows:
        if start < end or is_outside:
            word = texts[text][start:end]
            entities[text].append(
                {"entity_group": scheme.types[tag], "score": score, "word": word, "start": start, "end": end}
            )
    return entities


def tags_of_words(words: Sequence[str], entities: Iterable[Mapping[str, Any]], delimiter: str = " ") -> list[str]:
    """Return the BIO tag of each word for entities of the words joined by `delimiter`, as a pipeline returns them.

    A word belongs to the entity that covers its first visible character, so that an entity within a word has no tag,
    see [`token_tags`]. A word without a visible character is inside an entity if the next word that has one continues
    it, otherwise O.
    """
    starts = accumulate((len(word) + len(delimiter) for word in words), initial=0)
    ranges = [(start, start + len(word)) for start, word in zip(starts, words)]
    spans = (Span(entity["start"], entity["end"], entity["entity_group"]) for entity in entities)
    tags = token_tags(delimiter.join(words), ranges, (span for span in spans if span.label != "O"))
    filled, following = [], "O"
    for tag in reversed(tags):
        following = tag or (following if following.startswith("I-") else "O")
        filled.append(following)
    return filled[::-1]


class _Scheme(NamedTuple):
    """Properties of K labels."""

    types: list[str]
    """Type of the entities of each label; the label itself, if it is O or no tag."""
    is_valid: ndarray
    """(K,), whether a label is a BIO or BIOES tag."""
    is_outside: ndarray
    """(K,), whether a label is O."""
    continues: ndarray
    """(K, K), whether a label, the second index, continues the entity of another, or a run of O."""


@lru_cache(maxsize=64)
def _scheme(labels: tuple[str, ...]) -> _Scheme:
    """Return the properties of labels."""
    types = [label[2:] if label[:2] in ("B-", "I-", "E-", "S-") else "" for label in labels]
    is_outside = np.array([label == "O" for label in labels])
    return _Scheme(
        types=[name or label for name, label in zip(types, labels)],
        is_valid=np.array(list(map(bool, types))) | is_outside,
        is_outside=is_outside,
        continues=np.array([[continues_entity(a, b) or a == b == "O" for b in labels] for a in labels]),
    )


def _places(
    texts: Sequence[str], text_ids: ndarray, offsets: ndarray, first: ndarray, last: ndarray
) -> tuple[ndarray, ndarray]:
    """Return the ranges of characters of the segments from token `first` to `last`, empty if no token covers any."""
    starts, ends = token_ranges(texts, text_ids, offsets)
    covering = (starts < ends).nonzero()[0]
    if not len(covering):
        return np.zeros_like(first), np.zeros_like(last)
    next_one = covering.searchsorted(first)
    previous_one = covering.searchsorted(last, "right") - 1
    is_covering = next_one <= previous_one
    start, end = (covering[np.where(is_covering, each, 0)] for each in (next_one, previous_one))
    return np.where(is_covering, starts[start], 0), np.where(is_covering, ends[end], 0)


def token_ranges(texts: Sequence[str], text_ids: ndarray, offsets: ndarray) -> tuple[ndarray, ndarray]:
    """Return the starts and the ends of the ranges of characters of tokens, as `alignment.character_ranges` does.

    The arguments are those of [`entities_of_batch`]. The texts in which tokens overlap or leave out a visible character
    are passed to that function.
    """
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    is_space = _IS_SPACE[np.minimum(codes, _LAST_SPACE + 1)]
    bounds = np.cumsum([0, *map(len, texts)])
    base = bounds[text_ids]
    # For each place between two characters: the next place before a visible character, the last one behind one.
    places = np.arange(len(codes) + 1)
    visible = np.append(~is_space, True)
    following = np.minimum.accumulate(np.where(visible, places, len(codes))[::-1])[::-1]
    preceding = np.maximum.accumulate(np.where(np.append(False, ~is_space), places, 0))
    starts, ends = offsets[:, 0] + base, offsets[:, 1] + base
    is_nonempty = starts < ends
    starts = np.where(is_nonempty, np.minimum(following[starts], ends), starts)
    ends = np.where(is_nonempty, np.maximum(preceding[ends], starts), ends)
    covering = (starts < ends).nonzero()[0]
    if len(covering):
        limits = bounds[text_ids[covering] + 1]  # where the text ends, or the next token of the same text begins
        same = text_ids[covering[1:]] == text_ids[covering[:-1]]
        limits[:-1] = np.where(same, starts[covering[1:]], limits[:-1])
        stops = ends[covering]
        is_simple = (stops == limits) | (stops < limits) & is_space[np.minimum(stops, len(codes) - 1)]
        for text in np.unique(text_ids[covering[~is_simple]]).tolist():
            at = slice(*text_ids.searchsorted([text, text + 1]))
            ranges = character_ranges(texts[text], list(map(tuple, offsets[at].tolist())))
            starts[at], ends[at] = bounds[text] + np.array(ranges).T
    return starts - base, ends - base
