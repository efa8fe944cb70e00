"""A training on sentences within their documents, and what other commands make of its model."""

import json
import random

import pytest

from bilstm_crf_hf.alignment import Span
from bilstm_crf_hf.commands import analyze, ner, predict
from bilstm_crf_hf.evaluation.runs import read_predictions
from bilstm_crf_hf.evaluation.tasks import TAGGING

pytestmark = pytest.mark.slow

SMALL = json.dumps({"embedding_size": 16, "hidden_size": 48, "ngrams": [], "jamo_embedding_size": 0})


def document(rng: random.Random) -> str:
    """Two sentences; only the other one tells whether `it` is a place or a person."""
    place = rng.random() < 0.5
    hint, tag = ("town", "B-LOC") if place else ("lady", "B-PER")
    other = f"a O\n{hint} O\n{'Rome' if place else 'Anna'} {tag}\n"
    it = f"it {tag}\n{rng.choice(['is', 'was'])} O\n"
    return "-DOCSTART- O\n\n" + "\n".join(rng.sample([other, it], 2)) + "\n"


def test_a_tagger_learns_from_the_sentences_around_and_is_scored_as_it_predicts(tmp_path):
    rng = random.Random(0)
    files = {}
    for split, size in (("train", 150), ("validation", 40)):
        files[split] = tmp_path / f"{split}.conll"
        files[split].write_text("\n".join(document(rng) for _ in range(size)), encoding="utf-8")
    data = ["--train_file", str(files["train"]), "--validation_file", str(files["validation"])]
    options = ["--config_overrides", SMALL, "--min_frequency", "1", "--disable_tqdm", "true", "--use_cpu", "true"]
    options += ["--num_train_epochs", "15", "--learning_rate", "0.01", "--language", "en"]
    scores = {}
    for size in ("0", "1"):
        folder = tmp_path / size
        ner.main([*data, *options, "--output_dir", str(folder), "--document_context", size])
        scores[size] = json.loads((folder / "all_results.json").read_text())["eval_f1"]
    assert scores["1"] > 0.95 > 0.85 > scores["0"]
    assert json.loads((folder / "training_run.json").read_text())["arguments"]["document_context"] == 1

    model = ["--model_name_or_path", str(folder)]
    recorded = read_predictions(folder / "validation_predictions.jsonl", TAGGING)
    assert not any("-DOCSTART-" in text or text.count(" ") > 2 for text in recorded[0])
    output = ["--input_file", str(files["validation"]), "--output_file", str(tmp_path / "out.jsonl")]
    predict.main([*model, *output, "--document_context", "1", "--use_cpu", "true"])
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [" ".join(row["tokens"]) for row in rows] == list(recorded[0])
    found = [[Span(e["start"], e["end"], e["entity_group"]) for e in row["entities"]] for row in rows]
    assert found == list(recorded[2])

    data = ["--validation_file", str(files["validation"]), "--output_dir", str(tmp_path / "analysis")]
    analyze.main([*model, *data, "--document_context", "1"])
    analysis = json.loads((tmp_path / "analysis" / "analysis.json").read_text(encoding="utf-8"))
    assert analysis["scores"]["F1"] == pytest.approx(scores["1"])
