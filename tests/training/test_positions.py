"""Preparation of the training of models whose encoder has fewer positions than texts have tokens."""

import copy

import pytest
import torch
from conftest import SENTENCES
from transformers import BertConfig, BertModel, XLMRobertaConfig, XLMRobertaModel

from bilstm_crf_hf.data.collation import TaggingCollator
from bilstm_crf_hf.training import classification, ner
from bilstm_crf_hf.training.arguments import ModelArguments


@pytest.fixture(params=[(BertConfig, BertModel, 24), (XLMRobertaConfig, XLMRobertaModel, 26)], ids=["BERT", "XLM-R"])
def encoder(request, tokenizer, tmp_path) -> str:
    """An encoder that reads 24 tokens, with a tokenizer that knows no limit; XLM-R counts positions from 2."""
    config_class, model_class, positions = request.param
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = config_class(vocab_size=len(tokenizer), max_position_embeddings=positions, **sizes)
    model_class(config).save_pretrained(tmp_path / "encoder")
    unlimited = copy.deepcopy(tokenizer)
    unlimited.model_max_length = int(1e30)
    unlimited.pad_token = unlimited.convert_ids_to_tokens(config.pad_token_id)
    unlimited.save_pretrained(tmp_path / "encoder")
    return str(tmp_path / "encoder")


@pytest.mark.parametrize("max_seq_length", [None, 12, 512])
def test_a_tagger_is_trained_on_windows_that_the_encoder_reads(encoder, tmp_path, max_seq_length):
    (tmp_path / "data.txt").write_text("\n".join([*SENTENCES, " ".join(SENTENCES)]), encoding="utf-8")
    files = {"train_file": str(tmp_path / "data.txt"), "validation_file": str(tmp_path / "data.txt")}
    data = ner.DataArguments(**files, max_seq_length=max_seq_length)
    model, corpora = ner.prepare_tagging(ModelArguments(model_name_or_path=encoder, head="crf"), data, {})
    corpus = corpora["train"]
    assert corpus.limit == min(max_seq_length or 24, 24)
    assert corpus.processor.tokenizer.model_max_length == 24
    assert corpus.split_sentences
    assert corpus.decode(corpus.inputs["labels"][:]) == corpus.spans
    collate = TaggingCollator(corpus.processor.tokenizer, padding="max_length", max_length=corpus.limit)
    assert model(**collate(list(corpus.inputs))).loss.isfinite()


@pytest.mark.parametrize("max_seq_length", [None, 12, 512])
def test_a_classifier_is_trained_on_the_beginning_that_the_encoder_reads(encoder, tmp_path, max_seq_length):
    (tmp_path / "data.tsv").write_text("text\tlabel\n" + "서울에서 " * 20 + "\t1\n부산\t0\n", encoding="utf-8")
    files = {"train_file": str(tmp_path / "data.tsv"), "validation_file": str(tmp_path / "data.tsv")}
    data = classification.DataArguments(**files, max_seq_length=max_seq_length)
    setup = classification.prepare_classification(ModelArguments(model_name_or_path=encoder), data, {})
    longest = max(setup.inputs["train"]["input_ids"], key=len)
    assert len(longest) == min(max_seq_length or 24, 24)
    assert setup.tokenizer.model_max_length == 24
    assert setup.model(torch.tensor([longest])).logits.isfinite().all()


@pytest.mark.parametrize("max_seq_length", [0, 2, -1])
def test_a_limit_without_room_for_a_token_is_an_error(encoder, tmp_path, max_seq_length):
    (tmp_path / "data.txt").write_text("\n".join([*SENTENCES, " ".join(SENTENCES)]), encoding="utf-8")
    files = {"train_file": str(tmp_path / "data.txt"), "validation_file": str(tmp_path / "data.txt")}
    data = ner.DataArguments(**files, max_seq_length=max_seq_length)
    with pytest.raises(ValueError, match=f"a limit of {max_seq_length} tokens leaves no room .* --max_seq_length"):
        ner.prepare_tagging(ModelArguments(model_name_or_path=encoder, head="crf"), data, {})
