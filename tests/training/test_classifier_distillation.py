"""Distillation of text classifiers, compared with the probabilities of each teacher by itself."""

import json
import math

import numpy as np
import pytest
import torch
from classifiers import EMOTION, FILES, new_classifier
from datasets import Dataset
from transformers import DataCollatorWithPadding, TrainingArguments

from bilstm_crf_hf.commands import distill_classifier as recipe
from bilstm_crf_hf.data.classification import load_classification_datasets
from bilstm_crf_hf.data.tokenization import build_character_tokenizer
from bilstm_crf_hf.training import classification

CLASSES = ["기쁨", "슬픔", "분노", "불안", "상처", "당황"]
SMALL = [
    *("--num_train_epochs", "1", "--use_cpu", "true", "--learning_rate", "0.01", "--examples", "시험에 붙어서 기뻐"),
    *("--config_overrides", '{"embedding_size": 16, "hidden_size": 24, "ngram_buckets": 256}'),
]


@pytest.fixture(scope="module")
def texts():
    return load_classification_datasets(data_files=EMOTION)["train"]["text"][:12]


@pytest.fixture(scope="module")
def teachers(texts, tmp_path_factory) -> list[str]:
    """Two classifiers over different characters, one with its labels in another order."""
    folders = []
    for i, labels in enumerate((CLASSES, CLASSES[::-1])):
        tokenizer = build_character_tokenizer(texts[: 6 * (i + 1)])
        folders.append(str(tmp_path_factory.mktemp(f"teacher{i}")))
        model = new_classifier(tokenizer, labels, seed=i)
        with torch.no_grad():
            model.classifier.weight.mul_(5)
        for part in (model, tokenizer):
            part.save_pretrained(folders[-1])
    return folders


def test_probabilities_of_teachers_are_averaged_by_name(teachers, texts):
    pipes = [recipe.load_teacher(name, CLASSES) for name in teachers]
    found = recipe.soft_labels(pipes, texts, CLASSES, batch_size=4)
    expected = np.zeros((len(texts), len(CLASSES)))
    for pipe in pipes:
        own = pipe.model.config.label2id
        for row, text in zip(expected, texts, strict=True):
            with torch.no_grad():
                (said,) = pipe.model(**pipe.tokenizer(text, return_tensors="pt")).logits.softmax(-1).tolist()
            row += [said[own[label]] / 2 for label in CLASSES]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.std(0).min() > 0.01


def test_a_teacher_of_other_labels_is_refused(teachers):
    with pytest.raises(ValueError, match=r"teacher0.* has the labels 기쁨, .*, not 부정, 긍정"):
        recipe.load_teacher(teachers[0], ["부정", "긍정"])


def test_the_loss_is_the_cross_entropy_to_the_probabilities(texts):
    """Compare the loss of the model and the loss with class weights with sums by hand."""
    tokenizer = build_character_tokenizer(texts)
    model = new_classifier(tokenizer, CLASSES, problem_type="single_label_classification")
    soft = np.random.default_rng(0).dirichlet(np.ones(6), len(texts)).astype(np.float32)
    rows = [dict(tokenizer(text, return_token_type_ids=False)) for text in texts]
    batch = DataCollatorWithPadding(tokenizer)([row | {"labels": said} for row, said in zip(rows, soft.tolist())])
    output = model(**batch)
    terms = np.zeros(6)
    for logits, said in zip(output.logits.tolist(), soft.tolist(), strict=True):
        total = math.log(sum(math.exp(value) for value in logits))
        terms += [probability * (total - value) for value, probability in zip(logits, said, strict=True)]
    assert output.loss.item() == pytest.approx(sum(terms) / len(texts), rel=1e-5)
    gold = Dataset.from_dict({"labels": [0, 0, 0, 0, 1, 2, 3, 4, 5, 5]})  # balanced: 10 / (6 * count)
    weights = np.array([10 / 24, 10 / 6, 10 / 6, 10 / 6, 10 / 6, 10 / 12])
    loss = classification.class_loss("balanced", gold, 6, TrainingArguments(use_cpu=True))(output, batch["labels"])
    assert loss.item() == pytest.approx(weights @ terms / len(texts), rel=1e-5)


def test_gold_rows_have_the_probability_1_for_their_label(texts):
    gold = Dataset.from_dict({"input_ids": [[2], [3]], "attention_mask": [[1], [1]], "labels": [1, 0]})
    assert recipe.with_soft_labels(gold, 3)["labels"][:] == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.slow
def test_the_recipe_asks_teachers_once(teachers, texts, tmp_path):
    """Write the soft labels only, then train two students on them, which have the same loss."""
    raw, labels = tmp_path / "raw.txt", tmp_path / "labels"
    raw.write_text("\n".join([*texts, "가" * 300]), encoding="utf-8")
    asked = ["--teachers", *teachers, "--unlabeled_file", str(raw), "--variants", "2", "--output_dir", str(labels)]
    recipe.main([*FILES, *SMALL, *asked, "--num_train_epochs", "0"])
    assert [path.name for path in labels.iterdir()] == ["soft_labels.parquet"]
    soft_labels = Dataset.from_parquet(str(labels / "soft_labels.parquet"))
    assert len(soft_labels) == len(texts) + 2 * 90  # not the long one
    np.testing.assert_allclose(np.sum(soft_labels["labels"][:], 1), 1, atol=1e-5)
    losses, untrained = [], math.log(6)
    for folder in (tmp_path / "first", tmp_path / "second"):
        options = ["--soft_labels_file", str(labels / "soft_labels.parquet"), "--output_dir", str(folder)]
        recipe.main([*FILES, *SMALL, *options])
        state = json.loads((folder / "trainer_state.json").read_text())
        losses += [entry["loss"] for entry in state["log_history"] if "loss" in entry]
        results = json.loads((folder / "all_results.json").read_text())
        assert (results["train_sentences"], results["train_soft_sentences"]) == (90, len(soft_labels))
        assert state["global_step"] == -(-(90 + len(soft_labels)) // 32)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] == pytest.approx(untrained, rel=0.3)  # a mean over texts
