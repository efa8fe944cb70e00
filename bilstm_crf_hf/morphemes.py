"""The morphemes of Korean text by Kiwi, as inputs of taggers. This file is copied into exported model repositories.

Kiwi is a morphological analyser of Korean (the package kiwipiepy). Four words are used for its parts in one sense each:
`kiwi_version`, the version of its dictionary and language model; `morpheme_ids`, the inputs of a tagger; the tag of a
morpheme, its part of speech or, of a noun, its cluster; `morpheme_table`, the tag of each of Kiwi's ids.
"""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import groupby, islice
from typing import Any

from .alignment import character_ranges

NUM_CLUSTERS = 256
"""Number of clusters of nouns: family names, politicians, Korean towns, states, firms and units have some each."""

NUM_MORPHEMES = 80_000
"""Number of Kiwi's ids, by frequency, that a tagger knows; they include all that Kiwi's language model knows."""

NUM_PARTS_OF_SPEECH = 61
"""Number of the first ids, which are morphemes without a form: one for each part of speech, or mark of one."""


def kiwi():
    """Return Kiwi itself, a `kiwipiepy.Kiwi`; an ImportError if it is missing."""
    return _kiwi_of_process(os.getpid())


@cache
def _kiwi_of_process(process: int):
    """Return the Kiwi of a process: its threads do not survive a fork."""
    try:
        from kiwipiepy import Kiwi
    except ImportError as error:
        raise ImportError("morphemes need Kiwi: pip install kiwipiepy") from error
    return Kiwi()


def installed_kiwi_version() -> str | None:
    """Return the version of `kiwipiepy_model`, by which the ids of morphemes have their meaning, or None."""
    found = find_spec("kiwipiepy") and find_spec("kiwipiepy_model")
    return version("kiwipiepy_model") if found else None


def missing_kiwi(kiwi_version: str) -> str | None:
    """Return what to do if this version of `kiwipiepy_model` is not installed, or None if it is."""
    if (installed := installed_kiwi_version()) == kiwi_version:
        return None
    return (
        f"the model reads morphemes of kiwipiepy_model {kiwi_version}, and {installed or 'none'} is installed: "
        f"pip install kiwipiepy kiwipiepy_model=={kiwi_version}"
    )


def check_version(kiwi_version: str) -> None:
    """Raise an ImportError if the morphemes of this version cannot be computed here; exported graphs call this."""
    if reason := missing_kiwi(kiwi_version):
        raise ImportError(reason)


@lru_cache(maxsize=1)
def part_of_speech_ids() -> dict[str, int]:
    """Return the id of each part of speech in the tag set of the Sejong corpus."""
    return {kiwi().morpheme(i).tag: i for i in range(1, NUM_PARTS_OF_SPEECH)}


def part_of_speech(token) -> str:
    """Return the part of speech of a token of Kiwi without the mark of irregular conjugation, as in `VV-I`."""
    return token.tag.split("-")[0]


def analyze(texts: Iterable[str]) -> Iterator[list[tuple[int, int, Any]]]:
    """Yield the morphemes of each text, as the characters `[start, end)` that each has to itself and Kiwi's token.

    A syllable that holds the end of a morpheme and the beginning of the next one (`한` is `하` and `ᆫ`) belongs to the
    first.
    """
    for tokens in kiwi().tokenize(texts):
        found, end = [], 0
        for token in tokens:
            start = max(token.start, end)
            if start < token.end:
                end = token.end
                found.append((start, end, token))
        yield found


def morpheme_ids(texts: Sequence[str], offsets: Sequence[Sequence[tuple[int, int]]]) -> list[list[int]]:
    """Return what a tagger reads of the morpheme of each token: 0 without one, else `1 + 2 * id`, plus 1 within it.

    The id is Kiwi's, or that of the part of speech if Kiwi's is not below `NUM_MORPHEMES`. As in
    `alignment.token_tags`, the first character of a token decides. There is a text for each row of `offsets`; equal
    texts that stand side by side, the windows of a text, are analysed once.
    """
    rows, remaining = [], iter(offsets)
    distinct = [(text, len(list(windows))) for text, windows in groupby(texts)]
    composed = [_compose(text) for text, _ in distinct]
    for (text, windows), (_, places), found in zip(distinct, composed, analyze(c for c, _ in composed), strict=True):
        at = [0] * (1 + max(places, default=0))
        for start, end, token in found:
            known = token.id if token.id < NUM_MORPHEMES else part_of_speech_ids()[part_of_speech(token)]
            at[start:end] = [1 + 2 * known] + [2 + 2 * known] * (end - start - 1)
        for pairs in islice(remaining, windows):
            rows.append([at[places[start]] if start < end else 0 for start, end in character_ranges(text, pairs)])
    return rows


def _compose(text: str) -> tuple[str, Sequence[int]]:
    """Return `text` in NFC, which Kiwi expects, and for each character of `text` its index there."""
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
