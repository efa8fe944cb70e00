import json
import re

import pytest
from corpora import entities_of, marked, read_corpus, tags_of
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from bilstm_crf_hf.data.ner import labels_of, load_ner_datasets

KLUE_ORDER = ["B-LC", "I-LC", "B-PS", "I-PS", "O"]


def rows_of(tokens, ner_tags, names=None):
    features = names and Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))})
    return Dataset.from_dict({"tokens": tokens, "ner_tags": ner_tags}, features=features)


@pytest.fixture
def read(monkeypatch):
    """Read a data set as if it were on the Hub."""

    def read(rows: Dataset, **options) -> Dataset:
        monkeypatch.setattr("bilstm_crf_hf.data.splits.load_dataset", lambda *_, **__: DatasetDict(train=rows))
        return load_ner_datasets("corpus", **options)["train"]

    return read


@pytest.fixture
def read_json(write):
    """Read rows from a file of an object a line, or from an array."""

    def read_json(*rows, name="rows.jsonl", **options) -> Dataset:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        content = "\n".join(lines) if name.endswith("jsonl") else f"[{', '.join(lines)}]"
        return read_corpus(write(name, content), **options)

    return read_json


# Tokens with tags


def test_characters_are_put_together_and_class_label_order_is_kept(read):
    names = ["O", "B-PS", "I-PS", "B-LC", "I-LC"]
    dataset = read(rows_of([["김", "구", " ", "가"]], [[1, 2, 0, 0]], names))
    assert dataset["text"][:] == ["김구 가"]
    assert labels_of(dataset) == names
    assert dataset["tags"][:] == [[1, 2, 0, 0]]


def test_words_are_joined_and_string_tags_make_labels(read):
    dataset = read(rows_of([["김구", "선생", "이"], ["감"]], [["B-PS", "I-PS", "O"], ["O"]]))
    assert dataset["text"][:] == ["김구 선생 이", "감"]
    assert entities_of(dataset) == [[("김구 선생", "PS")], []]
    assert labels_of(dataset) == ["B-PS", "I-PS", "O"]


def test_inside_and_outside_labels_missing_from_class_label_names_are_added(read):
    dataset = read(rows_of([["김구", "선생"]], [[0, 1]], ["B-PS", "B-DT"]))
    assert labels_of(dataset) == ["B-PS", "B-DT", "I-DT", "I-PS", "O"]
    assert entities_of(dataset) == [[("김구", "PS"), ("선생", "DT")]]
    assert tags_of(dataset)[0][1:3] == ["I-PS", "O"]


@pytest.mark.parametrize("letters", ["BIES", "BILU"])
def test_other_class_labels_become_alphabetical_bio(read, letters):
    b, i, e, s = letters
    names = ["O", f"{b}-PS", f"{i}-PS", f"{e}-PS", f"{s}-LC"]
    dataset = read(rows_of([["김구", "선생", "서울"]], [[1, 3, 4]], names))
    assert labels_of(dataset) == KLUE_ORDER
    assert entities_of(dataset) == [[("김구 선생", "PS"), ("서울", "LC")]]


def test_class_labels_in_iob1_are_converted(read, caplog):
    caplog.set_level("INFO")
    names = ["O", "B-PS", "I-PS"]
    dataset = read(rows_of([["김", "구", "윤", "동", "주", "는"]], [[2, 2, 1, 2, 2, 0]], names))
    assert marked(dataset) == ["<김구:PS><윤동주:PS>는"]
    assert labels_of(dataset) == names
    assert any("IOB1" in message for message in caplog.messages)


def test_what_the_reader_gives_is_read_again(read):
    dataset = read(rows_of([["김", "구", " ", "가"]], [["B-PS", "I-PS", "O", "O"]]))
    again = read(dataset)
    assert again.features == dataset.features
    assert again.to_dict() == dataset.to_dict()


def test_selected_and_formatted_rows_are_read(read):
    rows = rows_of([["나"], ["김", "구"]], [[2], [0, 1]], ["B-PS", "I-PS", "O"]).select([1]).with_format("numpy")
    assert read(rows).to_dict() == {"text": ["김구"], "tags": [[0, 1]]}


def test_a_missing_column_lists_the_columns_there_are(read):
    rows = Dataset.from_dict({"form": [["김"]], "ner_tags": [["B-PS"]]})
    with pytest.raises(ValueError, match="no column tokens or words or text; its columns are form, ner_tags"):
        read(rows)
    with pytest.raises(ValueError, match="no column labels; its columns are form, ner_tags"):
        read(rows, text_column="form", label_column="labels")
    assert read(rows, text_column="form")["text"][:] == ["김"]


@pytest.mark.parametrize(
    ("tokens", "tags", "names", "message"),
    [
        (["김", "구"], ["B-PS"], None, "2 tokens in column tokens, but 1 tags in column ner_tags"),
        (["김", "구"], None, None, "2 tokens in column tokens, but 0 tags in column ner_tags"),
        (["김", "구"], ["O", "I-PS"], None, "token 1: I-PS cannot stand here in BIO"),
        (["김", "구"], ["O", "PS"], None, "token 1: 'PS' is not a tag"),
        (["김", ""], ["O", "O"], None, "token 1 or its tag is null or empty"),
        (["김", None], ["O", "O"], None, "token 1 or its tag is null or empty"),
        (["김", "구"], ["O", None], None, "token 1 or its tag is null or empty"),
        (["김", "구"], [0, None], ["B-PS"], "token 1 or its tag is null or empty"),
        (["김"], [-1], ["B-PS"], "-1"),  # what the Hub's unlabelled test splits hold
        (["김구", " "], ["O", "O"], None, "token 1: the token is white space"),
    ],
)
def test_bad_rows_are_named(read, tokens, tags, names, message):
    good = [0, 0] if names else ["B-PS", "B-PS"]
    with pytest.raises(ValueError, match=rf"corpus \(train\): row 1: .*{message}"):
        read(rows_of([["김", "구"], tokens], [good, tags], names))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            {"tokens": [[1, 2]], "ner_tags": [["O", "O"]]},
            "column tokens holds .*expected a string or a list of strings",
        ),
        ({"tokens": [["김"]], "ner_tags": [[0]]}, "column ner_tags holds .*ClassLabel"),
        ({"tokens": [["김"]], "ner_tags": ["O"]}, "column ner_tags holds .*expected a list"),
        ({"tokens": ["김 구"], "ner_tags": [["O", "O"]]}, "3 tokens in column tokens, but 2 tags"),
    ],
)
def test_columns_of_another_type_are_named(read, rows, message):
    with pytest.raises(ValueError, match=message):
        read(Dataset.from_dict(rows))


def test_class_label_names_that_are_no_tags_are_named(read):
    with pytest.raises(ValueError, match="column ner_tags: 'PS' is not a tag"):
        read(rows_of([["김"]], [[0]], ["PS", "O"]))


def test_a_text_with_a_tag_a_character_is_no_list_of_tokens(read_json):
    rows = [{"text": "김구 a", "tags": ["B-PS", "I-PS", "O", "O"]}, {"text": "나", "tags": ["O"]}]
    assert marked(read_json(*rows, token_unit="word")) == ["<김구:PS> a", "나"]


# Texts with spans


def studio(*annotations, text="👍 김구는 갔다", **columns):
    """A task of Label Studio, with the entities of each annotation as (start, end, type)."""
    results = [
        [
            {
                "id": f"r{i}",
                "type": "labels",
                "from_name": "label",
                "to_name": "text",
                "value": {"start": start, "end": end, "text": text[start:end], "labels": [label]},
            }
            for i, (start, end, label) in enumerate(spans)
        ]
        for spans in annotations
    ]
    found = [{"id": i, "result": result, "was_cancelled": False} for i, result in enumerate(results)]
    return {"id": 1, "data": {"text": text}, "annotations": found, "predictions": []} | columns


MINIMAL = {"id": 1, "annotator": 1, "annotation_id": 3, "text": "👍 김구는 갔다"}
MINIMAL["label"] = [{"start": 2, "end": 4, "text": "김구", "labels": ["PS"]}]


@pytest.mark.parametrize(
    "row",
    [
        {"id": 1, "label": [[2, 4, "PS"]]},
        {"id": 1, "labels": [[2, 4, "PS"]], "Comments": []},
        {"entities": [{"id": 3, "label": "PS", "start_offset": 2, "end_offset": 4}], "relations": []},
        {"entities": [{"name": "김구", "span": [2, 4], "type": "PS"}], "curid": "3"},
        {"entities": [{"start": 2, "end": 4, "label": "PS", "text": "김구", "score": 0.9}]},
        {"spans": [{"start": 2, "end": 4, "label": "PS", "token_start": 1}], "tokens": [{"id": 0}]},
        {"entities": [[2, 4, "PS"]]},
        MINIMAL,
    ],
    ids=["doccano", "old doccano", "doccano with relations", "Stockmark", "predict", "Prodigy", "spaCy", "JSON-MIN"],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_rows_with_spans_are_read(read_json, row, name):
    (column,) = row.keys() & {"label", "labels", "entities", "spans"}
    row = {"text": "👍 김구는 갔다"} | row
    dataset = read_json(row, row | {"text": "비가 왔다", column: [], "id": 2}, name=name)
    assert marked(dataset) == ["👍 <김구:PS>는 갔다", "비가 왔다"]


def test_spans_in_parquet_are_read(read):
    rows = {"text": ["김구는", "비"], "entities": [[{"start": 0, "end": 2, "label": "PS"}], []]}
    assert marked(read(Dataset.from_dict(rows))) == ["<김구:PS>는", "비"]


def test_spans_in_any_order_and_side_by_side_are_read(read_json):
    assert marked(read_json({"text": "한일전", "label": [[1, 2, "LC"], [0, 1, "LC"]]})) == ["<한:LC><일:LC>전"]


def test_columns_of_spans_can_be_named(read_json):
    row = {"text": "x", "body": "김구는", "tags": ["뉴스"], "marks": [[0, 2, "PS"]]}
    assert marked(read_json(row, text_column="body", label_column="marks")) == ["<김구:PS>는"]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([[0, 9, "PS"]], r"the span \[0, 9, \"PS\"\] is not within the text, which has 6 characters"),
        ([[-1, 2, "PS"]], "is not within the text"),
        ([[2, 2, "PS"]], "is not within the text"),
        ([[3, 4, "PS"]], "has white space only"),
        ([[0, 2, "PS"], [1, 4, "LC"]], r"the entities '김구' \(PS\) and '구는' \(LC\) overlap"),
        ([[0, 2, "PS"], [0, 2, "PS"]], "overlap"),
        ([[0, 2, "PS"], [0, 2, "LC"]], "overlap"),
        ([[0, 2]], "expected .start, end, type."),
        ([[0, 2, ["PS", "LC"]]], "expected .start, end, type."),
        ([["0", 2, "PS"]], "expected"),
        ([[0.0, 2, "PS"]], "expected"),
        ([[True, 2, "PS"]], "expected"),
        ([[0, 2, None]], "expected"),
        ([None], "expected"),
        ([{"start": 0, "end": 2}], "expected"),
        ([{"start": 0, "end": 2, "labels": ["PS", "LC"]}], "expected"),
        ([{"start": 0, "end": 2, "labels": []}], "expected"),
        ([{"span": 3, "type": "PS"}], "expected"),
        ([{"span": [0], "type": "PS"}], "expected"),
        ([[0, 2, ""]], "the entity type '' is blank"),
        ([[0, 2, "PS "]], "the entity type 'PS ' is blank, or has blanks at an edge"),
        (
            [{"start": 1, "end": 3, "label": "PS", "text": "김구"}],
            "has the text '구는': its range has to count characters",
        ),
        ("PS", 'holds "PS"; expected a list'),
        (None, "holds null; expected a list"),
    ],
)
def test_bad_spans_are_named(read_json, spans, message):
    with pytest.raises(ValueError, match=rf"rows\.jsonl:2: .*{message}"):
        read_json({"text": "김구는 갔다", "label": [[0, 2, "PS"]]}, {"text": "김구는 갔다", "label": spans})


def test_a_row_without_spans_or_text_is_named(read_json):
    good = {"text": "김구는", "label": [[0, 2, "PS"]]}
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: column label holds null; expected a list"):
        read_json(good, {"text": "김구"})
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: the text is null, not a string"):
        read_json(good, {"label": []})


def test_white_space_at_the_edges_of_spans_is_left_out_and_counted(read_json, caplog):
    row = {"text": "  김구 는", "label": [[1, 5, "PS"], [4, 6, "LC"]]}
    assert marked(read_json(row, row)) == ["  <김구:PS> <는:LC>"] * 2
    assert [re.sub(".*: ", "", message) for message in caplog.messages] == [
        "4 spans with white space at an edge, which is left out"
    ]


# Label Studio


@pytest.mark.parametrize("name", ["tasks.json", "tasks.jsonl"])
def test_tasks_of_label_studio_are_read(read_json, name):
    tasks = [studio([(2, 4, "PS")]), studio([], text="비가 왔다")]
    assert marked(read_json(*tasks, name=name)) == ["👍 <김구:PS>는 갔다", "비가 왔다"]


def test_tasks_without_annotations_are_left_out_and_counted(read_json, caplog):
    cancelled = studio([(0, 1, "LC")], text="비")
    cancelled["annotations"][0]["was_cancelled"] = True
    assert marked(read_json(studio([(2, 4, "PS")]), studio(), cancelled)) == ["👍 <김구:PS>는 갔다"]
    assert caplog.messages[0].endswith("rows.jsonl: 2 tasks without an annotation, which are left out")


def test_relations_and_choices_are_left_out_and_counted(read_json, caplog):
    task = studio([(2, 4, "PS"), (5, 8, "LC")])
    task["annotations"][0]["result"] += [
        {"type": "relation", "from_id": "r0", "to_id": "r1", "direction": "right"},
        {"type": "choices", "value": {"choices": ["뉴스"]}},
        {"type": "textarea", "value": {"start": 2, "end": 4, "text": ["x"]}},
    ]
    assert entities_of(read_json(task)) == [[("김구", "PS"), ("갔다", "LC")]]
    assert caplog.messages[0].endswith("3 results that are no entities, which are left out")


def test_annotators_have_to_agree_or_one_to_be_the_ground_truth(read_json):
    assert marked(read_json(studio([(2, 4, "PS")], [(2, 4, "PS")]))) == ["👍 <김구:PS>는 갔다"]
    task = studio([(2, 4, "PS")], [(2, 5, "PS")])
    with pytest.raises(ValueError, match=r"rows\.json: row 1: its 2 annotations differ: keep one .* the ground truth"):
        read_json(studio([(2, 4, "PS")]), task, name="rows.json")
    task["annotations"][1]["ground_truth"] = True
    assert marked(read_json(task)) == ["👍 <김구는:PS> 갔다"]
    task["annotations"][1] |= {"ground_truth": False, "was_cancelled": True}
    assert marked(read_json(task)) == ["👍 <김구:PS>는 갔다"]


def test_annotators_in_json_min_have_to_agree(read_json):
    assert marked(read_json(MINIMAL, MINIMAL | {"annotation_id": 4})) == ["👍 <김구:PS>는 갔다"]
    empty = {key: value for key, value in MINIMAL.items() if key != "label"}
    assert marked(read_json(MINIMAL, empty | {"id": 2, "text": "비"})) == ["👍 <김구:PS>는 갔다", "비"]
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: another annotation of the task 1 differs"):
        read_json(MINIMAL, empty)


def change(task, **value):
    result = task["annotations"][0]["result"][0]
    result["value"] = {key: value.get(key, old) for key, old in result["value"].items() if value.get(key, old) != ""}
    result["type"] = value.get("type", result["type"])
    return task


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            change(studio([(2, 4, "PS")]), start=3, end=5),
            "has the text '구는': its range has to count characters",
        ),  # UTF-16
        (change(studio([(2, 4, "PS")]), labels=["PS", "LC"]), "expected"),
        (change(studio([(2, 4, "PS")]), labels=""), "expected"),
        (change(studio([(2, 4, "PS")]), type="hypertextlabels"), "a result of type hypertextlabels"),
        (studio([(2, 4, "PS")], data={"body": "김구"}), "there is no 'text' in data"),
        (studio([(2, 4, "PS")], data="김구"), 'data holds "김구"; expected a dict'),
        (studio([(2, 4, "PS")], annotations=None), "annotations holds null"),
        (studio([(2, 4, "PS")], annotations=[3]), r"annotations holds \[3\]; expected a list of objects"),
        (studio([(2, 4, "PS")], annotations=[{"result": None}]), "result holds null"),
        (studio([(2, 4, "PS")], annotations=[{"result": [{"type": "labels"}]}]), "value holds null"),
    ],
)
def test_bad_tasks_are_named(read_json, task, message):
    with pytest.raises(ValueError, match=rf"rows\.jsonl:2: .*{message}"):
        read_json(studio([(2, 4, "PS")]), task)


def test_the_key_of_the_text_can_be_named(read_json):
    task = studio([(0, 2, "PS")], text="김구는")
    task["data"] = {"title": "x", "body": "김구는"}
    assert marked(read_json(task, text_column="body")) == ["<김구:PS>는"]


def test_what_prodigys_annotators_rejected_is_left_out_and_counted(read_json, caplog):
    rows = [
        {"text": "김구는", "spans": [{"start": 0, "end": 2, "label": "PS"}], "answer": "accept"},
        {"text": "비가", "spans": [{"start": 0, "end": 1, "label": "PS"}], "answer": "reject"},
        {"text": "눈이", "spans": [], "answer": "ignore"},
    ]
    assert marked(read_json(*rows)) == ["<김구:PS>는"]
    assert "2 rows with the answer reject or ignore" in caplog.text


def test_spans_of_the_national_institutes_corpus_are_read(read_json):
    entities = [{"id": 1, "form": "김구", "label": "PS", "begin": 0, "end": 2}]
    assert marked(read_json({"form": "김구는", "NE": entities}, text_column="form", label_column="NE")) == [
        "<김구:PS>는"
    ]


@pytest.mark.parametrize("label", ["B-PS", "O"])
def test_a_type_that_is_a_tag_is_an_error(read_json, label):
    with pytest.raises(ValueError, match=f"rows.jsonl:1: .*the entity type '{label}' is itself a tag"):
        read_json({"text": "김구는", "label": [[0, 2, label]]})


def test_a_row_without_the_column_of_tokens_is_an_error(read_json):
    row = {"tokens": ["김구"], "ner_tags": ["B-PS"]}
    with pytest.raises(ValueError, match=r"rows.jsonl:2: no column tokens; its columns are token, ner_tags"):
        read_json(row, {"token": ["김구"], "ner_tags": ["B-PS"]})
