"""What kinds of morphemes there are, by Kiwi (the extra `morphology`): tags of tokens, and names of like kind.

A noun's tag is not its part of speech, but the cluster of nouns of like meaning to which it belongs, by the
similarities that Kiwi's language model sees, or, of names with spaces in them, its class in Wikidata, which Kiwi's
dictionary notes. Other tags are parts of speech in the tag set of Sejong.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans

from ..alignment import Span, token_tags
from ..morphemes import (
    CLUSTERS,
    KNOWN,
    PARTS_OF_SPEECH,
    analyze,
    analyzer,
    installed_version,
    part_of_speech,
    parts_of_speech,
)
from .encoding import cached_rows

ANCHORS = 256
"""Nouns, from the most frequent ones, by whose similarity to it a noun is described."""

NOUNS = ("NNP", "NNG", "NNB", "XSN", "XR", "SL")


def tag_version() -> tuple:
    """What tags depend on beside the text."""
    return installed_version(), CLUSTERS, ANCHORS, KNOWN


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
    known = map(analyzer().morpheme, range(KNOWN))
    names += [morpheme.form for morpheme in known if morpheme.tag == "NNP"]
    return [name for name in dict.fromkeys(names) if any("가" <= c <= "힣" for c in name)]


@lru_cache(maxsize=1)
def noun_clusters() -> dict[int, int]:
    """The cluster of each noun that Kiwi's language model knows, by its id in Kiwi; kept in the cache of `datasets`."""
    rows = cached_rows(tag_version(), _cluster)
    return dict(zip(rows["id"][:], rows["cluster"][:], strict=True))


def _cluster() -> dict[str, list[int]]:
    """By k-means over a noun's similarities to the anchors, less their means, at unit length."""
    kiwi = analyzer()
    nouns = [i for i in range(KNOWN) if part_of_speech(kiwi.morpheme(i)) in NOUNS]
    nouns = [i for i in nouns if kiwi.morpheme_similarity(i, i) > 0.5]
    anchors = nouns[:: max(1, min(len(nouns), 20_000) // ANCHORS)][:ANCHORS]
    profiles = np.array([[kiwi.morpheme_similarity(i, j) for j in anchors] for i in nouns], np.float32)
    profiles -= profiles.mean(0)
    profiles /= np.linalg.norm(profiles, axis=1, keepdims=True) + 1e-6
    means = MiniBatchKMeans(CLUSTERS, random_state=0, n_init=3, batch_size=4096).fit(profiles)
    return {"id": nouns, "cluster": means.labels_.tolist()}


def names_like(mentions: Collection[str]) -> dict[str, list[list[str]]]:
    """The morphemes of each mention of an entity, and of each the texts that may stand in its place: of a proper noun
    the names that have its tag, which are those of its cluster or class, else itself. Mentions without a proper noun
    are left out.

    Raises:
        ImportError: kiwipiepy is missing.
    """
    kiwi, names = analyzer(), dictionary_names()
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


def morpheme_table() -> torch.Tensor:
    """The tag of each id of Kiwi, (KNOWN,) integers: the cluster of a noun, else, behind them, the part of speech.

    Raises:
        ImportError: kiwipiepy is missing.
    """
    kiwi, clusters, ids = analyzer(), noun_clusters(), parts_of_speech()
    tags = [CLUSTERS + ids.get(part_of_speech(kiwi.morpheme(i)), 0) for i in range(KNOWN)]
    return torch.tensor([tag if i < PARTS_OF_SPEECH else clusters.get(i, tag) for i, tag in enumerate(tags)])


def _tag(token) -> str:
    tag = part_of_speech(token)
    if tag in NOUNS and (cluster := noun_clusters().get(token.id)) is not None:
        return str(cluster)
    return wikidata_classes().get(token.form, tag) if tag == "NNP" else tag


def morphemes(texts: Iterable[str]) -> Iterator[list[Span]]:
    """The morphemes of each text with their tags, as spans that do not overlap: see `morphemes.analyze`.

    Raises:
        ImportError: kiwipiepy is missing.
    """
    for found in analyze(texts):
        yield [Span(start, end, _tag(token)) for start, end, token in found]


def morpheme_tags(texts: Sequence[str], offsets: Sequence[Sequence[tuple[int, int]]]) -> Iterator[list[str | None]]:
    """The BIO tag of each token by the morphemes of its text, see `alignment.token_tags`.

    Args:
        offsets: of the tokens of each text.
    """
    for text, pairs, spans in zip(texts, offsets, morphemes(texts), strict=True):
        yield token_tags(text, pairs, spans)
