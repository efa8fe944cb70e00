"""Named-entity corpora as data sets of the columns `text` and `tags`, whatever the file format.

`tags` has a `ClassLabel` for each character of `text`, white space included: a BIO tag. White space inside an entity is
tagged I-, as in KLUE-NER. The labels are pairs of B- and I- in alphabetical order of the entity types, then O; the
names of a BIO `ClassLabel` keep their order. Sentences without a visible character are dropped, and a warning counts
them. The formats are those of `layouts` (files in lines) and `annotations` (rows). With a `document_context`, the
columns `before` and `after` have the text around each sentence, see `documents`.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from ..alignment import split_tag, tags_from_spans
from .annotations import read_annotations
from .documents import Context, with_context
from .layouts import LAYOUTS, LayoutOptions, read_layout
from .rows import TYPED_SUFFIXES, PathLike, check_suffix
from .sentences import Sentence, TaggedTokens, join_tokens, located
from .splits import open_splits
from .tag_schemes import respell

logger = logging.getLogger(__name__)


@dataclass
class CorpusArguments:
    """The options of [`load_ner_datasets`] as arguments of a command."""

    token_column: int | None = field(
        default=None,
        metadata={"help": "Column of the tokens in a file in columns, from 0, or from the end (default: 0)."},
    )
    tag_column: int = field(default=-1, metadata={"help": "Column of the tags in a file in columns."})
    token_unit: Literal["auto", "character", "word"] = field(
        default="auto", metadata={"help": "Concatenate tokens (character) or join them by a space (word)."}
    )
    entity_types: list[str] | None = field(
        default=None, metadata={"help": "All entity types, if the training data do not have all of them."}
    )
    document_context: int = field(
        default=0, metadata={"help": "Number of sentences of the same document to read before and behind each one."}
    )

    @property
    def options(self) -> dict[str, Any]:
        """Return the fields of this class as options of [`load_ner_datasets`]."""
        return {option.name: getattr(self, option.name) for option in fields(CorpusArguments)}


def load_ner_datasets(
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    data_files: Mapping[str, PathLike] | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    entity_types: Sequence[str] | None = None,
    revision: str | None = None,
    token_column: int | None = None,
    tag_column: int = -1,
    token_unit: str = "auto",
    document_context: int = 0,
) -> DatasetDict:
    """Load the splits of a corpus from the Hugging Face Hub or from local files, with the same labels in all splits.

    The labels are those of the split `train`, or of all splits together if there is no `train`. Files in
    `rows.TYPED_SUFFIXES` are read by [`read_annotations`], others have one of the `LAYOUTS`.

    Args:
        dataset_name: a data set on the Hub, or a folder with a file for each split, such as `train.jsonl`.
        data_files: the file of each split, in place of `dataset_name`.
        text_column, label_column: see [`read_annotations`].
        entity_types: all entity types, if `train` does not contain all of them. Inline marks of other types are errors.
        token_column, tag_column: see [`read_columns`]. Without `token_column`, the first one has the tokens.
        token_unit: how tokens are joined to a text, see [`join_tokens`].
        document_context: number of sentences of the same document on either side that are the context of each one.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if not exactly one of `dataset_name` and `data_files` is given, a suffix is unknown, a file cannot
            be read or does not have the columns that are named, `train` or the whole corpus has no entity, two types
            differ only in case, or a split has a label that is not among those of `train`, or of `entity_types`; if
            there is to be a context, for the reasons of [`with_context`].
    """
    sources = open_splits(dataset_name, dataset_config_name, data_files, revision)
    options = LayoutOptions(entity_types, token_column, tag_column)
    rows: dict[str, Sequence[Sentence | TaggedTokens]] = {}
    names: dict[str, list[str] | None] = {}
    for split, (source, data) in sources.items():
        if isinstance(data, Path) and _is_in_lines(data):
            rows[split], names[split] = read_layout(data, options), None
        else:
            rows[split], names[split] = read_annotations(data, text_column, label_column, source)
    lines = [split for split, (_, data) in sources.items() if isinstance(data, Path) and _is_in_lines(data)]
    if len(lines) == len(sources) and (text_column, label_column) != (None, None):
        raise ValueError(
            f"{sources[lines[0]][0]}: its columns have no names: text_column and label_column are for others"
        )
    has_columns = any(isinstance(row, TaggedTokens) for split in lines for row in rows[split][:1])
    if (token_column, tag_column) != (None, -1) and not has_columns:
        raise ValueError(
            "token_column and tag_column are for files with a token a line, not for these data: leave it out"
        )
    joined = join_tokens(rows.values(), token_unit)
    splits = {split: _with_text(sentences, sources[split][0]) for split, sentences in zip(rows, joined, strict=True)}
    _check_entities(splits, sources)
    own_labels = {split: _own_labels(sentences, names[split]) for split, sentences in splits.items()}
    labels = _common_labels(own_labels, entity_types, sources)
    options = options._replace(known_types=frozenset(split_tag(label)[1] for label in labels if label != "O"))
    for split, (_, data) in sources.items():  # what is nearly a mark depends on the types of all splits
        has_marks = isinstance(data, Path) and _is_in_lines(data) and isinstance(rows[split][0], Sentence)
        if has_marks and entity_types is None and set(own_labels[split]) < set(labels):
            read_layout(data, options)
    return DatasetDict(
        {
            split: _dataset(sentences, labels, _contexts(sentences, document_context, sources[split][0]))
            for split, sentences in splits.items()
        }
    )


def labels_of(dataset: Dataset) -> list[str]:
    """Return the labels of a data set that a function of this module returned, in the order of their ids."""
    return list(dataset.features["tags"].feature.names)


def _is_in_lines(path: Path) -> bool:
    if path.suffix.lower() in (".csv", ".xlsx"):
        remedy = "save it as .jsonl, or with a token a line and blank lines between sentences as .conll"
        raise ValueError(f"{path}: a cell of a {path.suffix} cannot hold a list of tags or spans: {remedy}")
    line_suffixes = [suffix for layout in LAYOUTS for suffix in layout.suffixes]
    return not path.is_dir() and check_suffix(path, dict.fromkeys([*TYPED_SUFFIXES, *line_suffixes])) in line_suffixes


def _with_text(sentences: list[Sentence], source: str) -> list[Sentence]:
    """Return the sentences that have a visible character; raise ValueError if there are none."""
    kept = [sentence for sentence in sentences if sentence.text.strip()]
    if not kept:
        raise ValueError(f"{source}: no sentence in it")
    if len(kept) < len(sentences):
        logger.warning("%s: dropped %d sentences without text", source, len(sentences) - len(kept))
    return kept


def _check_entities(splits: Mapping[str, list[Sentence]], sources: Mapping[str, tuple[str, Any]]) -> None:
    """Raise ValueError if `train` or the whole corpus has no entity; warn if another split has none."""
    bare = [split for split, sentences in splits.items() if not any(sentence.spans for sentence in sentences)]
    for split in bare:
        problem = f"{sources[split][0]}: no entity in {len(splits[split])} sentences"
        remedy = "is another column that of the tags (tag_column, label_column), or the file not annotated?"
        if split == "train" or len(bare) == len(splits):
            raise ValueError(f"{problem}: {remedy}")
        logger.warning("%s, so that its recall and F1 say nothing: %s", problem, remedy)


def _common_labels(
    own_labels: Mapping[str, list[str]], entity_types: Sequence[str] | None, sources: Mapping[str, tuple[str, Any]]
) -> list[str]:
    """Return the labels of all splits: those of `train` or of `entity_types`, or else those of all splits together."""
    first = "train" if "train" in own_labels else next(iter(own_labels))
    labels = own_labels[first]
    origin = "train" if entity_types is None else "entity_types"
    if entity_types is None and "train" not in own_labels:
        entity_types = [split_tag(label)[1] for own in own_labels.values() for label in own]
    if entity_types is not None and set(labels) != set(_bio_labels(entity_types)):
        labels = _bio_labels(entity_types)
    known: dict[str, str] = {}
    for label in labels:
        if (other := known.setdefault(label.casefold(), label)) != label:
            problem = f"the labels {other} and {label} differ only in case"
            raise ValueError(f"{sources[first][0]}: {problem}: correct one, or rename it")
    for split, own in own_labels.items():
        if unknown := [label for label in own if label not in labels]:
            problem = f"the label {unknown[0]} is not among those of {origin} ({', '.join(labels)})"
            raise ValueError(f"{sources[split][0]}: {problem}: correct it, or name all types in entity_types")
    return labels


def _own_labels(sentences: list[Sentence], names: list[str] | None) -> list[str]:
    """Return the labels of a split: the `names` that its source defines, completed, if they are BIO, or sorted ones."""
    if names is None:
        return _bio_labels(span.label for sentence in sentences for span in sentence.spans)
    labels = _bio_labels(split_tag(respell(name))[1] for name in names)
    return list(dict.fromkeys([*names, *labels])) if all(name[0] in "BIO" for name in names) else labels


def _bio_labels(entity_types: Iterable[str]) -> list[str]:
    return [*(f"{prefix}-{label}" for label in sorted(set(entity_types) - {""}) for prefix in "BI"), "O"]


def _contexts(sentences: list[Sentence], size: int, source: str) -> list[Context]:
    """Return the text around each sentence; none if `size` is 0."""
    if not size:
        return []
    with located(source):
        return [context for _, context in with_context(((None, each.text, each.document) for each in sentences), size)]


def _dataset(sentences: list[Sentence], labels: list[str], contexts: list[Context]) -> Dataset:
    ids = {label: i for i, label in enumerate(labels)}
    columns: dict[str, list] = {
        "text": [each.text for each in sentences],
        "tags": [[ids[tag] for tag in tags_from_spans(each.spans, len(each.text))] for each in sentences],
    }
    features = Features({"text": Value("string"), "tags": List(ClassLabel(names=labels))})
    for name, texts in zip(Context._fields, zip(*contexts)):
        columns[name], features[name] = list(texts), Value("string")
    return Dataset(pa.table(columns, schema=features.arrow_schema))


def contexts_of(dataset: Dataset) -> list[Context]:
    """Return the text around each sentence of a data set that a function of this module returned."""
    columns = [dataset[name] if name in dataset.column_names else [""] * len(dataset) for name in Context._fields]
    return list(map(Context, *columns))
