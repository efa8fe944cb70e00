"""The analysis of a tagger: by hand on a few sentences, and the recipe as a real process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import LABELS, SENTENCES, new_tagger
from corpora import read_corpus
from markdown_it import MarkdownIt
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from transformers import DataCollatorForTokenClassification, pipeline

from bilstm_crf_hf import BiLSTMForSequenceClassification
from bilstm_crf_hf.alignment import tags_from_spans
from bilstm_crf_hf.commands import analyze
from bilstm_crf_hf.data.encoding import EncodedCorpus
from bilstm_crf_hf.data.inline_marks import parse_inline
from bilstm_crf_hf.evaluation.analysis import Analysis, Sentence
from bilstm_crf_hf.evaluation.errors import ERROR_KINDS
from bilstm_crf_hf.evaluation.metrics import TaggingMetric
from bilstm_crf_hf.processing_bilstm_crf import BiLSTMCRFProcessor

RECIPES = Path(__file__).parents[2] / "recipes"

UNSEEN = ["<손흥민:PS>은 <부산:LC>에서 <어제:DT> 돌아왔다.", "<박지성:PS>은 <3월 2일:DT> <런던:LC>에 갔다."]
TAGGED = [  # gold, what a tagger says, and its scores
    ("<손흥민:PS>은 <1992년 7월 8일:DT> <춘천:LC>", "<손흥민:PS>은 <1992년 7월:DT> 8일 <춘천:LC>", (0.999, 0.7, 0.9)),
    ("<서울:LC>은 <경찰청:OG>을 불렀다", "<서울:OG>은 <경찰:LC>청을 불렀다", (0.995, 0.6)),
    ("<김연아:PS>는 말했다", "김연아는 <말:OG>했다", (0.997,)),
    ("<부산:LC>에 <국회:OG>는 없다", "<부산:OG>에 <국회:OG>는 없다", (0.4, 0.8)),
]


def sentences(rows) -> list[Sentence]:
    """From marked text."""
    tagged = []
    for gold, predicted, scores in rows:
        (text, spans), (same, found) = parse_inline(gold), parse_inline(predicted)
        assert text == same
        tagged.append(Sentence(text, spans, dict(zip(found, scores, strict=True))))
    return tagged


@pytest.fixture(scope="module")
def trained(tokenizer, tmp_path_factory) -> Path:
    """A tagger that has learnt some of the sentences."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "train.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    corpus = EncodedCorpus(read_corpus(folder / "train.txt"), BiLSTMCRFProcessor(tokenizer), LABELS)
    batch = DataCollatorForTokenClassification(tokenizer)(list(corpus.inputs))
    model = new_tagger(tokenizer, locked_dropout=0.0, word_dropout=0.0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(12):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "validation.txt").write_text("\n".join([*SENTENCES, *UNSEEN]), encoding="utf-8")
    return folder


# Numbers


def test_scores_by_type_are_those_of_the_metric():
    tagged = sentences(TAGGED)
    predicted, gold = (
        [tags_from_spans(spans, len(sentence.text)) for sentence, spans in ((s, getattr(s, side)) for s in tagged)]
        for side in ("predicted", "gold")
    )
    expected = TaggingMetric().compute(predictions=predicted, references=gold)
    numbers = Analysis(tagged).numbers(0)
    for row in numbers["types"]:
        for name in ("precision", "recall", "F1"):
            assert (row[name] or 0) == pytest.approx(expected[f"{row['type']}_{name.lower()}"])
    assert {row["type"]: row["gold"] for row in numbers["types"]} == {"DT": 1, "LC": 3, "OG": 2, "PS": 2}
    assert numbers["scores"]["F1"] == pytest.approx(expected["f1"])
    assert 0 < expected["f1"] < 1


def test_errors_by_type_and_confusions_by_hand():
    numbers = Analysis(sentences(TAGGED)).numbers(0)
    counts = {row["entity"]: {kind: row[kind] for kind in ERROR_KINDS if row[kind]} for row in numbers["errors"]}
    assert counts == {
        "DT": {"boundary": 1},
        "LC": {"type": 2},
        "OG": {"both": 1, "invented": 1},
        "PS": {"missed": 1},
        "all": {"boundary": 1, "type": 2, "both": 1, "missed": 1, "invented": 1},
    }
    assert [tuple(row.values()) for row in numbers["confusions"]] == [("LC", "OG", 2), ("OG", "LC", 1)]


def test_scores_by_length_and_by_what_training_has_seen_by_hand():
    numbers = Analysis(sentences(TAGGED), seen={"춘천", "서울", "경찰", "국회"}).numbers(0)
    lengths = {row["characters"]: (row["gold"], row["predicted"], row["recall"]) for row in numbers["lengths"]}
    assert list(lengths) == ["1", "2", "3", "7–9", "≥ 10"]
    assert lengths["1"] == (0, 1, None)  # 말
    assert lengths["2"] == (4, 5, 0.5)
    assert lengths["7–9"] == (0, 1, None)  # 1992년 7월
    assert lengths["≥ 10"] == (1, 0, 0)
    training = {row["in training"]: (row["gold"], row["predicted"], row["recall"]) for row in numbers["training"]}
    assert training == {"seen": (3, 4, pytest.approx(2 / 3)), "unseen": (5, 4, 0.2)}


def test_probable_errors_in_gold_are_those_with_high_scores_the_surest_first():
    found = Analysis(sentences(TAGGED)).numbers(1)["probable gold errors"]
    assert [(row["row"], row["score"], row["error"]) for row in found] == [(2, 0.997, "invented"), (1, 0.995, "type")]
    assert found[1]["gold text"] == "<서울:LC>은 경찰청을 불렀다"
    assert found[1]["predicted text"] == "<서울:OG>은 경찰청을 불렀다"
    assert (found[0]["gold"], found[0]["predicted"]) == ([], [(5, 6, "OG")])
    lower = Analysis(sentences(TAGGED), gold_error_score=0.6).numbers(0)["probable gold errors"]
    assert [row["score"] for row in lower] == [0.997, 0.995, 0.7, 0.6]


def test_examples_are_spread_over_the_sentences():
    rows = sentences([("<서울:LC>에", "<서울:OG>에", (0.5,))] * 10)
    examples = Analysis(rows).examples(3)
    assert [row["row"] for row in examples["type"]] == [0, 3, 6]
    assert len(Analysis(rows).examples(20)["type"]) == 10
    assert not any(Analysis(rows).examples(0).values())


# The recipe


def run(folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(RECIPES / "analyze.py"), "--model_name_or_path", str(folder / "model"), *options]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def report(trained) -> Path:
    files = ["--validation_file", "validation.txt", "--train_file", "train.txt"]
    result = run(trained, *files, "--output_dir", "report", "--gold_error_score", "0.5")
    assert result.returncode == 0, result.stderr
    assert "saved in report" in result.stdout
    assert {path.name for path in (trained / "report").iterdir()} == {"analysis.md", "analysis.json", "reliability.png"}
    return trained / "report"


@pytest.mark.slow
def test_the_recipe_gives_what_the_pipeline_and_scikit_learn_give(trained, report):
    pipe = pipeline("token-classification", model=str(trained / "model"), trust_remote_code=True)
    gold = [parse_inline(line) for line in [*SENTENCES, *UNSEEN]]
    scored, wrong = [], []
    for row, (text, spans) in enumerate(gold):
        for entity in pipe(text):
            right = (entity["start"], entity["end"], entity["entity_group"]) in [tuple(span) for span in spans]
            scored.append((entity["score"], right))
            if not right and entity["score"] >= 0.5:
                wrong.append((entity["score"], row))
    scores, right = zip(*scored, strict=True)
    numbers = json.loads((report / "analysis.json").read_text(encoding="utf-8"))
    trust = numbers["calibration"]
    precision, means = calibration_curve(right, scores, n_bins=10)
    counts = [part["count"] for part in trust["bins"]]
    assert [part["precision"] for part in trust["bins"]] == pytest.approx(precision.tolist())
    assert [part["mean_score"] for part in trust["bins"]] == pytest.approx(means.tolist(), abs=1e-5)
    expected = sum(count * abs(p - m) for count, p, m in zip(counts, precision, means, strict=True)) / len(scores)
    assert trust["ECE"] == pytest.approx(expected, abs=1e-5)
    assert trust["Brier score"] == pytest.approx(brier_score_loss(right, scores), abs=1e-5)
    found = [(row["score"], row["row"]) for row in numbers["probable gold errors"]]
    assert found == [(pytest.approx(score, abs=1e-5), row) for score, row in sorted(wrong, reverse=True)]
    assert 0 < sum(right) < len(right)
    assert found
    assert (numbers["scores"]["gold"], numbers["sentences"]) == (sum(len(spans) for _, spans in gold), len(gold))


@pytest.mark.slow
def test_entities_of_the_training_file_are_the_seen_ones(report):
    numbers = json.loads((report / "analysis.json").read_text(encoding="utf-8"))
    gold = {row["in training"]: row["gold"] for row in numbers["training"]}
    marked = [span for line in SENTENCES for span in parse_inline(line)[1]]
    assert gold == {"seen": len(marked) + 3, "unseen": 3}  # 박지성, 3월 2일, 런던


@pytest.mark.slow
def test_the_report_is_markdown_that_shows_tables_picture_and_sentences(report):
    numbers = json.loads((report / "analysis.json").read_text(encoding="utf-8"))
    markdown = (report / "analysis.md").read_text(encoding="utf-8")
    html = MarkdownIt("commonmark").enable("table").render(markdown)
    assert f"F1 <strong>{numbers['scores']['F1']:.4f}</strong>" in html
    assert html.count("<table>") == 7 + bool(numbers["confusions"])
    assert '<img src="reliability.png"' in html
    quoted = [row for rows in numbers["examples"].values() for row in rows] + numbers["probable gold errors"]
    assert quoted
    for row in quoted:
        for side in ("gold", "predicted"):
            shown = row[f"{side} text"].replace("<", "&lt;").replace(">", "&gt;")
            assert (shown if row[side] else "no entity here") in html


def test_a_report_without_sentences_quotes_nothing(trained, tmp_path):
    """Of a data set by its name, with another split; its training split is read too. In this process."""
    for split, lines in (("train", SENTENCES), ("test", [*SENTENCES, *UNSEEN])):
        rows = [(list(text), tags_from_spans(spans, len(text))) for text, spans in map(parse_inline, lines)]
        table = pa.table({"tokens": [tokens for tokens, _ in rows], "ner_tags": [tags for _, tags in rows]})
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "data" / f"{split}.parquet")
    model, output = trained / "model", tmp_path / "report"
    options = {"dataset_name": tmp_path / "data", "validation_split": "test", "sentences": 0, "gold_error_score": 0.5}
    options |= {"model_name_or_path": model, "output_dir": output}
    analyze.main([f"--{name}={value}" for name, value in options.items()])
    numbers = json.loads((output / "analysis.json").read_text(encoding="utf-8"))
    assert numbers["sentences"] == len(SENTENCES) + len(UNSEEN)
    assert [row["in training"] for row in numbers["training"]] == ["seen", "unseen"]
    assert numbers["probable gold errors"]
    written = "".join((output / name).read_text(encoding="utf-8") for name in ("analysis.json", "analysis.md"))
    assert not [c for c in written if "가" <= c <= "힣"]


def test_what_cannot_be_analyzed_is_named(trained, tokenizer, tmp_path):
    model, file = f"--model_name_or_path={trained / 'model'}", f"--validation_file={trained / 'validation.txt'}"
    with pytest.raises(ValueError, match="there is no validation split, only train: give validation_file or"):
        analyze.main([model, f"--train_file={trained / 'train.txt'}"])
    with pytest.raises(ValueError, match="no data: give --train_file"):
        analyze.main([model])
    with pytest.raises(ValueError, match="sentences is -1"):
        analyze.main([model, file, "--sentences=-1"])
    with pytest.raises(ValueError, match="gold_error_score is 99"):
        analyze.main([model, file, "--gold_error_score=99"])
    other = tmp_path / "other.txt"
    other.write_text("<경찰:OG>은 <춘천:LC>에", encoding="utf-8")
    with pytest.raises(ValueError, match="the model has no label for OG; its entity types are DT, LC, PS"):
        analyze.main([model, f"--validation_file={other}", f"--output_dir={tmp_path / 'none'}"])
    names = {"id2label": {0: "부정", 1: "긍정"}, "label2id": {"부정": 0, "긍정": 1}}
    BiLSTMForSequenceClassification.from_tokenizer(tokenizer, hidden_size=8, **names).save_pretrained(tmp_path / "mood")
    tokenizer.save_pretrained(tmp_path / "mood")
    with pytest.raises(ValueError, match="mood classifies texts: name a tagger"):
        analyze.main([f"--model_name_or_path={tmp_path / 'mood'}", file])
    assert not (tmp_path / "none").exists()
