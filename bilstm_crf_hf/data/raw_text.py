"""Texts without labels, from files."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from datasets import load_dataset

READERS = {".txt": "text", ".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}


def read_texts(path: str, column: str = "text") -> Iterator[str]:
    """The texts of a file, one at a time.

    Args:
        path: a text a line in `.txt`, rows in `.parquet`, `.json`, `.jsonl` or `.csv`; with `:NAME` behind it, from the
            column NAME.
        column: of the text, where `path` names none: strings, or lists of strings to be joined.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown suffix, a column that is not there, a row that is no text.
    """
    if not Path(path).is_file() and ":" in path:
        path, column = path.rsplit(":", 1)
    reader = READERS.get(Path(path).suffix)
    if reader is None:
        raise ValueError(f"{path}: unknown suffix; known are {', '.join(READERS)}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    for i, row in enumerate(load_dataset(reader, data_files=path, split="train", streaming=True)):
        if column not in row:
            raise ValueError(f"{path}: no column {column}; name one of {', '.join(row)}")
        text = "".join(row[column]) if isinstance(row[column], list) else row[column]
        if not isinstance(text, str):
            raise ValueError(f"{path}: row {i}: {column} is no text: {text!r}")
        yield text


def read_all(paths: Iterable[str]) -> list[str]:
    """The texts of several files that have a visible character, in order. A file named twice is read twice."""
    return [text for path in paths for text in read_texts(path) if text.strip()]
