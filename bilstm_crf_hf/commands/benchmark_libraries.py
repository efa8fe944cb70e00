"""Taggers of other libraries in `bilstm-crf benchmark`: spaCy and CRFsuite, over units that are words or characters."""

import math
import re
import time
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

UnitTagger = Callable[[list[list[str]]], list[list[str]]]
"""A function that returns the BIO tags of sentences of units."""

Features = Callable[[list[str]], list]
"""A function that returns what CRFsuite reads of each unit of a sentence."""


class Units(NamedTuple):
    """Sentences as lists of units, and their BIO tags."""

    sentences: list[list[str]]
    tags: list[list[str]]


def train_spacy(
    train: Units,
    validation: Units,
    path: Path,
    vectors: Mapping[str, np.ndarray] | None = None,
    max_steps: int = 0,
    minutes: float = math.inf,
) -> None:
    """Train spaCy's transition-based NER over its default tok2vec, and save the state that is best in validation.

    The loop, batches, optimizer and early stopping are those of `spacy train` with its default configuration.

    Args:
        train, validation: the sentences.
        path: the folder to save to.
        vectors: pretrained vectors of units, which tok2vec reads beside its own embeddings (`include_static_vectors`).
        max_steps: number of steps after which training ends, unless validation ended it before; 0: no limit.
        minutes: CPU minutes of this process, after which training ends at any rate.
    """
    import spacy
    from spacy.schemas import ConfigSchemaTraining
    from spacy.tokens import Doc
    from spacy.training import Example
    from spacy.training.loop import create_train_batches, train_while_improving
    from spacy.util import fix_random_seed, registry
    from spacy.vectors import Vectors

    fix_random_seed(0)
    nlp = spacy.blank("xx")
    if vectors:
        keys = [nlp.vocab.strings.add(unit) for unit in vectors]
        nlp.vocab.vectors = Vectors(strings=nlp.vocab.strings, data=np.stack(list(vectors.values())), keys=keys)
    nlp.add_pipe("ner", config={"model": {"tok2vec": {"pretrained_vectors": bool(vectors)}}})
    examples, gold = (
        [
            Example(Doc(nlp.vocab, words=sentence), Doc(nlp.vocab, words=sentence, ents=tags))
            for sentence, tags in zip(*units, strict=True)
        ]
        for units in (train, validation)
    )
    settings = registry.resolve(nlp.config.interpolate()["training"], schema=ConfigSchemaTraining)
    steps = train_while_improving(
        nlp,
        nlp.initialize(lambda: examples, sgd=settings["optimizer"]),
        create_train_batches(nlp, lambda _: examples, settings["batcher"], settings["max_epochs"]),
        lambda: (nlp.evaluate(gold)["ents_f"] or 0.0, {}),
        max_steps=max_steps,
        exclude=[],
        annotating_components=[],
        before_update=None,
        **{name: settings[name] for name in ("dropout", "accumulate_gradient", "patience", "eval_frequency")},
    )
    end = time.process_time() + 60 * minutes
    for _, state, is_best in steps:  # the first step has an evaluation, so that something is saved
        if is_best is not None:
            print(
                f"spaCy, epoch {state['epoch']}, step {state['step']}: validation F1 {state['score']:.4f}", flush=True
            )
        if is_best:
            nlp.to_disk(path)
        if time.process_time() > end:
            break


def load_spacy(path: Path) -> UnitTagger:
    """Return a tagger that `train_spacy` saved."""
    import spacy
    from spacy.tokens import Doc

    nlp = spacy.load(path)

    def tag(sentences: list[list[str]]) -> list[list[str]]:
        docs = nlp.pipe(Doc(nlp.vocab, words=sentence) for sentence in sentences)
        return [[f"{unit.ent_iob_}-{unit.ent_type_}" if unit.ent_type_ else "O" for unit in doc] for doc in docs]

    return tag


def character_features(sentence: list[str]) -> list[list[str]]:
    """Return the n-grams of up to four units that begin or end within three of each unit."""
    windows = [(first, first + n) for n in (1, 2, 3, 4) for first in range(-3, 5 - n)]
    padded = ["^"] * 3 + sentence + ["$"] * 3
    return [
        [f"{first}:{last}:{''.join(padded[i + first : i + last])}" for first, last in windows]
        for i in range(3, len(padded) - 3)
    ]


def word_features(sentence: list[str], vectors: Mapping[str, Mapping[str, float]]) -> list[dict[str, str | float]]:
    """Return the features of each word that are usual in tutorials of CRFsuite, and its vector.

    These are the word, its small letters and its shape, also those of two neighbours on either side, and its prefixes
    and suffixes of up to four characters; no parts of speech. The elements of `vectors` are features with these values.
    """
    own = [{"word": word, "lower": word.lower(), "shape": word_shape(word)} for word in sentence]
    features: list[dict[str, str | float]] = []
    for i, word in enumerate(sentence):
        row: dict[str, str | float] = {"bias": 1.0} | vectors.get(word, {})  # type: ignore[operator]
        for offset in range(-2, 3):
            if 0 <= i + offset < len(sentence):
                row |= {f"{offset}:{name}": value for name, value in own[i + offset].items()}
            else:
                row[f"{offset}:edge"] = 1.0
        for n in range(1, min(4, len(word)) + 1):
            row |= {f"prefix{n}": word[:n], f"suffix{n}": word[-n:]}
        features.append(row)
    return features


def word_shape(word: str) -> str:
    """Return the kinds of the characters of a word, each kind once in a row, as in `Xx-0` for `McDonald-25`."""
    kinds = re.sub(r"\d", "0", "".join("X" if c.isupper() else "x" if c.isalpha() else c for c in word))
    return "".join(kind for kind, _ in groupby(kinds))


def train_crfsuite(train: Units, path: Path, features: Features, **parameters: float) -> None:
    """Train CRFsuite's linear CRF by L-BFGS with further parameters of it, and save it."""
    import pycrfsuite

    trainer = pycrfsuite.Trainer(verbose=False)
    for sentence, tags in zip(*train, strict=True):
        trainer.append(features(sentence), tags)
    trainer.set_params(parameters)
    trainer.train(str(path))


def load_crfsuite(path: Path, features: Features) -> UnitTagger:
    """Return a tagger that `train_crfsuite` saved."""
    import pycrfsuite

    tagger = pycrfsuite.Tagger()
    tagger.open(str(path))
    return lambda sentences: [tagger.tag(features(sentence)) for sentence in sentences]
