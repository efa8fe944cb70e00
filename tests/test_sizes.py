"""Tests of the comparison of a configuration with the weights beside it, before a model is built."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from classifiers import new_classifier
from clean_process import run_without_package
from conftest import new_tagger
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertModel,
)

from bilstm_crf_hf import (
    BiLSTMForPreTraining,
    CharacterEncoderForTokenClassification,
    EncoderCRFForTokenClassification,
    EncoderForSequenceClassification,
)

HUGE = 10**12


@pytest.fixture(scope="module")
def folders(tokenizer, tmp_path_factory) -> dict[str, Path]:
    """Return a saved model of each kind."""
    folder = tmp_path_factory.mktemp("models")
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    new_tagger(tokenizer).bilstm.save_pretrained(folder / "body")
    tokenizer.save_pretrained(folder / "body")
    tokenizer.name_or_path = str(folder / "body")
    lstm = {"num_lstm_layers": 1, "lstm_hidden_size": 8}
    bert = str(folder / "bert")
    models = {
        "tagger": new_tagger(tokenizer),
        "classifier": new_classifier(tokenizer),
        "crf": EncoderCRFForTokenClassification.from_encoder(bert, tokenizer, num_labels=3, **lstm),
        "mlp": EncoderForSequenceClassification.from_encoder(bert, tokenizer, num_labels=3, classifier_hidden_size=8),
        "characters": CharacterEncoderForTokenClassification.from_encoder(
            bert, tokenizer, num_labels=3, lstm_hidden_size=8
        ),
    }
    tokenizer.name_or_path = ""
    for name, model in models.items():
        model.save_pretrained(folder / name)
    new_tagger(tokenizer).save_pretrained(folder / "sharded", max_shard_size="10KB")
    return {path.name: path for path in folder.iterdir()}


def changed(source: Path, target: Path, field: str, value) -> Path:
    """Copy a saved model with another value of a field of its configuration."""
    shutil.copytree(source, target)
    config = fields = json.loads((target / "config.json").read_text("utf-8"))
    *outer, name = field.split(".")
    for part in outer:
        fields = fields[part]
    fields[name] = value
    if name in ("id2label", "num_labels"):
        config.pop("label2id")
    if name == "num_labels":
        config.pop("id2label")
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return target


def auto_class(name: str):
    return AutoModelForSequenceClassification if name in ("classifier", "mlp") else AutoModelForTokenClassification


MANY_LABELS = {str(i): f"B-{i}" for i in range(3000)}


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        *(("tagger", field, HUGE) for field in ("vocab_size", "embedding_size", "ngram_buckets", "hidden_size")),
        *(("tagger", field, HUGE) for field in ("ngram_embedding_size", "jamo_embedding_size", "num_hidden_layers")),
        *(("tagger", field, 2) for field in ("vocab_size", "embedding_size", "ngram_buckets", "hidden_size")),
        ("tagger", "ngrams", [[0, 0]] * 50),
        ("tagger", "ngrams", [[-(10**6), 0]]),
        ("tagger", "ngrams", [[0, 10**6]]),
        ("tagger", "token_columns", ["character", "word_start"]),
        ("tagger", "id2label", MANY_LABELS),
        ("tagger", "num_labels", 10**9),
        ("tagger", "special_token_ids", list(range(10**5))),
        ("tagger", "special_token_ids", [-1]),
        ("tagger", "special_token_ids", [10**30]),
        ("sharded", "num_hidden_layers", 10**7),
        ("classifier", "vocab_size", HUGE),
        ("classifier", "id2label", MANY_LABELS),
        *(("crf", field, 10**8) for field in ("num_lstm_layers", "lstm_hidden_size")),
        ("crf", "num_lstm_layers", 0),
        *(("tagger", "num_labels", value) for value in ("x", [1], 1.5, None)),
        ("crf", "id2label", MANY_LABELS),
        *(
            ("crf", f"encoder_config.{field}", 10**8)
            for field in (
                "num_hidden_layers",
                "vocab_size",
                "hidden_size",
                "intermediate_size",
                "max_position_embeddings",
                "type_vocab_size",
                "num_attention_heads",
                "num_labels",
            )
        ),
        ("mlp", "classifier_hidden_size", 10**8),
        ("mlp", "encoder_config.num_hidden_layers", 10**7),
        ("characters", "bilstm_config.num_hidden_layers", 10**7),
        ("characters", "bilstm_config.vocab_size", HUGE),
        ("characters", "lstm_hidden_size", 10**8),
        ("characters", "encoder_config.num_hidden_layers", 10**7),
    ],
)
def test_a_size_that_the_weights_do_not_have_is_an_error_that_names_the_field(folders, name, field, value, tmp_path):
    folder = changed(folders[name], tmp_path / "changed", field, value)
    with pytest.raises(Exception, match=field.split(".")[-1]) as caught:
        auto_class(name).from_pretrained(folder)
    assert "ValueError" in f"{caught.type.__name__} {caught.value}"


@pytest.mark.parametrize("field", ["vocab_size", "embedding_size", "ngram_buckets", "hidden_size", "num_hidden_layers"])
@pytest.mark.parametrize("value", [0, -2, "12", 12.5, None])
def test_a_size_that_is_none_is_an_error(folders, field, value, tmp_path):
    with pytest.raises(Exception, match=field):
        AutoModelForTokenClassification.from_pretrained(changed(folders["tagger"], tmp_path / "changed", field, value))


def test_a_head_that_the_weights_lack_is_not_larger_than_they_are(folders, tmp_path):
    folder = changed(folders["body"], tmp_path / "changed", "id2label", MANY_LABELS)
    with pytest.raises(ValueError, match="3000 labels"):
        AutoModelForTokenClassification.from_pretrained(folder)


def test_a_missing_table_is_not_created(folders, tmp_path):
    """The weights have no jamo embeddings, and the configuration asks for many."""
    folder = changed(folders["tagger"], tmp_path / "changed", "jamo_embedding_size", HUGE)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("bilstm.features.jamo_embeddings.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="jamo_embedding_size is .* no tensor features.jamo_embeddings.weight"):
        AutoModelForTokenClassification.from_pretrained(folder)


def test_weights_in_the_format_of_torch_are_compared_too(folders, tmp_path):
    folder = changed(folders["tagger"], tmp_path / "changed", "num_hidden_layers", 10**7)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="num_hidden_layers is 10000000, but the weights have 1"):
        AutoModelForTokenClassification.from_pretrained(folder)


def test_every_saved_model_loads_and_the_caller_may_change_its_sizes(folders):
    for name, folder in folders.items():
        if name not in ("bert", "body"):
            auto_class(name).from_pretrained(folder)
    AutoModelForTokenClassification.from_pretrained(folders["body"])
    model = AutoModelForTokenClassification.from_pretrained(
        folders["tagger"], num_hidden_layers=2, num_labels=3, ignore_mismatched_sizes=True
    )
    assert len(model.bilstm.layers) == 2
    config = AutoConfig.from_pretrained(folders["tagger"], num_labels=5)
    AutoModelForTokenClassification.from_pretrained(folders["tagger"], config=config, ignore_mismatched_sizes=True)
    BiLSTMForPreTraining.from_pretrained(folders["tagger"])


@pytest.mark.slow
def test_exported_code_compares_the_sizes_too(folders, tmp_path):
    changed(folders["tagger"], tmp_path / "model", "num_hidden_layers", 10**7)
    message = run_without_package(
        """
        import json
        from transformers import AutoModelForTokenClassification
        try:
            AutoModelForTokenClassification.from_pretrained("./model", trust_remote_code=True)
        except ValueError as error:
            print(json.dumps(str(error)))
        """,
        tmp_path,
    )
    assert "num_hidden_layers is 10000000, but the weights have 1" in message
