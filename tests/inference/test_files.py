"""Files of predictions, by real processes that are killed on the way."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from unittest import mock

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from accelerate import PartialState
from conftest import LABELS, new_tagger
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    pipeline,
)

from bilstm_crf_hf import BiLSTMCRFTokenClassificationPipeline, render_entities
from bilstm_crf_hf.commands import predict
from bilstm_crf_hf.data.rows import read_rows
from bilstm_crf_hf.inference.files import Shards, predict_file
from bilstm_crf_hf.inference.predictors import EntityPredictor, load_predictor
from bilstm_crf_hf.inference.texts import TextOptions

RECIPES = Path(__file__).parents[2] / "recipes"

SMALL_BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
LIMIT = 32  # positions of the encoders


@pytest.fixture(scope="module")
def models(tagger, tokenizer, tmp_path_factory) -> Path:
    """A folder of models: our tagger, and a tagger, a classifier and an encoder without a head of BERT's kind."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config = {"vocab_size": len(tokenizer), "max_position_embeddings": LIMIT, "initializer_range": 1.0, **SMALL_BERT}
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    sentiment = {"id2label": {0: "부정", 1: "긍정"}, "label2id": {"부정": 0, "긍정": 1}}
    for name, model in {
        "tagger": tagger,
        "bert": BertForTokenClassification(BertConfig(**config, **names)),
        "classifier": BertForSequenceClassification(BertConfig(**config, **sentiment)),
        "headless": BertModel(BertConfig(**config)),
    }.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def rows(texts) -> list[dict]:
    """Texts of many lengths, some of them empty."""
    return [{"id": i, "text": " ".join(texts[i % 8 :][: i % 5])} for i in range(40)]


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = (json.dumps(row) if path.suffix == ".jsonl" else row["text"] for row in rows)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read(path: Path) -> list[dict]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    return [json.loads(line) for line in path.open(encoding="utf-8", newline="\n")]


def run(model: Path, source: Path, output: Path, *options: str) -> Path:
    """The recipe in this process, with shards of 6 rows."""
    arguments = {"model_name_or_path": model, "input_file": source, "output_file": output, "shard_size": 6}
    predict.main([*(f"--{name}={value}" for name, value in arguments.items()), *options])
    assert not Shards(output).folder.exists()
    return output


# ---------------------------------------------------------------- runs that are killed

# The recipe, with a note of the texts that the model is shown, and slow enough to be killed half-way.
NOTING = """
import json, os, sys, time
from bilstm_crf_hf.commands import predict
from bilstm_crf_hf.inference.predictors import EntityPredictor

class Noting(EntityPredictor):
    def __call__(self, texts):
        with open("seen-" + os.environ.get("LOCAL_RANK", "0"), "a", encoding="utf-8") as file:
            file.writelines(json.dumps(text) + "\\n" for text in texts)
        time.sleep(0.05)
        return super().__call__(texts)

load = predict.load_predictor
def load_noting(*arguments):
    predictor = load(*arguments)
    predictor.__class__ = Noting
    return predictor

predict.load_predictor = load_noting
predict.main(sys.argv[1:])
"""


def start(folder: Path, model: Path, processes: int) -> subprocess.Popen:
    (folder / "noting.py").write_text(NOTING, encoding="utf-8")
    launch = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_GPU", "use_cpu": True}
    (folder / "launch.yaml").write_text(yaml.safe_dump(launch | {"num_processes": processes, "num_machines": 1}))
    launcher = ["-m", "accelerate.commands.launch", "--config_file", "launch.yaml"] if processes > 1 else []
    files = ["--input_file", "in.jsonl", "--output_file", "out.jsonl", "--shard_size", "4", "--use_cpu"]
    return subprocess.Popen(
        [sys.executable, *launcher, "noting.py", "--model_name_or_path", str(model), *files],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def kill(process: subprocess.Popen) -> None:
    """Kills a process with those that it launched, which would go on without it."""
    for each in [process, *psutil.Process(process.pid).children(recursive=True)]:
        each.send_signal(signal.SIGKILL)
    process.communicate()


def finish(process: subprocess.Popen) -> str:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


def seen(folder: Path) -> list[list[str]]:
    """The texts that each process showed to the model since this was last asked."""
    notes = sorted(folder.glob("seen-*"))
    texts = [[json.loads(line) for line in note.read_text(encoding="utf-8").splitlines()] for note in notes]
    for note in notes:
        note.unlink()
    return texts


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(1, 1), (2, 2), (1, 2)], ids=["one", "two", "one, then two"])
def test_killed_run_ends_with_the_bytes_of_an_undisturbed_one(models, texts, tmp_path, first, then):
    rows = [{"id": i, "text": f"{i} {texts[i % 8]}" if i % 9 else ""} for i in range(202)]
    write(tmp_path / "in.jsonl", rows)
    killed = start(tmp_path, models / "tagger", first)
    parts = Shards(tmp_path / "out.jsonl")
    deadline = time.monotonic() + 200
    while len(parts.done()) < 8 and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    kill(killed)
    done = parts.done()
    assert 8 <= len(done) < 51
    assert not parts.output.exists()
    assert len(seen(tmp_path)) == first

    errors = finish(start(tmp_path, models / "tagger", then))
    shown = seen(tmp_path)
    left = [row["text"] for i, row in enumerate(rows) if i // 4 not in done]
    assert len(shown) == then  # all took part
    assert sorted(sum(shown, [])) == sorted(left)  # nothing was tagged twice, no finished shard again
    rows_done = len(rows) - len(left)
    assert f"{rows_done} of 202 rows were predicted in an earlier run" in errors
    assert f"{rows_done}/202" in errors  # where the bar begins
    assert "202/202" in errors

    whole = run(models / "tagger", tmp_path / "in.jsonl", tmp_path / "whole.jsonl", "--shard_size", "4")
    assert parts.output.read_bytes() == whole.read_bytes()
    assert [{"id": row["id"], "text": row["text"]} for row in read(whole)] == rows
    assert not parts.folder.exists()


class SeoulPredictor(EntityPredictor):
    """Finds 서울, without a model."""

    def __init__(self) -> None:
        self.prefix, self.pipe = "", None

    def __call__(self, texts):
        return [self.convert(text, self._find(text)) for text in texts]

    def _find(self, text):
        at = text.find("서울")
        return [{"entity_group": "LC", "score": 1.0, "start": at, "end": at + 2}] if at >= 0 else []

    def settings(self):
        return {"model": "서울"}


def predict_seoul(source: Path, output: Path, overwrite: bool = False) -> None:
    predict_file(SeoulPredictor(), source, output, TextOptions(), 3, overwrite, PartialState(cpu=True))


def killed_before(count: int, source: Path, output: Path, overwrite: bool) -> bool:
    """Whether a forked process was killed before the `count`th step that it takes on files of the output."""
    child = os.fork()
    if child == 0:
        steps = iter(range(count))

        def kill(event, arguments):
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and output.name in str(arguments[0]):
                next(steps, None) is None and os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        try:
            predict_seoul(source, output, overwrite)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_kill_before_any_step_on_files_loses_nothing(rows, tmp_path, overwrite):
    source = write(tmp_path / "in.jsonl", rows[:8])
    predict_seoul(source, tmp_path / "whole.jsonl")
    expected = (tmp_path / "whole.jsonl").read_bytes()
    assert expected.count(b"\n") == 8
    assert "서울".encode() in expected

    steps = 0
    while True:
        output = tmp_path / f"out-{steps}.jsonl"
        if overwrite:
            output.write_text("old")
        if not killed_before(steps, source, output, overwrite):
            break
        assert not output.exists() or output.read_bytes() in (b"old", expected)
        try:
            predict_seoul(source, output, overwrite)
        except FileExistsError:  # only the empty folder had still to be removed
            assert not overwrite
        assert output.read_bytes() == expected
        assert not Shards(output).folder.exists()
        steps += 1
    assert steps > 15


# ---------------------------------------------------------------- what is in the files


@pytest.mark.slow
@pytest.mark.parametrize("target", [".jsonl", ".parquet", ".txt"])
@pytest.mark.parametrize("source", [".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_entities_of_the_pipeline(models, tagger, tokenizer, rows, tmp_path, source, target):
    output = run(models / "tagger", write(tmp_path / f"in{source}", rows), tmp_path / f"out{target}")
    pipe = pipeline(
        "token-classification", model=tagger, tokenizer=tokenizer, pipeline_class=BiLSTMCRFTokenClassificationPipeline
    )
    expected = [pipe(row["text"]) if row["text"] else [] for row in rows]
    if target == ".txt":
        lines = [render_entities(row["text"], entities) for row, entities in zip(rows, expected)]
        assert output.read_text(encoding="utf-8").split("\n") == [*lines, ""]
        return
    found = read(output)
    for row, entities in zip(found, expected, strict=True):
        assert [e | {"score": 0} for e in row["entities"]] == [e | {"score": 0} for e in entities]
        assert [e["score"] for e in row["entities"]] == pytest.approx([e["score"] for e in entities], abs=1e-5)
    if source in (".csv", ".tsv"):
        rows = [{"id": str(row["id"]), "text": row["text"]} for row in rows]
    kept = ["text"] if source == ".txt" else ["id", "text"]
    assert [{name: row[name] for name in kept} for row in rows] == [
        {name: value for name, value in row.items() if name != "entities"} for row in found
    ]


def test_columns_come_back_as_they_came(models, tmp_path):
    values = {"본문": "서울에 갔다", "nested": {"a": [1, None]}, "big": 2**62, "missing": None, "emoji": "😀"}
    source = write(tmp_path / "in.jsonl", [values, {"본문": " ", "nested": {"b": 0.5}}])
    output = run(models / "tagger", source, tmp_path / "out.jsonl", "--text_column", "본문")
    first, second = read(output)
    assert {name: first[name] for name in values} == values
    assert second == {"본문": " ", "nested": {"b": 0.5}, "entities": []}
    assert "서울" in output.read_text(encoding="utf-8")  # and no \uc11c\uc6b8

    table = pa.table(
        {
            "본문": ["서울에 갔다", "", "부산"],
            "day": pa.array([1, 2, None], pa.date32()),
            "image": pa.array([b"\xff", None, b""]),
            "small": pa.array([0.1, 0.2, float("nan")], pa.float32()),
        }
    ).replace_schema_metadata({"note": "kept"})
    pq.write_table(table, tmp_path / "in.parquet")
    output = run(
        models / "tagger", tmp_path / "in.parquet", tmp_path / "out.parquet", "--text_column=본문", "--shard_size=2"
    )
    tagged = pq.read_table(output)
    assert (
        tagged.drop_columns("entities")
        .replace_schema_metadata(None)
        .to_pandas()
        .equals(table.replace_schema_metadata(None).to_pandas())
    )
    assert tagged.schema.metadata[b"note"] == b"kept"
    assert [field.type for field in tagged.schema][:4] == table.schema.types


def test_byte_order_mark_and_line_ends_are_no_text(models, tmp_path):
    (tmp_path / "in.txt").write_bytes("\ufeff서울에 갔다\r\n\r\n부산\u2028서울".encode())
    found = read(run(models / "tagger", tmp_path / "in.txt", tmp_path / "out.jsonl"))
    assert [row["text"] for row in found] == ["서울에 갔다", "", "부산\u2028서울"]
    assert found[1]["entities"] == []
    (tmp_path / "in.csv").write_bytes('\ufefftext,n\r\n"서울에,\n""갔다""",1\r\n'.encode())
    (row,) = read(run(models / "tagger", tmp_path / "in.csv", tmp_path / "csv.jsonl"))
    assert (row["text"], row["n"]) == ('서울에,\n"갔다"', "1")


def test_stock_tagger_gives_entities_and_reads_long_texts_to_their_end(models, texts, tmp_path):
    long = " ".join(texts)
    assert len(long) > 4 * LIMIT
    source = write(tmp_path / "in.jsonl", [{"text": text} for text in (*texts, long)])
    found = [row["entities"] for row in read(run(models / "bert", source, tmp_path / "out.jsonl"))]
    stock = pipeline("token-classification", model=str(models / "bert"), aggregation_strategy="simple")
    for text, entities in zip(texts, found):
        if len(text) <= LIMIT - 2:
            expected = [(e["start"], e["end"], e["entity_group"], float(e["score"])) for e in stock(text)]
            places = [(e["start"], e["end"], e["entity_group"], pytest.approx(e["score"], abs=1e-5)) for e in entities]
            assert places == expected
            assert all(e["word"] == text[e["start"] : e["end"]] for e in entities)
    assert any(found[:-1])
    assert found[-1][-1]["end"] > len(long) - LIMIT


def test_classifier_gives_the_most_probable_label(models, texts, tmp_path):
    source = write(tmp_path / "in.jsonl", [{"document": text, "label": 1} for text in ("", *texts, "서울 " * LIMIT)])
    options = ("--text_column", "document", "--column_prefix", "predicted_")
    found = read(run(models / "classifier", source, tmp_path / "out.jsonl", *options))
    assert found[0] == {"document": "", "label": 1, "predicted_label": None, "predicted_score": None}
    model = BertForSequenceClassification.from_pretrained(models / "classifier").eval()
    tokenizer = AutoTokenizer.from_pretrained(models / "classifier")
    for row in found[1:]:
        inputs = tokenizer(row["document"], truncation=True, max_length=LIMIT, return_tensors="pt")
        with torch.no_grad():
            score, label = model(**inputs).logits[0].softmax(-1).max(-1)
        assert row["predicted_label"] == ["부정", "긍정"][label]
        assert row["predicted_score"] == pytest.approx(score.item(), abs=1e-5)
        assert row["label"] == 1
    lines = run(models / "classifier", source, tmp_path / "out.txt", "--text_column=document").read_text("utf-8")
    assert lines.split("\n")[:2] == ["\t", f"{found[1]['predicted_label']}\t{texts[0]}"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(texts, tmp_path):
    peaks = []
    for count in (1_000, 20_000):
        source = write(tmp_path / f"{count}.jsonl", [{"id": i, "text": texts[i % 8]} for i in range(count)])
        tracemalloc.start()
        state = PartialState(cpu=True)
        predict_file(SeoulPredictor(), source, tmp_path / f"{count}-out.jsonl", TextOptions(), 500, False, state)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.jsonl", '{"text": "서울"}\n\n{"text": "부산"', r"in\.jsonl:3: .*expected an object a line"),
        ("in.jsonl", '{"text": "서울"}\n["부산"]', r'in\.jsonl:2: expected an object, found \["부산"\]'),
        ("in.jsonl", '{"text": "서울"}\n{"본문": "부산"}', r"in\.jsonl:2: no column text; its columns are 본문"),
        ("in.jsonl", '{"text": "서울"}\n{"text": null}', r"in\.jsonl:2: column text holds null, not a string"),
        ("in.jsonl", '{"text": 3}', r"in\.jsonl:1: column text holds 3, not a string"),
        ("in.jsonl", '{"text": "\\ud83d"}', r"in\.jsonl:1: '\\ud83d' is half of a character"),
        ("in.jsonl", '{"text": "서울", "entities": []}', r":1: there is already a column entities: .*--column_prefix"),
        ("in.jsonl", "\n", r"in\.jsonl: no row in it"),
        ("in.txt", "", r"in\.txt: no row in it"),
        ("in.txt", b"\xbc\xad\xbf\xef\n", r"in\.txt:1: byte 1 of the line is not UTF-8 .*iconv -f cp949"),
        ("in.csv", "id,text\n1,서울\n2\n", r"in\.csv:3: 1 fields, but the header has 2"),
        ("in.csv", "id,text\n1,서울,부산\n", r"in\.csv:2: 3 fields, but the header has 2"),
        ("in.csv", 'id,text\n1,"서울', r"in\.csv:2: unexpected end of data"),
        ("in.csv", "id,id,text\n1,1,서울", r"in\.csv:1: two columns have the same name"),
        ("in.csv", "id;text\n1;서울", r"in\.csv:1: the header is one column, 'id;text'"),
        ("in.parquet", "PAR1", r"in\.parquet: not a Parquet file"),
        ("in.parquet", [{"text": "서울"}, {"text": None}], r"in\.parquet: row 1: column text holds null"),
        ("in.parquet", [{"본문": "서울"}], r"in\.parquet: no column text or tokens or words; its columns are 본문"),
        ("in.parquet", [{"text": "서울", "image": b"\0"}], r"row 0: .*bytes is not JSON serializable: write a \.parq"),
        ("in.doc", "서울", r"in\.doc: unknown suffix '\.doc'; known are \.txt, \.jsonl, \.json, \.csv, \.tsv, \.parq"),
    ],
)  # fmt: skip
def test_broken_input_is_refused_with_its_place(tmp_path, name, content, message):
    if isinstance(content, list):
        write(tmp_path / name, content)
    else:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        predict_seoul(tmp_path / name, tmp_path / "out.jsonl")
    assert os.listdir(tmp_path) == [name]  # nothing was begun


def test_rows_that_the_output_cannot_hold(tmp_path):
    source = write(tmp_path / "in.jsonl", [{"text": "서울", "n": 1}, {"text": "서울\n부산", "n": "하나"}])
    with pytest.raises(ValueError, match=r"in\.jsonl:2: the text has several lines: write a \.jsonl"):
        predict_seoul(source, tmp_path / "out.txt")
    with pytest.raises(
        ValueError, match=r"in\.jsonl:1 to .*in\.jsonl:2: a column does not have one Parquet type .*write a \.jsonl"
    ):
        predict_seoul(source, tmp_path / "out.parquet")
    assert os.listdir(tmp_path) == ["in.jsonl"]


def test_wrong_names_of_files(tmp_path):
    source = write(tmp_path / "in.txt", [{"text": "서울"}])
    with pytest.raises(ValueError, match=r"out\.json: unknown suffix '\.json'; known are \.jsonl, \.parquet, \.txt"):
        predict_seoul(source, tmp_path / "out.json")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt: no such file"):
        predict_seoul(tmp_path / "nowhere.txt", tmp_path / "out.jsonl")


def test_output_is_overwritten_only_on_demand(tmp_path):
    source = write(tmp_path / "in.txt", [{"text": "서울"}])
    output = tmp_path / "out.txt"
    output.write_text("old")
    with pytest.raises(FileExistsError, match="set --overwrite_output"):
        predict_seoul(source, output)
    assert output.read_text() == "old"
    predict_seoul(source, output, overwrite=True)
    assert output.read_text(encoding="utf-8") == "<서울:LC>\n"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_damaged_shard_or_one_of_another_run_is_an_error_that_names_it(tmp_path, monkeypatch, suffix):
    source, output = write(tmp_path / "in.txt", [{"text": "서울"}] * 9), tmp_path / f"out.{suffix}"
    with monkeypatch.context() as patch:
        patch.setattr(Shards, "finish", mock.Mock())  # as if the process was killed before
        predict_seoul(source, output)
    parts = Shards(output)
    shard = parts.path(1)
    whole = shard.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2]):
        shard.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"00000001.{suffix} is damaged"):
            predict_seoul(source, output)
    shard.unlink()
    parts.path(99).touch()
    with pytest.raises(ValueError, match=rf"00000099.{suffix} is not of this run"):
        predict_seoul(source, output)
    parts.path(99).unlink()
    manifest = parts.manifest.read_text(encoding="utf-8")
    for content in (
        manifest.replace('"rows": 9', '"rows": "9"'),
        manifest.replace('"schema": "', '"schema": "#'),
        "[" * 10**5,
    ):
        parts.manifest.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=r"manifest.json is damaged"):
            predict_seoul(source, output)
    parts.manifest.write_text(manifest, encoding="utf-8")
    predict_seoul(source, output)
    assert len(list(read_rows(output))) == 9


def test_folder_of_something_else_is_left_alone(tmp_path):
    source = write(tmp_path / "in.txt", [{"text": "서울"}])
    (tmp_path / "out.txt.parts").mkdir()
    (tmp_path / "out.txt.parts" / "mine").touch()
    with pytest.raises(FileExistsError, match="out.txt.parts exists, but no prediction run made it"):
        predict_seoul(source, tmp_path / "out.txt")
    assert (tmp_path / "out.txt.parts" / "mine").exists()


def interrupt(monkeypatch, *arguments) -> None:
    """Runs the recipe, and interrupts it at the third shard."""
    call, shards = EntityPredictor.__call__, iter(range(2))

    def interrupted(self, texts):
        if next(shards, None) is None:
            raise KeyboardInterrupt
        return call(self, texts)

    with monkeypatch.context() as patch:
        patch.setattr(EntityPredictor, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(*arguments)


def test_shards_of_another_run_are_refused(models, tokenizer, rows, tmp_path, monkeypatch):
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    interrupt(monkeypatch, models / "tagger", source, output)
    assert Shards(output).done() == {0, 1}
    assert not list(Shards(output).folder.glob("*.tmp"))
    new_tagger(tokenizer, seed=1).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    for model, options, change in (
        (models / "tagger", ["--batch_size", "7"], r"\(batch_size was 128, is 7\)"),
        (models / "tagger", ["--shard_size", "7"], r"\(shard_size was 6, is 7\)"),
        (models / "tagger", ["--column_prefix", "a_"], r"\(column_prefix was , is a_\)"),
        (tmp_path / "other", [], r"\(model was \w+, is \w+\)"),
    ):
        with pytest.raises(
            ValueError, match=f"out.jsonl.parts holds shards of a run .*{change}.* or delete the folder"
        ):
            run(model, source, output, *options)
    stat = source.stat()
    write(source, rows[::-1])
    with pytest.raises(ValueError, match="input_modified was"):
        run(models / "tagger", source, output)
    write(source, rows)
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    run(models / "tagger", source, output)
    assert [row["id"] for row in read(output)] == list(range(40))


def test_input_that_changes_meanwhile_is_noticed(models, rows, tmp_path, monkeypatch):
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    call = EntityPredictor.__call__

    def changing(self, texts):
        with source.open("a", encoding="utf-8") as file:
            file.write('{"id": 40, "text": ""}\n')
        return call(self, texts)

    monkeypatch.setattr(EntityPredictor, "__call__", changing)
    with pytest.raises(ValueError, match="in.jsonl has changed during the run: delete .*out.jsonl.parts"):
        run(models / "tagger", source, output)
    assert not output.exists()


def test_models_that_make_no_predictions_are_refused(models):
    with pytest.raises(ValueError, match="headless: BertModel is neither a token classifier nor a text classifier"):
        load_predictor(str(models / "headless"), 8)


def test_sizes_are_counts():
    with pytest.raises(ValueError, match="shard_size is 0: set it to 1 or more"):
        predict.PredictionArguments("model", "in.txt", "out.txt", shard_size=0)


# ---------------------------------------------------------------- what goes wrong on the way


class Failing(SeoulPredictor):
    """Fails with the texts that contain 부산, and with more than `most` texts at a time."""

    most = 100

    def __call__(self, texts):
        if len(texts) > self.most or any("부산" in text for text in texts):
            raise IndexError("could not create a primitive")
        return super().__call__(texts)


@pytest.mark.parametrize(
    ("name", "place"), [("in.jsonl", r"in\.jsonl:5"), ("in.txt", r"in\.txt:5"), ("in.parquet", r"in\.parquet: row 4")]
)
def test_a_text_with_which_the_model_fails_is_named_and_finished_shards_stay(tmp_path, name, place):
    source = write(tmp_path / name, [{"text": f"서울 {i}"} for i in range(4)] + [{"text": "부산"}])
    output = tmp_path / "out.jsonl"
    options = (TextOptions(), 3, False, PartialState(cpu=True))
    message = rf"{place}: the model fails \(IndexError: could not create a primitive\): correct or remove this text"
    for _ in range(2):
        with pytest.raises(RuntimeError, match=message) as error:
            predict_file(Failing(), source, output, *options)
        assert isinstance(error.value.__cause__, IndexError)
        assert Shards(output).done() == {0}
    seen = []
    predictor = SeoulPredictor()  # a version that does not fail
    predictor.convert = lambda text, result: seen.append(text) or {"entities": []}
    predict_file(predictor, source, output, *options)
    assert seen == ["서울 3", "부산"]
    assert len(read(output)) == 5


def test_a_batch_with_which_the_model_fails_is_named(tmp_path):
    source, predictor = write(tmp_path / "in.jsonl", [{"text": "서울"}] * 5), Failing()
    predictor.most = 2
    message = r"in\.jsonl:1 to .*in\.jsonl:3: the model fails \(IndexError: .*\): set a smaller --batch_size"
    with pytest.raises(RuntimeError, match=message):
        predict_file(predictor, source, tmp_path / "out.jsonl", TextOptions(), 3, False, PartialState(cpu=True))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("in.jsonl", "in.jsonl is the input: name another file"),
        ("link.jsonl", "link.jsonl is the input: name another file"),
        ("folder.jsonl", "folder.jsonl is a folder: name a file"),
        ("a.jsonl.parts/00000001.jsonl", "its folder holds the shards of another output"),
    ],
)
def test_an_output_that_would_destroy_something_is_refused(tmp_path, output, message):
    source = write(tmp_path / "in.jsonl", [{"text": "서울"}])
    (tmp_path / "link.jsonl").symlink_to(source)
    (tmp_path / "folder.jsonl").mkdir()
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ValueError, match=message):
        predict_seoul(source, tmp_path / output, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == before
    assert read(source) == [{"text": "서울"}]


def test_an_output_in_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    source = write(tmp_path / "in.jsonl", [{"text": "서울"}])
    for folder in ("/sys/kernel", tmp_path / "in.jsonl"):
        with pytest.raises(OSError, match="nothing can be written here .*: name another output"):
            predict_seoul(source, Path(folder, "out.jsonl"))
    predict_seoul(source, tmp_path / "new" / "folder" / "out.jsonl")
    assert os.listdir(tmp_path / "new" / "folder") == ["out.jsonl"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"settings": 1}', "\x80"])
def test_a_damaged_manifest_is_named(tmp_path, content):
    source = write(tmp_path / "in.jsonl", [{"text": "서울"}])
    (tmp_path / "out.jsonl.parts").mkdir()
    (tmp_path / "out.jsonl.parts" / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"manifest.json is damaged: delete .*out.jsonl.parts to start over"):
        predict_seoul(source, tmp_path / "out.jsonl")


def test_a_file_in_the_place_of_the_shards_is_left_alone(tmp_path):
    source = write(tmp_path / "in.jsonl", [{"text": "서울"}])
    (tmp_path / "out.jsonl.parts").write_text("mine")
    with pytest.raises(FileExistsError, match="out.jsonl.parts exists, but no prediction run made it"):
        predict_seoul(source, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl.parts").read_text() == "mine"


def test_shards_of_another_version_are_refused_by_name(tmp_path):
    source, state = write(tmp_path / "in.jsonl", [{"text": "서울"}, {"text": "부산"}]), PartialState(cpu=True)
    with pytest.raises(RuntimeError, match="the model fails"):
        predict_file(Failing(), source, tmp_path / "out.jsonl", TextOptions(), 1, False, state)
    newer = SeoulPredictor()
    newer.settings = lambda: {"model": "서울", "bilstm_crf_hf": "9.0"}
    with pytest.raises(ValueError, match=r"shards of a run with other settings \(bilstm_crf_hf was None, is 9.0\)"):
        predict_file(newer, source, tmp_path / "out.jsonl", TextOptions(), 1, False, state)


def test_a_number_that_json_does_not_have_is_refused_before_anything_is_predicted(tmp_path):
    rows = [{"text": "서울", "x": 0.5}, {"text": "서울", "x": float("nan")}]
    source = write(tmp_path / "in.parquet", rows)
    with pytest.raises(ValueError, match=r"in\.parquet: row 1: x is nan, which JSON cannot hold"):
        predict_seoul(source, tmp_path / "out.jsonl")
    assert os.listdir(tmp_path) == ["in.parquet"]
    predict_seoul(source, tmp_path / "out.parquet")


def test_a_full_disk_is_said_and_leaves_what_is_finished(tmp_path):
    source, output = write(tmp_path / "in.jsonl", [{"text": "서울" * 10**i} for i in range(5)]), tmp_path / "out.jsonl"
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
            predict_file(SeoulPredictor(), source, output, TextOptions(), 1, False, PartialState(cpu=True))
        except OSError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    parts = Shards(output)
    assert os.read(reading, 1000).decode() == f"[Errno 27] File too large: '{parts.path(3)}'"
    assert sorted(os.listdir(parts.folder)) == ["00000000.jsonl", "00000001.jsonl", "00000002.jsonl", "manifest.json"]
    predict_file(SeoulPredictor(), source, output, TextOptions(), 1, False, PartialState(cpu=True))
    assert len(read(output)) == 5


@pytest.mark.slow
def test_two_processes_do_not_write_one_output(models, texts, tmp_path):
    """The first one is held up half-way, while the second one is refused."""
    write(tmp_path / "in.jsonl", [{"id": i, "text": texts[i % 8]} for i in range(80)])
    first = start(tmp_path, models / "tagger", 1)
    while not Shards(tmp_path / "out.jsonl").done():
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    second = start(tmp_path, models / "tagger", 1)
    _, errors = second.communicate(timeout=300)
    assert second.returncode == 1
    assert f"out.jsonl: another process is at work here (process {first.pid}, " in errors
    assert "Loading weights" not in errors
    first.send_signal(signal.SIGCONT)
    finish(first)
    assert [row["id"] for row in read(tmp_path / "out.jsonl")] == list(range(80))
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "out.jsonl."))]
