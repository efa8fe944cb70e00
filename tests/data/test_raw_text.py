import json

import pytest
from datasets import Dataset

from bilstm_crf_hf.data.raw_text import read_all, read_texts

TEXTS = ["손흥민은 춘천에서 태어났다.", "  ", '김연아는, "지난해" 서울로 돌아왔다.']


@pytest.mark.parametrize("suffix", ["txt", "parquet", "json", "jsonl", "csv"])
@pytest.mark.parametrize("column", ["text", "review"])
def test_a_file_gives_the_texts_that_were_written(tmp_path, suffix, column):
    path = tmp_path / f"texts.{suffix}"
    rows = Dataset.from_dict({column: TEXTS, "id": [1, 2, 3]})
    if suffix == "txt":
        path.write_text("\n".join(TEXTS), encoding="utf-8")
        column = "text"
    elif suffix == "csv":
        rows.to_csv(path)
    elif suffix == "parquet":
        rows.to_parquet(path)
    else:
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    assert list(read_texts(str(path), column)) == TEXTS
    assert list(read_texts(f"{path}:{column}")) == TEXTS


def test_lists_of_strings_are_joined(tmp_path):
    Dataset.from_dict({"tokens": [["부", "산", " ", "에"], ["서울"]]}).to_parquet(tmp_path / "a.parquet")
    assert list(read_texts(str(tmp_path / "a.parquet"), "tokens")) == ["부산 에", "서울"]
    Dataset.from_dict({"tokens": [["New", "York", "."], ["a"], []]}).to_parquet(tmp_path / "b.parquet")
    assert list(read_texts(str(tmp_path / "b.parquet"), "tokens")) == ["New York .", "a", ""]


def test_a_file_whose_name_has_a_colon_is_that_file(tmp_path):
    (tmp_path / "a:b.txt").write_text("서울", encoding="utf-8")
    assert list(read_texts(str(tmp_path / "a:b.txt"))) == ["서울"]


def test_all_files_in_order_without_blank_texts_which_are_counted(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    Dataset.from_dict({"review": ["서울", ""]}).to_parquet(tmp_path / "b.parquet")
    files = [f"{tmp_path}/b.parquet:review", f"{tmp_path}/a.txt", f"{tmp_path}/b.parquet:review"]
    assert read_all(files) == ["서울", TEXTS[0], TEXTS[2], "서울"]
    assert [int(record.args[1]) for record in caplog.records] == [1, 1, 1]
    assert "a.txt: dropped 1 texts without a visible character" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"text": "서울"}\n{"text": null}\n', "2: column text holds null, not a string"),
        ("a.jsonl", '{"text": 1}\n', "1: column text holds 1, not a string"),
        ("a.jsonl", '{"review": "서울", "id": 1}\n', "1: no column text; its columns are review, id"),
        ("a.xyz", "서울", " unknown suffix '.xyz'; known are .txt, .jsonl"),
    ],
    ids=["null", "numbers", "no column", "suffix"],
)
def test_what_is_no_text_is_refused_with_its_row(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{name}:{message}"):
        list(read_texts(str(tmp_path / name)))


@pytest.mark.parametrize("column", ["", ":review"])
def test_a_file_that_is_not_there_is_named(tmp_path, column):
    with pytest.raises(FileNotFoundError, match=r"none\.parquet: no such file"):
        list(read_texts(f"{tmp_path}/none.parquet{column}"))
