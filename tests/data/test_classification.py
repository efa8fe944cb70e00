import json
import logging
import re
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from bilstm_crf_hf.data.classification import (
    check_classes,
    class_names,
    load_classification_datasets,
    merge_labels,
)

NSMC = 'id\tdocument\tlabel\n1\t와 "명작.. 또 봐야지\t1\n2\t흠, 시간만 버렸네....\t0\n3\t\t0\n'
EMOTIONS = ["기쁨", "당황", "분노", "불안", "상처", "슬픔"]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def load(path, **options):
    return load_classification_datasets(data_files={"train": path}, **options)["train"]


def rows_of(dataset):
    return list(zip(dataset["text"], dataset.features["label"].int2str(dataset["label"]), strict=True))


def aihub(code, *sentences):
    content = {f"HS0{i}": text for i, text in enumerate(sentences, 1)} | {"SS01": "왜 그렇게 느끼셨나요?"}
    return {"profile": {"persona": {}, "emotion": {"type": code}}, "talk": {"id": {}, "content": content}}


def emotions(counts):
    """A row for each number: texts do not matter here."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=EMOTIONS)})
    labels = [i for i, count in enumerate(counts) for _ in range(count)]
    return Dataset.from_dict({"text": [f"문장 {i}" for i in range(len(labels))], "label": labels}, features=features)


# ---------------------------------------------------------------- formats


def test_nsmc_as_it_is_downloaded(write, caplog):
    """Quotation marks are text; the row without text is dropped and counted."""
    dataset = load(write("ratings_train.txt", NSMC), label_names=["부정", "긍정"])
    assert rows_of(dataset) == [('와 "명작.. 또 봐야지', "긍정"), ("흠, 시간만 버렸네....", "부정")]
    assert "ratings_train.txt: dropped 1 rows without text" in caplog.text
    assert dataset.features["text"] == Value("string")
    assert class_names(dataset) == ["부정", "긍정"]


def test_csv_with_quoted_newline_and_comma(write):
    path = write("a.csv", '\ufefftext,label\r\n"정말, 좋다\n최고",기쁨 \r\n그냥 그렇다,슬픔\r\n')
    assert rows_of(load(path)) == [("정말, 좋다\n최고", "기쁨"), ("그냥 그렇다", "슬픔")]


def test_json_and_jsonl_hold_the_same_rows(write):
    rows = [{"document": "재미있다", "label": 1, "id": 3}, {"document": "지루하다", "label": 0}, {"document": None}]
    array = load(write("a.json", rows))
    lines = load(write("a.jsonl", "\n".join(map(json.dumps, rows))))
    assert rows_of(array) == rows_of(lines) == [("재미있다", "1"), ("지루하다", "0")]


def test_integers_are_sorted_by_value(write):
    path = write("a.tsv", "text\tlabel\n" + "".join(f"글 {i}\t{i}\n" for i in (10, 2, 0)))
    assert class_names(load(path)) == ["0", "2", "10"]


def test_labels_are_strings_as_they_stand(write):
    labels = ["NA", "null", "no", "yes", "TRUE", "1.0", "01", "1", "2024-01-02", "아주 좋다", "nan"]
    lines = [f"글 {i},{label}" for i, label in enumerate(labels)]
    dataset = load(write("a.csv", "\n".join(["text,label", *lines])))
    assert [label for _, label in rows_of(dataset)] == labels
    assert class_names(dataset) == sorted(labels)


def test_integers_of_one_value_or_of_any_length_have_one_order(write):
    """`int` refuses strings of more than 4,300 digits; the order of a set differs from run to run."""
    labels = ["10", "007", "7", "07", "2", "9" * 5000, "0"]
    path = write("a.tsv", "text\tlabel\n" + "".join(f"글\t{label}\n" for label in labels))
    assert class_names(load(path)) == ["0", "2", "007", "07", "7", "10", "9" * 5000]


@pytest.mark.parametrize("label", [2, -2])
def test_an_id_without_a_name_is_refused(tmp_path, label):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["나쁨 ", "좋음"])})
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["글", "글"], "label": [0, 1]}, schema=features.arrow_schema)
    pq.write_table(table, path)
    assert class_names(load(path)) == ["나쁨 ", "좋음"]
    pq.write_table(table.set_column(1, "label", [[0, label]]).replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(ValueError, match=rf"a\.parquet: row 1: the label is {label}"):
        load(path)


def test_names_of_a_class_label_keep_their_order(tmp_path):
    emotions([1, 0, 2, 1, 0, 1]).to_parquet(tmp_path / "train.parquet")
    dataset = load(tmp_path / "train.parquet")
    assert class_names(dataset) == EMOTIONS
    assert dataset["label"][:] == [0, 2, 2, 3, 5]


def test_data_set_by_name(tmp_path):
    """Here, the path of a folder; on the Hub, e9t/nsmc, whose ClassLabel is of digits."""
    features = Features({"document": Value("string"), "label": ClassLabel(names=["0", "1"])})
    for split in ("train", "test"):
        rows = {"document": [f"{split}에 있는 글", "다른 글"], "label": [1, 0]}
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{split}.parquet")
    datasets = load_classification_datasets(str(tmp_path), label_names=["부정", "긍정"])
    assert set(datasets) == {"train", "test"}
    assert rows_of(datasets["test"]) == [("test에 있는 글", "긍정"), ("다른 글", "부정")]


def test_splits_share_the_labels_of_train(write):
    train = write("train.tsv", "text\tlabel\n좋아\t기쁨\n싫어\t분노\n슬퍼\t슬픔\n")
    validation = write("validation.tsv", "text\tlabel\n눈물이 나\t슬픔\n")
    datasets = load_classification_datasets(data_files={"train": train, "validation": validation})
    assert class_names(datasets["validation"]) == class_names(datasets["train"]) == ["기쁨", "분노", "슬픔"]
    assert datasets["validation"]["label"][:] == [2]


def test_aihub_json(write, caplog):
    path = write(
        "감성대화.json",
        [aihub("E18", "일은 왜 해도 해도 끝이 없을까?", "화가 나."), aihub("E66", " ", "좋아"), aihub("E69", "휴가야")],
    )
    assert rows_of(load(path)) == [("일은 왜 해도 해도 끝이 없을까?", "분노"), ("휴가야", "기쁨")]
    assert "dropped 1 rows" in caplog.text


def test_aihub_xlsx(tmp_path):
    """Labels have blanks behind them, and an empty cell is a row without text."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (
        [None, "연령", "감정_대분류", "감정_소분류", "사람문장1", "시스템문장1"],
        [1, "청년", "분노 ", "짜증내는", "일이 끝이 없어 화가 나.", "힘드시겠어요."],
        [2, "노년", "기쁨", "감사하는", None, None],
        [3, "청년", "불안 ", "초조한", "NA", None],
    ):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert rows_of(load(tmp_path / "a.xlsx")) == [("일이 끝이 없어 화가 나.", "분노"), ("NA", "불안")]
    book.active["E4"] = 3.5
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(ValueError, match=r"a\.xlsx: row 4: the text is 3\.5, not a string"):
        load(tmp_path / "a.xlsx")
    (tmp_path / "a.xlsx").write_text("text,label")
    with pytest.raises(ValueError, match=r"a\.xlsx: not an xlsx file"):
        load(tmp_path / "a.xlsx")


def test_missing_openpyxl_is_named(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ImportError, match=r"a\.xlsx: .*pip install openpyxl"):
        load(write("a.xlsx", ""))


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.json",
            [{"text": "좋다", "label": 1}, {"text": 3, "label": 0}],
            r"a\.json: row 1: the text is 3, not a str",
        ),
        ("a.json", [{"text": ["좋다"], "label": 1}], r"a\.json: row 0: the text is \['좋다'\], not a string"),
        ("a.json", [{"text": "좋다", "label": None}], r"a\.json: row 0: there is a text, but no label"),
        ("a.json", [{"text": "좋다", "label": True}], r"a\.json: row 0: the label is True; expected a name or an int"),
        ("a.json", [{"text": "좋다", "label": 0.5}], r"a\.json: row 0: the label is 0\.5; expected a name or an int"),
        ("a.json", [{"text": " ", "label": 1}], r"a\.json: no text in it"),
        (
            "a.json",
            [{"글": "좋다", "label": 1}],
            r"a\.json: no column text or document or .*; its columns are 글, label",
        ),
        ("a.json", [aihub("E70", "좋아")], r"a\.json: row 0: unknown emotion 'E70'; AI Hub's codes are E10 to E69"),
        (
            "a.json",
            [aihub("E10", "좋아"), {"talk": {}}],
            r"a\.json: row 1: not laid out as AI Hub's corpus: 'prof",
        ),
        ("a.jsonl", '{"text": "좋다", "label": 1}\n{"text"', r"a\.jsonl:2: "),
        ("a.tsv", "text\tlabel\n좋다\t1\n싫다\n", r"a\.tsv:3: 1 fields, but the header has 2"),
        ("a.tsv", "좋다\t1\n싫다\t0\n", r"a\.tsv: no column text or .*; its columns are 좋다, 1"),
        ("a.tsv", "text\tlabel\n좋다\t \n", r"a\.tsv:2: there is a text, but no label"),
        ("a.tsv", "", r"a\.tsv: no text in it"),
        ("a.csv", 'text,label\n"좋다,1\n', r"a\.csv:2: unexpected end of data"),
        ("a.xls", "", r"a\.xls: unknown suffix '\.xls'; known are \.txt, \.jsonl"),
    ],
)
def test_bad_files_are_named_with_row_and_remedy(write, name, content, message):
    with pytest.raises(ValueError, match=message):
        load(write(name, content))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.tsv: no such file"):
        load(tmp_path / "none.tsv")


def test_columns_of_numbers_are_no_text(tmp_path):
    Dataset.from_dict({"text": [None, 5], "label": ["가", "나"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: row 1: the text is 5, not a string"):
        load(tmp_path / "a.parquet")


def test_rows_without_a_class_are_refused(tmp_path):
    """-1, as in the test sets of the Hub."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=EMOTIONS)})
    Dataset.from_dict({"text": ["좋다"], "label": [-1]}, features=features).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: row 0: there is a text, but no label"):
        load(tmp_path / "a.parquet")


def test_label_that_train_does_not_have(write):
    train = write("train.tsv", "text\tlabel\n좋아\t기쁨\n싫어\t분노\n")
    validation = write("validation.tsv", "text\tlabel\n좋아\t기쁨\n눈물이 나\t슬픔\n")
    with pytest.raises(ValueError, match=r"validation\.tsv:3: the label 슬픔 is not .* train \(기쁨, 분노\)"):
        load_classification_datasets(data_files={"train": train, "validation": validation})


def test_label_names_replace_those_of_a_data_set(tmp_path):
    features = Features({"document": Value("string"), "label": ClassLabel(names=["negative", "positive"])})
    rows = Dataset.from_dict({"document": ["재미있다", "지루하다"], "label": [1, 0]}, features=features)
    rows.to_parquet(tmp_path / "a.parquet")
    dataset = load(tmp_path / "a.parquet", label_names=["부정", "긍정"])
    assert dataset.features["label"].names == ["부정", "긍정"]
    assert dataset["label"][:] == [1, 0]
    with pytest.raises(ValueError, match="has the labels negative, positive: give as many label_names, not 3"):
        load(tmp_path / "a.parquet", label_names=["부정", "중립", "긍정"])


@pytest.mark.parametrize(("label", "names"), [("2", ["부정", "긍정"]), ("기쁨", ["부정", "긍정"]), ("1", ["부정"])])
def test_label_names_that_do_not_fit(write, label, names):
    path = write("a.tsv", f"text\tlabel\n좋아\t0\n싫어\t{label}\n")
    with pytest.raises(ValueError, match=rf"a\.tsv:3: the label {label} is not among those of label_names \(0"):
        load(path, label_names=names)


def test_a_name_or_files(write):
    with pytest.raises(ValueError, match="give either"):
        load_classification_datasets()
    with pytest.raises(ValueError, match="give either"):
        load_classification_datasets("nsmc", data_files={"train": write("a.tsv", NSMC)})


# ---------------------------------------------------------------- classes


def test_merged_labels():
    """The merged one stands where the first of its members stood; rows keep their texts."""
    before = DatasetDict({"train": emotions([1, 1, 1, 1, 1, 1])})
    after = merge_labels(before, ["슬픔+상처", "놀람=당황+불안"])["train"]
    assert class_names(after) == ["기쁨", "놀람", "분노", "슬픔+상처"]
    names = after.features["label"].int2str(after["label"])
    assert names == ["기쁨", "놀람", "분노", "놀람", "슬픔+상처", "슬픔+상처"]
    assert after["text"][:] == before["train"]["text"][:]
    assert class_names(merge_labels(before, ["슬픔=상처+슬픔"])["train"])[4] == "슬픔"


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        (["슬픔+아픔"], "there is no label '아픔' (슬픔+아픔); there are 기쁨, 당황, 분노, 불안, 상처, 슬픔"),
        (["슬픔+상처", "상처+불안"], "상처 is merged twice"),
        (["슬픔+슬픔"], "슬픔 is merged twice"),
        (["슬픔"], "'슬픔' is not of the form 슬픔+상처"),
        (["아픔=슬픔"], "'아픔=슬픔' is not of the form"),
        (["슬픔+"], "there is no label ''"),
        (["기쁨=슬픔+상처"], "기쁨 is the name of another label (기쁨=슬픔+상처)"),
        (["가=슬픔+상처", "가=당황+불안"], "가 is the name of another label (가=당황+불안)"),
    ],
)
def test_impossible_merges(merges, message):
    with pytest.raises(ValueError, match=re.escape(f"merge_labels: {message}")):
        merge_labels(DatasetDict({"train": emotions([1] * 6)}), merges)


def test_every_class_needs_a_row():
    check_classes(emotions([1] * 6))
    with pytest.raises(ValueError, match="the training data has no row of the class 분노, 상처: add some, merge"):
        check_classes(emotions([3, 1, 0, 2, 0, 1]))


def test_no_warning_where_nothing_is_dropped(write, caplog):
    with caplog.at_level(logging.WARNING):
        load(write("a.tsv", "text\tlabel\n좋아\t기쁨\n\n싫어\t분노\n"))
    assert caplog.text == ""


@pytest.mark.parametrize("label", ["Good", "ｇood", "good\u200b", "\ufeffgood"])
def test_labels_that_differ_only_in_what_is_hard_to_see_are_errors(write, label):
    path = write("a.csv", f"text,label\n가,{label}\n나,good\n다,good\n")
    with pytest.raises(ValueError, match=r"a\.csv:2: the labels .* differ only in case, white space or variants"):
        load(path)


def test_a_row_without_the_column_of_texts_is_an_error(write):
    path = write("a.jsonl", '{"text": "가", "label": "a"}\n{"txt": "나", "label": "b"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl:2: no column text; its columns are txt, label"):
        load(path)
