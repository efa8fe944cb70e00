"""The settings of the samples in a clone, which are the base wherever no data of one's own are named."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from bilstm_crf_hf.commands import benchmark, classify, distill, distill_classifier, ner, sample_config
from bilstm_crf_hf.training import classification
from bilstm_crf_hf.training import ner as tagging
from bilstm_crf_hf.training.arguments import ModelArguments, TaggerTrainingArguments, parse_arguments

RECIPES = Path(__file__).parents[2] / "recipes"
TYPES = {
    "sample.yaml": (ModelArguments, tagging.DataArguments, TaggerTrainingArguments),
    "sentiment_sample.yaml": (
        ModelArguments, classification.DataArguments, classification.ClassifierTrainingArguments,
    ),
}  # fmt: skip


def parse(name: str, *argv: str):
    """Return the arguments as the command would, without the licences of cards, which only it reads."""
    lines = (RECIPES / "configs" / name).read_text("utf-8").splitlines(keepends=True)
    sample = Path("sample.yaml")
    sample.write_text("".join(line for line in lines if not line.startswith(("license", "dataset_desc"))), "utf-8")
    return parse_arguments(TYPES[name], argv, sample=sample)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(
    "argv", [("--disable_tqdm", "true"), ("--seed", "43"), ("config.yaml",), ("config.yaml", "--output_dir", "x")]
)
def test_arguments_win_over_the_settings_of_the_sample_and_leave_the_others(name, argv):
    Path("config.yaml").write_text("seed: 43\n")
    bare, given = (parts[1:] for parts in (parse(name), parse(name, *argv)))
    allowed = {"seed", "disable_tqdm", "output_dir"}
    for ours, theirs in zip(bare, given):
        changed = {key for key, value in vars(theirs).items() if value != vars(ours).get(key)}
        assert {key for key in changed if not key.startswith("_")} - {"distributed_state"} <= allowed
    assert given[-1].num_train_epochs == 20
    assert given[-1].seed == 43 or argv[0] == "--disable_tqdm"


def test_settings_of_the_model_are_joined():
    model, *_ = parse("sample.yaml", "--config_overrides", '{"hidden_size": 64, "word_dropout": 0.0}')
    assert model.config_overrides == {
        "ngram_buckets": 65536, "ngram_dropout": 0.5, "word_dropout": 0.0, "hidden_size": 64,
    }  # fmt: skip


@pytest.mark.parametrize(
    "argv",
    [
        ("--train_file", "a.txt"),
        ("--train_file=a.txt", "--validation_file", "b.txt"),
        ("--validation-file", "b.txt"),
        ("--dataset_name", "klue"),
        ("config.yaml",),
    ],
)
def test_with_data_of_ones_own_the_settings_are_the_defaults(argv):
    Path("config.yaml").write_text("dataset_name: klue\n")
    model, _, training = parse("sample.yaml", *argv)
    assert model.config_overrides is None
    assert (training.num_train_epochs, training.output_dir) == (6, "outputs/ner")


def test_an_empty_name_is_not_the_sample():
    with pytest.raises(ValueError, match="train_file is empty: name the data"):
        parse("sample.yaml", "--train_file", "")
    Path("config.yaml").write_text("train_file: ~\n")
    assert parse("sample.yaml", "config.yaml")[2].num_train_epochs == 20


def test_settings_for_a_new_bilstm_do_not_apply_to_another_model():
    model, data, training = parse("sentiment_sample.yaml", "--model_name_or_path", "bert")
    assert (model.config_overrides, model.min_frequency) == (None, 2)
    assert (training.learning_rate, training.embedding_learning_rate) == (None, None)
    assert (data.label_names, training.num_train_epochs) == (["부정", "긍정"], 20)


def test_help_shows_the_defaults_of_the_command(capsys):
    with pytest.raises(SystemExit):
        parse("sample.yaml", "--help")
    printed = " ".join(capsys.readouterr().out.split())
    assert "occurrences of a character in a new tokenizer. (default: 2)" in printed  # the sample has 1


def test_a_student_does_not_overwrite_its_teacher():
    for output in ("outputs/../teacher", str(Path("teacher").resolve())):
        argv = ["--teachers", "other", "teacher", "--variants", "1", "--output_dir", output]
        with pytest.raises(ValueError, match="the folder of teachers"):
            distill.main(argv, RECIPES)


def test_a_training_does_not_overwrite_its_model():
    with pytest.raises(ValueError, match="output_dir is model, the folder of model_name_or_path: name another one"):
        ner.main(["--model_name_or_path", "./model", "--output_dir", "model"], RECIPES)


@pytest.mark.slow
def test_a_command_trains_on_the_sample_with_its_settings_and_says_so(caplog):
    caplog.set_level("INFO")
    few = ["--max_train_samples", "16", "--max_eval_samples", "8", "--max_steps", "1"]
    classify.main(["--disable_tqdm", "true", *few, "--use_cpu", "true", "--output_dir", "out"], RECIPES)
    assert AutoConfig.from_pretrained("out", trust_remote_code=True).id2label == {0: "부정", 1: "긍정"}
    arguments = json.loads(Path("out", "training_run.json").read_text("utf-8"))["arguments"]
    assert arguments["config_overrides"] == parse("sentiment_sample.yaml")[0].config_overrides
    assert str(sample_config("sentiment_sample.yaml", RECIPES)) in caplog.text


def test_every_command_that_trains_on_a_sample_passes_its_settings(monkeypatch):
    samples = {ner: "sample", distill: "sample", classify: "sentiment_sample", distill_classifier: "sentiment_sample"}
    for module, name in samples.items():

        def stop(types, argv, description, sample, name=name):
            assert sample == RECIPES / "configs" / f"{name}.yaml"
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "start_training", stop)
        with pytest.raises(KeyboardInterrupt):
            module.main([], RECIPES)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_benchmark_does_not_mix_the_sample_with_other_data(split):
    Path("own.txt").write_text("<손흥민:PS>은 뛰었다.", encoding="utf-8")
    with pytest.raises(ValueError, match="give train_file and validation_file, or in a clone neither"):
        benchmark.main([f"--{split}_file", "own.txt"], RECIPES)
