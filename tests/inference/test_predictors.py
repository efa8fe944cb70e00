"""How long texts may be for a predictor, by the configuration of its model."""

import json
import unicodedata

import pytest
import torch
from conftest import LABELS
from transformers import (
    AutoConfig,
    BertConfig,
    BertForTokenClassification,
    BloomConfig,
    BloomForTokenClassification,
    XLMRobertaConfig,
    XLMRobertaForTokenClassification,
    pipeline,
)

from bilstm_crf_hf import (
    BiLSTMCRFConfig,
    BiLSTMCRFTokenClassificationPipeline,
    BiLSTMForSequenceClassification,
    EncoderCRFConfig,
    EncoderCRFForTokenClassification,
)
from bilstm_crf_hf.data.tokenization import build_character_tokenizer
from bilstm_crf_hf.inference import predictors
from bilstm_crf_hf.inference.predictors import EntityPredictor, LabelPredictor, load_predictor

POSITIONS = 32
NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}


def bert(vocab_size: int, **options) -> BertConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertConfig(vocab_size=vocab_size, max_position_embeddings=POSITIONS, **sizes, **options)


@pytest.mark.parametrize(
    "kind", ["bilstm", "stock", "stock that counts from padding", "encoder with a CRF", "without positions"]
)
def test_windows_are_as_long_as_the_model_allows(kind, tagger, tokenizer, tmp_path):
    size, own_limit = len(tokenizer), tokenizer.model_max_length
    torch.manual_seed(0)
    model, limit, stride = {
        "bilstm": lambda: (tagger, own_limit, None),
        "stock": lambda: (BertForTokenClassification(bert(size, **NAMES)), POSITIONS, 8),
        "stock that counts from padding": lambda: (
            XLMRobertaForTokenClassification(XLMRobertaConfig(**bert(size, **NAMES).to_dict() | {"pad_token_id": 1})),
            POSITIONS - 2,
            7,
        ),
        "encoder with a CRF": lambda: (
            EncoderCRFForTokenClassification(EncoderCRFConfig(encoder_config=bert(size), **NAMES)),
            POSITIONS,
            8,
        ),
        "without positions": lambda: (
            BloomForTokenClassification(BloomConfig(vocab_size=size, hidden_size=16, n_layer=1, n_head=2, **NAMES)),
            own_limit,
            32,
        ),
    }[kind]()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    predictor = load_predictor(str(tmp_path), 4)
    assert predictor.pipe.tokenizer.model_max_length == limit
    assert predictor.options.get("stride") == stride
    text = "서울에서 " * 100
    entities, empty = (row["entities"] for row in predictor([text, " "]))
    assert entities[-1]["end"] > len(text) - 50
    assert empty == []


def test_a_stock_model_with_weights_that_are_not_finite_is_refused(tokenizer, tmp_path):
    model = BertForTokenClassification(bert(len(tokenizer), **NAMES))
    torch.nn.init.constant_(model.classifier.bias, torch.nan)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"the weight classifier\.bias holds NaN or infinity"):
        load_predictor(str(tmp_path), 4)


def test_half_of_a_surrogate_pair_is_an_error_with_the_index_of_the_text(tagger, tokenizer):
    predictor = EntityPredictor(BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=tokenizer), 4)
    with pytest.raises(ValueError, match=r"text 2: character 0 is '\\udc00'"):
        predictor(["서울", "", "\udc00", "춘천에서"])


@pytest.mark.parametrize("config", [BiLSTMCRFConfig(), EncoderCRFConfig(encoder_config=bert(8))], ids=["bilstm", "crf"])
def test_the_limit_is_no_field_of_a_saved_configuration(config, tmp_path):
    assert "max_position_embeddings" not in config.to_dict()
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert loaded.max_position_embeddings == config.max_position_embeddings
    assert loaded.max_position_embeddings == (POSITIONS if isinstance(config, EncoderCRFConfig) else None)


@pytest.mark.parametrize("text", ["손흥민은 각각 춘천에 갔다", "카페(café)에 산다"])
def test_entities_of_a_stock_model_end_with_whole_characters_of_decomposed_text(text, tokenizer, texts, tmp_path):
    """The tokenizer composes jamo and marks, and its offsets end after the first of them."""
    own = build_character_tokenizer([*texts, text])
    torch.manual_seed(3)
    BertForTokenClassification(bert(len(own), initializer_range=1.0, **NAMES)).save_pretrained(tmp_path)
    own.save_pretrained(tmp_path)
    predictor = load_predictor(str(tmp_path), 4)
    decomposed = unicodedata.normalize("NFD", text)
    expected, found = (row["entities"] for row in predictor([text, decomposed]))
    assert len(expected) > 1
    assert [unicodedata.normalize("NFC", entity["word"]) for entity in found] == [e["word"] for e in expected]
    assert all(entity["word"] == decomposed[entity["start"] : entity["end"]] for entity in found)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 10**7}, r"num_hidden_layers is 10000000, but the weights can hold at most \d+"),
        ({"architectures": 5}, "architectures"),
        ({"auto_map": ["x"]}, r"auto_map is \['x'\], expected a dict"),
        ({"dtype": "evil"}, "the model cannot be loaded"),
        ({"id2label": ["O"]}, "the model cannot be loaded"),
        ({"id2label": {"0": "O", "1": "B-a\nb"}}, r"label 'B-a\\nb' has several lines"),
        ({"id2label": {"0": "O", "1": "B-\ud800"}}, "half of a surrogate pair"),
    ],
)
def test_damaged_or_hostile_configurations_of_other_models_are_value_errors(tmp_path, tokenizer, fields, message):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertForTokenClassification(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_predictor(str(tmp_path), 8)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_threads_run_the_batches_of_stock_pipelines(workers, tokenizer, texts, monkeypatch):
    torch.manual_seed(0)
    classifier = BiLSTMForSequenceClassification.from_tokenizer(
        tokenizer, num_labels=3, embedding_size=8, hidden_size=8
    )
    pipe = pipeline("text-classification", model=classifier.eval(), tokenizer=tokenizer, device="cpu")
    inputs = [text * n for n in (1, 2, 3) for text in ["", " ", *texts]]
    expected = [pipe(text)[0] if text.strip() else LabelPredictor.empty for text in inputs]
    used = []
    run = predictors.ordered_map
    monkeypatch.setattr(predictors, "default_workers", lambda *_: workers)
    monkeypatch.setattr(predictors, "ordered_map", lambda *args: used.append(args[2]) or run(*args))
    found = LabelPredictor(pipe, 4)(inputs)
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    scores = [[row["score"] or 0 for row in rows] for rows in (found, expected)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert used == [min(1, workers), workers]
