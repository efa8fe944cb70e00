"""What the tests of named-entity corpora share: ways to look at the data sets that the package reads."""

import re
from pathlib import Path

import pytest
from datasets import Dataset

from bilstm_crf_hf.alignment import render, spans_from_tags
from bilstm_crf_hf.data.ner import labels_of, load_ner_datasets


def read_corpus(path: Path, **options) -> Dataset:
    """One file, read with the options of `load_ner_datasets`."""
    return load_ner_datasets(data_files={"train": path}, **options)["train"]


def tags_of(dataset: Dataset) -> list[list[str]]:
    """The tags of every row as strings."""
    return [[labels_of(dataset)[i] for i in tags] for tags in dataset["tags"]]


def entities_of(dataset: Dataset) -> list[list[tuple[str, str]]]:
    """The entities of every row as (surface, type)."""
    return [
        [(text[span.start : span.end], span.label) for span in spans_from_tags(tags, strict=True)]
        for text, tags in zip(dataset["text"], tags_of(dataset), strict=True)
    ]


def marked(dataset: Dataset) -> list[str]:
    """The texts with their entities marked inline."""
    rows = zip(dataset["text"], tags_of(dataset), strict=True)
    return [render(text, spans_from_tags(tags, strict=True)) for text, tags in rows]


def fails_at(path, line, message=""):
    return pytest.raises(ValueError, match=re.escape(f"{path}:{line}: ") + message)
