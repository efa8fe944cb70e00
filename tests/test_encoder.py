"""Tests of taggers and classifiers on an encoder, against the encoder alone, pytorch-crf and a clean process."""

import json

import pytest
import torch
from clean_process import run_without_package
from conftest import LABELS
from huggingface_hub.errors import StrictDataclassClassValidationError
from torch.testing import assert_close
from torchcrf import CRF
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizer,
    DistilBertConfig,
    DistilBertModel,
    pipeline,
)

from bilstm_crf_hf import EncoderCRFForTokenClassification, EncoderForSequenceClassification
from bilstm_crf_hf.evaluation.tasks import CLASSIFICATION, label_maps
from bilstm_crf_hf.training.arguments import ModelArguments
from bilstm_crf_hf.training.loading import load_model, load_tokenizer

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "손",
    "##흥",
    "##민",
    "##은",
    "춘",
    "##천",
    "##에",
    "##서",
    "서울",
]
TEXTS = ["손흥민은 춘천에서", "서울", "춘천은"]


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    vocabulary = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    vocabulary.write_text("\n".join(PIECES), encoding="utf-8")
    return BertTokenizer(str(vocabulary), do_lower_case=False)


@pytest.fixture(scope="module")
def encoder(wordpiece, tmp_path_factory):
    """Save a small BERT with its tokenizer and return the folder."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(PIECES), initializer_range=0.5, **shape)).save_pretrained(folder)
    wordpiece.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[0, 2], ids=["BERT-CRF", "BERT-BiLSTM-CRF"])
def tagger(request, encoder, wordpiece):
    torch.manual_seed(0)
    options = {"num_lstm_layers": request.param, "lstm_hidden_size": 12} | label_maps(LABELS)
    model = EncoderCRFForTokenClassification.from_encoder(encoder, wordpiece, **options).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(5)
    return model


def test_the_encoder_is_the_pretrained_one(tagger, encoder, wordpiece):
    batch = wordpiece(TEXTS, padding=True, return_tensors="pt")
    expected = AutoModel.from_pretrained(encoder)(**batch).last_hidden_state
    assert_close(tagger.encode(**batch)[0], expected)


def test_loss_and_paths_equal_those_of_pytorch_crf_over_the_subwords_of_each_text(encoder, wordpiece):
    model = EncoderCRFForTokenClassification.from_encoder(encoder, wordpiece, num_labels=3).eval()
    reference = CRF(3, batch_first=True)
    reference.load_state_dict(model.crf.state_dict())
    body = AutoModel.from_pretrained(encoder)
    batch = wordpiece(TEXTS, padding=True, return_tensors="pt")
    labels = torch.randint(3, batch["input_ids"].shape)
    output = model(**batch, labels=labels)
    losses = []
    for row, text in enumerate(TEXTS):
        alone = wordpiece(text, return_tensors="pt")
        emissions = model.classifier(body(**alone).last_hidden_state)[:, 1:-1]
        length = emissions.shape[1]
        losses.append(-reference(emissions, labels[row : row + 1, 1 : length + 1]))
        assert output.predictions[row, 1 : length + 1].tolist() == reference.decode(emissions)[0]
        assert (output.predictions[row, length + 1 :] == -100).all()
    assert_close(output.loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-4)


def test_a_text_does_not_depend_on_its_neighbours(tagger, wordpiece):
    batch = wordpiece(TEXTS, padding=True, return_tensors="pt")
    together = tagger(**batch).logits
    for row, text in enumerate(TEXTS):
        alone = tagger(**wordpiece(text, return_tensors="pt")).logits[0]
        assert_close(together[row, : len(alone)], alone, rtol=1e-4, atol=1e-5)


def test_without_a_mask_padding_is_recognised_by_its_id(tagger, wordpiece):
    batch = wordpiece(TEXTS, padding=True, return_tensors="pt")
    assert_close(tagger(input_ids=batch["input_ids"]).logits, tagger(**batch).logits)


def test_every_weight_gets_a_gradient(tagger, wordpiece):
    """Training in several processes (DDP) waits for all gradients."""
    batch = wordpiece(TEXTS, padding=True, return_tensors="pt")
    tagger.zero_grad()
    tagger(**batch, labels=torch.zeros_like(batch["input_ids"])).loss.backward()
    assert [name for name, parameter in tagger.named_parameters() if parameter.grad is None] == []


@pytest.mark.slow
def test_a_saved_tagger_works_where_the_package_is_not_installed(tagger, wordpiece, tmp_path, monkeypatch):
    monkeypatch.setattr(tagger.config, "temperature", 1.5)
    tagger.save_pretrained(tmp_path / "model")
    wordpiece.save_pretrained(tmp_path / "model")
    here = pipeline("token-classification", model=tagger, tokenizer=wordpiece, pipeline_class=_pipeline_class())
    code = f"""
        import json
        from transformers import pipeline
        tagger = pipeline("token-classification", model="model", trust_remote_code=True)
        assert type(tagger.model).__module__.startswith("transformers_modules")
        print(json.dumps([type(tagger).__name__, tagger({TEXTS!r})]))
    """
    name, entities = run_without_package(code, tmp_path)
    assert name == _pipeline_class().__name__
    assert any(entities)
    for ours, theirs in zip(entities, here(TEXTS), strict=True):
        assert [e | {"score": 0} for e in ours] == [e | {"score": 0} for e in theirs]
        assert [e["score"] for e in ours] == pytest.approx([e["score"] for e in theirs], abs=1e-5)


def _pipeline_class():
    from bilstm_crf_hf import BiLSTMCRFTokenClassificationPipeline

    return BiLSTMCRFTokenClassificationPipeline


def test_a_saved_model_keeps_its_weights_and_not_the_path_of_the_encoder(tagger, encoder, wordpiece, tmp_path):
    tagger.save_pretrained(tmp_path)
    assert str(encoder) not in (tmp_path / "config.json").read_text("utf-8")
    again = AutoModelForTokenClassification.from_pretrained(tmp_path)
    batch = wordpiece(TEXTS, padding=True, return_tensors="pt")
    assert again(**batch).logits.equal(tagger(**batch).logits)


def test_an_encoder_without_token_types_or_pooler_is_supported(wordpiece, tmp_path):
    body = DistilBertModel(DistilBertConfig(vocab_size=len(PIECES), dim=16, n_layers=1, n_heads=2, hidden_dim=32))
    body.save_pretrained(tmp_path)
    model = EncoderCRFForTokenClassification.from_encoder(tmp_path, wordpiece, num_labels=3).eval()
    batch = wordpiece(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=True)
    assert (model(**batch).predictions[:, 1] >= 0).all()
    with pytest.raises(ValueError, match="DistilBertModel has no pooler: choose pooling='mean'"):
        EncoderForSequenceClassification.from_encoder(tmp_path, wordpiece, num_labels=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_lstm_layers": -1}, "num_lstm_layers must not be negative"),
        ({"lstm_hidden_size": 7}, "lstm_hidden_size must be even"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
    ],
    ids=str,
)
def test_an_invalid_configuration_is_an_error(fields, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        EncoderCRFForTokenClassification.config_class(**fields)


# ---------------------------------------------------------------- the classifier


@pytest.mark.parametrize("pooling", ["pooler", "mean"])
def test_the_head_of_the_classifier_is_that_of_the_tutorial(encoder, wordpiece, pooling):
    """Compare with the head written out: dropout, layer normalisation, linear, ReLU, dropout, linear."""
    model = EncoderForSequenceClassification.from_encoder(encoder, wordpiece, pooling=pooling, num_labels=6).eval()
    body = AutoModel.from_pretrained(encoder)
    batch = wordpiece(TEXTS, padding=True, return_tensors="pt")
    labels = torch.tensor([0, 5, 3])
    output = model(**batch, labels=labels)
    _, norm, first, _, _, second = model.classifier
    for row, text in enumerate(TEXTS):
        alone = body(**wordpiece(text, return_tensors="pt"))
        pooled = alone.pooler_output[0] if pooling == "pooler" else alone.last_hidden_state[0].mean(0)
        assert_close(output.logits[row], second(first(norm(pooled)).relu()), rtol=1e-4, atol=1e-5)
    assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, labels))
    assert_close(model(**batch, labels=labels, return_dict=False), (output.loss, output.logits))


def test_a_temperature_divides_the_logits_of_a_classifier_in_evaluation(encoder, wordpiece):
    names = label_maps(["기쁨", "슬픔", "분노"])
    model = EncoderForSequenceClassification.from_encoder(encoder, wordpiece, classifier_dropout=0.0, **names)
    batch, labels = wordpiece(TEXTS, padding=True, return_tensors="pt"), torch.tensor([0, 2, 1])
    plain = model.eval()(**batch).logits
    model.config.temperature = 2.0
    assert_close(model(**batch).logits, plain / 2)
    assert_close(model(**batch, labels=labels).loss, torch.nn.functional.cross_entropy(plain / 2, labels))


@pytest.mark.slow
def test_a_saved_classifier_works_where_the_package_is_not_installed(encoder, wordpiece, tmp_path):
    names = label_maps(["기쁨", "슬픔", "분노"])
    model = EncoderForSequenceClassification.from_encoder(encoder, wordpiece, **names).eval()
    model.save_pretrained(tmp_path / "model")
    wordpiece.save_pretrained(tmp_path / "model")
    code = f"""
        import json
        from transformers import pipeline
        classifier = pipeline("text-classification", model="model", trust_remote_code=True)
        print(json.dumps(classifier({TEXTS!r})))
    """
    found = run_without_package(code, tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    here = pipeline("text-classification", model=again, tokenizer=AutoTokenizer.from_pretrained(encoder))(TEXTS)
    assert [row["label"] for row in found] == [row["label"] for row in here]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in here], abs=1e-5)


# ---------------------------------------------------------------- loading from the arguments of recipes


def test_head_crf_puts_a_crf_on_the_encoder(encoder):
    arguments = ModelArguments(model_name_or_path=str(encoder), head="crf", config_overrides={"num_lstm_layers": 1})
    model = load_model(arguments, load_tokenizer(arguments, []), LABELS)
    assert isinstance(model, EncoderCRFForTokenClassification)
    assert len(model.lstm_layers) == 1
    assert json.loads(model.config.to_json_string())["id2label"]["6"] == "O"


def test_head_mlp_is_for_classification_only(encoder):
    arguments = ModelArguments(model_name_or_path=str(encoder), head="mlp")
    model = load_model(arguments, load_tokenizer(arguments, []), ["기쁨", "슬픔"], CLASSIFICATION)
    assert isinstance(model, EncoderForSequenceClassification)
    with pytest.raises(ValueError, match="head is crf, characters or new, not mlp"):
        load_model(arguments, load_tokenizer(arguments, []), LABELS)


def test_an_unknown_field_of_the_configuration_is_an_error(encoder):
    arguments = ModelArguments(model_name_or_path=str(encoder), head="crf", config_overrides={"hidden_size": 1})
    with pytest.raises(ValueError, match="EncoderCRFConfig has no field hidden_size"):
        load_model(arguments, load_tokenizer(arguments, []), LABELS)


def test_a_head_without_an_encoder_is_an_error():
    with pytest.raises(ValueError, match="head needs an encoder: name it with model_name_or_path"):
        ModelArguments(head="crf")
