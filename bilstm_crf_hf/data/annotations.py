"""Named-entity corpora in rows: tokens with tags, or texts with entities as spans, as annotation tools export them.

| rows of | text | entities |
| --- | --- | --- |
| the Hub (`conll2003`, `klue`) | `tokens`: a list of strings, or a string of characters | `ner_tags`: a tag for each |
| doccano | `text` | `label` or `labels`: `[[0, 2, "PS"]]` |
| doccano, with relations | `text` | `entities`: `[{"start_offset": 0, "end_offset": 2, "label": "PS"}]` |
| Label Studio, JSON-MIN | `text` | `label`: `[{"start": 0, "end": 2, "text": "김구", "labels": ["PS"]}]` |
| Label Studio, JSON | `data`: `{"text": ...}` | `annotations`: `[{"result": [{"type": "labels", "value": {...}}]}]` |
| Stockmark | `text` | `entities`: `[{"span": [0, 2], "type": "PS", "name": "김구"}]` |
| Prodigy, and `predict` of this package | `text` | `spans` or `entities`: `[{"start": 0, "end": 2, "label": "PS"}]` |

The document of a sentence is in the column `document_id` or `doc_id`, if there is one, for `--document_context`.
Spans are half-open ranges of code points. Where a row says what text a span has, it is compared. Left out, and counted
in a warning, are white space at the edges of a span, in Prodigy's rows those with the answer reject or ignore, and in
Label Studio's JSON tasks without an annotation and results that are no spans, such as relations.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset

from ..alignment import Span
from .documents import document_of
from .rows import Row, class_label, find_column, shown, typed_rows
from .sentences import Sentence, TaggedTokens, located
from .tag_schemes import check_type, respell

logger = logging.getLogger(__name__)

_DISAGREE = "keep one of them, or in Label Studio's JSON make one the ground truth"

TEXT_COLUMNS = ("tokens", "words", "text")
TAGS_COLUMNS = ("ner_tags", "tags")
SPANS_COLUMNS = ("label", "labels", "entities", "spans")

START_KEYS, END_KEYS = ("start", "start_offset", "begin"), ("end", "end_offset")
TYPE_KEYS = ("label", "labels", "type", "entity_group")
QUOTE_KEYS = ("text", "name", "word", "form")
"""The keys of a span: its range, its type, and the text that it has."""


def read_annotations(
    data: Dataset | Path, text_column: str | None = None, label_column: str | None = None, source: str = "data set"
) -> tuple[Sequence[Sentence | TaggedTokens], list[str] | None]:
    """Read rows of one of the kinds that the module lists, and the names of a `ClassLabel`; ignore other columns.

    Args:
        data: a data set, or a file or folder of a type in `rows.TYPED_SUFFIXES`.
        text_column, label_column: columns of tokens or text, and of tags or spans. Default: the first in
            `TEXT_COLUMNS`, `TAGS_COLUMNS` and `SPANS_COLUMNS`. In Label Studio's JSON, `text_column` is the key in
            `data`.
        source: name of the data set in error messages.

    Raises:
        ValueError: if a column is missing; with the row, if a value is of another type, the numbers of tokens and tags
            differ, a token or tag is null or empty, a span is not within the text or has another text than its row
            says, two spans overlap, or annotators of a task disagree.
    """
    rows, features = typed_rows(data, source)
    if not rows:
        raise ValueError(f"{source}: no sentence in it")
    if any({"data", "annotations"} <= row.columns.keys() for row in rows):
        return _read_tasks(rows, text_column or "text", source), None
    tokens_column = find_column(rows, text_column, TEXT_COLUMNS, source)
    label_column = find_column(rows, label_column, (*TAGS_COLUMNS, *SPANS_COLUMNS), source)
    values = [row.columns.get(label_column) for row in rows]
    kinds = set(chain.from_iterable(map(type, value) for value in values if isinstance(value, list)))
    if kinds & {list, dict} or (not kinds and label_column in SPANS_COLUMNS):
        text_column = find_column(rows, text_column, ("text",), source)  # Prodigy's rows have tokens, too
        return _read_spans(rows, text_column, label_column, source), None
    return _read_tags(rows, tokens_column, label_column, class_label(features, label_column), source)


# Tokens with tags


def _read_tags(
    rows: list[Row], text_column: str, label_column: str, class_names: ClassLabel | None, source: str
) -> tuple[list[TaggedTokens], list[str] | None]:
    names = class_names.names if class_names else None
    with located(f"{source}: column {label_column}"):
        for name in names or ():
            respell(name)
    sentences = []
    for row in rows:
        find_column([row], text_column, (), row.place)
        with located(row.place):
            tokens, tags = _tokens_and_tags(row.columns, text_column, label_column, class_names)
            document = document_of(row.columns)
        place, text = f"{row.place}: token ", tokens if isinstance(tokens, str) else None
        ranges = () if text is None else [(i, i + 1) for i in range(len(text))]
        sentences.append(TaggedTokens(place, range(len(tags)), tokens, tags, text, ranges, document))
    return sentences, names


def _tokens_and_tags(
    columns: Mapping[str, Any], text_column: str, label_column: str, class_names: ClassLabel | None
) -> tuple[Sequence[str], list[str]]:
    """Return the tokens and the tags of a row as strings."""
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
    if empty := [i for i, (token, tag) in enumerate(zip(tokens, tags, strict=True)) if not token or tag in (None, "")]:
        raise ValueError(f"token {empty[0]} or its tag is null or empty: correct it, or remove the row")
    return tokens, class_names.int2str(tags) if class_names else tags


def _is_list_of(kind: type, values: Any) -> bool:
    return isinstance(values, list) and set(map(type, values)) <= {kind, type(None)}


# Texts with spans


def _read_spans(rows: list[Row], text_column: str, label_column: str, source: str) -> list[Sentence]:
    """Read rows with a text and a list of spans; in JSON-MIN, a row without entities has no such list."""
    sentences, counts = [], Counter[str]()
    tasks: dict[str, Sentence] = {}
    for place, columns in rows:
        with located(place):
            if columns.get("answer") in ("reject", "ignore"):
                counts["rows with the answer reject or ignore, which are left out"] += 1
                continue
            is_task = "annotation_id" in columns
            spans = [] if is_task and columns.get(label_column) is None else columns.get(label_column)
            if not isinstance(spans, list):
                raise ValueError(f"column {label_column} holds {shown(spans)}; expected a list of spans")
            sentence = _sentence(columns.get(text_column), spans, counts)._replace(document=document_of(columns))
            if (first := tasks.setdefault(str(columns.get("id")) if is_task else place, sentence)) is sentence:
                sentences.append(sentence)
            elif first != sentence:
                raise ValueError(f"another annotation of the task {columns['id']} differs: {_DISAGREE}")
    _warn_of(counts, source)
    return sentences


def _read_tasks(rows: list[Row], text_key: str, source: str) -> list[Sentence]:
    """Read tasks of Label Studio. Annotations that are not cancelled have to agree, or one to be the ground truth."""
    sentences, counts = [], Counter[str]()
    for place, task in rows:
        with located(place):
            text = _field(task, "data", dict).get(text_key)
            if text is None:
                raise ValueError(f"there is no {text_key!r} in data ({shown(task['data'])}): name the key text_column")
            annotations = [a for a in _objects(task, "annotations") if not a.get("was_cancelled")]
            annotations = [a for a in annotations if a.get("ground_truth")] or annotations
            counts["tasks without an annotation, which are left out"] += not annotations
            found = [_sentence(text, _spans_of(annotation, counts), counts) for annotation in annotations]
            if any(sentence != found[0] for sentence in found):
                raise ValueError(f"its {len(found)} annotations differ: {_DISAGREE}")
            sentences += found[:1]
    _warn_of(counts, source)
    return sentences


def _spans_of(annotation: Mapping[str, Any], counts: Counter[str]) -> list[dict[str, Any]]:
    """Return the values of those results of an annotation that mark a range of the text."""
    spans = []
    for result in _objects(annotation, "result"):
        kind = str(result.get("type"))
        if kind == "labels":
            spans.append(_field(result, "value", dict))
        elif kind.endswith("labels"):
            raise ValueError(f"a result of type {kind}: only labels of a plain text (type labels) are read")
        else:
            counts["results that are no entities, which are left out"] += 1
    return spans


def _objects(columns: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    values = _field(columns, name, list)
    if not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{name} holds {shown(values)}; expected a list of objects")
    return values


def _field(columns: Mapping[str, Any], name: str, kind: type) -> Any:
    if not isinstance(value := columns.get(name), kind):
        raise ValueError(f"{name} holds {shown(value)}; expected a {kind.__name__}")
    return value


def _sentence(text: Any, given: list[Any], counts: Counter[str]) -> Sentence:
    """Return a text with the spans given; raise ValueError if they are not as the module says."""
    if not isinstance(text, str):
        raise ValueError(f"the text is {shown(text)}, not a string")
    spans = []
    for item in given:
        with located(f"the span {shown(item)}"):
            start, end, label, quote = _parse_span(item)
            check_type(label)
        if not 0 <= start < end <= len(text):
            raise ValueError(f"the span {shown(item)} is not within the text, which has {len(text)} characters")
        if quote is not None and quote != text[start:end]:
            problem = f"the span {shown(item)} has the text {text[start:end]!r}"
            raise ValueError(f"{problem}: its range has to count characters (code points) from 0, without its end")
        covered = text[start:end]
        if not covered.strip():
            raise ValueError(f"the span {shown(item)} has white space only: remove it")
        counts["spans with white space at an edge, which is left out"] += covered != covered.strip()
        start, end = start + len(covered) - len(covered.lstrip()), end - len(covered) + len(covered.rstrip())
        spans.append(Span(start, end, label))
    spans.sort()
    for span, following in pairwise(spans):
        if span.end > following.start:
            pair = " and ".join(f"{text[start:end]!r} ({label})" for start, end, label in (span, following))
            raise ValueError(f"the entities {pair} overlap: keep one of them")
    return Sentence(text, spans)


def _parse_span(item: Any) -> tuple[int, int, str, str | None]:
    """Return start, end and type of a span, and the text that it should have, if it is there."""
    quote = None
    if isinstance(item, dict):
        label, quote = _first(item, TYPE_KEYS), _first(item, QUOTE_KEYS)
        places = item.get("span") or [_first(item, START_KEYS), _first(item, END_KEYS)]
        item = [*places, *(label if isinstance(label, list) else [label])] if isinstance(places, list) else places
    if not isinstance(item, list) or [type(value) for value in item] != [int, int, str]:
        raise ValueError("expected [start, end, type], or an object with a range and one type")
    return (*item, quote)


def _first(item: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((item[key] for key in keys if item.get(key) is not None), None)


def _warn_of(counts: Counter[str], source: str) -> None:
    for what, count in counts.items():
        if count:
            logger.warning("%s: %d %s", source, count, what)
