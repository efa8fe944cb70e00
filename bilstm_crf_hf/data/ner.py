"""Named-entity corpora as data sets of the columns `text` and `tags`, whatever the file format.

`tags` has a `ClassLabel` for each character of `text`, white space included: a BIO tag. White space inside an entity is
tagged I-, as in KLUE-NER. The labels are pairs of B- and I- in alphabetical order of the entity types, then O; the
names of a BIO `ClassLabel` keep their order. Sentences without a visible character are dropped, and a warning counts
them. To add a layout of lines, write a function that reads it and add it to `LAYOUTS`.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from ..alignment import Span, scheme_of, spans_from_tags, split_tag, tags_from_spans
from .rows import TYPED_SUFFIXES, PathLike, check_suffix, class_label, find_column, read_lines, typed_rows
from .splits import open_splits

logger = logging.getLogger(__name__)


class Layout(NamedTuple):
    """A layout of corpora in lines: its suffixes, a test of the lines that are not blank, and a reader."""

    suffixes: tuple[str, ...]
    fits: Callable[[list[str]], bool]
    read: Callable[[Path, Sequence[str] | None], Dataset]


LAYOUTS = (
    Layout((".txt",), lambda lines: "\t" not in lines[0], lambda path, types: read_inline(path, types)),
    Layout((".tsv", ".txt"), lambda lines: _is_klue(lines), lambda path, _: read_klue_tsv(path)),
    Layout((".tsv", ".txt", ".conll", ".bio", ".iob2", ".bioes"), lambda _: True, lambda path, _: read_conll(path)),
)
"""The layouts of corpora in lines, in the order in which they are tried."""

TEXT_COLUMNS = ("tokens", "words", "text")
TAGS_COLUMNS = ("ner_tags", "tags")

Sentence = tuple[str, list[Span]]
"""A text and its entities as spans of characters."""


def load_ner_datasets(
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    data_files: Mapping[str, PathLike] | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    entity_types: Sequence[str] | None = None,
    revision: str | None = None,
) -> DatasetDict:
    """Load the splits of a corpus from the Hugging Face Hub or from local files, with the same labels in all splits.

    The labels are those of the split `train`, or of all splits together if there is no `train`. Files in
    `rows.TYPED_SUFFIXES` have rows as in [`from_columns`], others one of the `LAYOUTS`.

    Args:
        dataset_name: a data set on the Hub, or anything else that `datasets.load_dataset` takes.
        data_files: the file of each split, in place of `dataset_name`.
        text_column, label_column: see [`from_columns`].
        entity_types: all entity types, if `train` does not contain all of them. Inline marks of other types are errors.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if not exactly one of `dataset_name` and `data_files` is given, a suffix is unknown, a file cannot
            be read, or a split has a label that is not among those of `train`, or of `entity_types`.
    """
    sources = open_splits(dataset_name, dataset_config_name, data_files, revision)
    splits = {}
    for split, (source, data) in sources.items():
        if isinstance(data, Path) and (layout := _layout_of(data)):
            splits[split] = layout.read(data, entity_types)
        else:
            splits[split] = from_columns(data, text_column, label_column, source)

    labels = labels_of(splits["train"] if "train" in splits else next(iter(splits.values())))
    origin = "train" if entity_types is None else "entity_types"
    if entity_types is None and "train" not in splits:
        entity_types = [split_tag(label)[1] for dataset in splits.values() for label in labels_of(dataset)]
    if entity_types is not None and set(labels) != set(_bio_labels(entity_types)):
        labels = _bio_labels(entity_types)
    return DatasetDict({split: _with_labels(splits[split], labels, sources[split][0], origin) for split in splits})


def labels_of(dataset: Dataset) -> list[str]:
    """Return the labels of a data set that a function of this module returned, in the order of their ids."""
    return list(dataset.features["tags"].feature.names)


def read_klue_tsv(path: PathLike) -> Dataset:
    """Read a file such as `klue-ner-v1.1_dev.tsv`: lines `character<TAB>tag`, blank lines between sentences.

    The character may be a space. Lines with only white space count as blank. Lines that begin with `##` before a
    sentence are comments.

    Raises:
        ValueError: with file and line, if a line has another form or its tag cannot follow the previous tag.
    """
    return _read_tagged_units(path, _split_klue, "##", joiner="")


def read_conll(path: PathLike, token_column: int = 0, tag_column: int = -1) -> Dataset:
    """Read a file in columns with a word a line and blank lines between sentences. Words are joined by one space.

    Columns are separated by tabs if the line has one, otherwise by white space. Tags are BIO or BIOES. Lines that begin
    with `# ` before a sentence are comments; `-DOCSTART-` separates sentences like a blank line. Columns are numbered
    from 0, or from the end by negative numbers.

    Raises:
        ValueError: with file and line, if a column or a word is missing, or a tag is not valid at its place.
    """
    needed = max(2, *(i + 1 if i >= 0 else -i for i in (token_column, tag_column)))

    def split(line: str) -> tuple[str, str]:
        columns = line.split("\t") if "\t" in line else line.split()
        if len(columns) < needed:
            raise ValueError(f"expected {needed} columns or more, found {len(columns)} in {line!r}")
        if not columns[token_column].strip():
            raise ValueError(f"no word in {line!r}: read a file of single characters with read_klue_tsv")
        return columns[token_column], columns[tag_column]

    return _read_tagged_units(path, split, "# ", joiner=" ")


def read_inline(path: PathLike, entity_types: Sequence[str] | None = None) -> Dataset:
    """Read a file with a sentence a line, whose entities are marked as in `<경찰:OG>은 또`; see [`parse_inline`].

    Raises:
        ValueError: with file and line, if [`parse_inline`] raises it; if no line has an entity.
    """
    sentences = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            sentences.append(parse_inline(line, entity_types))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
    dataset = _dataset(sentences, str(path), None if entity_types is None else _bio_labels(entity_types))
    if not any(spans for _, spans in sentences):  # a file in another format would become sentences without entities
        raise ValueError(f"{path}: no entity is marked as in <경찰:OG>; is this file in another format?")
    return dataset


def parse_inline(line: str, entity_types: Sequence[str] | None = None) -> Sentence:
    """Return the text and the entities of a line such as `<손흥민:PS>은 <춘천:LC>에 있다.`

    A mark is `<...:TYPE>` with a type in upper case (`[A-Z][A-Z0-9_]*`) or one of `entity_types`. All other `<` and `>`
    are text, so `<<레이:PS>>` is an entity in brackets.

    Raises:
        ValueError: if a mark is empty or contains another mark, or if its type is not among the `entity_types` given.
    """
    label_pattern = "|".join([*map(re.escape, entity_types or ()), "[A-Z][A-Z0-9_]*"])
    pattern = rf"<([^<>]*):({label_pattern})>"
    text, spans, position = "", [], 0
    for mark in re.finditer(pattern, line):
        content, label = mark.groups()
        if entity_types is not None and label not in entity_types:
            remedy = f"add it to entity_types ({', '.join(entity_types)}), or correct it"
            raise ValueError(f"unknown entity type {label} in {mark[0]}: {remedy}")
        if not content.strip():
            raise ValueError(f"{mark[0]} marks no text: remove the mark")
        text += line[position : mark.start()]
        spans.append(Span(len(text), len(text) + len(content), label))
        text, position = text + content, mark.end()
    text += line[position:]
    if nested := re.search(pattern, text):  # marks contain no `<` or `>`, so the outer one of two nested marks remains
        raise ValueError(f"{nested[0]} marks an entity around another one: keep one of the two")
    return text, spans


def from_columns(
    data: Dataset | Path, text_column: str | None = None, label_column: str | None = None, source: str = "data set"
) -> Dataset:
    """Convert rows with a list of tokens and a list of tags, such as those of `klue/ner` or `conll2003`.

    If every token of the data is a single character, the tokens are concatenated; otherwise they are words, joined
    by one space. In place of a list of tokens there may be a string, whose tokens are its characters. Tags are BIO or
    BIOES, as strings or as a `ClassLabel`. Other columns are ignored.

    Args:
        data: a data set, or a file or folder of a type in `TYPED_SUFFIXES`.
        text_column, label_column: columns of tokens and tags. Default: the first in `TEXT_COLUMNS` and `TAGS_COLUMNS`.
        source: name of the data set in error messages.

    Raises:
        ValueError: if a column is missing; with the row, counted from 0, if a value is of another type, the numbers of
            tokens and tags differ, a token or tag is null or empty, or a tag cannot follow the previous tag.
    """
    rows, features = typed_rows(data, source)
    if not rows:
        raise ValueError(f"{source}: no sentence in it")
    text_column = find_column(rows, text_column, TEXT_COLUMNS, source)
    label_column = find_column(rows, label_column, TAGS_COLUMNS, source)
    class_names = class_label(features, label_column)
    tagged = []
    for place, columns in rows:
        try:
            tagged.append((place, *_tokens_and_tags(columns, text_column, label_column, class_names)))
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None

    labels = class_names.names if class_names else {tag for _, _, tags in tagged for tag in tags}
    try:
        scheme, entity_types = scheme_of(labels), [split_tag(label)[1] for label in labels]
    except ValueError as error:
        raise ValueError(f"{source}: column {label_column}: {error}") from None
    joiner = "" if all(len(token) == 1 for _, tokens, _ in tagged for token in tokens) else " "
    sentences = [
        _sentence(tokens, tags, joiner, scheme, f"{place}: token ", range(len(tags))) for place, tokens, tags in tagged
    ]
    if not class_names:
        return _dataset(sentences, source)
    bio_labels = _bio_labels(entity_types)
    return _dataset(sentences, source, list(dict.fromkeys([*labels, *bio_labels])) if scheme == "BIO" else bio_labels)


def _tokens_and_tags(
    columns: Mapping[str, Any], text_column: str, label_column: str, class_names: ClassLabel | None
) -> tuple[Sequence[str], list[str]]:
    """Return the tokens and the tags of a row as strings; raise ValueError if they are not as [`from_columns`] says."""
    tokens, tags = ([] if (value := columns.get(name)) is None else value for name in (text_column, label_column))
    if not (isinstance(tokens, str) or _is_list_of(str, tokens)):
        raise ValueError(f"column {text_column} holds {tokens!r}; expected a string or a list of strings")
    if not _is_list_of(int if class_names else str, tags):
        raise ValueError(
            f"column {label_column} holds {tags!r}; expected a list of strings, or of a ClassLabel, which names the "
            f"labels: cast_column({label_column!r}, List(ClassLabel(names=[...])))"
        )
    if len(tokens) != len(tags):
        raise ValueError(f"{len(tokens)} tokens in column {text_column}, but {len(tags)} tags in column {label_column}")
    if not all(tokens) or None in tags or "" in tags:
        raise ValueError("a token or tag is null or empty")
    if class_names:
        return tokens, class_names.int2str(tags)
    for tag in tags:
        split_tag(tag)
    return tokens, tags


def _is_list_of(kind: type, values: Any) -> bool:
    return isinstance(values, list) and set(map(type, values)) <= {kind, type(None)}


def _layout_of(path: Path) -> Layout | None:
    """Return the layout of a file in lines, None for other files."""
    line_suffixes = [suffix for layout in LAYOUTS for suffix in layout.suffixes]
    suffix = "" if path.is_dir() else check_suffix(path, dict.fromkeys([*TYPED_SUFFIXES, *line_suffixes]))
    if suffix not in line_suffixes:
        return None
    lines = [line for line in read_lines(path) if line.strip()]
    if not lines:
        raise ValueError(f"{path}: no sentence in it")
    return next(layout for layout in LAYOUTS if suffix in layout.suffixes and layout.fits(lines))


def _is_klue(lines: list[str]) -> bool:
    return lines[0].startswith("##") or all(line[1:2] == "\t" for line in lines)


def _split_klue(line: str) -> tuple[str, str]:
    character, _, tag = line.rpartition("\t")
    if len(character) != 1:
        raise ValueError(f"expected one character, a tab and a tag, found {line!r}; read words with read_conll")
    return character, tag


def _read_tagged_units(path: PathLike, split: Callable[[str], tuple[str, str]], comment: str, joiner: str) -> Dataset:
    """Read a file with a token or character a line, which `split` divides into the unit and its tag."""
    sentences: list[list[tuple[str, str, int]]] = [[]]
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            sentences.append([])
        elif sentences[-1] or not line.startswith(comment):  # inside a sentence, `# ` may begin the line of a token
            try:
                unit, tag = split(line)
                split_tag(tag)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from None
            sentences[-1].append((unit, tag, number))
    scheme = scheme_of({tag for sentence in sentences for _, tag, _ in sentence})
    columns = (zip(*sentence, strict=True) for sentence in sentences if sentence)
    rows = [_sentence(units, tags, joiner, scheme, f"{path}:", numbers) for units, tags, numbers in columns]
    return _dataset(rows, str(path))


def _sentence(
    units: Sequence[str], tags: Sequence[str], joiner: str, scheme: str, place: str, numbers: Iterable[int]
) -> Sentence:
    """Join `units` to a text with its entities. Errors name `place` and the number of a tag that `scheme` forbids."""
    spans = spans_from_tags(tags)
    valid = tags_from_spans(spans, len(tags), scheme)
    for number, tag, other in zip(numbers, tags, valid, strict=True):
        if tag != other:
            problem = f"{tag} cannot stand here in {scheme}, {other} could"
            raise ValueError(f"{place}{number}: {problem}: correct the tags")
    starts = list(accumulate((len(unit) + len(joiner) for unit in units), initial=0))
    return joiner.join(units), [Span(starts[start], starts[end] - len(joiner), label) for start, end, label in spans]


def _bio_labels(entity_types: Iterable[str]) -> list[str]:
    return [*(f"{prefix}-{label}" for label in sorted(set(entity_types) - {""}) for prefix in "BI"), "O"]


def _dataset(sentences: list[Sentence], source: str, labels: list[str] | None = None) -> Dataset:
    """Build the data set of all sentences that have text, with the given labels or those of their entities."""
    kept = [(text, spans) for text, spans in sentences if text.strip()]
    if not kept:
        raise ValueError(f"{source}: no sentence in it")
    if len(kept) < len(sentences):
        logger.warning("%s: dropped %d sentences without text", source, len(sentences) - len(kept))
    if labels is None:
        labels = _bio_labels(span.label for _, spans in kept for span in spans)
    ids = {label: i for i, label in enumerate(labels)}
    tags = [[ids[tag] for tag in tags_from_spans(spans, len(text))] for text, spans in kept]
    return _build([text for text, _ in kept], tags, labels)


def _build(texts: list[str], tags: list[list[int]], labels: list[str]) -> Dataset:
    features = Features({"text": Value("string"), "tags": List(ClassLabel(names=labels))})
    return Dataset(pa.table({"text": texts, "tags": tags}, schema=features.arrow_schema))


def _with_labels(dataset: Dataset, labels: list[str], source: str, origin: str) -> Dataset:
    """Return the same rows with ids of `labels`, which `origin` defines."""
    own = labels_of(dataset)
    if own == labels:
        return dataset
    if unknown := [label for label in own if label not in labels]:
        raise ValueError(
            f"{source}: the label {unknown[0]} is not among those of {origin} ({', '.join(labels)}): correct it, or "
            "name all types in entity_types"
        )
    ids = [labels.index(label) for label in own]
    columns = dataset[:]
    return _build(columns["text"], [[ids[i] for i in tags] for tags in columns["tags"]], labels)
