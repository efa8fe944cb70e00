"""Checkpoints of complete and of damaged runs, of the same run and of others."""

import copy
import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from conftest import SENTENCES, TINY, new_tagger
from datasets import Dataset
from transformers import TrainerCallback, set_seed

from bilstm_crf_hf.commands import ner
from bilstm_crf_hf.data.encoding import best_labels
from bilstm_crf_hf.evaluation.metrics import EntityScorer
from bilstm_crf_hf.training.arguments import TaggerTrainingArguments
from bilstm_crf_hf.training.checkpoints import SETTINGS, checkpoint_to_resume, data_fingerprint
from bilstm_crf_hf.training.trainer import TaggerTrainer


def new_trainer(corpus, tokenizer, folder, model=None, rows=None, **options) -> TaggerTrainer:
    set_seed(0)
    defaults = {"per_device_train_batch_size": 8, "num_train_epochs": 3, "disable_tqdm": True, "use_cpu": True}
    defaults |= {"save_total_limit": None, "load_best_model_at_end": False}
    return TaggerTrainer(
        new_tagger(tokenizer) if model is None else model,
        TaggerTrainingArguments(str(folder), **(defaults | options)),
        train_dataset=corpus.inputs if rows is None else rows,
        eval_dataset=corpus.inputs,
        processing_class=tokenizer,
        compute_metrics=EntityScorer(corpus),
        preprocess_logits_for_metrics=best_labels,
    )


@pytest.fixture(scope="module")
def finished(corpus, tokenizer, tmp_path_factory) -> Path:
    """A folder with the checkpoints of steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("finished")
    new_trainer(corpus, tokenizer, folder).train()
    return folder


def copy_of(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def wanted(folder: Path, value: str = "true") -> TaggerTrainingArguments:
    return TaggerTrainingArguments(output_dir=str(folder), resume_from_checkpoint=value, use_cpu=True)


# ---------------------------------------------------------------- complete or not


def damage(folder: Path, name: str, how: str) -> None:
    path = folder / name
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 0 if how == "empty" else path.stat().st_size // 2])


@pytest.mark.parametrize("how", ["deleted", "cut off", "empty"])
@pytest.mark.parametrize(
    "name", ["trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", SETTINGS]
)
def test_a_damaged_checkpoint_is_passed_over(finished, tmp_path, caplog, name, how):
    folder = copy_of(finished, tmp_path)
    damage(folder / "checkpoint-6", name, how)
    (folder / "checkpoint-best").mkdir()
    assert checkpoint_to_resume(wanted(folder)) == str(folder / "checkpoint-4")
    assert "checkpoint-6 is incomplete" in caplog.text
    with pytest.raises(ValueError, match=f"checkpoint-6 cannot be resumed from: .*({name[:9]}|damaged)"):
        checkpoint_to_resume(wanted(folder, str(folder / "checkpoint-6")))


def test_a_checkpoint_with_a_damaged_configuration_is_passed_over(finished, tmp_path):
    folder = copy_of(finished, tmp_path)
    damage(folder / "checkpoint-6", "config.json", "cut off")
    assert checkpoint_to_resume(wanted(folder)) == str(folder / "checkpoint-4")


@pytest.mark.parametrize("how", ["deleted", "cut off"])
def test_a_checkpoint_needs_the_best_one_so_far(corpus, tokenizer, tmp_path, how):
    """The first evaluation is the best, since the learning rate is 0. The run is moved, with its absolute paths."""
    options = {"load_best_model_at_end": True, "learning_rate": 0.0, "num_train_epochs": 2}
    new_trainer(corpus, tokenizer, tmp_path / "before", **options).train()
    folder = (tmp_path / "before").rename(tmp_path / "after")
    assert checkpoint_to_resume(wanted(folder)) == str(folder / "checkpoint-4")
    damage(folder / "checkpoint-2", "model.safetensors", how)
    with pytest.raises(ValueError, match="checkpoint-2, the best checkpoint so far, is missing or damaged"):
        checkpoint_to_resume(wanted(folder, str(folder / "checkpoint-4")))


def test_checkpoints_of_an_earlier_training_do_not_pass_for_newer_ones(corpus, tokenizer, tmp_path, caplog):
    new_trainer(corpus, tokenizer, tmp_path).train()
    new_trainer(corpus, tokenizer, tmp_path, max_steps=2, save_total_limit=1, seed=7).train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    assert json.loads((tmp_path / "checkpoint-2" / SETTINGS).read_text())["seed"] == 7
    assert "checkpoint-6 is of an earlier training, which this one replaces" in caplog.text


def test_a_checkpoint_that_does_not_fit_on_the_disk_is_named_and_removed(corpus, tokenizer, tmp_path, monkeypatch):
    """torch reports a full disk as "unexpected pos 51072 vs 50996"."""

    def fail(*args, **kwargs):
        raise RuntimeError("unexpected pos")

    monkeypatch.setattr("torch.save", fail)
    with pytest.raises(OSError, match="checkpoint-2: the checkpoint could not be saved, is the disk full"):
        new_trainer(corpus, tokenizer, tmp_path).train()
    assert not [*tmp_path.glob("checkpoint-*")]


def test_without_a_complete_checkpoint_training_begins_and_says_so(tmp_path, caplog):
    assert checkpoint_to_resume(wanted(tmp_path)) is None
    assert f"there is no complete checkpoint in {tmp_path}: training starts from the beginning" in caplog.text


def test_a_checkpoint_by_name_must_be_there_and_complete(finished, tmp_path):
    assert checkpoint_to_resume(wanted(tmp_path, str(finished / "checkpoint-4"))) == str(finished / "checkpoint-4")
    with pytest.raises(FileNotFoundError, match="elsewhere: no such checkpoint"):
        checkpoint_to_resume(wanted(tmp_path, "elsewhere"))


def test_a_checkpoint_with_the_model_only_cannot_be_resumed(corpus, tokenizer, tmp_path):
    new_trainer(corpus, tokenizer, tmp_path, save_only_model=True, max_steps=1).train()
    with pytest.raises(ValueError, match="no optimizer.pt, as with save_only_model"):
        checkpoint_to_resume(wanted(tmp_path, str(tmp_path / "checkpoint-1")))


def test_files_of_another_run_do_not_complete_an_interrupted_checkpoint(corpus, tokenizer, tmp_path):
    """The run is killed after the weights; `checkpoint-2` of an earlier run in the same folder was complete."""
    new_trainer(corpus, tokenizer, tmp_path, max_steps=2).train()
    trainer = new_trainer(corpus, tokenizer, tmp_path, max_steps=2, seed=7)

    def killed(output_dir: str) -> None:
        raise KeyboardInterrupt

    trainer._save_optimizer_and_scheduler = killed
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert checkpoint_to_resume(wanted(tmp_path)) is None


# ---------------------------------------------------------------- of this run or of another


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 7}, "seed was 42, is 7"),
        ({"learning_rate": 0.5}, "learning_rate was 0.002, is 0.5"),
        ({"per_device_train_batch_size": 4}, "per_device_train_batch_size was 8, is 4"),
        ({"metric_for_best_model": "loss"}, "metric_for_best_model was f1, is loss"),
        ({"ema_decay": 0.9}, "ema_decay was None, is 0.9"),
        ({"num_train_epochs": 5}, r"num_train_epochs was 3, is 5\): .*--model_name_or_path"),
        ({"max_steps": 5}, r"max_steps was -1, is 5\)"),
    ],
)
def test_a_checkpoint_of_a_run_with_other_settings_is_refused(finished, corpus, tokenizer, tmp_path, options, message):
    trainer = new_trainer(corpus, tokenizer, tmp_path, **options)
    with pytest.raises(ValueError, match=f"checkpoint-6 is of a run with other settings .*{message}"):
        trainer.train(resume_from_checkpoint=str(finished / "checkpoint-6"))


def test_a_checkpoint_of_other_data_another_model_or_vocabulary_is_refused(finished, corpus, tokenizer, tmp_path):
    other_labels = new_tagger(tokenizer, word_dropout=0.7)
    fewer = corpus.inputs.select(range(12))
    changed = corpus.inputs.map(lambda row: {"labels": [max(label, 0) for label in row["labels"]]})
    tokenizer_of_others = copy.deepcopy(tokenizer)
    tokenizer_of_others.add_tokens(["뷁"])
    for message, trainer in {
        "config.word_dropout was 0.1, is 0.7": new_trainer(corpus, tokenizer, tmp_path, other_labels),
        "training data was .*, is ": new_trainer(corpus, tokenizer, tmp_path, rows=fewer),
        "training data was .* is ": new_trainer(corpus, tokenizer, tmp_path, rows=changed),
        "vocabulary was .*, is ": new_trainer(corpus, tokenizer_of_others, tmp_path),
    }.items():
        with pytest.raises(ValueError, match=f"other settings .*{message}"):
            trainer.train(resume_from_checkpoint=str(finished / "checkpoint-6"))


@pytest.mark.parametrize(
    "options", [{"save_total_limit": 2, "logging_strategy": "steps", "per_device_eval_batch_size": 3, "report_to": []}]
)
def test_settings_that_do_not_change_the_result_may_change(finished, corpus, tokenizer, tmp_path, options):
    trainer = new_trainer(corpus, tokenizer, tmp_path, **options)
    trainer.train(resume_from_checkpoint=str(finished / "checkpoint-4"))
    assert trainer.state.global_step == 6


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [{"learning_rate_decay": 0.5}])
def test_a_rate_that_does_not_depend_on_the_length_allows_more_epochs(corpus, tokenizer, tmp_path, schedule):
    new_trainer(corpus, tokenizer, tmp_path, num_train_epochs=1, **schedule).train()
    trainer = new_trainer(corpus, tokenizer, tmp_path, num_train_epochs=2, **schedule)
    trainer.train(resume_from_checkpoint=True)
    whole = new_trainer(corpus, tokenizer, tmp_path / "whole", num_train_epochs=2, **schedule)
    whole.train()
    assert len(trainer.epoch_report.seconds) == 2
    for ours, theirs in zip(trainer.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


def test_the_fingerprint_of_data_is_that_of_their_rows(corpus):
    rows = corpus.inputs
    again = Dataset.from_list(list(rows), features=rows.features)  # in memory, in other pieces
    assert data_fingerprint(rows) == data_fingerprint(again) == data_fingerprint(rows.select(range(len(rows))))
    order = list(reversed(range(len(rows))))
    assert data_fingerprint(rows.select(order).select(order)) == data_fingerprint(rows)
    others = [rows.select(order), rows.select(range(3)), rows.rename_column("labels", "tags"), rows.shuffle(seed=0)]
    assert data_fingerprint(rows) not in map(data_fingerprint, others)
    assert data_fingerprint([{"input_ids": [1]}]) == "1 rows"
    assert data_fingerprint(iter([])) is None


# ---------------------------------------------------------------- epochs and seconds of the whole run


@pytest.mark.slow
@pytest.mark.parametrize(("step", "restore"), [(3, False), (4, True)])  # in the second epoch, and at its end
def test_a_resumed_run_knows_the_seconds_of_all_its_epochs(corpus, tokenizer, tmp_path, step, restore):
    class Slow(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            time.sleep(0.05)

    steps = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "no"}
    first = new_trainer(corpus, tokenizer, tmp_path, **steps)
    first.add_callback(Slow())
    first.train()
    options = {"restore_callback_states_from_checkpoint": restore}
    second = new_trainer(corpus, tokenizer, tmp_path / "again", **steps, **options)
    second.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    seconds = second.epoch_report.seconds
    assert len(seconds) == 3
    assert seconds[0] == first.epoch_report.seconds[0] > 0.1
    assert seconds[1] > (0.05 if step == 3 else 0.1)


@pytest.mark.slow
def test_results_of_a_resumed_run_are_those_of_the_whole_run(tmp_path, monkeypatch):
    """Run the command, delete the last checkpoint, and resume; then resume with another seed and other data."""
    monkeypatch.chdir(tmp_path)
    for name, sentences in (("train", SENTENCES * 2), ("other", SENTENCES[::-1]), ("validation", SENTENCES)):
        Path(f"{name}.txt").write_text("\n".join(sentences), encoding="utf-8")
    argv = ["--train_file", "train.txt", "--validation_file", "validation.txt", "--config_overrides", TINY]
    argv += ["--output_dir", "run", "--num_train_epochs", "3", "--save_total_limit", "9", "--use_cpu", "true"]
    argv += ["--per_device_train_batch_size", "8", "--min_frequency", "1"]
    ner.main(argv)
    whole = json.loads(Path("run/all_results.json").read_text())
    shutil.rmtree("run/checkpoint-6")
    resume = ["--resume_from_checkpoint", "true"]
    ner.main([*argv, *resume])
    again = json.loads(Path("run/all_results.json").read_text())
    assert again["epochs"] == whole["epochs"] == 3
    same = [name for name in whole if not name.endswith(("seconds", "second", "seconds_per_epoch", "runtime"))]
    assert {name: again[name] for name in same} == {name: whole[name] for name in same}
    for change, message in (
        (["--seed", "43"], "seed was 42, is 43"),
        (["--train_file", "other.txt"], "training data was"),
        (["--head_learning_rate", "0.1"], "head_learning_rate was None, is 0.1"),
        (["--min_frequency", "2"], "min_frequency was 1, is 2"),
    ):
        with pytest.raises(ValueError, match=f"other settings .*{message}"):
            ner.main([*argv, *resume, *change])
