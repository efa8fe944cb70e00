"""The arguments of the commands: from files and command lines, and those that are refused before any training."""

import math

import pytest
from conftest import LABELS

from bilstm_crf_hf.commands import train_embeddings
from bilstm_crf_hf.data.splits import SourceArguments
from bilstm_crf_hf.evaluation.tasks import TASKS
from bilstm_crf_hf.training import classification
from bilstm_crf_hf.training.arguments import ModelArguments, TaggerArguments, TaggerTrainingArguments, parse_arguments
from bilstm_crf_hf.training.checks import REFUSED
from bilstm_crf_hf.training.loading import load_model
from bilstm_crf_hf.training.pretraining import PretrainingArguments
from bilstm_crf_hf.training.teachers import TeacherArguments

ALL = (ModelArguments, classification.DataArguments, classification.ClassifierTrainingArguments)


def parse(tmp_path, content: str, *argv: str, types=ALL):
    path = tmp_path / "config.yaml"
    path.write_text(content, encoding="utf-8")
    return parse_arguments(types, [str(path), *argv])


def test_help_shows_the_description_and_the_heads_of_the_registry(capsys):
    with pytest.raises(SystemExit):
        parse_arguments((ModelArguments,), ["--help"], "Train a tagger.\n\nOne paragraph more.")
    printed = capsys.readouterr().out
    assert "[config.yaml] [--argument value ...]\n\nTrain a tagger.\n\nOne paragraph more.\n\noptions:" in printed
    for task in TASKS.values():
        for name, head in task.heads.items():
            assert f"{name}, {head.description}" in " ".join(printed.split())


def test_help_describes_the_arguments_of_transformers_with_the_defaults_of_this_package(capsys):
    with pytest.raises(SystemExit):
        parse_arguments((TaggerTrainingArguments,), ["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Total number of training epochs to perform. (default: 6)" in printed
    assert "(default: outputs/ner)" in printed


def test_soft_labels_on_the_command_line_win_over_teachers_in_the_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("teachers: [a, b]\nunlabeled_file: raw.txt\nvariants: 2\n", encoding="utf-8")
    assert parse_arguments([TeacherArguments], [str(path)])[0].teachers == ["a", "b"]
    (arguments,) = parse_arguments([TeacherArguments], [str(path), "--soft_labels_file", "soft.parquet"])
    assert arguments.soft_labels_file == ["soft.parquet"]
    assert (arguments.teachers, arguments.unlabeled_file, arguments.variants) == (None, None, 0)
    with pytest.raises(ValueError, match="leave these out"):
        parse_arguments([TeacherArguments], [str(path), "--soft_labels_file=soft.parquet", "--variants", "1"])


def test_command_line_wins_over_the_file(tmp_path):
    content = "learning_rate: 1e-3\nseed: 7\nconfig_overrides: {hidden_size: 64}\nlogging_strategy: 'no'\nbf16: false"
    model, training = parse(tmp_path, content, "--seed", "8", types=(ModelArguments, TaggerTrainingArguments))
    assert (training.learning_rate, training.seed, training.bf16) == (1e-3, 8, False)
    assert model.config_overrides == {"hidden_size": 64}


def test_config_overrides_of_file_and_command_line_are_joined_field_by_field(tmp_path):
    content = "config_overrides: {hidden_size: 64, ngrams: [[-1, 0]]}"
    model, *_ = parse(tmp_path, content, "--config_overrides", '{"hidden_size": 32, "locked_dropout": 0}')
    assert model.config_overrides == {"hidden_size": 32, "ngrams": [[-1, 0]], "locked_dropout": 0}


# ---------------------------------------------------------------- scalars of YAML


@pytest.mark.parametrize("scalar", ["no", "yes", "on", "off", "true", "010", "1:30", "2020-01-01", "1_000", "1e3", "~"])
def test_a_string_of_yaml_stays_as_it_stands(tmp_path, scalar):
    """What YAML 1.1 makes of them are booleans, 8, 90, a date, 1000 and nothing."""
    _, data, _ = parse(tmp_path, f"label_names: [{scalar}, '{scalar}']\nexamples:\n- {scalar}")
    assert data.label_names == [scalar, scalar]
    assert data.examples == [scalar]


def test_an_argument_decides_the_type_of_its_value(tmp_path):
    content = "save_strategy: no\neval_strategy: no\nlearning_rate: 1e-3\nnum_train_epochs: 3\nbf16: off\nuse_cpu: Yes"
    *_, training = parse(tmp_path, content)
    assert (training.save_strategy, training.eval_strategy) == ("no", "no")
    assert (training.learning_rate, training.num_train_epochs) == (1e-3, 3.0)
    assert (training.bf16, training.use_cpu) == (False, True)


def test_a_file_gives_what_the_same_command_line_gives(tmp_path):
    values = {"seed": "7", "learning_rate": "2e-3", "weight_decay": "0", "optim": "sgd", "use_cpu": "true"}
    values |= {"lr_scheduler_type": "cosine", "warmup_steps": "0.1", "max_steps": "-1", "head": "crf"}
    values |= {"model_name_or_path": "no", "class_weights": "balanced", "max_seq_length": "64"}
    argv = [part for name, value in values.items() for part in (f"--{name}", value)]
    from_file = parse(tmp_path, "".join(f"{name}: {value}\n" for name, value in values.items()))
    for ours, theirs in zip(from_file, parse_arguments(ALL, argv), strict=True):
        assert str(ours) == str(theirs)


def test_values_in_a_mapping_have_the_types_of_json(tmp_path):
    content = """config_overrides:
  ngrams: [[-1, 0], [0, 1]]
  locked_dropout: 1e-1
  constrained: False
  pad_token_id: null
  kiwi_version: "0.20"
  name: no
  day: 2020-01-01
"""
    model, *_ = parse(tmp_path, content)
    assert model.config_overrides == {
        "ngrams": [[-1, 0], [0, 1]], "locked_dropout": 0.1, "constrained": False, "pad_token_id": None,
        "kiwi_version": "0.20", "name": "no", "day": "2020-01-01",
    }  # fmt: skip


def test_a_file_in_json_is_one_in_yaml(tmp_path):
    content = (
        '{"label_names": ["no", 1, "1e3"], "seed": 7, "bf16": false, "config_overrides": {"jamo_embedding_size": 0}}'
    )
    model, data, training = parse(tmp_path, content)
    assert (data.label_names, training.seed, training.bf16) == (["no", "1", "1e3"], 7, False)
    assert model.config_overrides == {"jamo_embedding_size": 0}


@pytest.mark.parametrize("value", ["", "~", "null"])
def test_no_value_is_none_where_the_argument_can_be_none(tmp_path, value):
    model, _, training = parse(tmp_path, f"save_total_limit: {value}\nhead: {value}")
    assert training.save_total_limit is None  # its default is 1
    assert model.head is None
    with pytest.raises(ValueError, match="config.yaml:1: seed: expected a value"):
        parse(tmp_path, f"seed: {value}")


def test_lists(tmp_path):
    _, data, training = parse(tmp_path, "label_names: []\nexamples: 좋다\nreport_to: [none]")
    assert (data.label_names, data.examples, training.report_to) == ([], ["좋다"], [])
    (arguments,) = parse(tmp_path, "input_file: a.txt", types=(train_embeddings.EmbeddingArguments,))
    assert arguments.input_file == ["a.txt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("learning_rat: 1", "config.yaml:1: there is no argument 'learning_rat'"),
        ("- a\n- b", "config.yaml:1: expected lines"),
        ("seed: 1\n\nseed: 2", "config.yaml:3: seed is given twice"),
        ("config_overrides: {a: 1, a: 2}", "config.yaml:1: a is given twice"),
        ("bf16: true\nseed: 4.5", "config.yaml:2: seed: invalid int value: '4.5'"),
        ("seed: true", "config.yaml:1: seed: invalid int value: 'true'"),
        ("seed: [1, 2]", "config.yaml:1: seed: expected one value"),
        ("seed: {a: 1}", "config.yaml:1: seed: expected one value"),
        ("label_names: [[a], b]", "config.yaml:1: expected a single value in each item"),
        ("label_names: {a: b}", "config.yaml:1: label_names: expected single values"),
        ("bf16: maybe", "config.yaml:1: bf16: Truthy value expected"),
        ("class_weights: some", "config.yaml:1: class_weights: invalid choice: 'some'"),
        ("config_overrides: [1]", "config_overrides"),
        ("config_overrides: 12", "config_overrides: expected fields"),
        ("seed: [", "config.yaml: the file is not YAML"),
        ("a: b: c", "config.yaml: the file is not YAML"),
        ("? [a]\n: b", "config.yaml:1: expected a name before the colon"),
        ("seed: .nan", "config.yaml:1: seed: invalid int value: '.nan'"),
        ("config_overrides: &a {b: *a}", "config.yaml: .* an alias stands for a single value only"),
        ("[" * 2000, "config.yaml: the file is not YAML"),
        ("learning_rate: nan", "learning_rate is nan: it must be 0 or more"),
        ("weight_decay: inf", "weight_decay is inf"),
    ],
)
def test_wrong_configuration_files(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        parse(tmp_path, content)


def test_a_file_in_another_encoding_is_named(tmp_path):
    (tmp_path / "config.yaml").write_bytes("label_names: [부정]".encode("cp949"))
    with pytest.raises(ValueError, match="config.yaml: the file is not YAML in UTF-8"):
        parse_arguments(ALL, [str(tmp_path / "config.yaml")])
    (tmp_path / "config.yaml").write_bytes("\ufeffseed: 7".encode())
    assert parse_arguments(ALL, [str(tmp_path / "config.yaml")])[2].seed == 7


def test_missing_configuration_file():
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        parse_arguments((ModelArguments,), ["nowhere.yaml"])


# ---------------------------------------------------------------- command lines


@pytest.mark.parametrize("argv", [("--learn", "1e-3"), ("--output", "x"), ("--seeed", "1"), ("other.yaml",)])
def test_what_is_no_argument_is_refused_abbreviations_included(tmp_path, argv):
    with pytest.raises(ValueError, match=f"there is no argument {argv[0]}"):
        parse(tmp_path, "seed: 1", "--bf16", "false", *argv)


def test_of_an_argument_that_is_given_twice_the_last_counts_with_a_warning(tmp_path, caplog):
    *_, training = parse(tmp_path, "seed: 1", "--seed", "2", "--seed=3")
    assert training.seed == 3
    assert "--seed is given more than once" in caplog.text


def test_a_file_beside_the_program_is_not_read(tmp_path, monkeypatch):
    """`HfArgumentParser` reads the arguments in `ner.args` beside `ner.py` by itself."""
    (tmp_path / "ner.args").write_text("--seed 99")
    monkeypatch.setattr("sys.argv", [str(tmp_path / "ner.py")])
    assert parse_arguments(ALL, [])[2].seed == 42


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("hidden_size=3", "config_overrides is not JSON"),
        ("[]", "config_overrides: expected fields"),
        ("3", "config_overrides: expected fields"),
        ('{"a": 1, "a": 2}', "config_overrides has a field twice"),
        ('{"a": NaN}', "config_overrides has a number that is not finite"),
        ('{"a": [1e999]}', "config_overrides has a number that is not finite"),
    ],
)
def test_config_overrides_are_a_mapping(overrides, message):
    with pytest.raises(ValueError, match=message):
        ModelArguments(config_overrides=overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"hidden": 3}, "no field hidden"),
        ({"hidden_size": "a"}, "config_overrides: .*hidden_size.* expected int, got str"),
        ({"hidden_size": -2}, "config_overrides: .*hidden_size must be even and positive"),
        ({"id2label": {"0": "x"}}, "config_overrides: id2label cannot be set there: the labels are those of the data"),
        ({"problem_type": "regression"}, "config_overrides: problem_type cannot be set there: each text has one label"),
        ({"dtype": "float16"}, "config_overrides: dtype cannot be set there"),
        ({"vocab_size": 5}, "config_overrides: vocab_size cannot be set there: it follows from the tokenizer"),
    ],
)
def test_config_overrides_are_fields_with_their_types(tokenizer, overrides, message):
    with pytest.raises(ValueError, match=message):
        load_model(ModelArguments(config_overrides=overrides), tokenizer, LABELS)


# ---------------------------------------------------------------- values that training cannot honour


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", -1, "seed is -1: it must be 0 to 4294967295"),
        ("num_train_epochs", -1, "num_train_epochs is -1: it must be 0 or more"),
        ("per_device_eval_batch_size", 0, "it must be 1 or more"),
        ("gradient_accumulation_steps", 0, "it must be 1 or more"),
        ("max_grad_norm", -1.0, "it must be 0 or more"),
        ("learning_rate", math.nan, "learning_rate is nan"),
        ("warmup_steps", math.inf, "warmup_steps is inf: it must be finite"),
        ("label_smoothing_factor", 2.0, "it must be 0 to 1"),
        ("max_steps", 0, "max_steps is 0, but 0 means no limit"),
        ("batch_eval_metrics", True, "batch_eval_metrics is True, but scores need the predictions of all batches"),
        ("logging_nan_inf_filter", True, "logging_nan_inf_filter is True, but training stops"),
        ("do_train", False, "do_train is False, but this is a training"),
        ("label_names", ["x"], "the models read the column `labels`"),
        ("optim_args", "beta1=0.5", "AdamW takes none"),
        ("save_total_limit", 0, "save_total_limit is 0: it must be 1 or more"),
        ("report_to", "tensorboard", r"report_to is \['tensorboard'\], but not all of these are installed"),
        ("include_for_metrics", ["nonsense"], "it can have inputs and loss"),
        ("length_column_name", "size", "rows are grouped by the lengths of their input_ids"),
        ("optim_target_modules", "all-linear", "only the optimizers galore"),
        ("train_sampling_strategy", "nonsense", "it must be random or sequential"),
        ("debug", "underflow_overflow", "leave it out"),
        ("fp16", True, "the CPU would compute in float32"),
        ("output_dir", "", "output_dir is ''"),
        ("output_dir", __file__, "it must be a folder"),
    ],
)
def test_values_that_training_cannot_honour(tmp_path, name, value, message):
    with pytest.raises(ValueError, match=message):
        TaggerTrainingArguments(**({"output_dir": str(tmp_path), "use_cpu": True} | {name: value}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr_scheduler_type": "cosine", "learning_rate_decay": 0.5}, "it takes the place of lr_scheduler_type"),
        ({"warmup_steps": 3, "learning_rate_decay": 0.5}, "it takes the place of lr_scheduler_type"),
        ({"lr_scheduler_kwargs": {"a": 1}, "learning_rate_decay": 0.5}, "it takes the place of lr_scheduler_type"),
        ({"optim": "rmsprop", "optim_args": "alpha=0.9,beta=1"}, "rmsprop reads alpha, centered, eps, momentum"),
        ({"save_strategy": "steps", "save_steps": 0, "load_best_model_at_end": False}, "no checkpoint would be saved"),
    ],
)
def test_values_that_do_not_go_together(tmp_path, values, message):
    with pytest.raises(ValueError, match=message):
        TaggerTrainingArguments(str(tmp_path), use_cpu=True, **values)


@pytest.mark.parametrize("option", ["do_predict", "push_to_hub"])
def test_pretraining_refuses_what_it_does_not_do(option):
    with pytest.raises(ValueError, match=f"{option} is True, but pretraining has no test data"):
        PretrainingArguments(use_cpu=True, **{option: True})


def test_a_command_line_replaces_the_source_of_the_data_in_a_file(tmp_path):
    hub = "dataset_name: klue\ndataset_config_name: ner\n"
    for content, options, expected in (
        (hub, ["--train_file", "a.txt"], (None, None, "a.txt")),
        ("train_file: a.txt", ["--dataset_name", "klue"], ("klue", None, None)),
        ("train_file: a.txt", ["--validation_file", "b.txt"], (None, None, "a.txt")),
    ):
        (tmp_path / "config.yaml").write_text(content)
        (data,) = parse_arguments((SourceArguments,), [str(tmp_path / "config.yaml"), *options])
        assert (data.dataset_name, data.dataset_config_name, data.train_file) == expected


def test_refused_arguments_are_arguments_of_trainer():
    assert set(REFUSED) <= set(TaggerTrainingArguments.__dataclass_fields__)


@pytest.mark.parametrize(
    ("option", "value"),
    [("max_train_samples", "0"), ("max_eval_samples", "-1"), ("max_seq_length", "0"), ("min_frequency", "0")],
)
def test_sizes_below_one_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option} is {value}: it must be 1 or more"):
        parse_arguments((ModelArguments, SourceArguments), [f"--{option}", value])


def test_the_prefix_of_a_metric_may_be_there():
    assert TaggerTrainingArguments(metric_for_best_model="eval_f1", use_cpu=True).metric_for_best_model == "f1"
    loss = TaggerTrainingArguments(metric_for_best_model="eval_loss", use_cpu=True)
    assert (loss.metric_for_best_model, loss.greater_is_better) == ("loss", False)


@pytest.mark.parametrize("fields", [{}, {"head": "new", "model_name_or_path": "model"}])
def test_holding_on_needs_a_trained_tagger(fields):
    with pytest.raises(ValueError, match="distill_from_self is for a trained tagger with its own head: name it"):
        TaggerArguments(distill_from_self=1.0, **fields)
