import random
import socket
import warnings

import pytest
from seqeval.metrics import classification_report, f1_score
from seqeval.scheme import IOB2
from seqeval_scores import STRICT, seqeval_scores
from sklearn.metrics import f1_score as sklearn_f1_score

from bilstm_crf_hf.evaluation.metrics import TaggingMetric

KLUE_LABELS = [f"{prefix}-{label}" for label in ("PS", "LC", "OG", "DT", "TI", "QT") for prefix in "BI"] + ["O"]


@pytest.fixture
def metric(tmp_path):
    return TaggingMetric(cache_dir=str(tmp_path))


def random_tags(rng, length):
    """Any tags at all, many of them invalid."""
    return [rng.choice(["B-PS", "I-PS", "B-LC", "I-LC", "B-OG", "I-OG", "O", "O", "O"]) for _ in range(length)]


def random_corpus(seed, sentences=25):
    """Gold tags that are valid, and predictions that agree in most places."""
    rng = random.Random(seed)
    gold, predicted = [], []
    for _ in range(sentences):
        tags = random_tags(rng, rng.randrange(1, 15))
        for i, tag in enumerate(tags):
            if tag[0] == "I" and (i == 0 or tags[i - 1][1:] != tag[1:]):
                tags[i] = f"B{tag[1:]}"
        gold.append(tags)
        predicted.append([a if rng.random() < 0.8 else b for a, b in zip(tags, random_tags(rng, len(tags)))])
    return gold, predicted


# Known values


@pytest.mark.parametrize(
    ("gold", "predicted", "default", "strict"),
    [
        (["B-PS", "I-PS"], ["B-PS", "I-PS"], 1, 1),
        (["B-PS", "I-PS"], ["I-PS", "I-PS"], 1, 0),
        (["B-PS", "I-PS"], ["B-PS", "B-PS"], 0, 0),
        (["B-PS", "I-PS"], ["B-LC", "I-LC"], 0, 0),
        (["B-PS", "I-PS"], ["O", "O"], 0, 0),
        (["O", "O"], ["B-PS", "I-PS"], 0, 0),
        (["B-PS", "B-PS"], ["B-PS", "I-PS"], 0, 0),
        (["B-PS", "I-PS", "O"], ["B-PS", "I-PS", "I-LC"], 2 / 3, 1),
        (["B-PS", "I-PS", "B-LC"], ["B-PS", "I-PS", "I-LC"], 1, 2 / 3),
    ],
)
def test_default_and_strict_f1_of_single_entities(metric, gold, predicted, default, strict):
    scores = metric.compute(predictions=[predicted], references=[gold])
    assert scores["default_f1"] == pytest.approx(default)
    assert scores["f1"] == pytest.approx(strict)


def test_scores_of_two_sentences_by_hand(metric):
    """손흥민은 춘천에 | 서울시: the person's end is wrong, the first place is right, the second one's type is wrong."""
    gold = [["B-PS", "I-PS", "I-PS", "O", "B-LC", "I-LC", "O"], ["B-LC", "I-LC", "I-LC"]]
    predicted = [["B-PS", "I-PS", "O", "O", "B-LC", "I-LC", "O"], ["B-OG", "I-OG", "I-OG"]]
    scores = metric.compute(predictions=predicted, references=gold)
    tag_f1 = {"B-PS": 1, "I-PS": 2 / 3, "B-LC": 2 / 3, "I-LC": 1 / 2, "B-OG": 0, "I-OG": 0, "O": 4 / 5}
    types = {"PS": (0, 0, 0, 1), "LC": (1, 1 / 2, 2 / 3, 2), "OG": (0, 0, 0, 0)}
    names = ("precision", "recall", "f1", "number")
    assert scores == pytest.approx(
        {
            **{f"{mode}{name}": 1 / 3 for mode in ("", "default_") for name in ("precision", "recall", "f1")},
            **{f"{kind}_{name}": value for kind, row in types.items() for name, value in zip(names, row)},
            "klue_entity_macro_f1": 2 / 9,
            "klue_char_macro_f1": sum(tag_f1.values()) / 7,
            "accuracy": 6 / 10,
        }
    )
    assert all(type(value) is float for value in scores.values())


# Against seqeval and klue_baseline


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_seqeval_called_directly(metric, seed):
    gold, predicted = random_corpus(seed)
    scores = metric.compute(predictions=predicted, references=gold)
    expected = seqeval_scores(gold, predicted)
    report = classification_report(gold, predicted, output_dict=True, **STRICT)
    for label in ("PS", "LC", "OG"):
        for name, key in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score"), ("number", "support")):
            expected[f"{label}_{name}"] = report[label][key]
    assert expected["f1"] != expected["default_f1"]
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert set(scores) - set(expected) == {"klue_entity_macro_f1", "klue_char_macro_f1"}


@pytest.mark.parametrize("seed", range(5))
def test_klue_figures_are_those_of_klue_baselines_formulas(metric, seed):
    """klue_baseline/metrics/functional.py puts all sentences in one list, each between the O's of [CLS] and [SEP].

    These keep entities of neighbouring sentences apart; in the F1 of characters they would only add to the O's.
    """
    gold, predicted = random_corpus(seed)
    scores = metric.compute(predictions=predicted, references=gold, labels=KLUE_LABELS)
    with_specials = [[sum((["O", *tags, "O"] for tags in side), [])] for side in (gold, predicted)]
    assert scores["klue_entity_macro_f1"] == pytest.approx(
        f1_score(*with_specials, average="macro", mode="strict", scheme=IOB2), abs=1e-12
    )
    flat_gold, flat_predicted = sum(gold, []), sum(predicted, [])
    ids = [[KLUE_LABELS.index(tag) for tag in tags] for tags in (flat_gold, flat_predicted)]
    assert scores["klue_char_macro_f1"] == pytest.approx(
        sklearn_f1_score(*ids, labels=list(range(len(KLUE_LABELS))), average="macro", zero_division=True), abs=1e-12
    )


def test_sentences_are_judged_one_by_one(metric):
    """`I-PS` at the beginning of a sentence does not continue the entity at the end of the one before."""
    gold = [["O", "B-PS"], ["O", "O"]]
    scores = metric.compute(predictions=[["O", "B-PS"], ["I-PS", "O"]], references=gold)
    assert (scores["precision"], scores["recall"]) == (1, 1)
    assert (scores["default_precision"], scores["default_recall"]) == (1 / 2, 1)


# Labels of the character F1


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (None, (1 + 2 / 3 + 0) / 3),
        (["B-PS", "I-PS", "O"], (1 + 0 + 2 / 3) / 3),
        (["B-PS", "I-PS"], (1 + 0) / 2),
        (["B-PS", "I-PS", "B-LC", "I-LC", "O"], (1 + 0 + 1 + 1 + 2 / 3) / 5),
    ],
)
def test_character_f1_is_the_mean_over_the_labels_given_and_1_for_those_that_do_not_occur(metric, labels, expected):
    scores = metric.compute(predictions=[["B-PS", "O", "O"]], references=[["B-PS", "I-PS", "O"]], labels=labels)
    assert scores["klue_char_macro_f1"] == pytest.approx(expected)
    assert scores["f1"] == 0


# Edges


@pytest.mark.parametrize(
    ("gold", "predicted", "accuracy"),
    [
        ([["O", "O"]], [["O", "O"]], 1),
        ([["O"], ["O", "O"], []], [["O"], ["O", "O"], []], 1),
        ([["O", "O"]], [["O", "I-PS"]], 1 / 2),  # no entity in strict mode
    ],
)
def test_sentences_without_any_entity_have_strict_scores_of_0_and_no_warning(metric, gold, predicted, accuracy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = metric.compute(predictions=predicted, references=gold)
    assert {scores[name] for name in ("precision", "recall", "f1", "default_f1", "klue_entity_macro_f1")} == {0}
    assert scores["accuracy"] == accuracy


def test_a_sentence_without_characters_changes_nothing(metric):
    gold, predicted = random_corpus(0, sentences=5)
    scores = metric.compute(predictions=predicted, references=gold)
    assert metric.compute(predictions=[*predicted, []], references=[*gold, []]) == scores


def test_sentences_may_be_added_in_batches(metric):
    gold, predicted = random_corpus(1)
    scores = metric.compute(predictions=predicted, references=gold)
    for start in range(0, len(gold), 10):
        metric.add_batch(predictions=predicted[start : start + 10], references=gold[start : start + 10])
    assert metric.compute() == scores


@pytest.mark.parametrize("predicted", [["O"], ["O", "O", "O"], []])
def test_a_sentence_with_another_number_of_tags_is_an_error_that_names_it(metric, predicted):
    with pytest.raises(ValueError, match=f"sentence 1 has {len(predicted)} predicted and 2 gold tags"):
        metric.compute(predictions=[["O"], predicted], references=[["O"], ["B-PS", "I-PS"]])


def test_another_number_of_sentences_is_an_error(metric):
    with pytest.raises(ValueError, match="predictions.*2.*references.*1"):
        metric.compute(predictions=[["O"], ["O"]], references=[["O"]])


def test_it_needs_no_network(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    scores = TaggingMetric(cache_dir=str(tmp_path)).compute(predictions=[["B-PS"]], references=[["B-PS"]])
    assert scores["f1"] == 1


def test_its_description_says_what_it_returns(metric):
    scores = metric.compute(predictions=[["B-PS"]], references=[["B-PS"]])
    for name in scores:
        assert name.replace("PS_", "{TYPE}_") in metric.inputs_description
