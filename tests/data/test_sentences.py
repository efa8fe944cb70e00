import json

import pytest
from corpora import fails_at, marked, read_corpus, tags_of
from datasets import Dataset

from bilstm_crf_hf.data.ner import load_ner_datasets

CHARACTERS = [("민", "B-PS"), ("수", "I-PS"), (" ", "O"), ("간", "O"), ("다", "O")]
EMOJI = [("영", "B-PS"), ("희", "I-PS"), ("는", "O"), ("👍🏽", "O"), ("👨\u200d👩\u200d👧", "B-PS")]
EMOJI += [("e\u0301", "I-PS")]
WORDS = [("그", "B-PS"), ("이다", "O")]


@pytest.fixture
def load(write, tmp_path):
    """Write the splits, each a sentence, with the same suffix, and load them."""

    def load(suffix, options=None, **splits):
        files = {}
        for split, sentence in splits.items():
            row = {"tokens": [token for token, _ in sentence], "ner_tags": [tag for _, tag in sentence]}
            name = f"{split}.{suffix}"
            if suffix == "parquet":
                Dataset.from_list([row]).to_parquet(tmp_path / name)
                files[split] = tmp_path / name
            elif suffix in ("json", "jsonl"):
                files[split] = write(name, json.dumps([row] if suffix == "json" else row))
            else:
                files[split] = write(name, "".join(f"{token}\t{tag}\n" for token, tag in sentence))
        return load_ner_datasets(data_files=files, **(options or {}))

    return load


SUFFIXES = ["tsv", "txt", "conll", "bio", "json", "jsonl", "parquet"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_tokens_give_the_same_text_in_every_format(load, suffix):
    splits = load(suffix, train=CHARACTERS, validation=EMOJI)
    assert marked(splits["train"]) == ["<민수:PS> 간다"]
    assert marked(splits["validation"]) == ["<영희:PS>는👍🏽<👨\u200d👩\u200d👧e\u0301:PS>"]
    splits = load(suffix, train=WORDS, validation=EMOJI[:2])
    assert marked(splits["train"]) == ["<그:PS> 이다"]
    assert marked(splits["validation"]) == ["<영 희:PS>"]  # one decision for both


def test_each_code_point_of_a_token_has_a_tag(load):
    tags = tags_of(load("tsv", train=EMOJI)["train"])[0]
    assert tags == ["B-PS", "I-PS", "O", "O", "O", "B-PS", *["I-PS"] * 6]
    assert len(tags) == len("영희는👍🏽👨\u200d👩\u200d👧e\u0301")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_unit_of_the_tokens_can_be_chosen(load, suffix):
    assert marked(load(suffix, {"token_unit": "character"}, train=WORDS)["train"]) == ["<그:PS>이다"]
    assert marked(load(suffix, {"token_unit": "word"}, train=EMOJI[:3])["train"]) == ["<영 희:PS> 는"]


def test_an_unknown_unit_is_an_error(load):
    with pytest.raises(ValueError, match="unknown token_unit 'words': choose 'auto', 'character' or 'word'"):
        load("tsv", {"token_unit": "words"}, train=WORDS)


def test_the_decision_is_said_in_the_log_once(load, caplog):
    caplog.set_level("INFO")
    load("tsv", train=CHARACTERS, validation=EMOJI)
    load("tsv", train=CHARACTERS[:2], validation=WORDS)
    assert [message for message in caplog.messages if "token_unit" in message] == [
        "the tokens of the corpus are characters, concatenated (token_unit character)",
        "the tokens of the corpus are words such as '이다', joined by one space (token_unit word)",
    ]


def test_spaces_among_tokens_that_are_not_all_characters_are_an_error(write):
    path = write("klue.tsv", "민\tB-PS\n수\tI-PS\n \tO\n간다\tO\n")
    with fails_at(path, 3, "the token is white space.*token_unit character"):
        read_corpus(path)
    assert marked(read_corpus(path, token_unit="character")) == ["<민수:PS> 간다"]


def test_conll_and_text_splits_can_be_mixed(write):
    files = {
        "train": write("a.txt", "<민수:PS>는"),
        "validation": write("b.jsonl", '{"text": "민수", "tags": ["O", "O"]}'),
    }
    files["test"] = write("c.conll", "간 B-PS\n다 O\n")
    splits = load_ner_datasets(data_files=files)
    assert [splits[split]["text"][0] for split in files] == ["민수는", "민수", "간다"]
