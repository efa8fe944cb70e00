"""The tag schemes of corpora: which one the tags of a corpus follow, and the entities that they encode.

| scheme | first, inner, last and only token of an entity |
| --- | --- |
| BIO (IOB2) | B I I B |
| IOB1 | I I I I, but B on the first token after an entity of the same type |
| BIOES | B I E S |
| BILOU (BIOUL) | B I L U |
| BMES | B M E S |
| BMEWO | B M E W |
| IOE2 | I I E E |
| IOE1 | I I I I, but E on the last token before an entity of the same type |

All tags are respelled with the letters of BIOES. Then the entities do not depend on the scheme: an entity ends before a
tag that does not continue it, and after an E. The scheme only says which sequences are valid, so a sequence that is
valid in two schemes has the same entities in both.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from ..alignment import Span, spans_from_tags, tags_from_spans

_TAG = re.compile(r"O|([BIESMLWU])-(.+)", re.DOTALL)
_RESPELLED = dict(zip("BIESMLWU", "BIESIESS", strict=True))


class Scheme(NamedTuple):
    """A tag scheme.

    Attributes:
        name: its name.
        letters: its letters in the order of B, I, E, S.
        encode: the function that tags entities in the letters of BIOES.
        tolerated: a letter that is no error where the scheme has I: B in IOB1 and E in IOE1, which say there what I
            would say. CoNLL-2003 has two of them.
    """

    name: str
    letters: str
    encode: Callable[[list[Span], int], list[str]]
    tolerated: str = ""

    def violations(self, tags: Sequence[str]) -> list[tuple[int, str]]:
        """Return the position of each tag that is not valid at its place, and the tag that would be."""
        valid = self.encode(spans_from_tags(map(respell, tags)), len(tags))
        if self.letters not in "BIES":
            letters = dict(zip("BIES", self.letters))
            valid = [letters.get(tag[0], tag[0]) + tag[1:] for tag in valid]
        if valid == list(tags):
            return []
        return [(i, right) for i, (tag, right) in enumerate(zip(tags, valid, strict=True)) if tag != right]


@lru_cache(maxsize=4096)
def respell(tag: str) -> str:
    """Return a tag of any scheme in the letters of BIOES; raise ValueError if it is not a tag."""
    match = _TAG.fullmatch(tag)
    if not match:
        raise ValueError(f"{tag!r} is not a tag: expected the letter O, or a letter, a hyphen and a type as in B-PS")
    letter, entity_type = match.groups()
    if letter is None:
        return tag
    check_type(entity_type)
    return f"{_RESPELLED[letter]}-{entity_type}"


@lru_cache(maxsize=4096)
def is_tag(tag: str) -> bool:
    """Return whether a string is a tag of any scheme."""
    try:
        respell(tag)
    except ValueError:
        return False
    return True


def check_type(entity_type: str) -> None:
    """Raise ValueError if a string is not the name of one entity type, for example two of them or one with a blank."""
    if not entity_type or entity_type != entity_type.strip() or not entity_type.isprintable():
        raise ValueError(f"the entity type {entity_type!r} is blank, or has blanks at an edge or invisible characters")
    if re.fullmatch("O|[BI]-.+", entity_type):
        raise ValueError(f"the entity type {entity_type!r} is itself a tag: write the type alone")
    if found := re.search("[|;,<>]", entity_type):
        raise ValueError(f"the entity type {entity_type!r} has {found[0]!r} in it: write one type, without such signs")
    if (normal := unicodedata.normalize("NFKC", entity_type)) != entity_type:
        raise ValueError(f"the entity type {entity_type!r} has variants of usual characters: write {normal!r}")


def find_scheme(sentences: Iterable[Sequence[str]]) -> Scheme:
    """Return the first scheme that the tags of a corpus follow, or else the one that the fewest of them violate."""
    sentences = list(sentences)
    violations: dict[Scheme, int] = {}
    for scheme in SCHEMES:
        violations[scheme] = sum(len(scheme.violations(tags)) for tags in sentences)
        if not violations[scheme]:
            return scheme
    return min(violations, key=violations.__getitem__)


def _tag_iob1(spans: list[Span], length: int) -> list[str]:
    return _tag_inside(spans, length, {span.start: "B" for previous, span in pairwise(spans) if _touch(previous, span)})


def _tag_ioe1(spans: list[Span], length: int) -> list[str]:
    return _tag_inside(spans, length, {span.end - 1: "E" for span, after in pairwise(spans) if _touch(span, after)})


def _tag_ioe2(spans: list[Span], length: int) -> list[str]:
    return _tag_inside(spans, length, {span.end - 1: "E" for span in spans})


def _tag_inside(spans: list[Span], length: int, edges: dict[int, str]) -> list[str]:
    """Tag entities with I, except at the `edges`, which have the letters there."""
    tags = enumerate(tags_from_spans(spans, length))
    return [tag if tag == "O" else edges.get(i, "I") + tag[1:] for i, tag in tags]


def _touch(span: Span, following: Span) -> bool:
    return (span.end, span.label) == (following.start, following.label)


def _tag_bioes(spans: list[Span], length: int) -> list[str]:
    return tags_from_spans(spans, length, "BIOES")


SCHEMES = (
    Scheme("BIO", "BI", tags_from_spans),
    Scheme("IOB1", "BI", _tag_iob1, "B"),
    Scheme("BIOES", "BIES", _tag_bioes),
    Scheme("BILOU", "BILU", _tag_bioes),
    Scheme("BMES", "BMES", _tag_bioes),
    Scheme("BMEWO", "BMEW", _tag_bioes),
    Scheme("IOE2", "BIE", _tag_ioe2),
    Scheme("IOE1", "BIE", _tag_ioe1, "E"),
)
"""The tag schemes, in the order in which they are tried."""
