import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import entities_of, fails_at, marked, read_corpus
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from bilstm_crf_hf.data.ner import labels_of, load_ner_datasets
from bilstm_crf_hf.data.splits import load_splits
from bilstm_crf_hf.training.arguments import parse_arguments
from bilstm_crf_hf.training.ner import DataArguments

KLUE = "서\tB-LC\n울\tI-LC\n \tO\n김\tB-PS\n구\tI-PS\n"
KLUE_ORDER = ["B-LC", "I-LC", "B-PS", "I-PS", "O"]


def rows_of(tokens, ner_tags, names):
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))})
    return Dataset.from_dict({"tokens": tokens, "ner_tags": ner_tags}, features=features)


def test_sentences_without_text_are_dropped_and_counted(write, caplog):
    path = write("inline.txt", "<김구:PS> 선생\n\n \u3000 \n서울\n")
    with caplog.at_level(logging.WARNING, logger="bilstm_crf_hf.data.ner"):
        assert read_corpus(path)["text"][:] == ["김구 선생", "서울"]
    assert caplog.messages == [f"{path}: dropped 2 sentences without text"]
    caplog.clear()
    read_corpus(write("klue.tsv", KLUE))
    assert not caplog.messages


# Splits


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("rows.jsonl", '{"tokens": ["김구", "왔다"], "ner_tags": ["B-PS", "O"]}\n\n', "김구 왔다"),
        ("rows.json", '\n[{"tokens": ["김구", "왔다"],\n "ner_tags": ["B-PS", "O"]}]\n', "김구 왔다"),
        ("rows.json", '{"text": "김구", "tags": ["B-PS", "I-PS"]}', "김구"),
    ],
)
def test_json_is_read_as_lines_or_as_an_array(write, name, content, text):
    splits = load_ner_datasets(data_files={"train": write(name, content)})
    assert isinstance(splits, DatasetDict)
    assert splits["train"]["text"][0] == text


def test_parquet_files_and_folders_keep_class_label_order(tmp_path):
    names = ["O", "B-PS", "I-PS"]
    rows = rows_of([["김", "구"], ["나"]], [[1, 2], [0]], names)
    (tmp_path / "train").mkdir()
    for i in (1, 0):
        rows.select([i]).to_parquet(tmp_path / "train" / f"{i}.parquet")
    (tmp_path / "train" / "README.md").write_text("not data")
    rows.to_parquet(tmp_path / "test.parquet")
    splits = load_ner_datasets(data_files={"train": tmp_path / "train", "test": str(tmp_path / "test.parquet")})
    assert splits["train"].to_dict() == splits["test"].to_dict() == {"text": ["김구", "나"], "tags": [[1, 2], [0]]}
    assert labels_of(splits["train"]) == names


def test_shards_with_other_label_names_are_named(tmp_path):
    for i, names in enumerate((["O", "B-PS", "I-PS"], ["B-PS", "I-PS", "O"])):
        rows_of([["김"]], [[0]], names).to_parquet(tmp_path / f"{i}.parquet")
    with pytest.raises(ValueError, match=r"1\.parquet: columns or label names differ from those of .*0\.parquet"):
        load_ner_datasets(data_files={"train": tmp_path})


def test_bad_parquet_is_named(write, tmp_path):
    with pytest.raises(ValueError, match=r"bad\.parquet: not a Parquet file"):
        load_ner_datasets(data_files={"train": write("bad.parquet", "김구")})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no \.parquet file in this folder"):
        load_ner_datasets(data_files={"train": tmp_path / "empty"})


def test_large_lists_as_written_by_polars_are_read(tmp_path):
    table = pa.table(
        {
            "tokens": pa.array([["김", "구"]], pa.large_list(pa.large_string())),
            "ner_tags": pa.array([["B-PS", "I-PS"]], pa.large_list(pa.large_string())),
        }
    )
    pq.write_table(table, tmp_path / "train.parquet")
    train = load_ner_datasets(data_files={"train": tmp_path / "train.parquet"})["train"]
    assert entities_of(train) == [[("김구", "PS")]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"tokens": [], "ner_tags": []}\n{"tokens": [}\n', r"a\.jsonl:2: Expecting value"),
        ("a.json", '[{"tokens": [],\n "ner_tags" []}]', r"a\.json:2: Expecting ':'"),
        ("a.json", '[{"tokens": ["김"], "ner_tags": ["O"]}, 3]', r"a\.json: row 1: expected an object, found 3"),
        ("a.jsonl", '{"tokens": ["김"], "ner_tags": ["O"]}\n{"tokens": 3}\n', r"a\.jsonl:2: column tokens holds 3"),
        (
            "a.jsonl",
            '{"tokens": ["김"], "ner_tags": ["O"]}\n{"tokens": ["구"]}\n',
            r"a\.jsonl:2: 1 tokens in column tokens, but 0",
        ),
        ("a.json", "[]", r"a\.json: no sentence in it"),
        ("a.jsonl", "", r"a\.jsonl: no sentence in it"),
        ("a.jsonl", '{"form": ["김"]}', r"a\.jsonl: no column tokens or words or text; its columns are form"),
        ("a.docx", "x", r"a\.docx: unknown suffix '\.docx'; known are \.parquet, \.jsonl, \.json, "),
        ("a.tsv", "", r"a\.tsv: no sentence in it"),
        ("a.txt", "", r"a\.txt: no sentence in it"),
        (
            "a.csv",
            "김,O",
            r"a\.csv: a cell of a \.csv cannot hold a list of tags or spans: save it as \.jsonl, or",
        ),
    ],
)
def test_bad_files_are_named(write, name, content, message):
    with pytest.raises(ValueError, match=message):
        load_ner_datasets(data_files={"train": write(name, content)})


def test_all_splits_have_the_labels_of_train(write):
    train = write("train.txt", "<김구:PS>는 <서울:LC>에")
    validation = write("dev.conll", "김구 B-PS\n")
    splits = load_ner_datasets(data_files={"train": train, "validation": validation})
    assert labels_of(splits["validation"]) == labels_of(splits["train"]) == KLUE_ORDER
    assert splits["validation"]["tags"][:] == [[2, 3]]


def test_without_train_the_labels_are_those_of_all_splits(write):
    files = {"validation": write("dev.txt", "<김구:PS>"), "test": write("test.txt", "<서울:LC>")}
    splits = load_ner_datasets(data_files=files)
    assert labels_of(splits["validation"]) == labels_of(splits["test"]) == KLUE_ORDER
    assert entities_of(splits["validation"]) == [[("김구", "PS")]]


def test_a_label_that_train_does_not_have_is_an_error_unless_listed(write):
    files = {"train": write("train.tsv", "김\tB-PS\n"), "validation": write("dev.tsv", "경\tB-LC\n")}
    message = r"dev\.tsv: the label B-LC is not among those of train \(B-PS, I-PS, O\): .*entity_types"
    with pytest.raises(ValueError, match=message):
        load_ner_datasets(data_files=files)
    splits = load_ner_datasets(data_files=files, entity_types=["PS", "LC"])
    assert labels_of(splits["train"]) == labels_of(splits["validation"]) == KLUE_ORDER
    assert entities_of(splits["train"]) == [[("김", "PS")]]
    with pytest.raises(ValueError, match=r"train\.tsv: the label B-PS is not among those of entity_types"):
        load_ner_datasets(data_files=files, entity_types=["LC"])


def test_entity_types_say_what_an_inline_mark_is(write):
    path = write("train.txt", "<서울:loc> <김구:PS>")
    splits = load_ner_datasets(data_files={"train": path}, entity_types=["loc", "PS"])
    assert entities_of(splits["train"]) == [[("서울", "loc"), ("김구", "PS")]]
    with fails_at(path, 1, "unknown entity type PS"):
        load_ner_datasets(data_files={"train": path}, entity_types=["loc"])


@pytest.mark.parametrize("saved", ["parquet", "disk"])
def test_the_features_of_conll2003_are_read(tmp_path, saved):
    names = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
    words = List(Value("string"))
    tags = {"pos_tags": ['"', "NNP"], "chunk_tags": ["O", "B-NP", "I-NP"], "ner_tags": names}
    features = Features(
        {"id": Value("string"), "tokens": words, **{name: List(ClassLabel(names=tags[name])) for name in tags}}
    )
    row = {"id": "0", "tokens": ["Rome", "and", "New", "York"], "pos_tags": [1, 1, 1, 1], "chunk_tags": [1, 0, 1, 2]}
    rows = Dataset.from_list([row | {"ner_tags": [5, 0, 5, 6]}], features=features)
    splits = DatasetDict(train=rows, validation=rows, test=rows)
    if saved == "disk":
        splits.save_to_disk(tmp_path)
    else:
        for split in splits:
            splits[split].to_parquet(tmp_path / f"{split}.parquet")
    found = load_ner_datasets(str(tmp_path))
    assert {split: marked(found[split]) for split in found} == dict.fromkeys(
        ("train", "validation", "test"), ["<Rome:LOC> and <New York:LOC>"]
    )
    assert labels_of(found["train"]) == names


def test_hub_data_sets_are_read_by_name(monkeypatch):
    rows = rows_of([["김", "구"]], [[1, 2]], ["O", "B-PS", "I-PS"])
    bad = rows_of([["김", "구"], ["나", "는"]], [[1, 2], [0, 2]], ["O", "B-PS", "I-PS"])
    hub = {("klue", "ner"): DatasetDict(train=rows, validation=rows), ("klue", None): DatasetDict(test=bad)}
    monkeypatch.setattr("bilstm_crf_hf.data.splits.load_dataset", lambda *name, revision: hub[name])
    splits = load_ner_datasets("klue", "ner")
    assert list(splits) == ["train", "validation"]
    assert splits["train"].to_dict() == {"text": ["김구"], "tags": [[1, 2]]}
    with pytest.raises(ValueError, match=r"klue \(test\): row 1: token 1: I-PS cannot stand here"):
        load_ner_datasets("klue")


def test_column_names_are_passed_on(write):
    path = write("rows.jsonl", json.dumps({"tokens": ["x"], "form": ["김구"], "ner": ["B-PS"]}))
    splits = load_ner_datasets(data_files={"train": path}, text_column="form", label_column="ner")
    assert entities_of(splits["train"]) == [[("김구", "PS")]]


def test_exactly_one_source_is_given(write):
    path = write("klue.tsv", KLUE)
    with pytest.raises(ValueError, match="give either the dataset_name"):
        load_ner_datasets()
    with pytest.raises(ValueError, match="give either the dataset_name"):
        load_ner_datasets("klue", data_files={"train": path})
    with pytest.raises(ValueError, match="dataset_config_name goes with dataset_name"):
        load_ner_datasets(dataset_config_name="ner", data_files={"train": path})
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tsv: no such file"):
        load_ner_datasets(data_files={"train": path.with_name("nowhere.tsv")})


NO_ENTITY = [
    ("a.tsv", "김\tO\n구\tO\n", "no entity in 1 sentences: is another column that of the tags"),
    ("a.conll", "김구는 O\n\n왔다 O\n", "no entity in 2 sentences"),
    ("a.txt", "김구는 왔다\n", "no entity is marked"),
    ("a.txt", "## 1\n## 비\n## 비\n비\t비\tNNG\tO\n", "no entity in 1 sentences"),
    ("a.conllu", "1\t비" + "\t_" * 7 + "\tNER=O\n", "no entity in 1 sentences"),
    ("a.jsonl", '{"tokens": ["김구"], "ner_tags": ["O"]}', "no entity in 1 sentences"),
    ("a.jsonl", '{"text": "김구", "label": []}', "no entity in 1 sentences"),
    ("a.json", '[{"data": {"text": "김구"}, "annotations": [{"result": []}]}]', "no entity in 1 sentences"),
]


@pytest.mark.parametrize(("name", "content", "message"), NO_ENTITY)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_corpus_without_any_entity_is_an_error(write, split, name, content, message):
    path = write(name, content)
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        load_ner_datasets(data_files={split: path}, entity_types=["PS"])


def test_training_data_without_any_entity_are_an_error_whatever_their_labels(tmp_path, monkeypatch):
    bare, good = (rows_of([["김", "구"]], [tags], ["O", "B-PS", "I-PS"]) for tags in ([0, 0], [1, 2]))
    bare.to_parquet(tmp_path / "bare.parquet")
    with pytest.raises(ValueError, match="bare.parquet: no entity in 1 sentences"):
        load_ner_datasets(data_files={"train": tmp_path / "bare.parquet"})
    hub = DatasetDict(train=bare, validation=good)
    monkeypatch.setattr("bilstm_crf_hf.data.splits.load_dataset", lambda *name, revision: hub)
    with pytest.raises(ValueError, match=r"klue \(train\): no entity in 1 sentences"):
        load_ner_datasets("klue")


def test_another_split_without_any_entity_is_warned_about(write, caplog):
    files = {"train": write("train.conll", "김구 B-PS\n"), "test": write("test.conll", "비가 O\n")}
    splits = load_ner_datasets(data_files=files)
    assert marked(splits["test"]) == ["비가"]
    (message,) = caplog.messages
    assert message.startswith(f"{files['test']}: no entity in 1 sentences, so that its recall and F1 say nothing: ")


def test_types_that_differ_only_in_case_are_an_error(write):
    with pytest.raises(ValueError, match=r"a\.conll: the labels B-PS and B-ps differ only in case"):
        read_corpus(write("a.conll", "김구 B-PS\n윤동주 B-ps\n"))


def test_the_scheme_is_decided_for_all_splits(write):
    files = {"train": write("a.conll", "김구 B-PS\n\n서 B-LC\n울 I-LC\n")}
    files["validation"] = write("b.conll", "비 O\n김구 I-PS\n")
    with fails_at(files["validation"], 2, "I-PS cannot stand here in BIO, B-PS could"):
        load_ner_datasets(data_files=files)
    files["train"] = write("a.conll", "김구 I-PS\n왔다 O\n\n서 I-LC\n울 B-LC\n")
    assert marked(load_ner_datasets(data_files=files)["validation"]) == ["비 <김구:PS>"]


def test_the_arguments_of_a_command_reach_the_reader(write):
    path = write("a.tsv", "1\t김\tB-PS\tO\n2\t구\tI-PS\tO\n3\t는\tO\tO\n")
    argv = f"--train_file {path} --validation_file {path} --token_column 1 --tag_column 2 --token_unit word"
    (arguments,) = parse_arguments((DataArguments,), [*argv.split(), "--entity_types", "PS", "LC"], "")
    splits = load_splits(load_ner_datasets, arguments, {}, **arguments.options)
    assert marked(splits["validation"]) == ["<김 구:PS> 는"]
    assert labels_of(splits["train"]) == KLUE_ORDER


def test_types_of_other_splits_tell_what_is_nearly_a_mark(write):
    files = {
        "train": write("a.txt", "<김구:PS>는 <서울:LC>에"),
        "validation": write("b.txt", "<김구:PS>는\n<부산/LC>에"),
    }
    with fails_at(files["validation"], 2, "'<부산/LC>' is nearly a mark"):
        load_ner_datasets(data_files=files)
    files["train"] = write("a.txt", "<김구:PS>는 <서울:OG>에")
    assert marked(load_ner_datasets(data_files=files)["validation"]) == ["<김구:PS>는", "<부산/LC>에"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"text_column": "words"}, "train.txt: its columns have no names"),
        ({"label_column": "tags"}, "train.txt: its columns have no names"),
        ({"token_column": 1}, "token_column and tag_column are for files with a token a line"),
        ({"tag_column": 2}, "token_column and tag_column are for files with a token a line"),
    ],
)
def test_columns_are_not_named_where_there_are_none(write, option, message):
    path = write("train.txt", "<부산:LC>에 간다.")
    with pytest.raises(ValueError, match=message):
        load_ner_datasets(data_files={"train": path}, **option)
