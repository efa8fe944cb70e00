"""Sentences as the readers of named-entity corpora return them, and the step from tokens to text.

A reader returns either texts with entities on characters, or tokens with tags. How tokens are joined to a
text and which tag scheme they follow is decided once for all splits of a corpus: one split can be too small to tell.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

import regex

from ..alignment import Span, spans_from_tags
from .tag_schemes import Scheme, find_scheme, is_tag, respell

logger = logging.getLogger(__name__)

TOKEN_UNITS = {"character": "", "word": " "}
"""The string between two tokens, by what the tokens of a corpus are."""


def token_unit_of(tokens: Iterable[str]) -> tuple[str, str | None]:
    """Return the key of `TOKEN_UNITS` for tokens, and the first one that is longer than a character, if there is one.

    A character is what readers see as one (a grapheme cluster, such as an emoji of several code points).
    """
    longer = next((token for token in tokens if len(token) > 1 and not regex.fullmatch(r"\X", token)), None)
    return "character" if longer is None else "word", longer


class Sentence(NamedTuple):
    """A text, its entities as spans of characters, and its document, if the corpus marks documents."""

    text: str
    spans: list[Span]
    document: str | int | None = None


class TaggedTokens(NamedTuple):
    """Tokens with their tags.

    Attributes:
        place: the place of a token in error messages, without the number of the token: `a.conll:` or `row 3: token `.
        numbers: the number that completes the place of each token.
        text, ranges: the text and the range of characters of each token, where the corpus defines them; otherwise the
            tokens are joined.
        document: the document of the sentence, if the corpus marks documents.
    """

    place: str
    numbers: Sequence[int]
    tokens: Sequence[str]
    tags: Sequence[str]
    text: str | None = None
    ranges: Sequence[tuple[int, int]] = ()
    document: str | int | None = None


@contextmanager
def located(place: str) -> Iterator[None]:
    """Add the place in the corpus to the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def join_tokens(splits: Iterable[Sequence[Sentence | TaggedTokens]], token_unit: str = "auto") -> list[list[Sentence]]:
    """Return the splits of a corpus with a text and entities in place of tokens and tags.

    Tokens are joined without a space if each is a character, see [`token_unit_of`], otherwise by one space.
    `token_unit` is `character` or `word`, which decides this, or `auto`.

    Raises:
        ValueError: with the place, if a tag is not valid in the scheme of the corpus, or a word is white space only.
    """
    if token_unit not in ("auto", *TOKEN_UNITS):
        raise ValueError(f"unknown token_unit {token_unit!r}: choose 'auto', {' or '.join(map(repr, TOKEN_UNITS))}")
    splits = list(splits)
    tagged = [row for rows in splits for row in rows if isinstance(row, TaggedTokens)]
    wrong = {tag for tag in set().union(*(row.tags for row in tagged)) if not is_tag(tag)}
    for row in tagged if wrong else ():
        for number, tag in zip(row.numbers, row.tags, strict=True):
            with located(f"{row.place}{number}"):
                respell(tag)
    scheme = find_scheme(row.tags for row in tagged)
    if scheme.name != "BIO":
        logger.info("the tags of the corpus follow %s: they are converted to BIO", scheme.name)
    tokens = dict.fromkeys(chain.from_iterable(row.tokens for row in tagged if row.text is None))
    if tokens and token_unit == "auto":
        token_unit, longer = token_unit_of(tokens)
        how = f"words such as {longer!r}, joined by one space" if longer else "characters, concatenated"
        logger.info("the tokens of the corpus are %s (token_unit %s)", how, token_unit)
    joiner = TOKEN_UNITS.get(token_unit, "")  # without tokens, the unit is still "auto"

    return [[_join(row, joiner, scheme) if isinstance(row, TaggedTokens) else row for row in rows] for rows in splits]


def _join(row: TaggedTokens, joiner: str, scheme: Scheme) -> Sentence:
    for i, tag in scheme.violations(row.tags):
        if row.tags[i][0] not in scheme.tolerated:
            problem = f"{row.tags[i]} cannot stand here in {scheme.name}, {tag} could"
            raise ValueError(f"{row.place}{row.numbers[i]}: {problem}: correct the tags")
    text, ranges = row.text, row.ranges
    if text is None:
        blank = [number for number, token in zip(row.numbers, row.tokens, strict=True) if not token.strip()]
        if joiner and blank:
            problem = (
                "the token is white space, though the tokens of the corpus are words (some have several characters)"
            )
            raise ValueError(f"{row.place}{blank[0]}: {problem}: correct it, or choose token_unit character")
        text = joiner.join(row.tokens)
        starts = accumulate((len(token) + len(joiner) for token in row.tokens), initial=0)
        ranges = [(start, start + len(token)) for start, token in zip(starts, row.tokens)]
    spans = spans_from_tags(map(respell, row.tags))
    for span, following in pairwise(spans):
        if ranges[span.end - 1][1] > ranges[following.start][0]:
            problem = "two entities have a part in the same multiword token"
            raise ValueError(f"{row.place}{row.numbers[following.start]}: {problem}: correct the tags")
    on_text = [Span(ranges[start][0], ranges[end - 1][1], label) for start, end, label in spans]
    return Sentence(text, on_text, row.document)
