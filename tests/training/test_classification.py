import json
import logging
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from classifiers import EMOTION, FILES, ROOT, SMALL, new_classifier
from clean_process import run_without_package
from sklearn.metrics import accuracy_score, classification_report, f1_score
from sklearn.utils.class_weight import compute_sample_weight
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    pipeline,
)

from bilstm_crf_hf import BiLSTMForSequenceClassification
from bilstm_crf_hf.commands import classify, sample_files
from bilstm_crf_hf.data.classification import load_classification_datasets
from bilstm_crf_hf.data.tokenization import build_character_tokenizer
from bilstm_crf_hf.evaluation.metrics import ClassificationMetric, ClassScorer
from bilstm_crf_hf.evaluation.plots import plot_confusion
from bilstm_crf_hf.training import classification

RECIPE = ROOT / "recipes" / "sequence_classification.py"
NO_DROPOUT = dict.fromkeys(("embedding_dropout", "locked_dropout", "ngram_dropout", "word_dropout"), 0.0)
EMOTION_CONFIG = ROOT / "recipes" / "configs" / "bilstm_emotion.yaml"


@pytest.fixture(scope="module")
def classifier(tokenizer):
    return new_classifier(tokenizer)


# ---------------------------------------------------------------- model


def test_auto_class_knows_the_model_type():
    config = AutoConfig.for_model("bilstm_crf", vocab_size=50, num_labels=3)
    assert isinstance(AutoModelForSequenceClassification.from_config(config), BiLSTMForSequenceClassification)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_sentence_is_classified_as_if_it_were_alone(classifier, tokenizer, texts, side):
    batch = tokenizer(texts, padding="max_length", max_length=60, padding_side=side, return_tensors="pt")
    with torch.no_grad():
        together = classifier(**batch).logits
        for i, text in enumerate(texts):
            alone = classifier(**tokenizer(text, return_tensors="pt")).logits[0]
            bare = classifier(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0]
            torch.testing.assert_close(together[i], alone, atol=1e-5, rtol=0)
            torch.testing.assert_close(bare, alone, atol=1e-5, rtol=0)
    assert together.std(0).min() > 1e-3  # they are not all the same


def test_sentences_without_tokens_are_safe(classifier, tokenizer):
    """A text of special tokens only, beside a sentence and alone, has finite logits and gradients."""
    model = new_classifier(tokenizer, **NO_DROPOUT).train()
    for texts in (["", "정말 재미있는 영화였다"], ["", ""]):
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        model.zero_grad()
        output = model(**batch, labels=torch.tensor([0, 1]))
        output.loss.backward()
        torch.testing.assert_close(output.logits[0], model.classifier.bias, atol=0, rtol=0)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_loss_is_the_cross_entropy(classifier, tokenizer, texts):
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    labels = torch.tensor([0, 1] * 4)
    with torch.no_grad():
        output = classifier(**batch, labels=labels)
        as_tuple = classifier(**batch, labels=labels, return_dict=False)
    chosen = output.logits.softmax(-1)[torch.arange(8), labels]
    assert output.loss.item() == pytest.approx(-chosen.log().mean().item(), rel=1e-5)
    torch.testing.assert_close(as_tuple[1], output.logits, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_export_runs_where_the_package_is_not_installed(classifier, tokenizer, texts, tmp_path):
    export = tmp_path / "export"
    classifier.save_pretrained(export)
    tokenizer.save_pretrained(export)
    found = run_without_package(
        f"""
        import json
        from transformers import pipeline
        classifier = pipeline("text-classification", model={str(export)!r}, trust_remote_code=True)
        classifier.save_pretrained("again")
        again = pipeline("text-classification", model="./again", trust_remote_code=True)
        assert again({texts!r}) == classifier({texts!r})
        print(json.dumps([type(classifier).__name__, classifier({texts!r}, top_k=None)]))
        """,
        tmp_path,
    )
    assert found[0] == "TextClassificationPipeline"
    with torch.no_grad():
        expected = classifier(**tokenizer(texts, padding=True, return_tensors="pt")).logits.softmax(-1)
    for row, answers in zip(expected, found[1], strict=True):
        scores = {answer["label"]: answer["score"] for answer in answers}
        assert scores == pytest.approx({"부정": row[0].item(), "긍정": row[1].item()}, abs=1e-5)


def test_stock_pipeline_needs_no_trust_where_the_package_is(classifier, tokenizer, texts, tmp_path):
    classifier.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert pipeline("text-classification", model=str(tmp_path))(texts[0])[0]["label"] in ("부정", "긍정")


# ---------------------------------------------------------------- scores


def test_metric_is_scikit_learns():
    generator = np.random.default_rng(0)
    gold, predicted = (list(generator.choice(["기쁨", "슬픔", "분노"], 50)) for _ in range(2))
    gold = ["슬픔" if label == "분노" else label for label in gold]  # so that a class occurs on one side only
    scores = ClassificationMetric().compute(predictions=predicted, references=gold)
    report = classification_report(gold, predicted, output_dict=True, zero_division=0)
    assert scores["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
    assert scores["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro"))
    for label in ("기쁨", "슬픔", "분노"):
        for ours, theirs in (("precision", "precision"), ("f1", "f1-score"), ("number", "support")):
            assert scores[f"{label}_{ours}"] == pytest.approx(report[label][theirs])


@pytest.mark.parametrize("labels", [("negative", "positive"), ("부정", "긍정")])
def test_confusion_picture(labels, tmp_path, caplog, monkeypatch):
    """Without a font for their names, classes are numbered, and a warning has the names."""
    fonts = pytest.importorskip("matplotlib.font_manager").fontManager.ttflist
    own = [entry for entry in fonts if entry.name in ("DejaVu Sans", "Last Resort High-Efficiency")]
    monkeypatch.setattr("matplotlib.font_manager.fontManager.ttflist", own)
    with caplog.at_level(logging.WARNING):
        plot_confusion([0, 0, 1], [0, 1, 1], labels, tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert ("they are numbered: 0 부정, 1 긍정" in caplog.text) == (labels[0] == "부정")
    assert "missing from font" not in caplog.text


# ---------------------------------------------------------------- training


@pytest.fixture(scope="module")
def emotion():
    datasets = load_classification_datasets(data_files=EMOTION)
    tokenizer = build_character_tokenizer(datasets["train"]["text"])
    return datasets["train"], tokenizer


def new_trainer(emotion, folder, weights="none", model=None, **options):
    dataset, tokenizer = emotion
    labels = dataset.features["label"].names
    inputs = classification.encode_texts(dataset, tokenizer, labels, 512, "train")
    arguments = classification.ClassifierTrainingArguments(
        **(
            {"output_dir": str(folder), "num_train_epochs": 1, "disable_tqdm": True, "use_cpu": True}
            | {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}
            | options
        )
    )
    return classification.ClassifierTrainer(
        new_classifier(tokenizer, labels, **NO_DROPOUT) if model is None else model,
        arguments,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=inputs,
        eval_dataset=inputs,
        compute_loss_func=classification.class_loss(weights, inputs, len(labels), arguments),
        compute_metrics=ClassScorer(labels, inputs["labels"]),
        preprocess_logits_for_metrics=classification.best_labels,
        columns=classification.COLUMNS,
    )


def test_labels_are_smoothed_as_torch_smooths_them(emotion, tmp_path):
    trainer = new_trainer(emotion, tmp_path, "none", label_smoothing_factor=0.5)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    logits = trainer.model.eval()(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits
    expected = torch.nn.CrossEntropyLoss(label_smoothing=0.5)(logits, batch["labels"])
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_balanced_loss_weighs_as_scikit_learn(emotion, tmp_path):
    trainer = new_trainer(emotion, tmp_path, "balanced", per_device_eval_batch_size=90)
    prediction = trainer.predict(trainer.eval_dataset)
    batch = DataCollatorWithPadding(emotion[1])(list(trainer.eval_dataset))
    with torch.no_grad():
        log_probs = trainer.model(batch["input_ids"], batch["attention_mask"]).logits.log_softmax(-1)
    each = -log_probs[torch.arange(90), batch["labels"]].numpy()
    weights = compute_sample_weight("balanced", batch["labels"].numpy())
    assert len(set(weights.round(6))) > 3
    assert prediction.metrics["test_loss"] == pytest.approx((weights * each).mean(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_accumulated_batches_equal_one_large_batch(emotion, tmp_path, weights):
    """Compare 2 x 45 with 90 texts: logged loss, logged training accuracy, and the weights after plain SGD."""
    results = []
    for size, steps in ((90, 1), (45, 2)):
        trainer = new_trainer(
            emotion, tmp_path, weights, per_device_train_batch_size=size, gradient_accumulation_steps=steps,
            optim="sgd", learning_rate=0.5, num_train_epochs=3, lr_scheduler_type="constant", weight_decay=0.0,
        )  # fmt: skip
        trainer.train()
        logs = [(entry["loss"], entry["accuracy"]) for entry in trainer.state.log_history if "loss" in entry]
        results.append((logs, trainer.model.classifier.weight.detach()))
    (large, large_weights), (small, small_weights) = results
    assert len(large) == 3
    assert np.allclose(small, large, rtol=1e-5)
    torch.testing.assert_close(small_weights, large_weights, atol=1e-6, rtol=1e-4)


def test_training_accuracy_is_that_of_the_model_met(emotion, tmp_path):
    """With one batch per epoch, the training accuracy of an epoch is the accuracy of the model before it."""
    trainer = new_trainer(emotion, tmp_path, per_device_train_batch_size=90, num_train_epochs=3, eval_strategy="epoch")
    before = trainer.evaluate()["eval_accuracy"]
    trainer.train()
    log = trainer.state.log_history
    seen = [entry["accuracy"] for entry in log if "loss" in entry]
    after = [entry["eval_accuracy"] for entry in log if "eval_accuracy" in entry and entry["epoch"] > 0]
    assert seen == pytest.approx([before, *after[:2]])


@pytest.mark.slow
def test_encoder_trains_through_the_same_path(emotion, tmp_path):
    dataset, tokenizer = emotion
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=6,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    trainer = new_trainer(
        emotion, tmp_path, "balanced", model, num_train_epochs=30, learning_rate=1e-2, per_device_train_batch_size=8
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before / 2


# ---------------------------------------------------------------- recipe


def run_recipe(*arguments):
    command = [sys.executable, str(RECIPE), *map(str, arguments), "--use_cpu", "true", "--disable_tqdm", "true"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def small():
    return ("--config_overrides", json.dumps(SMALL), "--num_train_epochs", "1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder and the output of a run on six emotions, two of them merged, with class weights."""
    folder = tmp_path_factory.mktemp("emotion") / "out"
    result = run_recipe(
        "recipes/configs/bilstm_emotion.yaml", "--merge_labels", "슬픔+상처", *small(), "--output_dir", folder,
        "--examples", "시험에 붙어서 기뻐", "--learning_rate", 1e-2,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


@pytest.mark.slow
def test_recipe_leaves_a_finished_run(finished):
    folder, output = finished
    assert {"training.png", "confusion.png", "trainer_state.json", "config.json"} <= {p.name for p in folder.iterdir()}
    assert not [path.name for path in folder.iterdir() if path.name.endswith((".part", ".tmp"))]
    results = json.loads((folder / "all_results.json").read_text())
    rows = [json.loads(line) for line in (folder / "validation_predictions.jsonl").read_text().splitlines()]
    gold, predicted = ([row[side] for row in rows] for side in ("gold", "predicted"))
    validation = load_classification_datasets(data_files=EMOTION)["validation"]
    assert [row["text"] for row in rows] == validation["text"][:]
    assert set(gold) == {"기쁨", "당황", "분노", "불안", "슬픔+상처"}
    assert results["eval_accuracy"] == pytest.approx(accuracy_score(gold, predicted))
    assert results["eval_macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro"))
    assert results["best_macro_f1"] == results["eval_macro_f1"]
    assert results["train_sentences"] == 90
    assert re.search(r"epoch 1/1  loss .*  validation loss .*  accuracy 0\.\d+  macro F1 0\.\d+  .* s\n", output)
    assert re.search(r"F1: 기쁨 \S+, 당황 \S+, 분노 \S+, 불안 \S+, \S+ \S+\n", output)


@pytest.mark.slow
def test_finished_run_predicts_in_a_clean_process(finished, tmp_path):
    """Compare with the predictions that the recipe wrote, and with the example that it printed."""
    folder, output = finished
    rows = [json.loads(line) for line in (folder / "validation_predictions.jsonl").read_text().splitlines()]
    texts = [row["text"] for row in rows] + ["시험에 붙어서 기뻐"]
    found = run_without_package(
        f"""
        import json
        from transformers import pipeline
        classifier = pipeline("text-classification", model={str(folder)!r}, trust_remote_code=True)
        print(json.dumps(classifier({texts!r})))
        """,
        tmp_path,
    )
    assert [answer["label"] for answer in found[:-1]] == [row["predicted"] for row in rows]
    assert f"  {found[-1]['label']}\t{found[-1]['score']:.4f}\t시험에 붙어서 기뻐" in output


def test_sentiment_sample(tmp_path, capsys):
    """Train on the sample: at the end the recipe prints six examples with scores, of which the labels are right."""
    classify.main(["--output_dir", str(tmp_path), "--use_cpu", "true"], ROOT / "recipes")
    found = re.findall(r"^  (부정|긍정)\t[01]\.\d{4}\t(.+)$", capsys.readouterr().out, re.MULTILINE)
    assert [label for label, _ in found] == ["긍정", "부정", "긍정", "부정", "긍정", "부정"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--merge_labels", "슬픔+아픔"), "merge_labels: there is no label '아픔'"),
        (("--merge_labels", "슬픔+상처", "상처+불안"), "merge_labels: 상처 is merged twice"),
        (("--max_train_samples", "3"), "the training data has no row of the class"),
        (("--metric_for_best_model", "f1"), "metric_for_best_model is f1: set loss, accuracy, macro_f1, "),
        (("--label_names", "부정", "긍정"), r"train\.tsv:2: the label 기쁨 is not among those of label_names \(0, 1\)"),
        (("--text_column_name", "글"), r"train\.tsv: no column 글; its columns are label, text"),
        (
            ("--config_overrides", '{"problem_type": "regression"}'),
            "config_overrides: problem_type cannot be set there",
        ),
    ],
)
def test_recipe_refuses(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        classify.main([str(EMOTION_CONFIG), *arguments, "--output_dir", str(tmp_path / "out"), *FILES])
    assert not (tmp_path / "out").exists()


def test_samples_are_drawn_at_random_and_the_same_in_every_run():
    arguments = {f"{split}_file": str(path) for split, path in EMOTION.items()}
    arguments = classification.DataArguments(**arguments, max_train_samples=60, max_eval_samples=10)
    first, again = (
        classification.load_texts(arguments, sample_files("sentiment", "tsv", RECIPE.parent)) for _ in range(2)
    )
    assert (len(first["train"]), len(first["validation"])) == (60, 10)
    assert first["train"]["text"][:] == again["train"]["text"][:]
    whole = load_classification_datasets(data_files=EMOTION)["train"]
    assert set(first["train"]["text"]) < set(whole["text"])
    assert first["train"]["text"][:] != whole["text"][:60]
