"""Entities as spans, as tags and as token labels, and the ways between them.

Everything is expressed through spans of characters, so that a tagger over any tokenizer (characters, WordPiece,
SentencePiece) is trained and judged on the same text. Tag schemes are BIO and BIOES.

This file is copied into exported model repositories: it imports the standard library only.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

IGNORED = -100
"""The label of a token that takes no part in the loss, as in PyTorch's `CrossEntropyLoss(ignore_index=-100)`."""

_OPENING, _INSIDE = "BS", "IE"
_CLOSING = "ES"


class Span(NamedTuple):
    """An entity `label` over the half-open range `[start, end)` of characters, or of tokens."""

    start: int
    end: int
    label: str


@lru_cache(maxsize=1024)
def split_tag(tag: str) -> tuple[str, str]:
    """`"B-PS"` as `("B", "PS")` and `"O"` as `("O", "")`.

    Raises:
        ValueError: the tag is neither `O` nor one of the prefixes B, I, E, S with a type behind a hyphen.
    """
    if tag == "O":
        return "O", ""
    prefix, hyphen, label = tag.partition("-")
    if not hyphen or not label or prefix not in ("B", "I", "E", "S"):
        raise ValueError(f"{tag!r} is not a BIO or BIOES tag: expected 'O', or B, I, E or S, a hyphen and a type")
    return prefix, label


def spans_from_tags(tags: Iterable[str], strict: bool = False) -> list[Span]:
    """The entities in a sequence of BIO or BIOES tags, in order.

    Args:
        tags: one tag a unit (character, token or word).
        strict: whether an I- or E- tag that continues no entity of its type is an error. If not, it opens an entity,
            which is the rule of conlleval and of seqeval's default mode.

    Raises:
        ValueError: a string is no tag; with `strict`, also a tag that cannot follow the one before it, with its place.
    """
    spans: list[Span] = []
    start, current = 0, ""  # the open entity, if `current` is not empty
    previous, i = "O", -1
    for i, tag in enumerate(tags):
        if tag == "O" and not current:
            previous = tag
            continue
        prefix, label = split_tag(tag)
        if prefix in _INSIDE and label != current and strict:
            raise ValueError(f"{tag} at position {i} follows {previous}: it continues no {label} entity")
        if current and (prefix not in _INSIDE or label != current):
            spans.append(Span(start, i, current))
            current = ""
        if label and not current:
            start, current = i, label
        if prefix in _CLOSING and current:
            spans.append(Span(start, i + 1, current))
            current = ""
        previous = tag
    if current:
        spans.append(Span(start, i + 1, current))
    return spans


def tags_from_spans(spans: Iterable[Span], length: int, scheme: str = "BIO") -> list[str]:
    """`length` tags for non-overlapping `spans`; the inverse of [`spans_from_tags`].

    Raises:
        ValueError: a span is empty, lies outside `[0, length)` or overlaps another one; an unknown `scheme`.
    """
    if scheme not in ("BIO", "BIOES"):
        raise ValueError(f"unknown tag scheme {scheme!r}: choose 'BIO' or 'BIOES'")
    tags = ["O"] * length
    for start, end, label in spans:
        if not 0 <= start < end <= length:
            raise ValueError(f"the span {label} [{start}, {end}) does not lie within {length} units")
        if any(tag != "O" for tag in tags[start:end]):
            raise ValueError(f"the span {label} [{start}, {end}) overlaps another one")
        tags[start:end] = [f"B-{label}"] + [f"I-{label}"] * (end - start - 1)
        if scheme == "BIOES":
            tags[end - 1] = f"E-{label}" if end - start > 1 else f"S-{label}"
    return tags


def scheme_of(labels: Iterable[str]) -> str:
    """`"BIOES"` if any of the labels begins with `E-` or `S-`, else `"BIO"`."""
    return "BIOES" if any(label.startswith(("E-", "S-")) for label in labels) else "BIO"


def character_ranges(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The characters `[start, end)` of `text` that each token stands for, from a fast tokenizer's offsets.

    Offsets need mending before they partition a text:

    - special and padded tokens, and pieces of nothing but white space, get an empty range;
    - white space at the edges is taken off (SentencePiece counts the space before a word in);
    - of two tokens with the same first character the earlier one gets an empty range: a lone `▁` before a word, or the
      first of several tokens that normalisation made from one character (`㎞` to `k`, `m`);
    - a character that normalisation composes with the one before it (a mark, a jamo) goes to that one's token:
      `tokenizers` ends the offsets of a composed character at its first part.
    """
    ranges = list(offsets)
    following = len(text)
    for i in range(len(ranges) - 1, -1, -1):
        start, end = ranges[i]
        while start < end and text[start].isspace():
            start += 1
        while start < end and text[end - 1].isspace():
            end -= 1
        if start < end <= following:
            while end < following and _goes_into(text, start, end):
                end += 1
        elif start < end:
            end = max(start, following)
        ranges[i] = (start, end)
        following = start if start < end else following
    return ranges


def _goes_into(text: str, start: int, end: int) -> bool:
    """Whether normalisation makes one character of the last of `text[start:end]` and `text[end]`."""
    if text[end].isspace():
        return False
    composed = unicodedata.normalize("NFKC", text[start : end + 1])
    mark = unicodedata.category(text[end])[0] == "M"
    return mark or len(composed) <= len(unicodedata.normalize("NFKC", text[start:end]))


def token_tags(
    text: str, offsets: Sequence[tuple[int, int]], spans: Iterable[Span], scheme: str = "BIO"
) -> list[str | None]:
    """The tag of each token, None where its range of characters is empty (see [`character_ranges`]).

    A token belongs to the entity that covers its *first* character, as in KLUE-baseline. An entity that begins inside
    a token therefore begins at the next token, with a B- tag; one that holds no token's first character is lost, which
    [`spans_from_token_tags`] of the result shows. Sequences are always valid in their scheme.
    """
    entity_at: dict[int, Span] = {i: span for span in spans for i in range(span.start, span.end)}
    ranges = character_ranges(text, offsets)
    content = [i for i, (start, end) in enumerate(ranges) if start < end]
    token_spans: list[Span] = []
    last = None
    for place, i in enumerate(content):
        entity = entity_at.get(ranges[i][0])
        if entity is not None:
            start = token_spans.pop().start if entity is last else place
            token_spans.append(Span(start, place + 1, entity.label))
        last = entity
    tags: list[str | None] = [None] * len(ranges)
    for i, tag in zip(content, tags_from_spans(token_spans, len(content), scheme), strict=True):
        tags[i] = tag
    return tags


def entities_of_tokens(
    text: str, offsets: Sequence[tuple[int, int]], tags: Sequence[str | None]
) -> Iterator[tuple[Span, list[int]]]:
    """Each entity that token tags say: its characters in `text` and its tokens.

    `tags` are None for special and padded tokens. Entities of tokens that stand for no character are left out.
    """
    ranges = character_ranges(text, offsets)
    tagged = [i for i, tag in enumerate(tags) if tag is not None]
    for start, end, label in spans_from_tags(tags[i] for i in tagged):
        tokens = tagged[start:end]
        covered = [ranges[i] for i in tokens if ranges[i][0] < ranges[i][1]]
        if covered:
            yield Span(covered[0][0], covered[-1][1], label), tokens


def spans_from_token_tags(text: str, offsets: Sequence[tuple[int, int]], tags: Sequence[str | None]) -> list[Span]:
    """The entities on the characters of `text` that token tags say; the inverse of [`token_tags`]."""
    return [span for span, _ in entities_of_tokens(text, offsets, tags)]


def character_tags(text: str, offsets: Sequence[tuple[int, int]], tags: Sequence[str | None]) -> list[str]:
    """The BIO tag of each character of `text` that token tags say, as KLUE-baseline spreads them.

    The first character of a token has its tag, the others continue it. Characters of no token (white space, and what
    normalisation drops) continue the entity that the next token continues, and are O elsewhere. Unlike
    [`spans_from_token_tags`], an I- tag that continues nothing stays one.
    """
    spread = ["O"] * len(text)
    open_label, open_end = "", 0
    for (start, end), tag in zip(character_ranges(text, offsets), tags, strict=True):
        if start == end or tag is None:
            continue
        prefix, label = split_tag(tag)
        if label:
            begin = open_end if prefix in _INSIDE and label == open_label else start
            spread[begin:end] = [f"I-{label}"] * (end - begin)
        if prefix in _OPENING:
            spread[start] = f"B-{label}"
        open_label, open_end = "" if prefix in _CLOSING else label, end
    return spread


def render(text: str, spans: Iterable[Span]) -> str:
    """`text` with its entities marked inline, as in KLUE's files: `<손흥민:PS>은 <춘천:LC>에서 태어났다.`"""
    pieces, at = [], 0
    for start, end, label in sorted(spans):
        pieces += [text[at:start], f"<{text[start:end]}:{label}>"]
        at = end
    return "".join([*pieces, text[at:]])
