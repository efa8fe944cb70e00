"""Tests of morphemes as inputs of a tagger, against loops over the tokens of Kiwi and over the table of nouns."""

import importlib
import json
import multiprocessing
import random
import sys
import time
import unicodedata
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from clean_process import run_without_package
from conftest import LABELS, SENTENCES, new_reader, some_clusters
from corpora import read_corpus
from datasets import Dataset
from torch.testing import assert_close
from transformers import AutoTokenizer, BertConfig, BertModel, pipeline

from bilstm_crf_hf import (
    BiLSTMCRFConfig,
    BiLSTMCRFForTokenClassification,
    CharacterEncoderForTokenClassification,
    morphemes,
)
from bilstm_crf_hf.data import morphology
from bilstm_crf_hf.data.collation import TaggingCollator
from bilstm_crf_hf.data.encoding import EncodedCorpus
from bilstm_crf_hf.evaluation.tasks import CLASSIFICATION
from bilstm_crf_hf.input_features import InputFeatures
from bilstm_crf_hf.morphemes import (
    NUM_CLUSTERS,
    NUM_NOUNS,
    NUM_PARTS_OF_SPEECH,
    PARTS_OF_SPEECH,
    morpheme_hash,
    morpheme_ids,
)
from bilstm_crf_hf.pipeline_bilstm_crf import BiLSTMCRFTokenClassificationPipeline
from bilstm_crf_hf.processing_bilstm_crf import BiLSTMCRFProcessor
from bilstm_crf_hf.sequences import Sequences
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


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.setattr("bilstm_crf_hf.training.loading.clusters_by_hash", some_clusters)
    return lambda name: importlib.import_module(f"bilstm_crf_hf.commands.{name}")


def encode(tokenizer, texts) -> dict[str, torch.Tensor]:
    encoded = tokenizer(texts, return_offsets_mapping=True, padding=True, return_tensors="pt")
    offsets = encoded.pop("offset_mapping").tolist()
    return dict(encoded) | {"morpheme_ids": torch.tensor(morpheme_ids(texts, offsets))}


@pytest.mark.slow
def test_inputs_are_those_of_the_first_morpheme_of_each_character(model, texts):
    """A noun of the table has its cluster, every other morpheme its part of speech, by the words in the table."""
    texts = [*texts, *MORE_TEXTS]
    kiwi = kiwipiepy.Kiwi()
    known = {row: n for n, row in enumerate(model.bilstm.features.noun_hashes.tolist())}
    clusters = model.bilstm.features.noun_clusters.tolist()
    seen = set()
    for text, row in zip(texts, rows_of_characters(model, texts), strict=True):
        tokens = kiwi.tokenize(text)
        taken = set()
        for i, character in enumerate(text):
            owner = next((n for n, token in enumerate(tokens) if token.start <= i < token.end), None)
            if character.isspace() or owner is None:
                assert row[i] == 0
                continue
            tag, inside = divmod(row[i] - 1, 2)
            assert inside == (owner in taken)
            taken.add(owner)
            form, part = tokens[owner].form, tokens[owner].tag.split("-")[0]
            at = known.get(zlib.crc32(f"{form}/{part}".encode()) & 0x7FFFFFFF)
            if at is None:
                assert tag == NUM_CLUSTERS + 1 + PARTS_OF_SPEECH.index(part)
            else:
                assert tag == clusters[at]
            seen.add((form, at is not None))
    assert {("토트넘 홋스퍼", False), ("춘천", True), ("에서", False)} <= seen


def rows_of_characters(model, texts: list[str]) -> list[list[int]]:
    """Return the rows of the embeddings of morphemes that a model reads, a row for each character."""
    found = morpheme_ids(texts, [[(i, i + 1) for i in range(len(text))] for text in texts])
    return [model.bilstm.features.morpheme_rows(torch.tensor([row]))[0].tolist() for row in found]


def test_trained_models_depend_on_the_hash_and_the_parts_of_speech():
    """The number is CRC-32 of "서울/NNP" without its upper bit."""
    (seoul, inside, particle), *_ = morpheme_ids(["서울에"], [[(0, 1), (1, 2), (2, 3)]])
    assert seoul == 2 * (NUM_PARTS_OF_SPEECH * 1380770618 + PARTS_OF_SPEECH.index("NNP") + 1)
    assert inside == seoul + 1
    assert particle // 2 % NUM_PARTS_OF_SPEECH == 44  # JKB
    assert (PARTS_OF_SPEECH[1], PARTS_OF_SPEECH[-6]) == ("NNG", "Z_SIOT")


class OtherKiwi:
    """Another version of Kiwi, which has other ids and a new part of speech."""

    def tokenize(self, texts):
        for tokens in kiwipiepy.Kiwi().tokenize(texts):
            yield [
                SimpleNamespace(
                    form=token.form,
                    tag="NEW" if token.tag == "JKS" else token.tag,
                    start=token.start,
                    end=token.end,
                    id=99_999 - token.id,
                )
                for token in tokens
            ]


def test_entities_are_the_same_with_the_ids_of_another_version_of_kiwi(model, tokenizer, texts, monkeypatch):
    tagger = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)
    texts = [text for text in texts if "JKS" not in {token.tag for token in kiwipiepy.Kiwi().tokenize(text)}]
    expected = tagger(texts)
    assert len(texts) > 4
    monkeypatch.setattr(morphemes, "kiwi", OtherKiwi)
    assert tagger(texts) == expected
    monkeypatch.setattr(morphemes, "morpheme_hash", lambda token: 0)
    assert tagger(texts) != expected  # a morpheme's form counts


def test_a_part_of_speech_that_trained_models_do_not_know_is_no_morpheme(monkeypatch):
    text = "비가 왔다"
    offsets = [[(i, i + 1) for i in range(len(text))]]
    (known,) = morpheme_ids([text], offsets)
    monkeypatch.setattr(morphemes, "kiwi", OtherKiwi)
    assert morpheme_ids([text], offsets) == [[known[0], 0, *known[2:]]]
    assert known[1]


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


def test_the_table_has_the_clusters_of_known_nouns(model):
    """Any other hash has the part of speech, also in an empty table. The reference is a dictionary."""
    features = InputFeatures(model.config)
    generator = random.Random(0)
    known = {generator.randrange(2**31): generator.randrange(NUM_CLUSTERS) for _ in range(NUM_NOUNS - 3)}
    known |= {0: 3, 2**31 - 1: 255}
    hashes = [*list(known)[-1000:], *(generator.randrange(2**31) for _ in range(1000))]
    asked = [(each, generator.randrange(1, NUM_PARTS_OF_SPEECH), generator.randrange(2)) for each in hashes]
    ids = torch.tensor([2 * (NUM_PARTS_OF_SPEECH * each + part) + inside for each, part, inside in asked])
    for clusters in ({}, known):
        features.set_clusters(clusters)
        expected = [1 + 2 * clusters.get(each, NUM_CLUSTERS + part) + inside for each, part, inside in asked]
        assert features.morpheme_rows(ids.view(2, -1)).flatten().tolist() == expected
    with pytest.raises(RuntimeError):
        features.set_clusters(dict.fromkeys(range(NUM_NOUNS + 1), 0))


def test_a_token_reads_the_row_of_its_morpheme(model, tokenizer, texts):
    """Its embedding gets that row, and row 0 without a morpheme."""
    features, batch = model.bilstm.features, encode(tokenizer, texts)
    ids, morphemes = batch["input_ids"].T, batch["morpheme_ids"].T
    sequences = Sequences(ids.T, None, [])
    ahead, _ = features(ids.T, sequences, morpheme_ids=morphemes.T)
    words, rows = features.word_embeddings.weight, features.morpheme_embeddings.weight
    found = features.morpheme_rows(morphemes)
    assert found.unique().numel() > 20
    for t, b in [(0, 0), (1, 0), (2, 0), (3, 0), (5, 3), (7, 4), (len(ids) - 1, 0)]:
        assert_close(ahead[t, b, :16], words[ids[t, b]] + rows[found[t, b]])
    assert not morphemes[0].any()  # [CLS]
    unknown, _ = features(ids.T, sequences)
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
    sequences = Sequences(ids.T, None, [])
    dropped, _ = features(ids.T, sequences, morpheme_ids=morphemes.T)
    features.eval()
    full, none = (features(ids.T, sequences, morpheme_ids=known)[0] for known in (morphemes.T, None))
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
    by_words = tagger(words, is_split_into_words=True, batch_size=1)  # other batches may round scores differently
    assert by_words == tagger([" ".join(row) for row in words], batch_size=1)


@pytest.mark.slow
def test_a_recipe_trains_a_tagger_that_is_served_without_the_package(recipe, tmp_path):
    """With Kiwi, the results are the same as here. Without it, the pipeline warns and tags without morphemes."""
    folder, text = tmp_path / "out", "손흥민은 1992년 7월 8일 춘천에서 태어났다."
    recipe("ner").main([*SAMPLE, *SMALL, "--read_morphemes", "true", "--output_dir", str(folder)])
    tagger = pipeline("token-classification", str(folder), trust_remote_code=True)
    assert tagger.model.config.read_morphemes
    assert (tagger.model.bilstm.features.noun_hashes >= 0).sum() == len(some_clusters())
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
    """The teacher reads them too. Soft and gold rows have them; a student without them can learn from the same."""
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
    rows.remove_columns("morpheme_ids").to_parquet(tmp_path / "plain.parquet")
    answers = ["--soft_labels_file", str(folder / "soft_labels.parquet"), str(tmp_path / "plain.parquet")]
    with pytest.raises(ValueError, match="the soft labels have no morpheme_ids: label the texts for this student"):
        recipe("distill").main([*files, *answers, *SMALL, *morphemes])
    recipe("distill").main([*files, *answers, *SMALL, "--output_dir", str(tmp_path / "other")])
    assert not BiLSTMCRFConfig.from_pretrained(tmp_path / "other").read_morphemes


def test_a_teacher_reads_them(model, tokenizer):
    text = "손흥민은 춘천에서 태어났다."
    (answer,) = Teacher(model, BiLSTMCRFProcessor(tokenizer, model.config), LABELS)([text])
    logits = model(**encode(tokenizer, [text])).logits[0, 1:-1]
    visible = [i for i, character in enumerate(text) if not character.isspace()]
    assert_close(torch.from_numpy(answer)[visible], logits.softmax(-1), atol=1e-5, rtol=1e-4)


def test_a_trained_tagger_learns_to_read_them(recipe, tagger, model, tokenizer, texts, tmp_path):
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
        assert rows_of_characters(loaded, texts) == rows_of_characters(model, texts)
        assert loaded.config.read_morphemes
    weight = found["with"].bilstm.features.morpheme_embeddings.weight
    assert_close(weight, model.bilstm.features.morpheme_embeddings.weight)


def test_a_text_classifier_on_the_body_of_a_tagger_reads_none(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path / "tagger")
    arguments = ModelArguments(str(tmp_path / "tagger"), head="new")
    classifier = load_model(arguments, tokenizer, ["긍정", "부정"], CLASSIFICATION)
    assert not classifier.config.read_morphemes
    assert_close(classifier.get_input_embeddings().weight, model.get_input_embeddings().weight)
    classifier.save_pretrained(tmp_path / "classifier")
    assert not type(classifier).from_pretrained(tmp_path / "classifier").config.read_morphemes


def test_what_goes_together(recipe, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="read_morphemes cannot be set there: use --read_morphemes"):
        load_model(ModelArguments(config_overrides={"read_morphemes": True}), tokenizer, LABELS)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(tmp_path / "bert")
    for head in (None, "crf"):
        arguments = ModelArguments(str(tmp_path / "bert"), head=head, read_morphemes=True)
        with pytest.raises(ValueError, match="read_morphemes is for BiLSTM-CRF taggers, not for"):
            load_model(arguments, tokenizer, LABELS)
    with pytest.raises(ValueError, match="read_morphemes is for BiLSTM-CRF taggers"):
        recipe("classify").main(["--read_morphemes", "true", "--output_dir", str(tmp_path / "out")], RECIPES)


def test_the_bilstm_beside_an_encoder_reads_them(recipe, tagger, tokenizer, texts, tmp_path):
    """At first with zero embeddings, as a trained tagger does. Nothing but its morphemes differs."""
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(tmp_path / "bert")
    for part in (tagger, tokenizer):
        part.save_pretrained(tmp_path / "characters")
    characters = AutoTokenizer.from_pretrained(tmp_path / "characters")
    arguments = ModelArguments(str(tmp_path / "bert"), head="characters", read_morphemes=True)
    load_model(arguments, characters, LABELS).save_pretrained(tmp_path / "teacher")
    teacher = CharacterEncoderForTokenClassification.from_pretrained(tmp_path / "teacher").eval()
    features = teacher.bilstm.features
    assert (features.noun_hashes >= 0).sum() == len(some_clusters())
    inputs = BiLSTMCRFProcessor(characters, teacher.config, tokenizer)(texts[:1]).inputs
    inputs = {name: torch.tensor(rows) for name, rows in inputs.items()}
    unread = {name: rows for name, rows in inputs.items() if name != "morpheme_ids"}
    assert_close(teacher(**inputs).logits, teacher(**unread).logits)
    torch.nn.init.normal_(features.morpheme_embeddings.weight)
    assert not torch.allclose(teacher(**inputs).logits, teacher(**unread).logits, atol=1e-3)


def test_missing_kiwi_is_told(model, tokenizer, texts, monkeypatch, caplog):
    """It is an error in training, and a warning in the pipeline, which tags without morphemes."""
    monkeypatch.setitem(sys.modules, "kiwipiepy", None)
    with pytest.raises(ImportError, match="morpheme_ids need kiwipiepy: pip install kiwipiepy"):
        BiLSTMCRFProcessor(tokenizer, model.config)
    tagger = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)
    assert tagger(texts)
    assert [record.getMessage() for record in caplog.records if "kiwipiepy" in record.getMessage()] == [
        "The model reads morpheme_ids: pip install kiwipiepy. Without them it tags less well."
    ]


@pytest.mark.parametrize("field", ["kiwi_version", "morphemes"])
def test_a_model_that_depends_on_a_version_of_kiwi_says_what_to_do(field, tagger, tmp_path):
    """An earlier one without morphemes has the field, too."""
    tagger.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {field: None}), encoding="utf-8")
    assert field not in BiLSTMCRFConfig.from_pretrained(tmp_path).to_dict()
    path.write_text(json.dumps(config | {field: "0.24.0"}), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{field}: the model was saved by an earlier version .* train it again"):
        BiLSTMCRFForTokenClassification.from_pretrained(tmp_path)


def test_missing_kiwi_names_the_extra(monkeypatch, recipe):
    monkeypatch.setitem(sys.modules, "kiwipiepy", None)
    importlib.import_module("bilstm_crf_hf.morphemes")._kiwi_of_process.cache_clear()
    with pytest.raises(ImportError, match="pip install kiwipiepy"):
        recipe("ner").main([*SAMPLE, *SMALL, "--read_morphemes", "true"])


@pytest.mark.slow
def test_the_clusters_of_the_table_are_those_of_nouns(monkeypatch):
    """Cluster the 3,000 most frequent morphemes only."""
    monkeypatch.setattr(morphology, "NUM_MORPHEMES", 3000)
    morphology.noun_clusters.cache_clear()
    found, clusters = morphology.clusters_by_hash(), morphology.noun_clusters()
    morphology.noun_clusters.cache_clear()
    kiwi = kiwipiepy.Kiwi()
    nouns = [kiwi.morpheme(i) for i in clusters if kiwi.morpheme(i).form]
    assert len(found) == len(nouns) > 1000
    assert {noun.tag for noun in nouns} <= set(morphology.NOUNS)
    assert all(found[morpheme_hash(kiwi.morpheme(i))] == each for i, each in clusters.items() if kiwi.morpheme(i).form)


def test_threads_share_one_kiwi(monkeypatch):
    made = []
    slow = SimpleNamespace(Kiwi=lambda **_: time.sleep(0.1) or made.append(1) or made)
    monkeypatch.setitem(sys.modules, "kiwipiepy", slow)
    monkeypatch.setattr(morphemes, "_kiwi_of_process", cache(morphemes._kiwi_of_process.__wrapped__))
    with ThreadPoolExecutor(4) as pool:
        assert len(set(map(id, pool.map(lambda _: morphemes.kiwi(), range(4))))) == 1
    assert len(made) == 1
