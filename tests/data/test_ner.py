import json
import logging
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from bilstm_crf_hf.alignment import Span, render, spans_from_tags
from bilstm_crf_hf.data.ner import (
    from_columns,
    labels_of,
    load_ner_datasets,
    parse_inline,
    read_conll,
    read_corpus,
    read_klue_tsv,
)

KLUE = """##klue-ner-v1_dev_00000-wikitree\t<서울:LC> 간 <김구:PS>
서\tB-LC
울\tI-LC
 \tO
간\tO
 \tO
김\tB-PS
구\tI-PS

##klue-ner-v1_dev_00001-nsmc\t<두 번:QT>!
두\tB-QT
 \tI-QT
번\tI-QT
!\tO
"""
CONLL = "김구는\tB-PS\n어제\tB-DT\n저녁\tI-DT\n왔다\tO\n"
KLUE_ORDER = ["B-LC", "I-LC", "B-PS", "I-PS", "O"]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def tags_of(dataset):
    """The tags of every row as strings."""
    return [[labels_of(dataset)[i] for i in tags] for tags in dataset["tags"]]


def entities_of(dataset):
    """The entities of every row as (surface, type)."""
    return [
        [(text[span.start : span.end], span.label) for span in spans_from_tags(tags, strict=True)]
        for text, tags in zip(dataset["text"], tags_of(dataset), strict=True)
    ]


def rows_of(tokens, ner_tags, names=None):
    features = names and Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))})
    return Dataset.from_dict({"tokens": tokens, "ner_tags": ner_tags}, features=features)


def fails_at(path, line, message=""):
    return pytest.raises(ValueError, match=re.escape(f"{path}:{line}: ") + message)


# KLUE


def test_klue_tsv_gives_text_and_one_tag_a_character(write):
    dataset = read_klue_tsv(write("klue.tsv", KLUE))
    assert dataset["text"][:] == ["서울 간 김구", "두 번!"]
    assert tags_of(dataset)[0] == ["B-LC", "I-LC", "O", "O", "O", "B-PS", "I-PS"]
    assert tags_of(dataset)[1] == ["B-QT", "I-QT", "I-QT", "O"]  # the space within the entity too


def test_labels_are_alphabetical_pairs_then_o(write):
    dataset = read_klue_tsv(write("klue.tsv", KLUE))
    assert labels_of(dataset) == ["B-LC", "I-LC", "B-PS", "I-PS", "B-QT", "I-QT", "O"]
    assert dataset.features == Features(
        {"text": Value("string"), "tags": List(ClassLabel(names=["B-LC", "I-LC", "B-PS", "I-PS", "B-QT", "I-QT", "O"]))}
    )


def test_single_entity_characters_still_get_an_inside_label(write):
    assert labels_of(read_klue_tsv(write("klue.tsv", "윤\tB-PS\n은\tO\n"))) == ["B-PS", "I-PS", "O"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n\n", "\n\t\n"),
        lambda text: text.replace("\n\n", "\n\n\n \n"),
        lambda text: text.rstrip("\n"),
    ],
    ids=["crlf", "byte order mark", "tab as separator", "several blank lines", "no newline at the end"],
)
def test_copies_of_klue_with_other_white_space_are_the_same(write, change):
    dataset = read_klue_tsv(write("klue.tsv", change(KLUE)))
    assert dataset["text"][:] == ["서울 간 김구", "두 번!"]


def test_unicode_line_separators_are_characters_of_the_text(write):
    dataset = read_klue_tsv(write("klue.tsv", "김\tB-PS\n\u2028\tO\n\x85\tO\n"))
    assert dataset["text"][0] == "김\u2028\x85"


def test_neighbouring_entities_of_one_type_stay_apart(write):
    dataset = read_klue_tsv(write("klue.tsv", "한\tB-LC\n일\tB-LC\n전\tO\n"))
    assert entities_of(dataset) == [[("한", "LC"), ("일", "LC")]]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("김\tB-PS\n구는\tI-PS\n", 2, "expected one character, a tab and a tag, found '구는.*read_conll"),
        ("김\tB-PS\n구 I-PS\n", 2, "expected one character"),
        ("김\tB-PS\n##klue-1\t구\n", 2, "expected one character"),
        ("김\tPS\n", 1, "'PS' is not a BIO or BIOES tag"),
        ("##1\n김\tO\n구\tI-PS\n", 3, "I-PS cannot stand here in BIO, B-PS could"),
        ("김\tB-PS\n\n서\tB-LC\n울\tI-PS\n", 4, "I-PS cannot stand here in BIO"),
    ],
)
def test_bad_lines_of_klue_are_named(write, content, line, message):
    path = write("klue.tsv", content)
    with fails_at(path, line, message):
        read_klue_tsv(path)


# Inline marks


def test_inline_marks_become_tags_and_are_rendered_back(write):
    lines = ["<손흥민:PS>은 <춘천:LC>에서 태어났다.", "<두 번:QT>이나 <한:LC><일:LC>전을 봤다."]
    dataset = read_corpus(write("inline.txt", "\n".join(lines)))
    assert dataset["text"][:] == ["손흥민은 춘천에서 태어났다.", "두 번이나 한일전을 봤다."]
    assert entities_of(dataset) == [[("손흥민", "PS"), ("춘천", "LC")], [("두 번", "QT"), ("한", "LC"), ("일", "LC")]]
    pairs = zip(dataset["text"], tags_of(dataset), strict=True)
    assert [render(text, spans_from_tags(tags)) for text, tags in pairs] == lines


def test_parse_inline_gives_text_and_spans():
    assert parse_inline("<경찰:OG>은 <12:30:TI>에") == ("경찰은 12:30에", [Span(0, 2, "OG"), Span(4, 9, "TI")])


@pytest.mark.parametrize(
    ("line", "text", "entities"),
    [
        ("영화 <<레이:PS>>는", "영화 <레이>는", ["레이"]),
        ("<기생충>은 <봉준호:PS> 작품", "<기생충>은 봉준호 작품", ["봉준호"]),
        ("3 < 5 > <1:QT>><2:QT>", "3 < 5 > 1>2", ["1", "2"]),
        ("<한:LC><일:;LC>전, 20기:QT>", "한<일:;LC>전, 20기:QT>", ["한"]),
        ("<경찰:og> <경찰: OG> <경찰:OG", "<경찰:og> <경찰: OG> <경찰:OG", []),
    ],
)
@pytest.mark.parametrize("entity_types", [None, ["LC", "PS", "QT"]])
def test_other_angle_brackets_are_text(line, text, entities, entity_types):
    found, spans = parse_inline(line, entity_types)
    assert found == text
    assert [found[span.start : span.end] for span in spans] == entities


def test_long_lines_of_marks_take_no_time():
    line = "<가 " * 2000 + "<김구:PS> " * 2000
    assert len(parse_inline(line, ["PS"])[1]) == 2000


def test_entity_types_may_be_in_lower_case_when_listed():
    assert parse_inline("<서울:loc>은", ["loc"]) == ("서울은", [Span(0, 2, "loc")])


def test_listed_entity_types_are_the_labels_even_if_unused(write):
    dataset = read_corpus(write("inline.txt", "<김구:PS> 선생"), ["PS", "LC"])
    assert labels_of(dataset) == KLUE_ORDER
    assert tags_of(dataset) == [["B-PS", "I-PS", "O", "O", "O"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("<경찰:XX>은", r"unknown entity type XX in <경찰:XX>: add it to entity_types \(OG, PS\)"),
        ("<:OG>은", "<:OG> marks no text"),
        ("< :OG>은", "< :OG> marks no text"),
        ("<<서울:OG> 시장:PS>은", "<서울 시장:PS> marks an entity around another one"),
        ("<전 <서울:OG> <시장:PS>님:PS>은", "<전 서울 시장님:PS> marks an entity around another one"),
    ],
)
def test_bad_marks_are_named(write, line, message):
    path = write("inline.txt", f"<김구:PS> 선생\n{line}\n")
    with fails_at(path, 2, message):
        read_corpus(path, ["OG", "PS"])


def test_an_inline_file_without_any_entity_is_an_error(write):
    path = write("inline.txt", "김구 B-PS\n는 O\n")
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: no entity is marked"):
        read_corpus(path)


# CoNLL


@pytest.mark.parametrize("separator", ["\t", " ", "  "])
def test_conll_words_are_joined_by_a_space(write, separator):
    dataset = read_conll(write("words.conll", CONLL.replace("\t", separator)))
    assert dataset["text"][:] == ["김구는 어제 저녁 왔다"]
    assert entities_of(dataset) == [[("김구는", "PS"), ("어제 저녁", "DT")]]
    assert len(dataset["tags"][0]) == len("김구는 어제 저녁 왔다")


def test_bioes_tags_become_bio(write):
    bioes = CONLL.replace("B-PS", "S-PS").replace("I-DT", "E-DT")
    assert tags_of(read_conll(write("a.bioes", bioes))) == tags_of(read_conll(write("a.bio", CONLL)))


def test_columns_can_be_chosen(write):
    content = "1 김구는 NNP B-PS _\n2 왔다 VV O _\n"
    dataset = read_conll(write("words.conll", content), token_column=1, tag_column=-2)
    assert entities_of(dataset) == [[("김구는", "PS")]]


def test_comments_and_document_marks_are_skipped_but_not_tokens(write):
    content = "-DOCSTART- -X- O O\n\n# 신문\n김구는 B-PS\n# O\n왔다 O\n-DOCSTART- O\n서울 B-LC\n"
    assert read_conll(write("words.conll", content))["text"][:] == ["김구는 # 왔다", "서울"]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("김구는 B-PS\n왔다\n", 2, "expected 2 columns or more, found 1 in '왔다'"),
        ("김\tB-PS\n \tO\n", 2, "no word in .* read_klue_tsv"),
        ("김구는 B_PS\n", 1, "'B_PS' is not a BIO or BIOES tag"),
        ("김구는 U-PS\n", 1, "'U-PS' is not a BIO or BIOES tag"),
        ("# 신문\n어제 O\n저녁 I-DT\n", 3, "I-DT cannot stand here in BIO, B-DT could"),
        ("어제 B-DT\n김구는 S-PS\n", 1, "B-DT cannot stand here in BIOES, S-DT could"),
        ("어제 B-DT\n저녁 I-DT\n왔다 O\n서울 S-LC\n", 2, "I-DT cannot stand here in BIOES, E-DT could"),
    ],
)
def test_bad_lines_of_conll_are_named(write, content, line, message):
    path = write("words.conll", content)
    with fails_at(path, line, message):
        read_conll(path)


def test_a_missing_column_is_named(write):
    path = write("words.conll", CONLL)
    with fails_at(path, 1, "expected 4 columns or more, found 2"):
        read_conll(path, tag_column=3)


# Columns of tokens and tags


def test_characters_are_put_together_and_class_label_order_is_kept():
    names = ["O", "B-PS", "I-PS", "B-LC", "I-LC"]
    dataset = from_columns(rows_of([["김", "구", " ", "가"]], [[1, 2, 0, 0]], names))
    assert dataset["text"][:] == ["김구 가"]
    assert labels_of(dataset) == names
    assert dataset["tags"][:] == [[1, 2, 0, 0]]


def test_words_are_joined_and_string_tags_make_labels():
    dataset = from_columns(rows_of([["김구", "선생", "이"], ["감"]], [["B-PS", "I-PS", "O"], ["O"]]))
    assert dataset["text"][:] == ["김구 선생 이", "감"]
    assert entities_of(dataset) == [[("김구 선생", "PS")], []]
    assert labels_of(dataset) == ["B-PS", "I-PS", "O"]


def test_inside_and_outside_labels_missing_from_class_label_names_are_added():
    dataset = from_columns(rows_of([["김구", "선생"]], [[0, 1]], ["B-PS", "B-DT"]))
    assert labels_of(dataset) == ["B-PS", "B-DT", "I-DT", "I-PS", "O"]
    assert entities_of(dataset) == [[("김구", "PS"), ("선생", "DT")]]
    assert tags_of(dataset)[0][1:3] == ["I-PS", "O"]


def test_bioes_class_labels_become_alphabetical_bio():
    dataset = from_columns(rows_of([["김구", "선생", "서울"]], [[1, 3, 4]], ["O", "B-PS", "I-PS", "E-PS", "S-LC"]))
    assert labels_of(dataset) == KLUE_ORDER
    assert entities_of(dataset) == [[("김구 선생", "PS"), ("서울", "LC")]]


def test_what_the_readers_give_is_read_as_columns_again(write):
    dataset = read_klue_tsv(write("klue.tsv", KLUE))
    again = from_columns(dataset)
    assert again.features == dataset.features
    assert again.to_dict() == dataset.to_dict()


def test_selected_and_formatted_rows_are_read(write):
    rows = rows_of([["나"], ["김", "구"]], [[2], [0, 1]], ["B-PS", "I-PS", "O"]).select([1]).with_format("numpy")
    assert from_columns(rows).to_dict() == {"text": ["김구"], "tags": [[0, 1]]}


def test_a_missing_column_lists_the_columns_there_are():
    rows = Dataset.from_dict({"form": [["김"]], "ner_tags": [["O"]]})
    with pytest.raises(ValueError, match="no column tokens or words or text; its columns are form, ner_tags"):
        from_columns(rows)
    with pytest.raises(ValueError, match="no column labels; its columns are form, ner_tags"):
        from_columns(rows, text_column="form", label_column="labels")
    assert from_columns(rows, text_column="form")["text"][:] == ["김"]


@pytest.mark.parametrize(
    ("tokens", "tags", "names", "message"),
    [
        (["김", "구"], ["B-PS"], None, "2 tokens in column tokens, but 1 tags in column ner_tags"),
        (["김", "구"], None, None, "2 tokens in column tokens, but 0 tags in column ner_tags"),
        (["김", "구"], ["O", "I-PS"], None, "token 1: I-PS cannot stand here in BIO"),
        (["김", "구"], ["O", "PS"], None, "'PS' is not a BIO or BIOES tag"),
        (["김", ""], ["O", "O"], None, "a token or tag is null or empty"),
        (["김", None], ["O", "O"], None, "a token or tag is null or empty"),
        (["김", "구"], ["O", None], None, "a token or tag is null or empty"),
        (["김", "구"], [0, None], ["O"], "a token or tag is null or empty"),
        (["김"], [-1], ["O"], "-1"),  # what the Hub's unlabelled test splits hold
    ],
)
def test_bad_rows_are_named(tokens, tags, names, message):
    good = [0] if names else ["O"]
    with pytest.raises(ValueError, match=f"corpus: row 1: .*{message}"):
        from_columns(rows_of([["김"], tokens], [good, tags], names), source="corpus")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            {"tokens": [[1, 2]], "ner_tags": [["O", "O"]]},
            "column tokens holds .*expected a string or a list of strings",
        ),
        ({"tokens": [["김"]], "ner_tags": [[0]]}, "column ner_tags holds .*ClassLabel"),
        ({"tokens": [["김"]], "ner_tags": ["O"]}, "column ner_tags holds .*expected a list"),
    ],
)
def test_columns_of_another_type_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        from_columns(Dataset.from_dict(rows))


def test_class_label_names_that_are_no_tags_are_named():
    with pytest.raises(ValueError, match="column ner_tags: 'PS' is not a BIO or BIOES tag"):
        from_columns(rows_of([["김"]], [[0]], ["PS", "O"]))


# All files


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff", " \n\t\n"])
@pytest.mark.parametrize("read", [read_klue_tsv, read_corpus, read_conll])
def test_a_file_without_sentences_is_an_error(write, read, content):
    path = write("empty", content)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: no sentence in it"):
        read(path)


@pytest.mark.parametrize("read", [read_klue_tsv, read_corpus, read_conll])
def test_a_file_that_is_not_utf8_is_named_with_line_and_byte(write, read):
    path = write("cp949.tsv", b"\xef\xbb\xbfO\tO\n" + "김\tO\n".encode("cp949"))
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}:2: byte 1 of the line is not UTF-8"):
        read(path)


@pytest.mark.parametrize("read", [read_klue_tsv, read_corpus, read_conll])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tsv"):
        read(tmp_path / "nowhere.tsv")


def test_sentences_without_text_are_dropped_and_counted(write, caplog):
    path = write("inline.txt", "<김구:PS> 선생\n\n \u3000 \n서울\n")
    with caplog.at_level(logging.WARNING, logger="bilstm_crf_hf.data.ner"):
        assert read_corpus(path)["text"][:] == ["김구 선생", "서울"]
    assert caplog.messages == [f"{path}: dropped 2 sentences without text"]
    caplog.clear()
    read_klue_tsv(write("klue.tsv", KLUE))
    assert not caplog.messages


# Splits


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("klue.tsv", KLUE, "서울 간 김구"),
        ("klue.tsv", "김\tB-PS\n구\tI-PS\n \tO\n가\tO\n", "김구 가"),
        ("klue.txt", KLUE, "서울 간 김구"),
        ("words.tsv", CONLL, "김구는 어제 저녁 왔다"),
        ("words.tsv", "그\tO\n사람\tO\n", "그 사람"),
        ("words.txt", CONLL, "김구는 어제 저녁 왔다"),
        ("inline.txt", "\n<김구:PS>는 왔다\n", "김구는 왔다"),
        ("words.conll", CONLL, "김구는 어제 저녁 왔다"),
        ("words.bio", CONLL, "김구는 어제 저녁 왔다"),
        ("words.iob2", CONLL, "김구는 어제 저녁 왔다"),
        ("words.BIOES", CONLL.replace("B-PS", "S-PS").replace("I-DT", "E-DT"), "김구는 어제 저녁 왔다"),
        ("rows.jsonl", '{"tokens": ["김구", "왔다"], "ner_tags": ["B-PS", "O"]}\n\n', "김구 왔다"),
        ("rows.json", '\n[{"tokens": ["김구", "왔다"],\n "ner_tags": ["B-PS", "O"]}]\n', "김구 왔다"),
        ("rows.json", '{"text": "김구", "tags": ["B-PS", "I-PS"]}', "김구"),
    ],
)
def test_the_format_follows_from_the_name(write, name, content, text):
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
        ("a.tsv", "", r"a\.tsv: no sentence in it"),
        ("a.txt", "", r"a\.txt: no sentence in it"),
        (
            "a.csv",
            "김,O",
            r"a\.csv: unknown suffix '\.csv'; known are \.parquet, \.jsonl, \.json, \.txt, \.tsv, \.conll",
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


def test_hub_data_sets_are_read_by_name(monkeypatch):
    rows = rows_of([["김", "구"]], [[1, 2]], ["O", "B-PS", "I-PS"])
    bad = rows_of([["김", "구"]], [[0, 2]], ["O", "B-PS", "I-PS"])
    hub = {("klue", "ner"): DatasetDict(train=rows, validation=rows), ("klue", None): DatasetDict(test=bad)}
    monkeypatch.setattr("bilstm_crf_hf.data.splits.load_dataset", lambda *name, revision: hub[name])
    splits = load_ner_datasets("klue", "ner")
    assert list(splits) == ["train", "validation"]
    assert splits["train"].to_dict() == {"text": ["김구"], "tags": [[1, 2]]}
    with pytest.raises(ValueError, match=r"klue \(test\): row 0: token 1: I-PS cannot stand here"):
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
