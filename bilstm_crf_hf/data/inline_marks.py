"""Inline marks of entities, such as `<손흥민:PS>은 <춘천:LC>에 있다.`

A mark is `<...:TYPE>` with a type in upper case (`[A-Z][A-Z0-9_]*`) or one of the `entity_types` given. All other `<`
and `>` are text, so `<<레이:PS>>` is an entity in brackets, and `<가람(江<물+길>)시:LC>` one that contains brackets.
White space within a mark belongs to the entity, as in KLUE-NER. What is nearly a mark of a known type is an error, and
so is what could be a mark of another type, such as `<부산:지역>`, unless the `entity_types` are given.
"""

import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ..alignment import Span
from .sentences import Sentence, located

_OPEN, _CLOSE = "\ufdd0", "\ufdd1"  # noncharacters, which stand for the `<` and the `:TYPE>` of a mark
_TO_ASCII = {0xFF01 + i: 0x21 + i for i in range(94)} | str.maketrans("〈〉《》‹›", "<><><>")  # full-width forms


class Marked(NamedTuple):
    """The text of a line without its marks, and the entities that they mark."""

    text: str
    spans: list[Span]


def parse_inline(line: str, entity_types: Collection[str] | None = None) -> Marked:
    """Return the text and the entities of a line such as `<손흥민:PS>은 <춘천:LC>에 있다.`

    Raises:
        ValueError: if a mark is empty or contains another mark, if its type is not among the `entity_types` given, or
            if a part of the line is nearly a mark of one of them, or else of a type in the line, such as `<부산: LC>`.
    """
    sentence, rest = _parse_marks(line, entity_types)
    _check_near_marks(rest, entity_types or {span.label for span in sentence.spans}, entity_types is not None)
    return sentence


def parse_lines(
    path: Path,
    lines: Collection[tuple[int, str]],
    entity_types: Collection[str] | None,
    known_types: Collection[str] = (),
) -> list[Sentence]:
    """Parse lines with inline marks; `known_types` and the types of all lines tell what is nearly a mark."""
    parsed = []
    for number, line in lines:
        with located(f"{path}:{number}"):
            parsed.append(_parse_marks(line, entity_types))
    types = entity_types or {span.label for sentence, _ in parsed for span in sentence.spans}.union(known_types)
    for (number, _), (_, rest) in zip(lines, parsed, strict=True):
        with located(f"{path}:{number}"):
            _check_near_marks(rest, types, entity_types is not None)
    return [Sentence(*sentence) for sentence, _ in parsed]


def _parse_marks(line: str, entity_types: Collection[str] | None) -> tuple[Marked, str]:
    """Return the sentence, and the line with `_OPEN` in place of the `<` of a mark, `_CLOSE` in place of its `:TYPE>`.

    As brackets pair, `<` belongs to the nearest `>` that closes it, so a mark may contain pairs that are text.
    """
    label_pattern = "|".join([*map(re.escape, entity_types or ()), "[A-Z][A-Z0-9_]*"])
    text, rest, spans, position = "", "", [], 0
    brackets: list[int] = []
    for close in re.finditer(rf"<|(?::({label_pattern}))?>", line):
        if close[0] == "<":
            brackets.append(close.start())
            continue
        start, label = brackets.pop() if brackets else None, close[1]
        if start is None or not label:
            continue
        mark, content = line[start : close.end()], line[start + 1 : close.start()]
        if start < position:
            raise ValueError(f"{mark} marks an entity around another one: keep one of the two")
        if entity_types is not None and label not in entity_types:
            remedy = f"add it to entity_types ({', '.join(entity_types)}), or correct it"
            raise ValueError(f"unknown entity type {label} in {mark}: {remedy}")
        if not content.strip():
            raise ValueError(f"{mark} marks no text: remove the mark")
        before = line[position:start]
        text += before
        spans.append(Span(len(text), len(text) + len(content), label))
        text, rest, position = text + content, f"{rest}{before}{_OPEN}{content}{_CLOSE}", close.end()
    return Marked(text + line[position:], spans), rest + line[position:]


def _check_near_marks(rest: str, entity_types: Collection[str], are_all: bool) -> None:
    """Raise ValueError if what [`_parse_marks`] left has a mark of one of `entity_types` with a typing error.

    Unless these `are_all` types, a mark of another one such as `<부산:지역>` is an error, too.
    """
    if entity_types and (near := _near_marks(frozenset(entity_types), are_all).search(rest.translate(_TO_ASCII))):
        found = rest[near.start() : near.end()].replace(_OPEN, "<").replace(_CLOSE, ":...>")
        remedy = "correct it, write other brackets, or name all types in entity_types"
        raise ValueError(f"{found!r} is nearly a mark such as <부산:LC>: {remedy}")


@lru_cache(maxsize=16)
def _near_marks(entity_types: frozenset[str], are_all: bool) -> re.Pattern[str]:
    types = "|".join(sorted(map(re.escape, entity_types), key=len, reverse=True))
    inner = f"[^<>{_OPEN}{_CLOSE}]*"
    other = types if are_all else r"(?:\s*[A-Z][A-Z0-9_]*\s*|[^\W\d_][\w.-]*)?"
    patterns = (
        rf"<{inner}[^\w\s<>]\s*(?i:{types})\s*>",  # <부산: LC>, <부산：LC>, <부산;LC>, <부산:lc>
        rf"<{inner}:\s*(?:{types})(?![A-Za-z0-9_>])",  # <부산:LC는
        rf"[^\s<>]{{0,20}}:\s*(?i:{types})\s*>",  # 부산:LC>
        rf"<(?:{types}):|</(?:{types})>",  # <LC:부산>, <LC>부산</LC>
        rf"<{inner}[\s_](?:{types})>",  # <부산 LC>, <부산_LC>
        rf"&lt;{inner}:(?:{types})&gt;",
        rf"{_OPEN}{inner}[:;]\s*(?:{types})?\s*{_CLOSE}",  # <부산::LC>, <부산:LC:LC>
        rf"<[^\s<>{_OPEN}{_CLOSE}]+{_OPEN}[^>]*$",  # <영화<괴물:LC>
        rf"<{inner}\({inner}{_OPEN}[^()<>{_CLOSE}]*\)[^<>{_CLOSE}]*{_CLOSE}",  # <가람 (江<물+길)시:LC>
        rf"<{inner}[^\s<>][:;](?:{other})>",  # <부산: X>, <부산:지역>, <부산:>
    )
    return re.compile("|".join(patterns))
