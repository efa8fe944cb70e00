"""Tests of morphemes as inputs of a tagger, against loops over the tokens of Kiwi and over the tables."""

import importlib
import multiprocessing
import re
import sys
import unicodedata
from pathlib import Path

import pytest
import torch
from clean_process import run_without_package
from conftest import LABELS, SENTENCES, new_reader, new_tagger
from corpora import read_corpus
from datasets import Dataset
from torch.testing import assert_close
from transformers import BertConfig, BertModel, pipeline

from bilstm_crf_hf import BiLSTMCRFForTokenClassification, morphemes
from bilstm_crf_hf.data import morphology
from bilstm_crf_hf.data.collation import TaggingCollator
from bilstm_crf_hf.data.encoding import EncodedCorpus
from bilstm_crf_hf.morphemes import (
    NUM_CLUSTERS,
    NUM_MORPHEMES,
    NUM_PARTS_OF_SPEECH,
    installed_kiwi_version,
    morpheme_ids,
)
from bilstm_crf_hf.pipeline_bilstm_crf import BiLSTMCRFTokenClassificationPipeline
from bilstm_crf_hf.processing_bilstm_crf import BiLSTMCRFProcessor
from bilstm_crf_hf.training.arguments import ModelArguments
from bilstm_crf_hf.training.distillation import Teacher
from bilstm_crf_hf.training.loading import load_model

kiwipiepy = pytest.importorskip("kiwipiepy")

RECIPES = Path(__file__).parents[1] / "recipes"
SAMPLE = [
    part
    for split in ("train", "validation")
    for part in (f"--{split}_file", str(RECIPES / "data" / "ner" / f"{split}.txt"))
]
SMALL = [
    *("--max_train_samples", "64", "--max_eval_samples", "8", "--num_train_epochs", "1", "--use_cpu", "true"),
    *("--config_overrides", '{"embedding_size": 16, "hidden_size": 16, "ngram_buckets": 256}'),
]
MORE_TEXTS = ["토트넘홋스퍼의 쀍뚫이는  갔다 ㅋㅋ", "로스앤젤레스 다저스 😀", ""]


@pytest.fixture(scope="module")
def model(tokenizer) -> BiLSTMCRFForTokenClassification:
    return new_reader(tokenizer)


@pytest.fixture(scope="module")
def table(model):
    """Return a morpheme table with random tags."""
    return model.bilstm.features.morpheme_table.clone()


@pytest.fixture
def recipe(monkeypatch, table):
    monkeypatch.setattr("bilstm_crf_hf.training.loading.morpheme_table", lambda: table)
    return lambda name: importlib.import_module(f"bilstm_crf_hf.commands.{name}")


def encode(tokenizer, texts) -> dict[str, torch.Tensor]:
    encoded = tokenizer(texts, return_offsets_mapping=True, padding=True, return_tensors="pt")
    offsets = encoded.pop("offset_mapping").tolist()
    return dict(encoded) | {"morpheme_ids": torch.tensor(morpheme_ids(texts, offsets))}


@pytest.mark.slow
def test_ids_are_those_of_the_first_morpheme_of_each_character(texts):
    """A word that is not in Kiwi's language model gets the id of its part of speech, a morpheme without form."""
    texts = [*texts, *MORE_TEXTS]
    kiwi = kiwipiepy.Kiwi()
    characters = [[(i, i + 1) for i in range(len(text))] for text in texts]
    rows = morpheme_ids(texts, characters)
    unknown = set()
    for text, row in zip(texts, rows, strict=True):
        tokens = kiwi.tokenize(text)
        taken = {}
        for i, character in enumerate(text):
            owner = next((n for n, token in enumerate(tokens) if token.start <= i < token.end), None)
            if character.isspace() or owner is None:
                assert row[i] == 0
                continue
            token = tokens[owner]
            known, inside = divmod(row[i] - 1, 2)
            assert inside == (owner in taken)
            taken[owner] = True
            if token.id < NUM_MORPHEMES:
                assert known == token.id
            else:
                unknown.add(token.form)
                assert (kiwi.morpheme(known).form, kiwi.morpheme(known).tag) == ("", token.tag)
    assert "토트넘 홋스퍼" in unknown


def test_decomposed_text_has_the_same_morphemes(tokenizer, texts):
    """macOS decomposes the names of files (NFD)."""
    composed, decomposed = (
        encode(tokenizer, [unicodedata.normalize(form, t) for t in texts]) for form in ("NFC", "NFD")
    )
    assert composed["input_ids"].equal(decomposed["input_ids"])
    assert composed["morpheme_ids"].equal(decomposed["morpheme_ids"])


def test_windows_of_a_text_have_its_morphemes(tokenizer, texts, monkeypatch):
    """Kiwi analyses the text once, not each window."""
    text = " ".join(texts)
    whole = encode(tokenizer, [text])["morpheme_ids"][0, 1:-1].tolist()
    options = {"truncation": True, "max_length": 34, "stride": 16, "return_overflowing_tokens": True}
    windows = tokenizer(text, return_offsets_mapping=True, **options)["offset_mapping"]
    asked = []
    analyze = morphemes.analyze
    monkeypatch.setattr(morphemes, "analyze", lambda found: analyze(asked.extend(found) or asked))
    rows = morpheme_ids([text] * len(windows), windows)
    assert asked == [text]
    for number, row in enumerate(rows):
        assert row[1:-1] == whole[16 * number : 16 * number + 32]


@pytest.mark.slow
def test_a_forked_process_has_a_kiwi_of_its_own(texts):
    """The threads of the parent's Kiwi do not exist in a forked process."""
    characters = [[(i, i + 1) for i in range(len(text))] for text in texts]
    expected = morpheme_ids(texts, characters)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(morpheme_ids, (texts, characters)).get(timeout=60) == expected


def test_tokens_of_several_characters_go_by_the_first():
    text = "서울에 갔다"
    single = morpheme_ids([text], [[(i, i + 1) for i in range(len(text))]])[0]
    assert morpheme_ids([text], [[(0, 0), (0, 2), (2, 4), (4, 6)]]) == [[0, single[0], single[2], single[4]]]


def test_a_token_reads_the_tag_of_its_morpheme(model, tokenizer, texts, table):
    """Its embedding gets row 1 + 2 * tag at the start of a morpheme, the next row within it, row 0 outside."""
    features, batch = model.bilstm.features, encode(tokenizer, texts)
    ids, morphemes = batch["input_ids"].T, batch["morpheme_ids"].T
    inside = torch.ones_like(ids, dtype=torch.bool)
    ahead, _ = features(ids, inside, morpheme_ids=morphemes)
    words, rows = features.word_embeddings.weight, features.morpheme_embeddings.weight
    for t, b in [(0, 0), (1, 0), (2, 0), (3, 0), (5, 3), (7, 4), (len(ids) - 1, 0)]:
        known, within = divmod(int(morphemes[t, b]) - 1, 2)
        row = rows[1 + 2 * table[known] + within] if morphemes[t, b] else rows[0]
        assert_close(ahead[t, b, :16], words[ids[t, b]] + row)
    assert not morphemes[0].any()  # [CLS]
    unknown, _ = features(ids, inside)
    assert_close(unknown[..., :16], words[ids] + rows[0])


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_sentence_does_not_depend_on_its_neighbours(model, tokenizer, tmp_path, side):
    path = tmp_path / "sentences.txt"
    path.write_text("\n".join(SENTENCES), encoding="utf-8")
    rows = list(EncodedCorpus(read_corpus(path), BiLSTMCRFProcessor(tokenizer, model.config), LABELS).inputs)
    tokenizer.padding_side = side
    together = TaggingCollator(tokenizer)(rows)
    tokenizer.padding_side = "right"
    outputs = model(**together)
    alone = [model(**TaggingCollator(tokenizer)([row])) for row in rows]
    assert_close(outputs.loss, torch.stack([output.loss for output in alone]).mean(), atol=1e-4, rtol=1e-5)
    without = model(**{name: values for name, values in together.items() if name != "morpheme_ids"})
    assert not torch.allclose(without.loss, outputs.loss, rtol=1e-2)


def test_in_training_the_morphemes_of_whole_sentences_are_forgotten(model, tokenizer, texts, monkeypatch):
    features, batch = model.bilstm.features, encode(tokenizer, texts)
    ids, morphemes = batch["input_ids"].T, batch["morpheme_ids"].T
    monkeypatch.setattr(features.config, "ngram_dropout", 0.0)
    features.train()
    torch.manual_seed(0)
    dropped, _ = features(ids, torch.ones_like(ids), morpheme_ids=morphemes)
    features.eval()
    full, none = (features(ids, torch.ones_like(ids), morpheme_ids=known)[0] for known in (morphemes, None))
    as_full, as_none = ((dropped == other).all(0).all(-1) for other in (full, none))
    assert (as_full | as_none).all()
    assert 0 < as_none.sum() < len(texts) / 2  # one in five, on average


def test_the_pipeline_asks_kiwi(model, tokenizer, texts):
    """Compare the tags, for batches of texts and of words, with the best path of the model for each text."""
    texts = [*texts, *MORE_TEXTS[:2]]
    tagger = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)
    found = tagger(texts, aggregation_strategy="none", ignore_labels=[], batch_size=4)
    for text, tokens in zip(texts, found, strict=True):
        batch = encode(tokenizer, [text])
        predictions = model(**batch).predictions[0, 1:-1].tolist()
        assert [token["entity"] for token in tokens] == [model.config.id2label[i] for i in predictions]
    words = [text.split() for text in texts]
    by_words = tagger(words, is_split_into_words=True, batch_size=4)
    assert by_words == tagger([" ".join(row) for row in words], batch_size=4)


@pytest.mark.slow
def test_a_recipe_trains_a_tagger_that_is_served_without_the_package(recipe, tmp_path):
    """With Kiwi, the results are the same as here. Without it, the pipeline warns and tags without morphemes."""
    folder, text = tmp_path / "out", "손흥민은 1992년 7월 8일 춘천에서 태어났다."
    recipe("ner").main([*SAMPLE, *SMALL, "--read_morphemes", "true", "--output_dir", str(folder)])
    tagger = pipeline("token-classification", str(folder), trust_remote_code=True)
    assert tagger.model.config.kiwi_version == installed_kiwi_version()
    assert tagger.model.bilstm.features.morpheme_table.unique().numel() > 300
    options = "aggregation_strategy='none', ignore_labels=[]"
    script = f"""
import json, sys
{{}}
from transformers import pipeline
tagger = pipeline("token-classification", {str(folder)!r}, trust_remote_code=True)
reads = "morpheme_ids" in tagger.processor.text_inputs
print(json.dumps([reads, [token["score"] for token in tagger({text!r}, {options})]]))
"""
    here = [token["score"] for token in tagger(text, aggregation_strategy="none", ignore_labels=[])]
    reads, scores = run_without_package(script.format(""), tmp_path)
    assert reads
    assert scores == pytest.approx(here, rel=1e-4)
    reads, without = run_without_package(script.format("sys.modules['kiwipiepy'] = None"), tmp_path)
    assert not reads
    assert without != pytest.approx(scores, rel=1e-4)


def test_a_student_that_reads_morphemes(recipe, model, tokenizer, texts, tmp_path):
    """The teacher reads them too. Soft and gold rows have them, and the soft labels fit no other student."""
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "teacher")
    (tmp_path / "raw.txt").write_text("\n".join(texts), encoding="utf-8")
    (tmp_path / "train.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    files = [f"--{split}_file={tmp_path / 'train.txt'}" for split in ("train", "validation")]
    asked = [f"--teachers={tmp_path / 'teacher'}", f"--unlabeled_file={tmp_path / 'raw.txt'}"]
    folder = tmp_path / "student"
    morphemes = ["--read_morphemes", "true", "--output_dir", str(folder)]
    recipe("distill").main([*files, *asked, *SMALL, *morphemes])
    rows = Dataset.from_parquet(str(folder / "soft_labels.parquet"))
    assert all(len(row["morpheme_ids"]) == len(row["input_ids"]) and any(row["morpheme_ids"]) for row in rows)
    answers = ["--soft_labels_file", str(folder / "soft_labels.parquet")]
    with pytest.raises(ValueError, match="made for another tokenizer, other labels or another version of Kiwi"):
        recipe("distill").main([*files, *answers, *SMALL, "--output_dir", str(tmp_path / "other")])


def test_a_teacher_reads_them(model, tokenizer):
    text = "손흥민은 춘천에서 태어났다."
    (answer,) = Teacher(model, BiLSTMCRFProcessor(tokenizer, model.config), LABELS)([text])
    logits = model(**encode(tokenizer, [text])).logits[0, 1:-1]
    visible = [i for i, character in enumerate(text) if not character.isspace()]
    assert_close(torch.from_numpy(answer)[visible], logits.softmax(-1), atol=1e-5, rtol=1e-4)


def test_a_trained_tagger_learns_to_read_them(recipe, tagger, model, tokenizer, table, texts, tmp_path):
    """Before training, its output is unchanged. A tagger that reads morphemes already keeps its table."""
    for name, trained in (("without", tagger), ("with", model)):
        trained.save_pretrained(tmp_path / name)
    found = {
        name: load_model(ModelArguments(str(tmp_path / name), read_morphemes=True), tokenizer, LABELS).eval()
        for name in ("without", "with")
    }
    batch = encode(tokenizer, texts)
    ids = batch.pop("morpheme_ids")
    assert_close(found["without"](**batch, morpheme_ids=ids).logits, tagger(**batch).logits)
    for loaded in found.values():
        assert loaded.bilstm.features.morpheme_table.equal(table)
        assert loaded.config.kiwi_version == installed_kiwi_version()
    weight = found["with"].bilstm.features.morpheme_embeddings.weight
    assert_close(weight, model.bilstm.features.morpheme_embeddings.weight)


def test_what_goes_together(recipe, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="kiwi_version cannot be set there: use --read_morphemes"):
        load_model(ModelArguments(config_overrides={"kiwi_version": "0.24.0"}), tokenizer, LABELS)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(tmp_path / "bert")
    for head in (None, "crf"):
        arguments = ModelArguments(str(tmp_path / "bert"), head=head, read_morphemes=True)
        with pytest.raises(ValueError, match="read_morphemes is for BiLSTM-CRF taggers, not for"):
            load_model(arguments, tokenizer, LABELS)
    with pytest.raises(ValueError, match="read_morphemes is for BiLSTM-CRF taggers"):
        recipe("classify").main(["--read_morphemes", "true", "--output_dir", str(tmp_path / "out")], RECIPES)


def test_another_version_of_kiwi_is_told(tokenizer, texts, tmp_path, caplog):
    """It is an error in training and a warning in the pipeline; both name the version to install."""
    message = r"pip install kiwipiepy kiwipiepy_model==0\.1\.0"
    path = tmp_path / "sentences.txt"
    path.write_text(SENTENCES[0], encoding="utf-8")
    with pytest.raises(ImportError, match=message):
        BiLSTMCRFProcessor(tokenizer, new_tagger(tokenizer, kiwi_version="0.1.0").config)
    tagger = BiLSTMCRFTokenClassificationPipeline(
        model=new_tagger(tokenizer, kiwi_version="0.1.0"), tokenizer=tokenizer
    )
    assert re.search(message, caplog.text)
    assert isinstance(tagger(texts[0]), list)


def test_missing_kiwi_names_the_extra(monkeypatch, recipe):
    monkeypatch.setitem(sys.modules, "kiwipiepy", None)
    importlib.import_module("bilstm_crf_hf.morphemes")._kiwi_of_process.cache_clear()
    with pytest.raises(ImportError, match="pip install kiwipiepy"):
        recipe("ner").main([*SAMPLE, *SMALL, "--read_morphemes", "true"])


@pytest.mark.slow
def test_the_table_has_clusters_of_nouns_and_parts_of_speech(monkeypatch):
    """Compute the table of the 3,000 most frequent morphemes only."""
    monkeypatch.setattr(morphology, "NUM_MORPHEMES", 3000)
    morphology.noun_clusters.cache_clear()
    found, clusters = morphology.morpheme_table(), morphology.noun_clusters()
    morphology.noun_clusters.cache_clear()
    kiwi = kiwipiepy.Kiwi()
    assert len(found) == 3000
    for i, tag in enumerate(found.tolist()):
        if tag < NUM_CLUSTERS:
            assert clusters[i] == tag
        elif tag > NUM_CLUSTERS:
            assert kiwi.morpheme(tag - NUM_CLUSTERS).tag == kiwi.morpheme(i).tag.split("-")[0]
    assert (found < NUM_CLUSTERS).sum() > 1000
    assert not (found[:NUM_PARTS_OF_SPEECH] < NUM_CLUSTERS).any()
