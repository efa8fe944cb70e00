import csv
import json
import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List

from bilstm_crf_hf.data.rows import class_label, dataset_rows, read_features, read_lines, read_rows, typed_rows

ROWS = [{"id": "1", "text": '손흥민은, "춘천"에서'}, {"id": "2", "text": " "}, {"id": "3", "text": "태어났다 😀"}]
TEXT_TYPES = [".txt", ".jsonl", ".csv", ".tsv"]


def write(path: Path, rows: list[dict]) -> Path:
    """A file of its type, written without the package."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".xlsx":
        book = pytest.importorskip("openpyxl").Workbook()
        for cells in (rows[0].keys(), *(row.values() for row in rows)):
            book.active.append(list(cells))
        book.save(path)
    else:
        lines = {
            ".txt": [row["text"] for row in rows],
            ".jsonl": map(json.dumps, rows),
            ".json": [json.dumps(rows, indent=1)],
            ".tsv": ["id\ttext", *("\t".join(row.values()) for row in rows)],
        }[path.suffix]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


VALUES = [
    "NA",
    "null",
    "",
    "nan",
    "007",
    "1.0",
    "1e5",
    "True",
    "2024-01-02",
    "2024-01-02T03:04:05Z",
    "=1+1",
    " a ",
    "'1",
]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".xlsx"])
def test_strings_stay_as_they_are(tmp_path, suffix):
    rows = [
        {"id": str(i), "text": value}
        for i, value in enumerate(VALUES)
        if suffix != ".xlsx" or value not in ("", "=1+1")
    ]
    assert [row.columns for row in read_rows(write(tmp_path / f"a{suffix}", rows))] == rows


@pytest.mark.parametrize("name", ["v[12]", "v?", "v*", "{v1,v2}", "**"])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".tsv", ".parquet", ".xlsx"])
def test_a_name_is_no_pattern(tmp_path, name, suffix):
    for folder, text in (("v1", "틀림"), ("v2", "틀림"), (name, "맞음")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / f"{name}{suffix}", [{"id": "1", "text": text}])
    for path in (tmp_path / name / f"{name}{suffix}", tmp_path / name)[: 2 if suffix == ".parquet" else 1]:
        assert [row.columns["text"] for row in typed_rows(path, "")[0]] == ["맞음"]
    (tmp_path / name / f"{name}{suffix}").unlink()
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_rows(tmp_path / name / f"{name}{suffix}")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_field_may_be_longer_than_the_limit_of_the_csv_module(tmp_path, suffix):
    rows = [{"id": "1", "text": "가, " * 50_000}]
    previous = csv.field_size_limit(131_072)
    try:
        assert [row.columns for row in read_rows(write(tmp_path / f"a{suffix}", rows))] == rows
    finally:
        csv.field_size_limit(previous)


@pytest.mark.parametrize(
    ("suffix", "places"),
    [
        (".txt", [":1", ":2", ":3"]),
        (".jsonl", [":1", ":2", ":3"]),
        (".json", [": row 0", ": row 1", ": row 2"]),
        (".csv", [":2", ":3", ":4"]),
        (".tsv", [":2", ":3", ":4"]),
        (".parquet", [": row 0", ": row 1", ": row 2"]),
        (".xlsx", [": row 2", ": row 3", ": row 4"]),
    ],
)
def test_every_file_type_gives_the_rows_that_were_written_with_their_places(tmp_path, suffix, places):
    path = write(tmp_path / f"a{suffix}", ROWS)
    rows = list(read_rows(path))
    expected = [{"text": row["text"]} for row in ROWS] if suffix == ".txt" else ROWS
    assert [row.columns for row in rows] == expected
    assert [row.place for row in rows] == [f"{path}{place}" for place in places]
    assert list(read_rows(path.rename(tmp_path / f"b{suffix.upper()}")))[2].columns == expected[2]


def test_rows_of_a_folder_are_those_of_its_files_by_name(tmp_path):
    for name, row in (("b", ROWS[1]), ("a", ROWS[0])):
        write(tmp_path / f"{name}.parquet", [row])
    rows = list(read_rows(tmp_path))
    assert [row.columns for row in rows] == ROWS[:2]
    assert [row.place for row in rows] == [f"{tmp_path}/{name}.parquet: row 0" for name in "ab"]


@pytest.mark.parametrize("suffix", TEXT_TYPES)
def test_rows_before_a_broken_one_are_read(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", ROWS)
    path.write_bytes(path.read_bytes() + b"\xff\n")
    rows = read_rows(path)
    assert [next(rows).columns["text"] for _ in ROWS] == [row["text"] for row in ROWS]
    number = len(path.read_bytes().splitlines())
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}:{number}: byte 1 of the line is not UTF-8"):
        next(rows)


@pytest.mark.parametrize("suffix", TEXT_TYPES)
def test_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", ROWS)
    expected = list(read_rows(path))
    lines = path.read_bytes().replace(b"\r\n", b"\n")
    path.write_bytes(b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n"))
    assert list(read_rows(path)) == expected


@pytest.mark.parametrize(("suffix", "count"), [(".txt", 3), (".jsonl", 2), (".csv", 2), (".tsv", 2)])
def test_blank_lines_are_rows_of_txt_alone(tmp_path, suffix, count):
    path = write(tmp_path / f"a{suffix}", ROWS[::2])
    path.write_text(path.read_text(encoding="utf-8").replace("\n", "\n\n", 1), encoding="utf-8")
    rows = list(read_rows(path))
    assert len(rows) == count
    assert rows[-1].columns["text"] == ROWS[2]["text"]


def test_lines_end_at_newlines_only(tmp_path):
    (tmp_path / "a.txt").write_bytes("가\u2028나\x85\x0b\r다\r\n\n라".encode())
    assert list(read_lines(tmp_path / "a.txt")) == ["가\u2028나\x85\x0b\r다", "", "라"]


def test_a_quoted_field_keeps_its_line_ends_and_is_named_by_its_last_line(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'text,n\r\n"a\r\nb",1\r\nc,2\r\n')
    rows = list(read_rows(tmp_path / "a.csv"))
    assert [row.columns["text"] for row in rows] == ["a\r\nb", "c"]
    assert [row.place.rpartition(":")[2] for row in rows] == ["3", "4"]


def test_a_file_can_be_read_as_another_type(tmp_path):
    path = write(tmp_path / "a.tsv", ROWS).rename(tmp_path / "ratings.txt")
    assert [row.columns for row in read_rows(path, ".tsv")] == ROWS


def test_a_whole_character_in_two_escapes_is_text_and_half_of_one_is_not(tmp_path):
    (tmp_path / "a.json").write_text(r'[{"text": "\ud83d\ude00"}, {"text": ["\uD83D"]}]')
    rows = read_rows(tmp_path / "a.json")
    assert next(rows).columns == {"text": "😀"}
    with pytest.raises(ValueError, match=r"a\.json: row 1: '\\ud83d' is half of a character"):
        next(rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '\n[{"a": 1},\n {"a" 2}]', r"a\.json:3: Expecting ':' delimiter, column 7; expected an obj"),
        ("a.json", "[[1]]", r"a\.json: row 0: expected an object, found \[1\]"),
        ("a.jsonl", '{"a": 1}\n"b"', r'a\.jsonl:2: expected an object, found "b"'),
        ("a.tsv", "a\tb\ta\n1\t2\t3\n", r"a\.tsv:1: two columns have the same name \(a, b, a\): rename one"),
        ("a.csv", 'a,b\n1,"2"3\n', r"a\.csv:2: .*: correct the quotation marks"),
        ("a.csv", "a,b\n1,2\r3,4\n", r"a\.csv:2: new-line character .*: correct the quotation marks or the end"),
        ("a.csv", "a,b\r1,2\r", r"a\.csv: the lines end with \\r alone: convert the file"),
        ("a.txt", "가\r나", r"a\.txt: the lines end with \\r alone: convert the file"),
        ("a.csv", "text;label\n1;2\n", r"a\.csv:1: the header is one column, 'text;label', with ';' in its name"),
        ("a.csv", "text\tlabel\n1\t2\n", r"a\.csv:1: the header is one column, 'text\\tlabel', with '\\t' in its name"),
        ("a.tsv", "text,label\n1,2\n", r"a\.tsv:1: the header is one column, 'text,label', with ',' in its name"),
        ("a.csv", "a,,\n1,2,3\n", r"a\.csv:1: two columns have the same name \(a, , \)"),
        ("a.jsonl", '{"a": 1}\nnull\n', r"a\.jsonl:2: expected an object, found null"),
        ("a.jsonl", '{"a": 1}\n{"a": 2}{"a": 3}\n', r"a\.jsonl:2: Extra data, column 9; expected an object a line"),
        ("a.jsonl", '{"a": 1},\n', r"a\.jsonl:1: Extra data"),
        ("a.jsonl", '{\n"a": 1\n}\n', r"a\.jsonl:1: Expecting property name .*; expected an object a line"),
        ("a.jsonl", '{"a": 1}\n{"b": [1, 2', r"a\.jsonl:2: Expecting ',' delimiter"),
        ("a.jsonl", '{"a": 1}\n{"a": {"b": 1, "c": 2, "b": 3}}\n', r"a\.jsonl:2: the key 'b' occurs twice in an"),
        ("a.json", '[{"a": 1},\n{"a": 1, "a": 2}]', r"a\.json: row 1: the key 'a' occurs twice in an object"),
        ("a.jsonl", '{"a": [NaN]}', r"a\.jsonl:1: nan is not a number in JSON"),
        ("a.json", '[{"a": -Infinity}]', r"a\.json: row 0: -inf is not a number in JSON"),
        ("a.json", '[{"a": 1e999}]', r"a\.json: row 0: inf is not a number in JSON, or too large"),
        ("a.jsonl", f'{{"a": {"9" * 5000}}}', r"a\.jsonl:1: Exceeds the limit"),
        ("a.jsonl", f'{{"a": {"[" * 100_000}', r"a\.jsonl:1: too many lists or objects in each other"),
        ("a.json", f'[{{"a": {"[" * 900}{"]" * 900}}}]', r"a\.json: row 0: more than 60 lists or objects"),
        ("a.json", f'[{"[" * 900}{"]" * 900}]', r"a\.json: row 0: more than 60 lists or objects in each other"),
        ("a.jsonl", '{"a": "\t"}', r"a\.jsonl:1: Invalid control character"),
        ("a.json", '[{"a": 1},]', r"a\.json:1: "),
        ("a.json", '[{"a": 1}] 2', r"a\.json:1: Extra data"),
        ("a.jsonl.gz", "", r"a\.jsonl\.gz: unknown suffix '\.gz'"),
        ("a.xyz", "", r"a\.xyz: unknown suffix '\.xyz'; known are \.txt, \.jsonl, \.json, \.csv, \.tsv, \.parquet"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_with_line_or_row(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        list(read_rows(tmp_path / name))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.tsv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "cp949"])
def test_another_encoding_is_named_with_what_converts_it(tmp_path, name, encoding):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / name).write_bytes(f"{mark}텍스트,값\n".encode(encoding))
    problem = f"{name}:1: byte 1 of the line is not UTF-8 .* as iconv -f {encoding.removesuffix('-be')} does"
    with pytest.raises(ValueError, match=problem):
        list(read_rows(tmp_path / name))


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".parquet", ".xlsx"])
def test_a_folder_or_pipe_is_no_file(tmp_path, suffix):
    (tmp_path / f"folder{suffix}").mkdir()
    for read_as in (None, suffix):
        with pytest.raises(ValueError, match=r"folder\..*: no \.parquet file in this folder"):
            list(read_rows(tmp_path / f"folder{suffix}", read_as))
    os.mkfifo(tmp_path / f"pipe{suffix}")
    with pytest.raises(ValueError, match=r"pipe\..*: a pipe or device, which can be read only once"):
        list(read_rows(tmp_path / f"pipe{suffix}"))


def test_a_link_is_the_file_that_it_names(tmp_path):
    write(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "a.jsonl")
    (tmp_path / "c.jsonl").symlink_to(tmp_path / "none.jsonl")
    assert [row.columns for row in read_rows(tmp_path / "b.jsonl")] == ROWS
    with pytest.raises(FileNotFoundError, match=r"c\.jsonl: no such file"):
        read_rows(tmp_path / "c.jsonl")


def test_nul_is_a_character_of_a_text(tmp_path):
    for name in ("a.txt", "a.tsv", "a.jsonl"):
        path = write(tmp_path / name, [{"id": "1", "text": "가\0나"}])
        assert [row.columns["text"] for row in read_rows(path)] == ["가\0나"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: no such file or folder"):
        read_rows(tmp_path / "none.jsonl")


def test_column_types_and_label_names_are_those_that_parquet_stores(tmp_path):
    features = Features({"tags": List(ClassLabel(names=["O", "B-PS"])), "label": ClassLabel(names=["b", "a"])})
    rows = Dataset.from_dict({"tags": [[0, 1]], "label": [1]}, features=features)
    rows.to_parquet(tmp_path / "a.parquet")
    stored = read_features(tmp_path / "a.parquet")
    assert stored == features
    assert class_label(stored, "tags").names == ["O", "B-PS"]
    assert class_label(stored, "label").names == ["b", "a"]
    assert class_label(stored, "text") is None
    assert read_features(write(tmp_path / "a.csv", ROWS)) == {}


def test_rows_of_a_data_set_are_in_its_order_whatever_its_format():
    dataset = Dataset.from_dict({"id": list(range(3000))}).select(range(2999, -1, -1)).with_format("numpy")
    rows = list(dataset_rows(dataset, "corpus"))
    assert [row.columns["id"] for row in rows] == list(range(2999, -1, -1))
    assert rows[2000].place == "corpus: row 2000"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_its_mark_is_named(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("text\n".encode(encoding))  # valid UTF-8, with NUL characters
    with pytest.raises(ValueError, match=r"a\.txt:1: .* UTF-16: convert the file, as iconv -f utf-16 does"):
        list(read_rows(tmp_path / "a.txt"))
