"""Pretrained vectors in a model, compared with those of gensim and the embeddings of an encoder."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LABELS
from gensim.models import KeyedVectors
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from torch.testing import assert_close
from transformers import AutoModelForTokenClassification, BertConfig, BertModel, PreTrainedTokenizerFast

from bilstm_crf_hf.data.vectors import Vectors, file_vectors
from bilstm_crf_hf.training.arguments import ModelArguments
from bilstm_crf_hf.training.embeddings import copy_vectors, encoder_vectors, word_hashes, word_vectors
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


WORD_TEXTS = ["Anna saw Rome on 1996-08-22 .", "ROME was 12 , Zürich 34 ."]


@pytest.fixture
def word_file(tmp_path) -> Path:
    words = {
        "rome": 1,
        "Rome": 2,
        "anna": 3,
        "0000-00-00": 4,
        "Oslo": 5,
        ".": 6,
        "x ,": 7,
        "was": 8,
        "saw": 9,
        "wise": 10,
    }
    lines = [f"{word} {value} {-value}" for word, value in words.items()]
    (tmp_path / "words.vec").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "words.vec"


def word_tagger(file: Path | None, texts: list[str] = WORD_TEXTS, **fields):
    """Return the tokenizer and a new tagger of words whose vectors come from a file."""
    arguments = ModelArguments(
        embeddings_file=file and str(file),
        config_overrides={"unit": "words", "hidden_size": 8},
        min_frequency=1,
        **fields,
    )
    tokenizer = load_tokenizer(arguments, [*texts, "Oslwi0"])
    return tokenizer, load_model(arguments, tokenizer, LABELS, texts=texts)


@pytest.mark.parametrize("frozen", [False, True])
def test_words_have_their_vector_or_that_of_their_form(word_file, caplog, frozen):
    """Also words that are not in the training, but none that the tokenizer reads as several words."""
    caplog.set_level(logging.INFO)
    tokenizer, model = word_tagger(word_file, freeze_embeddings=frozen)
    features = model.bilstm.features
    scale = float(np.sqrt(np.mean(np.square([1, 2, 3, 4, 5, 6, 8, 9, 10]))))
    expected = {"rome": 1, "Rome": 2, "ROME": 1, "Anna": 3, "1996-08-22": 4, "Oslo": 5, "OSLO": 0, ".": 6, "Zürich": 0}
    batch = dict(tokenizer([" ".join(expected)], return_tensors="pt"))
    sequences = model.bilstm.sequences(**batch)
    word, form = features.vector_rows(features.hashes(features.token_table[batch["input_ids"]], sequences)).unbind(-1)
    found = features.word_vectors(torch.where(word > 0, word, form))[:, 0].detach()
    values = torch.tensor(list(expected.values())) / scale
    assert_close(found, torch.stack([values, -values], 1))
    assert features.word_vectors.weight.requires_grad != frozen
    assert model.config.num_word_vectors == 10
    # 7 of 12: Anna, saw, Rome, 1996-08-22, ROME, was and ".", which occurs twice
    assert "vectors for 58.3 % of the words of the training texts (61.5 % of their occurrences)" in caplog.text


def test_other_words_have_vectors_up_to_a_number(word_file):
    _, model = word_tagger(word_file, other_vectors=1)  # `Oslo` is the first one that no training text has
    assert model.config.num_word_vectors == 1 + 8
    _, model = word_tagger(word_file, other_vectors=0)
    assert model.config.num_word_vectors == 1 + 7


def test_words_of_sentencepiece_have_vectors(word_file):
    letters = [("<unk>", -9.0), ("<pad>", -9.0), ("▁", -2.0), *((c, -2.0) for c in sorted({*"".join(WORD_TEXTS)}))]
    backend = Tokenizer(models.Unigram(letters, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>")
    found = word_vectors(word_file, tokenizer, WORD_TEXTS, others=0)
    held = ["rome", "Rome", "anna", "0000-00-00", ".", "was", "saw"]
    expected = word_hashes(tokenizer, held)
    assert set(found.hashes.tolist()) == set(expected[expected >= 0].tolist())
    assert len(found.hashes) >= 5


def test_no_vector_for_any_word_is_an_error(word_file):
    with pytest.raises(ValueError, match=r"words\.vec: no vector of a word that consists of known characters"):
        word_tagger(word_file, ["가나 다라"])


def test_embeddings_of_an_encoder_are_not_for_words(encoder):
    arguments = ModelArguments(embeddings_from=str(encoder), config_overrides={"unit": "words"})
    with pytest.raises(ValueError, match='embeddings_from is for unit "characters"'):
        load_model(arguments, load_tokenizer(arguments, []), LABELS)


def test_a_tagger_of_words_is_saved_with_its_vectors(word_file, tmp_path):
    tokenizer, model = word_tagger(word_file)
    model.save_pretrained(tmp_path / "model")
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path / "model")
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].equal(tensor)
    batch = dict(tokenizer(WORD_TEXTS, padding=True, return_tensors="pt"))
    assert_close(loaded(**batch).logits, model.eval()(**batch).logits)
