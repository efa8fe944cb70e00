"""Texts of the rows of a file: strings, or lists of words, which are joined, and the sentences around them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from ..data.documents import Context, document_of, with_context
from ..data.layouts import conll_rows
from ..data.rows import READERS, Row, find_column, read_rows, text_of, words_of
from ..data.sentences import TOKEN_UNITS, located

COLUMNS = ".conll"
"""Suffix of files with a word a line and blank lines between sentences."""

INPUT_SUFFIXES = (*READERS, COLUMNS)
"""Suffixes of files of texts."""

TEXT_COLUMNS = ("text", "tokens", "words")
"""Columns that may hold the texts if the caller names none."""


@dataclass(frozen=True)
class TextOptions:
    """The options of [`Texts`].

    Attributes:
        text_column: the column of strings, or of lists of words. Default: the first of `TEXT_COLUMNS` in the first row.
        token_unit: `word` joins words by a space, `character` without one; `auto` leaves it to all words of the file,
            see [`sentences.token_unit_of`].
        document_context: number of sentences of the same document on either side that are read with each one, see
            [`documents.with_context`].
        token_column: column of the words in a file with a word a line, from 0, or from the end. Default: 0.
        return_tags: whether each word is to have a tag, see [`entities.tags_of_words`].
    """

    text_column: str | None = None
    token_unit: str = "auto"
    document_context: int = 0
    token_column: int | None = None
    return_tags: bool = False


class Texts:
    """The texts of a file.

    Attributes:
        options: the options, with the name of the column.
        token_unit: what words are; with `auto`, they are joined by nothing until somebody who has seen all sets it.

    Raises:
        ValueError: if no column is named and there is none of `TEXT_COLUMNS`, or if `token_column` is not for the file.
    """

    def __init__(self, source: Path, options: TextOptions) -> None:
        self.source, self.options, self.token_unit = source, options, options.token_unit
        if options.token_column is not None and source.suffix.lower() != COLUMNS:
            raise ValueError(
                f"{source}: token_column is for {COLUMNS} files: name the column of the words in text_column"
            )
        if options.text_column is None:
            first = list(islice(self._read(), 1))
            column = find_column(first, None, TEXT_COLUMNS, str(source)) if first else TEXT_COLUMNS[0]
            self.options = replace(options, text_column=column)

    def rows(self) -> Iterator[tuple[Row, Context]]:
        """Read the rows with the texts of their neighbours, which are empty without a `document_context`.

        Raises:
            ValueError: see [`rows.read_rows`], [`layouts.conll_rows`] and [`with_context`].
        """
        if not self.options.document_context:
            yield from ((row, Context()) for row in self._read())
            return
        with located(str(self.source)):
            yield from with_context(self._sentences(), self.options.document_context)

    def words(self, row: Row) -> list[str] | None:
        """Return the words of a row, None if it has a text; raise ValueError with its place if words are called for."""
        words = words_of(row, self._column)
        if words is None and self.options.return_tags:
            text_of(row, self._column)
            problem = f"column {self._column} holds a text, and tags are for a list of words"
            raise ValueError(f"{row.place}: {problem}: name the column of words in text_column")
        return words

    def text(self, row: Row) -> str:
        """Return the text of a row, words joined; raise ValueError with its place if it has none."""
        words = self.words(row)
        return text_of(row, self._column) if words is None else self.joiner.join(words)

    @property
    def joiner(self) -> str:
        """Return the string between two words."""
        return TOKEN_UNITS.get(self.token_unit, "")

    @property
    def _column(self) -> str:
        return self.options.text_column or TEXT_COLUMNS[0]

    def _read(self) -> Iterator[Row]:
        if self.source.suffix.lower() == COLUMNS:
            return conll_rows(self.source, self.options.token_column)
        return read_rows(self.source)

    def _sentences(self) -> Iterator[tuple[Row, str, str | int | None]]:
        for row in self._read():
            with located(row.place):
                document = document_of(row.columns)
            yield row, self.text(row), document
