"""Morphemes of Korean text by Kiwi (the extra `morphology`), as spans and as tags of tokens."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec

from .alignment import Span, token_tags


@lru_cache(maxsize=1)
def _analyzer():
    if find_spec("kiwipiepy") is None:
        raise ImportError("morphemes need Kiwi: pip install bilstm-crf-hf[morphology]")
    from kiwipiepy import Kiwi

    return Kiwi()


def morphemes(texts: Iterable[str]) -> Iterator[list[Span]]:
    """The morphemes of each text with their part of speech in the tag set of Sejong, as spans that do not overlap.

    Where a syllable holds the end of one morpheme and the next one (`한` is `하` and `ᆫ`), it goes to the first.
    Irregular conjugation, which Kiwi marks by a suffix (`VV-I`), is left out.

    Raises:
        ImportError: kiwipiepy is missing.
    """
    for tokens in _analyzer().tokenize(texts):
        spans, end = [], 0
        for token in tokens:
            start = max(token.start, end)
            if start < token.end:
                spans.append(Span(start, token.end, token.tag.split("-")[0]))
                end = token.end
        yield spans


def morpheme_tags(texts: Sequence[str], offsets: Sequence[Sequence[tuple[int, int]]]) -> Iterator[list[str | None]]:
    """The BIO tag of each token by the morphemes of its text, see `alignment.token_tags`.

    Args:
        offsets: of the tokens of each text.
    """
    for text, pairs, spans in zip(texts, offsets, morphemes(texts), strict=True):
        yield token_tags(text, pairs, spans)
