"""Neighbouring sentences of a document, compared with lists that are cut by hand."""

import json
import random

import pytest
from datasets import Dataset

from bilstm_crf_hf.data.documents import document_of, with_context
from bilstm_crf_hf.data.ner import contexts_of, load_ner_datasets
from bilstm_crf_hf.data.splits import SourceArguments, load_splits

COLUMNS = """-DOCSTART- -X- O O

EU NNP I-ORG
said VBD O

Yes UH O

-DOCSTART- -X- O
Rome NNP I-LOC

No UH O

Maybe RB O
"""
CONTEXTS = [("", " Yes"), ("EU said ", ""), ("", " No"), ("Rome ", " Maybe"), ("No ", "")]
ROWS = [
    {"tokens": sentence.split(), "ner_tags": [tag, *["O"] * (len(sentence.split()) - 1)], "document_id": document}
    for sentence, tag, document in [
        *(("EU said", "B-ORG", "a"), ("Yes", "O", "a")),
        *(("Rome", "B-LOC", "b"), ("No", "O", "b"), ("Maybe", "O", "b")),
    ]
]


def contexts(path, size=1, **options) -> list[tuple[str, str]]:
    return list(map(tuple, contexts_of(load_ner_datasets(data_files={"train": path}, document_context=size)["train"])))


@pytest.mark.parametrize("size", [0, 1, 2, 5])
def test_neighbours_are_those_of_the_same_document(size):
    rng = random.Random(size)
    documents = [[f"d{d}s{i}" for i in range(rng.randrange(1, 6))] for d in range(20)]
    sentences = [((d, i), text, d) for d, texts in enumerate(documents) for i, text in enumerate(texts)]
    for (d, i), context in with_context(iter(sentences), size):
        before, after = documents[d][:i][-size:] if size else [], documents[d][i + 1 :][:size]
        assert " ".join([*before, "HERE", *after]) == f"{context.before}HERE{context.after}"
    assert [sentence for sentence, _ in with_context(sentences, size)] == [sentence for sentence, _, _ in sentences]


def test_a_stream_is_read_a_document_at_a_time():
    sentences = iter([(0, "a", 1), (1, "b", 1), (2, "c", 2), (3, "d", 3)])
    found = with_context(sentences, 1)
    assert next(found) == (0, ("", " b"))
    assert list(sentences) == [(3, "d", 3)]


@pytest.mark.parametrize("name", ["a.conll", "a.txt", "a.testa"])
def test_docstart_separates_documents(write, name):
    assert contexts(write(name, COLUMNS)) == CONTEXTS


def test_sentences_before_the_first_mark_are_a_document_and_empty_documents_are_none(write):
    content = f"Hi I-ORG\n\n-DOCSTART- O\n\n-DOCSTART- O\n\n{COLUMNS}".replace(" NNP", "").replace(" VBD", "")
    content = content.replace(" UH", "").replace(" RB", "").replace(" -X-", "")
    assert contexts(write("a.conll", content)) == [("", ""), *CONTEXTS]


def test_newdoc_separates_documents_in_conllu_and_in_columns(write):
    words = "1\tRome\t_\tX\t_\t_\t0\t_\t_\tNER=B-LOC\n2\tis\t_\tX\t_\t_\t0\t_\t_\t_\n"
    other = words.replace("Rome", "Oslo")
    marks = ("# newdoc id = x-1", "# newpar", "# newdoc")
    content = f"{marks[0]}\n# text = Rome is\n{words}\n{marks[1]}\n{other}\n{marks[2]}\n{words}\n"
    assert contexts(write("a.conllu", content)) == [("", " Oslo is"), ("Rome is ", ""), ("", "")]
    columns = "# newdoc\nRome\tB-LOC\n\nOslo\tB-LOC\n\n#newdoc id=2\nRome\tB-LOC\n"
    assert contexts(write("a.conll", columns)) == [("", " Oslo"), ("Rome ", ""), ("", "")]


@pytest.mark.parametrize("column", ["document_id", "doc_id"])
@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_rows_name_their_document(write, tmp_path, suffix, column):
    rows = [{column if name == "document_id" else name: value for name, value in row.items()} for row in ROWS]
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        Dataset.from_list(rows).to_parquet(path)
    else:
        path.write_text(json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows)))
    assert contexts(path) == CONTEXTS


def test_rows_with_spans_name_their_document(write):
    rows = [
        {"text": "Rome", "entities": [[0, 4, "LOC"]], "doc_id": 1},
        {"text": "No", "entities": [], "doc_id": 1},
        {"text": "Oslo", "entities": [], "doc_id": 2},
    ]
    assert contexts(write("a.json", json.dumps(rows))) == [("", " No"), ("Rome ", ""), ("", "")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", "Rome B-LOC\n\nOslo B-LOC\n"),
        ("a.txt", "<Rome:LOC>\n"),
        ("a.jsonl", '{"tokens": ["Rome"], "tags": ["B-LOC"], "doc_id": null}'),
    ],
)
def test_a_corpus_without_documents_has_no_context(write, name, content):
    path = write(name, content)
    with pytest.raises(ValueError, match=rf"{name}: a sentence has no document.*-DOCSTART-.*document_id or doc_id"):
        contexts(path)
    assert contexts(path, 0) == [("", "")] * (2 if name == "a.conll" else 1)


def test_documents_that_are_mixed_up_or_no_names_are_errors(write):
    lines = [json.dumps({"tokens": ["Rome"], "tags": ["B-LOC"], "doc_id": i}) for i in (1, 2, 1)]
    with pytest.raises(ValueError, match=r"a\.jsonl: the document 1 begins a second time: put the sentences"):
        contexts(write("a.jsonl", "\n".join(lines)))
    with pytest.raises(ValueError, match=r"a\.jsonl:1: column doc_id holds \[1\]; expected a string or an integer"):
        contexts(write("a.jsonl", lines[0].replace('"doc_id": 1', '"doc_id": [1]')))
    assert document_of({"doc_id": 0, "document_id": None}) == 0


def test_a_sample_keeps_the_context_that_sentences_have_in_the_corpus(write):
    path = str(write("a.conll", COLUMNS))
    arguments = SourceArguments(train_file=path, validation_file=path, max_train_samples=3)
    train = load_splits(load_ner_datasets, arguments, {}, document_context=1)["train"]
    assert len(train) == 3
    expected = dict(zip(["EU said", "Yes", "Rome", "No", "Maybe"], CONTEXTS))
    assert all(expected[text] == context for text, context in zip(train["text"], contexts_of(train), strict=True))


def test_without_a_context_a_data_set_has_no_further_columns(write):
    assert load_ner_datasets(data_files={"train": write("a.conll", COLUMNS)})["train"].column_names == ["text", "tags"]
