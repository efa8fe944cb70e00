"""`bilstm-crf tag` with a small tagger: marks, standard input, and errors."""

import io
import json
import sys
from pathlib import Path

import pytest

from bilstm_crf_hf.commands import classify, tag
from bilstm_crf_hf.data.inline_marks import parse_inline
from bilstm_crf_hf.inference.predictors import load_pipeline


@pytest.fixture(scope="module")
def model(tagger, tokenizer, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("tagger")
    tagger.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def type_lines(monkeypatch):
    """A function that makes bytes the standard input."""

    def type_lines(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return type_lines


def test_lines_of_standard_input_are_tagged_in_their_order(model, texts, type_lines, capsys, monkeypatch):
    """In several batches, as the pipeline tags them."""
    monkeypatch.setattr(tag, "READ_AHEAD", 3)
    type_lines("\n".join(texts).encode())
    tag.main(["--model", model, "--format", "json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == texts
    expected = load_pipeline(Path(model), device="cpu")(texts)
    for row, entities in zip(rows, expected, strict=True):
        assert [(e["start"], e["end"], e["entity_group"]) for e in row["entities"]] == [
            (e["start"], e["end"], e["entity_group"]) for e in entities
        ]


def test_marked_lines_are_read_back(model, texts, capsys):
    tag.main(["--model", model, *texts])
    printed = capsys.readouterr()
    assert [parse_inline(line).text for line in printed.out.splitlines()] == texts
    assert printed.err == ""


@pytest.mark.parametrize(
    ("text", "entities", "is_read_back"),
    [
        ("<레이>가 왔다", [(1, 3)], True),
        ("1 < 2 > 0 서울", [(10, 12)], True),
        ("<부산:LC>에 갔다", [], False),
        ("<부산: LC>에서 서울", [(11, 13)], False),
        ("서<울", [(0, 3)], False),
    ],
)
def test_brackets_that_look_like_marks_are_reported(text, entities, is_read_back, capsys):
    spans = [{"start": start, "end": end, "entity_group": "LC"} for start, end in entities]
    line = tag.marked(text, {"entities": spans})
    warning = capsys.readouterr().err
    assert ("--format json" in warning) is not is_read_back
    if is_read_back:
        assert parse_inline(line) == (text, [(start, end, "LC") for start, end in entities])


def test_what_cannot_be_read_is_named(model, type_lines, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bilstm-crf tag"])
    type_lines("서울\n".encode() + b"\xff\n")
    for argv, problem in {
        (): "standard input:2: byte 1 of the line is not UTF-8",
        ("--file", str(tmp_path / "none.txt")): "No such file or directory",
        ("\ud800",): "half of a surrogate pair",
    }.items():
        with pytest.raises(SystemExit) as end:
            tag.main(["--model", model, *argv])
        assert end.value.code == 2
        assert problem in capsys.readouterr().err


def test_a_model_for_another_task_is_refused(model, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bilstm-crf classify"])
    with pytest.raises(SystemExit):
        classify.main(["--text", "서울", "--model", model])
    assert "is for token-classification: name a model for text-classification" in capsys.readouterr().err
