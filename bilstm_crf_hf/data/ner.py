"""Named-entity corpora as `datasets.Dataset`, whatever the file format.

Every reader gives the same two columns:

    text    Value("string")
    tags    List(ClassLabel(names))    one BIO tag a character of `text`, white space included

White space within an entity carries I-, as in KLUE-NER. The labels are BIO pairs in alphabetical order of the entity
types, then O; names that a data set brings along in a `ClassLabel` keep their order. Sentences without any visible
character are dropped, with a warning that counts them. Files are UTF-8, with or without a byte order mark.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetDict, Features, LargeList, List, Value, load_dataset

from ..alignment import Span, scheme_of, spans_from_tags, split_tag, tags_from_spans

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]
Sentence = tuple[str, list[Span]]
"""A text and its entities as spans of characters."""

_CONLL_SUFFIXES = (".conll", ".bio", ".iob2", ".bioes")
_JSON_SUFFIXES = (".json", ".jsonl")
_SUFFIXES = (".parquet", *_JSON_SUFFIXES, ".tsv", ".txt", *_CONLL_SUFFIXES)
_TEXT_COLUMNS = ("tokens", "words", "text")
_TAGS_COLUMNS = ("ner_tags", "tags")


def load_ner_datasets(
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    data_files: Mapping[str, PathLike] | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    entity_types: Sequence[str] | None = None,
    revision: str | None = None,
) -> DatasetDict:
    """The splits of a corpus on the Hugging Face Hub, or in local files, under one set of labels.

    The format of a file follows from its name:

    - `.parquet`, or a folder of such files, and `.json`, `.jsonl` (an object a line, or one array of objects): see
      [`from_columns`];
    - `.tsv`: [`read_klue_tsv`] if the first line that is not blank begins with `##` or if every such line is one
      character, a tab and more; else [`read_conll`];
    - `.txt`: as `.tsv` if the first line that is not blank has a tab, else [`read_inline`];
    - `.conll`, `.bio`, `.iob2`, `.bioes`: [`read_conll`].

    The labels are those of the split `train`, or of all splits together if there is no `train`.

    Args:
        dataset_name: a data set on the Hub, or anything else that `datasets.load_dataset` takes.
        dataset_config_name: its configuration, as `"ner"` of `"klue"`.
        data_files: instead of a name, the file of each split.
        text_column: column of tokens in Hub, Parquet and JSON data. See [`from_columns`] for the default.
        label_column: column of tags, likewise.
        entity_types: all types there are, for a `train` that does not show all of them, and for inline marks.
        revision: of the data set on the Hub.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: not exactly one of a name and files is given; an unknown suffix; a split has a label that is not
            among those of `train`, or of `entity_types`; whatever the readers raise.
    """
    if (dataset_name is None) == (not data_files):
        raise ValueError("give either the dataset_name of a data set or data_files, the file of each split")
    if data_files and dataset_config_name is not None:
        raise ValueError("dataset_config_name goes with dataset_name, not with data_files")
    splits, sources = {}, {}
    if data_files:
        for split, path in data_files.items():
            sources[split] = str(path)
            splits[split] = _read_file(Path(path), entity_types, text_column, label_column)
    else:
        for split, raw in load_dataset(dataset_name, dataset_config_name, revision=revision).items():
            sources[split] = f"{dataset_name} ({split})"
            splits[split] = from_columns(raw, text_column, label_column, sources[split])

    labels = labels_of(splits["train"] if "train" in splits else next(iter(splits.values())))
    origin = "train" if entity_types is None else "entity_types"
    if entity_types is None and "train" not in splits:
        entity_types = [split_tag(label)[1] for dataset in splits.values() for label in labels_of(dataset)]
    if entity_types is not None and set(labels) != set(_bio_labels(entity_types)):
        labels = _bio_labels(entity_types)
    return DatasetDict({split: _with_labels(splits[split], labels, sources[split], origin) for split in splits})


def labels_of(dataset: Dataset) -> list[str]:
    """The names behind the column `tags` of a data set that a function of this module made, in the order of ids."""
    return list(dataset.features[find_column(dataset.column_names, "tags", (), "data set")].feature.names)


def read_klue_tsv(path: PathLike) -> Dataset:
    """A file as `klue-ner-v1.1_dev.tsv`: lines `character<TAB>tag`, blank lines between sentences.

    The character may be a space. Lines with white space only count as blank. Lines that begin with `##` before a
    sentence are comments.

    Raises:
        ValueError: with file and line, if a line is not of this form or its tag cannot follow the one before it.
    """
    return _read_columns(path, _split_klue, "##", joiner="")


def read_conll(path: PathLike, token_column: int = 0, tag_column: int = -1) -> Dataset:
    """A file in columns with a word a line, blank lines between sentences; words are joined by one space.

    Columns are separated by tabs if the line has one, else by white space. Tags are BIO or BIOES. Lines that begin
    with `# ` before a sentence are comments; `-DOCSTART-` separates sentences like a blank line.

    Args:
        path: the file.
        token_column: index of the column of words, from 0, or from the end if negative.
        tag_column: index of the column of tags, likewise.

    Raises:
        ValueError: with file and line, if columns are missing, a word is empty, or a tag is none or cannot stand where
            it does.
    """
    needed = max(2, *(i + 1 if i >= 0 else -i for i in (token_column, tag_column)))

    def split(line: str) -> tuple[str, str]:
        columns = line.split("\t") if "\t" in line else line.split()
        if len(columns) < needed:
            raise ValueError(f"expected {needed} columns or more, found {len(columns)} in {line!r}")
        if not columns[token_column].strip():
            raise ValueError(f"no word in {line!r}: a file of single characters is for read_klue_tsv")
        return columns[token_column], columns[tag_column]

    return _read_columns(path, split, "# ", joiner=" ")


def read_inline(path: PathLike, entity_types: Sequence[str] | None = None) -> Dataset:
    """A file with a sentence a line, entities marked as in `<경찰:OG>은 또`; see [`parse_inline`].

    Raises:
        ValueError: with file and line, what [`parse_inline`] raises; the file marks no entity at all.
    """
    sentences = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            sentences.append(parse_inline(line, entity_types))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
    dataset = _dataset(sentences, str(path), None if entity_types is None else _bio_labels(entity_types))
    if not any(spans for _, spans in sentences):  # some other format would be read as sentences without entities
        raise ValueError(f"{path}: no entity is marked as in <경찰:OG>; is this file in another format?")
    return dataset


def parse_inline(line: str, entity_types: Sequence[str] | None = None) -> Sentence:
    """The text and the entities of a line as `<손흥민:PS>은 <춘천:LC>에 있다.`; the inverse of `alignment.render`.

    A mark is `<...:TYPE>` with a type in upper case (`[A-Z][A-Z0-9_]*`) or one of `entity_types`. All other `<` and `>`
    are text, so `<<레이:PS>>` is an entity in brackets.

    Raises:
        ValueError: a mark is empty or holds another one; its type is not among the `entity_types` given.
    """
    kind = "|".join([*map(re.escape, entity_types or ()), "[A-Z][A-Z0-9_]*"])
    pattern = rf"<([^<>]*):({kind})>"
    text, spans, at = "", [], 0
    for mark in re.finditer(pattern, line):
        content, label = mark.groups()
        if entity_types is not None and label not in entity_types:
            known = ", ".join(entity_types)
            raise ValueError(
                f"unknown entity type {label} in {mark[0]}: add it to entity_types ({known}), or correct it"
            )
        if not content.strip():
            raise ValueError(f"{mark[0]} marks no text: take the mark out")
        text += line[at : mark.start()]
        spans.append(Span(len(text), len(text) + len(content), label))
        text, at = text + content, mark.end()
    text += line[at:]
    if nested := re.search(pattern, text):  # no mark has `<` or `>` in it, so the outer one of two is still there
        raise ValueError(f"{nested[0]} marks an entity around another one: keep one of the two")
    return text, spans


def from_columns(
    dataset: Dataset, text_column: str | None = None, label_column: str | None = None, source: str = "data set"
) -> Dataset:
    """A data set with a list of tokens and a list of tags a row, as `klue/ner` or `conll2003`.

    If every token of the data set is a single character, they are put together as they are; else they are words,
    joined by one space. The tokens may also be a string, whose units are its characters. Tags are BIO or BIOES,
    strings or a `ClassLabel`; the names of a BIO `ClassLabel` keep their order.

    Args:
        dataset: the rows. Other columns are left out.
        text_column: column of tokens; by default the first of `tokens`, `words` and `text` that there is.
        label_column: column of tags; by default the first of `ner_tags` and `tags` that there is.
        source: what errors call the data set.

    Raises:
        ValueError: a column is missing or of another type; with the row, counted from 0: tokens and tags differ in
            number, one is null or empty, or a tag cannot stand where it does.
    """
    text_column = find_column(dataset.column_names, text_column, _TEXT_COLUMNS, source)
    label_column = find_column(dataset.column_names, label_column, _TAGS_COLUMNS, source)
    _check_types(dataset.features, text_column, label_column, source)
    columns = dataset.with_format(None).select_columns([text_column, label_column])[:]
    rows = [(units or [], tags or []) for units, tags in zip(columns[text_column], columns[label_column], strict=True)]

    feature = dataset.features[label_column].feature
    named = isinstance(feature, ClassLabel)
    names = feature.names if named else {tag for _, tags in rows for tag in tags if tag}
    scheme = scheme_of(names)
    joiner = "" if all(len(unit) == 1 for units, _ in rows for unit in units if unit) else " "

    sentences = []
    for row, (units, tags) in enumerate(rows):
        try:
            if len(units) != len(tags):
                raise ValueError(f"{len(units)} in column {text_column}, but {len(tags)} in column {label_column}")
            if not all(units) or None in tags:
                raise ValueError("a token or tag is null or empty")
            tags = feature.int2str(tags) if named else tags
            sentences.append(_sentence(units, tags, joiner, scheme, "token {}".format))
        except ValueError as error:
            raise ValueError(f"{source}: row {row}: {error}") from None
    if not named:
        return _dataset(sentences, source)
    labels = _bio_labels(split_tag(name)[1] for name in names)
    return _dataset(sentences, source, list(dict.fromkeys([*names, *labels])) if scheme == "BIO" else labels)


def find_column(columns: Sequence[str], name: str | None, defaults: Sequence[str], source: str) -> str:
    """The column `name`, or the first of `defaults` that there is.

    Raises:
        ValueError: there is none.
    """
    wanted = defaults if name is None else [name]
    for column in wanted:
        if column in columns:
            return column
    raise ValueError(f"{source}: no column {' or '.join(wanted)}; its columns are {', '.join(columns)}")


def _check_types(features: Features, text_column: str, label_column: str, source: str) -> None:
    strings = ("string", "large_string")
    text, tags = features[text_column], features[label_column]
    unit = text.feature if isinstance(text, List | LargeList) else text
    if not (isinstance(unit, Value) and unit.dtype in strings):
        raise ValueError(f"{source}: column {text_column} holds {text}; expected a string or a list of strings")
    tag = tags.feature if isinstance(tags, List | LargeList) else None
    if isinstance(tag, ClassLabel):
        try:
            for name in tag.names:
                split_tag(name)
        except ValueError as error:
            raise ValueError(f"{source}: column {label_column}: {error}") from None
    elif not (isinstance(tag, Value) and tag.dtype in strings):
        raise ValueError(
            f"{source}: column {label_column} holds {tags}; expected a list of strings or of ClassLabel, which says "
            f"what numbers stand for: cast_column({label_column!r}, List(ClassLabel(names=[...])))"
        )


def _read_file(
    path: Path, entity_types: Sequence[str] | None, text_column: str | None, label_column: str | None
) -> Dataset:
    suffix = path.suffix.lower()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if suffix == ".parquet" or path.is_dir():
        return from_columns(read_parquet(path), text_column, label_column, str(path))
    if suffix in _JSON_SUFFIXES:
        return from_columns(_read_json(path), text_column, label_column, str(path))
    if suffix in _CONLL_SUFFIXES:
        return read_conll(path)
    if suffix not in (".tsv", ".txt"):
        raise ValueError(f"{path}: unknown suffix {suffix!r}; known are {', '.join(_SUFFIXES)}")
    lines = [line for line in read_lines(path) if line.strip()]
    if suffix == ".txt" and not (lines and "\t" in lines[0]):
        return read_inline(path, entity_types)
    if lines and (lines[0].startswith("##") or all(line[1:2] == "\t" for line in lines)):
        return read_klue_tsv(path)
    return read_conll(path)


def read_parquet(path: Path) -> Dataset:
    """Read without `load_dataset`, which would keep a copy in the cache."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path}: no .parquet file in this folder")
    tables: list[pa.Table] = []
    for file in files:
        try:
            tables.append(pq.read_table(file))
        except pa.ArrowException as error:
            raise ValueError(f"{file}: not a Parquet file that can be read: {error}") from error
        if Dataset(tables[-1]).features != Dataset(tables[0]).features:
            raise ValueError(f"{file}: columns or label names differ from those of {files[0]}")
    return Dataset(pa.concat_tables(tables))


def _read_json(path: Path) -> Dataset:
    try:
        return Dataset.from_list(read_json_rows(path))
    except pa.ArrowException as error:
        raise ValueError(f"{path}: a column mixes types: {error}") from error


def read_json_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one a line, or with one array of them.

    Raises:
        ValueError: with file and line or row, if it is not JSON or not of objects; if it is empty.
    """
    lines = read_lines(path)
    text = "\n".join(lines)
    is_array = text.lstrip().startswith("[")
    rows: list[Any] = []
    for number, document in enumerate([text] if is_array else lines, 1):
        if not document.strip():
            continue
        try:
            value = json.loads(document)
        except json.JSONDecodeError as error:
            place = f"{path}:{number + error.lineno - 1}"
            raise ValueError(f"{place}: {error.msg}; expected an object a line, or one array of objects") from None
        rows += value if is_array else [value]
    strange = [row for row, value in enumerate(rows) if not isinstance(value, dict)]
    if strange:
        raise ValueError(f"{path}: row {strange[0]} is not an object with a text and its labels")
    if not rows:
        raise ValueError(f"{path}: no sentence in it")
    return rows


def read_lines(path: PathLike) -> list[str]:
    """The lines of a UTF-8 file, split at newlines only: `str.splitlines` also splits at characters a text may hold."""
    try:
        text = Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        place = f"{path}: byte {error.start}"
        raise ValueError(f"{place} is not UTF-8 ({error.reason}): convert the file, as by iconv -f cp949") from None
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    return lines if lines[-1] else lines[:-1]


def _split_klue(line: str) -> tuple[str, str]:
    character, _, tag = line.rpartition("\t")
    if len(character) != 1:
        raise ValueError(f"expected one character, a tab and a tag, found {line!r}; for words use read_conll")
    return character, tag


def _read_columns(path: PathLike, split: Callable[[str], tuple[str, str]], comment: str, joiner: str) -> Dataset:
    """The sentences of a file with a unit a line, which `split` takes apart into unit and tag."""
    sentences: list[list[tuple[str, str, int]]] = [[]]
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            sentences.append([])
        elif sentences[-1] or not line.startswith(comment):  # within a sentence, `# ` may be a token and its columns
            try:
                unit, tag = split(line)
                split_tag(tag)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from None
            sentences[-1].append((unit, tag, number))
    scheme = scheme_of({tag for sentence in sentences for _, tag, _ in sentence})
    rows = []
    for units, tags, numbers in (zip(*sentence, strict=True) for sentence in sentences if sentence):
        rows.append(_sentence(units, tags, joiner, scheme, lambda i, at=numbers: f"{path}:{at[i]}"))
    return _dataset(rows, str(path))


def _sentence(
    units: Sequence[str], tags: Sequence[str], joiner: str, scheme: str, place: Callable[[int], str]
) -> Sentence:
    """The text that `units` make up, with the entities on its characters.

    Raises:
        ValueError: the tags are not valid in `scheme`, with the `place` of the first that is not.
    """
    spans = spans_from_tags(tags)
    valid = tags_from_spans(spans, len(tags), scheme)
    for i, (tag, other) in enumerate(zip(tags, valid, strict=True)):
        if tag != other:
            raise ValueError(f"{place(i)}: {tag} cannot stand here in {scheme}, {other} could: correct the tags")
    starts = list(accumulate((len(unit) + len(joiner) for unit in units), initial=0))
    return joiner.join(units), [Span(starts[start], starts[end] - len(joiner), label) for start, end, label in spans]


def _bio_labels(entity_types: Iterable[str]) -> list[str]:
    pairs = [f"{prefix}-{label}" for label in sorted(set(entity_types) - {""}) for prefix in "BI"]
    return [*pairs, "O"]


def _dataset(sentences: list[Sentence], source: str, labels: list[str] | None = None) -> Dataset:
    """The data set of all sentences that have text, with the given labels or those of the entities they hold."""
    kept = [(text, spans) for text, spans in sentences if text.strip()]
    if not kept:
        raise ValueError(f"{source}: no sentence in it")
    if len(kept) < len(sentences):
        logger.warning("%s: dropped %d sentences without text", source, len(sentences) - len(kept))
    if labels is None:
        labels = _bio_labels(span.label for _, spans in kept for span in spans)
    ids = {label: i for i, label in enumerate(labels)}
    tags = [[ids[tag] for tag in tags_from_spans(spans, len(text))] for text, spans in kept]
    return _encoded([text for text, _ in kept], tags, labels)


def _encoded(texts: list[str], tags: list[list[int]], labels: list[str]) -> Dataset:
    features = Features({"text": Value("string"), "tags": List(ClassLabel(names=labels))})
    return Dataset.from_dict({"text": texts, "tags": tags}, features=features)


def _with_labels(dataset: Dataset, labels: list[str], source: str, origin: str) -> Dataset:
    """The same rows with ids into `labels`, which are those of `origin`."""
    own = labels_of(dataset)
    if own == labels:
        return dataset
    if unknown := [label for label in own if label not in labels]:
        raise ValueError(
            f"{source}: the label {unknown[0]} is not among those of {origin} ({', '.join(labels)}): correct it, or "
            "name all types in entity_types"
        )
    moved = [labels.index(label) for label in own]
    columns = dataset[:]
    return _encoded(columns["text"], [[moved[i] for i in tags] for tags in columns["tags"]], labels)
