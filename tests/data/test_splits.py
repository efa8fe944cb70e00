import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from bilstm_crf_hf.data.classification import load_classification_datasets
from bilstm_crf_hf.data.splits import SourceArguments, SplitArguments, load_splits, open_splits, read_splits


def write(path: Path, *texts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text, "label": "NA"}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["v[12]", "v*", "v?", "corpus"])
def test_the_files_of_a_folder_are_read_as_they_stand_and_not_those_beside_it(tmp_path, name):
    for folder, text in (("v1", "틀림"), (name, "NA")):
        write(tmp_path / folder / "train.jsonl", text, "007")
        write(tmp_path / folder / "test.JSONL", "2024-01-02")
    datasets = load_classification_datasets(str(tmp_path / name))
    assert {split: list(rows["text"]) for split, rows in datasets.items()} == {
        "train": ["NA", "007"],
        "test": ["2024-01-02"],
    }
    assert datasets["train"].features["label"].names == ["NA"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset_name": "klue"}, "dataset_name: for a data set on the Hub, not for"),
        ({"dataset_config_name": "ner", "dataset_revision": "main"}, "dataset_config_name and dataset_revision: for"),
        ({"validation_split": "test"}, "validation_split names a split of a data set on the Hub"),
    ],
)
@pytest.mark.parametrize("source", ["files", "the sample"])
def test_what_is_for_a_data_set_on_the_hub_is_refused_with_files(given, message, source):
    files = {"train_file": "a.txt"} if source == "files" or "dataset_name" in given else {}
    with pytest.raises(ValueError, match=message):
        read_splits(pytest.fail, SplitArguments(**files, **given), {"train": Path("sample.txt")}, set())


def test_folders_of_shards_are_splits(tmp_path):
    (tmp_path / "train").mkdir()
    write(tmp_path / "validation.jsonl", "가")
    sources = open_splits(str(tmp_path), None, None, None)
    assert {split: data for split, (_, data) in sources.items()} == {
        "train": tmp_path / "train",
        "validation": tmp_path / "validation.jsonl",
    }


def test_what_is_no_folder_of_splits_is_refused(tmp_path):
    file = write(tmp_path / "a" / "rows.jsonl", "가")
    for path in (file, file.parent):
        with pytest.raises(ValueError, match="expected a folder with one file train.*, found none: name the files"):
            open_splits(str(path), None, None, None)
    write(tmp_path / "b" / "train.jsonl", "가")
    write(tmp_path / "b" / "train.csv", "가")
    with pytest.raises(ValueError, match=r"b: expected .* found train\.csv, train\.jsonl: name the files"):
        open_splits(str(tmp_path / "b"), None, None, None)
    with pytest.raises(ValueError, match="dataset_config_name goes with dataset_name, a data set on the Hub"):
        open_splits(str(write(tmp_path / "c" / "train.jsonl", "가").parent), "ner", None, None)


def test_validation_and_test_are_drawn_from_one_file(tmp_path):
    names = [str(i) for i in range(205)]
    train = str(write(tmp_path / "train.jsonl", *names))

    def split(**percentages):
        arguments = SourceArguments(train_file=train, **percentages)
        splits = load_splits(load_classification_datasets, arguments, {})
        return {name: list(rows["text"]) for name, rows in splits.items()}

    both = split(validation_split_percentage=10, test_split_percentage=10)
    assert {name: len(rows) for name, rows in both.items()} == {"train": 163, "validation": 21, "test": 21}
    assert sorted(sum(both.values(), [])) == sorted(names)
    assert both == split(validation_split_percentage=10, test_split_percentage=10)
    assert both["validation"] == split(validation_split_percentage=10)["validation"]
    with pytest.raises(ValueError, match="there is a test split: leave out test_split_percentage"):
        split(validation_split_percentage=10, test_split_percentage=10, test_file=train)
    with pytest.raises(ValueError, match="100 % of the train split would be held out"):
        split(validation_split_percentage=90, test_split_percentage=10)
    with pytest.raises(ValueError, match="test_split_percentage must be between 0 and 100, got 0"):
        split(test_split_percentage=0)


def test_a_folder_of_save_to_disk_is_a_data_set(tmp_path):
    rows = {"text": ["NA", "007"], "label": ["a", "b"]}
    DatasetDict(train=Dataset.from_dict(rows), test=Dataset.from_dict(rows)).save_to_disk(tmp_path / "saved")
    datasets = load_classification_datasets(str(tmp_path / "saved"))
    assert {split: list(dataset["text"]) for split, dataset in datasets.items()} == dict.fromkeys(
        ("train", "test"), ["NA", "007"]
    )
    (file,) = (tmp_path / "saved" / "test").glob("*.arrow")
    file.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"saved: the data set cannot be read .*: save it again with save_to_disk"):
        load_classification_datasets(str(tmp_path / "saved"))


def test_the_same_rows_are_held_out_by_every_command(tmp_path):
    """Drawn from the train split, and then taken out of it."""
    names = [str(i) for i in range(40)]
    train = str(write(tmp_path / "train.jsonl", *names))
    splits = [
        load(load_classification_datasets, arguments(train_file=train, validation_split_percentage=10), {}, *needed)
        for load, arguments, needed in (
            (read_splits, SplitArguments, [{"validation"}]),
            (load_splits, SourceArguments, []),
        )
    ]
    held_out, rest = ([list(each[split]["text"]) for each in splits] for split in ("validation", "train"))
    assert held_out[0] == held_out[1]
    assert len(held_out[0]) == 4
    assert sorted(held_out[0] + rest[0]) == sorted(names)
