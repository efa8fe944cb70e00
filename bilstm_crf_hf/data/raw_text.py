"""Unlabelled texts from files."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from .rows import read_rows, text_of, words_of
from .sentences import TOKEN_UNITS, token_unit_of

logger = logging.getLogger(__name__)


def read_texts(path: str, column: str = "text") -> Iterator[str]:
    """Read the texts of a file as a stream.

    `path` is a file of any type in `rows.READERS`, or `FILE:COLUMN`. Lists of strings in the column are joined,
    by a space unless each string is a character.

    Raises:
        FileNotFoundError, ImportError, ValueError: see [`rows.read_rows`]; if a row has no text in this column.
    """
    if not Path(path).exists() and ":" in path:
        path, column = path.rsplit(":", 1)
    for row in read_rows(path):
        words = words_of(row, column)
        yield text_of(row, column) if words is None else TOKEN_UNITS[token_unit_of(words)[0]].join(words)


def read_all(paths: Iterable[str]) -> list[str]:
    """Return the texts of several files, in order. A file named twice is read twice.

    Texts without a visible character are dropped, and a warning counts them.
    """
    texts = []
    for path in paths:
        of_file = list(read_texts(path))
        visible = [text for text in of_file if text.strip()]
        if len(visible) < len(of_file):
            logger.warning("%s: dropped %d texts without a visible character", path, len(of_file) - len(visible))
        texts += visible
    return texts
