"""Files of vectors, compared with what gensim writes and reads."""

import gzip
import logging
import os
import pickle
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzzing import WORDS, fasttext_model, word2vec_binary, word2vec_text
from gensim.models import FastText, KeyedVectors
from gensim.models.fasttext import load_facebook_vectors, save_facebook_model
from torch.testing import assert_close

from bilstm_crf_hf.data.vectors import file_vectors


@pytest.fixture
def vectors() -> KeyedVectors:
    keyed = KeyedVectors(4)
    keyed.add_vectors(["서", "##울", "울", "에"], np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32))
    return keyed


def write_glove(vectors: KeyedVectors, path: Path) -> None:
    lines = [f"{word} {' '.join(map(str, vectors[word]))}" for word in vectors.index_to_key]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


WRITERS = {
    "word2vec.txt": lambda vectors, path: vectors.save_word2vec_format(path),
    "word2vec.txt.gz": lambda vectors, path: vectors.save_word2vec_format(str(path)),
    "word2vec.bin": lambda vectors, path: vectors.save_word2vec_format(path, binary=True),
    "WORD2VEC.BIN": lambda vectors, path: vectors.save_word2vec_format(path, binary=True),
    "glove.txt": write_glove,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_gives_the_vectors_that_were_written(vectors, tmp_path, name):
    WRITERS[name](vectors, tmp_path / name)
    read = file_vectors(tmp_path / name)
    assert read.width == 4
    for word in vectors.index_to_key:
        assert_close(read.lookup(word), torch.from_numpy(vectors[word].copy()), rtol=1e-6, atol=1e-6)
    assert read.lookup("없음") is None


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("header", ["", "3 2\n"])
def test_byte_order_mark_and_line_ends_change_nothing(tmp_path, end, mark, header):
    lines = "서 1 2\n\u3000\u2028 3 4\n뉴\xa0욕\t5 6\n"
    (tmp_path / "a.vec").write_bytes((mark + header + lines).replace("\n", end).encode())
    read = file_vectors(tmp_path / "a.vec")
    assert [read.lookup(word).tolist() for word in ("서", "\u3000\u2028", "뉴\xa0욕")] == [[1, 2], [3, 4], [5, 6]]


def test_a_word_may_have_spaces_as_in_glove_840b(tmp_path):
    (tmp_path / "glove.txt").write_text("the 1 2\nat name@domain.com 3 4\n. . . 5 6\n")
    read = file_vectors(tmp_path / "glove.txt")
    assert read.lookup("at name@domain.com").tolist() == [3, 4]
    assert read.lookup(". . .").tolist() == [5, 6]


def test_of_a_word_that_occurs_again_the_first_vector_counts(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("가 1 2\n나 3 4\n가 5 6\n")
    assert file_vectors(tmp_path / "a.txt").lookup("가").tolist() == [1, 2]
    assert "a.txt: 1 words occur again; their first vectors count" in caplog.text


@pytest.mark.parametrize("lengths", [(3, 6), (1, 2), (2, 2), (0, 0)])
def test_fasttext_gives_the_vectors_of_gensim(tmp_path, lengths):
    """For words of the model and others; of `</s>`, fastText takes no n-grams, unlike gensim."""
    shortest, longest = lengths
    settings = {"vector_size": 4, "min_count": 1, "bucket": 100 if longest else 0, "seed": 0, "max_n": longest}
    model = FastText([["서울에", "서울로", "춘천에", "café"]] * 5, min_n=shortest, **settings)
    save_facebook_model(model, str(tmp_path / "model.bin"))
    read, expected = file_vectors(tmp_path / "model.bin"), load_facebook_vectors(str(tmp_path / "model.bin"))
    assert read.width == 4
    for word in ["서울에", "café", *(["서울은", "가", "naïve", "a"] if longest else [])]:
        assert_close(read.lookup(word), torch.from_numpy(expected[word].copy()))
    assert (read.lookup("없음") is None) == (not longest)


class Attack:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["a.kv", "a.model", "a.bin", "a.vec", "a.txt", "a.npy", "a.pt", "a.txt.gz"])
@pytest.mark.parametrize("protocol", [0, 2, 4, "zip"])
def test_a_pickle_is_never_loaded_whatever_its_name(tmp_path, name, protocol):
    attack, path = Attack(tmp_path / "broken in"), tmp_path / name
    if protocol == "zip":
        torch.save(attack, path)
    else:
        path.write_bytes(pickle.dumps(attack, protocol))
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        file_vectors(path)
    assert not attack.folder.exists()


def test_gensims_own_format_is_refused_with_what_to_do(vectors, tmp_path):
    vectors.save(str(tmp_path / "a.kv"))
    with pytest.raises(ValueError, match=r"a\.kv: a pickle .* is not read: save the vectors with save_word2vec_format"):
        file_vectors(tmp_path / "a.kv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.vec", "3 2\n가 1 2\n나 1\n다 1 2\n", "a.vec:3: 1 numbers after the word, expected 2"),
        ("a.vec", "2 2\n가 1 2 3\n나 1 2 3\n", "a.vec:2: 3 numbers after the word, expected 2"),
        ("a.vec", "2 2\n가 1 2\n나 1 x\n", "a.vec:3: 'x' is not a number"),
        ("a.vec", "2 2\n가  1 2\n나 1 2\n", "a.vec:2: '가 ' has spaces at an edge"),
        ("a.vec", "3 2\n가 1 2\n", "a.vec: 1 vectors, but 3 by its first line"),
        ("a.vec", "1 2\n가 1 2\n나 1 2\n", "a.vec: 2 vectors, but 1 by its first line"),
        ("a.vec", "2 2\n가 1 2\n나 nan 1\n", "a.vec:3: an element of the vector of '나' is NaN or infinite"),
        ("a.vec", "가 1 2\n나 1e39 1\n", "a.vec:2: an element of the vector of '나' is NaN or infinite"),
        ("a.vec", "가 1 2\n\n", "a.vec:2: 0 numbers after the word, expected 2"),
        ("a.vec", "가 1 2\n 1 2\n", "a.vec:2: 2 numbers after the word, expected 2"),
        ("a.vec", "가 1 2\n나 1 2".encode("utf-16"), "a.vec:1: byte 1 of the line is not UTF-8"),
        ("a.vec", "", "a.vec: the file is empty"),
        ("a.vec", "0 2\n", "a.vec: no vector in it"),
        ("a.vec", "0" * 2**25, "a.vec:1: expected a word and the elements of its vector"),
        ("glove.txt", "가 1 2 3\n나 1 2\n", "glove.txt:2: 2 numbers after the word, expected 3"),
        ("a.txt.gz", gzip.compress(b"a 1 2\n", mtime=0)[:-9], "a.txt.gz: not a file of vectors, or incomplete"),
        ("a.txt.gz", gzip.compress(b"", mtime=0), "a.txt.gz:1: expected a word and the elements of its vector"),
        ("a.txt.gz", "가 1 2\n", "a.txt.gz: not a file of vectors, or incomplete"),
        ("a.bin", "2 4\n가 0000", "a.bin: row 0: the file ends here, but has 2 vectors by its first line"),
        ("a.bin", "9999999999 9999\n가 0000", "a.bin: row 0: the file ends here, but has 9999999999 vectors"),
        ("a.bin", b"1 1\n\xff 0000", "a.bin: row 0: the word is not UTF-8"),
        ("a.bin", b"1 1\na 00000", "a.bin: more than the 1 vectors of its first line"),
        ("a.bin", b"1 1\na " + struct.pack("<f", np.inf), "a.bin: row 0: an element of the vector of 'a' is NaN"),
        ("a.bin", "가 0000", "a.bin: the first line has no number and width of vectors"),
        ("a.kv", "가", "a.kv:1: expected a word and the elements of its vector"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        file_vectors(tmp_path / name)


@pytest.mark.parametrize("size", range(4, len(fasttext_model()[0]), 97))
def test_a_model_of_fasttext_that_was_cut_off_is_refused(tmp_path, size):
    """gensim reads the dictionary of such a file for ever."""
    (tmp_path / "a.bin").write_bytes(fasttext_model()[0][:size])
    with pytest.raises(ValueError, match=r"a\.bin: not a file of vectors, or incomplete"):
        file_vectors(tmp_path / "a.bin")


@pytest.mark.parametrize("content", [word2vec_binary()[0], *word2vec_text()])
def test_files_of_other_programs_are_read(tmp_path, content):
    """They are the files that the fuzzer changes."""
    path = tmp_path / ("a.bin" if b"\0" in content else "a.vec")
    path.write_bytes(content)
    for word, vector in WORDS.items():
        assert_close(file_vectors(path).lookup(word), torch.tensor(vector))


def test_no_warning_without_a_reason(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        (tmp_path / "a.vec").write_bytes(word2vec_text()[0])
        file_vectors(tmp_path / "a.vec")
    assert not caplog.text


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.vec: no such file"):
        file_vectors(tmp_path / "none.vec")


@pytest.mark.parametrize("word", ["뉴\u00a0욕", "\u3000", "a\x0cb"])
def test_a_first_word_with_other_white_space_than_spaces_and_tabs_is_read(tmp_path, word):
    (tmp_path / "a.txt").write_text(f"{word} 1 2\n나 3 4\n")
    vectors = file_vectors(tmp_path / "a.txt")
    assert (vectors.width, vectors.lookup(word).tolist()) == (2, [1, 2])


@pytest.mark.parametrize("name", [*WRITERS, "model.bin"])
def test_wanted_words_and_a_number_of_others_are_kept(vectors, tmp_path, name):
    if name in WRITERS:
        WRITERS[name](vectors, tmp_path / name)
    else:
        model = FastText([vectors.index_to_key], vector_size=4, min_count=1, bucket=10, seed=0)
        save_facebook_model(model, str(tmp_path / name))
        vectors = model.wv
    first, second, third, fourth = vectors.index_to_key
    read = file_vectors(tmp_path / name, {third, "없음"}, 1)
    assert list(read.words) == [first, third]
    if name in WRITERS:
        assert read.lookup(second) is None
    assert_close(read.lookup(third), torch.from_numpy(vectors[third].copy()), rtol=1e-6, atol=1e-6)


def test_a_file_of_many_vectors_is_read_in_bounded_memory(tmp_path):
    """50,000 vectors of 100 elements are 20 MB as arrays; 10 of them are kept."""
    row = " ".join(["0.5"] * 100)
    with (tmp_path / "a.vec").open("w") as file:
        file.write("50000 100\n")
        file.writelines(f"w{i} {row}\n" for i in range(50_000))
    tracemalloc.start()
    read = file_vectors(tmp_path / "a.vec", {"w49999"}, 9)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(read.words) == 10
    assert peak < 2 * 2**20
