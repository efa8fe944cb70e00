r"""The one reader of files with rows, for NER, classification, raw text and prediction.

| suffix | rows |
| --- | --- |
| `.txt` | a text a line, in the column `text`; a blank line is an empty text |
| `.jsonl`, `.json` | an object a line, or one array of objects |
| `.csv` | fields between commas below a header, quoted where necessary |
| `.tsv` | fields between tabs below a header; quotation marks are part of the text |
| `.parquet`, or a folder of such files | rows with the column types that the files store |
| `.xlsx` | rows of the first visible sheet below a header, if openpyxl is installed |

To add a file type, write a function that yields its rows and add it to `READERS`. A path is a name, never a pattern.
Strings stay as they are: `NA`, `007` or a date is a text like any other. Text files are UTF-8, with or without a byte
order mark. Their lines end with `\n` or `\r\n` only; `str.splitlines` would also split at characters that a text may
contain. Blank lines, except in `.txt`, and empty rows of a sheet are skipped.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features

from .lines import PathLike, lines_with_ends, read_lines
from .tables import BATCH_SIZE, parquet_files, parquet_rows, read_features, sheet_rows

MAX_DEPTH = 60
"""Number of lists and objects that may be nested in a row; Arrow cannot hold more than 64."""


class Row(NamedTuple):
    """A row of a file or of a data set.

    Attributes:
        place: file and line from 1 (`a.csv:12`), or file and row (`a.parquet: row 3`), for error messages. Rows count
            from 0, those of a sheet as the sheet numbers them. A row of several lines has the number of its last line.
        columns: the values by column name.
    """

    place: str
    columns: dict[str, Any]


def read_rows(path: PathLike, suffix: str | None = None) -> Iterator[Row]:
    """Read the rows of a file of type `suffix`, or of a folder of Parquet files, as a stream.

    Only a JSON array or a sheet is held in memory as a whole.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ImportError: if the file is a sheet and openpyxl is not installed.
        OSError: if the file cannot be opened.
        ValueError: if the suffix is unknown, or this is a pipe; with line or row, if the file is not of this type or a
            row not valid.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_dir():
        return _read_parquet(path)
    read = READERS[suffix or check_suffix(path, READERS)]
    if not path.is_file():
        raise ValueError(f"{path}: a pipe or device, which can be read only once: write its content to a file")
    return read(path)


def check_suffix(path: Path, known: Iterable[str]) -> str:
    """Return the suffix of a file in lower case; raise ValueError if it is not among the `known` ones."""
    suffix = path.suffix.lower()
    if suffix not in known:
        raise ValueError(f"{path}: unknown suffix {path.suffix!r}; known are {', '.join(known)}")
    return suffix


def dataset_rows(dataset: Dataset, source: str) -> Iterator[Row]:
    """Read the rows of a data set, which errors call `source`. Values are those of Arrow: labels are ids."""
    tables: Iterable[pa.Table] = dataset.with_format("arrow").iter(BATCH_SIZE)
    return _numbered((row for table in tables for row in table.to_pylist()), source)


def typed_rows(data: Path | Dataset, source: str, suffix: str | None = None) -> tuple[list[Row], Features]:
    """Return the rows of a file or data set with the column types that it stores, as the functions above read them."""
    if isinstance(data, Dataset):
        return list(dataset_rows(data, source)), data.features
    return list(read_rows(data, suffix)), read_features(data)


def class_label(features: Features, column: str) -> ClassLabel | None:
    """Return the `ClassLabel` of a column of labels, or of lists of labels; None if it has none."""
    feature = features.get(column)
    feature = getattr(feature, "feature", feature)
    return feature if isinstance(feature, ClassLabel) else None


def find_column(rows: Iterable[Row], name: str | None, defaults: Sequence[str], source: str) -> str:
    """Return `name`, or the first of `defaults` if it is None, that is a column of a row; else raise ValueError."""
    columns = dict.fromkeys(chain.from_iterable(row.columns for row in rows))
    wanted = defaults if name is None else [name]
    for column in wanted:
        if column in columns:
            return column
    problem = f"no column {' or '.join(wanted)}; its columns are {', '.join(columns)}"
    raise ValueError(f"{source}: {problem}: name one of them in the argument for the column")


def text_of(row: Row, column: str) -> str:
    """Return the text in a column of a row; raise ValueError with its place if there is no such column or no string."""
    text = row.columns.get(column)
    if isinstance(text, str):
        return text
    find_column([row], column, (), row.place)
    raise ValueError(f"{row.place}: column {column} holds {shown(text)}, not a string: correct or remove the row")


def words_of(row: Row, column: str) -> list[str] | None:
    """Return the words in a column of a row, None if it holds no list; raise ValueError with the place of no string."""
    words = row.columns.get(column)
    if not isinstance(words, list):
        return None
    for i, word in enumerate(words):
        if not isinstance(word, str):
            problem = f"word {i} of column {column} is {shown(word)}, not a string"
            raise ValueError(f"{row.place}: {problem}: correct it, or remove the row")
    return words


def shown(value: Any) -> str:
    """Return the beginning of a value as JSON, for an error message."""
    return json.dumps(value, ensure_ascii=False, default=repr)[:80]


def parse_json(document: str) -> Any:
    """Return the value of a JSON document.

    Raises:
        ValueError: if it is not JSON (a `json.JSONDecodeError` with the line), is nested too deeply or has a very long
            integer. [`check_json`] checks the rest.
    """
    try:
        return _DECODER.decode(document)
    except RecursionError:
        raise ValueError("too many lists or objects in each other") from None


def check_json(value: Any, depth: int = MAX_DEPTH) -> None:
    """Raise ValueError if a value that [`parse_json`] returned is one that JSON or Arrow cannot hold.

    These are objects with a key that occurs twice, NaN, infinite numbers, and more than `depth` values in each other.
    """
    if isinstance(value, _RepeatedKey):
        raise ValueError(f"the key {value.key!r} occurs twice in an object: remove one")
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"{value} is not a number in JSON, or too large: correct it, or write null")
    if isinstance(value, dict | list):
        if not depth:
            raise ValueError(f"more than {MAX_DEPTH} lists or objects in each other")
        for item in value.values() if isinstance(value, dict) else value:
            if not isinstance(item, str | int):
                check_json(item, depth - 1)


class _RepeatedKey(dict):
    """An object in which `key` occurs twice."""

    key: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    columns = dict(pairs)
    if len(columns) == len(pairs):
        return columns
    repeated = _RepeatedKey(columns)
    repeated.key = Counter(key for key, _ in pairs).most_common(1)[0][0]
    return repeated


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _read_txt(path: Path) -> Iterator[Row]:
    return (Row(f"{path}:{number}", {"text": line}) for number, line in enumerate(read_lines(path), 1))


def _read_json(path: Path) -> Iterator[Row]:
    is_array = next((line for line in read_lines(path) if line.strip()), "").lstrip().startswith("[")
    documents = ["".join(lines_with_ends(path))] if is_array else read_lines(path)
    for number, document in enumerate(documents, 1):
        if not document.strip():
            continue
        try:
            value = parse_json(document)
        except json.JSONDecodeError as error:
            place = f"{path}:{number + error.lineno - 1}"
            expected = "expected an object a line, or one array of objects"
            raise ValueError(f"{place}: {error.msg}, column {error.colno}; {expected}") from None
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        has_surrogates = re.search(r"\\ud[89a-f]", document, re.IGNORECASE)
        for i, columns in enumerate(value if is_array else [value]):
            place = f"{path}: row {i}" if is_array else f"{path}:{number}"
            try:
                check_json(columns)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None
            if not isinstance(columns, dict):
                raise ValueError(f"{place}: expected an object, found {shown(columns)}")
            if has_surrogates and (half := re.search("[\ud800-\udfff]", json.dumps(columns, ensure_ascii=False))):
                raise ValueError(f"{place}: {half[0]!a} is half of a character, of an emoji for example: remove it")
            yield Row(place, columns)


def _read_csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the largest one on all systems; by default a field has up to 131,072 characters
    reader = csv.reader(lines_with_ends(path), strict=True)
    try:
        yield from _rows_below_header((f"{path}:{reader.line_num}", fields) for fields in reader if fields)
    except csv.Error as error:
        problem = f"{error}: correct the quotation marks or the end of this line"
        raise ValueError(f"{path}:{reader.line_num}: {problem}") from None


def _read_tsv(path: Path) -> Iterator[Row]:
    lines = enumerate(read_lines(path), 1)
    return _rows_below_header((f"{path}:{number}", line.split("\t")) for number, line in lines if line)


def _rows_below_header(lines: Iterator[tuple[str, list[str]]]) -> Iterator[Row]:
    """Name the fields of each line, given as its place and its fields, after those of the first one."""
    place, header = next(lines, ("", []))
    _check_header(header, place)
    if len(header) == 1 and (found := re.search(r"[,;|\t]", header[0])):
        problem = f"the header is one column, {header[0]!r}, with {found[0]!r} in its name"
        raise ValueError(f"{place}: {problem}: save the file with commas as .csv, or with tabs as .tsv")
    for place, fields in lines:
        if len(fields) != len(header):
            raise ValueError(f"{place}: {len(fields)} fields, but the header has {len(header)}: correct the line")
        yield Row(place, dict(zip(header, fields, strict=True)))


def _check_header(names: list[str], place: str) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"{place}: two columns have the same name ({', '.join(names)}): rename one")


def _read_xlsx(path: Path) -> Iterator[Row]:
    rows = sheet_rows(path)
    first, names = next(rows, (0, {}))
    header = {column: str(name) for column, name in names.items()}
    _check_header(list(header.values()), f"{path}: row {first}")
    for i, cells in rows:
        unnamed = {f"column {column}": value for column, value in cells.items() if column not in header}
        columns = {name: cells.get(column) for column, name in header.items()}
        _check_header([*columns, *unnamed], f"{path}: row {i}")
        yield Row(f"{path}: row {i}", columns | unnamed)


def _read_parquet(path: Path) -> Iterator[Row]:
    if path.is_dir():
        read_features(path)  # the files of a folder have to agree
    for file in parquet_files(path):
        yield from _numbered(parquet_rows(file), str(file))


def _numbered(rows: Iterable[dict[str, Any]], source: str) -> Iterator[Row]:
    return (Row(f"{source}: row {i}", columns) for i, columns in enumerate(rows))


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".txt": _read_txt,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".xlsx": _read_xlsx,
}
"""The function that reads the rows of a file, by suffix."""

TYPED_SUFFIXES = (".parquet", ".jsonl", ".json")
"""The file types whose values may be lists, as sentences with a tag for each token need them."""
