"""The morphemes of Korean text by Kiwi, as inputs of taggers. This file is copied into exported model repositories."""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import groupby, islice
from typing import Any

from .alignment import character_ranges

CLUSTERS = 256
"""Of nouns. Among them are such of family names, of politicians, of Korean towns, of states, of firms, of units."""

KNOWN = 80_000
"""Ids of Kiwi's morphemes, by frequency, among which are all that its language model knows."""

PARTS_OF_SPEECH = 61
"""The first ids are morphemes without a form: one for each part of speech, or mark of one."""


def analyzer():
    """Kiwi itself, a `kiwipiepy.Kiwi`.

    Raises:
        ImportError: kiwipiepy is missing.
    """
    return _kiwi(os.getpid())


@cache
def _kiwi(process: int):
    """That of a process: its threads do not live on in a fork."""
    try:
        from kiwipiepy import Kiwi
    except ImportError as error:
        raise ImportError("morphemes need Kiwi: pip install kiwipiepy") from error
    return Kiwi()


def installed_version() -> str | None:
    """Of Kiwi's dictionary and language model, by which the ids of morphemes have their meaning."""
    found = find_spec("kiwipiepy") and find_spec("kiwipiepy_model")
    return version("kiwipiepy_model") if found else None


def missing(wanted: str) -> str | None:
    """What to do about it, if the morphemes of this version of `kiwipiepy_model` are not to be had here."""
    if (installed := installed_version()) == wanted:
        return None
    return (
        f"the model reads morphemes of kiwipiepy_model {wanted}, and {installed or 'none'} is installed: "
        f"pip install kiwipiepy kiwipiepy_model=={wanted}"
    )


def check_version(wanted: str) -> None:
    """
    Raises:
        ImportError: the morphemes of this version are not to be had here.
    """
    if reason := missing(wanted):
        raise ImportError(reason)


@lru_cache(maxsize=1)
def parts_of_speech() -> dict[str, int]:
    """The id of each part of speech in the tag set of Sejong."""
    return {analyzer().morpheme(i).tag: i for i in range(1, PARTS_OF_SPEECH)}


def part_of_speech(token) -> str:
    """Without the mark of irregular conjugation, as in `VV-I`."""
    return token.tag.split("-")[0]


def analyze(texts: Iterable[str]) -> Iterator[list[tuple[int, int, Any]]]:
    """The morphemes of each text, each with the characters `[start, end)` that it has to itself.

    Where a syllable holds the end of one morpheme and the next one (`한` is `하` and `ᆫ`), it goes to the first.

    Raises:
        ImportError: kiwipiepy is missing.
    """
    for tokens in analyzer().tokenize(texts):
        found, end = [], 0
        for token in tokens:
            start = max(token.start, end)
            if start < token.end:
                end = token.end
                found.append((start, end, token))
        yield found


def morpheme_ids(texts: Sequence[str], offsets: Sequence[Sequence[tuple[int, int]]]) -> list[list[int]]:
    """What a tagger reads of the morpheme of each token: 0 if there is none, else `1 + 2 * id`, and 1 more within it.

    The id is Kiwi's, or that of the part of speech if it is not among the `KNOWN` ones. As in `alignment.token_tags`,
    the first character of a token decides.

    Args:
        offsets: of the tokens of each text.

    Raises:
        ImportError: kiwipiepy is missing.
    """
    rows, remaining = [], iter(offsets)
    same = [(text, len(list(windows))) for text, windows in groupby(texts)]  # windows of a text stand side by side
    composed = [_composed(text) for text, _ in same]
    for (text, windows), (_, places), found in zip(same, composed, analyze(c for c, _ in composed), strict=True):
        at = [0] * (1 + max(places, default=0))
        for start, end, token in found:
            known = token.id if token.id < KNOWN else parts_of_speech()[part_of_speech(token)]
            at[start:end] = [1 + 2 * known] + [2 + 2 * known] * (end - start - 1)
        for pairs in islice(remaining, windows):
            rows.append([at[places[start]] if start < end else 0 for start, end in character_ranges(text, pairs)])
    return rows


def _composed(text: str) -> tuple[str, Sequence[int]]:
    """`text` in NFC, as Kiwi wants it, and of each of its characters the place there."""
    if unicodedata.is_normalized("NFC", text):
        return text, range(len(text))
    characters, places = [""], []
    for character in text:
        joined = unicodedata.normalize("NFC", characters[-1] + character)
        if len(joined) == 1:
            characters[-1] = joined
        else:
            characters.append(character)
        places.append(len(characters) - 1)
    return "".join(characters), places
