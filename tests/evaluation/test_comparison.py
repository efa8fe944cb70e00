import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from conftest import LABELS, SENTENCES
from corpora import read_corpus
from seqeval.metrics import f1_score as seqeval_f1
from seqeval.scheme import IOB2, Entities
from sklearn.metrics import accuracy_score
from sklearn.metrics import f1_score as sklearn_f1
from transformers import EvalPrediction

from bilstm_crf_hf.alignment import Span, render, tags_from_spans
from bilstm_crf_hf.commands import compare
from bilstm_crf_hf.commands.training_steps import train
from bilstm_crf_hf.data.encoding import EncodedCorpus
from bilstm_crf_hf.data.inline_marks import parse_inline
from bilstm_crf_hf.evaluation.comparison import (
    Speed,
    System,
    bootstrap_difference,
    count_labels,
    f1_of_counts,
    group_runs,
    tables_of,
)
from bilstm_crf_hf.evaluation.comparison_page import to_markdown, write_report
from bilstm_crf_hf.evaluation.errors import ERROR_KINDS, error_counts, match_entities
from bilstm_crf_hf.evaluation.markdown import values_of
from bilstm_crf_hf.evaluation.metrics import EntityScorer, strict_spans
from bilstm_crf_hf.evaluation.runs import CONFIG, PREDICTIONS, read_run, save_predictions
from bilstm_crf_hf.evaluation.tasks import label_maps
from bilstm_crf_hf.processing_bilstm_crf import BiLSTMCRFProcessor

RECIPES = Path(__file__).parents[2] / "recipes"
CLASSES = ["긍정", "부정", "중립"]
GOLD = [parse_inline(sentence) for sentence in SENTENCES]


def blurred(rng: random.Random, text: str, spans: list[Span]) -> list[Span]:
    """Entities as a tagger might have them: some right, some moved, some of another type, some missed or invented."""
    found, at = [], 0
    for start, end, label in [*spans, Span(len(text) - 1, len(text), "LC")]:
        start, end = start + rng.choice([0, 0, 0, 1, -1]), end + rng.choice([0, 0, 0, 1])
        start, end = max(start, at), min(end, len(text))
        content = text[start:end]
        if content and content == content.strip() and rng.random() < 0.8:
            found.append(Span(start, end, label if rng.random() < 0.8 else rng.choice(["PS", "DT"])))
            at = end
    return found


def write_run(folder: Path, rows: list[tuple], seed: int = 42, **results) -> Path:
    """Write the files of a finished run, with weights that cannot be loaded."""
    folder.mkdir(parents=True)
    save_predictions(folder / PREDICTIONS, rows)
    texts, gold, predicted = zip(*rows, strict=True)
    if isinstance(gold[0], str):
        scores = {"macro_f1": sklearn_f1(gold, predicted, average="macro", zero_division=0)}
        config = {"architectures": ["BertForSequenceClassification"]} | label_maps(CLASSES)
    else:
        tags = [[tags_from_spans(*row) for row in zip(side, map(len, texts))] for side in (gold, predicted)]
        scores = {"f1": float(seqeval_f1(*tags, mode="strict", scheme=IOB2))}
        config = {"architectures": ["BertForTokenClassification"]} | label_maps(LABELS)
    (folder / CONFIG).write_text(json.dumps(config))
    scores = {f"eval_{name}": score for name, score in scores.items()}
    results = {"seed": seed, "parameters": 1234, "seconds_per_epoch": 2.5} | scores | results
    (folder / "all_results.json").write_text(json.dumps(results))
    history = [{"epoch": epoch} | {name: score * epoch / 2 for name, score in scores.items()} for epoch in (1.0, 2.0)]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    (folder / "model.safetensors").write_bytes(b"0" * 2000)
    return folder


def entity_run(folder: Path, seed: int = 42, noise: int = 0) -> Path:
    rng = random.Random(noise or seed)
    rows = [(text, spans, blurred(rng, text, spans)) for text, spans in GOLD]
    return write_run(folder, rows, seed)


def class_run(folder: Path, seed: int = 42) -> Path:
    rng, gold = random.Random(seed), random.Random(0)
    rows = [(text, gold.choice(CLASSES)) for text, _ in GOLD]
    rows = [(text, label, label if rng.random() < 0.5 else rng.choice(CLASSES)) for text, label in rows]
    return write_run(folder, rows, seed)


# Predictions on disk


def test_predictions_appear_whole_or_not_at_all(tmp_path):
    def rows():
        yield "춘천", "긍정", "부정"
        raise KeyboardInterrupt

    path = tmp_path / PREDICTIONS
    for content in (None, "the earlier one"):
        if content:
            path.write_text(content)
        with pytest.raises(KeyboardInterrupt):
            save_predictions(path, rows())
        assert [file.read_text() for file in tmp_path.iterdir()] == ([content] if content else [])


def test_saved_entities_are_those_that_the_strict_score_counts(tokenizer, tmp_path):
    """Random labels, so many I- tags continue nothing; the score is that of training, by seqeval."""
    file = tmp_path / "sentences.txt"
    file.write_text("\n".join(SENTENCES), encoding="utf-8")
    corpus = EncodedCorpus(read_corpus(file), BiLSTMCRFProcessor(tokenizer), LABELS)
    labels = padded(corpus.inputs["labels"][:])
    noise = np.random.default_rng(0)
    predictions = np.where((noise.random(labels.shape) < 0.2) & (labels != -100), 0, labels)
    predictions = np.where((noise.random(labels.shape) < 0.2) & (labels != -100), 5, predictions)
    scorer = EntityScorer(corpus)
    expected = scorer(EvalPrediction(predictions, labels))
    rows = list(zip(corpus.texts, corpus.spans, scorer.entities(predictions)))
    run = read_run(write_run(tmp_path / "run", rows))
    assert run.score == pytest.approx(expected["f1"])
    assert 0 < expected["f1"] != expected["default_f1"]
    assert run.predictions.texts == [text for text, _ in GOLD]
    assert run.predictions.gold == [spans for _, spans in GOLD]


def test_training_and_comparison_give_the_same_scores(tokenizer, tmp_path):
    """Entities have spaces inside, and the model has a type (DT) that occurs on neither side.

    The character F1 is that of klue_baseline: without white space, over all tags of the model.
    """
    rows = [("서울 시청 앞에서", [Span(0, 5, "LC")]), ("김 연아가 왔다", [Span(0, 4, "PS")])]
    guessed = [[Span(0, 7, "LC")], [Span(0, 4, "PS")]]
    corpora = []
    for number, side in enumerate(([spans for _, spans in rows], guessed)):
        file = tmp_path / f"{number}.txt"
        file.write_text("\n".join(render(text, spans) for (text, _), spans in zip(rows, side)), encoding="utf-8")
        corpora.append(EncodedCorpus(read_corpus(file), BiLSTMCRFProcessor(tokenizer), LABELS))
    gold, predicted = (padded(corpus.inputs["labels"][:]) for corpus in corpora)
    scorer = EntityScorer(corpora[0])
    expected = scorer(EvalPrediction(predicted, gold))
    saved = zip(scorer.corpus.texts, scorer.corpus.spans, scorer.entities(predicted))
    scores = read_run(write_run(tmp_path / "run", list(saved))).scores
    assert scores == {name: value for name, value in expected.items() if name != "token_f1"}
    tags = [
        [tag for (text, _), spans in zip(rows, side) for tag in without_spaces(text, spans)]
        for side in ([spans for _, spans in rows], guessed)
    ]
    character_f1 = sklearn_f1(*tags, labels=LABELS, average="macro", zero_division=1)
    assert scores["klue_char_macro_f1"] == pytest.approx(character_f1)
    with_spaces = [
        [tag for (text, _), spans in zip(rows, side) for tag in tags_from_spans(spans, len(text))]
        for side in ([spans for _, spans in rows], guessed)
    ]
    assert character_f1 != sklearn_f1(*with_spaces, labels=LABELS, average="macro", zero_division=1)


def padded(rows: list[list[int]]) -> np.ndarray:
    """The rows with -100 behind their ends."""
    table = np.full((len(rows), max(map(len, rows))), -100)
    for row, ids in zip(table, rows):
        row[: len(ids)] = ids
    return table


def without_spaces(text: str, spans: list[Span]) -> list[str]:
    return [tag for tag, character in zip(tags_from_spans(spans, len(text)), text) if character != " "]


def test_strict_spans_are_those_of_seqeval():
    """Random tags, many of which continue nothing; the text has spaces between its characters."""
    rng = random.Random(0)
    for _ in range(300):
        tags = rng.choices(["O", "B-PS", "I-PS", "B-LC", "I-LC"], k=rng.randrange(12))
        text = " ".join("가" * len(tags))
        expected = [(2 * e.start, 2 * e.end - 1, e.tag) for e in Entities([tags], IOB2).entities[0]]
        assert strict_spans(text, tags) == expected


# Bootstrap


def strict_f1(run, sentences) -> float:
    texts, *sides = run.predictions
    tags = [[tags_from_spans(spans[i], len(texts[i])) for i in sentences] for spans in sides]
    return seqeval_f1(*tags, mode="strict", scheme=IOB2, zero_division=0)


def macro_f1(run, sentences) -> float:
    gold, predicted = ([column[i] for i in sentences] for column in run.predictions[1:])
    return sklearn_f1(gold, predicted, average="macro", zero_division=0)


@pytest.mark.parametrize(("write", "score"), [(entity_run, strict_f1), (class_run, macro_f1)])
@pytest.mark.parametrize("seeds", [(1, 3), (5, 4)])
def test_bootstrap_equals_a_loop_over_resampled_sentences(tmp_path, write, score, seeds):
    """Each resample is scored anew by seqeval, or by scikit-learn."""
    first, second = (read_run(write(tmp_path / f"run-{seed}", seed)) for seed in seeds)
    counts = [count_labels(System("x", [run]), CLASSES) for run in (first, second)]
    result = bootstrap_difference(*counts, resamples=60, seed=3)

    rng = np.random.default_rng(3)
    size = len(SENTENCES)
    samples = [rng.integers(size, size=size) for _ in range(60)]
    differences = [score(first, sample) - score(second, sample) for sample in samples]
    observed = score(first, range(size)) - score(second, range(size))
    assert result.difference == pytest.approx(observed)
    assert (result.low, result.high) == pytest.approx(tuple(np.percentile(differences, [2.5, 97.5])))
    assert observed != 0
    assert result.p == sum(difference * observed < 1e-12 for difference in differences) / 60


def test_bootstrap_of_equal_and_of_unlike_systems(tmp_path):
    right = [(text, spans, spans) for text, spans in GOLD]
    wrong = [(text, spans, []) for text, spans in GOLD]
    perfect, blank = (
        count_labels(System(name, [read_run(write_run(tmp_path / name, rows))]), [])
        for name, rows in (("perfect", right), ("blank", wrong))
    )
    assert bootstrap_difference(perfect, perfect) == (0, 0, 0, 1)
    assert bootstrap_difference(perfect, blank)[0] == 1
    assert bootstrap_difference(perfect, blank).p == 0
    assert bootstrap_difference(perfect, blank, 10, seed=7) == bootstrap_difference(perfect, blank, 10, seed=7)


def test_seeds_are_counted_together(tmp_path):
    runs = [read_run(entity_run(tmp_path / f"a-seed{seed}", seed)) for seed in (1, 2, 3)]
    together = f1_of_counts(count_labels(System("a", runs), []).sum(0))
    tags = [
        [tags_from_spans(row[side], len(row[0])) for run in runs for row in zip(*run.predictions)] for side in (1, 2)
    ]
    assert together == pytest.approx(seqeval_f1(*tags, mode="strict", scheme=IOB2))


# Errors


@pytest.mark.parametrize(
    ("gold", "predicted", "errors"),
    [
        ("<손흥민:PS>은 <춘천:LC>에", "<손흥민:PS>은 <춘천:LC>에", ["right", "right"]),
        ("<손흥민:PS>은 <춘천:LC>에", "<손흥민은:PS> <춘천:OG>에", ["boundary", "type"]),
        ("<손흥민:PS>은 <춘천:LC>에", "<손흥민은:OG> 춘천에", ["both", "missed"]),
        ("손흥민은 <춘천:LC>에", "<손흥민:PS>은 춘천에", ["missed", "invented"]),
        ("<서울 시청:LC>", "<서울:LC> <시청:LC>", ["boundary", "invented"]),
        ("<서울:LC> <시청:LC>", "<서울 시청:LC>", ["boundary", "missed"]),
        ("<서울:OG> <시청:LC>", "<서울 시청:LC>", ["boundary", "missed"]),
    ],
)
def test_error_kinds_of_small_sentences(gold, predicted, errors):
    (text, gold_spans), (same, predicted_spans) = parse_inline(gold), parse_inline(predicted)
    assert text == same
    assert sorted(name for name, *_ in match_entities(gold_spans, predicted_spans)) == sorted(errors)


def test_of_several_that_overlap_the_one_with_most_in_common_is_the_counterpart():
    (_, gold), (_, predicted) = (parse_inline(text) for text in ("<서울 시청 앞:LC>", "<서:LC>울 <시청 앞:LC>"))
    assert list(match_entities(gold, predicted)) == [
        ("boundary", gold[0], predicted[1]),
        ("invented", None, predicted[0]),
    ]


def test_each_entity_is_counted_once(tmp_path):
    seen = Counter()
    for seed in range(1, 30):
        run = read_run(entity_run(tmp_path / str(seed), seed))
        counts = error_counts(run)
        _, golds, predicted = run.predictions
        assert counts["right"] == sum(len({*gold} & {*found}) for gold, found in zip(golds, predicted))
        pairs = counts.total() - counts["missed"] - counts["invented"]
        assert pairs + counts["missed"] == sum(map(len, golds))
        assert pairs + counts["invented"] == sum(map(len, predicted))
        seen += counts
    assert set(seen) == {"right", *ERROR_KINDS}


# Grouping, and what is refused


def test_runs_that_differ_in_the_seed_are_one_system(tmp_path):
    folders = [entity_run(tmp_path / f"kleine-seed{seed}", seed) for seed in (43, 42)]
    folders.append(entity_run(tmp_path / "other", 44))
    systems = {system.name: system for system in group_runs([read_run(folder) for folder in folders])}
    assert [run.seed for run in systems["kleine"].runs] == [42, 43]
    scores = [run.score for run in systems["kleine"].runs]
    assert systems["kleine"].score == pytest.approx(np.mean(scores))
    assert systems["kleine"].deviation("f1") == pytest.approx(np.std(scores, ddof=1))
    assert systems["other"].deviation("f1") is None
    assert systems["kleine"].runs[0].seconds == 5


def test_what_cannot_be_compared_is_refused(tmp_path):
    run = read_run(entity_run(tmp_path / "a"))
    with pytest.raises(ValueError, match=r"both runs of a with seed 42"):
        group_runs([run, read_run(entity_run(tmp_path / "elsewhere" / "a"))])
    with pytest.raises(ValueError, match=r"a is a run of named entities, .*b of text classification"):
        group_runs([run, read_run(class_run(tmp_path / "b"))])
    rows = [(text, spans, spans) for text, spans in GOLD]
    with pytest.raises(ValueError, match=r"c.*jsonl:8: 'no line' differs from '<1443년:DT> .* in .*a: compare"):
        group_runs([run, read_run(write_run(tmp_path / "c", rows[:-1]))])
    rows[2] = (rows[2][0], rows[2][1][:1], rows[2][2])
    with pytest.raises(
        ValueError, match=r"d.*jsonl:3: '<부산:LC>에는 3월 1일에 .* differs from '<부산:LC>에는 <3월 1일"
    ):
        group_runs([run, read_run(write_run(tmp_path / "d", rows))])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "춘천에", "gold": [[0, 2, "LC"', r"jsonl:2: .*delimiter"),
        ("[" * 10**5, r"jsonl:2: too many lists"),
        ("null", r"jsonl:2: expected an object, found null"),
        ('{"text": "춘천에", "gold": [[0, NaN, "LC"]], "predicted": []}', r"jsonl:2: nan is not a number in JSON"),
        ('{"text": "춘천에", "gold": [[0, 2, "LC"]]}', r"jsonl:2: expected `text`, and `gold` and `predicted`"),
        ('{"text": "춘천에", "gold": [], "predicted": "LC"}', r"jsonl:2: expected"),
        ('{"text": 3, "gold": [], "predicted": []}', r"jsonl:2: expected"),
        ('{"text": "춘천에", "gold": "긍정", "predicted": "부정"}', r"jsonl:2: expected .*\(named entities\)"),
        ('{"text": "춘천에", "gold": [[0, 4, "LC"]], "predicted": []}', r"jsonl:2: the span LC \[0, 4\) does not lie"),
        ('{"text": "춘천에", "gold": [[0, 2]], "predicted": []}', r"jsonl:2: .*label"),
    ],
)
def test_damaged_predictions_are_named(tmp_path, line, message):
    folder = entity_run(tmp_path / "run")
    lines = (folder / PREDICTIONS).read_text().splitlines()
    (folder / PREDICTIONS).write_text("\n".join([lines[0], line, *lines[2:]]))
    with pytest.raises(ValueError, match=message):
        read_run(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("all_results.json", None, r"all_results.json: no such file. Name the folder of a finished run"),
        ("all_results.json", '{"seed": 1', r"all_results.json: the file is damaged"),
        ("all_results.json", "[" * 10**5, r"all_results.json: the file is damaged \(too many lists"),
        ("all_results.json", "null", r"all_results.json: expected an object"),
        ("all_results.json", '{"seed": 1}', r"all_results.json: there is no parameters, seconds_per_epoch"),
        ("trainer_state.json", '{"log_history": [{"loss": 1}]}', r"trainer_state.json: there is no eval_f1"),
        (PREDICTIONS, None, r"jsonl: no such file"),
        (PREDICTIONS, "", r"jsonl: the file is empty"),
        (
            PREDICTIONS,
            '{"text": "춘천", "gold": [[0, 2, "LC"]], "predicted": []}',
            r"have f1 0.000000, but eval_f1 in all_r",
        ),
        ("model.safetensors", None, r"there are no weights"),
    ],
)
def test_unfinished_folders_are_refused(tmp_path, name, content, message):
    folder = entity_run(tmp_path / "run")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_run(folder)


# The report


class Page(HTMLParser):
    """Tags with their attributes, and the text of a page without its style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data) -> None:
        self.text += data


def report_of(folders: list[Path], output: Path, **options) -> tuple[list[System], Page]:
    systems = group_runs([read_run(folder) for folder in folders])
    output.mkdir(exist_ok=True)
    speeds = {system.name: Speed(2.5 * (i + 1), 400.0 / (i + 1)) for i, system in enumerate(systems)}
    write_report(output, systems, speeds, {"CPU": "x & <y>"}, **options)
    return systems, Page((output / "report.html").read_text(encoding="utf-8"))


def csv_rows(path: Path) -> list[dict]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("write", [entity_run, class_run])
def test_report_holds_all_and_needs_nothing(tmp_path, write):
    names = ["한글 <b>|$x$-seed1", "한글 <b>|$x$-seed2", "_b-seed1", "c"]
    systems, page = report_of([write(tmp_path / name, i) for i, name in enumerate(names, 1)], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html", "report.md", "systems.csv", "runs.csv", "bootstrap.csv", "labels.csv", "errors.csv",
        "differences.csv", "score_by_epoch.svg", "score_by_time.svg", "score_by_speed.svg",
        "score_by_type.svg" if write is entity_run else "score_by_class.svg",
    }  # fmt: skip
    assert not {"script", "link", "img", "b", "iframe"} & {tag for tag, _ in page.tags}
    addresses = [value for _, attributes in page.tags for name, value in attributes.items() if name.endswith("href")]
    assert all(address.startswith("#") for address in addresses)
    assert "url(http" not in page.text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [attributes["role"] for tag, attributes in page.tags if tag == "svg"] == ["img"] * 4
    assert all(system.name in page.text for system in systems)
    assert "x & <y>" in page.text
    for path in (tmp_path / "out").glob("*.svg"):
        assert any("한글 <b>|$x$" in (element.text or "") for element in ElementTree.parse(path).iter())

    rows = csv_rows(tmp_path / "out" / "differences.csv")
    assert rows
    for row in rows[:5]:
        shown = ("gold", "predicted") if write is entity_run else ("text",)
        assert all(row[name] in page.text for name in shown)
    assert [row["system"] for row in csv_rows(tmp_path / "out" / "systems.csv")] == [s.name for s in systems]
    assert len(csv_rows(tmp_path / "out" / "bootstrap.csv")) == 3
    assert len(csv_rows(tmp_path / "out" / "runs.csv")) == 4


def test_names_of_folders_never_become_markup_or_formulas(tmp_path):
    names = ["=1+1<img src=x onerror=alert(1)>", "+x\n\n<b>`[y](javascript:1)", "@\x1b[31m|z"]
    systems, page = report_of([entity_run(tmp_path / name, i) for i, name in enumerate(names, 1)], tmp_path / "out")
    assert not {"script", "link", "img", "b", "iframe", "a"} & {tag for tag, _ in page.tags}
    assert names[0] in page.text
    assert "+x <b>`[y](javascript:1)" in page.text
    assert r"@\x1b[31m|z" in page.text
    assert {row["system"] for row in csv_rows(tmp_path / "out" / "systems.csv")} == {f"'{name}" for name in names}
    assert not any("\x1b" in path.read_text("utf-8") for path in (tmp_path / "out").iterdir() if path.suffix != ".csv")
    assert all(ElementTree.parse(path) for path in (tmp_path / "out").glob("*.svg"))


def test_speed_is_measured_without_the_code_that_a_model_brings_along(tagger, tokenizer, texts, tmp_path):
    tagger.save_pretrained(tmp_path / "run")
    tokenizer.save_pretrained(tmp_path / "run")
    for name in ("crf.py", "pipeline_bilstm_crf.py"):
        with (tmp_path / "run" / name).open("a") as file:
            file.write(f"\nopen({str(tmp_path / 'ran')!r}, 'w')\n")
    best = SimpleNamespace(folder=tmp_path / "run", predictions=SimpleNamespace(texts=texts))
    speeds = compare.measure_speeds([SimpleNamespace(name="a", best=best)], 2)
    assert speeds["a"].sentences_per_second > 0
    assert not (tmp_path / "ran").exists()
    compare.measure_speeds([SimpleNamespace(name="a", best=best)], 2, trust_remote_code=True)
    assert (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize("write", [entity_run, class_run])
def test_report_without_sentences_quotes_none_in_any_file(tmp_path, write):
    folders = [write(tmp_path / name, i) for i, name in enumerate(["a-seed1", "b-seed1", "c", "d"], 1)]
    report_of(folders, tmp_path / "out")
    texts = {row["text"] for row in csv_rows(tmp_path / "out" / "differences.csv")}
    assert texts
    report_of(folders, tmp_path / "out", sentences=0)
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".html", ".md", ".csv", ".svg"}
    for path in (tmp_path / "out").iterdir():
        content = path.read_text(encoding="utf-8")
        assert not [text for text in texts if text in content], path


def test_tables_say_what_was_computed(tmp_path):
    folders = [class_run(tmp_path / f"a-seed{seed}", seed) for seed in (1, 2)] + [class_run(tmp_path / "b", 3)]
    systems = group_runs([read_run(folder) for folder in folders])
    speeds = {"a": Speed(2.0, 500.0), "b": Speed(1.0, 1000.0)}
    tables = tables_of(systems, speeds)
    row = next(row for row in values_of(tables["systems"]) if row["system"] == "a")
    runs = next(system.runs for system in systems if system.name == "a")
    accuracy = [accuracy_score(run.predictions.gold, run.predictions.predicted) for run in runs]
    assert row["accuracy"] == pytest.approx(np.mean(accuracy))
    assert (row["parameters"], row["file, MB"], row["training, s"], row["one sentence, ms"]) == (1234, 0.002, 5, 2)
    assert row["mean macro F1 of all epochs"] == pytest.approx(0.75 * row["mean macro F1"])
    by_class = sklearn_f1(*runs[0].predictions[1:], average=None, labels=CLASSES)
    assert [runs[0].scores[f"{label}_f1"] for label in CLASSES] == pytest.approx(list(by_class))
    (_, golds, ours), (_, _, theirs) = (system.best.predictions for system in systems)
    different = [i for i, gold in enumerate(golds) if (ours[i] == gold) != (theirs[i] == gold)]
    assert different
    assert [row["line"] - 1 for row in tables["differences"]] == different
    assert "| a |" in to_markdown(systems, tables, {}, {}, 20)


def test_one_system_is_reported_without_pairs(tmp_path):
    _, page = report_of([entity_run(tmp_path / f"a-seed{seed}", seed) for seed in (1, 2)], tmp_path / "out")
    assert "Errors" in page.text
    assert "differ" not in re.sub("which differ in their seeds", "", page.text)


# The recipe as a process


SMALL = {
    "config_overrides": {"embedding_size": 16, "hidden_size": 16, "ngram_buckets": 256, "ngram_embedding_size": 8},
    "num_train_epochs": 1,
    "learning_rate": 0.01,
    "use_cpu": True,
}
OPTIONS = ["--", "--max_train_samples", "64", "--max_eval_samples", "16"]


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """In a process group of its own, so that it can be killed together with what it trains."""
    command = [sys.executable, str(RECIPES / "compare.py"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes)


@pytest.mark.slow
def test_killed_comparison_goes_on_where_it_was(tmp_path):
    """SIGKILL while the second seed is trained; then again. With other settings, it does not go on."""
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    arguments = ["small.yaml", "--seeds", "1", "2", "--output_dir", "out", "--latency_sentences", "4", *OPTIONS]
    runs = tmp_path / "out" / "runs"
    process = start(tmp_path, *arguments)
    while not (runs / "small-seed2").is_dir():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out" / "report.html").exists()
    (runs / "small-seed2" / "checkpoint-99").mkdir()  # what a run may leave that is killed later
    first = (runs / "small-seed1" / "all_results.json").stat().st_mtime_ns

    process = start(tmp_path, *arguments)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert (runs / "small-seed1" / "all_results.json").stat().st_mtime_ns == first
    assert not (runs / "small-seed2" / "checkpoint-99").exists()
    results = [json.loads((runs / f"small-seed{seed}" / "all_results.json").read_text()) for seed in (1, 2)]
    (row,) = csv_rows(tmp_path / "out" / "systems.csv")
    assert (row["system"], row["runs"]) == ("small", "2")
    assert float(row["mean F1"]) == pytest.approx(np.mean([result["eval_f1"] for result in results]))
    assert float(row["sentences a second"]) > 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")) == []

    with pytest.raises(ValueError, match="small-seed1 was trained with other settings"):
        train(runs / "small-seed1", tmp_path / "small.yaml", "ner", 1, ["--num_train_epochs", "1"])


def test_folders_are_not_trained_over(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("num_train_epochs: 1")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="run is not a run of this comparison"):
        train(tmp_path / "run", config, "ner", 1, [])
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_failed_training_is_said(tmp_path, monkeypatch):
    config = tmp_path / "a.yaml"
    config.write_text("num_train_epochs: 1")
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match=r"training .*a.yaml with seed 1 failed \(exit status 1\)"):
        train(tmp_path / "run", config, "ner", 1, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.yaml", "b/a.yaml"], "several YAML files have the name a"),
        (["nowhere"], "nowhere: neither a YAML file nor the folder"),
        (["a.yaml", "--latency_sentences", "0"], "must be at least 1"),
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("")
    with pytest.raises(SystemExit):
        compare.parse(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["classify", "sequence_classification"])
def test_classifiers_are_trained_by_the_name_of_the_command_or_of_the_launcher(tmp_path, name):
    """Folders of finished runs contain the name of the launcher."""
    arguments, _ = compare.parse([str(tmp_path), "--recipe", name])
    assert arguments.recipe == "sequence_classification"
