"""Parquet files and sheets that are damaged, or hold more than texts."""

import datetime
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from raw_xlsx import xlsx

from bilstm_crf_hf.data.rows import read_rows
from bilstm_crf_hf.data.tables import check_parquet

ROWS = [{"text": f"문장 {i}"} for i in range(16)]


def columns_of(path: Path) -> list[dict]:
    return [row.columns for row in read_rows(path)]


# ---------------------------------------------------------------- Parquet


@pytest.mark.parametrize(("group_size", "changed"), [(6, 6), (16, 16), (6, 4)], ids=["group", "file", "last group"])
def test_rows_of_parquet_are_counted_against_its_metadata(tmp_path, group_size, changed):
    """Each number in the footer that may be a number of rows is made smaller, as a damaged byte would be."""
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=group_size)
    content = (tmp_path / "a.parquet").read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    refused = []
    for position in range(footer, len(content) - 8):
        if content[position] == 2 * changed:  # Thrift's zigzag code
            (tmp_path / "a.parquet").write_bytes(content[:position] + b"\x04" + content[position + 1 :])
            try:
                assert columns_of(tmp_path / "a.parquet") == ROWS
            except ValueError as error:
                refused.append(str(error))
    assert any("by its metadata" in message or "in its row groups" in message for message in refused)
    assert all(str(tmp_path / "a.parquet") in message for message in refused)


def test_damaged_pages_are_found_by_their_checksums(tmp_path):
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", **options)
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content.replace("문장 7".encode(), "문장 8".encode(), 1))
    for read in (columns_of, check_parquet):
        with pytest.raises(ValueError, match=r"a\.parquet: not a Parquet file that can be read: .*CRC checksum"):
            read(tmp_path / "a.parquet")


def test_values_that_python_cannot_hold_are_refused_with_the_file(tmp_path):
    no_text = pa.array([b"\xff"]).view(pa.string())
    for i, column in enumerate([no_text, pa.array([2**31 - 1], pa.date32()), pa.array([2**60], pa.timestamp("ms"))]):
        pq.write_table(pa.table({"text": column}), tmp_path / f"{i}.parquet")
        with pytest.raises(ValueError, match=rf"{i}\.parquet: not a Parquet file that can be read") as raised:
            columns_of(tmp_path / f"{i}.parquet")
        assert type(raised.value) is ValueError


def test_two_columns_of_one_name_are_refused(tmp_path):
    pq.write_table(pa.table([["가"], ["나"]], names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: .*two columns have the same name \(text\)"):
        columns_of(tmp_path / "a.parquet")


def test_types_that_no_feature_has_are_read(tmp_path):
    table = pa.table({"text": ["가"], "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))})
    pq.write_table(table, tmp_path / "a.parquet")
    assert columns_of(tmp_path / "a.parquet") == [{"text": "가", "map": [("k", 1)]}]


def test_a_folder_is_read_whole_or_refused(tmp_path):
    for name, row in (("b.PARQUET", ROWS[1]), ("a.parquet", ROWS[0])):
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / name)
    assert columns_of(tmp_path) == ROWS[:2]
    (tmp_path / "more").mkdir()
    (tmp_path / "a.parquet").rename(tmp_path / "more" / "c.parquet")
    with pytest.raises(ValueError, match=r"more/c\.parquet: lies in a subfolder of"):
        columns_of(tmp_path)


# ---------------------------------------------------------------- sheets


@pytest.fixture
def save(tmp_path):
    """Write a workbook with openpyxl: a list of rows for each sheet."""
    openpyxl = pytest.importorskip("openpyxl")

    def save(*sheets: list[list], hidden: int = 0) -> Path:
        book = openpyxl.Workbook()
        book.remove(book.active)
        for i, rows in enumerate(sheets):
            sheet = book.create_sheet(f"표{i}")
            sheet.sheet_state = "hidden" if i < hidden else "visible"
            for row in rows:
                sheet.append(row)
        book.save(tmp_path / "a.xlsx")
        return tmp_path / "a.xlsx"

    return save


def test_columns_without_a_name_are_numbered_and_empty_rows_skipped(save):
    path = save([[None, "text"], [1, "가"], [None, None], ["x"], [None, "나", "메모"]])
    rows = list(read_rows(path))
    assert [row.columns for row in rows] == [
        {"column 1": 1, "text": "가"},
        {"column 1": "x", "text": None},
        {"column 3": "메모", "text": "나"},
    ]
    assert [row.place[-5:] for row in rows] == ["row 2", "row 4", "row 5"]


def test_cells_keep_their_types(save):
    date = datetime.datetime(2024, 1, 2)
    assert columns_of(save([["text", 7], [date, True], [1.5, 3], ["007", "TRUE"]])) == [
        {"text": date, "7": True},
        {"text": 1.5, "7": 3},
        {"text": "007", "7": "TRUE"},
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["가", "#N/A"], r"a\.xlsx: row 3: column 2 holds the error #N/A: correct it"),
        (["=A1", "x"], r"a\.xlsx: row 3: column 1 holds a formula without a value: .* save it again"),
    ],
)
def test_errors_and_formulas_without_values_are_no_texts(save, row, message):
    path = save([["text", "label"], ["나", "x"], row])
    rows = read_rows(path)
    assert next(rows).columns == {"text": "나", "label": "x"}
    with pytest.raises(ValueError, match=message):
        next(rows)


def test_a_text_that_looks_like_an_error_is_a_text(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(xlsx([["text"], ["#N/A"], ["=A1"]]))
    assert columns_of(tmp_path / "a.xlsx") == [{"text": "#N/A"}, {"text": "=A1"}]


def test_the_value_of_a_formula_is_the_one_that_the_file_stores(tmp_path):
    cells = ['<c r="A{0}" t="inlineStr"><is><t>text</t></is></c>', '<c r="A{0}" t="str"><f>B1</f><v>가</v></c>']
    cells += ['<c r="A{0}" t="str"><f>""</f><v></v></c>', '<c r="A{0}"><f>1+1</f><v>2</v></c>']
    rows = "".join(f'<row r="{i}">{cell.format(i)}</row>' for i, cell in enumerate(cells, 1))
    (tmp_path / "a.xlsx").write_bytes(xlsx(rows))
    assert columns_of(tmp_path / "a.xlsx") == [{"text": "가"}, {"text": 2}]  # the third one is empty


def test_codes_of_control_characters_are_these_characters(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(xlsx([["text"], ["가_x000D_\n나"], [" _x0041_ "]]))
    assert columns_of(tmp_path / "a.xlsx") == [{"text": "가\r\n나"}, {"text": " _x0041_ "}]


def test_the_log_names_the_sheet_that_is_read(save, caplog):
    assert columns_of(save([["비밀"]], [["text"], ["가"]], [["text"], ["나"]], hidden=1)) == [{"text": "가"}]
    assert "a.xlsx: the sheet 표1 is read; the others are not: 표0, 표2" in caplog.text
    caplog.clear()
    assert columns_of(save([["text"], ["가"]])) == [{"text": "가"}]
    assert not caplog.text


ONE = '<row r="1"><c r="A1" t="s"><v>0</v></c></row>'


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ONE + ONE, "row 1 follows row 1"),
        (ONE + '<row r="99999999999"><c><v>1</v></c></row>', "row 99999999999 follows row 1"),
        (ONE + '<row r="2"><c r="A3"><v>1</v></c></row>', "row 2 follows row 1"),
        (ONE + '<row r="2"><c r="B2"><v>1</v></c><c r="A2"><v>1</v></c></row>', r"row 2 has the columns \[2, 1\]"),
        (ONE + '<row r="2"><c r="A2" t="s"><v>-1</v></c></row>', "KeyError: -1"),
        (ONE + '<row r="2"><c r="A2" t="s"><v>5</v></c></row>', "KeyError: 5"),
        (ONE + '<row r="2"><c r="A2"><v>x</v></c></row>', "invalid literal"),
        (ONE + "<row>", "ParseError: mismatched tag"),
    ],
)
def test_a_damaged_sheet_is_refused_with_the_file(tmp_path, rows, message):
    (tmp_path / "a.xlsx").write_bytes(xlsx(rows, "<si><t>text</t></si>"))
    with pytest.raises(ValueError, match=rf"a\.xlsx: not an xlsx file that can be read: .*{message}"):
        columns_of(tmp_path / "a.xlsx")


def test_a_sheet_that_would_fill_the_memory_is_refused(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(xlsx(ONE, f"<si><t>{'a' * 2**27}</t></si>"))
    assert (tmp_path / "a.xlsx").stat().st_size < 2**18
    with pytest.raises(
        ValueError, match=r"a\.xlsx: .*unpacked it would take 134,\d+,\d+ bytes, over 100 times its size"
    ):
        columns_of(tmp_path / "a.xlsx")


@pytest.mark.parametrize("row", [1, 2**20])
def test_a_cell_in_the_last_column_takes_no_memory(tmp_path, row):
    def cells(i: int) -> str:
        last = f'<c r="XFD{i}" t="s"><v>0</v></c>' if i == row else ""
        return f'<row r="{i}"><c r="A{i}"><v>{i}</v></c>{last}</row>'

    (tmp_path / "a.xlsx").write_bytes(xlsx("".join(map(cells, [*range(1, 1000), 2**20])), "<si><t>끝</t></si>"))
    tracemalloc.start()
    rows = columns_of(tmp_path / "a.xlsx")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows[-1] == ({"1": 2**20, "끝": None} if row == 1 else {"1": 2**20, "column 16384": "끝"})
    assert peak < 2**24


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train-00000-of-00003", "train-00002-of-00003"], r"2 files train-\*-of-00003.parquet, not 3: copy all"),
        (["train-00000-of-00001", "test-00000-of-00001"], r"files of several splits \(test, train\)"),
        (["train", "validation"], r"files of several splits \(train, validation\)"),
        ([], "no .parquet file in this folder: save a data set with to_parquet"),
    ],
)
def test_a_folder_whose_files_are_not_one_split_is_refused(tmp_path, names, message):
    for name in names:
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match=f"{tmp_path}: {message}"):
        columns_of(tmp_path)


@pytest.mark.parametrize("names", [["train-0-of-2", "train-1-of-2"], ["b", "train"]])
def test_a_folder_of_the_files_of_a_split_is_read(tmp_path, names):
    for name in names:
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / f"{name}.parquet")
    assert columns_of(tmp_path) == ROWS * 2
