"""The morphemes of Korean text by Kiwi, as inputs of taggers. This file is copied into exported model repositories.

Kiwi is a morphological analyser of Korean (the package kiwipiepy). `morpheme_ids`, the inputs of a tagger, hold the
part of speech of each morpheme and a hash of its form, which are the same in all versions of Kiwi. The tag of a
morpheme, which the tagger looks up in its table of nouns, is the cluster of a noun or else the part of speech.
"""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import groupby, islice
from typing import Any
from zlib import crc32

from .alignment import character_ranges
from .threads import lock_of_process, usable_cpus

NUM_CLUSTERS = 256
"""Number of clusters of nouns: family names, politicians, Korean towns, states, firms and units have some each."""

NUM_NOUNS = 2**16
"""Number of rows of a tagger's table of nouns, of which one at least is empty."""

PARTS_OF_SPEECH = (
    *("UN", "NNG", "NNP", "NNB", "VV", "VA", "MAG", "NR", "NP", "VX", "MM", "MAJ", "IC", "XPN", "XSN", "XSV", "XSA"),
    *("XSM", "XR", "VCP", "VCN", "SF", "SP", "SS", "SSO", "SSC", "SE", "SO", "SW", "SB", "SL", "SH", "SN", "W_URL"),
    *("W_EMAIL", "W_MENTION", "W_HASHTAG", "W_SERIAL", "W_EMOJI", "JKS", "JKC", "JKG", "JKO", "JKB", "JKV", "JKQ"),
    *("JX", "JC", "EP", "EF", "EC", "ETN", "ETM", "Z_CODA", "Z_SIOT", "USER0", "USER1", "USER2", "USER3", "USER4"),
)
"""Kiwi's parts of speech, the tag set of the Sejong corpus with additions. Trained models depend on their order."""

PART_OF_SPEECH_IDS = {name: i for i, name in enumerate(PARTS_OF_SPEECH, 1)}
NUM_PARTS_OF_SPEECH = 1 + len(PARTS_OF_SPEECH)


def kiwi():
    """Return Kiwi itself, a `kiwipiepy.Kiwi`; an ImportError if it is missing."""
    with lock_of_process("kiwi"):  # threads must not load one each
        return _kiwi_of_process(os.getpid())


@cache
def _kiwi_of_process(process: int):
    """Return the Kiwi of a process: its threads do not survive a fork."""
    try:
        from kiwipiepy import Kiwi
    except ImportError as error:
        raise ImportError("morphemes need Kiwi: pip install kiwipiepy") from error
    return Kiwi(num_workers=usable_cpus())


def installed_kiwi_version() -> str | None:
    """Return the version of Kiwi's dictionary and language model, or None if Kiwi is missing."""
    found = find_spec("kiwipiepy") and find_spec("kiwipiepy_model")
    return version("kiwipiepy_model") if found else None


def part_of_speech(token) -> str:
    """Return the part of speech of a token of Kiwi without the mark of irregular conjugation, as in `VV-I`."""
    return token.tag.split("-")[0]


def morpheme_hash(morpheme) -> int:
    """Return the hash of the form and part of speech of a morpheme of Kiwi: 31 bits of CRC-32."""
    return crc32(f"{morpheme.form}/{part_of_speech(morpheme)}".encode()) % 2**31


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
    """Return what a tagger reads of the morpheme of each token.

    This is `2 * (NUM_PARTS_OF_SPEECH * hash + id of the part of speech)`, plus 1 within the morpheme. It is 0 without a
    morpheme, and for a part of speech that is not in `PARTS_OF_SPEECH`. As in `alignment.token_tags`, the first
    character of a token decides. There is a text for each row of `offsets`; equal texts that stand side by side, the
    windows of a text, are analysed once.
    """
    rows, remaining = [], iter(offsets)
    distinct = [(text, len(list(windows))) for text, windows in groupby(texts)]
    composed = [_compose(text) for text, _ in distinct]
    for (text, windows), (_, places), found in zip(distinct, composed, analyze(c for c, _ in composed), strict=True):
        at = [0] * (1 + max(places, default=0))
        for start, end, token in found:
            if part := PART_OF_SPEECH_IDS.get(part_of_speech(token)):
                first = 2 * (NUM_PARTS_OF_SPEECH * morpheme_hash(token) + part)
                at[start:end] = [first] + [first + 1] * (end - start - 1)
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
