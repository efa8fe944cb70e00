"""Whole trainings: what is refused, what stops them, and what they leave in their folder."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import seqeval.metrics
import torch
from conftest import LABELS, SENTENCES, TINY, new_tagger
from datasets import Dataset
from transformers import (
    AutoModelForTokenClassification,
    BertConfig,
    BertForTokenClassification,
    DataCollatorForTokenClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    pipeline,
)

from bilstm_crf_hf.commands import classify, ner
from bilstm_crf_hf.data.encoding import best_labels
from bilstm_crf_hf.evaluation import runs
from bilstm_crf_hf.evaluation.metrics import EntityScorer, entity_scores
from bilstm_crf_hf.evaluation.runs import read_predictions, training_summary
from bilstm_crf_hf.evaluation.tasks import TAGGING, label_maps
from bilstm_crf_hf.training.arguments import TaggerTrainingArguments
from bilstm_crf_hf.training.trainer import TaggerTrainer


def new_bert(tokenizer) -> BertForTokenClassification:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForTokenClassification(BertConfig(vocab_size=len(tokenizer), **shape, **label_maps(LABELS)))


def new_trainer(corpus, tokenizer, folder, model=None, **options) -> TaggerTrainer:
    """Return a trainer of two steps an epoch."""
    defaults = {"per_device_train_batch_size": 8, "num_train_epochs": 3, "disable_tqdm": True, "use_cpu": True}
    return TaggerTrainer(
        new_tagger(tokenizer) if model is None else model,
        TaggerTrainingArguments(str(folder), **(defaults | options)),
        train_dataset=corpus.inputs,
        eval_dataset=corpus.inputs,
        processing_class=tokenizer,
        compute_metrics=EntityScorer(corpus),
        preprocess_logits_for_metrics=best_labels,
        columns=TAGGING.columns,
    )


# ---------------------------------------------------------------- numbers that are not finite


class Break(TrainerCallback):
    """Make a weight of the classifier NaN before or after a step."""

    def __init__(self, step: int, when: str) -> None:
        self.step, self.when = step, when

    def on_step_begin(self, args, state, control, model, **kwargs):
        if self.when == "before" and state.global_step + 1 == self.step:
            model.classifier.bias.data[0] = math.nan

    def on_step_end(self, args, state, control, model, **kwargs):
        if self.when == "after" and state.global_step == self.step:
            model.classifier.bias.data[0] = math.nan


def check_nothing_is_finished(folder: Path) -> None:
    assert not (folder / "all_results.json").exists()
    assert not (folder / "model.safetensors").exists()
    for path in folder.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)  # NaN or Infinity


def score(trainer, corpus):
    inputs = {"train": corpus.inputs, "validation": corpus.inputs}
    return trainer.train_and_score(inputs, dict.fromkeys(inputs, EntityScorer(corpus)))


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}])
@pytest.mark.parametrize("kind", ["crf", "bert"])
def test_training_stops_at_a_loss_that_is_not_finite(corpus, tokenizer, tmp_path, options, kind):
    """The third step is the first one of the second epoch; the checkpoint of the first epoch stays usable."""
    model = new_bert(tokenizer) if kind == "bert" else None
    trainer = new_trainer(corpus, tokenizer, tmp_path, model, **options)
    trainer.add_callback(Break(3, "before"))
    with pytest.raises(ValueError, match="the loss is nan in step 3: training stops.* Lower the learning rate"):
        score(trainer, corpus)
    check_nothing_is_finished(tmp_path)
    kept = AutoModelForTokenClassification.from_pretrained(tmp_path / "checkpoint-2")
    assert all(parameter.isfinite().all() for parameter in kept.parameters())


def test_training_stops_at_a_gradient_that_is_not_finite(corpus, tokenizer, tmp_path):
    trainer = new_trainer(corpus, tokenizer, tmp_path)
    trainer.model.classifier.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(ValueError, match="the norm of the gradient is (nan|inf) in step 1"):
        score(trainer, corpus)
    check_nothing_is_finished(tmp_path)


@pytest.mark.parametrize("save_strategy", ["epoch", "no"])
def test_weights_that_are_not_finite_are_not_saved(corpus, tokenizer, tmp_path, save_strategy):
    """The last step breaks them, so that no loss of the training shows it."""
    options = {"eval_strategy": "no", "load_best_model_at_end": False, "max_steps": 2}
    trainer = new_trainer(corpus, tokenizer, tmp_path, save_strategy=save_strategy, **options)
    trainer.add_callback(Break(2, "after"))
    with pytest.raises(ValueError, match="a weight is nan by step 2"):
        score(trainer, corpus)
    check_nothing_is_finished(tmp_path)


def test_training_stops_before_it_evaluates_weights_that_are_not_finite(corpus, tokenizer, tmp_path):
    trainer = new_trainer(corpus, tokenizer, tmp_path)
    trainer.add_callback(Break(2, "after"))
    with pytest.raises(ValueError, match="a weight is nan by step 2"):
        score(trainer, corpus)
    check_nothing_is_finished(tmp_path)


def test_where_a_step_does_not_wait_for_the_device_the_log_shows_it(corpus, tokenizer, tmp_path, monkeypatch):
    """As on a GPU: `training_step` and the norm check nothing there, and the mean loss of the epoch is not finite."""
    trainer = new_trainer(corpus, tokenizer, tmp_path)
    check = trainer._check_finite
    monkeypatch.setattr(trainer, "_check_finite", lambda name, value, step=None: step or check(name, value))
    trainer.add_callback(Break(3, "before"))
    with pytest.raises(ValueError, match="the loss is nan by step 4"):
        score(trainer, corpus)
    check_nothing_is_finished(tmp_path)


def test_an_overflow_of_float16_is_not_logged(corpus, tokenizer, tmp_path):
    """The scaler skips the step, and JSON has no infinity."""
    trainer = new_trainer(corpus, tokenizer, tmp_path)
    trainer.args.fp16 = True
    trainer.log({"loss": 1.0, "grad_norm": math.inf})
    assert trainer.state.log_history == [{"loss": 1.0, "step": 0}] or "grad_norm" not in trainer.state.log_history[0]


@pytest.mark.slow
@pytest.mark.parametrize("command", [ner, classify])
def test_a_learning_rate_that_is_too_high_leaves_no_model(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"step \d+: training stops.*Lower the learning rate \(1e\+30\)"):
        command.main([*files(command), "--learning_rate", "1e30", "--output_dir", "run"])
    check_nothing_is_finished(tmp_path / "run")


# ---------------------------------------------------------------- what a run leaves


def files(command) -> list[str]:
    """Write data to the present folder, and return the arguments of a short training on them."""
    if command is ner:
        train, validation, suffix = SENTENCES * 2, SENTENCES, "txt"
    else:
        train = ["label\ttext", *(f"{kind}\t정말 {kind} 영화였다 {i}" for i in range(8) for kind in ("좋은", "나쁜"))]
        validation, suffix = train[:9], "tsv"
    for name, lines in (("train", train), ("validation", validation)):
        Path(f"{name}.{suffix}").write_text("\n".join(lines), encoding="utf-8")
    argv = ["--train_file", f"train.{suffix}", "--validation_file", f"validation.{suffix}", "--use_cpu", "true"]
    argv += ["--config_overrides", TINY, "--num_train_epochs", "2", "--per_device_train_batch_size", "8"]
    return [*argv, "--min_frequency", "1", "--disable_tqdm", "true"]


@pytest.mark.slow
@pytest.mark.parametrize("command", [ner, classify])
def test_a_failure_after_training_leaves_a_model_that_loads(tmp_path, monkeypatch, command):
    """The picture fails in a folder with the results of an earlier run, which are not those of the new model."""
    monkeypatch.chdir(tmp_path)
    argv = files(command)

    def fail(*args):
        raise RuntimeError("no room on the device")

    monkeypatch.setattr(runs, "plot_training", fail)
    Path("run").mkdir()
    Path("run/all_results.json").write_text('{"eval_f1": 1.0}')
    with pytest.raises(RuntimeError, match="no room"):
        command.main([*argv, "--output_dir", "run"])
    task = "token-classification" if command is ner else "text-classification"
    assert isinstance(pipeline(task, "run", trust_remote_code=True)("손흥민은 춘천에서 태어났다."), list)
    assert not Path("run/all_results.json").exists()


SETTINGS = [
    ("--metric_for_best_model", "eval_f1"),
    ("--metric_for_best_model", "loss"),
    ("--metric_for_best_model", "PS_f1"),
    ("--metric_for_best_model", "klue_entity_macro_f1"),
    ("--eval_strategy", "no", "--save_strategy", "no"),
    ("--prediction_loss_only", "true", "--metric_for_best_model", "loss"),
    ("--eval_do_concat_batches", "false", "--per_device_eval_batch_size", "3"),
    ("--include_for_metrics", "inputs", "loss"),
    ("--num_train_epochs", "0"),
    ("--eval_delay", "9"),
    ("--dataloader_drop_last", "true", "--per_device_eval_batch_size", "3"),
    ("--logging_strategy", "no", "--load_best_model_at_end", "false"),
]


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_settings_of_trainer_lead_to_a_finished_run(tmp_path, monkeypatch, capsys, settings):
    """The scores are those of the predictions in the folder, which are those of the saved model."""
    monkeypatch.chdir(tmp_path)
    ner.main([*files(ner), *settings, "--output_dir", "run"])
    results = json.loads(Path("run/all_results.json").read_text("utf-8"), parse_constant=pytest.fail)
    found = read_predictions(Path("run/validation_predictions.jsonl"), TAGGING)
    expected = entity_scores(found.texts, found.gold, found.predicted, LABELS)
    assert results["eval_f1"] == pytest.approx(expected["f1"])
    assert len(found.texts) == len(SENTENCES)
    history = json.loads(Path("run/trainer_state.json").read_text("utf-8"))["log_history"]
    name = dict(zip(settings[::2], settings[1::2])).get("--metric_for_best_model", "f1").removeprefix("eval_")
    curve = [entry[f"eval_{name}"] for entry in history if f"eval_{name}" in entry]
    if curve:
        assert results[f"best_{name}"] == (min if name == "loss" else max)(curve)
    else:
        assert "best_epoch" not in results
    assert results["epochs"] == (0 if "0" in settings else 2)
    assert results["selected_from"] == (min(1, len(curve)) if "--load_best_model_at_end" in settings else len(curve))
    assert "saved model: F1" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "reason"), [("nonsense", ""), ("OG_f1", ""), ("macro_f1", "")])
def test_a_score_that_training_does_not_have_is_refused_with_the_list(corpus, tokenizer, tmp_path, name, reason):
    """OG does not occur in the gold labels, so that an evaluation may lack it."""
    with pytest.raises(ValueError, match=f"metric_for_best_model is {name}: set loss, precision, .*PS_f1.*token_f1"):
        new_trainer(corpus, tokenizer, tmp_path / "out", metric_for_best_model=name)
    with pytest.raises(ValueError, match="metric_for_best_model is f1: set loss, the only one with prediction_loss"):
        new_trainer(corpus, tokenizer, tmp_path / "out", prediction_loss_only=True)
    assert not (tmp_path / "out").exists()


def test_scores_that_training_offers_are_those_of_an_evaluation(corpus):
    gold = np.full((len(corpus.inputs), 40), -100)
    for row, labels in zip(gold, corpus.inputs["labels"]):
        row[: len(labels)] = labels
    scorer = EntityScorer(corpus)
    assert set(scorer.scores()) == set(scorer(_Prediction(gold, gold)))


class _Prediction:
    def __init__(self, predictions, label_ids) -> None:
        self.predictions, self.label_ids = predictions, label_ids


def test_predictions_of_other_rows_are_refused(corpus):
    """As of a `Trainer` that groups the rows of an evaluation by their lengths."""
    gold = np.full((len(corpus.inputs), 40), -100)
    for row, labels in zip(gold, corpus.inputs["labels"]):
        row[: len(labels)] = labels
    for wrong in (gold[::-1], gold[:-1]):
        with pytest.raises(ValueError, match="not those of the rows of the corpus in their order"):
            EntityScorer(corpus)(_Prediction(wrong, wrong))


def test_a_summary_has_the_lowest_loss_and_no_curve_without_evaluations():
    history = [{"epoch": i, "eval_loss": loss} for i, loss in enumerate((3.0, 1.0, 2.0), 1)]
    summary = training_summary(history, [1.0, 2.0, 4.0], "loss", min)
    assert (summary["best_loss"], summary["best_epoch"], summary["mean_loss"]) == (1.0, 2, 2.0)
    assert training_summary([], [], "f1") == {"epochs": 0, "train_seconds": 0, "seconds_per_epoch": 0.0}


def test_scores_on_test_data_need_some(corpus, tokenizer, tmp_path):
    trainer = new_trainer(corpus, tokenizer, tmp_path, do_predict=True)
    with pytest.raises(ValueError, match="do_predict is True, but there are no test data"):
        score(trainer, corpus)
    assert trainer.state.global_step == 0


def test_a_rate_of_the_crf_needs_one(corpus, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="crf_learning_rate is set, but the model has no CRF"):
        new_trainer(corpus, tokenizer, tmp_path, new_bert(tokenizer), crf_learning_rate=0.1)


def test_a_training_does_not_start_from_weights_that_are_not_finite(corpus, tokenizer, tmp_path):
    trainer = new_trainer(corpus, tokenizer, tmp_path)
    trainer.model.classifier.bias.data[0] = math.nan
    with pytest.raises(ValueError, match="the weight classifier.bias holds NaN or infinity"):
        trainer.train()


def test_scores_of_several_validation_sets_have_their_names(corpus, tokenizer, tmp_path):
    sets = {"near": corpus.inputs, "far": corpus.inputs}
    common = {"train_dataset": corpus.inputs, "eval_dataset": sets, "processing_class": tokenizer}
    common |= {"compute_metrics": EntityScorer(corpus), "preprocess_logits_for_metrics": best_labels}
    options = {"use_cpu": True, "disable_tqdm": True, "num_train_epochs": 1}
    with pytest.raises(ValueError, match="metric_for_best_model is f1: set near_loss, near_precision"):
        TaggerTrainer(new_tagger(tokenizer), TaggerTrainingArguments(str(tmp_path), **options), **common)
    arguments = TaggerTrainingArguments(str(tmp_path), metric_for_best_model="far_f1", **options)
    trainer = TaggerTrainer(new_tagger(tokenizer), arguments, **common)
    trainer.train()
    assert trainer.state.best_metric == trainer.state.log_history[-2]["eval_far_f1"]


def test_rows_without_a_number_have_no_epochs_for_a_decay(corpus, tokenizer, tmp_path):
    arguments = TaggerTrainingArguments(
        str(tmp_path), use_cpu=True, max_steps=1, learning_rate_decay=0.5, eval_strategy="no", save_strategy="no"
    )
    with pytest.raises(ValueError, match="learning_rate_decay needs the number of rows"):
        TaggerTrainer(new_tagger(tokenizer), arguments, train_dataset=corpus.inputs.to_iterable_dataset())


def test_labels_of_a_crf_are_not_smoothed(corpus, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="label_smoothing_factor is 0.1, but it smooths the labels of a softmax"):
        new_trainer(corpus, tokenizer, tmp_path / "out", label_smoothing_factor=0.1)
    assert not (tmp_path / "out").exists()


def test_labels_of_a_softmax_are_smoothed_as_torch_does(corpus, tokenizer, tmp_path):
    trainer = new_trainer(corpus, tokenizer, tmp_path, new_bert(tokenizer), label_smoothing_factor=0.3)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    logits = trainer.model.eval()(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits
    expected = torch.nn.CrossEntropyLoss(label_smoothing=0.3)(logits.flatten(0, 1), batch["labels"].flatten())
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("disable", [True, False])
def test_progress_bars_can_be_turned_off(corpus, tokenizer, tmp_path, capsys, disable):
    trainer = new_trainer(corpus, tokenizer, tmp_path, disable_tqdm=disable, num_train_epochs=1, save_strategy="no",
                          load_best_model_at_end=False)  # fmt: skip
    trainer.train()
    trainer.predict(corpus.inputs)
    printed = capsys.readouterr()
    assert ("it/s" in printed.err) is not disable
    assert [line.split()[1] for line in printed.out.splitlines() if line.startswith("epoch")] == ["1/1"]


def test_a_rate_decays_by_epochs_whatever_their_number(corpus, tokenizer, tmp_path):
    """Three steps of two epochs with two steps each."""
    options = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}
    trainer = new_trainer(corpus, tokenizer, tmp_path, max_steps=3, learning_rate_decay=0.5, **options)
    rates = []

    class Rates(TrainerCallback):
        def on_optimizer_step(self, args, state, control, optimizer, **kwargs):
            rates.append(optimizer.param_groups[0]["lr"])

    trainer.add_callback(Rates())
    trainer.train()
    assert rates == [2e-3, 2e-3, 1e-3]


def test_the_average_of_a_short_training_is_not_that_of_no_step(corpus, tokenizer, tmp_path):
    options = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False, "max_steps": 1}
    trainer = new_trainer(corpus, tokenizer, tmp_path, ema_decay=0.9, **options)
    before = trainer.model.classifier.weight.detach().clone()
    trainer.train()
    trained = trainer.average.average.classifier.weight  # exchanged for the average
    weight = 2 / 11  # of the weights before, in the first update
    torch.testing.assert_close(trainer.model.classifier.weight, weight * before + (1 - weight) * trained)


# ---------------------------------------------------------------- as with any Trainer


@pytest.mark.parametrize("kind", ["crf", "bert"])
@pytest.mark.parametrize("options", [{}, {"eval_do_concat_batches": False, "per_device_eval_batch_size": 3}])
def test_a_stock_trainer_computes_the_same_scores(corpus, tokenizer, tmp_path, kind, options):
    """Without `preprocess_logits_for_metrics`, as in the documentation of transformers."""
    model = new_bert(tokenizer) if kind == "bert" else new_tagger(tokenizer)
    common = {"eval_dataset": corpus.inputs, "processing_class": tokenizer, "compute_metrics": EntityScorer(corpus)}
    stock_trainer = Trainer(
        model,
        TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", **options),
        data_collator=DataCollatorForTokenClassification(tokenizer),
        **common,
    )
    size = stock_trainer.args.per_device_eval_batch_size  # the loss is a mean over batches
    stock = stock_trainer.evaluate(ignore_keys=["path_log_probs"])  # with the best paths
    ours = new_trainer(corpus, tokenizer, tmp_path, model, per_device_eval_batch_size=size).evaluate()
    assert {name: value for name, value in stock.items() if "_f1" in name or "loss" in name} == {
        name: pytest.approx(value) for name, value in ours.items() if "_f1" in name or "loss" in name
    }


@pytest.mark.parametrize("trainer_class", [Trainer, TaggerTrainer])
@pytest.mark.parametrize("kind", ["crf", "bert"])
def test_metrics_of_the_examples_of_transformers_get_the_logits(corpus, tokenizer, tmp_path, kind, trainer_class):
    """`compute_metrics` of `run_ner.py`, on rows in which only the first token of a word has a label."""

    def compute_metrics(prediction):
        predictions, labels = prediction
        predictions = np.argmax(predictions, axis=2)
        known = labels != -100
        tags = [[[LABELS[i] for i in row[mask]] for row, mask in zip(ids, known)] for ids in (labels, predictions)]
        return {"f1": seqeval.metrics.f1_score(*tags), "tokens": int(known.sum())}

    words = [text.split() for text in corpus.texts]
    rows = tokenizer(words, is_split_into_words=True)
    firsts = [rows.word_ids(i) for i in range(len(words))]
    rows["labels"] = [
        [-100 if word is None or word == before else LABELS.index("O") for before, word in zip([None, *ids], ids)]
        for ids in firsts
    ]
    trainer = trainer_class(
        new_bert(tokenizer) if kind == "bert" else new_tagger(tokenizer),
        TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", per_device_eval_batch_size=3),
        data_collator=DataCollatorForTokenClassification(tokenizer),
        eval_dataset=Dataset.from_dict(rows),
        compute_metrics=compute_metrics,
    )
    assert trainer.evaluate()["eval_tokens"] == sum(map(len, words))


def test_stock_arguments_train_as_with_a_stock_trainer(corpus, tokenizer, tmp_path):
    """Without columns, collator and scores, on rows with a column of strings; compare the weights with `Trainer`'s."""
    rows = corpus.inputs.add_column("text", ["x"] * len(corpus.inputs))
    weights = []
    for trainer_class, options in (
        (TaggerTrainer, {}),
        (Trainer, {"data_collator": DataCollatorForTokenClassification(tokenizer)}),
    ):
        arguments = TrainingArguments(str(tmp_path), use_cpu=True, max_steps=3, optim="sgd", learning_rate=0.01)
        model = new_bert(tokenizer)
        trainer = trainer_class(model, arguments, train_dataset=rows, processing_class=tokenizer, **options)
        trainer.train()
        weights.append(list(model.parameters()))
    for ours, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["list", "iterable"])
def test_rows_need_not_be_a_data_set_with_a_length(corpus, tokenizer, tmp_path, kind):
    rows = list(corpus.inputs) if kind == "list" else corpus.inputs.to_iterable_dataset()
    options = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False, "disable_tqdm": True}
    arguments = TaggerTrainingArguments(str(tmp_path), max_steps=2, use_cpu=True, **options)
    trainer = TaggerTrainer(new_tagger(tokenizer), arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    assert trainer.state.global_step == 2
