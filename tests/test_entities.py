"""Tests of the entities of a batch, against the functions that handle one text."""

import math
import random
import unicodedata

import numpy as np
import pytest

from bilstm_crf_hf.alignment import character_ranges, entities_of_tokens
from bilstm_crf_hf.entities import entities_of_batch, token_ranges

BIO = ["O", "B-PS", "I-PS", "B-LC", "I-LC"]
BIOES = ["O"] + [f"{prefix}-{label}" for label in ("PS", "LC") for prefix in "BIES"]
PIECES = ["서울", " ", "가", "\u3000", "  ", "㎞", "a", "1", "\u200b", "e\u0301", "\t", "😀", "각", "。"]


def random_text(rng: random.Random) -> str:
    text = "".join(rng.choices(PIECES, k=rng.randrange(12)))
    return unicodedata.normalize("NFD", text) if rng.random() < 0.3 else text


def random_offsets(rng: random.Random, text: str, in_order: bool) -> list[tuple[int, int]]:
    """Return offsets as tokenizers give them: in order, with gaps, white space at edges and repeated characters."""
    offsets, at = [], 0
    while at < len(text):
        size = rng.choice([0, 1, 1, 1, 2, 3])
        offsets += [(at, min(at + size, len(text)))] * rng.choice([1, 1, 1, 1, 2])
        at += max(0, size + rng.choice([0, 0, 0, 1, *([] if in_order else [-1])]) if size else 1)
    return offsets


def flat(rows: list[list]) -> tuple[np.ndarray, list]:
    return np.repeat(np.arange(len(rows)), [len(row) for row in rows]), [each for row in rows for each in row]


def batch_of(seed: int, labels: list[str]):
    rng = random.Random(seed)
    texts = [random_text(rng) for _ in range(rng.randrange(1, 9))]
    offsets = [random_offsets(rng, text, rng.random() < 0.8) for text in texts]
    tags = [[rng.randrange(len(labels)) for _ in row] for row in offsets]
    log_probs = [[[-rng.random() for _ in range(3)] for _ in row] for row in offsets]
    return texts, offsets, tags, log_probs


def arrays(offsets, tags, log_probs):
    text_ids, pairs = flat(offsets)
    as_array = (
        np.array(pairs, int).reshape(-1, 2),
        np.array(flat(tags)[1], int),
        np.array(flat(log_probs)[1], float).reshape(-1, 3),
    )
    return text_ids, *as_array


@pytest.mark.parametrize("labels", [BIO, BIOES], ids=["BIO", "BIOES"])
@pytest.mark.parametrize("seed", range(150))
def test_entities_are_those_of_each_text(labels, seed):
    texts, *rows = batch_of(seed, labels)
    found = entities_of_batch(texts, *arrays(*rows), labels)
    for text, offsets, tags, log_probs, entities in zip(texts, *rows, found, strict=True):
        expected = list(entities_of_tokens(text, offsets, [labels[tag] for tag in tags]))
        assert [(e["start"], e["end"], e["entity_group"]) for e in entities] == [tuple(span) for span, _ in expected]
        for entity, (_, tokens) in zip(entities, expected, strict=True):
            first, *others = tokens
            total = log_probs[first][0] + sum(log_probs[i][1] for i in others) + log_probs[tokens[-1]][2]
            assert entity["score"] == pytest.approx(math.exp(total), rel=1e-9)
            assert entity["word"] == text[entity["start"] : entity["end"]]


@pytest.mark.parametrize("seed", range(150))
def test_ranges_are_those_of_each_text(seed):
    texts, offsets, *rows = batch_of(seed, BIO)
    text_ids, pairs, *_ = arrays(offsets, *rows)
    starts, ends = token_ranges(texts, text_ids, pairs)
    for i, (text, row) in enumerate(zip(texts, offsets, strict=True)):
        found = list(zip(starts[text_ids == i].tolist(), ends[text_ids == i].tolist()))
        expected = character_ranges(text, row)
        assert [pair for pair in found if pair[0] < pair[1]] == [pair for pair in expected if pair[0] < pair[1]]
        assert [start < end for start, end in found] == [start < end for start, end in expected]


def test_runs_of_o_and_ignored_types():
    texts, offsets = ["서울 부산 가"], np.array([[0, 2], [3, 5], [6, 7]])
    arguments = texts, np.zeros(3, int), offsets, np.array([1, 0, 0]), np.zeros((3, 3)), BIO
    assert [e["entity_group"] for e in entities_of_batch(*arguments)[0]] == ["PS"]
    everything = entities_of_batch(*arguments, ignored=[])[0]
    assert [(e["entity_group"], e["word"]) for e in everything] == [("PS", "서울"), ("O", "부산 가")]
    assert [e["entity_group"] for e in entities_of_batch(*arguments, ignored=["PS"])[0]] == ["O"]


def test_without_tokens_there_are_no_entities():
    nothing = np.zeros(0, int)
    arguments = nothing, np.zeros((0, 2), int), nothing, np.zeros((0, 3)), BIO
    assert entities_of_batch(["", " "], *arguments) == [[], []]
    assert entities_of_batch([], *arguments) == []


def test_labels_of_no_scheme_are_an_error_only_if_they_occur():
    offsets, log_probs = np.array([[0, 1]]), np.zeros((1, 3))
    labels = ["O", "LABEL_1", "B-PS"]
    assert entities_of_batch(["가"], np.zeros(1, int), offsets, np.array([2]), log_probs, labels)[0]
    with pytest.raises(ValueError, match="'LABEL_1' is not a BIO or BIOES tag"):
        entities_of_batch(["가"], np.zeros(1, int), offsets, np.array([1]), log_probs, labels)
