"""Conversion between entity spans on characters, BIO or BIOES tags, and tags of tokens.

Spans on characters are the common form, so that taggers with different tokenizers (characters, WordPiece,
SentencePiece) are trained and evaluated on the same text. This file is copied into exported model repositories.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

IGNORED = -100
"""Id of unknown labels, over whose values a CRF sums, and of positions outside of a sequence; losses ignore both."""

_BEGIN, _CONTINUE, _END = "BS", "IE", "ES"  # prefixes of tags that begin, continue and end an entity


class Span(NamedTuple):
    """An entity of type `label` on the half-open range `[start, end)` of characters or tokens."""

    start: int
    end: int
    label: str


@lru_cache(maxsize=1024)
def split_tag(tag: str) -> tuple[str, str]:
    """Split a tag into prefix and type: `"B-PS"` into `("B", "PS")`, `"O"` into `("O", "")`."""
    if tag == "O":
        return "O", ""
    prefix, hyphen, label = tag.partition("-")
    if not hyphen or not label or prefix not in ("B", "I", "E", "S"):
        raise ValueError(f"{tag!r} is not a BIO or BIOES tag: expected 'O', or B, I, E or S, a hyphen and a type")
    return prefix, label


def spans_from_tags(tags: Iterable[str], strict: bool = False) -> list[Span]:
    """Return the entities in a sequence of BIO or BIOES tags, in order.

    An I- or E- tag that continues no entity of its type begins one, as in conlleval and the default mode of seqeval.

    Raises:
        ValueError: if a string is not a tag or, with `strict`, for an I- or E- tag that continues no entity.
    """
    units = [*tags, "O"]  # the last one ends an entity that is open
    spans: list[Span] = []
    start, current = 0, ""  # start and type of the open entity; an empty type means that none is open
    for i, tag in enumerate(units):
        if tag == "O" and not current:
            continue
        prefix, label = split_tag(tag)
        continues = prefix in _CONTINUE and label == current
        if strict and prefix in _CONTINUE and not continues:
            previous = units[i - 1] if i else "O"
            raise ValueError(f"{tag} at position {i} follows {previous}: it continues no {label} entity")
        if current and not continues:
            spans.append(Span(start, i, current))
            current = ""
        if label and not current:
            start, current = i, label
        if prefix in _END:
            spans.append(Span(start, i + 1, current))
            current = ""
    return spans


def continues_entity(before: str, tag: str) -> bool:
    """Return whether `tag`, behind the tag `before`, continues its entity, see [`spans_from_tags`]."""
    return before[:2] in ("B-", "I-") and tag[:2] in ("I-", "E-") and before[2:] == tag[2:]


def within_words(labels: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the ids of the labels of the parts of a word, for each label of a word.

    The first list is for parts that others follow: B- in place of S-, and I- in place of E-. The second one is for
    parts that follow others: I- in place of B-, and E- in place of S-. A middle part needs both, one after the other.
    A label stays what it is if it is not one of BIO
    or BIOES, or if the labels lack the one that is needed.
    """

    def respelled(prefixes: dict[str, str]) -> list[int]:
        names = [prefixes.get(label[:2], label[:2]) + label[2:] for label in labels]
        return [labels.index(name) if name in labels else i for i, name in enumerate(names)]

    return respelled({"S-": "B-", "E-": "I-"}), respelled({"B-": "I-", "S-": "E-"})


def check_labels_of_parts(labels: Sequence[str]) -> None:
    """Raise a ValueError if a BIO or BIOES label of a word has no label for its parts, see [`within_words`]."""
    opened, continued = within_words(labels)
    for i, label in enumerate(labels):
        if label[:2] in ("B-", "S-") and (continued[i] == i or labels[opened[i]][:2] != "B-"):
            raise ValueError(
                f"there is a label {label}, but not all of those for the parts of its words: complete id2label"
            )


def tags_from_spans(spans: Iterable[Span], length: int, scheme: str = "BIO") -> list[str]:
    """Return `length` tags for `spans`; the inverse of [`spans_from_tags`].

    Raises:
        ValueError: if a span is empty, lies outside `[0, length)` or overlaps another one, or if the scheme is unknown.
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
    """Return `"BIOES"` if any label begins with `E-` or `S-`, otherwise `"BIO"`."""
    return "BIOES" if any(label.startswith(("E-", "S-")) for label in labels) else "BIO"


def character_ranges(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the range of characters `[start, end)` of `text` that each token covers, without overlaps.

    The offsets of a fast tokenizer are corrected as follows:

    - Special tokens, padding and tokens of white space only get an empty range.
    - White space at the edges of a range is removed (SentencePiece includes the space before a word).
    - If two tokens have the same first character, the earlier one gets an empty range. It is a `▁` that stands alone
      before a word, or one of several tokens into which normalisation splits a character (`㎞` into `k`, `m`).
    - A character that normalisation composes with the one before it (a combining mark, a jamo) is added to the range of
      that one, since `tokenizers` ends the offsets of a composed character after its first part.
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
            while end < following and _composes_with_previous(text, start, end):
                end += 1
        elif start < end:
            end = max(start, following)
        ranges[i] = (start, end)
        following = start if start < end else following
    return ranges


def _composes_with_previous(text: str, start: int, end: int) -> bool:
    """Return whether normalisation composes `text[end]` with the last character of `text[start:end]`."""
    if unicodedata.category(text[end])[0] == "M":
        return True
    if text[end].isspace():
        return False
    before = text[max(start, end - _COMPOSED) : end]
    return len(unicodedata.normalize("NFKC", before + text[end])) <= len(unicodedata.normalize("NFKC", before))


_COMPOSED = 8
"""Number of characters before a character that decide whether it composes with them; a syllable has three jamo."""


def token_tags(
    text: str, offsets: Sequence[tuple[int, int]], spans: Iterable[Span], scheme: str = "BIO"
) -> list[str | None]:
    """Return the tag of each token, None if the token covers no character (see [`character_ranges`]).

    A token belongs to the entity that covers its *first* character, as in KLUE-baseline. An entity that begins inside
    a token therefore begins at the next token, with a B- tag. An entity that covers no token's first character is lost.
    """
    entity_at: dict[int, Span] = {i: span for span in spans for i in range(span.start, span.end)}
    ranges = character_ranges(text, offsets)
    content = [i for i, (start, end) in enumerate(ranges) if start < end]
    entities = [entity_at.get(ranges[i][0]) for i in content]
    token_spans: list[Span] = []
    for entity, run in groupby(range(len(content)), entities.__getitem__):
        if entity is not None:
            tokens = list(run)
            token_spans.append(Span(tokens[0], tokens[-1] + 1, entity.label))
    tag_of = dict(zip(content, tags_from_spans(token_spans, len(content), scheme), strict=True))
    return [tag_of.get(i) for i in range(len(ranges))]


def word_offsets(offsets: Sequence[tuple[int, int]], starts: Sequence[bool]) -> list[tuple[int, int]]:
    """Return the range of each word at its first token, and empty ranges at all others.

    `starts` says which tokens begin a word; the first one that has a range does in any case.
    """
    ranges, first = [(end, end) for _, end in offsets], -1
    for i, (start, end) in enumerate(offsets):
        if start < end:
            first = i if starts[i] or first < 0 else first
            ranges[first] = (offsets[first][0], end)
    return ranges


def entities_of_tokens(
    text: str, offsets: Sequence[tuple[int, int]], tags: Sequence[str | None]
) -> Iterator[tuple[Span, list[int]]]:
    """Yield the span in `text` and the indices of the tokens of each entity whose tokens cover a character.

    The tags of special tokens and padding are None.
    """
    ranges = character_ranges(text, offsets)
    tagged = {i: tag for i, tag in enumerate(tags) if tag is not None}
    indices = list(tagged)
    for start, end, label in spans_from_tags(tagged.values()):
        tokens = indices[start:end]
        covered = [ranges[i] for i in tokens if ranges[i][0] < ranges[i][1]]
        if covered:
            yield Span(covered[0][0], covered[-1][1], label), tokens


def spans_from_token_tags(text: str, offsets: Sequence[tuple[int, int]], tags: Sequence[str | None]) -> list[Span]:
    """Return the entities in `text` that the tags of its tokens encode; the inverse of [`token_tags`]."""
    return [span for span, _ in entities_of_tokens(text, offsets, tags)]


def character_tags(text: str, offsets: Sequence[tuple[int, int]], tags: Sequence[str | None]) -> list[str]:
    """Return the BIO tag of each character of `text`, expanded from the tags of its tokens as in KLUE-baseline.

    The first character of a token gets the tag of the token, the others continue it. Characters outside all tokens
    (white space and characters that normalisation removes) are inside an entity if the next token continues it,
    otherwise O. An I- tag that continues no entity is kept, whereas [`spans_from_token_tags`] makes it begin one.
    """
    expanded = ["O"] * len(text)
    open_label, open_end = "", 0
    for (start, end), tag in zip(character_ranges(text, offsets), tags, strict=True):
        if start == end or tag is None:
            continue
        prefix, label = split_tag(tag)
        if label:
            begin = open_end if prefix in _CONTINUE and label == open_label else start
            expanded[begin:end] = [f"I-{label}"] * (end - begin)
        if prefix in _BEGIN:
            expanded[start] = f"B-{label}"
        open_label, open_end = "" if prefix in _END else label, end
    return expanded


def render(text: str, spans: Iterable[Span]) -> str:
    """Return `text` with its entities marked as in KLUE's files: `<손흥민:PS>은 <춘천:LC>에서 태어났다.`"""
    pieces, at = [], 0
    for start, end, label in sorted(spans):
        pieces += [text[at:start], f"<{text[start:end]}:{label}>"]
        at = end
    return "".join([*pieces, text[at:]])
