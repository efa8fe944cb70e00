"""Files of texts in, the same rows with predictions out: in a stream, over several processes, resumable after a kill.

The output is made in shards of a fixed number of rows. A shard is tagged by itself, and its file is there whole or not
at all, so it makes no difference which process makes it, and after how many kills. See [`predict_file`].
"""

import base64
import csv
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState
from tqdm import tqdm

from ..utils.files import write_atomically
from .predictors import Predictor, Row

logger = logging.getLogger(__name__)

ROW_GROUP_SHARDS = 64
"""Shards that make a row group of a Parquet file."""


# ---------------------------------------------------------------- rows


def read_rows(path: Path, text_column: str) -> Iterator[Row]:
    """The rows of a file, one after the other, so that no more of it is held in memory.

    The format follows from the name: `.txt`, a text a line, as the column `text`; `.jsonl`, an object a line; `.csv`,
    comma-separated with a header, all columns text; `.parquet`. Lines are UTF-8, with or without a byte order mark.
    A blank line is an empty text in `.txt`, and nothing in the others.

    Raises:
        ValueError: with file and line (Parquet: row, from 0): the column is missing or does not hold text there; the
            JSON, CSV, Parquet or UTF-8 is broken.
    """
    for place, row in _READERS[path.suffix.lower()](path):
        if text_column not in row:
            names = ", ".join(row) or "none"
            raise ValueError(f"{place}: no column {text_column}; its columns are {names}: name one by --text_column")
        if not isinstance(row[text_column], str):
            value = json.dumps(row[text_column], ensure_ascii=False, default=repr)[:80]
            raise ValueError(f"{place}: {text_column} is {value}, not text: correct the row, or take it out")
        yield row


def _read_text(path: Path) -> Iterator[tuple[str, Row]]:
    for place, line in _lines(path):
        yield place, {"text": line.removesuffix("\n").removesuffix("\r")}


def _read_json(path: Path) -> Iterator[tuple[str, Row]]:
    for place, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if re.search(r"\\ud[89a-f]", line, re.IGNORECASE):
                json.dumps(row, ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            raise ValueError(f"{place}: {error.msg}, column {error.colno}; expected an object a line") from None
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])
            raise ValueError(f"{place}: {half} is half a character, as of an emoji cut in two: take it out") from None
        if not isinstance(row, dict):
            raise ValueError(f"{place}: expected an object a line, found {line.strip()[:80]}")
        yield place, row


def _read_csv(path: Path) -> Iterator[tuple[str, Row]]:
    reader = csv.DictReader((line for _, line in _lines(path)), strict=True)
    try:
        names = reader.fieldnames or []
        if len(set(names)) < len(names):
            raise ValueError(f"{path}:1: two columns of one name ({', '.join(names)}): rename one")
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"{path}:{reader.line_num}: not {len(names)} fields, as in the first line: correct it")
            yield f"{path}:{reader.line_num}", row
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.reader.line_num}: {error}: correct the quotes of this field") from None


def _read_parquet(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        with pq.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(1024) for row in batch.to_pylist())
            yield from ((f"{path}: row {i}", row) for i, row in enumerate(rows))
    except pa.ArrowException as error:
        raise ValueError(f"{path}: not a Parquet file that can be read: {error}") from error


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Place and text of each line of a UTF-8 file, split at newlines only, which are left in."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}:{number}: not UTF-8 ({error.reason}): convert the file, as by iconv -f cp949"
                ) from None
            yield f"{path}:{number}", text


_READERS = {".txt": _read_text, ".jsonl": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}


class Writer:
    """Writes rows with predictions in the format that the name of the output asks for.

    Args:
        source: the file that the rows come from, with errors named after it.
        suffix: one of `SUFFIXES`.
        text_column: name of the column of texts.
        predictor: what makes the predictions.

    Attributes:
        schema: of the rows without predictions, in a Parquet file.
    """

    SUFFIXES = (".jsonl", ".parquet", ".txt")

    def __init__(self, source: Path, suffix: str, text_column: str, predictor: Predictor) -> None:
        self.source, self.suffix, self.text_column, self.predictor = source, suffix, text_column, predictor
        self.schema: pa.Schema | None = None

    def survey(self, shards: Iterable[list[Row]]) -> int:
        """The number of rows in all; sets `schema`. A row that could not be written is met here.

        Raises:
            ValueError: with file and row, from 0: a column has the name of a new one; a value or a mixture of types has
                no place in the output format; a text has several lines, and the output one a line; there is no row.
        """
        columns = {self.predictor.prefix + name for name in self.predictor.columns}
        count = 0
        for rows in shards:
            for i, row in enumerate(rows, count):
                if self.suffix != ".txt" and (taken := sorted(columns & row.keys())):
                    raise ValueError(
                        f"{self.source}: row {i}: there is a column {taken[0]} already: set --column_prefix, as to "
                        "predicted_, for the names of those that are added"
                    )
            if self.suffix == ".parquet":
                self._widen_schema(rows, count)
            for _ in self._lines(rows, [self.predictor.nothing] * len(rows), count):
                pass
            count += len(rows)
        if not count:
            raise ValueError(f"{self.source}: no row in it")
        return count

    def write(self, file: IO[bytes], rows: list[Row], predictions: list[Row], first: int) -> None:
        """Writes a shard, rows from number `first` of the input on, as a file of its own."""
        if self.suffix == ".parquet":
            added = pa.schema(list(self._added(self.predictor.columns).items()))
            schema = pa.schema([*self.schema, *added], metadata=self.schema.metadata)
            rows = [row | self._added(values) for row, values in zip(rows, predictions, strict=True)]
            pq.write_table(pa.Table.from_pylist(rows, schema), file)
        else:
            file.writelines(f"{line}\n".encode() for line in self._lines(rows, predictions, first))

    def join(self, file: IO[bytes], shards: Sequence[Path]) -> None:
        """Writes the rows of finished shards as one file."""
        if self.suffix == ".parquet":
            with pq.ParquetWriter(file, pq.read_schema(shards[0])) as writer:
                for first in range(0, len(shards), ROW_GROUP_SHARDS):
                    tables = map(pq.read_table, shards[first : first + ROW_GROUP_SHARDS])
                    writer.write_table(pa.concat_tables(tables))
        else:
            for path in shards:
                with path.open("rb") as shard:
                    shutil.copyfileobj(shard, file)

    def _added(self, values: Row) -> Row:
        return {self.predictor.prefix + name: value for name, value in values.items()}

    def _lines(self, rows: list[Row], predictions: list[Row], first: int) -> Iterator[str]:
        for i, (row, values) in enumerate(zip(rows, predictions, strict=True), first):
            if self.suffix == ".jsonl":
                try:
                    yield json.dumps(row | self._added(values), ensure_ascii=False)
                except TypeError as error:  # of Parquet, which has dates and bytes
                    raise ValueError(f"{self.source}: row {i}: {error}: write .parquet") from None
            elif self.suffix == ".txt":
                if re.search(r"[\n\r]", row[self.text_column]):
                    raise ValueError(f"{self.source}: row {i}: the text has several lines: write .jsonl or .parquet")
                yield self.predictor.line(row[self.text_column], values)

    def _widen_schema(self, rows: list[Row], first: int) -> None:
        """Makes room in `schema` for rows."""
        try:
            if self.source.suffix.lower() == ".parquet":
                self.schema = pq.read_schema(self.source)
                pa.Table.from_pylist(rows, self.schema)
            else:
                own = pa.schema(list(pa.array(rows).type))
                known = own if self.schema is None else self.schema
                self.schema = pa.unify_schemas([known, own], promote_options="permissive")
            pq.write_table(self.schema.empty_table(), pa.BufferOutputStream())
        except (pa.ArrowException, OverflowError) as error:
            place = f"{self.source}: rows {first} to {first + len(rows) - 1}"
            raise ValueError(f"{place}: a column is not of one type for Parquet ({error}): write .jsonl") from error


# ---------------------------------------------------------------- shards on disk


class Parts:
    """The shards of an output that is being made, in the folder `OUTPUT.parts` beside it.

    `manifest.json` in it says what they are made from. It is renamed to `finished.json` once all of the output is
    written, before that is moved into place; so whenever a run is killed, the folder tells how to carry on.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(f"{output.name}.parts")
        self.manifest, self.finished = self.folder / "manifest.json", self.folder / "finished.json"
        self._joined = self.folder / f"joined{output.suffix}"

    def begin(self, settings: dict[str, Any], overwrite: bool, survey: Callable[[], dict[str, Any]]) -> None:
        """Makes the folder, its manifest `settings` and what `survey` returns; or checks the manifest that is there.

        Raises:
            FileExistsError: the output exists, and is not to be overwritten; the folder has no manifest.
            ValueError: the shards that are there are of other settings.
        """
        if self.folder.exists() and not any(self.folder.iterdir()):
            self.folder.rmdir()  # the last step of `finish`, before which that run was killed
        if self.output.exists() and not overwrite and not self.finished.exists():
            raise FileExistsError(f"{self.output} exists: name another --output_file, or set --overwrite_output")
        for manifest in (self.finished, self.manifest):
            if manifest.exists():
                self._check_settings(json.loads(manifest.read_text(encoding="utf-8"))["settings"], settings)
                return
        if self.folder.exists() and any(path.suffix != ".tmp" for path in self.folder.iterdir()):
            raise FileExistsError(f"{self.folder} is in the way, and of no run that was killed: move it")
        content = {"settings": settings} | survey()
        self.folder.mkdir(parents=True, exist_ok=True)
        with write_atomically(self.manifest) as file:
            file.write(json.dumps(content, ensure_ascii=False, indent=1).encode())

    def shard(self, i: int) -> Path:
        """The file of shard `i`."""
        return self.folder / f"{i:08d}{self.output.suffix}"

    def done(self) -> set[int]:
        """The shards that are there."""
        return {int(path.stem) for path in self.folder.glob(f"*{self.output.suffix}") if path.stem.isdecimal()}

    def finish(self, join: Callable[[IO[bytes]], None]) -> None:
        """Moves the output, which `join` writes, into place, and removes the folder."""
        if self.manifest.exists():
            with write_atomically(self._joined) as file:
                join(file)
            self.manifest.replace(self.finished)
        if self._joined.exists():
            self._joined.replace(self.output)
        for path in self.folder.iterdir():
            if path != self.finished:
                path.unlink()
        self.finished.unlink()
        self.folder.rmdir()

    def _check_settings(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        changes = [f"{name} was {before.get(name)}, is {now[name]}" for name in now if before.get(name) != now[name]]
        if changes:
            raise ValueError(
                f"{self.folder} is left of a run with other settings ({'; '.join(changes)}): start with the same to "
                "finish that run, or delete the folder to start over"
            )


# ---------------------------------------------------------------- the run


def check_files(input_file: Path, output_file: Path) -> None:
    """Raises what is wrong with the names of files.

    Raises:
        FileNotFoundError: there is no such input.
        ValueError: an unknown suffix.
    """
    for path, suffixes in ((input_file, _READERS), (output_file, Writer.SUFFIXES)):
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"{path}: unknown suffix {path.suffix!r}; known are {', '.join(suffixes)}")
    if not input_file.is_file():
        raise FileNotFoundError(f"{input_file}: no such file")


def predict_file(
    predictor: Predictor,
    input_file: Path,
    output_file: Path,
    text_column: str,
    shard_size: int,
    overwrite: bool,
    state: PartialState,
) -> None:
    """Writes the rows of a file with predictions, in their order.

    All rows are read once before the first is tagged, so that a broken one is met at the beginning. Called again after
    a kill, on any number of processes, it leaves out the shards that are there, and ends with the bytes of a run that
    was not killed.

    Args:
        shard_size: rows of a shard.
        overwrite: whether an output that exists is replaced, once the new one is whole.
        state: the processes that share the work. All of them call this function.

    Raises:
        FileNotFoundError: see [`check_files`].
        FileExistsError: see [`Parts.begin`].
        ValueError: likewise; what [`read_rows`] and [`Writer.survey`] raise; the input has changed meanwhile.
    """
    check_files(input_file, output_file)
    writer = Writer(input_file, output_file.suffix.lower(), text_column, predictor)
    parts = Parts(output_file)
    source = _source(input_file)

    def shards() -> Iterator[list[Row]]:
        rows = read_rows(input_file, text_column)
        while shard := list(islice(rows, shard_size)):
            yield shard

    def survey() -> dict[str, Any]:
        count = writer.survey(shards())
        schema = None if writer.schema is None else base64.b64encode(writer.schema.serialize()).decode()
        return {"rows": count, "schema": schema}

    if state.is_main_process:
        settings = {"text_column": text_column, "shard_size": shard_size, "device": state.device.type}
        parts.begin(source | settings | predictor.settings(), overwrite, survey)
    state.wait_for_everyone()
    sizes: list[int] = []
    if parts.manifest.exists():
        manifest = json.loads(parts.manifest.read_text(encoding="utf-8"))
        if manifest["schema"] is not None:
            writer.schema = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(manifest["schema"])))
        sizes = [min(shard_size, manifest["rows"] - first) for first in range(0, manifest["rows"], shard_size)]
        _predict_shards(writer, parts, shards(), sizes, state)
    if state.is_main_process:
        if _source(input_file) != source:
            raise ValueError(f"{input_file} has changed while it was read: delete {parts.folder} and start over")
        parts.finish(lambda file: writer.join(file, [parts.shard(i) for i in range(len(sizes))]))


def _predict_shards(
    writer: Writer, parts: Parts, shards: Iterable[list[Row]], sizes: list[int], state: PartialState
) -> None:
    """Makes this process's part of the shards that are not there yet; returns when all are there.

    The bar, which the main process shows, counts the rows of all.
    """
    done = parts.done()
    state.wait_for_everyone()  # until all have seen the same shards
    left = [i for i in range(len(sizes)) if i not in done]
    mine = set(left[state.process_index :: state.num_processes])
    rows_done = sum(sizes[i] for i in done)
    if rows_done and state.is_main_process:
        logger.info("%d of %d rows are there from an earlier run", rows_done, sum(sizes))
    with tqdm(total=sum(sizes), initial=rows_done, unit=" rows", disable=not state.is_main_process) as bar:
        for i, rows in enumerate(islice(shards, max(mine, default=-1) + 1)):
            if i in mine:
                predictions = writer.predictor([row[writer.text_column] for row in rows])
                with write_atomically(parts.shard(i)) as file:
                    writer.write(file, rows, predictions, i * sizes[0])
                bar.update(sum(sizes[i] for i in parts.done()) - bar.n)
        state.wait_for_everyone()
        bar.update(sum(sizes) - bar.n)


def _source(path: Path) -> dict[str, Any]:
    """What tells a file from others, and from itself before a change."""
    stat = path.stat()
    return {"input_file": str(path.resolve()), "its size": stat.st_size, "its time of change": stat.st_mtime_ns}
