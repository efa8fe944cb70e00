"""Documents: the neighbouring sentences of each one, which a tagger reads as context but does not label."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

DOCUMENT_COLUMNS = ("document_id", "doc_id")
"""The columns of rows that name the document of a sentence."""


class Context(NamedTuple):
    """The text that stands before a sentence and that behind it, each with the space that joins it to the sentence."""

    before: str = ""
    after: str = ""


def document_of(columns: Mapping[str, Any]) -> str | int | None:
    """Return the document that a row names, None if it names none; raise ValueError if it is no string or integer."""
    for name in DOCUMENT_COLUMNS:
        if (document := columns.get(name)) is not None:
            if not isinstance(document, str | int):
                raise ValueError(f"column {name} holds {document!r:.80}; expected a string or an integer")
            return document
    return None


def with_context(sentences: Iterable[tuple[T, str, Hashable]], size: int) -> Iterator[tuple[T, Context]]:
    """Yield each sentence with up to `size` neighbours of the same document on either side, joined by spaces.

    Args:
        sentences: anything that stands for a sentence, its text, and its document. Of a stream, one document is held in
            memory.

    Raises:
        ValueError: if a sentence has no document, or the sentences of a document do not stand side by side.
    """
    seen = set()
    for document, group in groupby(sentences, itemgetter(2)):
        if document is None:
            marks = f"lines -DOCSTART- or # newdoc, or a column {' or '.join(DOCUMENT_COLUMNS)}"
            raise ValueError(f"a sentence has no document, which document_context calls for: mark them by {marks}")
        if document in seen:
            problem = f"the document {document!r} begins a second time"
            raise ValueError(f"{problem}: put the sentences of a document side by side, in their order")
        seen.add(document)
        members = list(group)
        texts = [text for _, text, _ in members]
        for i, (sentence, _, _) in enumerate(members):
            before, after = texts[max(0, i - size) : i], texts[i + 1 : i + 1 + size]
            yield sentence, Context("".join(f"{text} " for text in before), "".join(f" {text}" for text in after))
