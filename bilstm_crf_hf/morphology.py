"""Morphemes of Korean text by Kiwi (the extra `morphology`), as spans and as tags of tokens.

A noun's tag is not its part of speech, but the cluster of nouns of like meaning to which it belongs, by the
similarities that Kiwi's language model sees, or, of names with spaces in them, its class in Wikidata, which Kiwi's
dictionary notes.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from .alignment import Span, token_tags

CLUSTERS = 256
"""Of nouns. Among them are such of family names, of politicians, of Korean towns, of states, of firms, of units."""

ANCHORS = 256
"""Nouns, from the most frequent ones, by whose similarity to it a noun is described."""

KNOWN = 80_000
"""Ids of Kiwi's morphemes, by frequency, among which are all that its language model knows."""

NOUNS = ("NNP", "NNG", "NNB", "XSN", "XR", "SL")


def tag_version() -> tuple:
    """What tags depend on beside the text."""
    return version("kiwipiepy"), CLUSTERS, ANCHORS, KNOWN


@lru_cache(maxsize=1)
def _analyzer():
    if find_spec("kiwipiepy") is None:
        raise ImportError("morphemes need Kiwi: pip install bilstm-crf-hf[morphology]")
    from kiwipiepy import Kiwi

    return Kiwi()


def _dictionary(name: str) -> Iterator[list[str]]:
    """The fields of each entry of a dictionary of Kiwi."""
    import kiwipiepy_model

    path = Path(kiwipiepy_model.get_model_path(), name)
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            yield line.split("\t")


@lru_cache(maxsize=1)
def wikidata_classes() -> dict[str, str]:
    """The class in Wikidata, such as Q5, of names with spaces."""
    return {fields[0]: fields[3].removeprefix("# ") for fields in _dictionary("multi.dict") if len(fields) > 3}


def dictionary_names() -> list[str]:
    """The proper nouns of Kiwi's dictionaries and of its language model that have a Hangul syllable."""
    names = list(wikidata_classes()) + [fields[0] for fields in _dictionary("default.dict") if "NNP" in fields[1]]
    known = map(_analyzer().morpheme, range(KNOWN))
    names += [morpheme.form for morpheme in known if morpheme.tag == "NNP"]
    return [name for name in dict.fromkeys(names) if any("가" <= c <= "힣" for c in name)]


@lru_cache(maxsize=1)
def noun_clusters() -> dict[int, int]:
    """The cluster of each noun that Kiwi's language model knows, by its id in Kiwi: k-means over its similarities to
    the anchors, less their means, at unit length."""
    kiwi = _analyzer()
    nouns = [i for i in range(KNOWN) if kiwi.morpheme(i).tag.split("-")[0] in NOUNS]
    nouns = [i for i in nouns if kiwi.morpheme_similarity(i, i) > 0.5]
    anchors = nouns[:: max(1, min(len(nouns), 20_000) // ANCHORS)][:ANCHORS]
    profiles = np.array([[kiwi.morpheme_similarity(i, j) for j in anchors] for i in nouns], np.float32)
    profiles -= profiles.mean(0)
    profiles /= np.linalg.norm(profiles, axis=1, keepdims=True) + 1e-6
    means = MiniBatchKMeans(CLUSTERS, random_state=0, n_init=3, batch_size=4096).fit(profiles)
    return dict(zip(nouns, means.labels_.tolist(), strict=True))


def names_like(mentions: Collection[str]) -> dict[str, list[list[str]]]:
    """The morphemes of each mention of an entity, and of each the texts that may stand in its place: of a proper noun
    the names that have its tag, which are those of its cluster or class, else itself. Mentions without a proper noun
    are left out.

    Raises:
        ImportError: kiwipiepy is missing.
    """
    kiwi, names = _analyzer(), dictionary_names()
    by_tag: dict[str, list[str]] = {}
    for name, tokens in zip(names, kiwi.tokenize(names), strict=True):
        if len(tokens) == 1 and tokens[0].form == name:
            by_tag.setdefault(_tag(tokens[0]), []).append(name)
    found = {}
    for mention, tokens in zip(mentions, kiwi.tokenize(mentions), strict=True):
        parts, end = [], 0
        for token in tokens:
            if token.tag == "NNP" and token.start >= end:
                parts += [[mention[end : token.start]], by_tag.get(_tag(token), [token.form])]
                end = token.end
        if end:
            found[mention] = [*parts, [mention[end:]]]
    return found


def _tag(token) -> str:
    tag = token.tag.split("-")[0]  # without the mark of irregular conjugation, `VV-I`
    if tag in NOUNS and (cluster := noun_clusters().get(token.id)) is not None:
        return str(cluster)
    return wikidata_classes().get(token.form, tag) if tag == "NNP" else tag


def morphemes(texts: Iterable[str]) -> Iterator[list[Span]]:
    """The morphemes of each text with their tags, as spans that do not overlap.

    Other tags than those of nouns are parts of speech in the tag set of Sejong. Where a syllable holds the end of one
    morpheme and the next one (`한` is `하` and `ᆫ`), it goes to the first.

    Raises:
        ImportError: kiwipiepy is missing.
    """
    for tokens in _analyzer().tokenize(texts):
        spans, end = [], 0
        for token in tokens:
            start = max(token.start, end)
            if start < token.end:
                spans.append(Span(start, token.end, _tag(token)))
                end = token.end
        yield spans


def morpheme_tags(texts: Sequence[str], offsets: Sequence[Sequence[tuple[int, int]]]) -> Iterator[list[str | None]]:
    """The BIO tag of each token by the morphemes of its text, see `alignment.token_tags`.

    Args:
        offsets: of the tokens of each text.
    """
    for text, pairs, spans in zip(texts, offsets, morphemes(texts), strict=True):
        yield token_tags(text, pairs, spans)
