"""The table of words in the benchmark: features, vectors, and peers on a tiny corpus. Nothing here depends on time."""

import json
from functools import partial

import numpy as np
import pytest
from conftest import new_tagger
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2

from bilstm_crf_hf.commands import benchmark, benchmark_words
from bilstm_crf_hf.commands.benchmark_libraries import (
    Units,
    load_crfsuite,
    load_spacy,
    train_crfsuite,
    train_spacy,
    word_features,
    word_shape,
)
from bilstm_crf_hf.commands.benchmark_words import known_vectors, load_tagger, word_rows, word_units
from bilstm_crf_hf.data.ner import load_ner_datasets

WORDS = ["Ada", "Byron", "met", "Bob", "in", "Bonn", "."], ["It", "rained", "in", "Paris", "."]
TAGS = ["B-PER", "I-PER", "O", "B-PER", "O", "B-LOC", "O"], ["O", "O", "O", "B-LOC", "O"]
CORPUS = Units(list(WORDS) * 8, list(TAGS) * 8)


@pytest.fixture
def corpus(write):
    """Return the path of the corpus in columns."""
    lines = ("".join(f"{w} {t}\n" for w, t in zip(*pair, strict=True)) for pair in zip(*CORPUS, strict=True))
    return str(write("words.conll", "\n".join(lines)))


@pytest.fixture
def vectors(write):
    """Return the path of a file of vectors, some of whose words occur in the corpus."""
    return str(write("vectors.txt", "bonn 0.5 -1\nParis 0 2\nparis 3 3\n00 1 1\nelsewhere 0 0\n"))


def test_the_words_and_tags_of_a_corpus_come_back(corpus):
    assert word_units(load_ner_datasets(data_files={"train": corpus})["train"]) == CORPUS


def test_an_entity_that_ends_inside_a_word_is_an_error(write):
    particle = write("particle.txt", "<춘천:LC>에서 만났다\n")
    with pytest.raises(ValueError, match=r"sentence 1: '춘천' \(LC\) begins or ends inside a word"):
        word_units(load_ner_datasets(data_files={"train": particle})["train"])


def test_a_word_has_its_own_vector_or_that_of_its_form(vectors):
    found = known_vectors(vectors, {"Bonn", "Paris", "47", "nowhere"})
    assert {word: row.tolist() for word, row in found.items()} == {"Bonn": [0.5, -1], "Paris": [0, 2], "47": [1, 1]}


def test_the_features_of_a_word():
    first, second = word_features(["McDonald-25", "am"], {"am": {"vector0": 0.5}})
    assert word_shape("McDonald-25") == "XxXx-0"
    own = {"0:word": "McDonald-25", "0:lower": "mcdonald-25", "0:shape": "XxXx-0"}
    after = {"1:word": "am", "1:lower": "am", "1:shape": "x", "2:edge": 1.0, "-1:edge": 1.0, "-2:edge": 1.0}
    prefixes = {"prefix1": "M", "prefix2": "Mc", "prefix3": "McD", "prefix4": "McDo"}
    suffixes = {"suffix1": "5", "suffix2": "25", "suffix3": "-25", "suffix4": "d-25"}
    assert first == {"bias": 1.0} | own | after | prefixes | suffixes
    assert second["vector0"] == 0.5
    assert (second["prefix2"], second["suffix2"], second["-1:lower"]) == ("am", "am", "mcdonald-25")
    assert "prefix3" not in second


def test_crfsuite_learns_the_corpus_and_is_saved(tmp_path):
    pytest.importorskip("pycrfsuite")
    features = partial(word_features, vectors={"Bonn": {"vector0": 1.0}})
    train_crfsuite(CORPUS, tmp_path / "model", features, max_iterations=30)
    assert load_crfsuite(tmp_path / "model", features)(CORPUS.sentences) == CORPUS.tags


@pytest.mark.slow
def test_spacy_learns_the_corpus_reads_the_vectors_and_is_saved(tmp_path):
    pytest.importorskip("spacy")
    vectors = {"Bonn": np.ones(3, np.float32), "Paris": np.zeros(3, np.float32)}
    train_spacy(CORPUS, CORPUS, tmp_path / "vectors", vectors, max_steps=200)
    train_spacy(CORPUS, CORPUS, tmp_path / "plain", max_steps=1)
    tagger = load_spacy(tmp_path / "vectors")
    assert tagger(CORPUS.sentences) == CORPUS.tags
    saved = [json.loads((tmp_path / name / "meta.json").read_text())["vectors"] for name in ("vectors", "plain")]
    assert [(each["width"], each["vectors"]) for each in saved] == [(3, 2), (0, 0)]


def test_spacy_ends_after_its_minutes(tmp_path, capsys):
    pytest.importorskip("spacy")
    train_spacy(CORPUS, CORPUS, tmp_path, minutes=0)
    assert capsys.readouterr().out.count("step 0:") == 1
    load_spacy(tmp_path)


def test_a_saved_tagger_tags_words(tokenizer, tmp_path):
    model = new_tagger(tokenizer)
    model.save_pretrained(tmp_path / "run")
    tokenizer.save_pretrained(tmp_path / "run")
    tag = load_tagger(str(tmp_path / "run"), tmp_path / "copy")
    again = load_tagger(str(tmp_path / "copy"), tmp_path / "copy of copy")
    tags = tag(CORPUS.sentences)
    assert [len(row) for row in tags] == [len(row) for row in CORPUS.sentences]
    assert tags == again(CORPUS.sentences)


@pytest.mark.parametrize(("peers", "names"), [(True, ["peer", "bilstm-crf"]), (False, ["bilstm-crf"])])
def test_the_table_of_words(corpus, vectors, tokenizer, tmp_path, monkeypatch, peers, names):
    def train(splits, read, minutes, folder):
        assert splits == {"train": CORPUS, "validation": CORPUS, "test": CORPUS}
        assert list(read) == ["Bonn", "Paris"]
        (folder / "model").write_bytes(b"\0" * 2000)
        return lambda sentences: [["B-PER"] + ["O"] * (len(sentence) - 1) for sentence in sentences]

    libraries = {"peer": ("json", train), "missing": ("no_such_module", train)}
    monkeypatch.setattr(benchmark_words, "LIBRARIES", libraries)
    model = new_tagger(tokenizer)
    model.save_pretrained(tmp_path / "run")
    tokenizer.save_pretrained(tmp_path / "run")
    argv = ["--sections", "words", "--rounds", "1", "--output_dir", str(tmp_path), "--embeddings_file", vectors]
    argv += ["--train_file", corpus, "--validation_file", corpus, "--test_file", corpus]
    benchmark.main([*argv, "--model_name_or_path", str(tmp_path / "run"), "--peers", str(peers)])
    rows = json.loads((tmp_path / "benchmark.json").read_text())["words"]
    assert [row["what"] for row in rows] == names
    assert all(row["sentences/s"] > 0 for row in rows)
    assert rows[-1]["CPU minutes of training"] is None
    if peers:
        predicted = [["B-PER"] + ["O"] * (len(tags) - 1) for tags in CORPUS.tags]
        expected = f1_score(CORPUS.tags, predicted, mode="strict", scheme=IOB2)
        assert rows[0]["F1"] == pytest.approx(expected)
        assert rows[0]["MB"] == 0.002
        assert f"| peer | {expected:.4f} |" in (tmp_path / "benchmark.md").read_text()


def test_an_empty_table_and_missing_files_are_errors(corpus, tmp_path):
    data = load_ner_datasets(data_files=dict.fromkeys(("train", "validation", "test"), corpus))
    with pytest.raises(ValueError, match="name a tagger in model_name_or_path"):
        next(word_rows(data, None, None, False, 1, 1, tmp_path))
    with pytest.raises(ValueError, match="needs train_file, validation_file and test_file"):
        benchmark.main(["--sections", "words", "--train_file", corpus])
