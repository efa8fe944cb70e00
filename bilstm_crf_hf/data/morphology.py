"""Kinds of morphemes by Kiwi (the extra `morphology`): tags of tokens for pretraining, and names of the same kind.

The tag of a noun is its cluster of nouns of similar meaning, by the similarities of Kiwi's language model, or, for a
name with spaces, the class in Wikidata that Kiwi's dictionary notes. Other tags are parts of speech (Sejong tag set).
All functions raise ImportError if kiwipiepy is missing.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from ..alignment import Span, token_tags
from ..morphemes import (
    NUM_CLUSTERS,
    NUM_NOUNS,
    analyze,
    installed_kiwi_version,
    kiwi,
    morpheme_hash,
    part_of_speech,
)
from .encoding import cached_rows
from .lines import read_lines

NUM_MORPHEMES = 80_000
"""Number of Kiwi's ids, by frequency, that are considered; they include all that Kiwi's language model knows."""

NUM_ANCHORS = 256
"""Number of nouns, evenly from the most frequent ones, whose similarities to a noun describe it."""

NOUNS = ("NNP", "NNG", "NNB", "XSN", "XR", "SL")
"""Parts of speech that are clustered."""


def morphology_version() -> tuple:
    """Return all that tags depend on beside the text, for the keys of caches."""
    return installed_kiwi_version(), NUM_CLUSTERS, NUM_ANCHORS, NUM_MORPHEMES


def _dictionary(name: str) -> Iterator[list[str]]:
    """Yield the fields of each entry of a dictionary of Kiwi."""
    import kiwipiepy_model

    path = Path(kiwipiepy_model.get_model_path(), name)
    for number, line in enumerate(read_lines(path), 1):
        if line and not line.startswith("#"):
            fields = line.split("\t")
            if len(fields) < 2:
                raise ValueError(f"{path}:{number}: expected a word, a tab and its tag: install kiwipiepy_model again")
            yield fields


@lru_cache(maxsize=1)
def wikidata_classes() -> dict[str, str]:
    """Return the class in Wikidata, such as Q5, of each name with spaces."""
    return {fields[0]: fields[3].removeprefix("# ") for fields in _dictionary("multi.dict") if len(fields) > 3}


def dictionary_names() -> list[str]:
    """Return the proper nouns of Kiwi's dictionaries and language model that have a Hangul syllable."""
    names = list(wikidata_classes()) + [fields[0] for fields in _dictionary("default.dict") if "NNP" in fields[1]]
    known = map(kiwi().morpheme, range(NUM_MORPHEMES))
    names += [morpheme.form for morpheme in known if morpheme.tag == "NNP"]
    return [name for name in dict.fromkeys(names) if any("가" <= c <= "힣" for c in name)]


@lru_cache(maxsize=1)
def noun_clusters() -> dict[int, int]:
    """Return the cluster of each noun that Kiwi's language model knows, by Kiwi's id; cached on disk."""
    rows = cached_rows(morphology_version(), _cluster_nouns)
    return dict(zip(rows["id"][:], rows["cluster"][:], strict=True))


def _cluster_nouns() -> dict[str, list[int]]:
    """Cluster nouns by k-means over their similarities to the anchors, centred and scaled to unit length."""
    model = kiwi()
    nouns = [i for i in range(NUM_MORPHEMES) if part_of_speech(model.morpheme(i)) in NOUNS]
    nouns = [i for i in nouns if model.morpheme_similarity(i, i) > 0.5][: NUM_NOUNS - 1]
    anchors = nouns[:: max(1, min(len(nouns), 20_000) // NUM_ANCHORS)][:NUM_ANCHORS]
    profiles = np.array([[model.morpheme_similarity(i, j) for j in anchors] for i in nouns], np.float32)
    profiles -= profiles.mean(0)
    profiles /= np.linalg.norm(profiles, axis=1, keepdims=True) + 1e-6
    means = MiniBatchKMeans(NUM_CLUSTERS, random_state=0, n_init=3, batch_size=4096).fit(profiles)
    return {"id": nouns, "cluster": means.labels_.tolist()}


def similar_names(mentions: Collection[str]) -> dict[str, list[list[str]]]:
    """Return the parts of each mention of an entity, and for each part the texts that may replace it.

    A proper noun may be replaced by the names that have its tag, any other part by itself alone. Mentions without a
    proper noun are left out.
    """
    names = dictionary_names()
    by_tag: dict[str, list[str]] = {}
    for name, tokens in zip(names, kiwi().tokenize(names), strict=True):
        if len(tokens) == 1 and tokens[0].form == name:
            by_tag.setdefault(_morpheme_tag(tokens[0]), []).append(name)
    found = {}
    for mention, tokens in zip(mentions, kiwi().tokenize(mentions), strict=True):
        parts, end = [], 0
        for token in tokens:
            if token.tag == "NNP" and token.start >= end:
                parts += [[mention[end : token.start]], by_tag.get(_morpheme_tag(token), [token.form])]
                end = token.end
        if end:
            found[mention] = [*parts, [mention[end:]]]
    return found


def clusters_by_hash() -> dict[int, int]:
    """Return the cluster of each noun that Kiwi's language model knows, by `morpheme_hash`."""
    nouns = ((kiwi().morpheme(i), cluster) for i, cluster in noun_clusters().items())
    return {morpheme_hash(noun): cluster for noun, cluster in nouns if noun.form}


def _morpheme_tag(token) -> str:
    tag = part_of_speech(token)
    if tag in NOUNS and (cluster := noun_clusters().get(token.id)) is not None:
        return str(cluster)
    return wikidata_classes().get(token.form, tag) if tag == "NNP" else tag


def morpheme_spans(texts: Iterable[str]) -> Iterator[list[Span]]:
    """Yield the morphemes of each text with their tags, as spans that do not overlap."""
    for found in analyze(texts):
        yield [Span(start, end, _morpheme_tag(token)) for start, end, token in found]


def morpheme_tags(texts: Sequence[str], offsets: Sequence[Sequence[tuple[int, int]]]) -> Iterator[list[str | None]]:
    """Yield the BIO tags of the tokens of each text, which have these `offsets`, by its morphemes."""
    for text, pairs, spans in zip(texts, offsets, morpheme_spans(texts), strict=True):
        yield token_tags(text, pairs, spans)
