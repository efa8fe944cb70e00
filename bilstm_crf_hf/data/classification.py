"""Corpora for text classification as `datasets.Dataset`, whatever the file format.

Every corpus becomes the same two columns:

    text     Value("string")
    label    ClassLabel(names)

The names of a `ClassLabel` keep their order; other labels are sorted, integers by value. Rows without text are dropped,
and a warning counts them.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from .rows import PathLike, Row, class_label, dataset_rows, find_column, read_features, read_rows
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
        dataset_name: a data set on the Hub, or anything else that `datasets.load_dataset` takes.
        dataset_config_name: configuration of the data set.
        data_files: the file of each split, in place of `dataset_name`.
        text_column: column of texts. Default: the first of `TEXT_COLUMNS` that exists. In AI Hub's `.json`, the key of
            the utterance, `HS01` by default.
        label_column: column of labels. Default: the first of `LABEL_COLUMNS` that exists.
        label_names: names for labels that are the integers from 0, or new names for those of a `ClassLabel`.
        revision: revision of the data set on the Hub.

    Raises:
        FileNotFoundError: if a file does not exist.
        ImportError: if a file is a sheet and openpyxl is not installed.
        ValueError: with file and line or row, if a file cannot be read, a text is not a string, or a label is missing,
            of another type or not among those of `train`; if a suffix or a column is unknown, if `label_names` do not
            fit, or if not exactly one of `dataset_name` and `data_files` is given.
    """
    splits: dict[str, list[LabeledText]] = {}
    stored_names: dict[str, list[str] | None] = {}
    for split, (source, data) in open_splits(dataset_name, dataset_config_name, data_files, revision).items():
        if isinstance(data, Dataset):
            rows, features = dataset_rows(data, source), data.features
        else:
            rows, features = read_rows(data, ".tsv" if data.suffix.lower() == ".txt" else None), read_features(data)
        splits[split], stored_names[split] = _labeled_texts(list(rows), features, text_column, label_column, source)

    origin = "train" if "train" in splits else next(iter(splits))
    labels = stored_names[origin]
    if label_names is None:
        found = {row.label for row in splits[origin]}
        names = labels = labels or sorted(found, key=int if all(map(str.isdecimal, found)) else None)
    else:
        if labels and len(labels) != len(label_names):
            found = ", ".join(labels)
            raise ValueError(f"{origin} has the labels {found}: give as many label_names, not {len(label_names)}")
        names, labels, origin = label_names, labels or [str(i) for i in range(len(label_names))], "label_names"
    return DatasetDict({split: _dataset(rows, labels, names, origin) for split, rows in splits.items()})


def class_names(dataset: Dataset) -> list[str]:
    """Return the labels of a data set that a function of this module returned, in the order of their ids."""
    return list(dataset.features["label"].names)


def merge_labels(datasets: DatasetDict, merges: Sequence[str]) -> DatasetDict:
    """Return the same rows with some labels merged.

    Args:
        merges: `슬픔+상처`, or `아픔=슬픔+상처` to name the merged label. It takes the place of the first label in it.

    Raises:
        ValueError: if a label is unknown or merged twice, if a merge has only one label, or if its name is that of
            another label.
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
                raise ValueError(
                    f"merge_labels: {name} is merged twice: name it in one merge, with all other labels of that merge"
                )
            merged[name] = new
        if new in {merged.get(name, name) for name in names if name not in old}:
            raise ValueError(f"merge_labels: {new} is the name of another label ({merge}): choose a new one")
    kept = list(dict.fromkeys(merged.get(name, name) for name in names))
    ids = [kept.index(merged.get(name, name)) for name in names]
    columns = {split: (dataset["text"][:], [ids[i] for i in dataset["label"]]) for split, dataset in datasets.items()}
    return DatasetDict({split: _build(*pair, kept) for split, pair in columns.items()})


def check_classes(dataset: Dataset) -> None:
    """Check that every class has a row.

    Raises:
        ValueError: if a class has none.
    """
    present = set(dataset["label"])
    if absent := [name for i, name in enumerate(class_names(dataset)) if i not in present]:
        raise ValueError(
            f"the training data has no row of the class {', '.join(absent)}: add some, merge the class with another "
            "one with merge_labels, or raise max_train_samples"
        )


def _labeled_texts(
    rows: list[Row], features: Features, text_column: str | None, label_column: str | None, source: str
) -> tuple[list[LabeledText], list[str] | None]:
    """Return the rows that have a text, and the names of the labels in their order if `features` define them."""
    names, pairs = None, []
    if rows and {"profile", "talk"} <= rows[0].columns.keys():
        pairs = [_aihub_text_and_group(row, text_column) for row in rows]
    elif rows:
        text_column = find_column(rows, text_column, TEXT_COLUMNS, source)
        label_column = find_column(rows, label_column, LABEL_COLUMNS, source)
        pairs = [(row.columns.get(text_column), row.columns.get(label_column)) for row in rows]
        if label := class_label(features, label_column):
            names = label.names  # unlabelled rows have no id, or -1 on the Hub
            pairs = [(text, None if i is None or i < 0 else names[i]) for text, i in pairs]

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
        texts.append(LabeledText(place, text, str(label).strip()))
    if not texts:
        raise ValueError(f"{source}: no text in it")
    if len(texts) < len(rows):
        logger.warning("%s: dropped %d rows without text", source, len(rows) - len(texts))
    return texts, names


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
    for row in rows:
        if row.label not in ids:
            known = ", ".join(labels)
            raise ValueError(
                f"{row.place}: the label {row.label} is not among those of {origin} ({known}): correct it, or add it "
                f"to {origin}"
            )
    return _build([row.text for row in rows], [ids[row.label] for row in rows], names)


def _build(texts: Sequence[str], labels: Sequence[int], names: Sequence[str]) -> Dataset:
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(names))})
    return Dataset.from_dict({"text": texts, "label": labels}, features=features)
