"""Parsers of Parquet files and of sheets (xlsx), which check what they read.

Both formats are binary, and their libraries raise almost anything for a damaged file. `_parsed` turns it into a
ValueError that names the file. A file that claims more than it holds is an error, too: rows are counted against the
metadata, and texts have to be valid UTF-8.
"""

import logging
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, TypeVar
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

logger = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_SIZE = 1024
"""Number of rows that are converted from Arrow at a time."""

SPLIT_NAMES = {"train", "validation", "valid", "val", "dev", "test"}
"""The words with which the names of the files of a split begin."""

MAX_ROWS, MAX_COLUMNS = 2**20, 2**14
"""Size of a sheet in Excel."""

MAX_UNPACKED, MAX_RATIO = 2**27, 100
"""Limits of the unpacked size of a sheet: 128 MB, or so many times the size of the file. Usual factors are 5 to 20."""


def parquet_files(path: Path) -> list[Path]:
    """Return a Parquet file, or the files of a folder by name; raise ValueError if they are not those of one split."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() == ".parquet")
    if not files:
        raise ValueError(f"{path}: no .parquet file in this folder: save a data set with to_parquet, not save_to_disk")
    if nested := next((file for file in files if file.parent != path or file.is_dir()), None):
        raise ValueError(f"{nested}: lies in a subfolder of {path}: name one folder whose files form one split")
    if len(splits := sorted({file.stem.split("-")[0] for file in files} & SPLIT_NAMES)) > 1:
        problem = f"files of several splits ({', '.join(splits)}) are in one folder"
        raise ValueError(f"{path}: {problem}: name the file of each split, or a folder for each")
    shards = Counter(match.groups() for file in files if (match := re.fullmatch(r"(.*)-\d+-of-(\d+)", file.stem)))
    for (name, total), count in shards.items():
        if count != int(total):
            raise ValueError(f"{path}: {count} files {name}-*-of-{total}.parquet, not {int(total)}: copy all of them")
    return files


def read_features(path: Path) -> Features:
    """Return the column types that a Parquet file or folder stores, label names included; none for other files.

    Raises:
        ValueError: if a file is not valid Parquet, or differs from the first one of its folder.
    """
    if not path.is_dir() and path.suffix.lower() != ".parquet":
        return Features()
    files = parquet_files(path)
    features: list[Features] = []
    for file in files:
        features += _parsed(file, "a Parquet", _parquet_features)
        if features[-1] != features[0]:
            raise ValueError(f"{file}: columns or label names differ from those of {files[0]}")
    return features[0]


def parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Read the rows of a Parquet file as a stream.

    Raises:
        ValueError: if the file is damaged, or has two columns of the same name.
    """
    return _parsed(file, "a Parquet", _parquet_rows)


def check_parquet(file: Path) -> None:
    """Read a Parquet file to its end, with the errors of [`parquet_rows`]."""
    deque(_parsed(file, "a Parquet", _parquet_batches), maxlen=0)


def sheet_rows(path: Path) -> Iterator[tuple[int, dict[int, Any]]]:
    """Read the rows of the first visible sheet that have a value: their numbers, and their values by column from 1.

    If there are several sheets, the log names the one that is read. The value of a formula is the one that the file
    stores.

    Raises:
        ImportError: if openpyxl is not installed.
        ValueError: if the file is damaged, unpacked larger than `MAX_UNPACKED` and `MAX_RATIO` allow, or has no visible
            sheet; with row and cell, if a cell holds an error or a formula without a value.
    """
    if find_spec("openpyxl") is None:
        raise ImportError(f"{path}: .xlsx needs openpyxl: pip install openpyxl, or save the sheet as .csv")
    for number, cells in _parsed(path, "an xlsx", _sheet_rows):
        for cell in cells:
            if cell["data_type"] not in ("n", "s", "b", "d"):
                problem = "a formula without a value" if cell["data_type"] == "f" else f"the error {cell['value']}"
                remedy = "correct it, or open the file in a spreadsheet program and save it again"
                raise ValueError(f"{path}: row {number}: column {cell['column']} holds {problem}: {remedy}")
        yield number, {cell["column"]: _unescape(cell["value"]) for cell in cells}


def _parsed(path: Path, kind: str, parse: Callable[[IO[bytes]], Iterator[T]]) -> Iterator[T]:
    """Yield what `parse` reads in a file of this kind; whatever it raises becomes a ValueError that names the file."""
    with path.open("rb") as stream:
        try:
            yield from parse(stream)
        except Exception as error:
            problem = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
            raise ValueError(f"{path}: not {kind} file that can be read: {problem}") from error


def _parquet_features(stream: IO[bytes]) -> Iterator[Features]:
    yield Features.from_arrow_schema(pq.read_schema(stream))


def _parquet_batches(stream: IO[bytes]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(stream, pre_buffer=False, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two columns have the same name ({', '.join(twice)}): rename one")
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        if sum(groups) != file.metadata.num_rows:
            raise ValueError(f"{file.metadata.num_rows} rows by its metadata, but {sum(groups)} in its row groups")
        for i, expected in enumerate(groups):
            count = 0
            for batch in file.iter_batches(BATCH_SIZE, row_groups=[i]):
                batch.validate(full=True)
                count += len(batch)
                yield batch
            if count != expected:
                raise ValueError(f"row group {i} has {count} rows, but {expected} by its metadata")


def _parquet_rows(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    for batch in _parquet_batches(stream):
        yield from batch.to_pylist()


def _sheet_rows(stream: IO[bytes]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Read the cells that have a value or a formula; the value of a formula that has none is None, its type `f`."""
    from openpyxl import load_workbook
    from openpyxl.worksheet._reader import FORMULA_TAG, WorkSheetParser

    class Parser(WorkSheetParser):
        def parse_cell(self, element):
            cell = super().parse_cell(element)
            if cell["value"] is None and cell["data_type"] != "str" and element.find(FORMULA_TAG) is not None:
                cell["data_type"] = "f"
            return cell

    with ZipFile(stream) as archive:
        packed, unpacked = (stream.seek(0, 2), sum(part.file_size for part in archive.infolist()))
    if unpacked > max(MAX_UNPACKED, MAX_RATIO * packed):
        raise ValueError(f"unpacked it would take {unpacked:,} bytes, over {MAX_RATIO} times its size: save it as .csv")
    book = load_workbook(stream, read_only=True, data_only=True)
    visible = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
    if len(book.sheetnames) > 1:
        others = ", ".join(name for name in book.sheetnames if name != visible[0].title)
        logger.warning("%s: the sheet %s is read; the others are not: %s", stream.name, visible[0].title, others)
    sheet, last = visible[0], 0
    strings = dict(enumerate(sheet._shared_strings))  # a dictionary has no string -1
    formats = (book.epoch, book._date_formats, book._timedelta_formats)
    with sheet._get_source() as source:
        for number, cells in Parser(source, strings, True, *formats).parse():
            columns = [cell["column"] for cell in cells]
            if not last < number <= MAX_ROWS or any(cell["row"] != number for cell in cells):
                raise ValueError(f"row {number} follows row {last}")
            if columns != sorted(set(columns)) or columns and columns[-1] > MAX_COLUMNS:
                raise ValueError(f"row {number} has the columns {columns}")
            last = number
            if filled := [cell for cell in cells if cell["value"] is not None or cell["data_type"] == "f"]:
                yield number, filled


def _unescape(value: Any) -> Any:
    """Return a value with the characters that a sheet stores as `_x000D_`: controls and, before such a code, `_`."""
    if not isinstance(value, str):
        return value
    return re.sub("_x(00[01][0-9A-Fa-f]|005F)_", lambda match: chr(int(match[1], 16)), value)
