"""Preparation of a training, and taggers that learn new entity types."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import LABELS, SENTENCES

from bilstm_crf_hf import BiLSTMCRFForTokenClassification
from bilstm_crf_hf.commands import ner
from bilstm_crf_hf.training.arguments import ModelArguments, TaggerArguments
from bilstm_crf_hf.training.loading import load_model
from bilstm_crf_hf.training.ner import DataArguments, prepare_tagging


def test_a_sample_of_training_sentences_without_any_entity_is_an_error(write):
    train = write("train.txt", "<김구:PS>는\n" + "비가 온다.\n" * 50)
    model_arguments = ModelArguments(config_overrides={"hidden_size": 8, "embedding_size": 8, "ngrams": []})
    files = {"train_file": str(train), "validation_file": str(train)}
    with pytest.raises(ValueError, match="the 2 training sentences have no entity: raise max_train_samples"):
        prepare_tagging(model_arguments, DataArguments(**files, max_train_samples=2), {})
    _, corpora = prepare_tagging(model_arguments, DataArguments(**files), {})
    assert sum(map(len, corpora["train"].spans)) == 1


def test_the_log_shows_misspelt_types_and_sentences_that_two_splits_share(write, caplog):
    train = write("train.txt", "<김구:PS>는\n<서울:LC>에\n<부산:LCC>에\n")
    validation = write("validation.txt", "<부산:LCC>에\n<춘천:LC>에\n")
    model_arguments = ModelArguments(config_overrides={"hidden_size": 8, "embedding_size": 8, "ngrams": []})
    with caplog.at_level("INFO", "bilstm_crf_hf"):
        prepare_tagging(model_arguments, DataArguments(train_file=str(train), validation_file=str(validation)), {})
    assert "train: entities LC 1, LCC 1, PS 1" in caplog.messages
    assert "validation: 1 of its sentences are in train, too" in caplog.messages


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a tagger of DT, LC and PS, and sentences whose only entities are of OG; `all.txt` has all types."""
    folder = tmp_path_factory.mktemp("trained")
    everything = [sentence.replace("손흥민:PS", "손흥민:OG").replace("부산:LC", "부산:OG") for sentence in SENTENCES]
    for name, types in {"old": "DT|LC|PS", "new": "OG", "all": "DT|LC|PS|OG"}.items():
        rows = [re.sub(rf"<([^<>]*):(?!{types})\w+>", r"\1", sentence) for sentence in everything]
        (folder / f"{name}.txt").write_text("\n".join(rows), encoding="utf-8")
    shape = {"embedding_size": 16, "hidden_size": 32, "ngrams": [], "locked_dropout": 0.0, "word_dropout": 0.0}
    options = ["--config_overrides", json.dumps(shape), "--num_train_epochs", "30", "--min_frequency", "1"]
    train(folder, "old", "old", "tagger", *options)
    return folder


def train(folder, rows, validation, output, *options) -> dict:
    """Train a tagger with files in a folder, with a checkpoint each 40 steps; return the results."""
    files = ("--train_file", str(folder / f"{rows}.txt"), "--validation_file", str(folder / f"{validation}.txt"))
    how = ["--per_device_train_batch_size", "2", "--learning_rate", "0.02", "--use_cpu", "true"]
    how += ["--eval_strategy", "no", "--load_best_model_at_end", "false", "--save_strategy", "steps"]
    how += ["--save_steps", "40", "--save_total_limit", "9", "--output_dir", str(folder / output)]
    ner.main([*files, *how, *options])
    return json.loads((folder / output / "all_results.json").read_text("utf-8"))


@pytest.mark.slow
def test_a_tagger_learns_a_type_and_forgets_the_others_unless_it_holds_on_to_them(trained, caplog):
    options = ["--model_name_or_path", str(trained / "tagger"), "--entity_types", "DT", "LC", "OG", "PS"]
    options += ["--num_train_epochs", "20"]
    forgets = train(trained, "new", "all", "forgets", *options)
    assert "train: no entity of DT, LC, PS: the model forgets what it knows of them" in caplog.text
    holds = train(trained, "new", "all", "holds", *options, "--distill_from_self", "1.0")
    assert min(forgets["eval_OG_f1"], holds["eval_OG_f1"]) > 0.8
    for name in ("DT", "LC", "PS"):
        assert forgets.get(f"eval_{name}_f1") == 0
        assert holds[f"eval_{name}_f1"] > 0.8
    # It can be resumed, but not with other posteriors.
    shutil.rmtree(trained / "holds" / "checkpoint-80")
    resume = [*options, "--distill_from_self", "1.0", "--resume_from_checkpoint", "true"]
    again = train(trained, "new", "all", "holds", *resume)
    same = [name for name in holds if "second" not in name and not name.endswith("runtime")]
    assert {name: again[name] for name in same} == {name: holds[name] for name in same}
    with pytest.raises(ValueError, match=r"distill_from_self was 1.0, is 0.5; training data was"):
        train(trained, "new", "all", "holds", *resume, "--distill_from_self", "0.5")


@pytest.mark.slow
def test_validation_data_without_the_old_types_are_named(trained, caplog):
    options = ["--model_name_or_path", str(trained / "tagger"), "--max_steps", "1", "--distill_from_self", "1.0"]
    train(trained, "new", "new", "few", *options)
    assert "validation: no entity of DT, LC, PS: those that the model finds count as errors" in caplog.text


@pytest.mark.slow
def test_a_model_without_types_of_its_own_cannot_hold_on(trained, tmp_path):
    BiLSTMCRFForTokenClassification.from_pretrained(trained / "tagger").bilstm.save_pretrained(tmp_path)
    arguments = TaggerArguments(model_name_or_path=str(tmp_path), distill_from_self=1.0)
    with pytest.raises(ValueError, match="has no entity types to hold on to: leave out distill_from_self"):
        load_model(arguments, None, LABELS)
