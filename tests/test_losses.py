"""Tests of labels and losses, against the classes of transformers and brute force over paths."""

import itertools

import pytest
import torch
from classifiers import new_classifier
from conftest import LABELS, new_tagger
from torch.testing import assert_close
from transformers import BertConfig, BertForSequenceClassification

from bilstm_crf_hf import EncoderForSequenceClassification
from bilstm_crf_hf.crf import allowed_transitions, broken_step

# ---------------------------------------------------------------- labels of a tagger

TEXTS = ["서울", "손흥민은 춘천에서", ""]


def batch_with_labels(tokenizer, row: int, labels: list[str | int]):
    """Return the inputs of `TEXTS` with O everywhere but in `row`, whose first tokens get `labels`."""
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    tags = torch.full(batch["input_ids"].shape, LABELS.index("O"))
    for i, label in enumerate(labels, 1):
        tags[row, i] = LABELS.index(label) if isinstance(label, str) else label
    return batch | {"labels": tags}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["B-PS", "I-LC"], "row 1 of the batch has I-LC at token 2 after B-PS at token 1"),
        (["I-PS"], "row 1 of the batch has I-PS at token 1 after the start"),
        (["O", "O", "I-DT"], "row 1 of the batch has I-DT at token 3 after O at token 2"),
        (["B-PS", 7], "row 1 of the batch has 7 at token 2: give a label from 0 to 6, or -100"),
        (["B-PS", -1], "row 1 of the batch has -1 at token 2"),
    ],
)
@pytest.mark.parametrize("mode", [True, False])
def test_invalid_labels_are_an_error_that_names_row_token_and_labels(tokenizer, labels, message, mode):
    model = new_tagger(tokenizer).train(mode)
    with pytest.raises(ValueError, match=message):
        model(**batch_with_labels(tokenizer, 1, labels))


def test_labels_that_the_scheme_rules_out_are_fine_without_constraints(tokenizer):
    model = new_tagger(tokenizer, constrained=False)
    assert 0 < model(**batch_with_labels(tokenizer, 1, ["O", "I-PS"])).loss < 1e3


@pytest.mark.parametrize(
    "change",
    [
        lambda labels: labels[:, :3],
        lambda labels: labels[0],
        lambda labels: labels.float(),
        lambda labels: labels > 0,
        lambda labels: labels.to(torch.uint8),
    ],
)
def test_labels_of_another_shape_or_type_are_an_error(tagger, tokenizer, change):
    batch = batch_with_labels(tokenizer, 0, [])
    with pytest.raises(ValueError, match=r"labels must be signed integers of shape \(3, 10\)"):
        tagger(**batch | {"labels": change(batch["labels"])})


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_labels_of_any_signed_integer_type_give_the_same_loss(tagger, tokenizer, dtype):
    batch = batch_with_labels(tokenizer, 1, ["B-PS", "I-PS", -100])
    assert torch.equal(tagger(**batch).loss, tagger(**batch | {"labels": batch["labels"].to(dtype)}).loss)


def test_a_batch_without_any_known_label_has_the_loss_0_and_no_gradient(tokenizer):
    model, batch = new_tagger(tokenizer), batch_with_labels(tokenizer, 0, [])
    loss = model(**batch | {"labels": torch.full_like(batch["labels"], -100)}).loss
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert model.classifier.weight.grad.abs().max() < 1e-5


@pytest.mark.parametrize(
    "names", [["O", "B-X", "I-X"], ["O", "B-X", "I-X", "E-X", "S-X"], ["O", "B-X", "E-X", "B-Y", "E-Y"]]
)
def test_a_step_is_broken_if_no_path_agrees_with_the_known_tags(names):
    """Compare with all paths of four tags, for all sequences in which some tags are unknown."""
    possible = allowed_transitions([*names, "O"])
    boundary = len(names)
    paths = [
        path
        for path in itertools.product(range(len(names)), repeat=4)
        if all(possible[a, b] for a, b in itertools.pairwise((boundary, *path, boundary)))
    ]
    for tags in itertools.product([-100, *range(len(names))], repeat=4):
        agreeing = [path for path in paths if all(tag in (-100, own) for tag, own in zip(tags, path, strict=True))]
        step = broken_step(possible, tags)
        assert (step is None) == bool(agreeing), tags
        if step is not None:
            before, after = step
            assert before < after
            assert before == -1 or tags[before] != -100
            assert after == 4 or tags[after] != -100


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_an_error_in_evaluation(tokenizer, texts, value):
    model = new_tagger(tokenizer)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        model.classifier.bias[2] = value
    for method in (model, model.nbest):
        with pytest.raises(ValueError, match="emissions are NaN or infinite: the weights of the model are damaged"):
            method(**batch)


def test_a_loss_of_weights_that_are_no_numbers_is_none_in_training(tokenizer):
    """The trainer stops at such a loss and names the step."""
    model = new_tagger(tokenizer).train()
    with torch.no_grad():
        model.classifier.bias[2] = torch.nan
    assert model(**batch_with_labels(tokenizer, 0, [])).loss.isnan()


# ---------------------------------------------------------------- classifiers

B = 4
CASES = [
    (None, 3, torch.tensor([0, 2, 1, 1])),
    (None, 3, torch.tensor([[0], [2], [1], [1]])),
    (None, 3, torch.tensor([0, 2, -100, 1])),
    ("single_label_classification", 3, torch.tensor([0, 2, 1, 1])),
    (None, 3, torch.tensor([[0.0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]])),
    ("multi_label_classification", 3, torch.tensor([[0.0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]])),
    (None, 1, torch.tensor([0.5, -1.0, 2.0, 3.0])),
    ("regression", 1, torch.tensor([[0.5], [-1.0], [2.0], [3.0]])),
    ("regression", 3, torch.arange(12.0).view(4, 3)),
]


@pytest.fixture(scope="module")
def encoder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **shape)).bert.save_pretrained(folder)
    return folder


def classifiers(tokenizer, encoder, **config):
    labels = [f"L{i}" for i in range(config.pop("num_labels"))]
    yield new_classifier(tokenizer, labels, **config)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    yield EncoderForSequenceClassification.from_encoder(encoder, tokenizer, **names, **config).eval()


@pytest.mark.parametrize(("problem", "num_labels", "labels"), CASES)
def test_the_loss_is_that_of_bert_for_the_same_logits(tokenizer, texts, encoder, problem, num_labels, labels):
    batch = tokenizer(texts[:B], padding=True, return_tensors="pt")
    for model in classifiers(tokenizer, encoder, num_labels=num_labels, problem_type=problem):
        config = BertConfig.from_pretrained(encoder, num_labels=num_labels, problem_type=problem)
        bert = BertForSequenceClassification(config).eval()
        output = model(**batch, labels=labels)
        bert.classifier.register_forward_hook(lambda *_, logits=output.logits: logits)
        assert_close(output.loss, bert(**batch, labels=labels).loss)
        assert model.config.problem_type == bert.config.problem_type is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_labels_of_any_floating_type_can_be_learnt(tokenizer, texts, encoder, dtype):
    batch = tokenizer(texts[:B], padding=True, return_tensors="pt")
    for problem in ("regression", "multi_label_classification", "single_label_classification"):
        for model in classifiers(tokenizer, encoder, num_labels=2, problem_type=problem):
            labels = torch.tensor([[0.25, 0.75]] * B)
            expected = model(**batch, labels=labels).loss
            loss = model(**batch, labels=labels.to(dtype)).loss
            loss.backward()
            assert_close(loss, expected)


def test_probabilities_as_labels_of_a_single_label_problem(tokenizer, texts, encoder):
    """The loss is the cross entropy of the two distributions, computed by hand."""
    batch = tokenizer(texts[:B], padding=True, return_tensors="pt")
    soft = torch.tensor([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    for model in classifiers(tokenizer, encoder, num_labels=2, problem_type="single_label_classification"):
        output = model(**batch, labels=soft)
        assert_close(output.loss, -(soft * output.logits.log_softmax(-1)).sum() / B)


@pytest.mark.parametrize(
    ("problem", "labels", "message"),
    [
        (None, torch.tensor([0, 1, 2, 0]), "row 2 of the batch has 2: give one from 0 to 1"),
        (None, torch.tensor([0, 1, -1, 0]), "row 2 of the batch has -1"),
        (None, torch.tensor([0, 1]), r"labels must be signed integers of shape \(4,\)"),
        (None, torch.tensor([0.0, 1.0, 1.0, 0.0]), r"multi_label_classification must be numbers of shape \(4, 2\)"),
        ("regression", torch.tensor([0.0, 1.0, 1.0, 0.0]), r"regression must be numbers of shape \(4, 2\)"),
        ("multi_label_classification", torch.tensor([0, 1, 1, 0]), r"must be numbers of shape \(4, 2\)"),
    ],
)
def test_labels_that_do_not_fit_the_problem_are_an_error(tokenizer, texts, encoder, problem, labels, message):
    batch = tokenizer(texts[:B], padding=True, return_tensors="pt")
    for model in classifiers(tokenizer, encoder, num_labels=2, problem_type=problem):
        with pytest.raises(ValueError, match=message):
            model(**batch, labels=labels)
