"""New entity types on trained taggers, against the taggers as they were."""

import pytest
import torch
from conftest import LABELS, new_reader, new_tagger
from torch.testing import assert_close
from transformers import BertConfig, BertForTokenClassification, pipeline

from bilstm_crf_hf import EncoderCRFForTokenClassification
from bilstm_crf_hf.evaluation.tasks import label_maps
from bilstm_crf_hf.processing_bilstm_crf import BiLSTMCRFProcessor
from bilstm_crf_hf.training.arguments import ModelArguments
from bilstm_crf_hf.training.loading import load_model
from bilstm_crf_hf.training.new_labels import labels_to_add, with_labels

NEW = ["B-OG", "I-OG"]


def bert(tokenizer):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForTokenClassification(BertConfig(vocab_size=len(tokenizer), **shape, **label_maps(LABELS))).eval()


def encoder_crf(tokenizer, folder):
    bert(tokenizer).bert.save_pretrained(folder)
    return EncoderCRFForTokenClassification.from_encoder(folder, tokenizer, **label_maps(LABELS)).eval()


TAGGERS = {
    "bilstm": lambda tokenizer, _: new_tagger(tokenizer, seed=3),
    "unconstrained": lambda tokenizer, _: new_tagger(tokenizer, seed=4, constrained=False),
    "morphemes": lambda tokenizer, _: new_reader(tokenizer),
    "encoder with a CRF": encoder_crf,
    "encoder": lambda tokenizer, _: bert(tokenizer),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "morphemes")) for name in TAGGERS]
)
def test_a_tagger_says_with_new_labels_what_it_said_without(name, tokenizer, texts, tmp_path):
    """Its best paths are the same; other probabilities change by what the new labels get."""
    tagger = TAGGERS[name](tokenizer, tmp_path / "encoder")
    tagger.save_pretrained(tmp_path / "old")
    arguments = ModelArguments(model_name_or_path=str(tmp_path / "old"))
    grown = load_model(arguments, tokenizer, ["B-DT", "I-DT", *NEW, "O"]).eval()
    assert [grown.config.id2label[i] for i in range(9)] == LABELS + NEW
    processor = BiLSTMCRFProcessor(tokenizer, tagger.config)
    for text in texts:
        inputs = {key: torch.tensor(rows) for key, rows in processor([text]).inputs.items()}
        with torch.no_grad():
            before, after = tagger(**inputs), grown(**inputs)
        inside = after.logits[0].softmax(-1)[1:-1]
        if "predictions" in before:
            assert after.predictions.equal(before.predictions)
        else:
            assert inside.argmax(-1).equal(before.logits[0, 1:-1].argmax(-1))
        assert_close(inside[:, :7], before.logits[0].softmax(-1)[1:-1], atol=0.1, rtol=0)


def test_rows_of_known_labels_are_kept_and_transitions_of_new_ones_are_those_of_o(tokenizer):
    tagger = new_tagger(tokenizer)
    grown = with_labels(tagger, NEW)
    before, after = tagger.state_dict(), grown.state_dict()
    for name in before:
        assert after[name][tuple(slice(size) for size in before[name].shape)].equal(before[name])
    outside = LABELS.index("O")
    assert after["classifier.bias"][7:].tolist() == [-3, -3]
    assert after["crf.transitions"][7, :7].equal(before["crf.transitions"][outside])
    assert after["crf.transitions"][:7, 8].equal(before["crf.transitions"][:, outside])
    assert after["crf.end_transitions"][8] == before["crf.end_transitions"][outside]


def test_the_log_names_the_types_that_are_kept_and_those_that_are_new(tagger, tokenizer, tmp_path, caplog):
    tagger.save_pretrained(tmp_path)
    with caplog.at_level("INFO", "bilstm_crf_hf"):
        load_model(ModelArguments(model_name_or_path=str(tmp_path)), tokenizer, ["B-OG", "I-OG", "B-QT", "I-QT", "O"])
    assert f"{tmp_path} keeps the entity types DT, LC, PS and gets the new ones OG, QT" in caplog.messages


def test_new_labels_follow_the_scheme_of_the_model():
    bioes = ["O", "B-PS", "I-PS", "E-PS", "S-PS"]
    assert labels_to_add(bioes, ["B-OG", "I-OG", "B-PS", "I-PS", "O"]) == ["B-OG", "I-OG", "E-OG", "S-OG"]
    assert labels_to_add(LABELS, ["O", "I-OG", "B-OG"]) == NEW


def test_types_that_differ_in_case_are_an_error(tagger, tokenizer, tmp_path):
    tagger.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the data have the entity type Ps, the model has PS: rename it in the data"):
        load_model(ModelArguments(model_name_or_path=str(tmp_path)), tokenizer, ["B-Ps", "I-Ps", "O"])


def test_a_saved_tagger_with_new_labels_serves_the_pipeline(tagger, tokenizer, texts, tmp_path):
    for name, model in (("old", tagger), ("grown", with_labels(tagger, NEW))):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    old, grown = (
        pipeline("token-classification", str(tmp_path / name), trust_remote_code=True)(texts)
        for name in ("old", "grown")
    )
    assert [[(e["entity_group"], e["start"], e["end"]) for e in row] for row in grown] == [
        [(e["entity_group"], e["start"], e["end"]) for e in row] for row in old
    ]
