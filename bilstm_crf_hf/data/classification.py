"""Corpora for text classification as `datasets.Dataset`, whatever the file format.

Every reader gives the same two columns:

    text     Value("string")
    label    ClassLabel(names)

Names that a data set brings along in a `ClassLabel` keep their order; others are sorted, integers by value. Rows
without text are dropped, with a warning that counts them. Errors count rows from 0, those of a sheet as it numbers
them, and lines from 1.
"""

import csv
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset

from .ner import PathLike, find_column, read_json_rows, read_lines, read_parquet

logger = logging.getLogger(__name__)

AIHUB_EMOTIONS = {1: "분노", 2: "슬픔", 3: "불안", 4: "상처", 5: "당황", 6: "기쁨"}
"""Names of the groups of AI Hub's emotion codes by their tens: E10 to E19 are 분노."""

Row = tuple[str, Any, Any]
"""Where it stands, for errors; its text; its label."""

_TEXT_COLUMNS = ("text", "document", "sentence", "사람문장1")
_LABEL_COLUMNS = ("label", "감정_대분류")


def load_classification_datasets(
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    data_files: Mapping[str, PathLike] | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    label_names: Sequence[str] | None = None,
    revision: str | None = None,
) -> DatasetDict:
    """The splits of a corpus on the Hugging Face Hub, or in local files, under the labels of `train`.

    The format of a file follows from its name:

    - `.parquet`, or a folder of such files; `.json`, `.jsonl`: an object a line, or one array of objects;
    - `.csv`; `.tsv`, `.txt`: columns with a header. Between tabs, quotation marks are text, as in NSMC's own
      `ratings_train.txt`;
    - `.xlsx`, with openpyxl installed: the first sheet, with a header.

    AI Hub's corpus of emotional dialogues is known in both of its formats: the first thing that the person says is the
    text, the group of the emotion the label.

    Args:
        dataset_name: a data set on the Hub, or anything else that `datasets.load_dataset` takes.
        dataset_config_name: its configuration.
        data_files: instead of a name, the file of each split.
        text_column: by default the first of `text`, `document`, `sentence` and `사람문장1` that there is. In AI Hub's
            json, which of the sentences: `HS01` by default.
        label_column: by default the first of `label` and `감정_대분류` that there is.
        label_names: names for labels that are the integers from 0 on, or in place of those of a `ClassLabel`.
        revision: of the data set on the Hub.

    Raises:
        FileNotFoundError: a file does not exist.
        ImportError: openpyxl is needed and not installed.
        ValueError: with file and row: a text is not a string, a label is missing, of another type or not among those of
            `train`; an unknown suffix, a missing column, a file that cannot be read; not exactly one of a name and
            files is given; `label_names` do not fit.
    """
    if (dataset_name is None) == (not data_files):
        raise ValueError("give either the dataset_name of a data set or data_files, the file of each split")
    columns = (text_column, label_column)
    raw: dict[str, tuple[str, list[Row], list[str] | None]] = {}
    if data_files:
        for split, path in data_files.items():
            raw[split] = (str(path), *_read_file(Path(path), *columns))
    else:
        for split, dataset in load_dataset(dataset_name, dataset_config_name, revision=revision).items():
            source = f"{dataset_name} ({split})"
            raw[split] = (source, *_table_rows(dataset, *columns, source))

    splits = {split: _with_text(rows, source) for split, (source, rows, _) in raw.items()}
    first = "train" if "train" in splits else next(iter(splits))
    names = raw[first][2] or _sorted({label for _, _, label in splits[first]})
    if label_names is not None:
        own, names = raw[first][2], list(label_names)
        if own and len(own) != len(names):
            raise ValueError(f"{raw[first][0]} has the labels {', '.join(own)}: label_names must be as many")
        known = own or [str(i) for i in range(len(names))]
        splits = {split: _named(rows, known, names) for split, rows in splits.items()}
    return DatasetDict({split: _dataset(rows, names, first) for split, rows in splits.items()})


def class_names(dataset: Dataset) -> list[str]:
    """The names behind the column `label` of a data set that a function of this module made, in the order of ids."""
    return list(dataset.features["label"].names)


def merge_labels(datasets: DatasetDict, merges: Sequence[str]) -> DatasetDict:
    """The same rows with some labels made one.

    Args:
        merges: `슬픔+상처`, or `아픔=슬픔+상처` with a name of its own for the label that results. It takes the place
            of the first of those it is made of.

    Raises:
        ValueError: a label is unknown, or merged twice; there is only one; the name is that of another label.
    """
    names = class_names(next(iter(datasets.values())))
    merged: dict[str, str] = {}
    for merge in merges:
        new, _, joined = merge.rpartition("=")
        old = [name.strip() for name in joined.split("+")]
        new = new.strip() or "+".join(old)
        if len(old) < 2:
            raise ValueError(f"merge_labels: {merge!r} is not of the form 슬픔+상처 or 아픔=슬픔+상처")
        for name in old:
            if name not in names:
                raise ValueError(f"merge_labels: there is no label {name!r} ({merge}); there are {', '.join(names)}")
            if name in merged:
                raise ValueError(f"merge_labels: {name} is merged twice: name it once, with all that it is joined to")
            merged[name] = new
        if new in {merged.get(name, name) for name in names if name not in old}:
            raise ValueError(f"merge_labels: {new} is the name of another label ({merge}): choose a new one")
    kept = list(dict.fromkeys(merged.get(name, name) for name in names))
    ids = [kept.index(merged.get(name, name)) for name in names]
    return DatasetDict(
        {
            split: _table(dataset["text"][:], [ids[label] for label in dataset["label"]], kept)
            for split, dataset in datasets.items()
        }
    )


def check_classes(dataset: Dataset) -> None:
    """Every class has a row to be learned from.

    Raises:
        ValueError: a class has none.
    """
    present = set(dataset["label"])
    if absent := [name for i, name in enumerate(class_names(dataset)) if i not in present]:
        raise ValueError(
            f"the training data has no row of the class {', '.join(absent)}: add some, merge the class with another "
            "one by merge_labels, or raise max_train_samples"
        )


def _read_file(path: Path, text_column: str | None, label_column: str | None) -> tuple[list[Row], list[str] | None]:
    """The rows of a file, and the names of its labels in their order, if it says."""
    suffix = path.suffix.lower()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if suffix == ".parquet" or path.is_dir():
        return _table_rows(read_parquet(path), text_column, label_column, str(path))
    if suffix in (".json", ".jsonl"):
        return _json_rows(path, text_column, label_column), None
    if suffix in (".csv", ".tsv", ".txt"):
        return _line_rows(path, _csv(path) if suffix == ".csv" else _tsv(path), text_column, label_column), None
    if suffix == ".xlsx":
        return _xlsx_rows(path, text_column, label_column), None
    raise ValueError(f"{path}: unknown suffix {suffix!r}; known are .parquet, .json, .jsonl, .csv, .tsv, .txt, .xlsx")


def _table_rows(
    dataset: Dataset, text_column: str | None, label_column: str | None, source: str
) -> tuple[list[Row], list[str] | None]:
    text_column = find_column(dataset.column_names, text_column, _TEXT_COLUMNS, source)
    label_column = find_column(dataset.column_names, label_column, _LABEL_COLUMNS, source)
    texts, labels = dataset[text_column][:], dataset[label_column][:]
    feature = dataset.features[label_column]
    names = list(feature.names) if isinstance(feature, ClassLabel) else None
    if names:  # test sets without labels have -1
        labels = [None if label is None or label < 0 else names[label] for label in labels]
    return [(f"{source}: row {i}", *row) for i, row in enumerate(zip(texts, labels, strict=True))], names


def _json_rows(path: Path, text_column: str | None, label_column: str | None) -> list[Row]:
    rows = read_json_rows(path)
    if {"profile", "talk"} <= rows[0].keys():
        return [(f"{path}: row {i}", *_aihub_row(row, text_column, f"{path}: row {i}")) for i, row in enumerate(rows)]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text_column = find_column(columns, text_column, _TEXT_COLUMNS, str(path))
    label_column = find_column(columns, label_column, _LABEL_COLUMNS, str(path))
    return [(f"{path}: row {i}", row.get(text_column), row.get(label_column)) for i, row in enumerate(rows)]


def _aihub_row(row: dict[str, Any], text_column: str | None, at: str) -> tuple[Any, str]:
    """Text and label of `{"profile": {"emotion": {"type": "E18"}}, "talk": {"content": {"HS01": "..."}}}`."""
    try:
        code, text = row["profile"]["emotion"]["type"], row["talk"]["content"][text_column or "HS01"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{at}: not laid out as in AI Hub's corpus: no {error} in its place") from None
    group = AIHUB_EMOTIONS.get(int(code[1:]) // 10) if re.fullmatch(r"E\d\d", str(code)) else None
    if group is None:
        raise ValueError(f"{at}: unknown emotion {code!r}; AI Hub's are E10 to E69")
    return text, group


def _csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file and the numbers of the lines that they end on."""
    reader = csv.reader((f"{line}\n" for line in read_lines(path)), strict=True)
    try:
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}") from None


def _tsv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Likewise, without any quoting."""
    return ((number, line.split("\t") if line else []) for number, line in enumerate(read_lines(path), 1))


def _line_rows(
    path: Path, rows: Iterator[tuple[int, list[str]]], text_column: str | None, label_column: str | None
) -> list[Row]:
    """The rows below a header; blank lines are left out."""
    _, header = next(rows, (1, []))
    text_at = header.index(find_column(header, text_column, _TEXT_COLUMNS, str(path)))
    label_at = header.index(find_column(header, label_column, _LABEL_COLUMNS, str(path)))
    found = []
    for number, fields in rows:
        if fields and len(fields) != len(header):
            raise ValueError(f"{path}:{number}: {len(fields)} columns, but the header has {len(header)}")
        if fields:
            found.append((f"{path}:{number}", fields[text_at], fields[label_at]))
    return found


def _xlsx_rows(path: Path, text_column: str | None, label_column: str | None) -> list[Row]:
    """The rows of the first sheet, numbered as the sheet does."""
    if find_spec("openpyxl") is None:
        raise ImportError(f"{path}: reading .xlsx needs openpyxl: pip install openpyxl, or save the sheet as .csv")
    try:
        sheet = pd.read_excel(path, engine="openpyxl", dtype=object, keep_default_na=False)
    except (BadZipFile, KeyError) as error:
        raise ValueError(f"{path}: not an xlsx file that can be read: {error}") from None
    columns = [str(column) for column in sheet.columns]
    texts = sheet.iloc[:, columns.index(find_column(columns, text_column, _TEXT_COLUMNS, str(path)))]
    labels = sheet.iloc[:, columns.index(find_column(columns, label_column, _LABEL_COLUMNS, str(path)))]
    return [(f"{path}: row {i}", *row) for i, row in enumerate(zip(texts, labels, strict=True), 2)]


def _with_text(rows: list[Row], source: str) -> list[tuple[str, str, str]]:
    """The rows that have a text, with their labels as strings."""
    kept = []
    for at, text, label in rows:
        if text is None or isinstance(text, str) and not text.strip():
            continue
        if not isinstance(text, str):
            raise ValueError(f"{at}: the text is {text!r}, not a string: correct it, or name another text_column")
        if label is None or isinstance(label, str) and not label.strip():
            raise ValueError(f"{at}: there is a text, but no label: add one, or take the row out")
        if isinstance(label, bool) or not isinstance(label, str | int):
            raise ValueError(f"{at}: the label is {label!r}; expected a name or an integer")
        kept.append((at, text, str(label).strip()))
    if not kept:
        raise ValueError(f"{source}: no text in it")
    if len(kept) < len(rows):
        logger.warning("%s: dropped %d rows without text", source, len(rows) - len(kept))
    return kept


def _sorted(names: set[str]) -> list[str]:
    return sorted(names, key=int if all(name.isdecimal() for name in names) else None)


def _named(rows: list[tuple[str, str, str]], known: list[str], names: list[str]) -> list[tuple[str, str, str]]:
    """The rows with new names for the labels `known`."""
    renamed = dict(zip(known, names, strict=True))
    for at, _, label in rows:
        if label not in renamed:
            raise ValueError(f"{at}: label_names name the labels {', '.join(known)}, and this one is {label}")
    return [(at, text, renamed[label]) for at, text, label in rows]


def _dataset(rows: list[tuple[str, str, str]], names: list[str], first: str) -> Dataset:
    """The data set of rows whose labels are among `names`, those of the split `first`."""
    ids = {name: i for i, name in enumerate(names)}
    for at, _, label in rows:
        if label not in ids:
            raise ValueError(
                f"{at}: the label {label} is not among those of {first} ({', '.join(names)}): correct it, or add rows "
                f"of this class to {first}"
            )
    return _table([text for _, text, _ in rows], [ids[label] for _, _, label in rows], names)


def _table(texts: list[str], labels: list[int], names: list[str]) -> Dataset:
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"text": texts, "label": labels}, features=features)
