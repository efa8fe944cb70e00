"""Variants of a configuration, trained one after the other."""

import json
from pathlib import Path
from statistics import mean, stdev

import pytest
import yaml

from bilstm_crf_hf.commands import sweep as recipe
from bilstm_crf_hf.data.ner import load_ner_datasets
from bilstm_crf_hf.data.splits import SourceArguments, load_splits
from bilstm_crf_hf.training.config_files import argument_of, read_entries

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = {"embedding_size": 16, "hidden_size": 16, "ngram_buckets": 256, "ngram_embedding_size": 8}
BASE = {"num_train_epochs": 1, "learning_rate": 0.01, "use_cpu": True, "config_overrides": SMALL}
SAMPLE = ("--", "--max_train_samples", "64", "--validation_split_percentage", "2")


def write(folder: Path, sweep) -> Path:
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    return folder / "sweep.yaml"


def test_runs_differ_in_their_arguments_and_the_table_has_them_all(tmp_path, monkeypatch):
    runs = {"default": {}, "no-ngrams": {"config_overrides": {"ngrams": []}}}
    path = write(tmp_path, {"config": "base.yaml", "runs": runs})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    recipe.main([str(path), "--seeds", "1", "2", "--output_dir", str(tmp_path / "out"), *SAMPLE], RECIPES)
    lines = (tmp_path / "out" / "sweep.md").read_text().splitlines()
    assert lines[0] == "| run | parameters | minutes | F1 | ± F1 | macro F1 | ± macro F1 |"
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in (line.split("|") for line in lines[2:])
    }
    assert set(rows) == set(runs)
    for name, cells in rows.items():
        folders = [tmp_path / "out" / f"{name}-seed{seed}" for seed in (1, 2)]
        results = [json.loads((folder / "all_results.json").read_text()) for folder in folders]
        assert [result["seed"] for result in results] == [1, 2]
        assert {(result["train_sentences"], result["validation_sentences"]) for result in results} == {(64, 22)}
        assert cells[0] == f"{results[0]['parameters']:,}"
        for i, key in ((2, "eval_f1"), (4, "eval_klue_entity_macro_f1")):
            scores = [result[key] for result in results]
            assert cells[i : i + 2] == [f"{mean(scores):.4f}", f"{stdev(scores):.4f}"]
    assert rows["default"][0] != rows["no-ngrams"][0]
    finished = [path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/all_results.json")]
    recipe.main([str(path), "--seeds", "1", "2", "--output_dir", str(tmp_path / "out"), *SAMPLE], RECIPES)
    assert finished == [path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/all_results.json")]


@pytest.mark.parametrize(
    ("sweep", "error", "message"),
    [
        ({"config": "base.yaml"}, ValueError, "expected `config`, a file, and `runs`"),
        ({"config": "base.yaml", "runs": ["default"]}, ValueError, "expected `config`, a file, and `runs`"),
        ({"config": "base.yaml", "runs": {}}, ValueError, "expected `config`, a file, and `runs`"),
        ({"config": "base.yaml", "runs": {"a/b": {}}}, ValueError, "runs: a/b: a name must not contain a slash"),
        ({"config": ["base.yaml"], "runs": {"a": {}}}, ValueError, "expected `config`, a file, and `runs`"),
        ({"config": "base.yaml", "runs": {"a": {"seed": 7}}}, ValueError, "runs: a: seed is set for each run"),
        ({"config": "base.yaml", "runs": {"wide": None}}, ValueError, "runs: wide: expected arguments"),
        ({"config": "nowhere.yaml", "runs": {"default": {}}}, FileNotFoundError, "nowhere.yaml"),
    ],
)
def test_broken_files_are_refused(tmp_path, sweep, error, message):
    with pytest.raises(error, match=message):
        recipe.read_sweep(write(tmp_path, sweep))


def test_values_of_a_run_stay_as_they_stand_in_its_file(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "save_strategy: no\nseed: 010\nconfig_overrides: {hidden_size: 64, word_dropout: 0}"
    )
    (tmp_path / "sweep.yaml").write_text(
        "config: base.yaml\nruns:\n  1: {eval_strategy: no, config_overrides: {hidden_size: 1e2, name: no}}"
    )
    run = recipe.read_sweep(tmp_path / "sweep.yaml")["1"]
    assert run == {
        "save_strategy": "no", "seed": "010", "eval_strategy": "no",
        "config_overrides": {"hidden_size": 100.0, "word_dropout": 0, "name": "no"},
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    entries = read_entries(tmp_path / "run.yaml")
    assert {name: argument_of(node, tmp_path) for name, node in entries.items()} == run


def test_options_that_a_sweep_sets_itself_are_refused(tmp_path):
    path = write(tmp_path, {"config": "base.yaml", "runs": {"default": {}}})
    for option in ("--seed", "--output_dir=x", "--output-dir"):
        with pytest.raises(ValueError, match="is set for each run: name it before `--`"):
            recipe.main([str(path), "--output_dir", str(tmp_path / "out"), "--", option, "7"], RECIPES)
    with pytest.raises(SystemExit):
        recipe.main([str(path), "--seeds", "7", "7"], RECIPES)


def test_a_part_of_the_training_set_takes_the_place_of_the_validation_split(tmp_path):
    """The same part for every seed of a training, and nothing of it is trained on."""
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(f'{{"tokens": ["{chr(0xAC00 + i)}"], "ner_tags": ["B-LC"]}}\n' for i in range(50)))
    arguments = SourceArguments(train_file=str(path), validation_split_percentage=20)
    splits = load_splits(load_ner_datasets, arguments, {})
    train, validation = (set(splits[split]["text"]) for split in ("train", "validation"))
    assert (len(train), len(validation), len(train | validation)) == (40, 10, 50)
    assert set(load_splits(load_ner_datasets, arguments, {})["validation"]["text"]) == validation


@pytest.mark.parametrize("percentage", [0, 100, -5])
def test_a_percentage_is_one(percentage):
    with pytest.raises(ValueError, match=f"validation_split_percentage must be between 0 and 100, got {percentage}"):
        SourceArguments(validation_split_percentage=percentage)
