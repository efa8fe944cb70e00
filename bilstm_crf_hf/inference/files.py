"""Files with predictions: the rows of a file of texts, written with what a model predicts for them.

The input is read as a stream. The output is made in shards of a fixed number of rows, on one or more processes. Each
shard is predicted independently and written atomically, so the result does not depend on which process makes it or on
how often the run is killed and resumed. See [`predict_file`].
"""

import base64
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState
from tqdm import tqdm

from ..data.documents import Context
from ..data.rows import Row, check_suffix
from ..data.sentences import TOKEN_UNITS, token_unit_of
from ..entities import tags_of_words
from ..utils.files import locked, to_json, write_atomically, write_json
from .predictors import EntityPredictor, Predictor
from .texts import COLUMNS, INPUT_SUFFIXES, TextOptions, Texts

logger = logging.getLogger(__name__)

ROW_GROUP_SHARDS = 64
"""Number of shards that form a row group of a Parquet file."""
TAGS = "tags"
"""Column of the tags of words."""
SHARDS = ".parts"
"""Suffix of the folder with the shards of an output."""


class Writer:
    """A writer of the rows of `texts` with predictions, in the format that `suffix`, one of `SUFFIXES`, selects.

    Attributes:
        schema: schema of the rows without predictions, for a Parquet file.

    Raises:
        ValueError: if the texts are to have tags or a context, but the predictor is no tagger, or if the format has no
            place for tags.
    """

    SUFFIXES = (".jsonl", ".parquet", ".txt", COLUMNS)

    def __init__(self, texts: Texts, suffix: str, predictor: Predictor) -> None:
        self.texts, self.source, self.suffix, self.predictor = texts, texts.source, suffix, predictor
        self.schema = pa.schema([])
        has_tags = texts.options.return_tags
        if (has_tags or texts.options.document_context) and not isinstance(predictor, EntityPredictor):
            raise ValueError(f"tags and document_context are for taggers, and the model is for {predictor.task}")
        if has_tags != (suffix == COLUMNS) and suffix in (".txt", COLUMNS):
            raise ValueError(f"a .txt file cannot hold return_tags, and a {COLUMNS} file needs it: name another file")
        self.columns = predictor.columns | ({TAGS: pa.list_(pa.string())} if has_tags else {})

    def check(self, shards: Iterable[list[Row]]) -> dict[str, Any]:
        """Check that all rows can be written, and return `rows`, `schema` and `token_unit` for the manifest.

        Raises:
            ValueError: if there is no row; with its place, if a row has no text or a column with the name of a new one,
                or if the output format cannot hold a value, a mixture of types, or a text of several lines.
        """
        new_columns = {self.predictor.prefix + name for name in self.columns}
        count, longer = 0, None
        for rows in shards:
            for row in rows:
                self.texts.text(row)
                longer = longer or token_unit_of(self.texts.words(row) or [])[1]
                if self.suffix not in (".txt", COLUMNS) and (taken := sorted(new_columns & row.columns.keys())):
                    remedy = "set --column_prefix to name the new columns differently"
                    raise ValueError(f"{row.place}: there is already a column {taken[0]}: {remedy}")
            if self.suffix == ".parquet":
                self._widen_schema(rows)
            else:
                list(self._lines(rows, [self.predictor.empty] * len(rows)))
            count += len(rows)
        if not count:
            raise ValueError(f"{self.source}: no row in it")
        unit = self.texts.token_unit
        if unit == "auto":
            unit = "character" if longer is None else "word"
        return {"rows": count, "schema": base64.b64encode(self.schema.serialize()).decode(), "token_unit": unit}

    def predict(self, rows: Sequence[tuple[Row, Context]]) -> list[dict[str, Any]]:
        """Return the values of the new columns for a shard.

        Raises:
            RuntimeError: with the place of the text, if the model fails.
        """
        try:
            return self._predict(rows)
        except Exception as error:
            place, remedy = f"{rows[0][0].place} to {rows[-1][0].place}", "set a smaller --batch_size"
            for row in rows:
                try:
                    self._predict([row])
                except Exception:  # the error below has the first one as its cause
                    place, remedy = row[0].place, "correct or remove this text"
                    break
            raise RuntimeError(f"{place}: the model fails ({type(error).__name__}: {error}): {remedy}") from error

    def _predict(self, rows: Sequence[tuple[Row, Context]]) -> list[dict[str, Any]]:
        texts = [self.texts.text(row) for row, _ in rows]
        if isinstance(self.predictor, EntityPredictor) and self.texts.options.document_context:
            predictions = self.predictor.in_context(texts, [context for _, context in rows])
        else:
            predictions = self.predictor(texts)
        if self.texts.options.return_tags:
            return [values | self._tags(row, values) for (row, _), values in zip(rows, predictions, strict=True)]
        return predictions

    def _tags(self, row: Row, values: dict[str, Any]) -> dict[str, list[str]]:
        return {TAGS: tags_of_words(self.texts.words(row) or (), values["entities"], self.texts.joiner)}

    def write(self, file: IO[bytes], rows: list[Row], predictions: list[dict[str, Any]]) -> None:
        """Write a shard as a file of its own."""
        if self.suffix == ".parquet":
            added = pa.schema(list(self._prefixed(self.columns).items()))
            schema = pa.schema([*self.schema, *added], metadata=self.schema.metadata)
            records = [row.columns | self._prefixed(values) for row, values in zip(rows, predictions, strict=True)]
            pq.write_table(pa.Table.from_pylist(records, schema), file)
        else:
            file.writelines(f"{line}\n".encode() for line in self._lines(rows, predictions))

    def join(self, file: IO[bytes], shards: Sequence[Path], sizes: Sequence[int]) -> None:
        """Write the rows of all shards as one file; raise ValueError if a shard does not have its number of rows."""
        for path, size in zip(shards, sizes, strict=True):
            if self._count(path) != size:
                raise ValueError(
                    f"{path} is damaged or missing: delete it, and run the same command again to make it anew"
                )
        if self.suffix == ".parquet":
            with pq.ParquetWriter(file, pq.read_schema(shards[0])) as writer:
                for first in range(0, len(shards), ROW_GROUP_SHARDS):
                    tables = map(pq.read_table, shards[first : first + ROW_GROUP_SHARDS])
                    writer.write_table(pa.concat_tables(tables))
        else:
            for path in shards:
                file.write(path.read_bytes())

    def _count(self, shard: Path) -> int | None:
        """Return the number of rows in a shard, None if it is damaged or missing."""
        try:
            if self.suffix == COLUMNS:
                return shard.read_bytes().count(b"\n\n")
            return pq.read_metadata(shard).num_rows if self.suffix == ".parquet" else shard.read_bytes().count(b"\n")
        except (FileNotFoundError, pa.ArrowException):
            return None

    def _prefixed(self, values: dict[str, Any]) -> dict[str, Any]:
        return {self.predictor.prefix + name: value for name, value in values.items()}

    def _lines(self, rows: list[Row], predictions: list[dict[str, Any]]) -> Iterator[str]:
        for row, values in zip(rows, predictions, strict=True):
            if self.suffix == ".txt":
                text = self.texts.text(row)
                if re.search(r"[\n\r]", text):
                    raise ValueError(f"{row.place}: the text has several lines: write a .jsonl or .parquet file")
                yield self.predictor.format_line(text, values)
                continue
            if self.suffix == COLUMNS:
                words = self.texts.words(row) or []
                _check_columns(words, row.place)
                yield "".join(f"{word}\t{tag}\n" for word, tag in zip(words, values.get(TAGS, words), strict=True))
                continue
            try:
                yield to_json(row.columns | self._prefixed(values), row.place)
            except TypeError as error:  # Parquet files and sheets have dates, Parquet files also bytes
                raise ValueError(f"{row.place}: {error}: write a .parquet file") from None

    def _widen_schema(self, rows: list[Row]) -> None:
        """Extend `schema` so that it holds the rows."""
        records = [row.columns for row in rows]
        try:
            if self.source.suffix.lower() == ".parquet":
                self.schema = self.schema if len(self.schema) else pq.read_schema(self.source)
                pa.Table.from_pylist(records, self.schema)
            else:
                own = pa.schema(list(pa.array(records).type))
                self.schema = pa.unify_schemas([self.schema, own], promote_options="permissive")
            pq.write_table(self.schema.empty_table(), pa.BufferOutputStream())
        except (pa.ArrowException, OverflowError) as error:
            problem = f"a column does not have one Parquet type ({error}): write a .jsonl file"
            raise ValueError(f"{rows[0].place} to {rows[-1].place}: {problem}") from error


def _check_columns(words: list[str], place: str) -> None:
    """Raise ValueError if a file with a word a line could not hold the words of a text."""
    remedy = "write a .jsonl or .parquet file"
    if not words:
        raise ValueError(f"{place}: there is no word, and a {COLUMNS} file has no place for that: {remedy}")
    for i, word in enumerate(words):
        if not word.strip() or re.search("[\t\n\r]", word) or word.upper().startswith("-DOCSTART"):
            problem = f"word {i} is {word!r}, which no line of a {COLUMNS} file can hold"
            raise ValueError(f"{place}: {problem}: {remedy}")


class Shards:
    """The shards of an unfinished output, in the folder `OUTPUT.parts` beside it.

    `manifest.json` in the folder records the settings of the run. Once the whole output is written, and before it is
    moved into place, it is renamed to `finished.json`. So a run that was killed at any moment can be resumed.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(f"{output.name}{SHARDS}")
        self.manifest, self.finished = self.folder / "manifest.json", self.folder / "finished.json"
        self._joined = self.folder / f"joined{output.suffix}"

    def begin(self, settings: dict[str, Any], overwrite: bool, check: Callable[[], dict[str, Any]]) -> None:
        """Make the folder and its manifest, with `settings` and the values of `check`, or compare an existing manifest.

        Raises:
            FileExistsError: if the output exists and `overwrite` is false, or if the folder exists without a manifest.
            ValueError: if the existing shards were made with other settings, or their manifest is damaged.
        """
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()  # the run was killed before the last step of `finish`
        if self.output.exists() and not overwrite and not self.finished.exists():
            raise FileExistsError(f"{self.output} exists: name another --output_file, or set --overwrite_output")
        for manifest in (self.finished, self.manifest):
            if manifest.exists():
                before = self._read(manifest)["settings"]
                changed = [key for key, now in settings.items() if before.get(key) != now]
                if changed:
                    changes = [f"{key} was {before.get(key)}, is {settings[key]}" for key in changed]
                    raise ValueError(
                        f"{self.folder} holds shards of a run with other settings ({'; '.join(changes)}): run with the "
                        "same settings to finish that run, or delete the folder to start over"
                    )
                return
        if self.folder.exists() and (
            not self.folder.is_dir() or any(path.suffix != ".tmp" for path in self.folder.iterdir())
        ):
            raise FileExistsError(f"{self.folder} exists, but no prediction run made it: move or delete it")
        content = {"settings": settings} | check()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.manifest, content)

    def contents(self) -> dict[str, Any] | None:
        """Return what `check` found, from the manifest; None if all shards are joined already."""
        return self._read(self.manifest) if self.manifest.exists() else None

    def _read(self, manifest: Path) -> dict[str, Any]:
        try:
            content = json.loads(manifest.read_text(encoding="utf-8"))
            schema, rows = base64.b64decode(content["schema"], validate=True), content["rows"]
            is_whole = type(rows) is int and rows > 0 and content["token_unit"] in TOKEN_UNITS
            if isinstance(content["settings"], dict) and is_whole:
                return content | {"schema": pa.ipc.read_schema(pa.BufferReader(schema))}
        except (ValueError, TypeError, LookupError, OSError, RecursionError):  # OSError: of Arrow
            pass  # see below
        raise ValueError(f"{manifest} is damaged: delete {self.folder} to start over")

    def path(self, i: int) -> Path:
        """Return the file of shard `i`."""
        return self.folder / f"{i:08d}{self.output.suffix}"

    def done(self) -> set[int]:
        """Return the indices of the finished shards."""
        shards = {int(path.stem): path for path in self.folder.glob("[0-9]*") if path.stem.isdecimal()}
        return {i for i, path in shards.items() if path == self.path(i)}

    def finish(self, join: Callable[[IO[bytes]], None]) -> None:
        """Write the output with `join`, move it into place, and remove the folder."""
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


def check_files(input_file: Path, output_file: Path) -> None:
    """Check the names of the two files.

    Raises:
        FileNotFoundError: if the input does not exist.
        ValueError: if a suffix is unknown; if the output is a folder, the input, or in the folder of another output.
    """
    check_suffix(input_file, INPUT_SUFFIXES)
    check_suffix(output_file, Writer.SUFFIXES)
    if not input_file.is_file():
        raise FileNotFoundError(f"{input_file}: no such file")
    if output_file.is_dir():
        raise ValueError(f"{output_file} is a folder: name a file")
    if output_file.exists() and output_file.samefile(input_file):
        raise ValueError(f"{output_file} is the input: name another file for the output")
    folder = output_file.resolve().parent
    if folder.suffix == SHARDS and Path(folder.stem).suffix in Writer.SUFFIXES:
        raise ValueError(f"{output_file}: its folder holds the shards of another output: name a file in another folder")


def keep_output(output_file: Path, state: PartialState) -> AbstractContextManager[None]:
    """Return a context in which only the processes that share the work write an output, see [`locked`]."""
    return locked(output_file.parent, output_file.name) if state.is_main_process else nullcontext()


def predict_file(
    predictor: Predictor,
    input_file: Path,
    output_file: Path,
    options: TextOptions,
    shard_size: int,
    overwrite: bool,
    state: PartialState,
) -> None:
    """Write the rows of a file with predictions, in their order.

    All rows are read and checked before the first prediction. If a run was killed, calling the function again, on any
    number of processes, makes the missing shards, and the output has the same bytes as that of an uninterrupted run.

    Args:
        options: the way from rows to texts.
        shard_size: number of rows in a shard.
        overwrite: replace an existing output, once the new one is complete.
        state: the processes that share the work. All of them call this function.

    Raises:
        BlockingIOError: if another run writes the same output.
        FileNotFoundError, FileExistsError: see [`check_files`] and [`Shards.begin`].
        ValueError: see these, [`Texts`], [`Writer`] and its methods; if the input file changes during the run.
        RuntimeError: with the place of the row, if the model fails. Finished shards stay.
    """
    check_files(input_file, output_file)
    texts = Texts(input_file, options)
    writer = Writer(texts, output_file.suffix.lower(), predictor)
    shards = Shards(output_file)
    version = _file_version(input_file)

    def read_shards() -> Iterator[list[tuple[Row, Context]]]:
        rows = texts.rows()
        while shard := list(islice(rows, shard_size)):
            yield shard

    with keep_output(output_file, state):
        if state.is_main_process:
            settings = asdict(texts.options) | {"shard_size": shard_size, "device": state.device.type}
            checked = ([row for row, _ in shard] for shard in read_shards())
            shards.begin(version | settings | predictor.settings(), overwrite, lambda: writer.check(checked))
        state.wait_for_everyone()
        sizes: list[int] = []
        if (manifest := shards.contents()) is not None:
            writer.schema, texts.token_unit = manifest["schema"], manifest["token_unit"]
            sizes = [min(shard_size, manifest["rows"] - first) for first in range(0, manifest["rows"], shard_size)]
            _predict_shards(writer, shards, read_shards(), sizes, state)
        if state.is_main_process:
            if _file_version(input_file) != version:
                raise ValueError(f"{input_file} has changed during the run: delete {shards.folder} and start over")
            paths = [shards.path(i) for i in range(len(sizes))]
            shards.finish(lambda file: writer.join(file, paths, sizes))


def _predict_shards(
    writer: Writer,
    shards: Shards,
    contents: Iterable[list[tuple[Row, Context]]],
    sizes: list[int],
    state: PartialState,
) -> None:
    """Make this process's part of the missing shards, and return when the shards of all processes are finished."""
    done = shards.done()
    if done and max(done) >= len(sizes):
        raise ValueError(f"{shards.path(max(done))} is not of this run: delete {shards.folder} to start over")
    state.wait_for_everyone()  # all processes have to see the same finished shards
    missing = [i for i in range(len(sizes)) if i not in done]
    mine = set(missing[state.process_index :: state.num_processes])
    rows_done = sum(sizes[i] for i in done)
    if rows_done and state.is_main_process:
        logger.info("%d of %d rows were predicted in an earlier run", rows_done, sum(sizes))
    with tqdm(total=sum(sizes), initial=rows_done, unit=" rows", disable=not state.is_main_process) as bar:
        for i, rows in enumerate(islice(contents, max(mine, default=-1) + 1)):
            if i in mine:
                predictions = writer.predict(rows)
                with write_atomically(shards.path(i)) as file:
                    writer.write(file, [row for row, _ in rows], predictions)
                bar.update(sum(sizes[i] for i in shards.done()) - bar.n)
        state.wait_for_everyone()
        bar.update(sum(sizes) - bar.n)


def _file_version(path: Path) -> dict[str, Any]:
    """Return values that identify a file and its present content."""
    stat = path.stat()
    return {"input_file": str(path.resolve()), "input_size": stat.st_size, "input_modified": stat.st_mtime_ns}
