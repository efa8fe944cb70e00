"""Taggers of words side by side in `bilstm-crf benchmark --sections words`: F1, training, speed and size on disk.

Other libraries are trained on the words and tags of the corpus, with the same vectors, and a saved tagger of this
package stands beside them. Words are given, tags of words are scored. Times are those of the CPU, of one thread: other
processes hardly change them.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict

from ..alignment import Span, spans_from_tags, tags_from_spans
from ..data.ner import labels_of
from ..data.sentences import TOKEN_UNITS
from ..data.vectors import file_vectors
from ..evaluation.markdown import formatted
from ..evaluation.metrics import TaggingMetric
from ..inference.predictors import load_predictor
from ..token_table import form_of
from ..utils.timing import medians
from .benchmark_libraries import (
    Units,
    UnitTagger,
    load_crfsuite,
    load_spacy,
    train_crfsuite,
    train_spacy,
    word_features,
)

CRFSUITE = {"c1": 0.1, "c2": 0.1, "max_iterations": 100, "feature.possible_transitions": True}
"""Parameters of CRFsuite, those of the tutorial of sklearn-crfsuite."""

BATCH = 32
"""Number of sentences that the tagger of this package reads at a time."""

SPACE = TOKEN_UNITS["word"]
"""The string between two words in the texts of a corpus."""

Vectors = dict[str, np.ndarray]
"""The pretrained vectors of words."""


def word_rows(
    data: DatasetDict,
    vectors_file: str | None,
    tagger: str | None,
    peers: bool,
    minutes: float,
    rounds: int,
    folder: Path,
) -> Iterator[dict]:
    """Yield the row of each tagger in the table.

    Args:
        data: the splits `train`, `validation` and `test`, of words.
        vectors_file: the file of the vectors that the libraries read.
        tagger: a saved tagger of this package, or any other one that `predict` takes.
        peers: whether the libraries that are installed are trained.
        minutes: CPU minutes after which the training of spaCy ends. CRFsuite has a number of iterations.
        rounds: number of times that each tagger tags the sentences of `test`.
        folder: the folder to which all taggers are saved.

    Raises:
        ValueError: if there is nothing to measure.
    """
    splits = {split: word_units(rows) for split, rows in data.items()}
    trained = [name for name, (module, _) in LIBRARIES.items() if peers and find_spec(module)]
    if not (trained or tagger):
        raise ValueError(
            "the table of words is empty: name a tagger in model_name_or_path, or choose peers and install one"
        )
    words = {word for units in splits.values() for sentence in units.sentences for word in sentence}
    vectors = known_vectors(vectors_file, words) if vectors_file else {}
    taggers: dict[str, UnitTagger] = {}
    cpu_minutes: dict[str, float] = {}
    for name in trained:
        start = time.process_time()
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        taggers[name] = LIBRARIES[name][1](splits, vectors, minutes, target)
        cpu_minutes[name] = (time.process_time() - start) / 60
        print(f"{name}: {cpu_minutes[name]:.1f} CPU minutes of training", flush=True)
    if tagger:
        taggers[OWN] = load_tagger(tagger, folder / OWN)
    sentences, gold = splits["test"]
    with one_thread():
        seconds = medians({name: partial(tag, sentences) for name, tag in taggers.items()}, rounds, time.process_time)
    for name, tag in taggers.items():
        size = sum(path.stat().st_size for path in (folder / name).rglob("*") if path.is_file())
        yield {
            "what": name,
            "F1": formatted(TaggingMetric().compute(predictions=tag(sentences), references=gold)["f1"], ".4f"),
            "CPU minutes of training": cpu_minutes.get(name),
            "sentences/s": len(sentences) / seconds[name],
            "MB": size / 1e6,
        }


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def word_units(rows: Dataset) -> Units:
    """Return the words and their tags of a split of a corpus of words.

    Raises:
        ValueError: if an entity begins or ends inside a word.
    """
    names, sentences, tags = labels_of(rows), [], []
    for number, (text, ids) in enumerate(zip(rows["text"], rows["tags"], strict=True), 1):
        of_characters = [names[i] for i in ids]
        for start, end, label in spans_from_tags(of_characters):
            if not {text[start - 1 : start], text[end : end + 1]} <= {"", SPACE}:
                problem = f"{text[start:end]!r} ({label}) begins or ends inside a word"
                raise ValueError(f"sentence {number}: {problem}: the table words is for corpora that tag words")
        sentences.append(text.split(SPACE))
        tags.append(tags_at_words(sentences[-1], of_characters))
    return Units(sentences, tags)


def tags_at_words(sentence: list[str], tags: list) -> list:
    """Return the tags of the first characters of the words, from those of the characters of the text."""
    starts = accumulate((len(word) + len(SPACE) for word in sentence[:-1]), initial=0)
    return [tags[start] for start in starts]


def known_vectors(path: str, words: set[str]) -> Vectors:
    """Return the vectors of those words that have one, as they are or in small letters with digits as 0."""
    read = file_vectors(path, words | set(map(form_of, words)), others=0)
    vectors = {}
    for word in sorted(words):
        for form in (form_of(word), word):
            if (vector := read.lookup(form)) is not None:
                vectors[word] = vector.numpy()
    return vectors


def spacy_tagger(splits: dict[str, Units], vectors: Vectors, minutes: float, folder: Path) -> UnitTagger:
    """Train spaCy's tagger, and load it."""
    train_spacy(splits["train"], splits["validation"], folder, vectors, minutes=minutes)
    return load_spacy(folder)


def crfsuite_tagger(splits: dict[str, Units], vectors: Vectors, minutes: float, folder: Path) -> UnitTagger:
    """Train CRFsuite's tagger, save the vectors beside it, and load it; `minutes` is no parameter of CRFsuite."""
    if vectors:
        np.savez(folder / "vectors.npz", words=np.array(list(vectors)), rows=np.stack(list(vectors.values())))
    named = {word: {f"vector{i}": x for i, x in enumerate(row.tolist())} for word, row in vectors.items()}
    features = partial(word_features, vectors=named)
    train_crfsuite(splits["train"], folder / "model.crfsuite", features, **CRFSUITE)
    return load_crfsuite(folder / "model.crfsuite", features)


LIBRARIES: dict[str, tuple[str, Callable[[dict[str, Units], Vectors, float, Path], UnitTagger]]] = {
    "CRFsuite": ("pycrfsuite", crfsuite_tagger),
    "spaCy": ("spacy", spacy_tagger),
}
"""Other libraries: the module of each, and the function that trains its tagger."""

OWN = "bilstm-crf"
"""The row of the tagger of this package."""


def load_tagger(name: str, folder: Path) -> UnitTagger:
    """Return a saved tagger, of which a copy without further files is saved to `folder`."""
    predictor = load_predictor(name, BATCH, device=torch.device("cpu"))
    predictor.pipe.save_pretrained(folder)

    def tag(sentences: list[list[str]]) -> list[list[str]]:
        texts = [SPACE.join(sentence) for sentence in sentences]
        return [
            tags_at_words(sentence, tags_from_spans(spans_of(values["entities"]), len(text)))
            for sentence, text, values in zip(sentences, texts, predictor(texts), strict=True)
        ]

    return tag


def spans_of(entities: list[dict]) -> list[Span]:
    """Return the spans of the entities of a pipeline."""
    return [Span(entity["start"], entity["end"], entity["entity_group"]) for entity in entities]
