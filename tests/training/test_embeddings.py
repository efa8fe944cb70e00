"""Pretrained vectors in a model, compared with those of gensim and the embeddings of an encoder."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LABELS
from gensim.models import KeyedVectors
from torch import nn
from torch.testing import assert_close
from transformers import BertConfig, BertModel

from bilstm_crf_hf.data.vectors import Vectors, file_vectors
from bilstm_crf_hf.training.arguments import ModelArguments
from bilstm_crf_hf.training.embeddings import copy_vectors, encoder_vectors
from bilstm_crf_hf.training.loading import load_model, load_tokenizer

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def vectors() -> KeyedVectors:
    keyed = KeyedVectors(4)
    keyed.add_vectors(["서", "##울", "울", "에"], np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32))
    return keyed


def test_tokens_find_their_own_vector_or_that_of_their_piece(vectors, tokenizer):
    embeddings = nn.Embedding(len(tokenizer), 4)
    before = embeddings.weight.detach().clone()
    read = Vectors(4, lambda word: torch.from_numpy(vectors[word]) if word in vectors else None)
    assert copy_vectors(embeddings, tokenizer, read) == 6
    vocabulary = tokenizer.get_vocab()
    sources = {"서": "서", "##서": "서", "울": "울", "##울": "##울", "에": "에", "##에": "에"}
    scale = np.sqrt(np.mean([np.square(vectors[word]) for word in sources.values()]))
    for token, word in sources.items():
        assert_close(embeddings.weight[vocabulary[token]].detach(), torch.from_numpy(vectors[word]) / float(scale))
    others = [i for token, i in vocabulary.items() if token not in sources]
    assert embeddings.weight[others].equal(before[others])


def test_vectors_of_another_width_are_refused(tokenizer):
    with pytest.raises(ValueError, match="the vectors have 4 elements, the embeddings 8"):
        copy_vectors(nn.Embedding(len(tokenizer), 8), tokenizer, Vectors(4, lambda word: None))


@pytest.fixture(scope="module")
def encoder(tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("frozen", [False, True])
def test_a_new_model_starts_with_the_embeddings_of_an_encoder(encoder, frozen):
    arguments = ModelArguments(embeddings_from=str(encoder), freeze_embeddings=frozen)
    tokenizer = load_tokenizer(arguments, [])
    model = load_model(arguments, tokenizer, LABELS)
    rows = BertModel.from_pretrained(encoder).get_input_embeddings().weight.detach()
    weight = model.get_input_embeddings().weight
    assert_close(weight.detach(), rows / rows.square().mean().sqrt())
    assert weight.requires_grad != frozen
    assert encoder_vectors(encoder).lookup("없") is None


def test_a_width_that_is_asked_for_must_be_that_of_the_vectors(encoder):
    arguments = ModelArguments(embeddings_from=str(encoder), config_overrides={"embedding_size": 8})
    with pytest.raises(ValueError, match="the vectors have 16 elements, the embeddings 8"):
        load_model(arguments, load_tokenizer(arguments, []), LABELS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"freeze_embeddings": True}, "freeze_embeddings goes with embeddings_from or embeddings_file"),
        ({"embeddings_from": "a", "embeddings_file": "b"}, "embeddings_from or embeddings_file, not both"),
        ({"embeddings_from": "a", "model_name_or_path": "b"}, "a new BiLSTM-CRF: leave .* out with model_name_or_path"),
    ],
    ids=["frozen", "two sources", "a trained model"],
)
def test_arguments_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ModelArguments(**fields)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["word2vec", "fasttext"])
def test_the_recipe_trains_vectors_of_a_tokenizers_tokens(tokenizer, tmp_path, texts, method):
    (tmp_path / "text.txt").write_text("\n".join(texts * 20), encoding="utf-8")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    output = tmp_path / "vectors.bin"
    options = {"input_file": tmp_path / "text.txt", "output_file": output, "tokenizer_name": tmp_path / "tokenizer"}
    options |= {"method": method, "vector_size": "16", "epochs": "1"}
    line = [part for name, value in options.items() for part in (f"--{name}", value)]
    subprocess.run([sys.executable, RECIPES / "train_embeddings.py", *line], check=True, capture_output=True)
    arguments = ModelArguments(tokenizer_name=str(tmp_path / "tokenizer"), embeddings_file=str(output))
    model = load_model(arguments, load_tokenizer(arguments, []), LABELS)
    vectors = file_vectors(output)
    row = model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("##울")].detach()
    assert_close(row / row.norm(), vectors.lookup("##울") / vectors.lookup("##울").norm())
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []
