"""Cards, whole, and what the Hub reads of them, from the files that a run leaves."""

import ast
import csv
import json
import re
import shlex
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from packaging.requirements import Requirement

from bilstm_crf_hf.evaluation.markdown import escape_markdown
from bilstm_crf_hf.evaluation.runs import TRAINING_RUN
from bilstm_crf_hf.hub.model_card import check_card, eval_results_yaml, render_card
from bilstm_crf_hf.training.arguments import CardArguments

ARGUMENTS = {
    "model_name_or_path": None,
    "tokenizer_name": None,
    "embeddings_from": None,
    "config_overrides": {"hidden_size": 256, "word_dropout": 0.0, "ngrams": []},
    "min_frequency": 2,
    "freeze_embeddings": False,
    "dataset_name": "klue",
    "dataset_config_name": "ner",
    "language": "ko",
    "license": "cc-by-sa-4.0",
    "dataset_description": "KLUE-NER; CC BY-SA 4.0.",
    "base_model": None,
}
RESULTS = {
    "parameters": 1234567,
    "epochs": 2,
    "seconds_per_epoch": 30.4,
    "train_seconds": 61.2,
    "seed": 42,
    "train_sentences": 20000,
    "validation_sentences": 4500,
    "eval_loss": 2.5,
    "eval_f1": 0.81234,
    "eval_precision": 0.82,
    "eval_recall": 0.80482,
    "eval_PS_f1": 0.9,
    "eval_PS_precision": 0.91,
    "eval_PS_recall": 0.8902,
    "eval_PS_number": 3987.0,
}
CARD = """\
# klue-ner

`BiLSTMCRFForTokenClassification`, a bidirectional LSTM with a linear-chain CRF: 1,234,567 parameters. It finds entities of the types LC, PS. Trained with bilstm_crf_hf.

## Use

```python
from transformers import pipeline

tagger = pipeline("token-classification", model="someone/klue-ner", revision="v2", trust_remote_code=True)
print(tagger("손흥민은 1992년 7월 8일 춘천에서 태어났다."))
```

The repository contains the model's code, which only needs `pip install {packages}`.
`trust_remote_code` runs this code: read it first, and keep `revision` fixed.

## Results

On the validation split (4,500 texts):

| score | value | definition |
|---|---:|---|
| F1 | 0.8123 | entities on characters, strict (type and both ends), micro average |
| precision | 0.8200 | of these entities |
| recall | 0.8048 | of these entities |

| entity type | precision | recall | F1 | gold |
|---|---:|---:|---:|---:|
| PS | 0.9100 | 0.8902 | 0.9000 | 3,987 |

The validation split selected the best of 2 epochs, so the scores on that split are slightly too high.

## Training

KLUE-NER; CC BY-SA 4.0.

20,000 texts, 2 epochs of 30 s, 61 s in all (without evaluation), on a machine, 2 cores, seed 42; python 3.11, torch 2.13.

| setting | value |
|---|---|
| `learning_rate` | 0.002 |
| `min_frequency` | 2 |
| `hidden_size` | 256 |
| `word_dropout` | 0.0 |
| `ngrams` | \\[\\] |

## Limitations

- The model only knows the entity types above, as they are annotated in its training data.
"""  # noqa: E501


def finished_run(folder: Path, arguments: dict | None = None, results: dict | None = None, **config) -> Path:
    folder.mkdir(exist_ok=True)
    tagger = {
        "architectures": ["BiLSTMCRFForTokenClassification"],
        "model_type": "bilstm_crf",
        "auto_map": {
            "AutoConfig": "configuration_bilstm_crf.BiLSTMCRFConfig",
            "AutoModelForTokenClassification": "modeling_bilstm_crf.BiLSTMCRFForTokenClassification",
        },
        "id2label": {"0": "B-PS", "1": "I-PS", "2": "B-LC", "3": "I-LC", "4": "O"},
    }
    run = {
        "arguments": ARGUMENTS | (arguments or {}),
        "hyperparameters": {"learning_rate": 0.002},
        "hardware": "a machine, 2 cores",
        "versions": {"python": "3.11", "torch": "2.13"},
    }
    for name, content in {
        "config.json": tagger | config,
        "all_results.json": RESULTS | (results or {}),
        TRAINING_RUN: run,
    }.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def classifier_run(folder: Path) -> Path:
    scores = {
        "eval_accuracy": 0.84,
        "eval_macro_f1": 0.8375,
        "test_loss": 0.4,
        "test_accuracy": 0.835,
        "test_sentences": 500,
    }
    return finished_run(
        folder,
        {"dataset_name": "e9t/nsmc", "dataset_config_name": None, "examples": ["또 보고 싶다"]},
        scores,
        architectures=["BertForSequenceClassification"],
        model_type="bert",
        id2label={"0": "부정", "1": "긍정"},
        auto_map={},
    )


def written(card: ModelCard, folder: Path) -> ModelCard:
    """The card as whoever downloads it reads it."""
    card.save(folder / "README.md")
    return ModelCard.load(folder / "README.md")


def test_the_whole_card(tmp_path):
    card = render_card(finished_run(tmp_path), "someone/klue-ner", "v2")
    install = re.search("needs `pip install (.+)`", card.text)[1]
    assert card.text.strip().startswith(CARD.strip().replace("{packages}", install))
    assert card.text.rstrip().endswith("It may differ from the share of such predictions that are right.")


def test_the_libraries_of_a_card_are_those_of_the_package(tmp_path):
    """With its versions, as pip reads them."""
    text = render_card(finished_run(tmp_path), "someone/klue-ner", "v2").text
    shown = [Requirement(word) for word in shlex.split(re.search("needs `pip install (.+)`", text)[1])]
    required = {each.name: each.specifier for each in map(Requirement, requires("bilstm-crf-hf"))}
    assert [each.name for each in shown] == ["transformers", "torch", "pytorch-crf", "safetensors"]
    assert {each.name: each.specifier for each in shown}.items() <= required.items()
    assert required["transformers"]


def test_what_the_hub_reads(tmp_path):
    data = written(render_card(finished_run(tmp_path), "someone/klue-ner", "v1"), tmp_path).data
    assert (data.language, data.license, data.pipeline_tag, data.library_name) == (
        "ko", "cc-by-sa-4.0", "token-classification", "transformers"
    )  # fmt: skip
    assert data.datasets == ["klue"]
    assert data.metrics == ["f1", "precision", "recall"]
    assert {"bilstm_crf_hf", "bilstm_crf", "korean"} == set(data.tags)
    assert data.base_model is None
    assert all(any("가" <= c <= "힣" for c in sentence["text"]) for sentence in data.widget)
    values = {result.metric_name.partition(" (")[0]: result.metric_value for result in data.eval_results}
    assert values == {"F1": 0.81234, "precision": 0.82, "recall": 0.80482}
    for result in data.eval_results:
        assert (result.dataset_type, result.dataset_config, result.dataset_split) == ("klue", "ner", "validation")
        assert result.metric_name.endswith(")")  # its definition


def test_scores_for_the_hubs_leaderboards(tmp_path):
    entries = yaml.safe_load(eval_results_yaml(finished_run(tmp_path)))
    assert [(e["dataset"]["id"], e["dataset"]["task_id"], e["value"]) for e in entries] == [
        ("klue", "ner", RESULTS[f"eval_{name}"]) for name in ("f1", "precision", "recall")
    ]
    assert entries[0]["notes"].startswith("F1, validation split: entities on characters, strict")
    assert eval_results_yaml(finished_run(tmp_path, {"dataset_name": None})) is None


def test_a_classifier_has_its_own_task_sentences_and_test_split(tmp_path):
    card = written(render_card(classifier_run(tmp_path), "someone/nsmc", "v1"), tmp_path)
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.widget == [{"text": "또 보고 싶다"}]
    assert 'classifier = pipeline("text-classification", model="someone/nsmc", revision="v1")\n' in card.text
    assert "trust_remote_code" not in card.text
    assert "assigns one of the classes 긍정, 부정" in card.text
    assert "On the test split (500 texts):" in card.text
    splits = [(r.dataset_split, r.metric_type, r.metric_value) for r in card.data.eval_results]
    assert splits == [("validation", "accuracy", 0.84), ("validation", "f1", 0.8375), ("test", "accuracy", 0.835)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"model_name_or_path": "klue/bert-base"}, "klue/bert-base"),
        ({"embeddings_from": "klue/bert-base"}, "klue/bert-base"),
        ({"model_name_or_path": "{folder}"}, None),
        ({"model_name_or_path": "../enc/e5"}, None),
        ({"model_name_or_path": "~/enc/e5"}, None),
        ({"model_name_or_path": "{folder}", "base_model": "klue/bert-base"}, "klue/bert-base"),
    ],
)
def test_base_model_is_the_encoder_if_that_is_on_the_hub(tmp_path, arguments, expected):
    arguments = {name: value.format(folder=tmp_path) for name, value in arguments.items()}
    card = written(render_card(finished_run(tmp_path, arguments), "someone/bert", "v1"), tmp_path)
    assert card.data.base_model == expected
    assert str(tmp_path) not in str(card)
    assert "min_frequency" not in card.text  # of a tokenizer that is not new


def test_data_that_are_not_on_the_hub_are_custom(tmp_path):
    arguments = {"dataset_name": None, "dataset_config_name": None, "dataset_description": None}
    card = written(render_card(finished_run(tmp_path, arguments), "someone/mine", "v1"), tmp_path)
    assert card.data.datasets is None
    assert {result.dataset_type for result in card.data.eval_results} == {"custom"}
    assert "\nFiles of the author.\n" in card.text


def test_what_a_model_that_reads_morphemes_needs(tmp_path):
    text = render_card(finished_run(tmp_path, {"read_morphemes": True}, read_morphemes=True), "a/b", "v1").text
    assert "Kiwi 0.21 or later: `pip install kiwipiepy`. Without" in text
    assert "| `read_morphemes` | True |" in text
    assert "kiwipiepy" not in render_card(finished_run(tmp_path), "a/b", "v1").text


def test_a_part_of_the_training_set_is_not_called_the_validation_split(tmp_path):
    folder = finished_run(tmp_path, {"validation_split_percentage": 10})
    card = written(render_card(folder, "a/b", "v1"), tmp_path)
    assert "On the train (10 % held out) split (4,500 texts):" in card.text
    assert {result.dataset_split for result in card.data.eval_results} == {"train (10 % held out)"}
    assert "train (10 % held out) split" in eval_results_yaml(folder)


def test_a_card_says_that_sentences_were_read_within_their_documents(tmp_path):
    without = render_card(finished_run(tmp_path / "a"), "a/b", "v1").text
    card = render_card(finished_run(tmp_path / "b", {"document_context": 2}), "a/b", "v1").text
    assert "| `document_context` | 2 |" in card
    assert "read with up to 2 neighbours of the same document on either side" in card
    assert "document" not in without


def test_a_card_says_how_and_how_well_scores_are_calibrated(tmp_path):
    """Also before a test split is measured, but not for another temperature than the one of the model."""
    measured = {"sentences": 1042, "without": {"ECE": 0.04}, "with": {"ECE": 0.01234}}
    record = {"temperature": 1.3, "source": "train (5 % held out)", "validation": measured}
    folder = finished_run(tmp_path, results={"calibration": record}, temperature=1.3)
    fitted = (
        "- `score` is calibrated: scores are divided by a temperature of 1.3, fitted on the train (5 % held out) split "
        "(1,042 texts). The expected calibration error is "
    )
    without = "and {} without the temperature."
    card = str(render_card(folder, "a/b", "v1"))
    assert f"{fitted}0.0123 on the same split (1,042 texts), {without.format('0.0400')}" in card
    assert "It may differ" not in card

    record["test"] = {"sentences": 4500, "without": {"ECE": 0.05}, "with": {"ECE": 0.02}}
    results = {"results": {"calibration": record}}
    card = str(render_card(finished_run(tmp_path, **results, temperature=1.3), "a/b", "v1"))
    assert f"{fitted}0.0200 on the test split (4,500 texts), {without.format('0.0500')}" in card
    assert "is calibrated" not in str(render_card(finished_run(tmp_path, **results, temperature=1.0), "a/b", "v1"))


@pytest.mark.parametrize(
    ("count", "expected"), [(0, None), (1, None), (2, "the best of 2 epochs"), (8, "the best of 8 evaluations")]
)
def test_a_card_says_from_how_many_evaluations_the_weights_were_selected(tmp_path, count, expected):
    card = str(render_card(finished_run(tmp_path, results={"selected_from": count}), "name/model", "v1"))
    assert ("The validation split selected" in card) == (expected is not None)
    assert expected is None or expected in card


def test_a_comparison_becomes_a_table(tmp_path):
    row = {"mean F1": 0.8, "parameters": 9600000, "training, s": 223.4, "sentences a second": 905.7, "file, MB": 38.4}
    with (tmp_path / "systems.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["system", "runs", *row])
        writer.writeheader()
        writer.writerow({"system": "klue_ner", "runs": 3} | row)
    text = render_card(finished_run(tmp_path), "someone/klue-ner", "v1", comparison=tmp_path).text
    assert "| system | runs | mean F1 | parameters | training, s | sentences a second |" in text
    assert r"| klue\_ner | 3 | 0.8000 | 9,600,000 | 223 | 906 |" in text
    with pytest.raises(FileNotFoundError, match="systems.csv: no such file. Name the output folder of a comparison"):
        render_card(tmp_path, "someone/klue-ner", "v1", comparison=tmp_path / "nowhere")


def test_a_card_with_other_figures_is_refused(tmp_path):
    card = written(render_card(finished_run(tmp_path), "someone/klue-ner", "v1"), tmp_path)
    check_card(card, RESULTS, tmp_path / "README.md")
    with pytest.raises(ValueError, match=r"README.md: F1 .* is 0.81234, which is not in all_results.json"):
        check_card(card, RESULTS | {"eval_f1": 0.8}, tmp_path / "README.md")


@pytest.mark.parametrize("name", ["config.json", "all_results.json", TRAINING_RUN])
def test_a_folder_without_a_file_is_no_finished_run(tmp_path, name):
    (finished_run(tmp_path) / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}: no such file. Name the folder of a finished run"):
        render_card(tmp_path, "someone/klue-ner", "v1")


@pytest.mark.parametrize("architectures", [["BiLSTMCRFModel"], None])
def test_a_model_without_a_head_has_no_card(tmp_path, architectures):
    with pytest.raises(ValueError, match="is neither a token classifier nor a text classifier"):
        render_card(finished_run(tmp_path, architectures=architectures), "someone/klue-ner", "v1")


def test_the_arguments_of_a_card_are_those_that_runs_have():
    assert set(CardArguments.__dataclass_fields__) <= set(ARGUMENTS)


EVIL = "a\n---\n<img src=x onerror=alert(1)> | `b` [c](javascript:1) \"'{{ 7 * 7 }}"


def test_names_and_labels_of_others_never_become_markup_code_or_metadata(tmp_path):
    """Read back with parsers of YAML, Markdown and Python."""
    named = ("dataset_name", "dataset_config_name", "license", "language", "dataset_description")
    arguments = dict.fromkeys(named, EVIL) | {"examples": [EVIL], "config_overrides": {EVIL: EVIL}, "base_model": EVIL}
    scores = {f"eval_{EVIL}_{name}": 0.5 for name in ("f1", "precision", "recall", "number")}
    labels = {"0": f"B-{EVIL}", "1": f"I-{EVIL}", "2": "O"}
    folder = finished_run(tmp_path, arguments, scores, id2label=labels)
    run = json.loads((folder / TRAINING_RUN).read_text(encoding="utf-8"))
    run |= {"hardware": EVIL, "versions": {EVIL: EVIL}}
    (folder / TRAINING_RUN).write_text(json.dumps(run), encoding="utf-8")

    card = written(render_card(folder, "someone/mine", EVIL), tmp_path)
    assert (card.data.license, card.data.language, card.data.base_model) == (EVIL, EVIL, EVIL)
    assert card.data.widget == [{"text": EVIL}]
    assert yaml.safe_load(eval_results_yaml(folder) or "[]") == []
    assert card.text.lstrip().startswith("# mine\n")
    tokens = MarkdownIt("commonmark").enable("table").parse(card.text)
    inline = [child for token in tokens for child in token.children or ()]
    assert not [
        token for token in (*tokens, *inline) if token.type in ("html_block", "html_inline", "image", "link_open")
    ]
    cells = [token.content for token in tokens if token.type == "inline"]
    assert cells.count(escape_markdown(EVIL).replace(r"\|", "|")) == 2  # the label and the value of a setting
    (snippet,) = [token.content for token in tokens if token.type == "fence"]
    strings = [node.value for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Constant)]
    assert set(strings) == {"token-classification", "someone/mine", EVIL, True}
    assert sum(token.type == "table_open" for token in tokens) == 3


def test_a_card_links_to_where_its_data_come_from(tmp_path):
    arguments = {"dataset_description": "[KLUE](https://klue-benchmark.com), *news* <b>"}
    text = render_card(finished_run(tmp_path, arguments), "a/b", "v1").text
    assert "\n[KLUE](https://klue-benchmark.com), *news* &lt;b>.\n" in text
