"""Files whose rows have words, files with a word a line, and sentences that are read within their documents."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import PartialState
from conftest import LABELS
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, DataCollatorWithPadding
from words import ODD_WORDS, expected_tags

from bilstm_crf_hf import BiLSTMCRFTokenClassificationPipeline
from bilstm_crf_hf.alignment import spans_from_tags
from bilstm_crf_hf.commands import predict
from bilstm_crf_hf.data.encoding import EncodedCorpus
from bilstm_crf_hf.data.ner import labels_of, load_ner_datasets
from bilstm_crf_hf.inference.files import Shards, predict_file
from bilstm_crf_hf.inference.predictors import EntityPredictor, load_predictor
from bilstm_crf_hf.inference.texts import TextOptions
from bilstm_crf_hf.processing_bilstm_crf import BiLSTMCRFProcessor

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module")
def models(tagger, tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config = {"vocab_size": len(tokenizer), "max_position_embeddings": 32, "initializer_range": 1.0, **SIZES}
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    for name, model in {
        "tagger": tagger,
        "bert": BertForTokenClassification(BertConfig(**config, **names)),
        "classifier": BertForSequenceClassification(BertConfig(**config)),
    }.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def words(texts) -> list[list[str]]:
    return [*(text.split() for text in texts), *ODD_WORDS]


@pytest.fixture
def predicted(tmp_path, models):
    """Write rows into a file, predict it with a model, and return the rows of the output."""

    def predicted(rows, *options, model="tagger", source="in.jsonl", target="out.jsonl") -> list[dict]:
        path = tmp_path / source
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif isinstance(rows, str):
            path.write_text(rows, encoding="utf-8")
        else:
            path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows)))
        output = tmp_path / target
        names = {"model_name_or_path": models / model, "input_file": path, "output_file": output, "shard_size": 4}
        predict.main([*(f"--{name}={value}" for name, value in names.items()), "--overwrite_output=true", *options])
        assert not Shards(output).folder.exists()
        if output.suffix == ".parquet":
            return pq.read_table(output).to_pylist()
        lines = output.read_text(encoding="utf-8").split("\n")[:-1]
        return list(map(json.loads, lines)) if output.suffix == ".jsonl" else lines

    return predicted


def rounded(entities):
    return [(e["start"], e["end"], e["entity_group"], e["word"], pytest.approx(e["score"], abs=1e-5)) for e in entities]


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("model", "source", "target"),
    [
        ("tagger", "in.jsonl", "out.jsonl"),
        ("tagger", "in.json", "out.parquet"),
        ("tagger", "in.parquet", "out.jsonl"),
        ("bert", "in.jsonl", "out.jsonl"),
    ],
)
def test_each_word_of_a_row_has_a_tag(predicted, words, models, model, source, target):
    rows = [{"id": i, "tokens": row} for i, row in enumerate(words)]
    found = predicted(rows, "--return_tags=true", model=model, source=source, target=target)
    assert [{"id": row["id"], "tokens": row["tokens"]} for row in found] == rows
    joined = load_predictor(str(models / model), 8)([" ".join(row) for row in words])
    assert [rounded(row["entities"]) for row in joined] == [rounded(row["entities"]) for row in found]
    assert [row["tags"] for row in found] == [expected_tags(row["tokens"], row["entities"]) for row in found]
    assert {len(row["tags"]) - len(row["tokens"]) for row in found} == {0}
    assert len({tag for row in found for tag in row["tags"]}) > 3


def test_tags_are_those_of_the_pipeline(predicted, words, tagger, tokenizer):
    pipe = BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=tokenizer)
    found = predicted([{"words": row} for row in words], "--return_tags=true")
    assert [row["tags"] for row in found] == pipe(words, is_split_into_words=True, return_tags=True)


def test_words_and_texts_may_be_mixed_where_no_tags_are_called_for(predicted):
    rows = [{"text": ["김연아는", "서울에"]}, {"text": "김연아는 서울에"}, {"text": []}]
    first, second, last = predicted(rows)
    assert rounded(first["entities"]) == rounded(second["entities"])
    assert (last["text"], last["entities"]) == ([], [])
    assert predicted(rows, target="out.txt")[:2] == predicted(rows, target="o.txt")[1::-1]


def test_characters_are_concatenated_if_no_word_is_longer(predicted, texts):
    characters = [{"tokens": list(text)} for text in texts[:2]]
    joined = predicted([{"text": text} for text in texts[:2]])
    found = predicted(characters, "--return_tags=true")
    assert [rounded(row["entities"]) for row in found] == [rounded(row["entities"]) for row in joined]
    assert [row["tags"] for row in found] == [expected_tags(row["tokens"], row["entities"], "") for row in found]
    for options, rows in ((["--token_unit=word"], characters), ([], [*characters, {"tokens": ["서울"]}])):
        spaced = predicted(rows, *options)
        assert [rounded(row["entities"]) for row in spaced] == [
            rounded(row["entities"]) for row in predicted([{"text": " ".join(row["tokens"])} for row in rows])
        ]


def test_words_of_a_classifier_are_joined(predicted):
    words, text = predicted([{"text": ["정말", "재미있는"]}, {"text": "정말 재미있는"}], model="classifier")
    assert (words["label"], words["score"]) == (text["label"], pytest.approx(text["score"]))


def test_a_run_that_was_killed_goes_on_with_the_same_unit(models, tmp_path, monkeypatch):
    """The unit follows from all rows, of which a process that goes on reads only some."""
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps({"tokens": row}) for row in (["서", "울"], ["부", "산"], ["김연아"])))
    predictor = load_predictor(str(models / "tagger"), 4)
    options = (TextOptions(return_tags=True), 1, False, PartialState(cpu=True))
    predict_file(predictor, source, tmp_path / "whole.jsonl", *options)
    output = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(Shards, "finish", lambda *_: None)
        predict_file(predictor, source, output, *options)
    Shards(output).path(0).unlink()
    predict_file(predictor, source, output, *options)
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert json.loads(output.read_text().split("\n")[0])["tokens"] == ["서", "울"]


# ---------------------------------------------------------------- a word a line

COLUMNS = """-DOCSTART- -X- O

김연아는 NNP O
서울에 NNP I-LOC

춘천에서 NNP O
"""


@pytest.mark.parametrize("content", [COLUMNS, COLUMNS.replace(" ", "\t"), "# a\n김연아는\n서울에\n\n\n춘천에서\n"])
def test_files_with_a_word_a_line_are_read_and_written(predicted, content, tmp_path):
    rows = predicted(content, "--return_tags=true", source="in.conll")
    assert [row["tokens"] for row in rows] == [["김연아는", "서울에"], ["춘천에서"]]
    assert [row.get("document_id") for row in rows] == [1 if "-DOCSTART-" in content else None] * 2
    lines = predicted(content, "--return_tags=true", source="in.conll", target="out.conll")
    blocks = [[*map("\t".join, zip(row["tokens"], row["tags"], strict=True)), ""] for row in rows]
    assert lines == sum(blocks, [])


def test_the_column_of_the_words_can_be_named(predicted):
    content = "1\t김연아는\tO\n2\t서울에\tB-LC\n\n1\t춘천에서\tO\n"
    (first, second) = predicted(content, "--token_column=1", source="in.conll")
    assert (first["tokens"], second["tokens"]) == (["김연아는", "서울에"], ["춘천에서"])
    with pytest.raises(ValueError, match=r"in\.conll: column 0 counts 1, 2, \.\.\.: which column has the words\?"):
        predicted(content, source="in.conll")
    with pytest.raises(ValueError, match=r"in\.conll: there is no column 3"):
        predicted(content, "--token_column=3", source="in.conll")
    with pytest.raises(ValueError, match=r"in\.jsonl: token_column is for \.conll files: name .* in text_column"):
        predicted([{"tokens": ["a"]}], "--token_column=1")


def test_what_is_written_a_word_a_line_is_read_again_as_a_corpus(predicted, words, tmp_path):
    rows = [{"tokens": [word for word in row if word.strip() and "\n" not in word]} for row in words]
    rows = [row for row in rows if row["tokens"]]
    found = predicted(rows, "--return_tags=true")
    predicted(rows, "--return_tags=true", target="out.conll")
    corpus = load_ner_datasets(data_files={"train": tmp_path / "out.conll"})["train"]
    assert list(corpus["text"]) == [" ".join(row["tokens"]) for row in rows]
    for row, tags in zip(found, corpus["tags"], strict=True):
        spans = spans_from_tags(labels_of(corpus)[i] for i in tags)
        of_words = spans_from_tags(row["tags"])
        assert [span.label for span in spans] == [span.label for span in of_words]


# ---------------------------------------------------------------- documents

DOCUMENTS = [[0, 1, 2], [3], [4, 5, 6, 7]]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("shard_size", [1, 3, 100])
def test_sentences_are_read_within_their_documents_as_in_the_evaluation(
    predicted, tagger, tokenizer, texts, tmp_path, size, shard_size
):
    rows = [{"text": texts[i], "doc_id": f"d{d}"} for d, document in enumerate(DOCUMENTS) for i in document]
    found = predicted(rows, f"--document_context={size}", f"--shard_size={shard_size}")
    features = Features({"text": Value("string"), "tags": List(ClassLabel(names=LABELS))})
    dataset = Dataset.from_dict(
        {"text": texts, "tags": [[LABELS.index("O")] * len(text) for text in texts]}, features=features
    )
    before = [
        "".join(f"{texts[j]} " for j in document[max(0, at - size) : at])
        for document in DOCUMENTS
        for at in range(len(document))
    ]
    after = [
        "".join(f" {texts[j]}" for j in document[at + 1 : at + 1 + size])
        for document in DOCUMENTS
        for at in range(len(document))
    ]
    dataset = dataset.add_column("before", before).add_column("after", after)
    corpus = EncodedCorpus(dataset, BiLSTMCRFProcessor(tokenizer), LABELS)
    predictions = []
    for row in corpus.inputs.remove_columns("labels"):
        batch = DataCollatorWithPadding(tokenizer)([row])
        with torch.no_grad():
            predictions.append(tagger(**batch).predictions[0].tolist())
    expected = [[tuple(span) for span in spans] for spans in corpus.decode(predictions)]
    assert [[(e["start"], e["end"], e["entity_group"]) for e in row["entities"]] for row in found] == expected
    assert all(e["word"] == row["text"][e["start"] : e["end"]] for row in found for e in row["entities"])
    assert found != predicted(rows)


def test_words_in_documents_have_tags(predicted, words):
    rows = [{"tokens": row, "document_id": i // 4} for i, row in enumerate(words)]
    found = predicted(rows, "--document_context=1", "--return_tags=true")
    assert [row["tags"] for row in found] == [expected_tags(row["tokens"], row["entities"]) for row in found]
    assert [len(row["tags"]) for row in found] == list(map(len, words))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"tokens": ["서울", None]}], [], r"in\.jsonl:1: word 1 of column tokens is null, not a string: correct it"),
        ([{"tokens": ["a"]}, {"tokens": [["서울"]]}], [], r"in\.jsonl:2: word 0 of column tokens is \[.*not a string"),
        ([{"tokens": {"a": 1}}], [], r"in\.jsonl:1: column tokens holds \{.*not a string"),
        ([{"tokens": ["서울", "\ud83d"]}], [], r"in\.jsonl:1: '\\ud83d' is half of a character"),
        ([{"id": 1}], [], r"in\.jsonl: no column text or tokens or words; its columns are id"),
        ([{"text": "서울"}], ["--return_tags=true"], r"in\.jsonl:1: column text holds a text, and tags are for a list"),
        (
            [{"words": [], "tags": []}],
            ["--return_tags=true"],
            r":1: there is already a column tags: .*column_prefix",
        ),
        ([{"text": "서울"}], ["--document_context=1"], r"in\.jsonl: a sentence has no document.*document_id or doc_id"),
        ([{"text": "서울"}], ["--document_context=-1"], r"document_context is -1: set it to 0 or more"),
        (
            [{"text": "서", "doc_id": i} for i in (1, 2, 1)],
            ["--document_context=1"],
            r"in\.jsonl: the document 1 begins a second time",
        ),
        ([{"text": "서", "doc_id": [1]}], ["--document_context=1"], r"in\.jsonl:1: column doc_id holds \[1\]"),
    ],
)
def test_rows_that_do_not_fit_are_named(predicted, tmp_path, rows, options, message):
    with pytest.raises(ValueError, match=message):
        predicted(rows, *options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tO\n\nb\n", r"in\.conll:3: no tab, though line 1 has one"),
        ("a x O\nb x O\n\nc O\n", r"in\.conll:4: expected 3 columns as in most lines.*found 'c O'"),
        ("\tO\na\tO\n", r"in\.conll:1: expected 2 columns.*a token in column 0, found"),
        ("-DOCSTART-\n\n", r"in\.conll: no sentence in it"),
        ("", r"in\.conll: no sentence in it"),
        (b"\xff\n", r"in\.conll:1: byte 1 of the line is not UTF-8"),
    ],
)
def test_bad_lines_of_columns_are_named(models, tmp_path, content, message):
    (tmp_path / "in.conll").write_bytes(content if isinstance(content, bytes) else content.encode())
    predictor, files = load_predictor(str(models / "tagger"), 4), (tmp_path / "in.conll", tmp_path / "out.jsonl")
    with pytest.raises(ValueError, match=message):
        predict_file(predictor, *files, TextOptions(), 3, False, PartialState(cpu=True))


@pytest.mark.parametrize("word", ["", " ", "a\tb", "a\nb", "-DOCSTART-"])
def test_words_that_a_line_cannot_hold_are_named(predicted, word):
    with pytest.raises(ValueError, match=r"in\.jsonl:2: word 1 is .*, which no line of a \.conll file can hold: write"):
        predicted([{"tokens": ["a"]}, {"tokens": ["b", word]}], "--return_tags=true", target="out.conll")
    with pytest.raises(ValueError, match=r"in\.jsonl:1: there is no word, and a \.conll file has no place for that"):
        predicted([{"tokens": []}], "--return_tags=true", target="out.conll")


def test_tags_need_a_tagger_and_a_place(predicted):
    rows = [{"tokens": ["서울"]}]
    with pytest.raises(ValueError, match=r"a \.txt file cannot hold return_tags, and a \.conll file needs it"):
        predicted(rows, "--return_tags=true", target="out.txt")
    with pytest.raises(ValueError, match=r"a \.txt file cannot hold return_tags, and a \.conll file needs it"):
        predicted(rows, target="out.conll")
    for option in ("--return_tags=true", "--document_context=1"):
        with pytest.raises(ValueError, match=r"are for taggers, and the model is for text-classification"):
            predicted(rows, option, model="classifier")


def test_entities_that_cross_the_edge_of_a_sentence_are_cut_there():
    class Marker(EntityPredictor):
        def __init__(self) -> None:
            pass

        def __call__(self, texts):
            places = [{"entity_group": "LC", "score": 0.5, "start": start, "end": start + 4} for start in (0, 4, 9)]
            return [{"entities": [each | {"word": text[each["start"] :][:4]} for each in places]} for text in texts]

    found = Marker().in_context(["efghij", "ab"], [("abc ", " xyz"), ("", " cdefghijkl")])
    places = [[(e["start"], e["end"], e["word"]) for e in row["entities"]] for row in found]
    assert places == [[(0, 4, "efgh"), (5, 6, "j")], [(0, 2, "ab")]]
