r"""The one reader of files with rows, for NER, classification, raw text and prediction.

| suffix | rows |
| --- | --- |
| `.txt` | a text a line, in the column `text`; a blank line is an empty text |
| `.jsonl`, `.json` | an object a line, or one array of objects |
| `.csv` | fields between commas below a header, quoted where necessary |
| `.tsv` | fields between tabs below a header; quotation marks are part of the text |
| `.parquet`, or a folder of such files | rows with the column types that the files store |
| `.xlsx` | rows of the first sheet below a header, if openpyxl is installed |

To add a file type, write a function that yields its rows and add it to `READERS`. Text files are UTF-8, with or without
a byte order mark. Their lines end with `\n` or `\r\n` only; `str.splitlines` would also split at characters that a text
may contain. Blank lines, except in `.txt`, and empty rows of a sheet are skipped.
"""

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features

PathLike = str | os.PathLike[str]

BATCH_SIZE = 1024
"""Number of rows that are converted from Arrow at a time."""


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
        ValueError: if the suffix is unknown; with line or row, if the file is not of this type or a row not valid.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    return READERS[suffix or (".parquet" if path.is_dir() else check_suffix(path, READERS))](path)


def check_suffix(path: Path, known: Iterable[str]) -> str:
    """Return the suffix of a file in lower case; raise ValueError if it is not among the `known` ones."""
    suffix = path.suffix.lower()
    if suffix not in known:
        raise ValueError(f"{path}: unknown suffix {path.suffix!r}; known are {', '.join(known)}")
    return suffix


def read_lines(path: PathLike) -> Iterator[str]:
    """Read the lines of a UTF-8 file without their ends; raise ValueError with line and byte if it is not UTF-8."""
    return (line.removesuffix("\n").removesuffix("\r") for line in _lines_with_ends(path))


def read_features(path: Path) -> Features:
    """Return the column types that a Parquet file or folder stores, label names included; none for other files.

    Raises:
        ValueError: if a file is not valid Parquet, or differs from the first one of its folder.
    """
    if not path.is_dir() and path.suffix.lower() != ".parquet":
        return Features()
    files, features = _parquet_files(path), []
    for file in files:
        with _parquet_errors(file):
            features.append(Features.from_arrow_schema(pq.read_schema(file)))
        if features[-1] != features[0]:
            raise ValueError(f"{file}: columns or label names differ from those of {files[0]}")
    return features[0]


def dataset_rows(dataset: Dataset, source: str) -> Iterator[Row]:
    """Read the rows of a data set, which errors call `source`. Values are those of Arrow: labels are ids."""
    return _table_rows(dataset.with_format("arrow").iter(BATCH_SIZE), source)


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
    raise ValueError(f"{source}: {problem}: name one of them")


def text_of(row: Row, column: str) -> str:
    """Return the text in a column of a row; raise ValueError with its place if there is no such column or no string."""
    text = row.columns.get(column)
    if isinstance(text, str):
        return text
    find_column([row], column, (), row.place)
    shown = json.dumps(text, ensure_ascii=False, default=repr)[:80]
    raise ValueError(f"{row.place}: column {column} holds {shown}, not a string: correct or remove the row")


def _lines_with_ends(path: PathLike) -> Iterator[str]:
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                problem = f"byte {error.start + 1} of the line is not UTF-8 ({error.reason})"
                raise ValueError(f"{path}:{number}: {problem}: convert the file, as iconv -f cp949 does") from None
            yield text.removeprefix("\ufeff") if number == 1 else text


def _read_txt(path: Path) -> Iterator[Row]:
    return (Row(f"{path}:{number}", {"text": line}) for number, line in enumerate(read_lines(path), 1))


def _read_json(path: Path) -> Iterator[Row]:
    is_array = next((line for line in read_lines(path) if line.strip()), "").lstrip().startswith("[")
    documents = ["".join(_lines_with_ends(path))] if is_array else _lines_with_ends(path)
    for number, document in enumerate(documents, 1):
        if not document.strip():
            continue
        try:
            value = json.loads(document)
        except json.JSONDecodeError as error:
            place = f"{path}:{number + error.lineno - 1}"
            expected = "expected an object a line, or one array of objects"
            raise ValueError(f"{place}: {error.msg}, column {error.colno}; {expected}") from None
        has_surrogates = re.search(r"\\ud[89a-f]", document, re.IGNORECASE)
        for i, columns in enumerate(value if is_array else [value]):
            place = f"{path}: row {i}" if is_array else f"{path}:{number}"
            if not isinstance(columns, dict):
                raise ValueError(f"{place}: expected an object, found {json.dumps(columns, ensure_ascii=False)[:80]}")
            if has_surrogates and (half := re.search("[\ud800-\udfff]", json.dumps(columns, ensure_ascii=False))):
                raise ValueError(f"{place}: {half[0]!a} is half of a character, of an emoji for example: remove it")
            yield Row(place, columns)


def _read_csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the largest one on all systems; by default a field has up to 131,072 characters
    reader = csv.reader(_lines_with_ends(path), strict=True)
    try:
        yield from _rows_below_header((f"{path}:{reader.line_num}", fields) for fields in reader if fields)
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}: correct the quotation marks of this field") from None


def _read_tsv(path: Path) -> Iterator[Row]:
    lines = enumerate(read_lines(path), 1)
    return _rows_below_header((f"{path}:{number}", line.split("\t")) for number, line in lines if line)


def _read_xlsx(path: Path) -> Iterator[Row]:
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise ImportError(f"{path}: .xlsx needs openpyxl: pip install openpyxl, or save the sheet as .csv") from None
    try:
        sheet = load_workbook(path, data_only=True).worksheets[0]
    except (BadZipFile, KeyError) as error:
        raise ValueError(f"{path}: not an xlsx file that can be read: {error}") from None
    rows = ((f"{path}: row {i}", cells) for i, cells in enumerate(sheet.iter_rows(values_only=True), 1))
    return _rows_below_header((place, cells) for place, cells in rows if any(cell is not None for cell in cells))


def _rows_below_header(lines: Iterator[tuple[str, Sequence[Any]]]) -> Iterator[Row]:
    """Name the fields of each line, given as its place and its fields, after those of the first one."""
    place, names = next(lines, ("", ()))
    header = [f"column {i}" if name is None else str(name) for i, name in enumerate(names, 1)]
    if len(set(header)) < len(header):
        raise ValueError(f"{place}: two columns have the same name ({', '.join(header)}): rename one")
    for place, fields in lines:
        if len(fields) != len(header):
            raise ValueError(f"{place}: {len(fields)} fields, but the header has {len(header)}: correct the line")
        yield Row(place, dict(zip(header, fields, strict=True)))


def _read_parquet(path: Path) -> Iterator[Row]:
    read_features(path)  # the files of a folder have to agree
    for file in _parquet_files(path):
        with _parquet_errors(file), pq.ParquetFile(file) as parquet:
            yield from _table_rows(parquet.iter_batches(BATCH_SIZE), str(file))


def _parquet_files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path}: no .parquet file in this folder")
    return files


def _table_rows(tables: Iterable[pa.Table | pa.RecordBatch], source: str) -> Iterator[Row]:
    rows = (columns for table in tables for columns in table.to_pylist())
    return (Row(f"{source}: row {i}", columns) for i, columns in enumerate(rows))


@contextmanager
def _parquet_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        raise ValueError(f"{file}: not a Parquet file that can be read: {error}") from error


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
