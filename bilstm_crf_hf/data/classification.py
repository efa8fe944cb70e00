"""Corpora for text classification as data sets of the columns `text` and `label`, a `ClassLabel`, whatever the format.

The names of a `ClassLabel` keep their order. Other labels are sorted, integers by value; they are strings as they stand
in the file, without the white space around them: `1`, `1.0` and `01` are three labels. Rows without text are dropped,
and a warning counts them.
"""

import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from .rows import PathLike, Row, class_label, find_column, typed_rows
from .splits import open_splits

logger = logging.getLogger(__name__)

AIHUB_EMOTIONS = {1: "분노", 2: "슬픔", 3: "불안", 4: "상처", 5: "당황", 6: "기쁨"}
"""The names of the groups of AI Hub's emotion codes by their tens: E10 to E19 are 분노."""

TEXT_COLUMNS = ("text", "document", "sentence", "사람문장1")
LABEL_COLUMNS = ("label", "감정_대분류")


class LabeledText(NamedTuple):
    """A text with its label, and its place for error messages."""

    place: str
    text: str
    label: str


def load_classification_datasets(
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    data_files: Mapping[str, PathLike] | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    label_names: Sequence[str] | None = None,
    revision: str | None = None,
) -> DatasetDict:
    """Load the splits of a corpus from the Hugging Face Hub or from local files, with the labels of `train` in all.

    The module `rows` lists the file types. A `.txt` file is read as `.tsv`, as NSMC's `ratings_train.txt` is one. AI
    Hub's corpus of emotional dialogues is read in both of its formats, `.json` and `.xlsx`: the first utterance of the
    person is the text, the group of the emotion is the label.

    Args:
        dataset_name: a data set on the Hub, or a folder with a file for each split, such as `train.jsonl`.
        data_files: the file of each split, in place of `dataset_name`.
        text_column, label_column: columns of texts and labels. Default: the first in `TEXT_COLUMNS` and
            `LABEL_COLUMNS`. In AI Hub's `.json`, `text_column` is the key of the utterance, `HS01` by default.
        label_names: names for labels that are the integers from 0, or new names for those of a `ClassLabel`.

    Raises:
        FileNotFoundError: if a file does not exist.
        ImportError: if a file is a sheet and openpyxl is not installed.
        ValueError: with file and row, if a file, a text or a label is not valid, or two labels differ only in case or
            white space; if a suffix or a column is unknown, `label_names` do not fit, or not exactly one of
            `dataset_name` and `data_files` is given.
    """
    splits, stored_names = {}, {}
    for split, (source, data) in open_splits(dataset_name, dataset_config_name, data_files, revision).items():
        suffix = ".tsv" if isinstance(data, Path) and data.suffix.lower() == ".txt" else None
        rows, features = typed_rows(data, source, suffix)
        splits[split], stored_names[split] = _labeled_texts(rows, features, text_column, label_column, source)

    origin = "train" if "train" in splits else next(iter(splits))
    labels = stored_names[origin]
    if label_names is None:
        found = {row.label for row in splits[origin]}
        if not labels:
            _check_variants(splits[origin])
        labels = label_names = labels or sorted(found, key=_by_value if all(map(str.isdecimal, found)) else None)
    else:
        if labels and len(labels) != len(label_names):
            problem = f"{origin} has the labels {', '.join(labels)}"
            raise ValueError(f"{problem}: give as many label_names, not {len(label_names)}")
        labels, origin = labels or [str(i) for i in range(len(label_names))], "label_names"
    return DatasetDict({split: _dataset(rows, labels, label_names, origin) for split, rows in splits.items()})


def class_names(dataset: Dataset) -> list[str]:
    """Return the labels of a data set that a function of this module returned, in the order of their ids."""
    return list(dataset.features["label"].names)


def merge_labels(datasets: DatasetDict, merges: Sequence[str]) -> DatasetDict:
    """Return the same rows with some labels merged, as in `슬픔+상처` or, with a new name, `아픔=슬픔+상처`.

    A merged label takes the place of the first label in it.

    Raises:
        ValueError: if a label is unknown, alone or merged twice, or if a new name is that of another label.
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
                raise ValueError(f"merge_labels: {name} is merged twice: write one merge of all these labels")
            merged[name] = new
        if new in {merged.get(name, name) for name in names if name not in old}:
            raise ValueError(f"merge_labels: {new} is the name of another label ({merge}): choose a new one")
    kept = list(dict.fromkeys(merged.get(name, name) for name in names))
    ids = [kept.index(merged.get(name, name)) for name in names]
    return DatasetDict(
        {split: _build(rows["text"][:], [ids[i] for i in rows["label"]], kept) for split, rows in datasets.items()}
    )


def check_classes(dataset: Dataset) -> None:
    """Raise ValueError if a class has no row."""
    present = set(dataset["label"])
    if absent := [name for i, name in enumerate(class_names(dataset)) if i not in present]:
        problem = f"the training data has no row of the class {', '.join(absent)}"
        raise ValueError(f"{problem}: add some, merge it with another one (merge_labels), or raise max_train_samples")


def _labeled_texts(
    rows: list[Row], features: Features, text_column: str | None, label_column: str | None, source: str
) -> tuple[list[LabeledText], list[str] | None]:
    """Return the rows that have a text, and the names of the labels in their order if `features` define them."""
    names: list[str] | None = None
    pairs: list[tuple[Any, Any]] = []
    if rows and {"profile", "talk"} <= rows[0].columns.keys():
        pairs = [_aihub_text_and_group(row, text_column) for row in rows]
    elif rows:
        text_column = find_column(rows, text_column, TEXT_COLUMNS, source)
        label_column = find_column(rows, label_column, LABEL_COLUMNS, source)
        for row in rows:
            find_column([row], text_column, (), row.place)
        pairs = [(row.columns[text_column], row.columns.get(label_column)) for row in rows]
        if label := class_label(features, label_column):
            names = label.names
            pairs = [(text, _name_of(i, names, row)) for (text, i), row in zip(pairs, rows, strict=True)]

    texts = []
    for (place, _), (text, label) in zip(rows, pairs, strict=True):
        if text is None or isinstance(text, str) and not text.strip():
            continue
        if not isinstance(text, str):
            raise ValueError(f"{place}: the text is {text!r}, not a string: correct it, or name another text_column")
        if label is None or isinstance(label, str) and not label.strip():
            raise ValueError(f"{place}: there is a text, but no label: add one, or remove the row")
        if isinstance(label, bool) or not isinstance(label, str | int):
            raise ValueError(f"{place}: the label is {label!r}; expected a name or an integer")
        texts.append(LabeledText(place, text, str(label) if names else str(label).strip()))
    if not texts:
        raise ValueError(f"{source}: no text in it")
    if len(texts) < len(rows):
        logger.warning("%s: dropped %d rows without text", source, len(rows) - len(texts))
    return texts, names


def _name_of(i: Any, names: list[str], row: Row) -> str | None:
    """Return the name of a label id; unlabelled rows have none, or -1 on the Hub."""
    if i is None or i == -1:
        return None
    if not isinstance(i, int) or not 0 <= i < len(names):
        raise ValueError(f"{row.place}: the label is {i!r}; its ClassLabel has the ids 0 to {len(names) - 1}")
    return names[i]


def _check_variants(rows: list[LabeledText]) -> None:
    """Raise ValueError with the place of a label that differs from another one only in what is hard to see."""
    known: dict[str, str] = {}
    for label, place in {row.label: row.place for row in reversed(rows)}.items():
        visible = "".join(c for c in unicodedata.normalize("NFKC", label) if unicodedata.category(c) != "Cf")
        if (other := known.setdefault(" ".join(visible.casefold().split()), label)) != label:
            problem = f"the labels {label!a} and {other!a} differ only in case, white space or variants of characters"
            raise ValueError(f"{place}: {problem}: write one of them in all rows")


def _by_value(digits: str) -> tuple[int, str, str]:
    """Return a key that sorts strings of digits by value, however long they are."""
    significant = digits.lstrip("0")
    return len(significant), significant, digits


def _aihub_text_and_group(row: Row, text_column: str | None) -> tuple[Any, str]:
    """Return text and label of `{"profile": {"emotion": {"type": "E18"}}, "talk": {"content": {"HS01": "..."}}}`."""
    place, columns = row
    try:
        code, text = columns["profile"]["emotion"]["type"], columns["talk"]["content"][text_column or "HS01"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{place}: not laid out as AI Hub's corpus: {error} is missing") from None
    group = AIHUB_EMOTIONS.get(int(code[1:]) // 10) if re.fullmatch(r"E\d\d", str(code)) else None
    if group is None:
        raise ValueError(f"{place}: unknown emotion {code!r}; AI Hub's codes are E10 to E69")
    return text, group


def _dataset(rows: list[LabeledText], labels: list[str], names: Sequence[str], origin: str) -> Dataset:
    """Build the data set of rows whose labels are among `labels`, which `origin` defines, and are called `names`."""
    ids = {label: i for i, label in enumerate(labels)}
    if unknown := next((row for row in rows if row.label not in ids), None):
        problem = f"the label {unknown.label} is not among those of {origin} ({', '.join(labels)})"
        raise ValueError(f"{unknown.place}: {problem}: correct it, or add it to {origin}")
    return _build([row.text for row in rows], [ids[row.label] for row in rows], names)


def _build(texts: Sequence[str], labels: Sequence[int], names: Sequence[str]) -> Dataset:
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(names))})
    return Dataset(pa.table({"text": texts, "label": labels}, schema=features.arrow_schema))
